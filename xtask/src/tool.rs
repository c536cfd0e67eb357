// SPDX-License-Identifier: MIT OR Apache-2.0
//! Subcommands of Cargo that take long to build: never installed unless asked for.

use crate::command::{Failure, Outcome, cargo, exists, run};

/// A subcommand of Cargo, from the crate of the same name.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tool(&'static str);

pub(crate) const SEMVER_CHECKS: Tool = Tool("cargo-semver-checks");
pub(crate) const DENY: Tool = Tool("cargo-deny");
pub(crate) const MACHETE: Tool = Tool("cargo-machete");

impl Tool {
    /// Makes sure that it is there: installs it if that is wanted, and says so; says how, if not.
    pub(crate) fn provide(self, install: bool) -> Outcome {
        let Self(name) = self;
        if exists(name) {
            return Ok(());
        }
        if !install {
            return Err(Failure::Task(format!(
                "{name} is missing: `cargo install --locked {name}`, or --install"
            )));
        }
        println!("installing {name}, which takes some minutes");
        run(&mut cargo(["install", "--locked", name]))
    }
}
