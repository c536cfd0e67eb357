// SPDX-License-Identifier: MIT OR Apache-2.0
//! Sockets that whoever started us has opened: descriptors by number, and systemd's.

use std::env;
use std::io::{self, IoSlice};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use rustix::io::{Errno, ioctl_fionbio};
use rustix::net::{AddressFamily, SocketType, sockopt};

use super::vsock::VsockStream;
use super::{Closing, Opened, Received, Transport, tcp, unix, vsock};
use crate::transport::Peer;

/// The last of those that every process has.
const STANDARD_ERROR: i32 = 2;

/// Where systemd's descriptors begin.
const FIRST_ACTIVATED: i32 = 3;

/// The sockets that systemd has opened for this process: those of this name, or all.
pub(crate) fn activated(name: Option<&str>, insecure: bool) -> io::Result<Vec<Opened>> {
    numbers(name)?.into_iter().map(|number| open(number, insecure)).collect()
}

/// The number of the only socket of this name that systemd has opened for this process.
pub(crate) fn only_activated(name: Option<&str>) -> io::Result<i32> {
    match numbers(name)?[..] {
        [number] => Ok(number),
        ref several => {
            let error = format!("systemd has passed {} such sockets, and not one", several.len());
            Err(io::Error::new(io::ErrorKind::InvalidInput, error))
        }
    }
}

/// The numbers of the sockets that systemd has passed: at least one.
fn numbers(name: Option<&str>) -> io::Result<Vec<i32>> {
    let variable = |name| env::var(name).unwrap_or_default();
    let mut count = variable("LISTEN_FDS").parse().unwrap_or(0);
    if variable("LISTEN_PID").parse() != Ok(std::process::id()) {
        count = 0;
    }
    let names = variable("LISTEN_FDNAMES");
    let mut names = names.split(':');
    let all = (FIRST_ACTIVATED..).take(count);
    let named = all.filter(|_| {
        let its_name = names.next();
        name.is_none() || name == its_name
    });
    let numbers: Vec<i32> = named.collect();
    if numbers.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "systemd has passed no such socket"));
    }
    Ok(numbers)
}

/// The connection with this number, which is ours from now on: the number is closed. So the other end sees it when we end
/// the connection. Those of standard input and output stay open, for nothing else is to get their numbers.
pub(crate) fn take_connected(number: i32) -> io::Result<OwnedFd> {
    let socket = stream_socket(number)?;
    if sockopt::socket_acceptconn(&socket)? {
        let listens = "the descriptor listens, and is not a connection";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, listens));
    }
    if number > STANDARD_ERROR {
        nix::unistd::close(number)?;
    }
    Ok(socket)
}

/// The socket with this number, which listens or is connected.
pub(crate) fn open(number: i32, insecure: bool) -> io::Result<Opened> {
    let fd = stream_socket(number)?;
    let listens = sockopt::socket_acceptconn(&fd)?;
    let wrap = |connection| Opened::Connection(Box::new(Inherited { connection }));
    match sockopt::socket_domain(&fd)? {
        AddressFamily::UNIX if listens => {
            Ok(Opened::Listener(unix::adopt(UnixListener::from(fd), number)))
        }
        AddressFamily::UNIX => Ok(wrap(Box::new(UnixStream::from(fd)))),
        AddressFamily::INET | AddressFamily::INET6 if listens => {
            let listener = TcpListener::from(fd);
            tcp::check_local(&listener.local_addr()?, insecure)?;
            Ok(Opened::Listener(Box::new(listener)))
        }
        AddressFamily::INET | AddressFamily::INET6 => {
            let stream = TcpStream::from(fd);
            tcp::check_local(&stream.peer_addr()?, insecure)?;
            stream.set_nodelay(true)?;
            Ok(wrap(Box::new(stream)))
        }
        AddressFamily::VSOCK if listens => vsock::adopt(fd, insecure).map(Opened::Listener),
        AddressFamily::VSOCK => Ok(wrap(Box::new(VsockStream(fd)))),
        _ => Err(no_use()),
    }
}

fn no_use() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "is not a stream socket that can be served")
}

/// Another descriptor of the socket with this number, which does not block any more.
fn stream_socket(number: i32) -> io::Result<OwnedFd> {
    let fd = duplicate(number)?;
    match sockopt::socket_type(&fd) {
        Ok(SocketType::STREAM) => {}
        Ok(_) | Err(Errno::NOTSOCK) => return Err(no_use()),
        Err(error) => return Err(error.into()),
    }
    ioctl_fionbio(&fd, true)?;
    Ok(fd)
}

/// A descriptor for what this number stands for, if it stands for anything. It takes the way that
/// clients' descriptors take, for a number alone cannot be trusted to stay open.
fn duplicate(number: i32) -> io::Result<OwnedFd> {
    let (ours, theirs) = UnixStream::pair()?;
    let rights = [number];
    let message = [ControlMessage::ScmRights(&rights)];
    let byte = [IoSlice::new(&[0])];
    match sendmsg::<()>(theirs.as_raw_fd(), &byte, &message, MsgFlags::empty(), None) {
        Err(nix::errno::Errno::EBADF) => {
            return Err(io::Error::new(io::ErrorKind::NotFound, "there is no such descriptor"));
        }
        sent => sent?,
    };
    let mut descriptors = Vec::new();
    ours.receive(&mut [0], &mut descriptors)?;
    descriptors.pop().ok_or_else(|| io::Error::other("there are no descriptors left"))
}

/// A connection that we have been given: whoever did so answers for the client.
struct Inherited {
    connection: Box<dyn Transport>,
}

impl AsFd for Inherited {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.connection.as_fd()
    }
}

impl Transport for Inherited {
    fn peer(&self) -> io::Result<Peer> {
        Ok(Peer::Starter)
    }

    fn receive(&self, buffer: &mut [u8], descriptors: &mut Vec<OwnedFd>) -> io::Result<Received> {
        self.connection.receive(buffer, descriptors)
    }

    fn receive_bytes(&self, buffer: &mut [u8]) -> io::Result<Received> {
        self.connection.receive_bytes(buffer)
    }

    fn reports_hang_up(&self) -> bool {
        self.connection.reports_hang_up()
    }

    fn closing(&self) -> Closing {
        self.connection.closing()
    }

    fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        self.connection.send(bytes)
    }

    fn shutdown(&self) {
        self.connection.shutdown();
    }
}
