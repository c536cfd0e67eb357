// SPDX-License-Identifier: MIT OR Apache-2.0
//! The socket between us and the upstream server.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::net::{TcpStream, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;
use rustix::net::sockopt::{
    set_socket_keepalive, set_tcp_keepcnt, set_tcp_keepidle, set_tcp_keepintvl,
};
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, Shutdown,
    SocketAddrUnix, SocketFlags, SocketType, connect, recv, sendmsg, shutdown, socket_with,
};

use crate::Address;
use crate::session::Descriptor;

/// How long a host may take to answer to a connection over TCP.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// After so long a silence a host is asked whether it is still there, and so often again.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(10);

/// A connection that never blocks.
pub(super) struct Link {
    socket: OwnedFd,
    unsent: Mutex<VecDeque<Unsent>>,
}

/// What the server has not taken yet of one message, from `at` on. The descriptor goes with its first
/// byte.
struct Unsent {
    text: String,
    at: usize,
    descriptor: Option<Arc<Descriptor>>,
}

impl Link {
    /// Whether a server can be connected to at such an address.
    pub(super) fn check(address: &Address) -> io::Result<()> {
        match address {
            Address::Unix(_) | Address::UnixAbstract(_) | Address::Tcp { .. } => Ok(()),
            _ => Err(cannot_connect(address)),
        }
    }

    pub(super) fn connect(address: &Address) -> io::Result<Link> {
        let socket = match address {
            Address::Unix(path) => connect_unix(&SocketAddrUnix::new(path)?)?,
            Address::UnixAbstract(name) => {
                connect_unix(&SocketAddrUnix::new_abstract_name(name.as_bytes())?)?
            }
            Address::Tcp { host, port } => connect_tcp(host, *port)?,
            _ => return Err(cannot_connect(address)),
        };
        Ok(Link { socket, unsent: Mutex::default() })
    }

    /// Sends a message, behind those that are unsent yet. Whether that was all.
    pub(super) fn send(&self, text: String, descriptor: Option<Arc<Descriptor>>) -> bool {
        let mut unsent = self.unsent.lock().unwrap_or_else(PoisonError::into_inner);
        unsent.push_back(Unsent { text, at: 0, descriptor });
        self.send_more(&mut unsent)
    }

    /// Sends what is unsent, as far as the server takes it. Whether that was all.
    pub(super) fn flush(&self) -> bool {
        self.send_more(&mut self.unsent.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn send_more(&self, unsent: &mut VecDeque<Unsent>) -> bool {
        while let Some(first) = unsent.front_mut() {
            match self.send_some(first) {
                Ok(sent) => {
                    first.at += sent;
                    first.descriptor = None;
                    if first.at == first.text.len() {
                        unsent.pop_front();
                    }
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return false,
                // Whoever reads finds out, after what has come before the end.
                Err(_) => unsent.clear(),
            }
        }
        true
    }

    fn send_some(&self, unsent: &Unsent) -> Result<usize, Errno> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let descriptors = unsent.descriptor.as_ref().map(|descriptor| [descriptor.as_fd()]);
        if let Some(descriptors) = &descriptors {
            ancillary.push(SendAncillaryMessage::ScmRights(descriptors));
        }
        let text = [IoSlice::new(&unsent.text.as_bytes()[unsent.at..])];
        sendmsg(&self.socket, &text, &mut ancillary, SendFlags::NOSIGNAL | SendFlags::DONTWAIT)
    }

    /// Receives what is there: zero bytes at the end of file.
    pub(super) fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(recv(&self.socket, buffer, RecvFlags::DONTWAIT)?.0)
    }

    /// How many bytes the server has not taken yet.
    pub(super) fn unsent(&self) -> usize {
        let unsent = self.unsent.lock().unwrap_or_else(PoisonError::into_inner);
        unsent.iter().map(|unsent| unsent.text.len() - unsent.at).sum()
    }

    /// Waits until there is something to receive, or somebody wakes us; sends what is unsent meanwhile.
    pub(super) fn wait(&self, waker: &Waker, timeout: Option<Duration>) -> io::Result<()> {
        let room = if self.flush() { PollFlags::empty() } else { PollFlags::OUT };
        let mut fds = [PollFd::new(&self.socket, PollFlags::IN | room), waker.poll_fd()];
        wait(&mut fds, timeout)?;
        if !fds[1].revents().is_empty() {
            waker.reset();
        }
        Ok(())
    }

    pub(super) fn shutdown(&self) {
        let _ = shutdown(&self.socket, Shutdown::Both);
    }
}

fn cannot_connect(address: &Address) -> io::Error {
    let what = format!(
        "{address} cannot be an upstream server: those are at unix:, unix-abstract: or tcp:"
    );
    io::Error::new(io::ErrorKind::Unsupported, what)
}

fn connect_unix(address: &SocketAddrUnix) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    match connect(&socket, address) {
        Ok(()) => Ok(socket),
        Err(Errno::AGAIN) => {
            Err(io::Error::new(io::ErrorKind::WouldBlock, "too many other clients wait there"))
        }
        Err(error) => Err(error.into()),
    }
}

fn connect_tcp(host: &str, port: u16) -> io::Result<OwnedFd> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
    for address in (host, port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, CONNECT_TIMEOUT) {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                notice_silent_end(&stream)?;
                return Ok(stream.into());
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Has the system find out when the host at the other end has gone without a word.
fn notice_silent_end(stream: &TcpStream) -> io::Result<()> {
    set_tcp_keepidle(stream, KEEPALIVE_AFTER)?;
    set_tcp_keepintvl(stream, KEEPALIVE_AFTER)?;
    set_tcp_keepcnt(stream, 3)?;
    Ok(set_socket_keepalive(stream, true)?)
}

/// Wakes the thread that waits for the upstream server, or will.
pub(super) struct Waker(OwnedFd);

impl Waker {
    pub(super) fn new() -> io::Result<Waker> {
        Ok(Waker(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?))
    }

    pub(super) fn wake(&self) {
        let _ = rustix::io::write(&self.0, &1u64.to_ne_bytes());
    }

    /// Waits until somebody wakes us, or the time is over.
    pub(super) fn wait(&self, timeout: Duration) -> io::Result<()> {
        wait(&mut [self.poll_fd()], Some(timeout))?;
        self.reset();
        Ok(())
    }

    fn reset(&self) {
        let _ = rustix::io::read(&self.0, &mut [0; 8]);
    }

    fn poll_fd(&self) -> PollFd<'_> {
        PollFd::from_borrowed_fd(self.as_fd(), PollFlags::IN)
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn wait(fds: &mut [PollFd<'_>], timeout: Option<Duration>) -> io::Result<()> {
    let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
    match poll(fds, timeout.as_ref()) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
