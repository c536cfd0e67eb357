// SPDX-License-Identifier: MIT OR Apache-2.0
//! File descriptors that a client has passed along with its bytes.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The descriptors of one connection: those that wait for a command to take them, and those that
/// `getfd` has named. A [local](qmp_dispatch::Monitor::local) of every monitor of a
/// [`Server`](crate::Server).
///
/// What the last message with descriptors brought waits; it replaces what was waiting. All of them
/// are closed with the connection.
#[derive(Debug, Default)]
pub struct Descriptors {
    waiting: Mutex<Vec<OwnedFd>>,
    named: Mutex<HashMap<String, OwnedFd>>,
}

impl Descriptors {
    /// Takes the first waiting descriptor, and closes the others. Mirrors `qemu_chr_fe_get_msgfd`.
    pub fn take_waiting(&self) -> Option<OwnedFd> {
        let mut waiting = std::mem::take(&mut *lock(&self.waiting)).into_iter();
        waiting.next()
    }

    /// Lets a descriptor wait again that has been taken and was not used, unless others have come.
    pub(crate) fn give_back(&self, descriptor: OwnedFd) {
        let mut waiting = lock(&self.waiting);
        if waiting.is_empty() {
            waiting.push(descriptor);
        }
    }

    /// Gives a descriptor a name, and closes the one that had it.
    pub fn insert_named(&self, name: impl Into<String>, descriptor: OwnedFd) {
        lock(&self.named).insert(name.into(), descriptor);
    }

    /// Takes the descriptor of this name.
    pub fn take_named(&self, name: &str) -> Option<OwnedFd> {
        lock(&self.named).remove(name)
    }

    /// Lets descriptors wait that have just arrived.
    pub(crate) fn arrive(&self, descriptors: Vec<OwnedFd>) {
        *lock(&self.waiting) = descriptors;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
