// SPDX-License-Identifier: MIT OR Apache-2.0
//! A session as data and descriptors, for another program that goes on with it.
//!
//! Requests that have been read are received again there, before everything that comes next: so they are charged, queued
//! and executed as they would have been.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

use qmp_dispatch::proto::{Layout, Limits, Reader, ReaderState};
use qmp_dispatch::{MonitorState, Pending, RequestState};
use serde::{Deserialize, Serialize};

use super::outbox::OutboxState;
use super::{Descriptor, Descriptors, MODE_WITH_OOB, Phase, Session, SharedTexts, charged};
use crate::DeadlineProfile;
use crate::access::{DoorRole, Origin};
use crate::transport::{Luggage, Packing, Peer, Transport, invalid};

/// See the module.
#[derive(Serialize, Deserialize)]
pub(crate) struct SessionState {
    pub(crate) socket: u32,
    /// Whether the connection was given to the program that had it first.
    pub(crate) given: bool,
    pub(crate) came: CameBy,
    pub(crate) monitor: MonitorState,
    /// Requests that were read and are not answered: each is to be answered in this order, but out-of-band ones.
    pub(crate) requests: Vec<RequestState>,
    pub(crate) outbox: OutboxState,
    reader: ReaderState,
    #[serde(with = "qmp_dispatch::proto::bytes_as_text")]
    unread: Vec<u8>,
    /// Descriptors that came with the last byte of `unread`, and those that wait for a command.
    came_last: Vec<u32>,
    waiting: Vec<u32>,
    draining: bool,
}

/// Where a client has come in.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct CameBy {
    /// The address that the listener was opened as.
    pub(crate) listener: Option<String>,
    pub(crate) pretty: bool,
    pub(crate) role: Option<String>,
    pub(crate) notices: bool,
    #[serde(default)]
    pub(crate) deadlines: Option<DeadlineProfile>,
}

impl CameBy {
    pub(crate) fn of(listener: Option<String>, origin: &Origin) -> CameBy {
        CameBy {
            listener,
            pretty: origin.layout == Layout::Pretty,
            role: origin.role.as_ref().map(|DoorRole(role)| role.as_ref().to_owned()),
            notices: origin.notices,
            deadlines: origin.deadlines,
        }
    }

    pub(crate) fn layout(&self) -> Layout {
        if self.pretty { Layout::Pretty } else { Layout::Compact }
    }

    /// The origin, if there is no such listener any more.
    pub(crate) fn into_origin(self) -> Origin {
        let role = self.role.as_deref().map(|role| DoorRole(role.into()));
        let (notices, deadlines) = (self.notices, self.deadlines);
        Origin { role, notices, deadlines, ..Origin::new(self.layout()) }
    }
}

impl Session {
    pub(crate) fn transport(&self) -> &dyn Transport {
        &*self.transport
    }

    /// The session as it is. `requests` are those of its requests that are queued.
    pub(crate) fn state(
        &self,
        packing: &mut Packing,
        listener: Option<String>,
        mut requests: Vec<RequestState>,
        shared: &mut SharedTexts,
    ) -> io::Result<SessionState> {
        let client = &self.client;
        let mut add = |descriptor: &Descriptor| packing.add(descriptor.as_fd());
        let came_last = self.input.descriptors.iter().map(&mut add).collect::<io::Result<_>>()?;
        let waiting = client.monitor.local::<Descriptors>();
        let waiting = waiting.map(|all| all.look_at_waiting(&mut add)).transpose()?;
        requests.extend(self.parked.iter().map(|parked| parked.pending.state()));
        requests.extend(self.resumed.iter().map(Pending::state));
        Ok(SessionState {
            socket: packing.add(self.transport.as_fd())?,
            given: matches!(client.monitor.local(), Some(Peer::Starter)),
            came: CameBy::of(listener, &client.origin),
            monitor: client.monitor.state(),
            requests,
            outbox: client.outbox.state(shared),
            reader: self.input.reader.state(),
            unread: self.input.unread[self.input.at..].to_vec(),
            came_last,
            waiting: waiting.unwrap_or_default(),
            draining: self.state == Phase::Draining,
        })
    }

    /// Puts a session that has just been made into this state. Its outbox is in its own already.
    ///
    /// # Errors
    ///
    /// If the state is not one that a session can have, or descriptors are missing.
    pub(crate) fn resume(
        &mut self,
        state: SessionState,
        luggage: &mut Luggage,
        limits: Limits,
    ) -> io::Result<()> {
        let ledger = Arc::clone(&self.client.ledger);
        let mut take = |numbers: Vec<u32>| -> io::Result<Vec<Descriptor>> {
            let descriptors = numbers.into_iter().map(|number| luggage.take(number));
            Ok(charged(descriptors.collect::<io::Result<_>>()?, &ledger))
        };
        self.input.descriptors = take(state.came_last)?;
        if let Some(descriptors) = self.client.monitor.local::<Descriptors>() {
            descriptors.arrive(take(state.waiting)?);
        }
        self.input.reader = Reader::resume(state.reader, limits)
            .ok_or_else(|| invalid("a message that is not complete is beyond the limits"))?;
        self.input.of_message = self.input.reader.kept();
        self.input.unread = state.unread;
        self.kept.set_bytes(self.input.kept());
        if self.client.monitor.is_oob_enabled() {
            // Nothing is suspended yet that could be resumed by this.
            let _ = self.client.producer.set_mode(MODE_WITH_OOB);
        }
        let again = |request| self.client.monitor.receive_again(request);
        self.resumed = state.requests.into_iter().map(again).collect();
        self.may_be_suspended = false;
        match (state.draining, self.client.monitor.is_negotiated()) {
            (true, _) => {
                self.state = Phase::Draining;
                self.client.outbox.finish();
            }
            (false, true) => self.state = Phase::Commands,
            (false, false) => {}
        }
        Ok(())
    }
}
