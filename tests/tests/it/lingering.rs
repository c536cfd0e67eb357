// SPDX-License-Identifier: MIT OR Apache-2.0
//! Clients, also refused ones, that pass descriptors whose `close()` blocks.

use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use qmp_dispatch::proto::Layout;
use qmp_dispatch::{Dispatcher, Registry};
use qmp_server::{
    Address, Closing, Control, Engine, Listener, Peer, Received, ServerHandle, Transport,
    system_time, version,
};
use rustix::net::sockopt::{
    set_socket_linger, set_socket_recv_buffer_size, set_socket_send_buffer_size,
};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use tests::endpoint::Endpoint;
use tests::server::{Client, LIMIT, Server, ports};
use tests::upstream::{expect_files, open_files};
use tests::waiting::wait_until;

/// Longer than any test.
const LINGER: Duration = Duration::from_secs(3600);

/// Number of attacks, which is more than all limits together.
const ATTACKS: usize = 200;

/// Returns a socket whose `close()` waits for its peer, and the peer, which does not read.
fn lingering(listener: &TcpListener) -> (TcpStream, TcpStream) {
    let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    set_socket_send_buffer_size(&near, 4096).unwrap();
    let (far, _) = listener.accept().unwrap();
    near.set_nonblocking(true).unwrap();
    loop {
        match (&near).write(&[b'x'; 4096]) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => panic!("{error}"),
        }
    }
    set_socket_linger(&near, Some(LINGER)).unwrap();
    (near, far)
}

/// Passes many such sockets, each on a connection that ends at once. The returned peers keep them lingering.
fn attack(path: &Path) -> Vec<TcpStream> {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    set_socket_recv_buffer_size(&listener, 4096).unwrap();
    let attack = |_| {
        let (near, far) = lingering(&listener);
        let client = UnixStream::connect(path).unwrap();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let passed = [near.as_fd()];
        assert!(control.push(SendAncillaryMessage::ScmRights(&passed)));
        // A client that may not connect may have been refused already.
        let _ = sendmsg(&client, &[IoSlice::new(b" ")], &mut control, SendFlags::NOSIGNAL);
        // If the server closes its copy first, this close is the last one, and waits.
        std::thread::spawn(move || drop(near));
        far
    };
    (0..ATTACKS).map(attack).collect()
}

/// A client of `other` must be served. Then waits until the server has no more files open than `before`.
#[track_caller]
fn expect_no_harm(server: &mut Server, other: &Endpoint, before: usize) {
    let mut client = Client::connect(other);
    client.negotiate("{}");
    client.execute("query-status");
    drop(client);
    expect_files(server.process(), before);
}

#[test]
fn clients_that_leave_lingering_sockets_fill_nothing() {
    let mut server = Server::start_with(["--listen", "unix:{sock}"]);
    let endpoint = server.endpoint();
    server.negotiated().execute("query-status");
    let before = open_files(server.process()).len();
    let _lingering = attack(&server.socket());
    expect_no_harm(&mut server, &endpoint, before);
}

#[test]
fn strangers_that_leave_lingering_sockets_fill_nothing() {
    // Not even this user may connect to the socket.
    let mut server = Server::start_with([
        "--allow-user",
        "4711",
        "--listen",
        "unix:{sock}",
        "--listen",
        "tcp:127.0.0.1:0",
    ]);
    let other =
        Endpoint::Tcp { host: "127.0.0.1".to_owned(), port: ports(&server.process().stderr())[0] };
    let mut client = Client::connect(&other);
    client.negotiate("{}");
    let before = open_files(server.process()).len();
    let _lingering = attack(&server.socket());
    drop(client);
    expect_no_harm(&mut server, &other, before);
}

/// A connection of a user, which cannot be closed before `until` is disconnected.
struct Slow {
    socket: UnixStream,
    uid: u32,
    until: Arc<Mutex<Receiver<()>>>,
}

impl AsFd for Slow {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Transport for Slow {
    fn peer(&self) -> io::Result<Peer> {
        Ok(Peer::Process { pid: 1, uid: self.uid, gid: self.uid })
    }

    fn receive(&self, buffer: &mut [u8], descriptors: &mut Vec<OwnedFd>) -> io::Result<Received> {
        self.socket.receive(buffer, descriptors)
    }

    fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        Transport::send(&self.socket, bytes)
    }

    fn shutdown(&self) {
        Transport::shutdown(&self.socket);
    }

    fn closing(&self) -> Closing {
        Closing::Slow
    }
}

impl Drop for Slow {
    fn drop(&mut self) {
        let _ = self.until.lock().unwrap().recv();
    }
}

struct Attackers {
    until: Arc<Mutex<Receiver<()>>>,
    /// Dropped to let all connections be closed.
    close: Sender<()>,
}

impl Attackers {
    fn new() -> Attackers {
        let (close, until) = channel();
        Attackers { until: Arc::new(Mutex::new(until)), close }
    }

    /// Connects as this user. Returns the client's end.
    fn connect(&self, control: &Control, uid: u32) -> io::Result<UnixStream> {
        let (socket, far) = UnixStream::pair().unwrap();
        socket.set_nonblocking(true).unwrap();
        far.set_read_timeout(Some(LIMIT)).unwrap();
        let slow = Slow { socket, uid, until: Arc::clone(&self.until) };
        control.serve(Box::new(slow), Layout::Compact).map(|()| far)
    }
}

