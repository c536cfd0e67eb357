// SPDX-License-Identifier: MIT OR Apache-2.0

use qmp_proto::Dialect;
use tests::conformance::our_server::{OurServer, Transport};
use tests::conformance::runner::{Options, run, with_deep_stack};
use tests::conformance::selection::{Flavor, Glob};
use tests::conformance::target::Launch;
use tests::server;
use tests::upstream::Program;

/// All cases of a dialect must pass, but for those that cannot be run over this transport, which leaves `at_least` so
/// many.
#[track_caller]
fn check(dialect: Dialect, over: Transport, at_least: usize) {
    let program = server::program().to_owned();
    let server = OurServer { program, over, dialect };
    check_options(Options::new(dialect, Launch::Ours(server)), at_least);
}

/// What differs between the dialects is known before a transport is: one of them is enough here.
#[track_caller]
fn check_transport(over: Transport, at_least: usize) {
    check(Dialect::default(), over, at_least);
}

/// As many cases are only of 11.1.
const NEW: usize = 160;

/// All cases that pass on this program of QEMU's must pass through the mux, but for those with an id
/// that is no JSON, and those about the size of messages, as the mux has ids of its own.
#[track_caller]
fn check_through_mux(program: Program, flavor: Flavor, at_least: usize) {
    for (dialect, new) in Dialect::ALL.into_iter().zip([0, NEW]) {
        let Some(upstream) = program.command_of(dialect, "{sock}") else { continue };
        let mux = server::program().to_owned();
        let mut options = Options::new(dialect, Launch::Through { mux, upstream });
        options.selection.flavor = flavor;
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
    assert!(summary.failures.is_empty(), "{report}");
    assert!(summary.total.passed >= at_least, "only {} cases: {report}", summary.total.passed);
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
    check_through_mux(Program::StorageDaemon, Flavor::StorageDaemon, 525);
}

#[test]
fn what_passes_on_qemu_passes_through_the_mux() {
    check_through_mux(Program::Emulator, Flavor::Qemu, 740);
}
