// SPDX-License-Identifier: MIT OR Apache-2.0
//! What has come of connecting.

use std::io;
#[cfg(feature = "mux")]
use std::io::IoSlice;
#[cfg(feature = "mux")]
use std::mem::MaybeUninit;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::net::{AddressFamily, getpeername, sockopt};
#[cfg(feature = "mux")]
use rustix::{
    buffer::spare_capacity,
    net::{RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, recv, sendmsg},
};

use crate::transport::Transport;
use crate::transport::vsock::VsockStream;
#[cfg(feature = "mux")]
use crate::transport::{Received, unix};

/// A connection to a server, which does not block.
pub(crate) enum Stream {
    /// Of any family.
    Socket(OwnedFd),
    #[cfg(feature = "tls")]
    Tls(Box<dyn Transport>),
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Stream::Socket(socket) => socket.as_fd(),
            #[cfg(feature = "tls")]
            Stream::Tls(stream) => stream.as_fd(),
        }
    }
}

impl Stream {
    /// The address of the other end, if it is TCP without TLS.
    pub(crate) fn plain_tcp_peer(&self) -> io::Result<Option<SocketAddr>> {
        let socket = match self {
            Stream::Socket(socket) => socket,
            #[cfg(feature = "tls")]
            Stream::Tls(_) => return Ok(None),
        };
        match sockopt::socket_domain(socket)? {
            AddressFamily::INET | AddressFamily::INET6 => {
                let peer = getpeername(socket)?;
                Ok(peer.and_then(|peer| SocketAddr::try_from(peer).ok()))
            }
            _ => Ok(None),
        }
    }

    pub(crate) fn into_transport(self) -> io::Result<Box<dyn Transport>> {
        Ok(match self {
            Stream::Socket(socket) => match sockopt::socket_domain(&socket)? {
                AddressFamily::UNIX => Box::new(UnixStream::from(socket)),
                AddressFamily::VSOCK => Box::new(VsockStream(socket)),
                _ => Box::new(TcpStream::from(socket)),
            },
            #[cfg(feature = "tls")]
            Stream::Tls(stream) => stream,
        })
    }
}

/// What is received of TLS at a time: about one of its records.
#[cfg(all(feature = "mux", feature = "tls"))]
const RECORD: usize = 16 << 10;

#[cfg(feature = "mux")]
impl Stream {
    /// What is between the socket and what is said.
    pub(crate) fn transport(&self) -> Option<&dyn Transport> {
        match self {
            Stream::Socket(_) => None,
            #[cfg(feature = "tls")]
            Stream::Tls(stream) => Some(&**stream),
        }
    }

    /// Checks that a process of this user is at the other end. Only a Unix socket has such.
    pub(crate) fn check_peer(&self, uid: u32) -> io::Result<()> {
        match self {
            Stream::Socket(socket) => unix::check_peer(socket, uid),
            #[cfg(feature = "tls")]
            Stream::Tls(_) => Ok(()),
        }
    }

    /// Receives into the free room of `buffer`, which is empty. Descriptors that come along are dropped by the system.
    pub(crate) fn receive(&self, buffer: &mut Vec<u8>) -> io::Result<Received> {
        match self {
            Stream::Socket(socket) => {
                let room = buffer.capacity();
                let (bytes, _) = recv(socket, spare_capacity(buffer), RecvFlags::DONTWAIT)?;
                Ok(Received::of_stream(bytes, room))
            }
            #[cfg(feature = "tls")]
            Stream::Tls(stream) => {
                buffer.resize(RECORD, 0);
                let received = stream.receive(buffer, &mut Vec::new());
                buffer.truncate(received.as_ref().map_or(0, |received| received.bytes));
                received
            }
        }
    }

    /// Sends as much as fits, and a descriptor with the first byte. It is lost where none can be passed.
    pub(crate) fn send(
        &self,
        bytes: &[u8],
        descriptor: Option<BorrowedFd<'_>>,
    ) -> io::Result<usize> {
        match self {
            Stream::Socket(socket) => {
                let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
                let mut ancillary = SendAncillaryBuffer::new(&mut space);
                let descriptors = descriptor.map(|descriptor| [descriptor]);
                if let Some(descriptors) = &descriptors {
                    ancillary.push(SendAncillaryMessage::ScmRights(descriptors));
                }
                let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
                Ok(sendmsg(socket, &[IoSlice::new(bytes)], &mut ancillary, flags)?)
            }
            #[cfg(feature = "tls")]
            Stream::Tls(stream) => stream.send(bytes),
        }
    }
}
