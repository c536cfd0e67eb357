// SPDX-License-Identifier: MIT OR Apache-2.0
//! Builds the stacks of other projects, which are measured beside ours. They are a project of their own.

use std::path::PathBuf;

use crate::command::{cargo, run};
use crate::workspace::target_dir;

const STACKS: [&str; 3] = ["zlink", "zbus", "jsonrpsee"];

/// Builds the stacks that can be built, and returns the directory of the programs.
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
