// SPDX-License-Identifier: MIT OR Apache-2.0
//! The limits of what clients may take, and what happens beyond them.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use qmp_dispatch::proto::Error;
use qmp_dispatch::{Context, Dispatcher, EventType, Registry, Responder};
use qmp_server::{Limits, Server, ServerHandle, system_time, version};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use schemars::JsonSchema;
use serde::Serialize;
use tempfile::TempDir;
use tests::endpoint::Endpoint;
use tests::process::Process;
use tests::server::{Client, LIMIT, program};
use tests::waiting::{wait_for, wait_until};

const NOISE: EventType<Noise> = EventType::new("NOISE");

#[derive(Serialize, JsonSchema)]
struct Noise {
    index: usize,
    padding: String,
}

struct Limited {
    server: Option<ServerHandle>,
    dispatcher: Dispatcher,
    path: PathBuf,
    /// The path of a second socket.
    other_path: PathBuf,
    /// The responders of `x-later`.
    responders: Receiver<Responder<()>>,
    _dir: TempDir,
}

impl Limited {
    fn start(set: impl FnOnce(&mut Limits)) -> Limited {
        let mut registry = Registry::new();
        registry.event(&NOISE).unwrap();
        registry
            .command("x-quick", |_: &Context| Ok::<_, Error>("quick".to_owned()))
            .unwrap()
            .allow_oob();
        let (hand_over, responders) = channel();
        let later = move |_: &Context, responder: Responder<()>| _ = hand_over.send(responder);
        registry.deferred_command("x-later", later).unwrap();
        let dispatcher = Dispatcher::new(registry, version(), system_time);
        let mut limits = Limits::default();
        set(&mut limits);
        let dir = tempfile::tempdir().unwrap();
        let [path, other_path] = ["qmp.sock", "other.sock"].map(|name| dir.path().join(name));
        let mut server = Server::new(dispatcher.clone()).limits(limits);
        for path in [&path, &other_path] {
            server = server.listen(&format!("unix:{}", path.display()).parse().unwrap()).unwrap();
        }
        let server = Some(server.spawn().unwrap());
        Limited { server, dispatcher, path, other_path, responders, _dir: dir }
    }

    fn client(&self) -> Client {
        let mut client = Client::connect(&Endpoint::Unix(self.path.clone()));
        client.negotiate("{}");
        client
    }

    /// Connects a client that has negotiated, and reads nothing more.
    fn socket(&self) -> UnixStream {
        let mut socket = UnixStream::connect(&self.path).unwrap();
        socket.set_read_timeout(Some(LIMIT)).unwrap();
        socket.write_all(b"{'execute': 'qmp_capabilities'}").unwrap();
        read_line(&mut socket);
        read_line(&mut socket);
        socket
    }

    /// Emits this number of events, with indices from `from` on.
    fn make_noise(&self, from: usize, events: usize) {
        for index in from..from + events {
            let noise = Noise { index, padding: "noise".repeat(200) };
            self.dispatcher.emit(&NOISE, &noise).unwrap();
        }
    }
}

impl Drop for Limited {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            server.control().shutdown();
            server.wait();
        }
    }
}

fn read_line(socket: &mut UnixStream) -> String {
    let mut line = Vec::new();
    while line.last() != Some(&b'\n') {
        let mut byte = [0];
        assert_eq!(socket.read(&mut byte).unwrap(), 1, "after {line:?}");
        line.push(byte[0]);
    }
    String::from_utf8(line).unwrap()
}

/// Waits until the server has ended the connection, without reading.
fn wait_until_cut_off(socket: &UnixStream) {
    let limit = Timespec::try_from(LIMIT).unwrap();
    let ready = poll(&mut [PollFd::new(socket, PollFlags::empty())], Some(&limit)).unwrap();
    assert_eq!(ready, 1, "the client is still connected");
}

#[test]
fn a_client_too_many_is_not_greeted_and_there_is_room_again_when_one_leaves() {
    let limited = Limited::start(|limits| limits.per_user.monitors = 2);
    let first = limited.client();
    let mut second = limited.client();
    let mut third = UnixStream::connect(&limited.path).unwrap();
    third.set_read_timeout(Some(LIMIT)).unwrap();
    assert_eq!(third.read(&mut [0]).unwrap(), 0);
    drop(first);
    // It takes a moment until the server knows.
    let mut next = wait_for(|| {
        let mut socket = UnixStream::connect(&limited.path).unwrap();
        socket.set_read_timeout(Some(LIMIT)).unwrap();
        let greeted = socket.read(&mut [0]).unwrap() == 1;
        greeted.then_some(socket).ok_or_else(|| "there is still no room".to_owned())
    });
    assert!(read_line(&mut next).contains("QMP"));
    assert_eq!(second.execute("x-quick").as_str(), Some("quick"));
}

