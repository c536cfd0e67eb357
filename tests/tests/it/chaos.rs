// SPDX-License-Identifier: MIT OR Apache-2.0
//! Misbehaving clients, and their effect on others.

use std::time::Duration;

use tests::chaos::{Scale, run};

/// A failure has the seed in its message; `cargo xtask soak --seed` runs it for longer.
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
