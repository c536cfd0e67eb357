// SPDX-License-Identifier: MIT OR Apache-2.0
//! The last command of a monitor, for operators.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::{Command, Registry};

const NONE: usize = usize::MAX;
const FORWARDED: usize = usize::MAX - 1;

/// In characters. Longer names are cut.
const LONGEST_NAME: usize = 256;

/// The name of the last command. That of a registered command is stored without a lock or a copy.
pub(crate) struct LastCommand {
    /// The index of the command in the registry, or one of the constants.
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

    /// The name is chosen by the client and kept while it is connected, so its length is limited.
    pub(crate) fn set_forwarded(&self, name: &str) {
        let end = name.char_indices().nth(LONGEST_NAME).map_or(name.len(), |(end, _)| end);
        name[..end].clone_into(&mut self.forwarded());
        self.index.store(FORWARDED, Ordering::Relaxed);
    }

    pub(crate) fn name(&self, registry: &Registry) -> Option<String> {
        match self.index.load(Ordering::Relaxed) {
            NONE => None,
            FORWARDED => Some(self.forwarded().clone()),
            index => registry.name_at(index).map(str::to_owned),
        }
    }

    fn forwarded(&self) -> MutexGuard<'_, String> {
        self.forwarded.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
