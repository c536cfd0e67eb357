// SPDX-License-Identifier: MIT OR Apache-2.0
//! What operators see of a server.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Core;
use crate::figures::Refusal;
use crate::status::milliseconds;
use crate::{ClientStatus, ServerStatus, version};

/// Figures that go up and down.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Momentary {
    pub(crate) clients: usize,
    pub(crate) suspended: usize,
    pub(crate) queued: usize,
    pub(crate) executing: usize,
    pub(crate) kept_bytes: usize,
}

impl Core {
    /// What is so at the moment.
    pub(crate) fn momentary(&self) -> Momentary {
        Momentary {
            clients: self.sessions().len(),
            suspended: self.queue.stats().filter(|producer| producer.suspended).count(),
            queued: self.queue.len(),
            executing: self.executing.load(Ordering::Relaxed),
            kept_bytes: self.usage.bytes(),
        }
    }

    pub(crate) fn status(&self) -> ServerStatus {
        let (now, figures, stats) = (self.momentary(), self.figures(), self.dispatcher.stats());
        ServerStatus {
            version: version().to_string(),
            uptime_ms: milliseconds(figures.now()),
            clients: now.clients as u64,
            suspended: now.suspended as u64,
            queued: now.queued as u64,
            executing: now.executing as u64,
            greeted: figures.greeted.get(),
            refused: Refusal::ALL.into_iter().map(|why| figures.refused(why).get()).sum(),
            in_band: figures.in_band.get(),
            out_of_band: figures.out_of_band.get(),
            failed: stats.failed(),
            deadlines_passed: stats.deadlines_passed,
            late_answers: stats.late_answers,
            events: stats.events,
            events_held_back: stats.events_held_back,
            events_sent: figures.events_sent.get(),
            events_dropped: figures.events_dropped.get(),
        }
    }

    /// The status of each client, in the order in which they have come.
    pub(crate) fn clients(&self) -> Vec<ClientStatus> {
        let sessions: Vec<_> = self.sessions().values().map(Arc::clone).collect();
        let mut clients: Vec<_> = sessions
            .iter()
            .map(|session| {
                let listening = session.listener.and_then(|index| self.listening.get(index));
                let listener = listening.map(|listening| listening.listener.address().to_string());
                ClientStatus { listener, ..session.status() }
            })
            .collect();
        clients.sort_unstable_by_key(|client| client.monitor);
        clients
    }
}
