// SPDX-License-Identifier: MIT OR Apache-2.0
//! Servers: their queues and their dispatchers' time.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io;
use std::sync::Arc;
use std::time::Instant;

use super::{ListenerSlot, Loop, Source, Timer};
use crate::access::Origin;
use crate::engine::hosted::Hosted;
use crate::engine::listening::Listening;
use crate::engine::timers::Key;
use crate::engine::work::Work;
use crate::io::{Notice, Token};
use crate::transport::Transport;

/// A server, as the loop sees it.
pub(super) struct Tenant {
    pub(super) hosted: Arc<Hosted>,
    pub(super) stage: ServerStage,
    pub(super) listeners: Vec<Token>,
    /// By their deadlines, so that the oldest comes first.
    pub(super) arrivals: BTreeMap<Key, Token>,
    /// Connections that wait until the doors are opened. Only the embedder gives such.
    pub(super) early: Vec<(Box<dyn Transport>, Origin)>,
    /// Users whose groups are being looked up for arrivals, each once, however many arrivals wait for that.
    pub(super) looking_up: HashSet<u32>,
    /// Clients that are let in and no sessions yet.
    pub(super) connecting: usize,
    pub(super) sessions: BTreeSet<Token>,
    /// Sessions that are closed, and whose remains were not dropped yet.
    pub(super) leaving: usize,
    /// Whether it is in `Loop::ready`.
    pub(super) is_ready: bool,
    /// The dispatcher's timeout.
    pub(super) timeout: Option<Key>,
    /// When the log has told that clients cannot be accepted.
    pub(super) told_of_accept: Option<Instant>,
}

/// How far a server has come with its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ServerStage {
    Running,
    /// What is executed is answered, for a while.
    Answering,
    /// What waits is answered with an error.
    Refusing,
    /// Clients are sent what is left for them, for a while.
    Flushing,
}

impl Tenant {
    pub(super) fn is_running(&self) -> bool {
        self.stage == ServerStage::Running
    }
}

impl Loop {
    /// Takes a server in. An error undoes it.
    pub(super) fn host(
        &mut self,
        hosted: Arc<Hosted>,
        listeners: Vec<Listening>,
    ) -> io::Result<()> {
        let tenant = Tenant {
            hosted: Arc::clone(&hosted),
            stage: ServerStage::Running,
            listeners: Vec::new(),
            arrivals: BTreeMap::new(),
            early: Vec::new(),
            looking_up: HashSet::new(),
            connecting: 0,
            sessions: BTreeSet::new(),
            leaving: 0,
            is_ready: false,
            timeout: None,
            told_of_accept: None,
        };
        let server = self.sources.insert(Source::Server(Box::new(tenant)));
        self.tenants += 1;
        hosted.registration.set_token(server);
        let registration = Arc::clone(&hosted.registration);
        let is_first =
            hosted.dispatcher.set_timeout_hook(move || registration.post(Notice::Timeout));
        if !is_first {
            tracing::warn!("another server keeps the time of this dispatcher");
        }
        for listening in listeners {
            if let Err(error) = self.add_listener(server, listening) {
                self.remove_server(server);
                return Err(error);
            }
        }
        self.set_timeout(server);
        // Asked for before the loop could be told.
        if hosted.is_stopping() {
            self.mailbox.post(server, Notice::Stop);
        }
        Ok(())
    }

    fn add_listener(&mut self, server: Token, listening: Listening) -> io::Result<()> {
        let token = self.sources.insert(Source::Listener(ListenerSlot {
            listening,
            server,
            later: false,
            to_open: false,
            in_line: false,
        }));
        if let Some(Source::Server(tenant)) = self.sources.get_mut(server) {
            tenant.listeners.push(token);
        }
        self.move_door(token)
    }

    pub(super) fn remove_server(&mut self, server: Token) {
        let Some(Source::Server(tenant)) = self.sources.get_mut(server) else { return };
        for listener in std::mem::take(&mut tenant.listeners) {
            self.end_listener(listener);
        }
        let Some(Source::Server(tenant)) = self.sources.remove(server) else { return };
        if let Some(timeout) = tenant.timeout {
            self.timers.cancel(timeout);
        }
        self.tenants -= 1;
        let on_end = tenant.hosted.set_ended();
        // The dispatcher may end with it, and with that what handlers hold.
        self.work.push_back(Work::Drop(Box::new((tenant.hosted, on_end))));
    }

    /// The dispatcher's next timeout may be another one.
    pub(super) fn set_timeout(&mut self, server: Token) {
        let Some(Source::Server(tenant)) = self.sources.get_mut(server) else { return };
        if let Some(timeout) = tenant.timeout.take() {
            self.timers.cancel(timeout);
        }
        if let Some(at) = tenant.hosted.next_timeout() {
            tenant.timeout = Some(self.timers.set(at, Timer::Dispatcher(server)));
        }
    }

    pub(super) fn handle_timeout(&mut self, token: Token) {
        let Some(Source::Server(tenant)) = self.sources.get_mut(token) else { return };
        tenant.timeout = None;
        let server = Arc::clone(&tenant.hosted);
        self.work.push_back(Work::HandleTimeout { server, token });
    }
}
