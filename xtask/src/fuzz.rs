// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask fuzz`: lets libFuzzer search for input that the fuzz targets of the crate `tests` do not take.
//!
//! The compiler's instrumentation for coverage works on every channel. libFuzzer itself is C++, which the package
//! `libfuzzer-sys` compiles. What is under test is safe Rust, so no sanitizer is needed, and with it no nightly compiler.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::command::{Failure, Outcome, cargo, output_of, run as run_command, step};
use crate::files;
use crate::install::{Program, install_programs};
use crate::metadata::host;
use crate::workspace::{root, target_dir};

const COMPILER: Program = ("c++", "g++");

/// Counters for each edge of the control flow, what values are compared with, and a table of places. These are the options
/// that cargo-fuzz uses.
const INSTRUMENTATION: &str = "-Cpasses=sancov-module \
    -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares";

/// Bytes of the longest input. Long ones find little more, and are slow.
const LONGEST: usize = 16 << 10;

struct Options {
    /// All of them if there are none.
    targets: Vec<String>,
    /// For all targets together.
    seconds: u64,
    seed: u64,
    /// A directory of further seeds.
    files: Option<PathBuf>,
    /// Fed in place of a search.
    input: Option<PathBuf>,
}

pub(crate) fn run(arguments: &[String]) -> Outcome {
    let options = Options::parse(arguments)?;
    install_programs(&[COMPILER])?;
    let fuzzer = build()?;
    // Without the name of a target, it prints all of them.
    let known = output_of(&mut Command::new(&fuzzer))?;
    let known: Vec<&str> = known.lines().collect();
    if let Some(unknown) = options.targets.iter().find(|target| !known.contains(&&***target)) {
        return Err(Failure::Usage(format!(
            "there is no target '{unknown}', but {}",
            known.join(", ")
        )));
    }
    let is_wanted = |name: &str| {
        options.targets.is_empty() || options.targets.iter().any(|target| target == name)
    };
    let wanted: Vec<_> = known.into_iter().filter(|name| is_wanted(name)).collect();
    let seconds = (options.seconds / wanted.len() as u64).max(1);
    for target in wanted {
        step(&format!("fuzz {target}"), || options.feed(&fuzzer, target, seconds))?;
    }
    Ok(())
}

fn build() -> Outcome<PathBuf> {
    let (host, output) = (host()?, target_dir().join("fuzz/build"));
    let manifest = root().join("tests/fuzz/Cargo.toml");
    // With a target, build scripts and macros are compiled without the instrumentation.
    let mut build = cargo(["build", "--quiet", "--release", "--locked", "--target", &host]);
    build.arg("--manifest-path").arg(manifest).arg("--target-dir").arg(&output);
    run_command(build.env("RUSTFLAGS", INSTRUMENTATION))?;
    Ok(output.join(host).join("release/fuzz"))
}

impl Options {
    fn parse(arguments: &[String]) -> Outcome<Self> {
        let mut options =
            Self { targets: Vec::new(), seconds: 60, seed: 1, files: None, input: None };
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            if !argument.starts_with('-') {
                options.targets.push(argument.clone());
                continue;
            }
            let value = arguments
                .next()
                .ok_or_else(|| Failure::Usage(format!("{argument} needs a value")))?;
            let number = || {
                let wrong = |_| Failure::Usage(format!("{argument} needs a number, not '{value}'"));
                value.parse().map_err(wrong)
            };
            match argument.as_str() {
                "--seconds" => options.seconds = number()?,
                "--seed" => options.seed = number()?,
                "--files" => options.files = Some(value.into()),
                "--input" => options.input = Some(value.into()),
                _ => return Err(Failure::Usage(format!("fuzz has no option '{argument}'"))),
            }
        }
        Ok(options)
    }

    fn feed(&self, fuzzer: &Path, target: &str, seconds: u64) -> Outcome {
        let place = target_dir().join("fuzz").join(target);
        let [seeds, found, failures] = ["seeds", "found", "failures"].map(|name| place.join(name));
        files::fresh_directory(&seeds)?;
        files::directory(&found)?;
        files::directory(&failures)?;
        let mut command = Command::new(fuzzer);
        command.envs([("QMP_FUZZ_TARGET", target.as_ref()), ("QMP_FUZZ_PLACE", place.as_os_str())]);
        command.arg(format!("-artifact_prefix={}/", failures.display()));
        match &self.input {
            Some(input) => command.arg(input),
            None => {
                command.args([&found, &seeds]).args(&self.files);
                command.arg(format!("-dict={}", place.join("dictionary").display()));
                command.arg(format!("-max_total_time={seconds}"));
                command.arg(format!("-max_len={LONGEST}"));
                command.arg(format!("-seed={}", self.seed));
                command.args(["-verbosity=0", "-print_final_stats=1"])
            }
        };
        run_command(&mut command)
    }
}
