// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which commands are known to be quick.

use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use qmp_dispatch::Registry;

/// A run that takes longer is not quick. What waits for one such run, waits no longer than a write takes.
const QUICK: Duration = Duration::from_micros(50);

/// So many quick runs in a row make a command quick.
const ENOUGH: u8 = 8;

/// Counters for commands that are registered later.
const SPARE: usize = 64;

/// For each command of a server, how many of its last runs were quick, up to [`ENOUGH`]. Commands that are registered later
/// share the counters: a slow run of one of them is then a slow run of both.
pub(super) struct QuickRuns(Box<[AtomicU8]>);

/// Which one of them.
#[derive(Clone, Copy)]
pub(super) struct CommandSlot(usize);

impl QuickRuns {
    /// Those of all commands of a registry, and of what is none of them taken together: what is forwarded, or no
    /// command at all.
    pub(super) fn new(registry: &Registry) -> QuickRuns {
        QuickRuns((0..=registry.command_slots() + SPARE).map(|_| AtomicU8::new(0)).collect())
    }

    pub(super) fn slot_of(&self, registry: &Registry, command: Option<&str>) -> CommandSlot {
        let command = command.and_then(|name| registry.find_command(name));
        let others = self.0.len() - 1;
        CommandSlot(command.map_or(others, |command| command.index() % others))
    }

    pub(super) fn is_quick(&self, slot: CommandSlot) -> bool {
        self.of(slot).is_some_and(|runs| runs.load(Ordering::Relaxed) >= ENOUGH)
    }

    /// Notes how long a run took, until it was answered.
    pub(super) fn took(&self, slot: CommandSlot, took: Duration) {
        let Some(runs) = self.of(slot) else { return };
        let before = runs.load(Ordering::Relaxed);
        runs.store(if took < QUICK { ENOUGH.min(before + 1) } else { 0 }, Ordering::Relaxed);
    }

    fn of(&self, CommandSlot(index): CommandSlot) -> Option<&AtomicU8> {
        self.0.get(index)
    }
}
