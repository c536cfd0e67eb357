// SPDX-License-Identifier: MIT OR Apache-2.0
//! What README.md and the guide show is what happens: their commands are run, and their configurations checked. Their
//! Rust is compiled by rustdoc (`tests/src/lib.rs`).
//!
//! - A block `console` is run by a shell, in a directory of its own. A command has to print what is shown behind it, with
//!   `...` for anything, and other times in events; one with nothing behind it has to succeed. What serves until it is
//!   stopped is left in the background as soon as its sockets are there. What a block takes for granted is in
//!   [`SETTINGS`], what is called otherwise there in [`in_the_directory`].
//! - What `socat - UNIX:...` is shown with is a dialogue: what begins with `{'` is typed, the rest comes back.
//! - A block `toml` is held against `--check-config`, unless it is for Cargo.

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

/// Documents that have tests of their own.
const TESTED_ELSEWHERE: [&str; 1] = ["embed.md"];

/// Commands that are not run, by how they begin, and why.
const NOT_RUN: [(&str, &str); 6] = [
    ("cargo run --release", "builds for minutes what all other tests use"),
    ("cargo xtask", "would run this test, or takes minutes"),
    ("qmp-server --metrics tcp:localhost:9187", "the port may be taken"),
    ("curl -s http://localhost:9187", "asks the former"),
    ("qmp-server status unix:qmp.sock", "shows what clients did at some time"),
    ("tail -n 2 /var/log/qmp/", "shows what people did on some day"),
];

/// What has to be there before a block: the document, a text in the block, and what it needs.
const SETTINGS: [(&str, &str, Setting); 6] = [
    ("README.md", "socat - UNIX:qmp.sock", Setting::Server("qmp.sock")),
    ("README.md", "qmp-server call unix:qmp.sock", Setting::Server("qmp.sock")),
    ("operate.md", "qmp-server call unix:qmp.sock", Setting::Server("qmp.sock")),
    ("operate.md", "qmp-server status unix:qmp.sock", Setting::Server("qmp.sock")),
    ("roles.md", "--upstream unix:/run/vm1/qemu.sock", Setting::Server("qemu.sock")),
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
    /// A file of this name that holds this.
    File(&'static str, &'static str),
}

struct Document {
    name: String,
    blocks: Vec<Block>,
}

struct Block {
    language: String,
    /// The line of the document at which the text begins.
    line: usize,
    text: String,
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
            let tasks =
                if block.text.contains("[mux]") { &["serve", "mux"][..] } else { &["serve"] };
            for task in tasks {
                let mut check = Command::new(program());
                check.arg(task).args(["--config", "qmp-server.toml", "--check-config"]);
                let finished = run(check.current_dir(dir.path()), "", LIMIT).unwrap();
                let Finished { status, stderr, .. } = finished;
                assert!(status.success(), "{name}:{}: {task}: {stderr}", block.line);
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

fn root() -> PathBuf {
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

fn blocks(text: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut inside = false;
    for (number, line) in (1..).zip(text.lines()) {
        match line.strip_prefix("```") {
            Some(language) if !inside => {
                inside = true;
                let language = language.to_owned();
                blocks.push(Block { language, line: number + 1, text: String::new() });
            }
            Some(_) => inside = false,
            None if inside => writeln!(blocks.last_mut().unwrap().text, "{line}").unwrap(),
            None => {}
        }
    }
    assert!(!inside, "a block has no end");
    blocks
}

/// Sees to what the block needs; keeps it as long as what is returned.
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

/// A command of a block, and what it is shown to print.
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
    // A mark behind each command, which leaves `$?` alone, tells whose output is whose.
    let mut script = "trap 'kill $(jobs -p) 2>/dev/null' EXIT\n".to_owned();
    for Shown { command, .. } in &shown {
        let here = in_the_directory(command);
        if is_run(command) && serves(&here) {
            let here = here.trim_end_matches(['&', ' ']);
            writeln!(script, "{here} >>background.log 2>&1 &").unwrap();
            for socket in sockets(here) {
                let there = format!("[ -S {socket} ]");
                let still_running = "kill -0 $! || { cat background.log; break; }";
                writeln!(script, "until {there}; do {still_running}; sleep 0.01; done").unwrap();
                writeln!(script, "{there}").unwrap();
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

/// The command, or what it prints, with sockets in the working directory, a group that every user has, and a port that
/// is free.
fn in_the_directory(command: &str) -> String {
    let group = rustix::process::getgid().as_raw();
    let command =
        command.replace("/run/vm1/", "").replace("group=monitoring", &format!("group={group}"));
    let command = command.replace("--allow-group monitoring", &format!("--allow-group {group}"));
    command.replace("localhost:7443", &format!("localhost:{}", *PORT))
}

/// Below those that the kernel gives to whoever connects, and another one for each run of the tests.
static PORT: LazyLock<u16> = LazyLock::new(|| {
    let first = 10_000 + u16::try_from(std::process::id() % 20_000).unwrap();
    let is_free = |port: &u16| TcpListener::bind(("localhost", *port)).is_ok();
    (first..32_000).find(is_free).expect("a free port")
});

const MARK: &str = "--- end of command ---";

/// A shell in the directory, with our program; `None` if there is something that the block cannot do without.
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
        // Where it listens if nobody says.
        true => vec!["qmp.sock".to_owned()],
        false => found,
    }
}

/// Whether this was printed as shown.
fn fits(shown: &str, printed: &str) -> bool {
    let times = Regex::new(r#""seconds": \d+, "microseconds": \d+"#).unwrap();
    let [shown, printed] = [shown, printed].map(|text| times.replace_all(text.trim_end(), "TIME"));
    let parts: Vec<_> = shown.split("...").map(regex::escape).collect();
    Regex::new(&format!("^(?s:{})$", parts.join(".*"))).unwrap().is_match(&printed)
}

/// Holds a dialogue with a server: its lines come one after the other, whoever says them.
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
