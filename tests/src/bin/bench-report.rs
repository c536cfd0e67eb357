// SPDX-License-Identifier: MIT OR Apache-2.0
//! Makes the report of all benchmarks from their figures, and compares it with an older one.

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use tests::report::collect::collect;
use tests::report::compare::compare;
use tests::report::{Report, markdown, plots};

/// Make benchmarks.md and the plots from figures that benchmarks have written, and benchmarks.json beside these.
///
/// Exits with 1 if something got slower beyond noise, and with 2 if that could not be found out.
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
    /// An older benchmarks.json
    #[arg(long, value_name = "FILE")]
    compare: Option<PathBuf>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("bench-report: {error}");
            ExitCode::from(2)
        }
    }
}

/// Whether nothing got slower.
fn run(arguments: &Arguments) -> Result<bool, String> {
    let Arguments { figures, out, root, command, .. } = arguments;
    // First, because it may be the file that is about to be replaced.
    let old = arguments.compare.as_deref().map(read);
    let report = collect(root, command, figures)?;
    let json = serde_json::to_string_pretty(&report).map_err(|error| error.to_string())? + "\n";
    std::fs::create_dir_all(out).map_err(|error| at(out, &error))?;
    // Beside the figures: it is no document.
    write(&figures[0].with_file_name("benchmarks.json"), &json)?;
    write(&out.join("benchmarks.md"), &markdown::page(&report))?;
    for (file, plot) in plots::draw(&report).map_err(|error| error.to_string())? {
        write(&out.join(file), &plot)?;
    }
    for document in &arguments.summary {
        let text = std::fs::read_to_string(document).map_err(|error| at(document, &error))?;
        let changed = markdown::with_summary(&text, &report);
        write(document, &changed.ok_or_else(|| at(document, &"no place for a summary"))?)?;
    }
    println!("{}", out.join("benchmarks.md").display());
    let Some(old) = old else { return Ok(true) };
    let comparison = compare(&old?, &report);
    print!("{comparison}");
    Ok(comparison.slower.is_empty())
}

fn read(path: &Path) -> Result<Report, String> {
    let text = std::fs::read_to_string(path).map_err(|error| at(path, &error))?;
    serde_json::from_str(&text).map_err(|error| at(path, &error))
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    std::fs::write(path, text).map_err(|error| at(path, &error))
}

fn at(path: &Path, error: &dyn Display) -> String {
    format!("{}: {error}", path.display())
}
