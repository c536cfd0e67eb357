// SPDX-License-Identifier: MIT OR Apache-2.0
//! Build, test and release tasks of this workspace.

mod audit;
mod bench;
mod command;
mod conformance;
mod consumers;
mod difffuzz;
mod dist;
mod files;
mod fuzz;
mod git;
mod help;
mod install;
mod metadata;
mod oracles;
mod packed;
mod release;
mod soak;
mod test;
mod tidy;
mod tool;
mod workspace;

use std::process::ExitCode;

use command::Failure;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (task, rest) =
        arguments.split_first().map_or(("help", &[][..]), |(task, rest)| (task.as_str(), rest));
    let outcome = match task {
        "test" => test::run(rest),
        "tidy" => tidy::run(rest),
        "conformance" => conformance::run(rest),
        "release" => release::run(rest),
        "dist" => dist::run(rest),
        "audit" => audit::run(rest),
        "consumers" => consumers::run(rest),
        "oracles" => oracles::run(rest),
        "bench" => bench::run(rest),
        "difffuzz" => difffuzz::run(rest),
        "fuzz" => fuzz::run(rest),
        "soak" => soak::run(rest),
        "help" | "--help" | "-h" => help::run(),
        unknown => Err(Failure::Usage(format!(
            "no task is called '{unknown}', `cargo xtask help` lists them"
        ))),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !matches!(failure, Failure::Status(_)) {
                eprintln!("xtask: {failure}");
            }
            failure.exit_code()
        }
    }
}
