// SPDX-License-Identifier: MIT OR Apache-2.0
//! What handlers and other threads can do to a running server.

use std::fmt;
use std::io;
use std::sync::Weak;

use qmp_dispatch::proto::Layout;

use crate::core::Core;
use crate::entrance::Entrance;
use crate::{Address, ClientStatus, Metrics, ServerStatus, Transport};

/// Controls a running server, from any thread. A [local](qmp_dispatch::Monitor::local) of every
/// monitor, so that handlers have it. Does nothing once the server has ended.
#[derive(Clone)]
pub struct Control {
    core: Weak<Core>,
}

impl Control {
    pub(crate) fn new(core: Weak<Core>) -> Control {
        Control { core }
    }

    /// Ends the server: no client is accepted any more, what is being executed is finished and
    /// answered, what is queued is answered with an error, clients get what is left for them, and
    /// all connections end. If a handler calls this, what its own client has queued is not answered
    /// at all, as in QEMU after `quit`.
    pub fn shutdown(&self) {
        if let Some(core) = self.core.upgrade() {
            core.stop();
        }
    }

    /// Ends the connections of all clients, each when it has been sent what is left for it, or has had
    /// a second for reading that. What they have sent and was not executed yet is not answered.
    /// Others can connect.
    pub fn disconnect_clients(&self) {
        if let Some(core) = self.core.upgrade() {
            core.disconnect_clients();
        }
    }

    /// Serves one more connection, over any transport.
    ///
    /// # Errors
    ///
    /// [`NotConnected`](io::ErrorKind::NotConnected) if the server has ended, or what the system says
    /// when it cannot be polled. The connection is dropped then.
    pub fn serve(&self, connection: Box<dyn Transport>, layout: Layout) -> io::Result<()> {
        let ended = || io::Error::new(io::ErrorKind::NotConnected, "the server has ended");
        let core = self.core.upgrade().filter(|core| !core.is_stopping()).ok_or_else(ended)?;
        core.connect(connection, Entrance::new(layout))
    }

    /// What the server does, in whole; `None` once it has ended.
    pub fn status(&self) -> Option<ServerStatus> {
        Some(self.core.upgrade()?.status())
    }

    /// What each client does, in the order in which they have come.
    pub fn clients(&self) -> Vec<ClientStatus> {
        self.core.upgrade().map(|core| core.clients()).unwrap_or_default()
    }

    /// What the server tells of itself in figures; `None` once it has ended.
    pub fn metrics(&self) -> Option<Metrics> {
        Some(self.core.upgrade()?.metrics().clone())
    }

    /// Where the server listens, with the ports that the system has chosen; nowhere once it has ended.
    pub fn addresses(&self) -> Vec<Address> {
        let Some(core) = self.core.upgrade() else { return Vec::new() };
        core.listening().iter().map(|listening| listening.listener.address()).collect()
    }

    /// The labels of the sockets that the server listens at, in the order of their
    /// [addresses](Control::addresses), as QEMU calls those of its `-qmp` options: `compat_monitor0`,
    /// `compat_monitor1`, and so on.
    pub fn labels(&self) -> Vec<String> {
        let listening = self.core.upgrade().map_or(0, |core| core.listening().len());
        (0..listening).map(label_of).collect()
    }

    /// Ends all connections of the socket with this label at once, as QEMU's `yank` does: they are
    /// sent nothing more. The socket then accepts new clients. Whether there is one of that label.
    pub fn yank(&self, label: &str) -> bool {
        let Some(core) = self.core.upgrade() else { return false };
        let index = (0..core.listening().len()).find(|&index| label_of(index) == label);
        if let Some(index) = index {
            core.abort_connections(index);
        }
        index.is_some()
    }
}

fn label_of(index: usize) -> String {
    format!("compat_monitor{index}")
}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Control").finish_non_exhaustive()
    }
}