#[test]
fn a_client_that_reads_again_is_told_how_many_events_it_has_missed() {
    const EVENTS: usize = 3000;
    let limited = Limited::start(|limits| limits.unread = 16 << 10);
    let mut lazy = limited.socket();
    let mut eager = limited.client();
    for index in 0..EVENTS {
        limited.make_noise(index, 1);
        eager.expect_event("NOISE");
    }
    let index_of = |line: &str| -> Option<usize> {
        let number = line.split_once(r#""index": "#)?.1;
        number[..number.find(',')?].parse().ok()
    };
    let mut read = 0;
    let missed: usize = loop {
        let line = read_line(&mut lazy);
        match line.split_once(r#""__org.qmp-server_EVENTS_MISSED", "data": {"count": "#) {
            Some((_, count)) => break count[..count.find('}').unwrap()].parse().unwrap(),
            None => assert_eq!(index_of(&line), Some(read), "{line}"),
        }
        read += 1;
    };
    assert!(read > 0 && missed > 0);
    assert_eq!(read + missed, EVENTS);
    limited.make_noise(EVENTS, 1);
    assert_eq!(index_of(&read_line(&mut lazy)), Some(EVENTS), "it gets what comes now");
}

#[test]
fn a_client_that_has_not_read_for_too_long_is_disconnected() {
    let limited = Limited::start(|limits| limits.stalled = Some(Duration::from_millis(10)));
    let stalled = limited.socket();
    let mut other = limited.client();
    for index in 0..1000 {
        limited.make_noise(index, 1);
        other.expect_event("NOISE");
    }
    wait_until_cut_off(&stalled);
    assert_eq!(other.execute("x-quick").as_str(), Some("quick"));
}

#[test]
fn who_keeps_most_of_too_many_bytes_is_disconnected_and_nobody_else() {
    let limited = Limited::start(|limits| limits.per_server.bytes = 1 << 20);
    let mut modest = limited.socket();
    let mut greedy = limited.socket();
    let (begin, rest) = (b"{'execute': 'x-qu", b"ick', 'id': 1}");
    modest.write_all(begin).unwrap();
    let begun = format!("{{'execute': 'x-quick', 'id': '{}", "greed".repeat(400 << 10));
    match greedy.write_all(begun.as_bytes()) {
        Ok(()) => wait_until_cut_off(&greedy),
        Err(error) => assert_eq!(error.kind(), ErrorKind::BrokenPipe),
    }
    modest.write_all(rest).unwrap();
    assert_eq!(read_line(&mut modest), "{\"return\": \"quick\", \"id\": 1}\r\n");
}

#[test]
fn with_few_requests_at_a_time_all_are_answered_all_the_same() {
    const COMMANDS: usize = 100;
    let limited = Limited::start(|limits| limits.per_server.requests = 2);
    thread::scope(|scope| {
        for _ in 0..8 {
            let mut client = Client::connect(&Endpoint::Unix(limited.path.clone()));
            client.negotiate(r#"{"enable": ["oob"]}"#);
            scope.spawn(move || {
                for _ in 0..COMMANDS / 10 {
                    client.send(&r#"{"execute": "x-quick"}"#.repeat(10));
                    (0..10).for_each(|_| client.expect(r#"{"return": "quick"}"#));
                }
            });
        }
    });
}

#[test]
fn the_room_of_requests_whose_client_is_disconnected_is_for_others() {
    let limited = Limited::start(|limits| limits.per_server.requests = 2);
    let mut first = limited.client();
    let mut next = limited.client();
    let mut leaving = Client::connect(&Endpoint::Unix(limited.other_path.clone()));
    leaving.negotiate("{}");
    first.send(r#"{"execute": "x-later"}"#);
    let responder = limited.responders.recv().unwrap();
    leaving.send(r#"{"execute": "x-quick"}"#);
    let control = limited.server.as_ref().unwrap().control();
    wait_until(|| control.status().unwrap().queued > 0);
    next.send(r#"{"execute": "x-quick"}"#);
    // By the time that both have been greeted, the server has seen that request, and left it unread.
    for _ in 0..2 {
        Client::connect(&Endpoint::Unix(limited.path.clone())).receive();
    }
    assert!(control.yank("compat_monitor1"));
    responder.respond(Ok::<_, Error>(()));
    first.expect(r#"{"return": {}}"#);
    next.expect(r#"{"return": "quick"}"#);
}

/// Starts a server with these limits of descriptors, as options of `ulimit`.
fn with_descriptors(path: &Path, limits: &str) -> Process {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("ulimit {limits} && exec \"$@\""), "sh"]).arg(program());
    command.arg("--listen").arg(format!("unix:{}", path.display()));
    let server = Process::start(command.stdin(Stdio::null())).unwrap();
    drop(Endpoint::Unix(path.to_owned()).connect(LIMIT).unwrap());
    server
}

#[test]
fn the_program_takes_as_many_descriptors_as_it_may() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("qmp.sock");
    let _server = with_descriptors(&path, "-Sn 32");
    let mut clients: Vec<_> = (0..40).map(|_| UnixStream::connect(&path).unwrap()).collect();
    for client in &mut clients {
        client.set_read_timeout(Some(LIMIT)).unwrap();
        assert!(read_line(client).contains("QMP"));
    }
}

#[test]
fn who_comes_when_there_are_no_descriptors_left_waits_for_others_to_leave() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("qmp.sock");
    let server = with_descriptors(&path, "-n 32");
    let mut first = UnixStream::connect(&path).unwrap();
    // More than fit; they wait to be accepted.
    let others: Vec<_> = (0..40).map(|_| UnixStream::connect(&path).unwrap()).collect();
    first.set_read_timeout(Some(LIMIT)).unwrap();
    assert!(read_line(&mut first).contains("QMP"));
    first.write_all(b"{'execute': 'qmp_capabilities'}").unwrap();
    assert!(read_line(&mut first).contains("return"), "who is there is served");
    server.expect_log("cannot accept clients");
    assert!(server.stderr().contains("WARN"), "{}", server.stderr());
    for mut other in others {
        // Each leaves after its greeting, which makes room for another.
        other.set_read_timeout(Some(LIMIT)).unwrap();
        assert!(read_line(&mut other).contains("QMP"));
    }
    first.write_all(b"{'execute': 'query-status'}").unwrap();
    assert!(read_line(&mut first).contains("running"));
}
