// SPDX-License-Identifier: MIT OR Apache-2.0
//! Sockets that whoever started us has opened: descriptors by number, and systemd's.

use std::env;
use std::io::{self, IoSlice};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use rustix::fs::{Mode, OFlags, open as open_file};
use rustix::io::{Errno, ioctl_fionbio};
use rustix::net::{AddressFamily, SocketType, sockopt};
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};

use super::vsock::VsockStream;
use super::{Closing, Listener, Opened, Received, Transport, Travels, tcp, unix, vsock};
use crate::transport::Peer;

/// The name of those of systemd's descriptors that are no sockets to listen at, but what another program has handed over.
pub(crate) const STORE_NAME: &str = "qmp-server-hand-over";

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
        its_name != Some(STORE_NAME) && (name.is_none() || name == its_name)
    });
    let numbers: Vec<i32> = named.collect();
    if numbers.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "systemd has passed no such socket"));
    }
    Ok(numbers)
}

/// The connection with this number, which is [taken](take).
pub(crate) fn take_connected(number: i32) -> io::Result<OwnedFd> {
    let socket = take(number)?;
    check_stream(&socket)?;
    if sockopt::socket_acceptconn(&socket)? {
        let listens = "the descriptor listens, and is not a connection";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, listens));
    }
    Ok(socket)
}

/// The socket with this number, which listens or is connected. The number is free then.
pub(crate) fn open(number: i32, insecure: bool) -> io::Result<Opened> {
    let fd = take(number)?;
    check_stream(&fd)?;
    match sockopt::socket_acceptconn(&fd)? {
        true => listener(fd, number, insecure).map(Opened::Listener),
        false => {
            if let Ok(address) = TcpStream::from(fd.try_clone()?).peer_addr() {
                tcp::check_local(&address, insecure)?;
            }
            connection(fd, true).map(Opened::Connection)
        }
    }
}

fn no_use() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "is not a stream socket that can be served")
}

fn check_stream(fd: &OwnedFd) -> io::Result<()> {
    match sockopt::socket_type(fd) {
        Ok(SocketType::STREAM) => Ok(ioctl_fionbio(fd, true)?),
        Ok(_) | Err(Errno::NOTSOCK) => Err(no_use()),
        Err(error) => Err(error.into()),
    }
}

/// A socket that listens already.
pub(crate) fn listener(fd: OwnedFd, number: i32, insecure: bool) -> io::Result<Box<dyn Listener>> {
    match sockopt::socket_domain(&fd)? {
        AddressFamily::UNIX => Ok(unix::adopt(UnixListener::from(fd), number)),
        AddressFamily::INET | AddressFamily::INET6 => {
            let listener = TcpListener::from(fd);
            tcp::check_local(&listener.local_addr()?, insecure)?;
            Ok(Box::new(listener))
        }
        AddressFamily::VSOCK => vsock::adopt(fd, insecure),
        _ => Err(no_use()),
    }
}

/// A connected socket, which we have been `given` as it was, or have accepted.
pub(crate) fn connection(fd: OwnedFd, given: bool) -> io::Result<Box<dyn Transport>> {
    check_stream(&fd)?;
    let connection: Box<dyn Transport> = match sockopt::socket_domain(&fd)? {
        AddressFamily::UNIX => Box::new(UnixStream::from(fd)),
        AddressFamily::INET | AddressFamily::INET6 => {
            let stream = TcpStream::from(fd);
            stream.set_nodelay(true)?;
            Box::new(stream)
        }
        AddressFamily::VSOCK => Box::new(VsockStream(fd)),
        _ => return Err(no_use()),
    };
    Ok(if given { Box::new(InheritedConnection { connection }) } else { connection })
}

/// The descriptor of this number, if there is one, under another number: this one is closed. What is left open would be
/// passed on to every program that is executed, and the other end of a connection would not see it when we end that.
pub(crate) fn take(number: i32) -> io::Result<OwnedFd> {
    let fd = duplicate(number)?;
    // The standard streams' numbers would be those of whatever is opened next.
    let null = || open_file("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty());
    match number {
        0 => dup2_stdin(null()?)?,
        1 => dup2_stdout(null()?)?,
        2 => dup2_stderr(null()?)?,
        number => nix::unistd::close(number)?,
    }
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
struct InheritedConnection {
    connection: Box<dyn Transport>,
}

impl AsFd for InheritedConnection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.connection.as_fd()
    }
}

impl Transport for InheritedConnection {
    fn peer(&self) -> io::Result<Peer> {
        Ok(Peer::Starter)
    }

    fn receive(&self, buffer: &mut [u8], descriptors: &mut Vec<OwnedFd>) -> io::Result<Received> {
        self.connection.receive(buffer, descriptors)
    }

    fn receive_bytes(&self, buffer: &mut [u8]) -> io::Result<Received> {
        self.connection.receive_bytes(buffer)
    }

    fn travels(&self) -> Travels {
        self.connection.travels()
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
