// SPDX-License-Identifier: MIT OR Apache-2.0
//! A listener that does not listen: it connects to a manager that does, again and again, as QEMU does with `server=off`.
//!
//! ```text
//!   Waiting ── the time has come ──▶ Preparing ──▶ Connecting ── connected ──▶ Waiting, until the client has gone
//!      ▲                                 │             │
//!      └───────────── failed ────────────┴─────────────┘
//! ```
//!
//! Its descriptor is an epoll set, of a timer and the socket that is being connected: so it is ready when there is a next
//! step, and [`accept`](Listener::accept) takes it.

use std::io;
use std::mem;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::Timespec;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime,
};

use super::connect::attempt::{Attempt, Prepared};
use super::{Address, Closing, Connect, Listener, Opened, Peer, Received, Transport, tcp, vsock};
use crate::io::{Events, Interest, Poll, Token};

/// How long an address may take to be connected to, a handshake included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Looking up names is one owner's, for all listeners of this kind.
const LOOK_UPS: u64 = 2;

/// The time for "at once": a timer that is set to zero is switched off.
const AT_ONCE: Duration = Duration::from_nanos(1);

/// Both sources of the set: which one is ready does not matter.
const STEP: Token = Token { index: 0, generation: 0 };

/// How a listener connects to its client.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct DialOut {
    /// Where to, and how.
    pub connect: Connect,
    /// How long to wait before the next try, when nobody accepts or the client has gone. Without it there is one
    /// connection, and it is made before anything else.
    pub reconnect: Option<Duration>,
}

impl DialOut {
    /// Connects once.
    pub fn new(connect: Connect) -> DialOut {
        DialOut { connect, reconnect: None }
    }

    /// Looks for mistakes without connecting.
    pub(crate) fn verify(&self, insecure: bool) -> io::Result<()> {
        self.connect.verify()?;
        match &self.connect.address {
            Address::Tcp { host, port } => {
                let host = if host.is_empty() { "localhost" } else { host };
                tcp::resolve(host, *port, insecure).map(drop)
            }
            Address::Vsock { cid, .. } => vsock::check_local(*cid, insecure),
            _ => Ok(()),
        }
    }

    /// Connects, or begins to. Blocks if there is to be one connection.
    pub(crate) fn open(&self, insecure: bool) -> io::Result<Opened> {
        self.verify(insecure)?;
        let Some(reconnect) = self.reconnect else {
            let client = self.connect.connect(CONNECT_TIMEOUT).map_err(|error| {
                let text = format!("with server=off the client has to listen there: {error}");
                io::Error::new(error.kind(), text)
            })?;
            return Ok(Opened::Connection(client));
        };
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        let fd = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        let timer = DialTimer { fd, is_open: AtomicBool::new(false) };
        let poll = Poll::new()?;
        poll.register(timer.fd.as_fd(), STEP, Interest::Readable)?;
        Ok(Opened::Listener(Box::new(Dialler {
            connect: self.connect.clone(),
            reconnect,
            insecure,
            poll,
            timer: Arc::new(timer),
            state: Mutex::new(DialState { stage: DialStage::Waiting, told: None }),
        })))
    }
}

struct Dialler {
    connect: Connect,
    reconnect: Duration,
    insecure: bool,
    poll: Poll,
    timer: Arc<DialTimer>,
    state: Mutex<DialState>,
}

struct DialState {
    stage: DialStage,
    /// What the log has told of the last try.
    told: Option<String>,
}

enum DialStage {
    /// Until the timer expires. With a client it is switched off.
    Waiting,
    Preparing(Prepared),
    Connecting(Box<Attempt>),
}

struct DialTimer {
    fd: OwnedFd,
    /// Whether clients are to be connected to.
    is_open: AtomicBool,
}

impl DialTimer {
    /// Expires after this time for the next client, if there is to be one.
    fn set_for_next(&self, time: Duration) {
        if self.is_open.load(Ordering::SeqCst) {
            self.set(time);
        }
    }

    /// Expires once, after this time; never if it is zero.
    fn set(&self, time: Duration) {
        let timer = Itimerspec {
            it_interval: Timespec::default(),
            it_value: Timespec::try_from(time).unwrap_or_default(),
        };
        if let Err(error) = timerfd_settime(&self.fd, TimerfdTimerFlags::empty(), &timer) {
            tracing::error!(%error, "cannot set the timer of a listener that connects");
        }
    }

