// SPDX-License-Identifier: MIT OR Apache-2.0
//! The command lines of this crate's programs.

use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;

/// Reads the command line. Help is printed here; a mistake gets one line and exit status 2.
pub fn parse<Arguments: Parser>() -> Result<Arguments, ExitCode> {
    Arguments::try_parse().map_err(|error| {
        if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
            // A reader that has seen enough is not a failure.
            let _ = error.print();
            return ExitCode::SUCCESS;
        }
        // The first paragraph is the error; the others are usage and advice.
        let text = error.to_string();
        let paragraph = text.split("\n\n").next().unwrap_or_default();
        let line = paragraph.split_whitespace().collect::<Vec<_>>().join(" ");
        let name = Arguments::command().get_name().to_owned();
        eprintln!("{name}: {}", line.strip_prefix("error: ").unwrap_or(&line));
        ExitCode::from(2)
    })
}
