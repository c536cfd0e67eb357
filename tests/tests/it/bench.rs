// SPDX-License-Identifier: MIT OR Apache-2.0
//! The benchmark runs, and prints the expected figures.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use tests::bench::{Scale, run_mux};
use tests::json::Json;
use tests::process::run;
use tests::programs::find;
use tests::server::{LIMIT, program};

#[test]
fn every_measurement_is_made_and_reported() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let mut bench = Command::new(env!("CARGO_BIN_EXE_bench-server"));
    bench.args(["--rounds", "1", "--slice", "1", "--clients", "4", "--monitors", "50", "--json"]);
    bench.arg(path("server.json")).env("QMP_BENCH_FIGURES", path("server.jsonl"));
    let finished = run(bench.env("QMP_SERVER_BIN", program()), "", 5 * LIMIT).unwrap();
    assert!(finished.status.success(), "{finished:?}");
    check_figures(&std::fs::read_to_string(path("server.json")).unwrap());
    check_report(directory.path());
}

#[track_caller]
fn check_figures(json: &str) {
    let json = Json::parse(json).unwrap();
    let sections = json.get("sections").and_then(Json::as_array).unwrap();
    let [one_core, all_cores, scaling] = sections else { panic!("three sections: {sections:?}") };
    let figures =
        |section: &Json| section.get("figures").and_then(Json::as_array).unwrap().to_vec();
    let point = |clients: &str| {
        let what = format!("{clients} clients, one asks");
        figures(scaling)
            .iter()
            .any(|figure| figure.get("what").and_then(Json::as_str) == Some(&what))
    };
    assert!(point("1") && point("10") && !point("100"));
    for section in [one_core, all_cores] {
        let figures = figures(section);
        assert!(figures.iter().all(|figure| matches!(figure.get("value"), Some(Json::Number(_)))));
        let of_ours =
            |figure: &&Json| figure.get("of").and_then(Json::as_str) == Some("qmp-server");
        assert_eq!(figures.iter().filter(of_ours).count(), 23);
        let targets = section.get("targets").and_then(Json::as_array).unwrap();
        let target = |what: &str| {
            let mut targets = targets.iter();
            targets.find(|target| target.get("what").and_then(Json::as_str) == Some(what)).unwrap()
        };
        let failures = target("100 connects: failures").get("value");
        assert_eq!(failures, Some(&Json::Number("0.000".to_owned())));
    }
}

/// Makes a report from the figures in a directory.
#[track_caller]
fn check_report(directory: &Path) {
    let read = |name: &str| std::fs::read_to_string(directory.join(name)).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_bench-report"));
    command.current_dir(directory).args(["--out", "out", "server.jsonl"]);
    let finished = run(&mut command, "", LIMIT).unwrap();
    assert!(finished.status.success(), "{finished:?}");
    for text in ["## server", "### one core", "qmp-server", "epoll echo", "| kernel |", "| rustc |"]
    {
        assert!(read("out/benchmarks.md").contains(text), "{text}");
    }
    assert!(read("out/latency.svg").contains("qmp-server, one asks"));
}

#[test]
fn the_mux_is_held_against_what_is_behind_it() {
    if find("qemu-storage-daemon", "apt-get install qemu-utils").is_none() {
        return;
    }
    let slice = Duration::from_millis(1);
    let program = env!("CARGO_BIN_EXE_bench-server").into();
    let report = run_mux(&Scale { rounds: 1, slice, ..Scale::default() }, program).unwrap();
    let json = Json::parse(&report.to_json()).unwrap();
    for section in json.get("sections").and_then(Json::as_array).unwrap() {
        let targets = section.get("targets").and_then(Json::as_array).unwrap();
        let is_number = |target: &Json| matches!(target.get("value"), Some(Json::Number(_)));
        assert!(targets.len() >= 4 && targets.iter().all(is_number), "{section}");
    }
}
