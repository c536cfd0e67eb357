// SPDX-License-Identifier: MIT OR Apache-2.0
//! Standard input and output as one connection.
//!
//! They are copied to and from a socket pair: files cannot be polled, and what is shared with the
//! parent process must not be made non-blocking.

use std::io::{self, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use super::{Closing, Received, Transport, Travels};
use crate::transport::Peer;

/// How long the end of the connection waits for standard output to take what is left.
const FLUSH_DEADLINE: Duration = Duration::from_secs(1);

pub(crate) fn connect() -> io::Result<Box<dyn Transport>> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    if TAKEN.swap(true, Ordering::Relaxed) {
        return Err(io::Error::new(io::ErrorKind::AddrInUse, "there is only one, and it is taken"));
    }
    let (ours, theirs) = UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    let mut to_server = theirs.try_clone()?;
    thread::Builder::new().name("qmp-stdin".into()).spawn(move || {
        let _ = io::copy(&mut io::stdin().lock(), &mut to_server);
        let _ = to_server.shutdown(Shutdown::Write);
    })?;
    let (done, written) = channel();
    let mut from_server = theirs;
    thread::Builder::new().name("qmp-stdout".into()).spawn(move || {
        let mut out = io::stdout();
        let _ = io::copy(&mut from_server, &mut out).and_then(|_| out.flush());
        drop(done);
    })?;
    Ok(Box::new(Stdio { pair: ours, written: Mutex::new(written) }))
}

struct Stdio {
    pair: UnixStream,
    /// Disconnected when everything has been written.
    written: Mutex<Receiver<()>>,
}

impl AsFd for Stdio {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pair.as_fd()
    }
}

impl Transport for Stdio {
    fn peer(&self) -> io::Result<Peer> {
        Ok(Peer::Starter)
    }

    fn receive(&self, buffer: &mut [u8], descriptors: &mut Vec<OwnedFd>) -> io::Result<Received> {
        self.pair.receive(buffer, descriptors)
    }

    fn receive_bytes(&self, buffer: &mut [u8]) -> io::Result<Received> {
        self.pair.receive_bytes(buffer)
    }

    /// The threads that copy may have read what they have not written yet.
    fn travels(&self) -> Travels {
        Travels::Prevents
    }

    fn reports_hang_up(&self) -> bool {
        self.pair.reports_hang_up()
    }

    fn closing(&self) -> Closing {
        Closing::Flushes
    }

    fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        self.pair.send(bytes)
    }

    fn shutdown(&self) {
        Transport::shutdown(&self.pair);
    }
}

impl Drop for Stdio {
    fn drop(&mut self) {
        Transport::shutdown(&self.pair);
        let written = self.written.get_mut().unwrap_or_else(PoisonError::into_inner);
        let _ = written.recv_timeout(FLUSH_DEADLINE);
    }
}
