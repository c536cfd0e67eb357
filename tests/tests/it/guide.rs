// SPDX-License-Identifier: MIT OR Apache-2.0
//! The guide to embedding.

use std::fs;
use std::process::{Command, Stdio};

use super::documents::{Block, TESTED_ELSEWHERE, blocks, root};
use tests::endpoint::Endpoint;
use tests::process::{Process, run};
use tests::programs::find;
use tests::server::{LIMIT, example, program};

/// Stands for omitted lines of an excerpt.
const ELLIPSIS: &str = "// ...";

/// Returns the blocks of the guide in this language.
fn excerpts(language: &str) -> Vec<Block> {
    let pages = TESTED_ELSEWHERE.iter();
    let texts = pages.map(|page| fs::read_to_string(root().join("docs").join(page)).unwrap());
    let mut blocks: Vec<Block> = texts.flat_map(|text| blocks(&text)).collect();
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

/// A newcomer writes no more lines than these, without imports, comments and empty lines.
#[test]
fn first_programs_are_short() {
    let count = |text: &str| {
        let is_counted = |line: &&str| {
            !line.trim().is_empty()
                && !["//", "use "].iter().any(|start| line.trim_start().starts_with(start))
        };
        text.lines().filter(is_counted).count()
    };
    let read = |file: &str| fs::read_to_string(root().join(file)).unwrap();
    // A function, or another item, with what is in it.
    let item = |text: &str, start: &str| {
        let item = &text[text.find(start).unwrap_or_else(|| panic!("no {start}"))..];
        item[..item.find("\n}").unwrap() + 2].to_owned()
    };

    let first = read("qmp-server/examples/first.rs");
    let (program, client) = first.split_once("#[cfg(test)]").unwrap();
    assert!(count(program) <= 15, "a command and an event: {}", count(program));
    let client = count(&item(client, "fn dim("));
    assert!(client <= 5, "a typed client: {client}");

    let program = read("qmp-server/examples/async_command.rs");
    let command =
        count(&item(&program, "command_types!")) + count(&item(&program, "async fn nap("));
    let registered =
        program.lines().filter(|line| line.trim_start().starts_with("registry.")).count();
    assert!(command + registered <= 10, "an async command: {}", command + registered);

    let twenty = read("qmp-dispatch/examples/twenty.rs");
    assert_eq!(
        twenty
            .lines()
            .filter(|line| line.trim().starts_with("#[qmp") && !line.contains("qmp_commands"))
            .count(),
        20
    );
    let lines = twenty.lines().filter(|line| line.trim_start().starts_with("use ")).count()
        + count(&twenty);
    assert!(lines <= 180, "twenty commands: {lines}");
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
