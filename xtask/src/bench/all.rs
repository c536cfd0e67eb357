// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask bench all`: every benchmark, and one report of them.

use std::path::PathBuf;

use super::{LAYERS, Layer, criterion, stacks};
use crate::command::{Failure, Outcome, cargo, run as run_command, step};
use crate::files;
use crate::workspace::{root, target_dir};

/// The environment variable that names the file for the figures of a benchmark.
const FIGURES: &str = "QMP_BENCH_FIGURES";

/// How often everything is measured. Much depends on where a process happens to lie in memory and on which core, so rounds
/// of one process say too little of how much a figure varies.
const RUNS: usize = 3;

pub(super) fn run(arguments: &[String]) -> Outcome {
    let options = Options::parse(arguments)?;
    let directory = target_dir().join("bench");
    files::fresh_directory(&directory)?;
    let mut programs = PathBuf::new();
    step("build", || {
        LAYERS.into_iter().try_for_each(Layer::build)?;
        programs = stacks::build();
        Ok(())
    })?;
    let file = |layer: Layer| directory.join(format!("{}.jsonl", layer.name()));
    for run in 1..=RUNS {
        for layer in LAYERS {
            let mut command = layer.command();
            let home = directory.join(format!("criterion/{}-{run}", layer.name()));
            command.args(layer.one_of_several(options.quick)).env(FIGURES, file(layer));
            command.env("CRITERION_HOME", &home);
            if matches!(layer, Layer::Server) {
                command.arg("--stacks").arg(&programs);
            }
            let name = format!("bench {}, {run} of {RUNS}", layer.name());
            step(&name, || run_command(&mut command))?;
            if let Some(unit) = layer.unit() {
                files::append(&file(layer), &criterion::figures(&home, unit)?)?;
            }
        }
    }
    step("report", || {
        let mut report = cargo(["run", "--quiet", "--release", "--package", "tests"]);
        report.args(["--bin", "bench-report", "--"]).arg("--root").arg(root());
        report.arg("--command").arg(&options.command);
        report.arg("--out").arg(&options.out);
        if options.out == root().join("docs") {
            // These have some of the figures.
            for document in ["README.md", "docs/mux.md"] {
                report.arg("--summary").arg(root().join(document));
            }
        }
        run_command(report.args(LAYERS.map(file)))
    })
}

struct Options {
    quick: bool,
    out: PathBuf,
    /// All arguments, as they were given.
    command: String,
}

impl Options {
    fn parse(arguments: &[String]) -> Outcome<Self> {
        let mut options = Self {
            quick: false,
            out: target_dir().join("bench"),
            command: [&["cargo xtask bench all".to_owned()], arguments].concat().join(" "),
        };
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--quick" => options.quick = true,
                "--out" => {
                    let path = arguments.next().and_then(|path| std::path::absolute(path).ok());
                    options.out =
                        path.ok_or_else(|| Failure::Usage("--out needs a path".to_owned()))?;
                }
                unknown => {
                    return Err(Failure::Usage(format!("bench all does not take '{unknown}'")));
                }
            }
        }
        Ok(options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Outcome<Options> {
        Options::parse(&arguments.iter().map(ToString::to_string).collect::<Vec<_>>())
    }

    #[test]
    fn options_are_taken_in_any_order() {
        let options = parse(&["--quick", "--out", "/docs/"]).unwrap();
        assert!(options.quick);
        assert_eq!(options.out, PathBuf::from("/docs"));
        assert_eq!(options.command, "cargo xtask bench all --quick --out /docs/");
    }

    #[test]
    fn mistakes_are_told_before_anything_is_measured() {
        for arguments in [&["--out"][..], &["--fast"], &["proto"]] {
            assert!(matches!(parse(arguments), Err(Failure::Usage(_))), "{arguments:?}");
        }
    }
}
