// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask audit`: checks the dependencies with external tools. They take long to build, so `test` does not run them.

use crate::command::{Failure, Outcome, cargo, run as run_command, step};
use crate::tool::{DENY, MACHETE, Tool};
use crate::workspace::root;

pub(crate) fn run(arguments: &[String]) -> Outcome {
    let install = match arguments {
        [] => false,
        [option] if option == "--install" => true,
        [other, ..] => return Err(Failure::Usage(format!("audit takes --install, not '{other}'"))),
    };
    let config = root().join("xtask/deny.toml").display().to_string();
    let checks: [(&str, Tool, &[&str]); 3] = [
        ("dependencies that are not used", MACHETE, &["machete"]),
        (
            "licences, sources and bans",
            DENY,
            &[
                "deny",
                "--all-features",
                "--config",
                &config,
                "check",
                "licenses",
                "sources",
                "bans",
            ],
        ),
        (
            "advisories",
            DENY,
            &["deny", "--all-features", "--config", &config, "check", "advisories"],
        ),
    ];
    let mut failures = Vec::new();
    for (name, tool, arguments) in checks {
        let done = step(name, || {
            tool.provide(install)?;
            // `cargo run` sets this variable; cargo-machete would read it as its own package's.
            run_command(cargo(arguments.iter().copied()).env_remove("CARGO_PKG_NAME"))
        });
        failures.extend(done.err().map(|failure| failure.to_string()));
    }
    match &failures[..] {
        [] => Ok(()),
        _ => Err(Failure::Task(failures.join("\nxtask: "))),
    }
}
