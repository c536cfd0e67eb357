// SPDX-License-Identifier: MIT OR Apache-2.0
//! What clients of another program's mux were waiting for, until they ask for it again.

use std::collections::{BTreeMap, HashMap};
use std::mem::take;
use std::sync::Arc;

use qmp_dispatch::proto::{Error, Json};

use super::request::{After, MuxClient, UnsentRequest};

/// What a mux has taken over, until the clients' requests have come again.
#[derive(Default)]
pub(super) struct Returned {
    /// By their marks. Those are odd, and those of requests that were sent are twice their numbers.
    pub(super) unsent: BTreeMap<u64, UnsentRequest>,
    pub(super) marked: u64,
    /// Answers that have come first.
    pub(super) answers: BTreeMap<u64, (After, Result<Json, Error>)>,
    pub(super) clients: HashMap<u64, Arc<MuxClient>>,
}

/// What a mark stands for.
pub(super) enum Again {
    Unsent(UnsentRequest),
    /// It was sent under this number.
    Sent(u64),
    /// The connection has been lost since.
    Unknown(Error),
}

impl Returned {
    /// Drops what a client has that has left.
    pub(super) fn drop_those_of(&mut self, client: &Arc<MuxClient>) -> impl Sized + use<> {
        let is_its =
            |of: &Option<Arc<MuxClient>>| of.as_ref().is_some_and(|of| Arc::ptr_eq(of, client));
        let (unsent, kept): (BTreeMap<_, _>, BTreeMap<_, _>) =
            take(&mut self.unsent).into_iter().partition(|(_, one)| is_its(&one.client));
        self.unsent = kept;
        let (answers, kept): (BTreeMap<_, _>, BTreeMap<_, _>) =
            take(&mut self.answers).into_iter().partition(|(_, (after, _))| is_its(&after.client));
        self.answers = kept;
        (unsent, answers)
    }
}
