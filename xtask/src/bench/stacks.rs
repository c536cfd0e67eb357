// SPDX-License-Identifier: MIT OR Apache-2.0
//! Other people's stacks, which are measured beside ours: a project of its own, built for nothing else.

use std::path::PathBuf;

use crate::command::{cargo, run};
use crate::workspace::target_dir;

const STACKS: [&str; 3] = ["zlink", "zbus", "jsonrpsee"];

/// Builds what can be built, and hands out where the programs are.
pub(super) fn build() -> PathBuf {
    let target = target_dir().join("peers");
    for name in STACKS {
        let mut build = cargo(["build", "--quiet", "--locked", "--release"]);
        build.args([
            "--manifest-path",
            "tests/peers/Cargo.toml",
            "--features",
            name,
            "--bin",
            name,
        ]);
        if let Err(failure) = run(build.env("CARGO_TARGET_DIR", &target)) {
            println!("{name} cannot be built, and is left out: {failure}");
        }
    }
    target.join("release")
}
