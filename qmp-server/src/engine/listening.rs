// SPDX-License-Identifier: MIT OR Apache-2.0
//! Listeners, and what a client inherits from the one that it has connected to.

use std::io;

use crate::access::Origin;
use crate::transport::Listener;

/// A listener, and what its clients inherit. The listener cleans up once, at the latest when this is dropped.
pub(crate) struct Listening {
    pub(crate) listener: Box<dyn Listener>,
    pub(crate) origin: Origin,
    /// The address as it was given, by which another program finds the listener again. `None` if an embedder has made it.
    pub(crate) opened_as: Option<String>,
    is_open: bool,
    cleaned_up: bool,
}

impl Listening {
    pub(crate) fn new(listener: Box<dyn Listener>, origin: Origin) -> Listening {
        Listening { listener, origin, opened_as: None, is_open: false, cleaned_up: false }
    }

    /// Lets clients connect, if they cannot yet.
    pub(crate) fn open(&mut self) -> io::Result<()> {
        if !self.is_open {
            self.listener.open()?;
            self.is_open = true;
        }
        Ok(())
    }

    /// Has the system refuse clients. An error says that it does not.
    pub(crate) fn shut(&mut self) -> io::Result<()> {
        self.is_open = false;
        self.listener.shut()
    }

    pub(crate) fn clean_up(&mut self) {
        if !std::mem::replace(&mut self.cleaned_up, true) {
            self.listener.clean_up();
        }
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.clean_up();
    }
}
