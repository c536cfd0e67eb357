// SPDX-License-Identifier: MIT OR Apache-2.0
//! Servers that share an engine.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, OnceLock};

use qmp_dispatch::proto::{Error, Layout};
use qmp_dispatch::{Context, Dispatcher, Registry};
use qmp_server::{Engine, Peer, Received, Server, ServerHandle, Transport, system_time, version};
use tempfile::TempDir;
use tests::endpoint::Endpoint;
use tests::server::{Client, LIMIT};

/// A gate, at which commands wait.
#[derive(Default)]
struct Gate {
    open: Mutex<bool>,
    opened: Condvar,
}

impl Gate {
    fn open(&self) {
        *self.open.lock().unwrap() = true;
        self.opened.notify_all();
    }

    fn pass(&self) {
        let closed = |open: &mut bool| !*open;
        drop(self.opened.wait_while(self.open.lock().unwrap(), closed).unwrap());
    }
}

/// A server with a command that waits for the gate, in-band or out-of-band, and one that does not.
struct Site {
    server: ServerHandle,
    endpoint: Endpoint,
    gate: Arc<Gate>,
    began: Receiver<()>,
    _dir: TempDir,
}

/// The command that waits.
struct Blocking {
    gate: Arc<Gate>,
    began: Sender<()>,
}

impl Blocking {
    fn x_block(&self, _: &Context) -> Result<(), Error> {
        // Fails if the test has ended, which does not matter.
        let _ = self.began.send(());
        self.gate.pass();
        Ok(())
    }
}

impl Site {
    fn on(engine: &Engine) -> Site {
        let gate = Arc::new(Gate::default());
        let (tell, began) = channel();
        let mut registry = Registry::new();
        let blocking = Arc::new(Blocking { gate: Arc::clone(&gate), began: tell });
        registry.with(blocking).command("x-block", Blocking::x_block).unwrap().allow_oob();
        let quick = |_: &Context| Ok::<_, Error>("quick".to_owned());
        registry.command("x-quick", quick).unwrap().allow_oob();
        let dispatcher = Dispatcher::new(registry, version(), system_time);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("qmp.sock");
        let listen = format!("unix:{}", path.display()).parse().unwrap();
        let server = Server::new(dispatcher).listen(&listen).unwrap().spawn_on(engine).unwrap();
        Site { server, endpoint: Endpoint::Unix(path), gate, began, _dir: dir }
    }

