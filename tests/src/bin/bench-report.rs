// SPDX-License-Identifier: MIT OR Apache-2.0
//! Makes the report of all benchmarks from their figures.

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use tests::report::collect::collect;
use tests::report::{markdown, plots};

/// Make benchmarks.md and the plots from figures that benchmarks have written.
#[derive(Debug, Parser)]
#[command(name = "bench-report")]
struct Arguments {
    /// Files of figures, named after their layers
    #[arg(required = true, value_name = "FILE")]
    figures: Vec<PathBuf>,
    /// The directory to write to
    #[arg(long, value_name = "DIRECTORY")]
    out: PathBuf,
    /// The root of the workspace
    #[arg(long, value_name = "DIRECTORY", default_value = ".")]
    root: PathBuf,
    /// The command that the report names as its origin
    #[arg(long, default_value = "cargo xtask bench")]
    command: String,
    /// A document whose summary is brought up to date; may be given more than once
    #[arg(long, value_name = "FILE")]
    summary: Vec<PathBuf>,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench-report: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), String> {
    let Arguments { figures, out, root, command, summary } = arguments;
    let report = collect(root, command, figures)?;
    std::fs::create_dir_all(out).map_err(|error| at(out, &error))?;
    write(&out.join("benchmarks.md"), &markdown::page(&report))?;
    for (file, plot) in plots::draw(&report).map_err(|error| error.to_string())? {
        write(&out.join(file), &plot)?;
    }
    for document in summary {
        let text = std::fs::read_to_string(document).map_err(|error| at(document, &error))?;
        let changed = markdown::with_summary(&text, &report);
        write(document, &changed.ok_or_else(|| at(document, &"no place for a summary"))?)?;
    }
    println!("{}", out.join("benchmarks.md").display());
    Ok(())
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    std::fs::write(path, text).map_err(|error| at(path, &error))
}

fn at(path: &Path, error: &dyn Display) -> String {
    format!("{}: {error}", path.display())
}
