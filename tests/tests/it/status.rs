// SPDX-License-Identifier: MIT OR Apache-2.0
//! `qmp-server status`, and the commands that it uses.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use qmp_dispatch::proto::Error;
use qmp_dispatch::{Context, Dispatcher, EventType, Registry};
use qmp_server::{Limits, Server as Library, ServerHandle, register_status, system_time, version};
use schemars::JsonSchema;
use serde::Serialize;
use tempfile::TempDir;
use tests::endpoint::Endpoint;
use tests::json::Json;
use tests::process::{Finished, Process, Signal, run};
use tests::server::{Client, LIMIT, Server, qmp_server, refusal};
use tests::upstream::{Muxed, Program};
use tests::waiting;

const NOISE: EventType<Noise> = EventType::new("NOISE");

#[derive(Serialize, JsonSchema)]
struct Noise {
    text: String,
}

/// A server in this process, with a command that blocks until the test unblocks it.
struct Blocking {
    endpoint: Endpoint,
    began: Receiver<()>,
    go_on: Sender<()>,
    _server: ServerHandle,
    _dir: TempDir,
}

impl Blocking {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("qmp.sock");
        let ((tell, began), (go_on, wait)) = (channel(), channel());
        let (tell, wait) = (Mutex::new(tell), Mutex::new(wait));
        let mut registry = Registry::new();
        let block = move |_: &Context| -> Result<(), Error> {
            tell.lock().unwrap().send(()).unwrap();
            // The test may have ended.
            let _ = wait.lock().unwrap().recv();
            Ok(())
        };
        registry.command("x-block", block).unwrap();
        let emit = |context: &Context| context.emit(&NOISE, &Noise { text: "x".repeat(1000) });
        registry.event(&NOISE).unwrap();
        registry.command("x-emit", emit).unwrap();
        register_status(&mut registry).unwrap();
        let dispatcher = Dispatcher::new(registry, version(), system_time);
        let mut limits = Limits::default();
        limits.unread = 4096;
        let listen = format!("unix:{}", path.display()).parse().unwrap();
        let server = Library::new(dispatcher).limits(limits).listen(&listen).unwrap();
        let server = server.spawn().unwrap();
        Self { endpoint: Endpoint::Unix(path), began, go_on, _server: server, _dir: dir }
    }
}

impl Drop for Blocking {
    fn drop(&mut self) {
        // Whatever blocks still.
        let _ = self.go_on.send(());
        self._server.control().shutdown();
    }
}

fn status(endpoint: &Endpoint, options: &[&str]) -> Finished {
    let address = endpoint.to_string();
    let arguments = ["status", &address].into_iter().chain(options.iter().copied());
    run(&mut qmp_server(arguments), "", LIMIT).unwrap_or_else(|error| panic!("{error}"))
}

fn json(endpoint: &Endpoint) -> Json {
    let finished = status(endpoint, &["--json"]);
    assert!(finished.status.success(), "{finished:#?}");
    assert_eq!(finished.stdout.lines().count(), 1, "{finished:#?}");
    Json::parse(&finished.stdout).unwrap()
}

/// A member of a member, and so on; numbers stand for elements.
#[track_caller]
fn at(json: &Json, path: &str) -> String {
    let mut value = json;
    for step in path.split('/') {
        let next = match step.parse::<usize>() {
            Ok(index) => value.as_array().and_then(|elements| elements.get(index)),
            Err(_) => value.get(step),
        };
        value = next.unwrap_or_else(|| panic!("there is no {path}: {json}"));
    }
    value.to_string()
}

/// Asks until a value is as expected.
#[track_caller]
fn wait_for(endpoint: &Endpoint, path: &str, expected: &str) -> Json {
    waiting::wait_for(|| {
        let json = json(endpoint);
        let there = at(&json, path) == expected;
        if there { Ok(json) } else { Err(format!("{path} is not {expected}: {json}")) }
    })
}

