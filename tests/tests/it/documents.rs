// SPDX-License-Identifier: MIT OR Apache-2.0
//! README.md and the guide show what really happens: their commands are run, and their configurations are checked. Their
//! Rust code is compiled by rustdoc (`tests/src/lib.rs`).
//!
//! - A block `console` is run by a shell in a directory of its own. A command has to print the output that follows it, where
//!   `...` stands for anything and times in events may differ. A command without output has to succeed. A server stays in
//!   the background as soon as it greets at its sockets. [`SETTINGS`] has the files that a block needs, and
//!   [`in_the_directory`] replaces paths.
//! - The output of `socat - UNIX:...` is a dialogue: lines that begin with `{'` are typed, the others must come back.
//! - A block `toml` must pass `--check-config`, unless it is for Cargo.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;

use regex::Regex;
use tempfile::TempDir;
use tests::process::{Finished, Process, run};
use tests::server::{LIMIT, program};
use tests::{programs, server};

/// Documents that have tests of their own: those on embedding, whose code is that of the examples.
pub(crate) const TESTED_ELSEWHERE: [&str; 4] =
    ["embed.md", "embed-epoll.md", "embed-event-manager.md", "embed-tokio.md"];

/// Commands that are not run: the beginning of each, and the reason.
const NOT_RUN: [(&str, &str); 8] = [
    ("cargo run --release", "builds for minutes what all other tests use"),
    ("cargo xtask", "would run this test, or takes minutes"),
    ("qmp-server --metrics tcp:localhost:9187", "the port may be taken"),
    ("curl -s http://localhost:9187", "asks the former"),
    ("qmp-server status unix:qmp.sock", "shows what clients did at some time"),
    ("qmp-server attach", "needs QEMU 11.1, and has a test of its own"),
    ("qmp-server call --agent", "needs a guest with an agent"),
    ("tail -n 2 /var/log/qmp/", "shows what people did on some day"),
];

/// What a block needs: the document, a text in the block, and the need.
const SETTINGS: [(&str, &str, Setting); 8] = [
    ("README.md", "socat - UNIX:qmp.sock", Setting::Server("qmp.sock")),
    ("README.md", "qmp-server call unix:qmp.sock", Setting::Server("qmp.sock")),
    ("operate.md", "qmp-server call unix:qmp.sock", Setting::Server("qmp.sock")),
    ("operate.md", "qmp-server status unix:qmp.sock", Setting::Server("qmp.sock")),
    ("roles.md", "--upstream unix:/run/vm1/qemu.sock", Setting::Server("qemu.sock")),
    ("mux.md", "operators.sock,notices=on", Setting::Server("qemu.sock")),
    ("mux.md", "--agent-listen", Setting::Server("qemu.sock")),
    (
        "configuration.md",
        "--check-config",
        Setting::File(
            "qmp-server.toml",
            "[[listen]]\naddress = \"unix:qmp.sock\"\nmode = \"rw\"\n",
        ),
    ),
];

