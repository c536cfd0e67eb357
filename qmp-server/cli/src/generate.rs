// SPDX-License-Identifier: MIT OR Apache-2.0
//! `qmp-server completions` and `qmp-server man`: what is made from the description of the command
//! line.

use std::io::{self, Write};

use clap::Command;
use clap_complete::Shell;
use clap_mangen::Man;

use crate::Failure;

pub(crate) fn completions(mut program: Command, shell: Shell) -> Result<(), Failure> {
    let name = program.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut program, name.as_str(), &mut script);
    if shell != Shell::Bash {
        return print(&script);
    }
    // clap_complete takes what follows a hyphen in the program's name for a subcommand, in half of
    // the places.
    let wrong = name.replace('-', "__subcmd__");
    let script = String::from_utf8_lossy(&script).replace(&wrong, &name.replace('-', "__"));
    print(script.as_bytes())
}

/// The page of the program, or that of a subcommand.
pub(crate) fn man(mut program: Command, page: Option<&str>) -> Result<(), Failure> {
    program.build();
    let page = match page {
        None => program,
        Some(name) => match program.find_subcommand(name) {
            Some(subcommand) => subcommand.clone(),
            None => return Err(Failure::usage(format_args!("there is no subcommand '{name}'"))),
        },
    };
    let mut text = Vec::new();
    Man::new(page).render(&mut text).map_err(Failure::usage)?;
    print(&text)
}

fn print(text: &[u8]) -> Result<(), Failure> {
    match io::stdout().write_all(text) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::usage(error)),
        _ => Ok(()),
    }
}
