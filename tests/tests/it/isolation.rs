// SPDX-License-Identifier: MIT OR Apache-2.0
//! No client can delay or harm another one.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};

use qmp_dispatch::proto::{Error, Layout};
use qmp_dispatch::{Context, Dispatcher, EventType, Registry, Responder};
use qmp_server::{
    Address, Discipline, Limits, Listener, Peer, Received, Role, Roles, Server, ServerHandle,
    Transport, register_status, system_time, version,
};
use schemars::JsonSchema;
use serde::Serialize;
use tempfile::TempDir;
use tests::endpoint::Endpoint;
use tests::server::{Client, LIMIT};
use tests::waiting::wait_until;

const NOISE: EventType<Noise> = EventType::new("NOISE");

#[derive(Serialize, JsonSchema)]
struct Noise {
    padding: String,
}

struct Site {
    server: Option<ServerHandle>,
    dispatcher: Dispatcher,
    path: PathBuf,
    /// Number of times that `x-count` was executed.
    counted: Arc<AtomicUsize>,
    /// The responders of `x-later`.
    responders: Receiver<Responder<()>>,
    _dir: TempDir,
}

impl Site {
    fn start(set: impl FnOnce(&mut Limits)) -> Site {
        Site::start_with(set, |_| {}, |server| server)
    }

    fn start_with(
        set: impl FnOnce(&mut Limits),
        register: impl FnOnce(&mut Registry),
        add: impl FnOnce(Server) -> Server,
    ) -> Site {
        let mut registry = Registry::new();
        registry.event(&NOISE).unwrap();
        register_status(&mut registry).unwrap();
        let counted = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&counted);
        let counts = move |_: &Context| Ok::<_, Error>(count.fetch_add(1, Ordering::SeqCst) as u64);
        registry.command("x-count", counts).unwrap();
        registry.command("x-take", |_: &Context, _: Text| Ok::<_, Error>(())).unwrap();
        let (hand_over, responders) = channel();
        let later = move |_: &Context, responder: Responder<()>| _ = hand_over.send(responder);
        registry.deferred_command("x-later", later).unwrap();
        register(&mut registry);
        let dispatcher = Dispatcher::new(registry, version(), system_time);
        let mut limits = Limits::default();
        set(&mut limits);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("qmp.sock");
        let listen = format!("unix:{}", path.display()).parse().unwrap();
        let server = Server::new(dispatcher.clone()).limits(limits).listen(&listen).unwrap();
        let server = Some(add(server).spawn().unwrap());
        Site { server, dispatcher, path, counted, responders, _dir: dir }
    }

    fn client(&self, capabilities: &str) -> Client {
        let mut client = Client::connect(&Endpoint::Unix(self.path.clone()));
        client.negotiate(capabilities);
        client
    }

    /// Connects a client that has negotiated, and reads nothing more.
    fn socket(&self, capabilities: &str) -> UnixStream {
        let mut socket = UnixStream::connect(&self.path).unwrap();
        socket.set_read_timeout(Some(LIMIT)).unwrap();
        let negotiate = format!("{{'execute': 'qmp_capabilities', 'arguments': {capabilities}}}");
        socket.write_all(negotiate.as_bytes()).unwrap();
        read_until(&mut socket, "{\"return\": {}}\r\n");
        socket
    }

    fn counted(&self) -> usize {
        self.counted.load(Ordering::SeqCst)
    }

    #[track_caller]
    fn wait_until(&self, what: impl Fn(&ServerHandle) -> bool) {
        wait_until(|| what(self.server.as_ref().unwrap()));
    }

    #[track_caller]
    fn wait_for_clients(&self, clients: usize) {
        self.wait_until(|server| server.control().clients().len() == clients);
    }
}

/// Reads up to this text.
fn read_until(socket: &mut UnixStream, end: &str) -> String {
    let (mut said, mut buffer) = (Vec::new(), vec![0; 1 << 20]);
    while !said.ends_with(end.as_bytes()) {
        let read = socket.read(&mut buffer).unwrap();
        assert_ne!(read, 0, "the connection has ended");
        said.extend(&buffer[..read]);
    }
    String::from_utf8(said).unwrap()
}

impl Drop for Site {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            server.control().shutdown();
            server.wait();
        }
    }
}

#[derive(serde::Deserialize, JsonSchema)]
struct Text {
    #[allow(dead_code, reason = "it is taken, and that is all")]
    text: String,
}

