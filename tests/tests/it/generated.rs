// SPDX-License-Identifier: MIT OR Apache-2.0
//! Completions and manual pages.

use std::process::Command;

use tests::process::{Finished, run};
use tests::server::{LIMIT, qmp_server};

#[track_caller]
fn output(arguments: &[&str]) -> String {
    let finished = run(&mut qmp_server(arguments), "", LIMIT).unwrap();
    assert!(finished.status.success(), "{arguments:?}: {finished:#?}");
    assert_eq!(finished.stderr, "", "{arguments:?}");
    finished.stdout
}

/// Lets another program read a text; `None` if it is missing.
fn read_by(program: &[&str], text: &str) -> Option<Finished> {
    let mut command = Command::new(program[0]);
    command.args(&program[1..]);
    match run(&mut command, text, LIMIT) {
        Ok(finished) => Some(finished),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            eprintln!("skipped, {} is absent", program[0]);
            None
        }
        Err(error) => panic!("{program:?}: {error}"),
    }
}

/// Returns the flags in `--help`.
fn flags(subcommand: &str) -> Vec<String> {
    let help = output(&[subcommand, "--help"]);
    let words = help.split_whitespace().filter(|word| word.starts_with("--"));
    let flag = |word: &str| word.split(['[', ']', '=', ',']).next().unwrap_or_default().to_owned();
    words.map(flag).collect()
}

#[test]
fn shells_understand_their_completions() {
    for (shell, check) in [
        ("bash", &["bash", "-n"][..]),
        ("zsh", &["zsh", "-n"]),
        ("fish", &["fish", "--no-execute"]),
    ] {
        let script = output(&["completions", shell]);
        if let Some(finished) = read_by(check, &script) {
            assert!(finished.status.success(), "{shell}: {finished:#?}");
            assert_eq!(finished.stderr, "", "{shell}");
        }
        for flag in flags("serve").iter().chain(&flags("call")) {
            let name = flag.trim_start_matches("--");
            assert!(script.contains(name), "{shell}: {flag} is missing");
        }
    }
}

#[test]
fn bash_completes_what_begins_like_a_flag() {
    let script = output(&["completions", "bash"]);
    let ask = "function=$(complete -p qmp-server | sed 's/.* -F \\([^ ]*\\) .*/\\1/')
        COMP_WORDS=(qmp-server serve --check) COMP_CWORD=2
        $function qmp-server --check serve; echo ${COMPREPLY[@]}";
    let asked = read_by(&["bash"], &format!("{script}\n{ask}"));
    assert_eq!(asked.map(|finished| finished.stdout).as_deref(), Some("--check-config\n"));
}

#[test]
fn manual_pages_tell_of_every_flag() {
    for (subcommand, page) in
        [("serve", &["man"][..]), ("serve", &["man", "serve"]), ("call", &["man", "call"])]
    {
        let roff = output(page);
        assert!(roff.contains("\n.TH qmp-server") || roff.starts_with(".TH qmp-server"), "{roff}");
        for section in [".SH NAME", ".SH SYNOPSIS", ".SH DESCRIPTION", ".SH OPTIONS"] {
            assert!(roff.contains(section), "{page:?}: {section}");
        }
        for flag in flags(subcommand) {
            let flag = flag.replace('-', "\\-");
            assert!(roff.contains(&flag), "{page:?}: {flag} is missing");
        }
        if let Some(finished) = read_by(&["groff", "-man", "-ww", "-Tascii"], &roff) {
            assert!(finished.status.success(), "{finished:#?}");
            assert_eq!(finished.stderr, "", "{page:?}");
            assert!(finished.stdout.contains("(1)"), "{}", finished.stdout);
        }
    }
}
