// SPDX-License-Identifier: MIT OR Apache-2.0
//! The guide to embedding.

use std::fs;
use std::process::{Command, Stdio};

use super::documents::{Block, blocks, root};
use tests::endpoint::Endpoint;
use tests::process::{Process, run};
use tests::programs::find;
use tests::server::{LIMIT, example, program};

/// Stands for omitted lines of an excerpt.
const ELLIPSIS: &str = "// ...";

/// Returns the blocks of the guide in this language.
fn excerpts(language: &str) -> Vec<Block> {
    let text = fs::read_to_string(root().join("docs/embed.md")).unwrap();
    let mut blocks = blocks(&text);
    blocks.retain(|block| block.language == language);
    assert!(!blocks.is_empty());
    blocks
}

#[test]
fn the_code_that_it_shows_is_in_the_programs() {
    for Block { before, text, .. } in excerpts("rust") {
        let file = before.trim_start_matches('`').trim_end_matches("`:");
        let program = fs::read_to_string(root().join(file))
            .unwrap_or_else(|error| panic!("{before}: {error}"));
        let mut rest = program.as_str();
        let lines: Vec<_> = text.lines().collect();
        for piece in lines.split(|line| line.trim_start() == ELLIPSIS) {
            let piece = piece.join("\n");
            let at = rest.find(&piece).unwrap_or_else(|| panic!("not in {file}: {piece}"));
            rest = &rest[at + piece.len()..];
        }
    }
}

#[test]
fn the_commands_that_it_shows_say_what_they_say_there() {
    for tool in ["qemu-io", "qemu-img"] {
        if find(tool, "install qemu-utils").is_none() {
            return;
        }
    }
    let programs = [example("nbd"), program().to_owned()];
    let directories = programs.iter().map(|program| program.parent().unwrap().to_owned());
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths(directories.chain(std::env::split_paths(&path))).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let shell = |line: &str| {
        let mut command = Command::new("sh");
        command.args(["-c", line]).env("PATH", &path).current_dir(dir.path());
        command
    };

    let mut background = Vec::new();
    for session in excerpts("console") {
        let mut lines = session.text.lines().peekable();
        while let Some(line) = lines.next() {
            let command = line.strip_prefix("$ ").unwrap_or_else(|| panic!("no command: {line}"));
            let mut expected = String::new();
            while let Some(said) = lines.next_if(|line| !line.starts_with("$ ")) {
                expected += &format!("{said}\n");
            }
            if let Some(command) = command.strip_suffix(" &") {
                let mut command = shell(&format!("exec {command}"));
                let mut process = Process::start(command.stdin(Stdio::null())).unwrap();
                process.expect_ready(&Endpoint::Unix(dir.path().join("qmp.sock")));
                background.push(process);
            } else {
                let finished = run(&mut shell(command), "", LIMIT).unwrap();
                assert_eq!(finished.stdout + &finished.stderr, expected, "{command}");
            }
        }
    }
    for mut process in background {
        let status = process.wait(LIMIT).unwrap().expect("it has been told to quit");
        assert!(status.success(), "{}", process.stderr());
    }
}
