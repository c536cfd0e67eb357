// SPDX-License-Identifier: MIT OR Apache-2.0
//! What an engine hosts, as data for another program.

use std::any::Any;
use std::io;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::hosted::Hosted;
use crate::session::{CameBy, SessionState, SharedTexts};
use crate::transport::Packing;

/// What is collected of a paused engine.
pub(crate) struct Freezing {
    pub(crate) packing: Packing,
    pub(crate) shared: SharedTexts,
    pub(crate) servers: Vec<FrozenServer>,
    /// What wings have added.
    pub(crate) links: Vec<Box<dyn Any + Send>>,
    /// Who cannot be handed over, and why if that is not the transport.
    pub(crate) left_behind: Vec<String>,
}

pub(crate) struct FrozenServer {
    pub(crate) hosted: Arc<Hosted>,
    pub(crate) state: ServerState,
}

/// A server as data.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct ServerState {
    pub(crate) listeners: Vec<ListenerState>,
    /// What connections were opened as that there will be only once.
    pub(crate) opened: Vec<String>,
    /// Clients that were not greeted yet.
    pub(crate) arrivals: Vec<ArrivalState>,
    pub(crate) sessions: Vec<SessionState>,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct ListenerState {
    pub(crate) opened_as: Option<String>,
    pub(crate) socket: u32,
    pub(crate) file: Option<(u64, u64)>,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct ArrivalState {
    pub(crate) socket: u32,
    pub(crate) given: bool,
    pub(crate) came: CameBy,
}

impl Freezing {
    pub(crate) fn server(&mut self, hosted: &Arc<Hosted>) -> io::Result<&mut ServerState> {
        let server = self.servers.iter_mut().find(|server| Arc::ptr_eq(&server.hosted, hosted));
        server.map(|server| &mut server.state).ok_or_else(|| io::Error::other("a server has ended"))
    }
}