const OOB: &str = r#"{"enable": ["oob"]}"#;
const COUNT: &str = r#"{"execute": "x-count"}"#;
const LATER: &str = r#"{"execute": "x-later"}"#;
const DONE: &str = r#"{"return": {}}"#;

#[test]
fn what_a_client_that_has_left_has_queued_is_not_executed() {
    let site = Site::start(|_| {});
    let (mut blocking, mut other) = (site.client("{}"), site.client("{}"));
    blocking.send(LATER);
    let responder = site.responders.recv().unwrap();
    let mut leaving = site.client(OOB);
    leaving.send(&COUNT.repeat(8));
    site.wait_until(|server| server.control().status().unwrap().queued == 8);
    drop(leaving);
    site.wait_for_clients(2);
    responder.respond(Ok::<_, Error>(()));
    blocking.expect(DONE);
    other.send(COUNT);
    other.expect(r#"{"return": 0}"#);
    assert_eq!(site.counted(), 1);
}

/// A listener with an endless supply of clients, which have left already.
struct Endless {
    /// Always readable.
    listener: UnixListener,
    _waits: UnixStream,
    accepted: Arc<AtomicUsize>,
}

impl AsFd for Endless {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

impl Listener for Endless {
    fn accept(&self) -> io::Result<Box<dyn Transport>> {
        self.accepted.fetch_add(1, Ordering::SeqCst);
        let (near, _far) = UnixStream::pair()?;
        near.set_nonblocking(true)?;
        Ok(Box::new(near))
    }

    fn address(&self) -> Address {
        Listener::address(&self.listener)
    }
}

#[test]
fn connections_without_end_come_a_few_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("endless.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let accepted = Arc::new(AtomicUsize::new(0));
    let _waits = UnixStream::connect(&path).unwrap();
    let endless = Endless { listener, _waits, accepted: Arc::clone(&accepted) };
    let add = |server: Server| server.accept_from(Box::new(endless), Layout::Compact);
    let site = Site::start_with(|_| {}, |_| {}, add);
    let mut polite = site.client("{}");
    // Answering one command takes a few passes, each of which accepts at most four.
    let accepts = || accepted.load(Ordering::SeqCst);
    let mut fewest = usize::MAX;
    for _ in 0..50 {
        let before = accepts();
        polite.send(COUNT);
        polite.receive();
        fewest = fewest.min(accepts() - before);
    }
    assert!(accepts() > 0 && fewest <= 10 * 4, "{fewest} clients came before one answer");
}

#[test]
fn who_is_denied_the_servers_own_events_is_not_told_of_missed_ones() {
    for denied in ["__org.qmp-server_*", "X_*"] {
        let register = |registry: &mut Registry| {
            let mut role = Role::based_on("r", Role::admin()).unwrap();
            role.deny_events(denied).unwrap();
            let mut roles = Roles::default();
            roles.add(role).unwrap();
            roles.set_default("r").unwrap();
            roles.register(registry);
        };
        let set = |limits: &mut Limits| limits.unread = 16 << 10;
        let site = Site::start_with(set, register, |server| server);
        let mut socket = site.socket("{}");
        // More than the buffers of the system hold.
        for _ in 0..3000 {
            site.dispatcher.emit(&NOISE, &Noise { padding: "noise".repeat(200) }).unwrap();
        }
        socket.write_all(COUNT.as_bytes()).unwrap();
        let said = read_until(&mut socket, "{\"return\": 0}\r\n");
        assert_eq!(said.contains("EVENTS_MISSED"), denied == "X_*", "{denied}");
    }
}

#[test]
fn descriptors_that_one_client_passes_leave_room_for_others() {
    let site = Site::start(|limits| {
        limits.per_user.descriptors = usize::MAX;
        limits.per_server.descriptors = 600;
    });
    // The test has the file open once, and the server once for each time that it received it.
    let path = site.path.with_file_name("passed");
    let file = File::create(&path).unwrap();
    let held = || {
        let open = fs::read_dir("/proc/self/fd").unwrap().filter_map(Result::ok);
        open.filter(|fd| fs::read_link(fd.path()).is_ok_and(|target| target == path)).count() - 1
    };
    let many = [file.as_fd(); 100];
    // The clients have not negotiated. The last one is not read: its 253 descriptors would exceed the limit.
    let greedy: Vec<Client> = (0..5)
        .map(|_| {
            let mut client = Client::connect(&Endpoint::Unix(site.path.clone()));
            client.send_with(b" ", &many);
            client
        })
        .collect();
    site.wait_until(|_| held() == 4 * 100);
    let mut other = site.client("{}");
    for _ in 0..10 {
        other.execute("x-count");
        assert_eq!(held(), 4 * 100);
    }
    // A client that leaves makes room.
    drop(greedy);
    site.wait_until(|_| held() == 0);
    other.send_with(COUNT.as_bytes(), &many[..1]);
    other.expect(r#"{"return": 10}"#);
}

/// A client whose handshake never ends.
struct Silent(UnixStream);

impl AsFd for Silent {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Transport for Silent {
    fn handshake(&self) -> io::Result<()> {
        Err(ErrorKind::WouldBlock.into())
    }

    fn peer(&self) -> io::Result<Peer> {
        Ok(Peer::Address("a stranger".to_owned()))
    }

    fn receive(&self, _: &mut [u8], _: &mut Vec<OwnedFd>) -> io::Result<Received> {
        Err(ErrorKind::WouldBlock.into())
    }

    fn send(&self, _: &[u8]) -> io::Result<usize> {
        Err(ErrorKind::WouldBlock.into())
    }

    fn shutdown(&self) {
        Transport::shutdown(&self.0);
    }
}

#[test]
fn of_too_many_handshakes_the_oldest_is_given_up() {
    let site = Site::start(|limits| limits.handshakes = 3);
    let control = site.server.as_ref().unwrap().control();
    let silent = |_| {
        let (near, far) = UnixStream::pair().unwrap();
        far.set_read_timeout(Some(LIMIT)).unwrap();
        control.serve(Box::new(Silent(near)), Layout::Compact).unwrap();
        far
    };
    let strangers: Vec<UnixStream> = (0..5).map(silent).collect();
    for stranger in &strangers[..2] {
        assert_eq!((&*stranger).read(&mut [0]).unwrap(), 0, "it is given up");
    }
    site.client("{}");
    for stranger in &strangers[2..] {
        stranger.set_nonblocking(true).unwrap();
        let error = (&*stranger).read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WouldBlock, "it may go on");
    }
}

#[test]
fn an_event_is_kept_once_however_many_do_not_read_it() {
    const EVENT: usize = 4 << 20;
    let site = Site::start(|limits| limits.per_server.bytes = 3 * EVENT);
    let mut idle: Vec<Client> = (0..8).map(|_| site.client("{}")).collect();
    site.dispatcher.emit(&NOISE, &Noise { padding: "x".repeat(EVENT) }).unwrap();
    for client in &mut idle {
        client.expect_event("NOISE");
        client.execute("x-count");
    }
}

#[test]
fn a_full_quota_of_requests_leaves_negotiation_and_status() {
    let set = |limits: &mut Limits| limits.per_server.requests = 1;
    let site = Site::start_with(set, |_| {}, |server| server.discipline(Discipline::OnePerMonitor));
    let mut blocking = site.client("{}");
    blocking.send(LATER);
    let responder = site.responders.recv().unwrap();
    let mut waiting = site.client("{}");
    waiting.send(COUNT);
    let mut operator = site.client("{}");
    operator.execute("__org.qmp-server_query-server");
    operator.execute("__org.qmp-server_query-clients");
    assert_eq!(site.counted(), 0, "there is no place for it");
    responder.respond(Ok::<_, Error>(()));
    blocking.expect(DONE);
    waiting.expect(r#"{"return": 0}"#);
}

#[test]
fn requests_that_wait_count_among_the_bytes() {
    let site = Site::start(|limits| limits.per_server.bytes = 1 << 20);
    let (mut blocking, mut other) = (site.client("{}"), site.client("{}"));
    blocking.send(LATER);
    let responder = site.responders.recv().unwrap();
    let mut modest = site.client(OOB);
    let mut greedy = site.socket(OOB);
    site.wait_for_clients(4);
    let text = "x".repeat(300 << 10);
    let request = format!(r#"{{"execute": "x-take", "arguments": {{"text": "{text}"}}}}"#);
    // The write fails when the server has ended the connection.
    let _ = greedy.write_all(request.repeat(8).as_bytes());
    site.wait_for_clients(3);
    modest.send(r#"{"execute": "x-take", "arguments": {"text": ""}}"#);
    responder.respond(Ok::<_, Error>(()));
    blocking.expect(DONE);
    modest.expect(DONE);
    other.execute("x-count");
}