    fn has_expired(&self) -> bool {
        rustix::io::read(&self.fd, &mut [0; 8]).is_ok()
    }
}

impl Dialler {
    fn state(&self) -> MutexGuard<'_, DialState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the next step; a client if there is one.
    fn step(&self, state: &mut DialState) -> io::Result<Option<Box<dyn Transport>>> {
        let mut attempt = match mem::replace(&mut state.stage, DialStage::Waiting) {
            DialStage::Waiting if !self.timer.has_expired() => return Ok(None),
            DialStage::Waiting if self.connect.is_slow_to_prepare() => {
                state.stage = DialStage::Preparing(self.prepare());
                return Ok(None);
            }
            DialStage::Waiting => Box::new(Attempt::prepare(&self.connect, CONNECT_TIMEOUT)?),
            DialStage::Preparing(prepared) => {
                let Some(attempt) = prepared.take() else {
                    state.stage = DialStage::Preparing(prepared);
                    return Ok(None);
                };
                Box::new(attempt?)
            }
            DialStage::Connecting(attempt) => attempt,
        };
        let stream = attempt.step(Instant::now())?;
        if let Some(stream) = stream {
            self.timer.set(Duration::ZERO);
            self.poll.deregister(stream.as_fd());
            if let (false, Some(address)) = (self.insecure, stream.plain_tcp_peer()?) {
                tcp::check_local(&address, false)?;
            }
            return stream.into_transport().map(Some);
        }
        if attempt.has_new_socket()
            && let Some(socket) = attempt.socket()
        {
            self.poll.register(socket, STEP, Interest::ReadableWritable)?;
        }
        self.timer.set(attempt.until().saturating_duration_since(Instant::now()).max(AT_ONCE));
        state.stage = DialStage::Connecting(attempt);
        Ok(None)
    }

    /// Looks up names and reads files elsewhere. The timer expires when that is done.
    fn prepare(&self) -> Prepared {
        let timer = Arc::clone(&self.timer);
        Prepared::aside(LOOK_UPS, &self.connect, CONNECT_TIMEOUT, move || timer.set(AT_ONCE))
    }
}

impl AsFd for Dialler {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.poll.as_fd()
    }
}

impl Listener for Dialler {
    fn open(&mut self) -> io::Result<()> {
        if !self.timer.is_open.swap(true, Ordering::SeqCst) {
            self.timer.set(AT_ONCE);
        }
        Ok(())
    }

    /// Nobody is connected to: to the manager it is as if QEMU was not there.
    fn shut(&mut self) -> io::Result<()> {
        self.timer.is_open.store(false, Ordering::SeqCst);
        self.timer.set(Duration::ZERO);
        self.state().stage = DialStage::Waiting;
        Ok(())
    }

    fn accept(&self) -> io::Result<Box<dyn Transport>> {
        // What is reported is forgotten by that, so that the set becomes ready for what comes from now on.
        self.poll.wait(Some(Duration::ZERO), &mut Events::new())?;
        let mut state = self.state();
        match self.step(&mut state) {
            Ok(Some(connection)) => {
                state.told = None;
                let (timer, reconnect) = (Arc::clone(&self.timer), self.reconnect);
                Ok(Box::new(Dialled { connection, timer, reconnect }))
            }
            Ok(None) => Err(io::ErrorKind::WouldBlock.into()),
            Err(error) => {
                let text = error.to_string();
                // The same thing again is not worth a line each time.
                if state.told.as_ref() != Some(&text) {
                    tracing::warn!(address = %self.connect.address, "no client can be connected to: {text}");
                    state.told = Some(text);
                }
                self.timer.set_for_next(self.reconnect);
                Err(io::ErrorKind::WouldBlock.into())
            }
        }
    }

    fn address(&self) -> Address {
        self.connect.address.clone()
    }
}

/// The connection to a client. The next one is made some time after it was dropped.
struct Dialled {
    connection: Box<dyn Transport>,
    timer: Arc<DialTimer>,
    reconnect: Duration,
}

