// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask test`: all checks that a change has to pass.

use std::num::NonZero;
use std::panic::resume_unwind;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Instant;

use crate::command::{Outcome, cargo, no_arguments, output_of, run as run_command, step};
use crate::install::install_test_tools;
use crate::metadata::{member, metadata};
use crate::oracles;
use crate::tidy;
use crate::workspace::{LIBRARIES, PROGRAM, debug_examples, debug_server, root};

pub(crate) fn run(arguments: &[String]) -> Outcome {
    no_arguments("test", arguments)?;
    let started = Instant::now();
    // Downloads wait for the network while the compiler needs the processors.
    thread::scope(|scope| {
        let provided = scope.spawn(provide);
        check()?;
        provided.join().unwrap_or_else(|panic| resume_unwind(panic))
    })?;
    step("test", test)?;
    println!("everything passed in {:.0} s", started.elapsed().as_secs_f64());
    Ok(())
}

/// Provides everything besides Rust that the tests need.
fn provide() -> Outcome {
    step("tools", install_test_tools)?;
    step("oracles", || oracles::environment().map(drop))
}

/// Checks what can be checked without running tests, and builds what they start.
fn check() -> Outcome {
    step("format", || run_command(&mut cargo(["fmt", "--all", "--check"])))?;
    step("tidy", || tidy::run(&[]))?;
    step("clippy", lint)?;
    check_alone()?;
    step("qmp-proto without an operating system", check_purity)?;
    step("docs", document)?;
    step("build", build)
}

fn lint() -> Outcome {
    let arguments = ["clippy", "--workspace", "--all-targets", "--all-features"];
    run_command(cargo(arguments).args(["--", "--deny", "warnings"]))
}

/// Checks each published crate alone, because in one build a crate could compile only thanks to features that another one
/// enables. Likewise checks each feature of a library alone, and the library without features.
fn check_alone() -> Outcome {
    let metadata = metadata()?;
    for name in LIBRARIES {
        let features = member(&metadata, name)?.features.keys();
        for feature in features.filter(|feature| *feature != "default") {
            step(&format!("check {name} with {feature}"), || check_feature(name, Some(feature)))?;
        }
        step(&format!("check {name} without features"), || check_feature(name, None))?;
    }
    step(&format!("check {PROGRAM}"), || check_feature(PROGRAM, None))
}

fn check_feature(name: &str, feature: Option<&str>) -> Outcome {
    let mut check = cargo(["check", "--quiet", "--package", name, "--no-default-features"]);
    run_command(check.args(feature.into_iter().flat_map(|feature| ["--features", feature])))
}

/// Compiles qmp-proto for a target without an operating system. Its clippy.toml bans what would compile there and only fail
/// at run time.
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
    let mut rustdoc = cargo(["doc", "--no-deps", "--all-features"]);
    rustdoc.args(LIBRARIES.iter().flat_map(|name| ["--package", name]));
    run_command(rustdoc.env("RUSTDOCFLAGS", "--deny warnings"))
}

/// Builds all tests, in one go with the programs that they start: `qmp-server`, with debug assertions (`cargo xtask conformance`
/// uses the release build), and the example `nbd`. The features are those of the tests, so that nothing is compiled twice.
fn build() -> Outcome {
    run_command(cargo(["build", "--bins", "--examples", "--tests"]).args(TESTED))
}

/// Runs all tests except xtask's own, with both oracles. A test fails, and is not skipped, if a program is missing, because
/// everything has been installed.
fn test() -> Outcome {
    run_command(&mut cargo(["test", "--package", "xtask"]))?;
    let mut tests = cargo(["test"]);
    tests.args(TESTED).env("CI", "true");
    tests.envs(oracles::environment()?).env("PATH", oracles::search_path()?);
    tests.env("QMP_SERVER_BIN", debug_server()).env("QMP_EXAMPLES_DIR", debug_examples());
    tests.env("RUST_TEST_THREADS", test_threads().to_string());
    run_command(&mut tests)
}

/// Most of the time, a test waits for a server and a client: with one test a processor, 40 % of the processors are used.
fn test_threads() -> usize {
    3 * thread::available_parallelism().map_or(1, NonZero::get)
}

/// The options for all packages except xtask, which is running and would be built again with other features.
const TESTED: [&str; 4] = ["--workspace", "--exclude", "xtask", "--all-features"];
