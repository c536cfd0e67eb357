// SPDX-License-Identifier: MIT OR Apache-2.0

use tests::difffuzz::{Options, Outcome, arguments, messages};
use tests::programs;

#[track_caller]
fn check_same(outcome: Result<Outcome, String>, count: u64) {
    match outcome.expect("the inputs can be compared") {
        Outcome::Same { inputs, .. } => assert_eq!(inputs, count),
        Outcome::Different(difference) => panic!("{difference}"),
    }
}

#[test]
fn the_server_answers_random_input_as_qemu_does() {
    if programs::find("qemu-storage-daemon", "apt install qemu-utils").is_none() {
        return;
    }
    let options = Options { count: 10_000, seed: 1, jobs: 1 };
    check_same(messages::run(&options, true), options.count);
}

#[test]
fn the_server_finds_the_mistakes_in_arguments_that_qemu_finds() {
    if let Some(obstacle) = arguments::obstacle() {
        // Not a failure, ever: QEMU's machines are no requirement.
        return eprintln!("skipped, {obstacle}");
    }
    let options = Options { count: 3000, seed: 1, jobs: 1 };
    check_same(arguments::run(&options), options.count);
}
