// SPDX-License-Identifier: MIT OR Apache-2.0

use tests::conformance::our_server::{OurServer, Transport};
use tests::conformance::runner::{Options, run, with_deep_stack};
use tests::conformance::target::Launch;
use tests::server;

/// All cases must pass, but for those that cannot be run over this transport; `at_least` are left.
#[track_caller]
fn check(over: Transport, at_least: usize) {
    let program = server::program().to_owned();
    let options = Options {
        deviations: vec![Options::own_deviations()],
        step_limit: server::LIMIT,
        patience: server::LIMIT,
        ..Options::new(Launch::Ours(OurServer { program, over }))
    };
    let mut report = Vec::new();
    let summary = with_deep_stack(|| run(&options, &mut report)).expect("the cases can be run");
    let report = String::from_utf8_lossy(&report);
    assert!(summary.failures.is_empty(), "{report}");
    assert!(summary.total.passed >= at_least, "only {} cases: {report}", summary.total.passed);
}

#[test]
fn the_reference_machine_passes_every_case() {
    check(Transport::Unix, 740);
}

#[test]
fn every_case_passes_over_inherited_descriptors() {
    check(Transport::Fd, 740);
}

#[test]
fn every_case_without_descriptors_passes_over_tcp() {
    check(Transport::Tcp, 700);
}

#[test]
fn every_case_without_descriptors_passes_over_tls() {
    check(Transport::Tls, 700);
}

#[test]
fn every_case_of_one_connection_passes_over_standard_input_and_output() {
    check(Transport::Stdio, 690);
}
