// SPDX-License-Identifier: MIT OR Apache-2.0
//! A client in the same process.

use std::fmt;
use std::mem::take;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use qmp_proto::{Layout, Reader, Version};

use crate::{Dispatcher, Locals, Monitor, Output, Registry, Time};

/// A client in the same process that has completed negotiation, for tests of commands without a socket.
///
/// After one has connected, and in debug builds always, results and data of events are checked against the types
/// that introspection shows. A result that is not of its type becomes an error.
///
/// ```
/// use qmp_dispatch::{LocalClient, Registry};
///
/// let client = LocalClient::new(Registry::new());
/// assert_eq!(
///     client.ask("{'execute': 'query-version'} {'execute': 'x'}"),
///     [
///         r#"{"return": {"qemu": {"micro": 0, "minor": 0, "major": 0}, "package": ""}}"#,
///         r#"{"error": {"class": "CommandNotFound", "desc": "The command x has not been found"}}"#,
///     ]
/// );
/// ```
pub struct LocalClient {
    monitor: Arc<Monitor>,
    said: Arc<Said>,
}

/// Output of the server that has not been returned yet.
#[derive(Default)]
struct Said(Mutex<String>);

impl Said {
    fn text(&self) -> MutexGuard<'_, String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Output for Said {
    fn transmit(&self, text: &str) {
        self.text().push_str(text);
    }
}

impl LocalClient {
    /// Creates a server of version 0.0.0 with these commands and events, for which no time passes, and its only
    /// client.
    pub fn new(registry: Registry) -> LocalClient {
        let dispatcher = Dispatcher::new(registry, Version::new(0, 0, 0, ""), Time::default);
        LocalClient::connect(&dispatcher)
    }

    /// Connects a client to a server.
    pub fn connect(dispatcher: &Dispatcher) -> LocalClient {
        dispatcher.check_output();
        let said = Arc::new(Said::default());
        let monitor = dispatcher.connect(said.clone(), Layout::Compact, Locals::default());
        let client = LocalClient { monitor, said };
        client.ask("{'execute': 'qmp_capabilities'}");
        client
    }

    /// Sends requests one after the other and blocks until each has been answered. Returns the lines that the server
    /// has sent since the last call, events included.
    pub fn ask(&self, requests: &str) -> Vec<String> {
        let mut reader = Reader::default();
        let mut input = requests.as_bytes();
        while let Some(message) = reader.read(&mut input) {
            let (answered, wait) = channel();
            self.monitor.execute(self.monitor.receive(message), move || {
                // Who asks waits, unless it has panicked.
                let _ = answered.send(());
            });
            let _ = wait.recv();
        }
        take(&mut *self.said.text()).lines().map(str::to_owned).collect()
    }

    /// Returns the server's side of the connection.
    pub fn monitor(&self) -> &Arc<Monitor> {
        &self.monitor
    }
}

impl fmt::Debug for LocalClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalClient").field("monitor", &self.monitor).finish_non_exhaustive()
    }
}
