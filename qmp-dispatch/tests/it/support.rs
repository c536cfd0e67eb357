// SPDX-License-Identifier: MIT OR Apache-2.0
//! A client's end of a monitor, in memory.

use std::sync::{Arc, Mutex};

use qmp_dispatch::proto::{Layout, Reader};
use qmp_dispatch::{Dispatcher, Locals, Monitor, Output};

/// What a client has received.
#[derive(Default)]
pub(crate) struct Screen(Mutex<String>);

impl Screen {
    /// Takes the text since the last time.
    pub(crate) fn text(&self) -> String {
        std::mem::take(&mut *self.0.lock().unwrap())
    }

    /// Takes the lines since the last time.
    pub(crate) fn take(&self) -> Vec<String> {
        self.text().lines().map(str::to_owned).collect()
    }
}

impl Output for Screen {
    fn transmit(&self, text: &str) {
        self.0.lock().unwrap().push_str(text);
    }
}

pub(crate) fn connect(dispatcher: &Dispatcher) -> (Arc<Monitor>, Arc<Screen>) {
    let screen = Arc::new(Screen::default());
    let monitor = dispatcher.connect(screen.clone(), Layout::Compact, Locals::default());
    (monitor, screen)
}

/// Connects and negotiates.
pub(crate) fn negotiated(dispatcher: &Dispatcher) -> (Arc<Monitor>, Arc<Screen>) {
    let (monitor, screen) = connect(dispatcher);
    feed(&monitor, "{'execute': 'qmp_capabilities'}");
    screen.take();
    (monitor, screen)
}

/// Receives and executes all messages of the input.
pub(crate) fn feed(monitor: &Arc<Monitor>, input: &str) {
    let mut reader = Reader::default();
    let mut bytes = input.as_bytes();
    while let Some(message) = reader.read(&mut bytes) {
        monitor.execute(monitor.receive(message), || ());
    }
}
