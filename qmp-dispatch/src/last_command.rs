// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a monitor has executed last, for those who look on.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::{Command, Registry};

const NONE: usize = usize::MAX;
const FORWARDED: usize = usize::MAX - 1;

/// In characters. There is no such command with a longer name.
const LONGEST_NAME: usize = 256;

/// Keeps the name without a lock, and without a copy, of a command that is registered.
pub(crate) struct LastCommand {
    /// Where the command is in the registry, or one of the constants.
    index: AtomicUsize,
    forwarded: Mutex<String>,
}

impl LastCommand {
    pub(crate) fn none() -> LastCommand {
        LastCommand { index: AtomicUsize::new(NONE), forwarded: Mutex::default() }
    }

    pub(crate) fn set(&self, command: &Command) {
        self.index.store(command.index(), Ordering::Relaxed);
    }

    /// Clients can give any name, and it is kept as long as they stay.
    pub(crate) fn set_forwarded(&self, name: &str) {
        let end = name.char_indices().nth(LONGEST_NAME).map_or(name.len(), |(end, _)| end);
        name[..end].clone_into(&mut self.forwarded());
        self.index.store(FORWARDED, Ordering::Relaxed);
    }

    pub(crate) fn name(&self, registry: &Registry) -> Option<String> {
        match self.index.load(Ordering::Relaxed) {
            NONE => None,
            FORWARDED => Some(self.forwarded().clone()),
            index => Some(registry.command_at(index)?.name().to_owned()),
        }
    }

    fn forwarded(&self) -> MutexGuard<'_, String> {
        self.forwarded.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