impl Drop for Dialled {
    fn drop(&mut self) {
        self.timer.set_for_next(self.reconnect);
    }
}

impl AsFd for Dialled {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.connection.as_fd()
    }
}

impl Transport for Dialled {
    fn peer(&self) -> io::Result<Peer> {
        self.connection.peer()
    }

    fn receive(&self, buffer: &mut [u8], descriptors: &mut Vec<OwnedFd>) -> io::Result<Received> {
        self.connection.receive(buffer, descriptors)
    }

    fn receive_message(
        &self,
        buffer: &mut [u8],
        descriptors: &mut Vec<OwnedFd>,
    ) -> io::Result<Received> {
        self.connection.receive_message(buffer, descriptors)
    }

    fn receive_bytes(&self, buffer: &mut [u8]) -> io::Result<Received> {
        self.connection.receive_bytes(buffer)
    }

    fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        self.connection.send(bytes)
    }

    fn shutdown(&self) {
        self.connection.shutdown();
    }

    fn reports_hang_up(&self) -> bool {
        self.connection.reports_hang_up()
    }

    fn closing(&self) -> Closing {
        self.connection.closing()
    }

    fn discard(&self) {
        self.connection.discard();
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use rustix::event::{PollFd, PollFlags, poll};

    use super::*;

    /// Waits until there is a step, and takes it.
    fn step(listener: &dyn Listener) -> Option<Box<dyn Transport>> {
        poll(&mut [PollFd::from_borrowed_fd(listener.as_fd(), PollFlags::IN)], None).unwrap();
        listener.accept().ok()
    }

    fn open(address: Address, reconnect: Duration) -> Box<dyn Listener> {
        let dial = DialOut { reconnect: Some(reconnect), ..DialOut::new(address.into()) };
        match dial.open(false).unwrap() {
            Opened::Listener(mut listener) => {
                listener.open().unwrap();
                listener
            }
            Opened::Connection(_) => panic!("it connects again and again"),
        }
    }

    #[test]
    fn a_manager_is_connected_to_when_it_listens_and_when_the_client_has_gone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("manager.sock");
        let listener = open(Address::Unix(path.clone()), Duration::from_millis(1));
        for _ in 0..3 {
            assert!(step(&*listener).is_none());
        }
        let manager = UnixListener::bind(&path).unwrap();
        for _ in 0..3 {
            let client = std::iter::repeat_with(|| step(&*listener)).flatten().next().unwrap();
            manager.accept().unwrap();
            // There is one client at a time.
            assert_eq!(listener.accept().err().unwrap().kind(), io::ErrorKind::WouldBlock);
            assert!(!listener_is_ready(&*listener));
            drop(client);
        }
    }

    #[test]
    fn nobody_is_connected_to_while_it_is_shut() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("manager.sock");
        let manager = UnixListener::bind(&path).unwrap();
        let mut listener = open(Address::Unix(path), Duration::from_millis(1));
        let client = step(&*listener).unwrap();
        listener.shut().unwrap();
        drop(client);
        assert!(!listener_is_ready(&*listener));
        listener.open().unwrap();
        drop(std::iter::repeat_with(|| step(&*listener)).flatten().next().unwrap());
        drop(manager);
    }

    fn listener_is_ready(listener: &dyn Listener) -> bool {
        let mut waiting = [PollFd::from_borrowed_fd(listener.as_fd(), PollFlags::IN)];
        poll(&mut waiting, Some(&Timespec::default())).unwrap() > 0
    }

    #[test]
    fn the_name_of_a_host_is_looked_up_without_blocking() {
        let manager = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = manager.local_addr().unwrap().port();
        let address = Address::Tcp { host: "localhost".to_owned(), port };
        let listener = open(address, Duration::from_millis(1));
        let client = std::iter::repeat_with(|| step(&*listener)).flatten().next().unwrap();
        manager.accept().unwrap();
        assert!(client.peer().unwrap().to_string().ends_with(&format!(":{port}")));
    }

    #[test]
    fn nobody_on_the_network_is_connected_to_without_tls() {
        let connect: Connect = "tcp:192.0.2.1:1".parse().unwrap();
        let error = DialOut::new(connect).verify(false).unwrap_err();
        assert!(error.to_string().contains("is not a loopback address"), "{error}");
    }
}
