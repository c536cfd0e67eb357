// SPDX-License-Identifier: MIT OR Apache-2.0
use std::os::fd::{AsFd, IntoRawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

use qmp_dispatch::Dispatcher;
use tempfile::TempDir;

use super::{Frozen, Handover};
use crate::mux::lines::{LIMIT, Lines, pass};
use crate::{
    Address, Discipline, Engine, Limits, Listen, Mux, Server, UpstreamLost, system_time, version,
};

struct Site {
    folder: TempDir,
    listener: UnixListener,
    limits: Limits,
    /// Whether clients get the mux's own events.
    notices: bool,
}

/// A mux at work.
struct Running {
    engine: Engine,
    mux: Mux,
}

impl Site {
    fn new() -> Site {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("upstream.sock")).unwrap();
        Site { folder, listener, limits: Limits::default(), notices: false }
    }

    fn address(&self, name: &str) -> Address {
        Address::Unix(self.folder.path().join(name))
    }

    fn run(&self, handover: Option<&mut Handover>) -> Running {
        let engine = Engine::new().unwrap();
        let mux = Mux::new(self.address("upstream.sock").into()).unwrap();
        let mux = mux.on_upstream_lost(UpstreamLost::Keep);
        let dispatcher = Dispatcher::new(mux.registry().unwrap(), version(), system_time);
        let server = Server::new(dispatcher)
            .discipline(Discipline::OnePerMonitor)
            .limits(self.limits)
            .dialect_of_greeting();
        let server = match handover {
            Some(handover) => handover.resume(&mux, server),
            None => server,
        };
        let mut listen = Listen::new(self.address("qmp.sock"));
        listen.notices = self.notices;
        let server = server.listen(&listen).unwrap();
        mux.serve_on(&engine, server).unwrap();
        Running { engine, mux }
    }

    fn start(&self) -> (Running, Lines) {
        let running = self.run(None);
        let mut upstream = Lines::new(self.listener.accept().unwrap().0);
        let version = r#"{"qemu": {"micro": 0, "minor": 1, "major": 11}, "package": ""}"#;
        upstream.send(&format!(
            "{{\"QMP\": {{\"version\": {version}, \"capabilities\": [\"oob\"]}}}}\r\n"
        ));
        upstream.answer("qmp_capabilities");
        (running, upstream)
    }

    fn client(&self, oob: bool) -> Lines {
        let path = self.folder.path().join("qmp.sock");
        // It is greeted once the upstream server has greeted.
        let mut client = Lines::new(UnixStream::connect(path).unwrap());
        client.expect("QMP");
        let enable = if oob { r#", "arguments": {"enable": ["oob"]}"# } else { "" };
        client.send(&format!(r#"{{"execute": "qmp_capabilities"{enable}}}"#));
        client.expect("return");
        client
    }

    /// The same, while the upstream server answers what was sent, or takes what comes.
    fn hand_over_while(&self, running: Running, upstream: &mut Lines) -> Running {
        std::thread::scope(|scope| {
            let running = scope.spawn(|| self.hand_over(running));
            upstream.answer("getfd");
            running.join().unwrap()
        })
    }

    /// The other program, in this one. The first stands still for ever.
    fn hand_over(&self, running: Running) -> Running {
        let frozen = freeze(&running);
        let socket = frozen.sockets()[0].try_clone_to_owned().unwrap().into_raw_fd();
        std::mem::forget((running, frozen));
        self.run(Some(&mut Handover::receive(&[socket]).unwrap()))
    }
}

fn freeze(running: &Running) -> Frozen {
    Handover::freeze(&running.engine, [&running.mux], &[], LIMIT, "").unwrap()
}

#[test]
fn what_is_under_way_goes_on() {
    let site = Site::new();
    let (mut running, mut upstream) = site.start();
    let (mut client, mut other) = (site.client(true), site.client(false));
    client.send_with_descriptor(r#"{"execute": "getfd", "arguments": {"fdname": "tap"}, "id": 0}"#);
    let named = upstream.answer("getfd");
    client.expect(r#""id": 0"#);
    for round in 0..3 {
        client.send(r#"{"execute": "first", "id": [1]} {"execute": "second", "id": 2}"#);
        client.send(r#"{'execute': 'third', 'arguments': {'x': "é"}, 'id': 3} {'exec"#);
        other.send(r#"{"execute": "fourth", "id": "four"} {"execute": "fifth"}"#);
        let mut requests = [upstream.expect("execute"), upstream.expect("execute")];
        requests.sort();
        let [first, fourth] = requests;
        assert!(first.contains("first") && fourth.contains("fourth"));
        running = site.hand_over(running);
        upstream.answer_to(&fourth, "4");
        other.expect(r#"{"return": 4, "id": "four"}"#);
        upstream.answer("fifth");
        other.expect(r#"{"return": {}}"#);
        // It is with the second program before the first one is answered.
        client.send(r#"-oob': 'urgent', 'id': 9}"#);
        upstream.send(
            "{\"event\": \"STOP\", \"timestamp\": {\"seconds\": 1, \"microseconds\": 2}}\r\n",
        );
        client.expect("STOP");
        other.expect("STOP");
        upstream.answer("urgent");
        client.expect(r#""id": 9"#);
        upstream.answer_to(&first, "1");
        client.expect(r#"{"return": 1, "id": [1]}"#);
        upstream.answer("second");
        client.expect(r#""id": 2"#);
        let third = upstream.answer("third");
        assert!(
            third.contains(r#"{"x":"\u00e9"}"#) || third.contains(r#"{"x": "\u00E9"}"#),
            "{third}"
        );
        client.expect(r#""id": 3"#);
        site.client(round == 0);
    }
    client.send(r#"{"execute": "closefd", "arguments": {"fdname": "tap"}}"#);
    let closed = upstream.answer("closefd");
    let name = |request: &str| {
        let (_, rest) = request.split_once("mux-").unwrap();
        rest.split_once('"').unwrap().0.to_owned()
    };
    assert_eq!(name(&closed), name(&named));
    client.expect("return");
    drop(running);
}

#[test]
fn nobody_notices_if_there_is_no_other_program() {
    let site = Site::new();
    let (running, mut upstream) = site.start();
    let mut client = site.client(false);
    client.send(r#"{"execute": "first", "id": 1} {"execute": "second", "id": 2}"#);
    let first = upstream.expect("first");
    drop(freeze(&running));
    upstream.answer_to(&first, "1");
    client.expect(r#"{"return": 1, "id": 1}"#);
    upstream.answer("second");
    client.expect(r#""id": 2"#);
    site.client(true);
}

#[test]
fn what_is_held_at_the_pace_of_its_user_goes_over_and_is_sent_once() {
    let site = Site::new();
    let (mut running, mut upstream) = site.start();
    let mut clients = [site.client(false), site.client(false), site.client(true)];
    let text = "x".repeat(100_000);
    let mut long = |client: usize, id: u32| {
        let request =
            format!(r#"{{"execute": "long", "arguments": {{"text": "{text}"}}, "id": {id}}}"#);
        clients[client].send(&request);
    };
    // Another user is there.
    let sent = |running: &Running, bytes| {
        running.mux.shared.upstream.state().pace.sent(7, bytes, Instant::now());
    };
    sent(&running, 10);
    long(0, 0);
    upstream.answer("long");
    (0..3).for_each(|client| long(client, 1));
    let held = |running: &Running| running.mux.shared.upstream.state().pace.len();
    while held(&running) < 3 {
        std::thread::yield_now();
    }
    running = site.hand_over(running);
    // They are sent in any order, one after the other, as the first of them makes no debt in the other program.
    for _ in 0..3 {
        assert!(upstream.answer("long").contains(&text));
    }
    clients[0].expect(r#""id": 0"#);
    for client in &mut clients {
        client.expect(r#"{"return": {}, "id": 1}"#);
    }
    clients[2].send(r#"{"execute": "last", "id": 2}"#);
    upstream.answer("last");
    clients[2].expect(r#"{"return": {}, "id": 2}"#);
    assert_eq!(held(&running), 0);
}

/// What the clients take, and what each has not read and has missed.
fn taken(running: &Running) -> (usize, Vec<(u64, u64)>) {
    let control = running.mux.control().unwrap();
    let unread = |client: crate::ClientStatus| (client.unread_bytes, client.events_dropped);
    let clients = control.clients().into_iter().map(unread).collect();
    (control.server().unwrap().gauges().kept_bytes, clients)
}

#[test]
fn what_is_not_read_yet_goes_over_and_is_charged_as_before() {
    let mut site = Site::new();
    site.limits.unread = 64 << 10;
    site.notices = true;
    let (mut running, mut upstream) = site.start();
    while !running.mux.status().connected {
        std::thread::yield_now();
    }
    let mut clients = [site.client(false), site.client(true)];
    let event = |number: usize, size: usize| {
        let time = r#"{"seconds": 1, "microseconds": 2}"#;
        let text = "x".repeat(size);
        format!(
            "{{\"timestamp\": {time}, \"event\": \"E\", \"data\": {{\"n\": {number}, \"x\": \"{text}\"}}}}\r\n"
        )
    };
    // Of both kinds: those that are kept once for all clients, and others.
    for number in 0..150 {
        upstream.send(&event(number, if number % 2 == 0 { 5000 } else { 100 }));
    }
    let mut reader = site.client(false);
    upstream.send(&event(150, 10));
    while !reader.expect("event").contains("\"n\": 150") {}
    // Half a message, which is charged, too.
    clients[0].send(&format!(r#"{{"execute": "{}"#, "y".repeat(100_000)));
    reader.send(r#"{"execute": "first"}"#);
    upstream.answer("first");
    reader.expect("return");
    let before = taken(&running);
    assert!(before.1[..2].iter().all(|&(unread, missed)| unread > 64 << 10 && missed > 0));
    for _ in 0..3 {
        running = site.hand_over(running);
    }
    reader.send(r#"{"execute": "second"}"#);
    upstream.answer("second");
    reader.expect("return");
    let after = taken(&running);
    assert_eq!(after.1, before.1);
    // Buffers may be larger than what is in them.
    assert!(after.0 <= before.0 && 10 * after.0 >= 8 * before.0, "{after:?} {before:?}");
    for client in &mut clients {
        let mut number = 0;
        loop {
            let line = client.expect("event");
            if line.contains("EVENTS_MISSED") {
                break;
            }
            assert!(line.contains(&format!("\"n\": {number},")), "{number} is not in: {line}");
            number += 1;
        }
        assert!(number > 20);
    }
    assert_eq!(taken(&running).1.len(), 3);
}

#[test]
fn a_descriptor_that_was_not_sent_goes_over() {
    let site = Site::new();
    let (running, mut upstream) = site.start();
    let (mut client, mut other) = (site.client(false), site.client(false));
    let getfd = |name: &str| {
        format!(r#"{{"execute": "getfd", "arguments": {{"fdname": "{name}"}}, "id": "{name}"}}"#)
    };
    client.send_with_descriptor(&getfd("one"));
    let one = upstream.expect("getfd");
    // This one waits for the answer to that.
    other.send_with_descriptor(&getfd("two"));
    let queued = || running.mux.status().queued == 1;
    while !queued() {
        std::thread::yield_now();
    }
    let error = Handover::freeze(&running.engine, [&running.mux], &[], Duration::ZERO, "");
    assert_eq!(error.unwrap_err().kind(), std::io::ErrorKind::TimedOut);
    upstream.answer_to(&one, "{}");
    client.expect(r#""id": "one""#);
    // Held back again, or sent: in either case it comes once.
    let running = site.hand_over_while(running, &mut upstream);
    other.expect(r#""id": "two""#);
    client.send(r#"{"execute": "closefd", "arguments": {"fdname": "one"}}"#);
    upstream.answer("closefd");
    client.expect("return");
    drop(running);
}

#[test]
fn descriptors_that_wait_go_over_and_a_socket_that_cannot_costs_its_client_alone() {
    let site = Site::new();
    let (running, mut upstream) = site.start();
    let (mut client, mut hostile) = (site.client(false), site.client(false));
    // The descriptor has come, and the rest of the command has not.
    client.send_with_descriptor(r#"{"execute": "getfd", "argum"#);
    // A socket in a socket in a socket, and so on, which are not read because the client is suspended.
    hostile.send(r#"{"execute": "slow"}"#);
    let slow = upstream.expect("slow");
    let mut inner = UnixStream::pair().unwrap().0;
    for _ in 0..3 {
        let (near, far) = UnixStream::pair().unwrap();
        pass(&near, "x", inner.as_fd());
        inner = far;
    }
    pass(hostile.0.get_ref(), r#"{"execute": "more"}"#, inner.as_fd());
    let running = site.hand_over(running);
    client.send(r#"ents": {"fdname": "tap"}}"#);
    upstream.answer("getfd");
    client.expect("return");
    upstream.answer_to(&slow, "{}");
    // Its connection has gone, or it is answered, as Linux would have it.
    assert!((1..=2).contains(&taken(&running).1.len()));
}
