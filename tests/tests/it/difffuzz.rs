// SPDX-License-Identifier: MIT OR Apache-2.0

use qmp_proto::Dialect;
use tests::difffuzz::{Options, Outcome, arguments, messages};
use tests::programs::Oracle;

#[track_caller]
fn check_same(outcome: Result<Outcome, String>, count: u64) {
    match outcome.expect("the inputs can be compared") {
        Outcome::Same { inputs, .. } => assert_eq!(inputs, count),
        Outcome::Different(difference) => panic!("{difference}"),
    }
}

/// The dialects whose QEMU has this program; for the others, the calling test is skipped.
fn dialects(program: &str) -> impl Iterator<Item = Dialect> {
    Dialect::ALL.into_iter().filter(|&dialect| Oracle::of(dialect).program(program).is_some())
}

#[test]
fn the_server_answers_random_input_as_qemu_does() {
    for dialect in dialects("qemu-storage-daemon") {
        let options = Options { count: 10_000, seed: 1, jobs: 1 };
        check_same(messages::run(dialect, &options, true), options.count);
    }
}

#[test]
fn the_server_finds_the_mistakes_in_arguments_that_qemu_finds() {
    for dialect in dialects("qemu-system-x86_64") {
        let options = Options { count: 3000, seed: 1, jobs: 1 };
        check_same(arguments::run(dialect, &options), options.count);
    }
}
