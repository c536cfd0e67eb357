// SPDX-License-Identifier: MIT OR Apache-2.0
//! The audit of what clients do.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use tempfile::TempDir;
use tests::json::Json;
use tests::process::{Signal, run};
use tests::server::{Client, LIMIT, Server, refusal};
use tests::waiting::wait_for;

/// A line that was written.
#[derive(Debug)]
struct Line(Json);

impl Line {
    fn text(&self, key: &str) -> &str {
        self.0.get(key).and_then(Json::as_str).unwrap_or_default()
    }

    fn number(&self, key: &str) -> i64 {
        self.0.get(key).and_then(Json::as_i64).unwrap_or_else(|| panic!("no {key}: {}", self.0))
    }

    fn json(&self, key: &str) -> String {
        self.0.get(key).map(Json::to_string).unwrap_or_default()
    }

    /// Returns the command and its outcome.
    fn outcome(&self) -> [&str; 3] {
        [self.text("command"), self.text("outcome"), self.text("desc")]
    }
}

fn lines(text: &str) -> Vec<Line> {
    let complete = text.rfind('\n').map_or("", |end| &text[..=end]);
    let parse = |line: &str| Json::parse(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    complete.lines().map(|line| Line(parse(line))).collect()
}

/// Waits until the lines of the file are as expected, and returns them.
#[track_caller]
fn wait_for_audit(path: &Path, expected: impl Fn(&[Line]) -> bool) -> Vec<Line> {
    wait_for(|| {
        let text = fs::read_to_string(path).unwrap_or_default();
        let lines = lines(&text);
        if expected(&lines) { Ok(lines) } else { Err(format!("the audit says only: {text}")) }
    })
}

/// Waits until the file has at least this many lines, and returns them.
#[track_caller]
fn wait_for_lines(path: &Path, count: usize) -> Vec<Line> {
    wait_for_audit(path, |lines| lines.len() >= count)
}

fn ends_with_disconnection(lines: &[Line]) -> bool {
    lines.last().is_some_and(|line| line.text("kind") == "disconnected")
}

/// Starts a server with an audit, and returns the path of the audit.
fn audited(more: &[&str]) -> (Server, PathBuf) {
    let arguments = ["--listen", "unix:{sock}", "--audit", "audit.jsonl"];
    let server = Server::start_with(arguments.into_iter().chain(more.iter().copied()));
    let path = server.dir().join("audit.jsonl");
    // The client that checked that the server is ready has two lines.
    wait_for_lines(&path, 2);
    (server, path)
}

fn commands(lines: &[Line]) -> Vec<[&str; 3]> {
    lines.iter().filter(|line| line.text("kind") == "command").map(Line::outcome).collect()
}

#[test]
fn everything_that_clients_do_is_written_down() {
    let (server, path) = audited(&["--default-role", "operator", "--audit-secret", "fd*"]);
    let mut client = server.connect();
    client.receive();
    for request in [
        r#"{"execute": "stop", "id": 1}"#,
        r#"{"execute": "qmp_capabilities", "arguments": {"enable": ["oob"]}}"#,
        r#"{"execute": "query-name", "id": [1, null, {"a": "b"}]}"#,
        r#"{"execute": "quit", "arguments": {"password": "hunter2"}}"#,
        r#"{"exec-oob": "nonsense", "arguments": {"fdname": 1, "x": [{"key": "k", "y": 2.5}]}}"#,
        r#"{"execute": "query-name", "arguments": {"secret": "secret"}}"#,
        "'hunter2\t",
    ] {
        client.send(request);
        client.receive();
    }
    client.half_close();
    client.expect_end();
    let lines = wait_for_lines(&path, 11);
    let lines = &lines[2..];
    let kinds: Vec<_> = lines.iter().map(|line| line.text("kind")).collect();
    let expected = ["connected"].into_iter().chain(["command"; 6]);
    assert_eq!(kinds, expected.chain(["refused", "disconnected"]).collect::<Vec<_>>());
    assert_eq!(
        commands(lines),
        [
            ["stop", "error", "Expecting capabilities negotiation with 'qmp_capabilities'"],
            ["qmp_capabilities", "ok", ""],
            ["query-name", "ok", ""],
            ["quit", "error", "The command quit has been disabled for this instance"],
            ["nonsense", "error", "The command nonsense has not been found"],
            ["query-name", "error", "Parameter '***' is unexpected"],
        ]
    );
    let arguments: Vec<_> = lines[1..7].iter().map(|line| line.json("arguments")).collect();
    assert_eq!(
        arguments,
        [
            "{}",
            r#"{"enable": ["oob"]}"#,
            "{}",
            r#"{"password": "***"}"#,
            r#"{"x": [{"key": "***", "y": 2.5}], "fdname": "***"}"#,
            r#"{"secret": "***"}"#,
        ]
    );
    let pid = std::process::id();
    for line in lines {
        assert!(line.text("peer").starts_with(&format!("pid {pid}, uid ")), "{line:?}");
        assert_eq!(line.text("role"), "operator");
        assert_eq!(line.number("monitor"), lines[0].number("monitor"));
        let time = line.text("time");
        assert!(time.len() == 27 && time.starts_with("20") && time.ends_with('Z'), "{time}");
        assert_eq!(line.0.get("duration-us").is_some(), line.text("kind") == "command");
    }
    assert_eq!(lines[1].text("class"), "CommandNotFound");
    assert_eq!(lines[1].json("id"), "1");
    assert_eq!(lines[3].json("id"), r#"[1, null, {"a": "b"}]"#);
    assert_eq!(lines[5].json("oob"), "true");
    let (_, desc) = lines[7].text("desc").split_once(": ").unwrap();
    assert_eq!(desc, "JSON parse error, stray '***'");
}

/// Each has its secret in place of `SECRET`.
const WITH_SECRETS: &[&str] = &[
    r#"{"execute": "set_password", "arguments": {"protocol": "vnc", "password": "SECRET"}}"#,
    r#"{"execute": "set_password", "arguments": {"protocol": "vnc", "pasword": ["SECRET"]}}"#,
    r#"{"execute": "set_password", "arguments": {"protocol": "vnc", "password": {"SECRET": "SECRET"}}, "id": "SECRET"}"#,
    r#"{"execute": "Change_VNC_Password", "arguments": {"pw": "SECRET"}}"#,
    r#"{"execute": "blockdev-change-medium", "arguments": {"id": "cd", "filename": "iscsi://bob%SECRET@h/iqn.x/1"}}"#,
    r#"{"execute": "blockdev-change-medium", "arguments": {"id": "cd", "filename": "http:/bob:pa/SECRET@h/x"}}"#,
    r#"{"execute": "blockdev-change-medium", "arguments": {"id": "cd", "filename": "ssh://bob:pa SECRET@h/x"}}"#,
    r#"{"execute": "blockdev-change-medium", "arguments": {"id": "cd", "filename": " JSON:{'file': {'key': 'SECRET'"}}"#,
    r#"{"execute": "blockdev-change-medium", "arguments": {"id": "cd", "filename": "rbd:p/i:key=SE\\:SECRET:id=x"}}"#,
    r#"{"execute": "blockdev-add", "arguments": {"driver": "https", "url": "https://SECRET@h/x?Token=SECRET&a=b"}}"#,
    r#"{"execute": "blockdev-add", "arguments": {"driver": "https", "cookie": "a=SECRET", "url": "https://h"}}"#,
    r#"{"execute": "migrate", "arguments": {"uri": "exec:sshpass -p SECRET ssh h"}}"#,
    r#"{"execute": "migrate", "arguments": {"channels": [{"addr": {"transport": "exec", "args": ["sh", "SECRET"]}}]}}"#,
    r#"{"execute": "x", "arguments": {"o": "secret,id=s,format=raw,data=SECRET"}}"#,
    r#"{"execute": "x", "arguments": {"o": "{\"qom-type\": \"secret\", \"d\\u0061ta\": \"SECRET\"}"}}"#,
    r#"{"execute": "x", "arguments": {"o": "password=a,,SECRET,id=x"}}"#,
    r#"{"execute": "x", "arguments": {"o": "Authorization: Basic SECRET"}}"#,
    r#"{"execute": "x", "arguments": {"sslKey": "SECRET", "id": "SECRET"}, "id": {"a": ["SECRET"]}}"#,
    r#"{"execute": "x", "arguments": {"password SECRET": 1, "token": "SECRET"}}"#,
    r#"{"execute": "set_password vnc SECRET"}"#,
    r#"{"execute": "human-monitor-command", "arguments": {"command-line": "\tset_password\tvnc SECRET"}}"#,
    r#"{"execute": "human-monitor-command", "arguments": {"commandline": ["set_password/x SECRET"]}}"#,
    r#"{"execute": "object-add", "arguments": {"qom-type": ["secret"], "id": "s", "Data": "SECRET"}}"#,
    r#"{"execute": "object-add", "arguments": {"qom-type": "Secret", "id": "s", "data": "SECRET"}}"#,
    r#"{"execute": "qom-set", "arguments": {"path": "/x", "Property": "password", "value": "SECRET"}}"#,
    r#"{"execute": "qom-set", "arguments": {"path": "/x", "property": "data", "value": ["SECRET"]}}"#,
    r#"{"execute": "query-name", "id": {"password": "SECRET"}}"#,
    r#"{"execute": "query-name", "password=SECRET": 1}"#,
];

#[test]
fn no_secret_is_written_down() {
    let (server, path) = audited(&[]);
    let mut client = server.negotiated();
    let secret = |number: usize| format!("hunTER{number:02}");
    for (number, request) in WITH_SECRETS.iter().enumerate() {
        // Keys as numbers are secrets, too.
        client.send(&request.replace("SECRET", &secret(number)));
        client.receive();
    }
    client.send(r#"{"execute": "x", "arguments": {"pin-password": 73211, "y": 1}, "id": 73211}"#);
    client.receive();
    let lines = wait_for_lines(&path, 2 + 2 + WITH_SECRETS.len() + 1);
    let text = fs::read_to_string(&path).unwrap();
    for (number, request) in WITH_SECRETS.iter().enumerate() {
        let said = text.lines().filter(|line| line.contains(&secret(number)));
        assert_eq!(said.collect::<Vec<_>>(), [""; 0], "{request}");
    }
    assert!(!text.contains("73211"), "{text}");
    // But the command itself is recorded.
    let commands = commands(&lines);
    assert_eq!(commands[1][0], "set_password");
    assert_eq!(lines[4].json("arguments"), r#"{"protocol": "vnc", "password": "***"}"#);
}

#[test]
fn many_secrets_take_no_memory() {
    let (mut server, path) = audited(&[]);
    let mut client = server.negotiated();
    let secrets = vec![r#""*""#; 40].join(", ");
    client.send(&format!(r#"{{"execute": "*", "arguments": {{"password": [{secrets}]}}}}"#));
    client.receive();
    let lines = wait_for_lines(&path, 5);
    assert_eq!(lines[4].text("command"), "***");
    assert!(fs::metadata(&path).unwrap().len() < 4096);
    assert!(server.process().wait(Duration::ZERO).unwrap().is_none());
}

#[test]
fn who_is_not_let_in_is_written_down() {
    let (server, path) = audited(&["--limit", "monitors=1"]);
    let _one = server.negotiated();
    server.connect().expect_end();
    let lines = wait_for_lines(&path, 5);
    let line = lines.last().unwrap();
    assert_eq!(line.text("kind"), "connection-refused");
    assert!(line.text("peer").starts_with(&format!("pid {}, uid ", std::process::id())));
    assert_eq!(line.text("reason"), "limit");
    assert_eq!(line.text("desc"), "there are 1 clients already");

    let arguments = ["--listen", "unix:{sock}", "--audit", "audit.jsonl", "--allow-user", "4242"];
    let server = Server::start_with(arguments);
    // The client that checked that the server is ready has two lines.
    let lines = wait_for_lines(&server.dir().join("audit.jsonl"), 1);
    assert_eq!(lines[0].text("kind"), "connection-refused");
    assert_eq!(lines[0].text("reason"), "access");
    assert_eq!(lines[0].text("desc"), "its user and groups are not allowed");
}

#[test]
fn only_the_owner_can_read_the_file() {
    let (_server, path) = audited(&[]);
    assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn what_is_there_already_is_kept_and_the_end_is_written() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("audit.jsonl");
    fs::write(&path, "{\"kind\": \"before\"}\n").unwrap();
    let arguments = ["--listen", "unix:{sock}", "--audit", "audit.jsonl"];
    let mut server = Server::start_in(dir, arguments);
    let mut client = server.negotiated();
    client.send(r#"{"execute": "quit"}"#);
    client.expect_event("SHUTDOWN");
    client.expect(r#"{"return": {}}"#);
    assert!(server.wait().success());
    let lines = lines(&fs::read_to_string(&path).unwrap());
    assert_eq!(lines[0].text("kind"), "before");
    let (last, others) = lines.split_last().unwrap();
    assert_eq!(last.text("kind"), "disconnected");
    assert_eq!(others.last().unwrap().outcome(), ["quit", "ok", ""]);
}

#[test]
fn a_file_that_was_moved_away_is_opened_anew() {
    let (server, path) = audited(&[]);
    let mut client = server.negotiated();
    let mut asked = 1;
    let mut count = 0;
    for round in 0..5 {
        let old = server.dir().join(format!("old-{round}.jsonl"));
        fs::rename(&path, &old).unwrap();
        server.signal(Signal::HUP);
        // Lines go to either file until the signal has come.
        while !path.exists() {
            client.execute("query-name");
            asked += 1;
        }
        count += commands(&lines(&fs::read_to_string(old).unwrap())).len();
    }
    client.half_close();
    client.expect_end();
    let new = wait_for_audit(&path, ends_with_disconnection);
    assert_eq!(count + commands(&new).len(), asked, "none is missing, none is there twice");
}

#[test]
fn a_file_that_cannot_be_opened_anew_goes_on() {
    let (mut server, path) = audited(&[]);
    let mut client = server.negotiated();
    let moved = server.dir().join("moved.jsonl");
    fs::rename(&path, &moved).unwrap();
    fs::create_dir(&path).unwrap();
    server.signal(Signal::HUP);
    server.process().expect_log("the audit's old file goes on");
    client.execute("query-uuid");
    let lines = wait_for_lines(&moved, 5);
    assert_eq!(lines.last().unwrap().outcome(), ["query-uuid", "ok", ""]);
}

fn make_pipe(path: &Path) {
    let made = run(Command::new("mkfifo").arg(path), "", LIMIT).unwrap();
    assert!(made.status.success(), "{made:?}");
}

/// More lines than the audit keeps for a pipe.
const MANY: usize = 1200;

/// Writes more lines than there is room for.
fn fill(client: &mut Client) {
    let padding = "x".repeat(10_000);
    for id in 0..MANY {
        let arguments = format!(r#"{{"padding": "{padding}"}}"#);
        client.send(&format!(r#"{{"execute": "no", "arguments": {arguments}, "id": {id}}}"#));
        let answer = client.receive();
        assert_eq!(answer.get("id").and_then(Json::as_i64), i64::try_from(id).ok(), "{answer}");
    }
}

#[track_caller]
fn check_gap(server: &mut Server, reader: impl Read) {
    let mut kept = 0;
    let mut last = None;
    let mut lost = 0;
    for line in BufReader::new(reader).lines() {
        let line = Line(Json::parse(&line.unwrap()).unwrap());
        match line.text("kind") {
            "command" if line.text("command") == "no" => {
                kept += 1;
                last = Some(line.number("id"));
            }
            "lost" => {
                lost += line.number("count");
                break;
            }
            _ => {}
        }
    }
    assert!(kept > 0 && lost > 0, "{kept} {lost}");
    assert_eq!(kept, last.unwrap() + 1, "all before the gap are there");
    assert_eq!(kept + lost, i64::try_from(MANY).unwrap());
    server.process().expect_log("the audit goes on, with a gap");
}

#[test]
fn a_pipe_that_nobody_reads_holds_up_nobody() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("audit.pipe");
    make_pipe(&path);
    let arguments = ["--listen", "unix:{sock}", "--audit", "audit.pipe"];
    let mut server = Server::start_in(dir, arguments);
    let mut client = server.negotiated();
    fill(&mut client);
    // Now the pipe is read.
    let reader = File::open(&path).unwrap();
    check_gap(&mut server, reader);
}

#[test]
fn a_reader_that_stops_holds_up_nobody() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("audit.pipe");
    make_pipe(&path);
    let flags = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap();
    let idle = OpenOptions::new().read(true).custom_flags(flags).open(&path).unwrap();
    let arguments = ["--listen", "unix:{sock}", "--audit", "audit.pipe"];
    let mut server = Server::start_in(dir, arguments);
    let mut client = server.negotiated();
    fill(&mut client);
    let reader = File::open(&path).unwrap();
    drop(idle);
    check_gap(&mut server, reader);
}

#[test]
fn a_full_disk_holds_up_nobody() {
    let arguments = ["--listen", "unix:{sock}", "--audit", "/dev/full"];
    let mut server = Server::start_with(arguments);
    let mut client = server.negotiated();
    for _ in 0..100 {
        client.execute("query-name");
    }
    client.send(r#"{"execute": "quit"}"#);
    client.expect_event("SHUTDOWN");
    client.expect(r#"{"return": {}}"#);
    assert!(server.wait().success());
    let log = server.process().stderr();
    assert_eq!(log.matches("the audit cannot be written").count(), 1, "{log}");
    assert!(log.contains("the end of the audit could not be written"), "{log}");
}

/// A server that sends a greeting and negotiates. The test decides about everything else.
struct Silent {
    stream: UnixStream,
    reader: BufReader<UnixStream>,
}

impl Silent {
    fn accept(listener: &UnixListener) -> Silent {
        let (stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        let reader = BufReader::new(stream.try_clone().unwrap());
        let mut silent = Silent { stream, reader };
        silent.say(
            r#"{"QMP": {"version": {"qemu": {"micro": 0, "minor": 0, "major": 10}, "package": ""}, "capabilities": []}}"#,
        );
        let id = silent.asked("qmp_capabilities");
        silent.say(&format!(r#"{{"return": {{}}, "id": {id}}}"#));
        silent
    }

    fn say(&mut self, text: &str) {
        self.stream.write_all(format!("{text}\r\n").as_bytes()).unwrap();
    }

    /// Expects a request for this command, and returns the id.
    fn asked(&mut self, command: &str) -> i64 {
        let mut line = String::new();
        // The mux ends its requests with bytes that are not part of the JSON.
        while line.trim().is_empty() {
            line.clear();
            self.reader.read_line(&mut line).unwrap();
        }
        let request = Json::parse(line.trim_end()).unwrap();
        assert_eq!(request.get("execute").and_then(Json::as_str), Some(command), "{request}");
        request.get("id").and_then(Json::as_i64).unwrap()
    }
}

#[test]
fn what_the_client_was_told_is_written_down_whatever_comes_later() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("audit.jsonl");
    let upstream = dir.path().join("upstream.sock");
    let listener = UnixListener::bind(&upstream).unwrap();
    let address = format!("unix:{}", upstream.display());
    let options = ["--audit", "audit.jsonl", "--deadline", "query-block=0.2"];
    let silent = thread::spawn(move || Silent::accept(&listener));
    let mux = ["mux", "--upstream", &address, "--listen", "unix:{sock}"];
    let server = Server::start_in(dir, mux.into_iter().chain(options));
    let mut silent = silent.join().unwrap();
    let mut client = server.negotiated();

    client.send(r#"{"execute": "query-block"}"#);
    let late = silent.asked("query-block");
    let told = client.receive();
    silent.say(&format!(r#"{{"return": [], "id": {late}}}"#));
    client.send(r#"{"execute": "query-jobs"}"#);
    let id = silent.asked("query-jobs");
    silent.say(&format!(r#"{{"return": [], "id": {id}}}"#));
    client.expect(r#"{"return": []}"#);
    client.send(r#"{"execute": "quit"}"#);
    silent.asked("quit");
    silent.say(
        r#"{"event": "SHUTDOWN", "data": {"guest": false, "reason": "host-qmp-quit"}, "timestamp": {"seconds": 1, "microseconds": 2}}"#,
    );
    client.expect_event("SHUTDOWN");
    // The server ends without an answer.
    drop(silent);
    client.expect_end();

    let lines =
        wait_for_audit(&path, |lines| commands(lines).len() == 4 && ends_with_disconnection(lines));
    let desc = told.get("error").and_then(|error| error.get("desc")).and_then(Json::as_str);
    assert!(desc.unwrap().contains("was not answered within 0.2 seconds"), "{told}");
    assert_eq!(
        commands(&lines),
        [
            ["qmp_capabilities", "ok", ""],
            ["query-block", "error", desc.unwrap()],
            ["query-jobs", "ok", ""],
            ["quit", "none", ""],
        ]
    );
    let late = lines.iter().find(|line| line.text("command") == "query-block").unwrap();
    assert!(late.number("duration-us") >= 200_000, "{late:?}");
}

#[test]
fn mistakes_in_the_audit_get_one_line() {
    for (options, expected) in [
        (["--audit", "no/such/directory/audit"], "no/such/directory/audit: No such file"),
        (["--audit", "."], ".: "),
        (["--audit-secret", "a b"], "'a b' is no pattern of names"),
    ] {
        for check in [&[][..], &["--check-config"]] {
            let line = refusal(&[&["serve"], &options[..], check].concat());
            assert!(line.contains(expected), "{options:?}: {line}");
        }
    }
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("qmp-server.toml").display().to_string();
    for (text, expected) in [
        ("\naudit = 'no/such/directory/audit'", ":2: audit: no/such/directory/audit: No such file"),
        ("audit-secret = ['a', '']", ":1: audit-secret[1]: '' is no pattern"),
        ("audit = true", ":1: audit: invalid type"),
    ] {
        fs::write(&file, text).unwrap();
        let line = refusal(&["serve", "--config", &file, "--check-config"]);
        let rest = line.strip_prefix(&format!("qmp-server: {file}"));
        assert!(rest.is_some_and(|rest| rest.starts_with(expected)), "{text}: {line}");
        assert_eq!(refusal(&["--config", &file]), line);
    }
}
