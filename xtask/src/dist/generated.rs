// SPDX-License-Identifier: MIT OR Apache-2.0
//! Manual pages and completions, which the program itself generates.

use std::path::Path;
use std::process::Command;

use crate::command::{Failure, Outcome, output_of};

/// Shells, and the names of their files with completions.
const SHELLS: [(&str, &str); 5] = [
    ("bash", "qmp-server.bash"),
    ("elvish", "qmp-server.elv"),
    ("fish", "qmp-server.fish"),
    ("powershell", "qmp-server.ps1"),
    ("zsh", "_qmp-server"),
];

pub(super) struct Generated {
    /// Names of files, and their texts.
    pub(super) pages: Vec<(String, String)>,
    /// Shells, names of files, and their texts.
    pub(super) completions: Vec<(&'static str, &'static str, String)>,
}

impl Generated {
    pub(super) fn by(program: &Path) -> Outcome<Self> {
        let ask = |arguments: &[&str]| output_of(Command::new(program).args(arguments));
        let main = ask(&["man"])?;
        let mut pages = Vec::new();
        for subcommand in subcommands(&main) {
            let page = ask(&["man", &subcommand])?;
            pages.push((format!("qmp-server-{subcommand}.1"), page));
        }
        if pages.is_empty() {
            return Err(Failure::Task("the manual page names no subcommand".to_owned()));
        }
        pages.push(("qmp-server.1".to_owned(), main));
        let completions = SHELLS
            .into_iter()
            .map(|(shell, file)| Ok((shell, file, ask(&["completions", shell])?)))
            .collect::<Outcome<_>>()?;
        Ok(Self { pages, completions })
    }
}

/// Returns the subcommands to whose pages a page refers, except `help`, which only shows these pages.
fn subcommands(page: &str) -> Vec<String> {
    let plain = page.replace("\\-", "-");
    let names = plain.lines().filter_map(|line| {
        line.trim().strip_prefix("qmp-server-")?.strip_suffix("(1)").map(str::to_owned)
    });
    names.filter(|name| name != "help").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subcommands_are_found_in_the_page() {
        let page = ".SH SUBCOMMANDS\n.TP\nqmp\\-server\\-serve(1)\nServe\n.TP\n\
            qmp\\-server\\-mux(1)\nAs qmp\\-server\\-serve(1) does\n.TP\nqmp\\-server\\-help(1)\nHelp\n";
        assert_eq!(subcommands(page), ["serve", "mux"]);
    }
}
