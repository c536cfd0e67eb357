// SPDX-License-Identifier: MIT OR Apache-2.0
//! The recorded cases.

use std::process::Command;

use qmp_proto::Dialect;
use tests::conformance::case::Need;
use tests::conformance::our_server::{OurServer, Transport};
use tests::conformance::runner::{Count, Options, run, with_deep_stack};
use tests::conformance::selection::Glob;
use tests::conformance::target::Launch;
use tests::process::{Finished, run as run_program};
use tests::server::{self, Server};
use tests::upstream::Program;

/// All cases of a dialect must pass that can be run over this transport; there must be at least `at_least` of them.
#[track_caller]
fn check(dialect: Dialect, over: Transport, at_least: usize) {
    let program = server::program().to_owned();
    let server = OurServer { program, over, dialect };
    let mut options = Options::new(dialect, Launch::Ours(server));
    options.selection.without.insert(Need::QemuTiming);
    check_options(options, at_least);
}

/// The dialects differ independently of the transport, so one of them is enough here.
#[track_caller]
fn check_transport(over: Transport, at_least: usize) {
    check(Dialect::default(), over, at_least);
}

/// The number of cases that are only of 11.1.
const NEW: usize = 160;

/// All cases that pass on this program of QEMU must pass through the mux, except those with an id that is not JSON, and those
/// about the size of messages, which the mux changes with its ids.
#[track_caller]
fn check_through_mux(program: Program, without: &[Need], at_least: usize) {
    for (dialect, new) in Dialect::ALL.into_iter().zip([0, NEW]) {
        let Some(upstream) = program.command_of(dialect, "{sock}") else { continue };
        let mux = server::program().to_owned();
        let mut options = Options::new(dialect, Launch::Through { mux, upstream });
        options.selection.without.extend(without);
        let except = ["sizes/*"];
        options.selection.except = except.map(|glob| Glob::new(glob).expect("a pattern")).into();
        check_options(options, at_least + new);
    }
}

#[track_caller]
fn check_options(options: Options, at_least: usize) {
    let options = Options {
        deviations: vec![Options::own_deviations()],
        step_limit: server::LIMIT,
        patience: server::LIMIT,
        ..options
    };
    let mut report = Vec::new();
    let summary = with_deep_stack(|| run(&options, &mut report)).expect("the cases can be run");
    let report = String::from_utf8_lossy(&report);
    let Count { passed, failed } = summary.total();
    assert_eq!(failed, 0, "{report}");
    assert!(passed >= at_least, "only {passed} cases: {report}");
}

#[test]
fn the_reference_machine_passes_every_case() {
    for (dialect, new) in Dialect::ALL.into_iter().zip([0, NEW]) {
        check(dialect, Transport::Unix, 740 + new);
    }
}

#[test]
fn every_case_passes_over_inherited_descriptors() {
    check_transport(Transport::Fd, 740 + NEW);
}

#[test]
fn every_case_without_descriptors_passes_over_tcp() {
    check_transport(Transport::Tcp, 700 + NEW);
}

#[test]
fn every_case_without_descriptors_passes_over_tls() {
    check_transport(Transport::Tls, 700 + NEW);
}

#[test]
fn every_case_of_one_connection_passes_over_standard_input_and_output() {
    check_transport(Transport::Stdio, 690 + NEW);
}

#[test]
fn what_passes_on_the_storage_daemon_passes_through_the_mux() {
    check_through_mux(Program::StorageDaemon, &[Need::Machine, Need::QemuTiming], 525);
}

#[test]
fn what_passes_on_qemu_passes_through_the_mux() {
    check_through_mux(Program::Emulator, &[], 740);
}

/// Runs the runner's program with an empty standard input.
fn runner(arguments: &[&str]) -> Finished {
    let mut command = Command::new(env!("CARGO_BIN_EXE_conformance"));
    run_program(command.args(arguments), "", 5 * server::LIMIT).unwrap()
}

