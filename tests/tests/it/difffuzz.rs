// SPDX-License-Identifier: MIT OR Apache-2.0

use qmp_proto::Dialect;
use tests::difffuzz::{Options, Outcome, arguments, messages};
use tests::oracle::{MACHINE, Oracle, STORAGE_DAEMON};

#[track_caller]
fn check_same(outcome: Result<Outcome, String>, count: u64) {
    match outcome.expect("the inputs can be compared") {
        Outcome::Same { inputs, .. } => assert_eq!(inputs, count),
        Outcome::Different(difference) => panic!("{difference}"),
    }
}

/// The dialects whose oracle has this program; the others are no requirement, and `cargo xtask test` unpacks them.
fn dialects(program: &str) -> impl Iterator<Item = Dialect> {
    Dialect::ALL.into_iter().filter(move |&dialect| {
        let found = Oracle::find(dialect, program);
        if let Err(obstacle) = &found {
            eprintln!("skipped, {obstacle}");
        }
        found.is_ok()
    })
}

#[test]
fn the_server_answers_random_input_as_qemu_does() {
    for dialect in dialects(STORAGE_DAEMON) {
        let options = Options { count: 10_000, seed: 1, jobs: 1 };
        check_same(messages::run(dialect, &options, true), options.count);
    }
}

#[test]
fn the_server_finds_the_mistakes_in_arguments_that_qemu_finds() {
    for dialect in dialects(MACHINE) {
        let options = Options { count: 3000, seed: 1, jobs: 1 };
        check_same(arguments::run(dialect, &options), options.count);
    }
}
