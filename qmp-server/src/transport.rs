// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a connection and a listener must be able to do, and the ones there are.

mod stdio;
mod tcp;
mod unix;

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use crate::{Address, ListenError};

/// A connection to one client: a stream of bytes in both directions that never blocks.
pub trait Transport: Send + Sync {
    /// What to poll for readiness.
    fn as_fd(&self) -> BorrowedFd<'_>;

    /// Reads what is there. Zero means that the client sends no more.
    ///
    /// Descriptors that came with the bytes replace those in `descriptors`, if any came.
    ///
    /// # Errors
    ///
    /// [`WouldBlock`](io::ErrorKind::WouldBlock) if nothing is there yet; otherwise the connection
    /// is broken.
    fn receive(&self, buffer: &mut [u8], descriptors: &mut Vec<OwnedFd>) -> io::Result<usize>;

    /// Writes as much as fits.
    ///
    /// # Errors
    ///
    /// [`WouldBlock`](io::ErrorKind::WouldBlock) if nothing fits; otherwise the connection is
    /// broken.
    fn send(&self, bytes: &[u8]) -> io::Result<usize>;

    /// Ends the connection in both directions; the client sees end of file.
    fn shutdown(&self);
}

/// Accepts connections, and never blocks.
pub trait Listener: Send + Sync {
    /// What to poll for readiness.
    fn as_fd(&self) -> BorrowedFd<'_>;

    /// The next connection.
    ///
    /// # Errors
    ///
    /// [`WouldBlock`](io::ErrorKind::WouldBlock) if no client waits.
    fn accept(&self) -> io::Result<Box<dyn Transport>>;

    /// Removes what listening has left behind, such as a socket's file. Called when the server ends,
    /// and not twice.
    fn clean_up(&self) {}

    /// Where it listens, with the port that the system has chosen.
    fn address(&self) -> Address;
}

/// What an address gives when it is opened.
pub(crate) enum Opened {
    Listener(Box<dyn Listener>),
    /// There will only ever be this one client.
    Connection(Box<dyn Transport>),
}

pub(crate) fn open(address: &Address) -> Result<Opened, ListenError> {
    let opened = match address {
        Address::Unix(path) => unix::listen(path).map(Opened::Listener),
        Address::Tcp { host, port } => tcp::listen(host, *port).map(Opened::Listener),
        Address::Stdio => stdio::connect().map(Opened::Connection),
    };
    opened.map_err(|source| ListenError { address: address.clone(), source })
}
