// SPDX-License-Identifier: MIT OR Apache-2.0
//! A client of one's own, for the examples: says something, and gives the lines that come back.

use std::sync::{Arc, Mutex};

use qmp_dispatch::proto::{Layout, Reader, Version, VersionTriple};
use qmp_dispatch::{Dispatcher, Locals, Monitor, Output, Registry, Time};

/// A negotiated monitor whose output is kept.
pub(crate) struct Client {
    pub(crate) monitor: Arc<Monitor>,
    screen: Arc<Screen>,
}

#[derive(Default)]
struct Screen(Mutex<String>);

impl Output for Screen {
    fn transmit(&self, text: &str) {
        self.0.lock().unwrap().push_str(text);
    }
}

impl Client {
    pub(crate) fn of(registry: Registry) -> Client {
        let qemu = VersionTriple { major: 0, minor: 1, micro: 0 };
        let version = Version { qemu, package: "example".into() };
        let dispatcher = Dispatcher::new(registry, version, Time::default);
        let screen = Arc::new(Screen::default());
        let monitor = dispatcher.connect(screen.clone(), Layout::Compact, Locals::default());
        let client = Client { monitor, screen };
        client.ask("{'execute': 'qmp_capabilities'}");
        client
    }

    /// Sends requests, and waits until all have been answered; what the server has said until then.
    pub(crate) fn ask(&self, requests: &str) -> Vec<String> {
        let mut reader = Reader::default();
        let mut input = requests.as_bytes();
        while let Some(message) = reader.read(&mut input) {
            let (answered, wait) = std::sync::mpsc::channel();
            let done = move || answered.send(()).expect("somebody waits");
            self.monitor.execute(self.monitor.receive(message), done);
            wait.recv().expect("an answer");
        }
        let said = std::mem::take(&mut *self.screen.0.lock().unwrap());
        said.lines().map(str::to_owned).collect()
    }
}
