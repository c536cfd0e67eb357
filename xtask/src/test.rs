// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask test`: all checks that a change has to pass.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use crate::command::{Outcome, cargo, no_arguments, output_of, run as run_command, step};
use crate::install::install_test_tools;
use crate::metadata::{member, metadata};
use crate::oracles;
use crate::tidy;
use crate::workspace::{LIBRARIES, PROGRAM, debug_examples, debug_server, members, root};

pub(crate) fn run(arguments: &[String]) -> Outcome {
    no_arguments("test", arguments)?;
    let started = Instant::now();
    step("tools", install_test_tools)?;
    step("oracles", || oracles::environment().map(drop))?;
    step("format", || run_command(&mut cargo(["fmt", "--all", "--check"])))?;
    step("tidy", || tidy::run(&[]))?;
    lint()?;
    check_features()?;
    step("qmp-proto without an operating system", check_purity)?;
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

/// Each feature is built alone, and so is the crate without any: with all of them, one would compile thanks to another.
fn check_features() -> Outcome {
    let metadata = metadata()?;
    for name in LIBRARIES {
        let features = member(&metadata, name)?.features.keys();
        for feature in features.filter(|feature| *feature != "default") {
            step(&format!("check {name} with {feature}"), || check_feature(name, Some(feature)))?;
        }
        step(&format!("check {name} without features"), || check_feature(name, None))?;
    }
    Ok(())
}

fn check_feature(name: &str, feature: Option<&str>) -> Outcome {
    let mut check = cargo(["check", "--quiet", "--package", name, "--no-default-features"]);
    run_command(check.args(feature.into_iter().flat_map(|feature| ["--features", feature])))
}

/// Compiles the crate without I/O for a target that has none. Its clippy.toml bans what compiles there all the
/// same.
fn check_purity() -> Outcome {
    const TARGET: &str = "wasm32-unknown-unknown";
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let question = ["--print", "target-libdir", "--target", TARGET];
    let folder = output_of(Command::new(rustc).args(question).current_dir(root()));
    if !folder.is_ok_and(|folder| Path::new(folder.trim()).exists()) {
        println!("skipped: needs the target {TARGET} (rustup target add {TARGET})");
        return Ok(());
    }
    run_command(&mut cargo(["check", "--package", "qmp-proto", "--target", TARGET]))
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
        step(&format!("test {name}"), || run_command(&mut with_oracles(cargo(arguments))?))?;
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
    let features = ["--features", "machine"];
    let back_end = ["build", "--package", "qmp-server", "--example", "nbd"];
    step("build the block back end", || run_command(cargo(back_end).args(features)))?;
    let mut tests = with_oracles(cargo(["test", "--package", "tests"]))?;
    tests.env("QMP_SERVER_BIN", debug_server()).env("QMP_EXAMPLES_DIR", debug_examples());
    step("conformance and interoperability", || run_command(&mut tests))
}

/// Has tests find both oracles, and fail rather than skip what lacks a program: all that they need has been installed.
fn with_oracles(mut tests: Command) -> Outcome<Command> {
    tests.env("CI", "true").envs(oracles::environment()?).env("PATH", oracles::search_path()?);
    Ok(tests)
}
