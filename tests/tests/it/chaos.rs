// SPDX-License-Identifier: MIT OR Apache-2.0

use std::time::Duration;

use tests::chaos::{Scale, run};

/// The seed is in the failure's text; `cargo xtask soak --seed` goes on with it for longer.
#[track_caller]
fn check(seed: u64) {
    let scale = Scale { seed, unruly: 8, visits: 40, time: Duration::ZERO };
    let mut rounds = Vec::new();
    let outcome = run(&scale, |round| rounds.push(round.answers));
    outcome.unwrap_or_else(|reason| panic!("{reason}"));
    assert!(rounds[0] > 100, "hardly anything has been checked: {rounds:?}");
}

#[test]
fn unruly_clients_leave_no_trace_and_nobody_else_waits_for_them() {
    check(1);
}

#[test]
fn the_same_with_others_of_them() {
    check(2);
}
