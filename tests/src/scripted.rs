// SPDX-License-Identifier: MIT OR Apache-2.0
//! A QMP server that a test controls word for word, and that can also misbehave.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::{PollFd, PollFlags, epoll, poll};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};

use crate::json::Json;
use crate::server::{LIMIT, Server};
use crate::upstream;

/// Starts a mux with these options in front of a scripted server. Clients wait for the greeting and are kept when the
/// server is lost, unless the options say otherwise; at [`NOTICES`](upstream::NOTICES) they are in any case.
pub fn behind_mux(options: &[&str]) -> (Server, Scripted) {
    let dir = tempfile::Builder::new().prefix("qmp-mux-").tempdir().expect("temporary directory");
    let scripted = Scripted::listen(&dir.path().join("upstream.sock"));
    let arguments = ["mux", "--upstream", "unix:upstream.sock", "--listen", "unix:{sock}"];
    let arguments = arguments.into_iter().chain(upstream::mux_options(options));
    (Server::start_in(dir, arguments), scripted)
}

#[derive(Debug)]
pub struct Scripted {
    listener: UnixListener,
    path: PathBuf,
}

impl Scripted {
    pub fn listen(path: &Path) -> Scripted {
        let listener = UnixListener::bind(path).expect("the path can be listened at");
        Scripted { listener, path: path.to_owned() }
    }

    #[track_caller]
    pub fn accept(&self) -> Peer {
        assert!(self.is_called_within(LIMIT), "nobody connects");
        let (stream, _) = self.listener.accept().expect("a client that waits");
        Peer::of(stream)
    }

    /// Waits for a client, greets it as a server that offers these capabilities, and negotiates.
    #[track_caller]
    pub fn accept_and_negotiate(&self, capabilities: &str) -> Peer {
        let mut peer = self.accept();
        peer.greet(capabilities);
        peer.negotiate();
        peer
    }

    /// Whether a client comes, and waits to be accepted.
    pub fn is_called_within(&self, limit: Duration) -> bool {
        let timeout = limit.try_into().expect("a limit that fits");
        poll(&mut [PollFd::new(&self.listener, PollFlags::IN)], Some(&timeout)).expect("poll") > 0
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        drop(fs::remove_file(&self.path));
    }
}

