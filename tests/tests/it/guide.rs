// SPDX-License-Identifier: MIT OR Apache-2.0

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tests::endpoint::Endpoint;
use tests::process::{Process, run};
use tests::programs::find;
use tests::server::{LIMIT, example, program};

const BETWEEN_TRIES: Duration = Duration::from_millis(10);
/// Stands for what is left out of an excerpt.
const ELLIPSIS: &str = "// ...";

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// The fenced blocks of a document in this language, each with the line of text before it.
fn blocks(document: &str, language: &str) -> Vec<(String, Vec<String>)> {
    let text = fs::read_to_string(repository().join(document)).unwrap();
    let mut lines = text.lines();
    let mut before = "";
    let mut blocks = Vec::new();
    while let Some(line) = lines.next() {
        match line.strip_prefix("```") {
            Some(fence) => {
                let block = lines.by_ref().take_while(|line| *line != "```").map(str::to_owned);
                let block = block.collect();
                if fence == language {
                    blocks.push((before.to_owned(), block));
                }
            }
            None if !line.is_empty() => before = line,
            None => {}
        }
    }
    blocks
}

#[test]
fn the_code_that_it_shows_is_in_the_programs() {
    let excerpts = blocks("docs/embed.md", "rust");
    assert!(!excerpts.is_empty());
    for (before, lines) in excerpts {
        let file = before.trim_start_matches('`').trim_end_matches("`:");
        let program = fs::read_to_string(repository().join(file))
            .unwrap_or_else(|error| panic!("{before}: {error}"));
        let mut rest = program.as_str();
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
    for (_, session) in blocks("docs/embed.md", "console") {
        let mut lines = session.iter().peekable();
        while let Some(line) = lines.next() {
            let command = line.strip_prefix("$ ").unwrap_or_else(|| panic!("no command: {line}"));
            let mut expected = String::new();
            while let Some(said) = lines.next_if(|line| !line.starts_with("$ ")) {
                expected += &format!("{said}\n");
            }
            if let Some(command) = command.strip_suffix(" &") {
                let mut command = shell(&format!("exec {command}"));
                background.push(Process::start(command.stdin(Stdio::null())).unwrap());
                wait_for(&dir.path().join("qmp.sock"));
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

fn wait_for(socket: &Path) {
    let deadline = Instant::now() + LIMIT;
    while let Err(error) = Endpoint::Unix(socket.to_owned()).try_connect() {
        assert!(Instant::now() < deadline, "{error}");
        std::thread::sleep(BETWEEN_TRIES);
    }
}