#[test]
fn a_server_that_fails_gets_a_line_for_each_case_and_a_report_for_ci() {
    let server = Server::start();
    let dir = tempfile::tempdir().unwrap();
    let [cases, junit] =
        ["cases.jsonl", "junit.xml"].map(|name| dir.path().join(name).display().to_string());
    let long = "x".repeat(5000);
    let send = |text: &str| format!(r#"{{"send": "{{'execute': '{text}', 'id': 1}}"}}"#);
    let case = |name: &str, steps: &str| {
        format!(r#"{{"name": "{name}", "category": "own", "steps": [{steps}]}}"#)
    };
    let lines = [
        case("good", &format!(r#"{}, {{"expect": {{"<contains>": []}}}}"#, send("query-name"))),
        case("right", &format!(r#"{}, {{"expect": "<object>"}}"#, send("query-name"))),
        case("other", &format!(r#"{}, {{"expect": {{"id": 2}}}}"#, send(&long))),
        case("none", r#"{"send": "["}, {"half_close": true}, {"expect": "<any>"}"#),
        case("slow", "").replace(r#""steps""#, r#""slow": true, "steps""#),
    ];
    std::fs::write(&cases, lines.join("\n")).unwrap();
    let server = format!("unix:{}", server.socket().display());
    let options = ["--connect", &server, "--cases", &cases, "--junit", &junit];
    let finished = runner(&options);
    assert_eq!(finished.status.code(), Some(1), "{finished:#?}");
    let lines: Vec<_> = finished.stdout.lines().collect();
    let failures: Vec<_> = lines.iter().filter(|line| line.starts_with("FAIL ")).collect();
    assert_eq!(failures.len(), 3, "{finished:#?}");
    let starts = [
        "FAIL own/good: step 2: sent {'execute': 'query-name', 'id': 1}; expected ",
        "FAIL own/other: step 2: sent {'execute': 'xxxxx",
        "FAIL own/none: step 3: sent [; expected \"<any>\", received end of file (cases.jsonl:4)",
    ];
    for (line, start) in failures.iter().zip(starts) {
        assert!(line.starts_with(start), "{line}");
        assert!(line.contains("; expected ") && line.contains(", received "), "{line}");
        assert!(line.len() < 2000, "{} bytes", line.len());
    }
    assert_eq!(lines.last(), Some(&"1 passed, 3 failed"));
    assert_eq!(finished.stderr, "");
    let report = std::fs::read_to_string(&junit).unwrap();
    assert!(report.contains(r#" tests="5" failures="3" errors="0" skipped="1" "#), "{report}");
    let finished = runner(&[&options[..], &["--only", "own/right"]].concat());
    assert_eq!(finished.status.code(), Some(0), "{finished:#?}");
}

#[test]
fn a_mistake_in_the_command_line_of_the_runner_gets_one_line() {
    let nowhere = tempfile::tempdir().unwrap().path().join("none").display().to_string();
    let server = format!("unix:{nowhere}");
    for (arguments, expected) in [
        (&[][..], "--connect"),
        (&["--connect", "qmp.sock"], "expected unix:PATH or tcp:HOST:PORT"),
        (&["--connect", &server, "--dialect", "9"], "'9'"),
        (&["--connect", &server, "--spawn", "x"], "cannot be used with"),
        (&["--connect", &server, "--category", "obo"], "no category 'obo', there are "),
        (&["--connect", &server, "--only", "obo/*"], "no case"),
        (&["--connect", &server, "--cases", &nowhere], &nowhere),
        (&["--connect", &server, "--without", "tls"], "expected one of machine, "),
        (&["--connect", &server, "--patience", "0"], "cannot connect to unix:"),
    ] {
        let finished = runner(arguments);
        assert_eq!(finished.status.code(), Some(2), "{arguments:?}: {finished:#?}");
        assert_eq!(finished.stdout, "", "{arguments:?}");
        assert_eq!(finished.stderr.lines().count(), 1, "{arguments:?}: {}", finished.stderr);
        assert!(finished.stderr.contains(expected), "{arguments:?}: {}", finished.stderr);
    }
}

#[test]
fn categories_and_cases_are_listed_without_a_server() {
    let finished = runner(&["--categories"]);
    let names: Vec<_> = finished.stdout.lines().filter_map(|line| line.split(' ').next()).collect();
    assert!(names.contains(&"oob") && names.contains(&"location"), "{finished:#?}");
    let finished = runner(&["--list", "--dialect", "10.0", "--category", "oob"]);
    assert!(finished.stdout.lines().count() > 10, "{finished:#?}");
    assert!(finished.stdout.lines().all(|line| line.starts_with("oob/")), "{finished:#?}");
}