/// Servers at any number of sockets, in one thread. Each greets whoever comes, with out-of-band execution, and answers every
/// request with an empty result. Dropping this ends them.
#[derive(Debug)]
pub struct Crowd {
    /// Tells the thread that it is over, when it is closed.
    end: Option<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Crowd {
    pub fn listen(paths: &[PathBuf]) -> Crowd {
        let listeners: Vec<_> =
            paths.iter().map(|path| UnixListener::bind(path).expect("a path")).collect();
        let (over, end) = pipe_with(PipeFlags::CLOEXEC).expect("a pipe");
        let thread = thread::spawn(move || serve_crowd(&listeners, &over));
        Crowd { end: Some(end), thread: Some(thread) }
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.end = None;
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

fn serve_crowd(listeners: &[UnixListener], over: &OwnedFd) {
    let set = epoll::create(epoll::CreateFlags::CLOEXEC).expect("an epoll set");
    let add = |fd: BorrowedFd<'_>, number: usize| {
        epoll::add(&set, fd, epoll::EventData::new_u64(number as u64), epoll::EventFlags::IN)
            .expect("room in an epoll set");
    };
    listeners.iter().enumerate().for_each(|(number, listener)| add(listener.as_fd(), number));
    let mut peers: Vec<Option<Peer>> = Vec::new();
    add(over.as_fd(), usize::MAX);
    let mut events = Vec::with_capacity(64);
    loop {
        events.clear();
        match epoll::wait(&set, spare_capacity(&mut events), None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => panic!("{error}"),
        }
        for event in &events {
            let number = usize::try_from(event.data.u64()).expect("what was added");
            if number == usize::MAX {
                return;
            }
            if let Some(listener) = listeners.get(number) {
                let (stream, _) = listener.accept().expect("a client that waits");
                add(stream.as_fd(), listeners.len() + peers.len());
                let mut peer = Peer { stream: BufReader::new(stream) };
                peer.greet(r#"["oob"]"#);
                peers.push(Some(peer));
                continue;
            }
            let peer = &mut peers[number - listeners.len()];
            if !peer.as_mut().is_some_and(Peer::answer_what_is_there) {
                *peer = None;
            }
        }
    }
}

/// The client of such a server. Every method panics if it does not do its part in time.
#[derive(Debug)]
pub struct Peer {
    stream: BufReader<UnixStream>,
}

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Request {
    /// All of it, as text.
    pub line: String,
    /// All of it.
    pub message: Json,
    pub command: String,
    pub id: String,
}

impl Peer {
    /// A server at this end of a connection.
    pub fn of(stream: UnixStream) -> Peer {
        stream.set_read_timeout(Some(LIMIT)).expect("a timeout");
        Peer { stream: BufReader::new(stream) }
    }

    #[track_caller]
    pub fn greet(&mut self, capabilities: &str) {
        self.greet_as(1, capabilities);
    }

    /// Sends a greeting as a server of this major version.
    #[track_caller]
    pub fn greet_as(&mut self, major: u32, capabilities: &str) {
        let version = format!(r#"{{"micro": 0, "minor": 0, "major": {major}}}"#);
        self.send(&format!(
            r#"{{"QMP": {{"version": {{"qemu": {version}, "package": "scripted"}}, "capabilities": {capabilities}}}}}"#
        ));
    }

    /// Lets the client negotiate; returns the request.
    #[track_caller]
    pub fn negotiate(&mut self) -> Request {
        let request = self.request();
        assert_eq!(request.command, "qmp_capabilities", "{}", request.message);
        self.answer(&request, "{}");
        request
    }

    #[track_caller]
    pub fn request(&mut self) -> Request {
        let mut line = String::new();
        self.stream.read_line(&mut line).expect("a request");
        let message = Json::parse(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
        let command = message.get("execute").or(message.get("exec-oob")).and_then(Json::as_str);
        let command = command.unwrap_or_else(|| panic!("no request: {message}")).to_owned();
        let id = message.get("id").unwrap_or_else(|| panic!("no id: {message}")).to_string();
        Request { line, message, command, id }
    }

    /// The next request must be for this command.
    #[track_caller]
    pub fn expect(&mut self, command: &str) -> Request {
        let request = self.request();
        assert_eq!(request.command, command, "{}", request.message);
        request
    }

    #[track_caller]
    pub fn answer(&mut self, request: &Request, result: &str) {
        self.send(&format!(r#"{{"return": {result}, "id": {}}}"#, request.id));
    }

    /// Answers a request with an error.
    #[track_caller]
    pub fn refuse(&mut self, request: &Request, text: &str) {
        self.send(&format!(
            r#"{{"id": {}, "error": {{"class": "GenericError", "desc": "{text}"}}}}"#,
            request.id
        ));
    }

    /// Answers all requests that have come. Whether the client is still there.
    fn answer_what_is_there(&mut self) -> bool {
        loop {
            let mut line = String::new();
            match self.stream.read_line(&mut line) {
                Ok(0) | Err(_) => return false,
                Ok(_) => {}
            }
            let id =
                Json::parse(&line).ok().and_then(|message| Some(message.get("id")?.to_string()));
            let answer = format!("{{\"return\": {{}}, \"id\": {}}}\r\n", id.unwrap_or_default());
            if self.stream.get_mut().write_all(answer.as_bytes()).is_err() {
                return false;
            }
            if self.stream.buffer().is_empty() {
                return true;
            }
        }
    }

    /// Sends an event without data.
    #[track_caller]
    pub fn emit(&mut self, event: &str) {
        self.send(&format!(
            r#"{{"timestamp": {{"seconds": 1, "microseconds": 2}}, "event": "{event}"}}"#
        ));
    }

    #[track_caller]
    pub fn send(&mut self, text: &str) {
        self.send_bytes(format!("{text}\r\n").as_bytes());
    }

    #[track_caller]
    pub fn send_bytes(&mut self, bytes: &[u8]) {
        self.stream.get_mut().write_all(bytes).expect("a client that reads");
    }

    /// The connection itself, for what this has no method for.
    pub fn into_stream(self) -> UnixStream {
        self.stream.into_inner()
    }

    /// The client must end the connection now; what it still sends is dropped.
    #[track_caller]
    pub fn expect_end(&mut self) {
        let ended = self.stream.read_to_end(&mut Vec::new());
        assert!(
            ended.as_ref().is_ok()
                || ended
                    .as_ref()
                    .is_err_and(|error| { error.kind() == std::io::ErrorKind::ConnectionReset }),
            "the connection stays: {ended:?}"
        );
    }

    /// The client must send nothing for this long.
    #[track_caller]
    pub fn expect_silence(&mut self, duration: Duration) {
        assert_eq!(self.stream.buffer(), b"");
        let timeout = duration.try_into().expect("a duration that fits");
        let mut fds = [PollFd::new(self.stream.get_ref(), PollFlags::IN)];
        assert_eq!(poll(&mut fds, Some(&timeout)).expect("poll"), 0, "the client says something");
    }
}