#[derive(Clone, Copy)]
enum Setting {
    /// Our server, listening there.
    Server(&'static str),
    /// A file of this name with these contents.
    File(&'static str, &'static str),
}

struct Document {
    name: String,
    blocks: Vec<Block>,
}

/// A fenced block of a document.
pub(crate) struct Block {
    pub(crate) language: String,
    /// The line of text before the block.
    pub(crate) before: String,
    /// The line of the document at which the text begins.
    line: usize,
    pub(crate) text: String,
}

#[test]
fn commands_print_what_is_shown() {
    for Document { name, blocks } in documents() {
        for block in blocks.iter().filter(|block| block.language == "console") {
            let dir = tempfile::tempdir().unwrap();
            let _server = prepare(&name, block, dir.path());
            match block.text.strip_prefix("$ socat - UNIX:") {
                Some(rest) => check_dialogue(&name, block, rest, dir.path()),
                None => check_commands(&name, block, &dir),
            }
        }
    }
}

#[test]
fn configurations_have_no_mistakes() {
    for Document { name, blocks } in documents() {
        let of_ours =
            |block: &&Block| block.language == "toml" && !block.text.contains("[dependencies]");
        for block in blocks.iter().filter(of_ours) {
            let dir = tempfile::tempdir().unwrap();
            std::fs::write(dir.path().join("qmp-server.toml"), &block.text).unwrap();
            let has_upstream = ["[mux]", "[[machine]]"].iter().any(|key| block.text.contains(key));
            let mux: &[_] = if has_upstream {
                &["mux"]
            } else {
                &["mux", "--upstream", "unix:x", "--listen", "unix:y"]
            };
            for task in [&["serve"], mux] {
                let mut check = Command::new(program());
                check.args(task).args(["--config", "qmp-server.toml", "--check-config"]);
                let finished = run(check.current_dir(dir.path()), "", LIMIT).unwrap();
                let Finished { status, stderr, .. } = finished;
                assert!(status.success(), "{name}:{}: {task:?}: {stderr}", block.line);
            }
        }
    }
}

#[test]
fn rust_is_known_to_rustdoc() {
    let known = std::fs::read_to_string(root().join("tests/src/lib.rs")).unwrap();
    for Document { name, blocks } in documents() {
        if blocks.iter().any(|block| block.language.starts_with("rust")) {
            assert!(
                known.contains(&format!("{name}\")]")),
                "tests/src/lib.rs does not include {name}"
            );
        }
    }
}

pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn documents() -> Vec<Document> {
    let mut paths = vec![root().join("README.md")];
    let guide = std::fs::read_dir(root().join("docs")).unwrap().map(|entry| entry.unwrap().path());
    paths.extend(guide.filter(|path| path.extension().is_some_and(|extension| extension == "md")));
    paths.sort();
    let documents = paths.iter().map(|path| Document {
        name: path.file_name().unwrap().to_string_lossy().into_owned(),
        blocks: blocks(&std::fs::read_to_string(path).unwrap()),
    });
    documents.filter(|document| !TESTED_ELSEWHERE.contains(&document.name.as_str())).collect()
}

pub(crate) fn blocks(text: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut before = "";
    let mut inside = false;
    for (number, line) in (1..).zip(text.lines()) {
        match line.strip_prefix("```") {
            Some(language) if !inside => {
                inside = true;
                let (language, before) = (language.to_owned(), before.to_owned());
                blocks.push(Block { language, before, line: number + 1, text: String::new() });
            }
            Some(_) => inside = false,
            None if inside => writeln!(blocks.last_mut().unwrap().text, "{line}").unwrap(),
            None if !line.is_empty() => before = line,
            None => {}
        }
    }
    assert!(!inside, "a block has no end");
    blocks
}

/// Provides what the block needs, for as long as the returned process lives.
fn prepare(document: &str, block: &Block, dir: &Path) -> Option<Process> {
    let wanted =
        SETTINGS.iter().filter(|(name, text, _)| *name == document && block.text.contains(text));
    let mut server = None;
    for (_, _, setting) in wanted {
        match setting {
            Setting::File(name, text) => std::fs::write(dir.join(name), text).unwrap(),
            Setting::Server(socket) => {
                let mut serve = Command::new(program());
                serve.args(["serve", "--listen", &format!("unix:{socket}")]).current_dir(dir);
                let mut process = Process::start(serve.stdin(Stdio::null())).unwrap();
                wait_for(&dir.join(socket), &mut process);
                server = Some(process);
            }
        }
    }
    server
}

/// A command of a block, and the output that the document shows.
struct Shown {
    command: String,
    output: String,
}

fn commands(text: &str) -> Vec<Shown> {
    let mut commands: Vec<Shown> = Vec::new();
    let mut continued = false;
    for line in text.lines() {
        match (line.strip_prefix("$ "), commands.last_mut()) {
            (Some(command), _) => {
                commands.push(Shown { command: command.to_owned(), output: String::new() });
                continued = command.ends_with('\\');
            }
            (None, Some(last)) if continued => {
                write!(last.command, "\n{}", line.strip_prefix("> ").unwrap_or(line)).unwrap();
                continued = line.ends_with('\\');
            }
            (None, Some(last)) => writeln!(last.output, "{line}").unwrap(),
            (None, None) => panic!("output without a command: {line}"),
        }
    }
    commands
}

fn check_commands(document: &str, block: &Block, dir: &TempDir) {
    let shown = commands(&block.text);
    // A mark after each command, which preserves `$?`, separates the outputs.
    let mut script = "trap 'kill $(jobs -p) 2>/dev/null' EXIT\n".to_owned();
    // The door of a mux is there before it is open; who may not execute the command is greeted, too.
    script += "greets() { qmp-server call unix:$1 query-version >/dev/null 2>&1; [ $? -ne 2 ]; }\n";
    for Shown { command, .. } in &shown {
        let here = in_the_directory(command);
        if is_run(command) && serves(&here) {
            let here = here.trim_end_matches(['&', ' ']);
            writeln!(script, "{here} >>background.log 2>&1 &").unwrap();
            for socket in sockets(here) {
                let still_running = "kill -0 $! || { cat background.log; break; }";
                let greets = format!("greets {socket}");
                writeln!(script, "until {greets}; do {still_running}; sleep 0.01; done").unwrap();
                writeln!(script, "{greets}").unwrap();
            }
        } else if is_run(command) {
            writeln!(script, "{here}").unwrap();
        }
        if is_run(command) {
            writeln!(script, "status=$?; echo {MARK} $status; (exit $status)").unwrap();
        }
    }
    let Some(mut bash) = shell(block, dir.path()) else { return };
    let finished = run(bash.args(["-c", &format!("exec 2>&1\n{script}exit 0")]), "", LIMIT);
    let place = format!("{document}:{}", block.line);
    let mut rest = &*finished.unwrap_or_else(|error| panic!("{place}: {error}")).stdout;
    for Shown { command, output } in shown.iter().filter(|shown| is_run(&shown.command)) {
        let Some((printed, (status, after))) = rest
            .split_once(MARK)
            .and_then(|(printed, rest)| Some((printed, rest.split_once('\n')?)))
        else {
            panic!("{place}: no end of `{command}`: {rest}");
        };
        rest = after;
        match output.is_empty() || serves(command) {
            true => assert_eq!(status, " 0", "{place}: `{command}`: {printed}"),
            false => assert!(
                fits(&in_the_directory(output), printed),
                "{place}: `{command}` prints\n{printed}and not\n{output}"
            ),
        }
    }
}

fn is_run(command: &str) -> bool {
    !NOT_RUN.iter().any(|(beginning, _)| command.starts_with(beginning))
}

/// Returns the command, or its output, with sockets in the working directory, a group that exists everywhere, and a free
/// port.
fn in_the_directory(command: &str) -> String {
    let group = rustix::process::getgid().as_raw();
    let command =
        command.replace("/run/vm1/", "").replace("group=monitoring", &format!("group={group}"));
    let command = command.replace("--allow-group monitoring", &format!("--allow-group {group}"));
    command.replace("localhost:7443", &format!("localhost:{}", *PORT))
}

/// A port below those that the kernel assigns to clients, and a different one in each run of the tests.
static PORT: LazyLock<u16> = LazyLock::new(|| {
    let first = 10_000 + u16::try_from(std::process::id() % 20_000).unwrap();
    let is_free = |port: &u16| TcpListener::bind(("localhost", *port)).is_ok();
    (first..32_000).find(is_free).expect("a free port")
});

const MARK: &str = "--- end of command ---";

/// Returns a shell in the directory, with our program; `None` if a program that the block needs is missing.
fn shell(block: &Block, dir: &Path) -> Option<Command> {
    let qemu = "qemu-system-x86_64";
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut paths = std::env::split_paths(&path);
    // It is the only program that `cargo xtask test` does not install.
    if block.text.contains(qemu) && !paths.any(|dir| dir.join(qemu).is_file()) {
        return None;
    }
    for (tool, package) in
        [("socat", "socat"), ("qemu-storage-daemon", "qemu-utils"), ("openssl", "openssl")]
    {
        if block.text.contains(tool) {
            programs::find(tool, &format!("apt-get install {package}"))?;
        }
    }
    let ours = server::program().parent().unwrap().to_owned();
    let paths = [ours].into_iter().chain(std::env::split_paths(&path));
    let mut bash = Command::new("bash");
    bash.env("PATH", std::env::join_paths(paths).unwrap()).current_dir(dir);
    Some(bash)
}

/// Whether the command runs until it is stopped.
fn serves(command: &str) -> bool {
    let ends =
        ["--check-config", "--version", "--help"].iter().any(|option| command.contains(option));
    let mut words = command.split_whitespace();
    let serves = match words.next() {
        Some("qmp-server") => words
            .next()
            .is_none_or(|word| word.starts_with('-') || word == "serve" || word == "mux"),
        program => matches!(program, Some("qemu-system-x86_64" | "qemu-storage-daemon")),
    };
    serves && !ends
}

/// The Unix sockets that it listens at.
fn sockets(command: &str) -> Vec<String> {
    let listening =
        Regex::new(r"(?:--listen|-qmp|--chardev)[ =](?:socket,path=|unix:)([^, \n]+)").unwrap();
    let found: Vec<_> = listening.captures_iter(command).map(|found| found[1].to_owned()).collect();
    match found.is_empty() && command.starts_with("qmp-server") && !command.contains("--config") {
        // The default of `--listen`.
        true => vec!["qmp.sock".to_owned()],
        false => found,
    }
}

/// Whether the output is as shown.
fn fits(shown: &str, printed: &str) -> bool {
    let times = Regex::new(r#""seconds": \d+, "microseconds": \d+"#).unwrap();
    let [shown, printed] = [shown, printed].map(|text| times.replace_all(text.trim_end(), "TIME"));
    let parts: Vec<_> = shown.split("...").map(regex::escape).collect();
    Regex::new(&format!("^(?s:{})$", parts.join(".*"))).unwrap().is_match(&printed)
}

/// Holds a dialogue with a server, line by line: requests are sent, the other lines must be received.
fn check_dialogue(document: &str, block: &Block, rest: &str, dir: &Path) {
    let (socket, lines) = rest.split_once('\n').unwrap();
    let Some(mut bash) = shell(block, dir) else { return };
    bash.args(["-c", &format!("exec socat - UNIX:{socket}")]);
    let mut socat = Process::start(bash.stdin(Stdio::piped()).stdout(Stdio::piped())).unwrap();
    let mut typed = socat.child().stdin.take().unwrap();
    let mut printed = BufReader::new(socat.child().stdout.take().unwrap());
    for (number, line) in (block.line + 1..).zip(lines.lines()) {
        if line.starts_with("{'") {
            writeln!(typed, "{line}").unwrap();
        } else {
            let mut came = String::new();
            printed.read_line(&mut came).unwrap();
            assert!(fits(line, &came), "{document}:{number}: not\n{line}\nbut\n{came}");
        }
    }
}

fn wait_for(socket: &Path, server: &mut Process) {
    let started = std::time::Instant::now();
    while !socket.exists() {
        let exited = server.wait(std::time::Duration::from_millis(10)).unwrap();
        assert!(exited.is_none() && started.elapsed() < LIMIT, "no server: {}", server.stderr());
    }
}

#[test]
fn what_is_shown_is_compared() {
    assert!(fits("a ... c\n", "a b c\n") && fits("", "") && fits("...\n", "any\nthing\n"));
    assert!(!fits("a ... c\n", "a b d\n") && !fits("", "something\n"));
    let time = |seconds| format!("{{\"seconds\": {seconds}, \"microseconds\": 1}}");
    assert!(fits(&time(1), &time(2)));
    let shown = commands("$ one \\\n    two\nthree\n$ four\n");
    let shown: Vec<_> = shown.iter().map(|shown| (&*shown.command, &*shown.output)).collect();
    assert_eq!(shown, [("one \\\n    two", "three\n"), ("four", "")]);
    assert!(serves("qmp-server") && serves("qmp-server mux --upstream unix:a --listen unix:b"));
    assert!(
        !serves("qmp-server call unix:a stop") && !serves("qmp-server --config a --check-config")
    );
    assert_eq!(sockets("qmp-server mux --upstream unix:a --listen unix:b,mode=0600"), ["b"]);
    assert_eq!(sockets("qmp-server --log json"), ["qmp.sock"]);
}