    fn client(&self) -> Client {
        let mut client = Client::connect(&self.endpoint);
        client.negotiate(r#"{"enable": ["oob"]}"#);
        client
    }

    /// A client whose command blocks.
    fn blocked(&self, execute: &str) -> Client {
        let mut client = self.client();
        client.send(&format!(r#"{{"{execute}": "x-block"}}"#));
        self.began.recv().unwrap();
        client
    }

    fn end(self) {
        self.gate.open();
        self.server.control().shutdown();
        self.server.wait();
    }
}

fn expect_quick(client: &mut Client, execute: &str) {
    client.send(&format!(r#"{{"{execute}": "x-quick"}}"#));
    client.expect(r#"{"return": "quick"}"#);
}

#[test]
fn a_command_that_blocks_in_band_leaves_out_of_band_ones_to_others() {
    let site = Site::on(&Engine::new().unwrap());
    let mut blocked = site.blocked("execute");
    expect_quick(&mut site.client(), "exec-oob");
    expect_quick(&mut blocked, "exec-oob");
    site.gate.open();
    blocked.expect(r#"{"return": {}}"#);
    site.end();
}

#[test]
fn a_command_that_blocks_out_of_band_holds_up_its_own_client_only() {
    let site = Site::on(&Engine::new().unwrap());
    let mut blocked = site.blocked("exec-oob");
    let mut other = site.client();
    expect_quick(&mut other, "execute");
    expect_quick(&mut other, "exec-oob");
    blocked.send(r#"{"exec-oob": "x-quick"}"#);
    site.gate.open();
    blocked.expect(r#"{"return": {}}"#);
    blocked.expect(r#"{"return": "quick"}"#);
    site.end();
}

#[test]
fn out_of_band_commands_without_end_leave_others_their_turns() {
    const MANY: u64 = 2000;
    let mut registry = Registry::new();
    let other: Arc<OnceLock<UnixStream>> = Arc::default();
    let (sends, before) = (Arc::clone(&other), Arc::new(AtomicU64::new(0)));
    let counted = Arc::clone(&before);
    let count = move |_: &Context| {
        if counted.fetch_add(1, Ordering::SeqCst) == 0 {
            let mut other = sends.get().unwrap();
            other.write_all(b"{'execute': 'x-before'}").unwrap();
        }
        Ok::<_, Error>(())
    };
    registry.command("x-count", count).unwrap().allow_oob();
    let before = move |_: &Context| Ok::<_, Error>(before.load(Ordering::SeqCst));
    registry.command("x-before", before).unwrap();
    let dispatcher = Dispatcher::new(registry, version(), system_time);
    let server = Server::new(dispatcher).stay().spawn().unwrap();
    let [mut busy, mut polite] = [(); 2].map(|()| {
        let (near, far) = UnixStream::pair().unwrap();
        server.control().serve(Box::new(near), Layout::Compact).unwrap();
        let mut client = BufReader::new(far);
        client.get_mut().set_read_timeout(Some(LIMIT)).unwrap();
        let enable = b"{'execute': 'qmp_capabilities', 'arguments': {'enable': ['oob']}}";
        client.get_mut().write_all(enable).unwrap();
        for _ in 0..2 {
            client.read_line(&mut String::new()).unwrap();
        }
        client
    });
    other.set(polite.get_ref().try_clone().unwrap()).unwrap();
    let requests = "{'exec-oob': 'x-count'}".repeat(MANY as usize);
    let mut sender = busy.get_ref().try_clone().unwrap();
    let sending = std::thread::spawn(move || sender.write_all(requests.as_bytes()).unwrap());
    let mut answer = String::new();
    polite.read_line(&mut answer).unwrap();
    let before = answer.strip_prefix(r#"{"return": "#).and_then(|rest| rest.split('}').next());
    let before: u64 = before.unwrap().parse().unwrap();
    assert!(before < 10, "after {before} of another client's");
    for _ in 0..MANY {
        busy.read_line(&mut answer).unwrap();
    }
    sending.join().unwrap();
    server.control().shutdown();
    server.wait();
}

#[test]
fn both_kinds_may_block_at_once() {
    let site = Site::on(&Engine::new().unwrap());
    let mut blocked = [site.blocked("execute"), site.blocked("exec-oob")];
    let mut other = site.client();
    expect_quick(&mut other, "exec-oob");
    // In-band, it waits for its turn.
    other.send(r#"{"execute": "x-quick"}"#);
    site.gate.open();
    for client in &mut blocked {
        client.expect(r#"{"return": {}}"#);
    }
    other.expect(r#"{"return": "quick"}"#);
    site.end();
}

#[test]
fn servers_that_block_hold_up_no_other_on_their_engine() {
    let engine = Engine::new().unwrap();
    let sites = [(); 3].map(|()| Site::on(&engine));
    let mut blocked = [&sites[0], &sites[1]].map(|site| site.blocked("execute"));
    let mut other = sites[2].client();
    for execute in ["execute", "exec-oob"] {
        expect_quick(&mut other, execute);
    }
    for (site, client) in sites.iter().zip(&mut blocked) {
        site.gate.open();
        client.expect(r#"{"return": {}}"#);
    }
    sites.into_iter().for_each(Site::end);
}

#[test]
fn an_engine_has_no_more_threads_than_it_may() {
    let engine = Engine::builder().most_threads(3).start().unwrap();
    let sites = [(); 4].map(|()| Site::on(&engine));
    let mut waiting = sites[3].client();
    let mut blocked: Vec<Client> = sites[..3].iter().map(|site| site.blocked("execute")).collect();
    assert_eq!(engine.threads(), 3);
    // No thread is left to read this until one of the commands has finished.
    waiting.send(r#"{"execute": "x-quick"}"#);
    sites[0].gate.open();
    blocked[0].expect(r#"{"return": {}}"#);
    waiting.expect(r#"{"return": "quick"}"#);
    assert_eq!(engine.threads(), 3);
    sites.into_iter().for_each(Site::end);
}

#[test]
fn each_thread_of_an_engine_is_set_up_first() {
    let (tell, names) = channel();
    let set_up = move || tell.send(std::thread::current().name().map(str::to_owned)).unwrap();
    let engine = Engine::builder().thread_name("lamp").on_thread_start(set_up).start().unwrap();
    let mut first: Vec<_> = names.try_iter().flatten().collect();
    first.sort();
    assert_eq!(first, ["lamp-0", "lamp-1"]);
    let site = Site::on(&engine);
    let mut blocked = site.blocked("execute");
    expect_quick(&mut site.client(), "exec-oob");
    // The thread that has stepped in has started another one to stand by.
    assert_eq!(names.recv_timeout(LIMIT).unwrap().as_deref(), Some("lamp-2"));
    site.gate.open();
    blocked.expect(r#"{"return": {}}"#);
    site.end();
}

#[test]
fn an_engine_whose_threads_cannot_be_set_up_does_not_start() {
    let error = Engine::builder().on_thread_start(|| panic!("as tested")).start().unwrap_err();
    assert_eq!(error.to_string(), "`on_thread_start` has panicked");
    let error = Engine::builder().thread_name("a\0b").start().unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
}

#[test]
fn an_engine_goes_on_without_a_later_thread_that_cannot_be_set_up() {
    let (tell, calls) = channel();
    let set_up = move || {
        tell.send(()).unwrap();
        let name = std::thread::current().name().map(str::to_owned);
        assert_ne!(name.as_deref(), Some("qmp-io-2"), "as tested");
    };
    let engine = Engine::builder().on_thread_start(set_up).start().unwrap();
    assert_eq!(calls.try_iter().count(), 2);
    let site = Site::on(&engine);
    let mut blocked = site.blocked("execute");
    expect_quick(&mut site.client(), "exec-oob");
    calls.recv_timeout(LIMIT).unwrap();
    site.gate.open();
    blocked.expect(r#"{"return": {}}"#);
    expect_quick(&mut site.client(), "execute");
    site.end();
}

#[test]
fn two_hundred_servers_share_an_engine() {
    let engine = Engine::new().unwrap();
    let sites: Vec<Site> = (0..200).map(|_| Site::on(&engine)).collect();
    let mut clients: Vec<Client> = sites.iter().map(Site::client).collect();
    for client in &mut clients {
        expect_quick(client, "execute");
    }
    assert!(engine.threads() <= 8);
    sites.into_iter().for_each(Site::end);
}

/// A transport that panics in `receive` once the test has set a flag.
struct Treacherous {
    socket: UnixStream,
    panics: Arc<AtomicBool>,
}

impl AsFd for Treacherous {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Transport for Treacherous {
    fn peer(&self) -> io::Result<Peer> {
        Ok(Peer::Starter)
    }

    fn receive(&self, buffer: &mut [u8], descriptors: &mut Vec<OwnedFd>) -> io::Result<Received> {
        assert!(!self.panics.load(Ordering::SeqCst), "as tested");
        self.socket.receive(buffer, descriptors)
    }

    fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        Transport::send(&self.socket, bytes)
    }

    fn shutdown(&self) {
        Transport::shutdown(&self.socket);
    }
}

impl Treacherous {
    /// Has a site serve one. The other end, and whether it panics from now on.
    fn serve(site: &Site, panics: bool) -> (UnixStream, Arc<AtomicBool>) {
        let (near, far) = UnixStream::pair().unwrap();
        far.set_read_timeout(Some(LIMIT)).unwrap();
        let panics = Arc::new(AtomicBool::new(panics));
        let transport = Treacherous { socket: near, panics: Arc::clone(&panics) };
        site.server.control().serve(Box::new(transport), Layout::Compact).unwrap();
        (far, panics)
    }
}

/// Negotiates with these capabilities, and reads all until that is answered.
fn negotiate(far: &mut UnixStream, enable: &str) {
    let request =
        format!("{{'execute': 'qmp_capabilities', 'arguments': {{'enable': [{enable}]}}}}");
    far.write_all(request.as_bytes()).unwrap();
    let mut answered = Vec::new();
    while !answered.ends_with(b"{\"return\": {}}\r\n") {
        let mut byte = [0];
        far.read_exact(&mut byte).unwrap();
        answered.extend(byte);
    }
}

#[test]
fn a_transport_that_panics_ends_alone() {
    let site = Site::on(&Engine::new().unwrap());
    let mut other = site.client();
    let (mut far, panics) = Treacherous::serve(&site, false);
    negotiate(&mut far, "");
    panics.store(true, Ordering::SeqCst);
    far.write_all(b"{'execute': 'x-quick'}").unwrap();
    // The connection is reset, because the last request has not been read.
    assert!(matches!(far.read(&mut [0]), Ok(0) | Err(_)), "the connection has ended");
    expect_quick(&mut other, "execute");
    site.end();
}

/// As a reset, if what was sent last has not been read.
#[track_caller]
fn expect_end(mut far: &UnixStream) {
    let ended = far.read_to_end(&mut Vec::new());
    let reset = |error: &io::Error| error.kind() == io::ErrorKind::ConnectionReset;
    assert!(ended.as_ref().is_ok() || ended.as_ref().is_err_and(reset), "{ended:?}");
}

#[test]
fn a_transport_that_panics_at_once_ends_alone() {
    let site = Site::on(&Engine::new().unwrap());
    let mut other = site.client();
    let (far, _) = Treacherous::serve(&site, true);
    expect_end(&far);
    expect_quick(&mut other, "execute");
    site.end();
}

/// It is read from when a request of it is taken from a queue that was full.
#[test]
fn a_transport_that_panics_when_there_is_room_for_its_requests_ends_alone() {
    let site = Site::on(&Engine::new().unwrap());
    let mut other = site.client();
    let (mut far, panics) = Treacherous::serve(&site, false);
    negotiate(&mut far, "'oob'");
    far.write_all(b"{'execute': 'x-block'}").unwrap();
    site.began.recv().unwrap();
    far.write_all(&b"{'execute': 'x-quick'}".repeat(10)).unwrap();
    // Until eight wait, and it is not read from any more.
    let is_suspended = || site.server.control().clients().iter().any(|client| client.suspended);
    while !is_suspended() {
        std::thread::yield_now();
    }
    panics.store(true, Ordering::SeqCst);
    far.write_all(b"{'execute': 'x-quick'}").unwrap();
    // When this one is answered, the loop knows that there is more of the other, too.
    expect_quick(&mut other, "exec-oob");
    site.gate.open();
    expect_end(&far);
    expect_quick(&mut other, "execute");
    site.end();
}
