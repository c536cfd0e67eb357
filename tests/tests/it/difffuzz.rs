// SPDX-License-Identifier: MIT OR Apache-2.0

use tests::difffuzz::{Options, Outcome, run};
use tests::programs;

#[test]
fn the_server_answers_random_input_as_qemu_does() {
    if programs::find("qemu-storage-daemon", "apt install qemu-utils").is_none() {
        return;
    }
    let options = Options { count: 10_000, seed: 1, jobs: 1, with_server: true };
    match run(&options).expect("the inputs can be compared") {
        Outcome::Same { inputs, .. } => assert_eq!(inputs, 10_000),
        Outcome::Different(difference) => panic!("{difference}"),
    }
}