#[test]
fn what_blocks_is_shown_while_it_blocks() {
    let server = Blocking::start();
    let mut blocked = Client::connect(&server.endpoint);
    blocked.negotiate("{}");
    blocked.send("{'execute': 'x-block'}");
    server.began.recv_timeout(LIMIT).unwrap();
    let mut waiting = Client::connect(&server.endpoint);
    waiting.negotiate(r#"{"enable": ["oob"]}"#);
    waiting.send("{'execute': 'x-block'}{'execute': 'query-version'}");
    let json = wait_for(&server.endpoint, "clients/1/queued", "2");
    for (path, expected) in [
        ("server/clients", "3"),
        ("server/executing", "1"),
        ("server/queued", "2"),
        ("clients/0/monitor", "1"),
        ("clients/0/running/command", "\"x-block\""),
        ("clients/0/suspended", "true"),
        ("clients/0/oob", "false"),
        ("clients/0/queued", "0"),
        ("clients/1/suspended", "false"),
        ("clients/1/oob", "true"),
        ("clients/2/negotiated", "true"),
    ] {
        assert_eq!(at(&json, path), expected, "{path}: {json}");
    }
    assert!(at(&json, "clients/0/peer").contains(&format!("pid {}", std::process::id())), "{json}");
    assert!(json.get("upstream").is_none());
    let finished = status(&server.endpoint, &[]);
    let row = finished.stdout.lines().find(|line| line.trim_start().starts_with("1 "));
    let row = row.unwrap_or_else(|| panic!("{finished:#?}"));
    assert!(row.contains(" suspended ") && row.contains(" x-block "), "{finished:#?}");
    let head = finished.stdout.lines().find(|line| line.starts_with("MONITOR")).unwrap();
    for column in ["PEER", "ROLE", "RUNS", "FOR", "UNREAD", "DROPPED"] {
        assert!(head.contains(column), "{head}");
    }
    server.go_on.send(()).unwrap();
    blocked.expect(r#"{"return": {}}"#);
    server.began.recv_timeout(LIMIT).unwrap();
    server.go_on.send(()).unwrap();
    (0..2).for_each(|_| drop(waiting.receive()));
    let json = wait_for(&server.endpoint, "server/executing", "0");
    assert!(json.get("clients").unwrap().as_array().unwrap()[0].get("running").is_none(), "{json}");
}

#[test]
fn a_client_that_does_not_read_is_shown() {
    let server = Blocking::start();
    let mut silent = Client::connect(&server.endpoint);
    silent.negotiate("{}");
    let mut client = Client::connect(&server.endpoint);
    client.negotiate("{}");
    let json = waiting::wait_for(|| {
        for _ in 0..200 {
            client.send("{'execute': 'x-emit'}");
            (0..2).for_each(|_| drop(client.receive()));
        }
        let json = json(&server.endpoint);
        let dropped = at(&json, "clients/0/events-dropped") != "0";
        if dropped { Ok(json) } else { Err(format!("no event is dropped: {json}")) }
    });
    let unread: u64 = at(&json, "clients/0/unread-bytes").parse().unwrap();
    assert!(unread > 4096, "{json}");
    assert_eq!(at(&json, "clients/0/events-dropped"), at(&json, "server/events-dropped"));
    assert_eq!(at(&json, "clients/1/unread-bytes"), "0");
}

#[test]
fn the_reference_machine_is_watched_until_a_signal_comes() {
    let server = Server::start();
    let address = server.endpoint().to_string();
    let mut command = qmp_server(["status", &address, "--watch", "0.1"]);
    let mut process = Process::start(command.stdout(Stdio::piped())).unwrap();
    let lines = BufReader::new(process.child().stdout.take().unwrap()).lines();
    let (tell, requests) = channel();
    let read = thread::spawn(move || {
        lines.map_while(Result::ok).filter(|line| line.starts_with("requests ")).for_each(|line| {
            // The test has seen enough.
            let _ = tell.send(line);
        });
    });
    // Whether there is a server behind this one, or machines, has been asked once.
    for failed in [0, 2, 2] {
        let requests = requests.recv_timeout(LIMIT).unwrap();
        assert!(requests.ends_with(&format!(", {failed} failed so far")), "{requests}");
        assert!(!requests.contains('\x1b'), "no terminal is there: {requests}");
    }
    process.signal(Signal::INT).unwrap();
    let ended = process.wait(LIMIT).unwrap().expect("it ends");
    assert!(ended.success(), "{ended}: {}", process.stderr());
    assert_eq!(process.stderr(), "");
    read.join().unwrap();
}

#[test]
fn a_mux_shows_what_its_upstream_server_is_doing() {
    let Some(muxed) = Muxed::start(Program::StorageDaemon, &["--deadline", "0.2"]) else { return };
    let endpoint = muxed.mux.endpoint();
    let shown = json(&endpoint);
    assert_eq!(at(&shown, "upstream/connected"), "true");
    assert_eq!(at(&shown, "upstream/oob"), "true");
    assert_eq!(at(&shown, "upstream/in-flight"), "[]");
    assert_eq!(at(&shown, "upstream/reconnects"), "0");
    let mut client = muxed.mux.negotiated();
    muxed.upstream.signal(Signal::STOP).unwrap();
    client.send("{'execute': 'query-block-exports'}");
    let shown = wait_for(&endpoint, "server/deadlines-passed", "1");
    assert_eq!(at(&shown, "upstream/in-flight/0/command"), "\"query-block-exports\"");
    let in_flight = shown.get("upstream").unwrap().get("in-flight").unwrap();
    assert!(in_flight.as_array().unwrap()[0].get("monitor").is_none(), "nobody waits: {shown}");
    let finished = status(&endpoint, &[]);
    assert!(
        finished.stdout.contains("query-block-exports which nobody waits for"),
        "{finished:#?}"
    );
    muxed.upstream.signal(Signal::CONT).unwrap();
    wait_for(&endpoint, "server/late-answers", "1");
    wait_for(&endpoint, "upstream/in-flight", "[]");
}

#[test]
fn a_server_that_knows_no_status_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let missing = format!("unix:{}", dir.path().join("missing.sock").display());
    refusal(&["status", &missing]);
    let line = refusal(&["status", &missing, "--watch", "soon"]);
    assert!(line.contains("expected a number of seconds"), "{line}");
    let listen: qmp_server::Listen = missing.parse().unwrap();
    let dispatcher = Dispatcher::new(Registry::new(), version(), system_time);
    let server = Library::new(dispatcher).listen(&listen).unwrap().spawn().unwrap();
    let finished = status(&Endpoint::Unix(dir.path().join("missing.sock")), &[]);
    assert_eq!(finished.status.code(), Some(1), "{finished:#?}");
    assert_eq!(
        finished.stderr,
        "CommandNotFound: The command __org.qmp-server_query-server has not been found\n"
    );
    server.control().shutdown();
    server.wait();
}

#[test]
fn a_server_that_is_silent_is_given_up() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("silent.sock");
    let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let line = refusal(&["status", &format!("unix:{}", path.display()), "--timeout", "0.1"]);
    assert!(line.contains("no greeting"), "{line}");
}
