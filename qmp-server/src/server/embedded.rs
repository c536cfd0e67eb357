// SPDX-License-Identifier: MIT OR Apache-2.0
//! A server whose in-band commands are executed by the embedder's own main loop.

use std::fmt;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::Arc;

use qmp_dispatch::Dispatcher;

use super::{Control, ServerHandle};
use crate::io::Waker;

/// A running server that leaves in-band commands to a poll loop, made by
/// [`Server::embed`](crate::Server::embed).
///
/// The threads of its engine accept, read, write, and execute what is out-of-band, so that this goes
/// on while the loop is busy: what QEMU's monitor thread and main loop do. The loop polls
/// [the descriptor](AsFd) for input, with whatever it has, and calls
/// [`dispatch_one`](Embedded::dispatch_one).
///
/// ```
/// use qmp_dispatch::proto::Error;
/// use qmp_dispatch::{Context, Dispatcher, Registry};
/// use qmp_server::{Address, Control, Listen, Server};
/// use rustix::event::{PollFd, PollFlags, poll};
///
/// let mut registry = Registry::new();
/// registry.command("quit", |context: &Context| {
///     context.monitor().local::<Control>().expect("a server").shutdown();
///     Ok::<_, Error>(())
/// })?;
/// let dispatcher = Dispatcher::new(registry, qmp_server::version(), qmp_server::system_time);
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("qmp.sock");
/// let listen = Listen::new(Address::Unix(path.clone()));
/// let server = Server::new(dispatcher).listen(&listen)?.embed()?;
/// # let mut client = std::os::unix::net::UnixStream::connect(&path)?;
/// # std::io::Write::write_all(&mut client, b"{'execute': 'qmp_capabilities'} {'execute': 'quit'}")?;
///
/// while !server.is_stopping() {
///     poll(&mut [PollFd::new(&server, PollFlags::IN)], None)?;
///     while server.dispatch_one() {}
/// }
/// server.wait();
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "no in-band command is executed unless this does it"]
pub struct Embedded {
    waker: Arc<Waker>,
    handle: ServerHandle,
}

impl Embedded {
    pub(super) fn new(waker: Arc<Waker>, handle: ServerHandle) -> Embedded {
        Embedded { waker, handle }
    }

    /// Executes one in-band request on this thread, if one waits and may be executed. Whether there
    /// are more; if so, the descriptor stays readable, so a loop may as well look after other things
    /// in between. It becomes readable anew each time, so polling for edges does, too.
    ///
    /// Does nothing, and takes no time to speak of, when nothing waits. A handler may call this, too,
    /// and nothing happens: its own request is still being executed.
    pub fn dispatch_one(&self) -> bool {
        self.handle.server.dispatch_one()
    }

    /// Whether somebody has [shut the server down](Control::shutdown); the descriptor is readable
    /// then. What is left to do is to [`wait`](Embedded::wait).
    pub fn is_stopping(&self) -> bool {
        self.handle.is_stopping()
    }

    /// Controls the server from elsewhere.
    pub fn control(&self) -> Control {
        self.handle.control()
    }

    /// What emits events to the clients of this server, from any thread.
    pub fn dispatcher(&self) -> &Dispatcher {
        self.handle.dispatcher()
    }

    /// Waits until the server has ended in order, like [`ServerHandle::wait`]. It must have been shut
    /// down, or this waits for that.
    pub fn wait(self) {
        self.handle.server.wait_until_ended();
    }
}

/// Ends the server: nobody would execute its commands any more.
impl Drop for Embedded {
    fn drop(&mut self) {
        self.handle.server.stop();
    }
}

/// What to poll for input: readable when there is something to dispatch, or the server is stopping.
impl AsFd for Embedded {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.waker.as_fd()
    }
}

impl AsRawFd for Embedded {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

impl fmt::Debug for Embedded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Embedded").field("fd", &self.as_raw_fd()).finish_non_exhaustive()
    }
}
