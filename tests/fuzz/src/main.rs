// SPDX-License-Identifier: MIT OR Apache-2.0
//! Runs the fuzz target that `QMP_FUZZ_TARGET` names under libFuzzer, whose options it takes; `cargo xtask fuzz` starts it.
//! If `QMP_FUZZ_PLACE` is a directory, it first writes a dictionary there, and seeds into `seeds`, for libFuzzer to read.
//! Without the name of a target, it prints all names.

#![no_main]

use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};
use tests::fuzz::{TARGETS, Target, check};
use tests::inputs::Random;

static TARGET: LazyLock<&Target> = LazyLock::new(|| {
    let name = std::env::var("QMP_FUZZ_TARGET").unwrap_or_default();
    let target = TARGETS.iter().find(|target| target.name == name);
    target.unwrap_or_else(|| panic!("QMP_FUZZ_TARGET is not the name of a target: '{name}'"))
});

static SEEDS: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| TARGET.seeds().expect("seeds"));

/// One of this many mutations replaces the input with one that is made.
const MADE: u32 = 16;

fuzz_target!(init: prepare(), |input: &[u8]| {
    if let Err(failure) = check(&TARGET, input) {
        panic!("{}: {}", TARGET.name, failure.reason);
    }
});

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    if seed % MADE != 0 {
        return fuzzer_mutate(data, size, max_size);
    }
    let made = TARGET.make_input(Random::new(seed.into()), &SEEDS);
    let len = made.len().min(max_size);
    data[..len].copy_from_slice(&made[..len]);
    len
});

fn prepare() {
    if std::env::var_os("QMP_FUZZ_TARGET").is_none() {
        TARGETS.iter().for_each(|target| println!("{}", target.name));
        std::process::exit(0);
    }
    let Some(place) = std::env::var_os("QMP_FUZZ_PLACE") else { return };
    let place = Path::new(&place);
    let written = SEEDS
        .iter()
        .enumerate()
        .try_for_each(|(number, seed)| fs::write(place.join(format!("seeds/{number}")), seed));
    let written = written.and_then(|()| fs::write(place.join("dictionary"), TARGET.dictionary()));
    written.unwrap_or_else(|error| panic!("{}: {error}", place.display()));
}