fn embedded(add: impl FnOnce(qmp_server::Server) -> qmp_server::Server) -> ServerHandle {
    let dispatcher = Dispatcher::new(Registry::new(), version(), system_time);
    let mut access = qmp_server::Access::default();
    access.allow_user("4711").unwrap();
    access.allow_user("4712").unwrap();
    add(qmp_server::Server::new(dispatcher).access(access).stay()).spawn().unwrap()
}

fn is_greeted(mut far: &UnixStream) -> bool {
    matches!(far.read(&mut [0]), Ok(1))
}

fn end(server: ServerHandle) {
    server.control().shutdown();
    server.wait();
}

#[test]
fn who_leaves_what_cannot_be_closed_is_refused_in_the_end_and_nobody_else() {
    let attackers = Attackers::new();
    let server = embedded(|server| server);
    let control = server.control();
    let mut refused = None;
    for _ in 0..ATTACKS {
        match attackers.connect(&control, 4711) {
            Ok(far) => assert!(is_greeted(&far)),
            Err(why) => {
                refused = Some(why.to_string());
                break;
            }
        }
        wait_until(|| control.clients().is_empty());
    }
    let why = "64 connections of uid 4711 are still being closed";
    assert_eq!(refused.as_deref(), Some(why));
    assert!(is_greeted(&attackers.connect(&control, 4712).unwrap()), "another user");
    drop(attackers.close);
    let again = Attackers::new();
    wait_until(|| again.connect(&control, 4711).is_ok());
    drop(again);
    end(server);
}

/// A listener whose clients may not connect.
struct Strangers {
    listener: UnixListener,
    until: Arc<Mutex<Receiver<()>>>,
}

impl AsFd for Strangers {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

impl Listener for Strangers {
    fn accept(&self) -> io::Result<Box<dyn Transport>> {
        let (socket, _) = self.listener.accept()?;
        Ok(Box::new(Slow { socket, uid: 4713, until: Arc::clone(&self.until) }))
    }

    fn address(&self) -> Address {
        Listener::address(&self.listener)
    }
}

#[test]
fn strangers_that_cannot_be_got_rid_of_wait_at_their_own_listener() {
    let attackers = Attackers::new();
    let dir = tempfile::tempdir().unwrap();
    let paths = ["strangers.sock", "tcp.sock"].map(|name| dir.path().join(name));
    let listener = UnixListener::bind(&paths[0]).unwrap();
    let strangers = Strangers { listener, until: Arc::clone(&attackers.until) };
    let server = embedded(|server| {
        let tcp = "tcp:127.0.0.1:0".parse().unwrap();
        server.accept_from(Box::new(strangers), Layout::Compact).listen(&tcp).unwrap()
    });
    let control = server.control();
    let knocking: Vec<_> = (0..ATTACKS).map(|_| UnixStream::connect(&paths[0]).unwrap()).collect();
    let refused = || usize::try_from(control.status().unwrap().refused).unwrap();
    wait_until(|| refused() >= 64);
    let Address::Tcp { host, port } = control.addresses()[1].clone() else { panic!("no TCP") };
    let other = Client::connect(&Endpoint::Tcp { host, port });
    // Accepted before their closing was seen to block: at most as many as are accepted at a time.
    assert!(refused() < ATTACKS / 2, "{} were accepted", refused());
    drop(attackers.close);
    wait_until(|| refused() == ATTACKS);
    drop((knocking, other));
    end(server);
}

/// A listener that cannot be closed before `until` is disconnected, because connections in its backlog are closed with it.
struct SlowListener {
    listener: UnixListener,
    until: Arc<Mutex<Receiver<()>>>,
}

impl AsFd for SlowListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

impl Listener for SlowListener {
    fn accept(&self) -> io::Result<Box<dyn Transport>> {
        Listener::accept(&self.listener)
    }

    fn closing(&self) -> Closing {
        Closing::Slow
    }

    fn address(&self) -> Address {
        Listener::address(&self.listener)
    }
}

impl Drop for SlowListener {
    fn drop(&mut self) {
        let _ = self.until.lock().unwrap().recv();
    }
}

#[test]
fn listeners_that_cannot_be_closed_hold_up_nobody() {
    let attackers = Attackers::new();
    let dir = tempfile::tempdir().unwrap();
    // Enough to block each of the engine's threads, if one of them closed.
    let engine = Engine::builder().most_threads(2).start().unwrap();
    let server = |name: &str| {
        let listener = UnixListener::bind(dir.path().join(name)).unwrap();
        let until = Arc::clone(&attackers.until);
        let dispatcher = Dispatcher::new(Registry::new(), version(), system_time);
        let server = qmp_server::Server::new(dispatcher);
        let slow = Box::new(SlowListener { listener, until });
        server.accept_from(slow, Layout::Compact).spawn_on(&engine).unwrap()
    };
    let [first, second, third] = ["1.sock", "2.sock", "3.sock"].map(server);
    end(first);
    end(second);
    let mut client = Client::connect(&Endpoint::Unix(dir.path().join("3.sock")));
    client.negotiate("{}");
    drop(attackers.close);
    end(third);
}
