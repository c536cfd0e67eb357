// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask test`: everything that has to hold before a change goes in.

use std::time::Instant;

use crate::command::{Outcome, cargo, no_arguments, run as run_command, step};
use crate::install::install_test_tools;
use crate::tidy;
use crate::workspace::{LIBRARIES, PROGRAM, debug_examples, debug_server, members};

pub(crate) fn run(arguments: &[String]) -> Outcome {
    no_arguments("test", arguments)?;
    let started = Instant::now();
    step("tools", install_test_tools)?;
    step("format", || run_command(&mut cargo(["fmt", "--all", "--check"])))?;
    step("tidy", || tidy::run(&[]))?;
    lint()?;
    document()?;
    test_crates()?;
    test_server()?;
    println!("everything passed in {:.0} s", started.elapsed().as_secs_f64());
    Ok(())
}

/// Each package is checked alone: together, one would compile thanks to features that another asks for.
fn lint() -> Outcome {
    members().try_for_each(|name| {
        let arguments = [
            "clippy",
            "--package",
            name,
            "--all-targets",
            "--all-features",
            "--",
            "--deny",
            "warnings",
        ];
        step(&format!("clippy {name}"), || run_command(&mut cargo(arguments)))
    })
}

fn document() -> Outcome {
    LIBRARIES.into_iter().try_for_each(|name| {
        let mut rustdoc = cargo(["doc", "--no-deps", "--package", name, "--all-features"]);
        step(&format!("docs {name}"), || {
            run_command(rustdoc.env("RUSTDOCFLAGS", "--deny warnings"))
        })
    })
}

fn test_crates() -> Outcome {
    for name in LIBRARIES {
        let arguments = [
            "test",
            "--package",
            name,
            "--all-features",
            "--lib",
            "--bins",
            "--tests",
            "--examples",
        ];
        step(&format!("test {name}"), || run_command(&mut cargo(arguments)))?;
        step(&format!("doctest {name}"), || {
            run_command(&mut cargo(["test", "--package", name, "--all-features", "--doc"]))
        })?;
    }
    for name in [PROGRAM, "xtask"] {
        step(&format!("test {name}"), || run_command(&mut cargo(["test", "--package", name])))?;
    }
    Ok(())
}

/// The server from outside, with its debug assertions. (`cargo xtask conformance` takes the one built for release.)
fn test_server() -> Outcome {
    step("build qmp-server", || run_command(&mut cargo(["build", "--package", PROGRAM])))?;
    let back_end = ["build", "--package", "qmp-server", "--example", "nbd"];
    step("build the block back end", || run_command(&mut cargo(back_end)))?;
    let mut tests = cargo(["test", "--package", "tests"]);
    // Everything that the tests need has been installed: a test that is skipped now would hide a mistake.
    tests.env("QMP_SERVER_BIN", debug_server()).env("QMP_EXAMPLES_DIR", debug_examples());
    tests.env("CI", "true");
    step("conformance and interoperability", || run_command(&mut tests))
}
