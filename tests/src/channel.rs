// SPDX-License-Identifier: MIT OR Apache-2.0
//! The bytes of a connection, whatever carries them. Nothing here blocks once it is connected.

mod program;
mod tls;

use std::fmt::Debug;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, Shutdown, recv, send, sendmsg,
};

pub use program::Program;
pub use tls::{TlsClient, TlsStream};

const READ_SIZE: usize = 1 << 16;
const MOST_DESCRIPTORS: usize = 253;

/// A stream of bytes in each direction.
pub trait Channel: Debug + Send {
    /// Returns the descriptor to poll for input.
    fn readable(&self) -> BorrowedFd<'_>;

    /// Returns the descriptor to poll for room to send.
    fn writable(&self) -> BorrowedFd<'_>;

    /// Sends what fits, and `descriptors` along with the first byte.
    ///
    /// # Errors
    ///
    /// [`WouldBlock`](io::ErrorKind::WouldBlock) if nothing fits.
    fn send(&mut self, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<usize>;

    /// Sends what has been taken and not been sent.
    ///
    /// # Errors
    ///
    /// [`WouldBlock`](io::ErrorKind::WouldBlock) if not all of it fits.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// Appends what is there; zero bytes are the end.
    ///
    /// # Errors
    ///
    /// [`WouldBlock`](io::ErrorKind::WouldBlock) if nothing is there.
    fn receive(&mut self, received: &mut Vec<u8>) -> io::Result<usize>;

    /// Ends our side.
    ///
    /// # Errors
    ///
    /// If the connection is gone.
    fn half_close(&mut self) -> io::Result<()>;
}

impl Channel for OwnedFd {
    fn readable(&self) -> BorrowedFd<'_> {
        self.as_fd()
    }

    fn writable(&self) -> BorrowedFd<'_> {
        self.as_fd()
    }

    fn send(&mut self, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<usize> {
        if descriptors.is_empty() {
            return Ok(send(self, bytes, SendFlags::NOSIGNAL)?);
        }
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
            return Err(Errno::MSGSIZE.into());
        }
        Ok(sendmsg(self, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)?)
    }

    fn receive(&mut self, received: &mut Vec<u8>) -> io::Result<usize> {
        let mut chunk = [0; READ_SIZE];
        let (count, _) = recv(self, &mut chunk, RecvFlags::empty())?;
        received.extend(&chunk[..count]);
        Ok(count)
    }

    fn half_close(&mut self) -> io::Result<()> {
        Ok(rustix::net::shutdown(self, Shutdown::Write)?)
    }
}

fn no_descriptors<T>() -> io::Result<T> {
    Err(io::Error::new(
        io::ErrorKind::Unsupported,
        "descriptors can be passed on Unix sockets only",
    ))
}
