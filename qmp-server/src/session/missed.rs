// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a client is told that has not read for so long that it was not sent all events.

use qmp_dispatch::EventType;
use qmp_dispatch::proto::{Event, Json, Layout};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Tells a client, when it reads again, how many events it was not sent because it did not read.
/// What it gets before this is older than the missing events, and what it gets afterwards newer.
///
/// Every [`Server`](crate::Server) sends it, also if it is not declared; declare it in the registry
/// to have introspection show it. (The reference machine does not: its schema is QEMU's.) QEMU has no such event, for it keeps all of them, without bound;
/// the name is that of a downstream extension, which clients ignore that do not know it.
pub const EVENTS_MISSED: EventType<EventsMissed> = EventType::new("__org.qmp-server_EVENTS_MISSED");

/// The data of [`EVENTS_MISSED`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub struct EventsMissed {
    /// How many events were not sent.
    pub count: u64,
}

/// The text of the event.
pub(crate) fn notice(count: u64, layout: Layout) -> String {
    let data = Json::encode(&EventsMissed { count }).ok();
    let event = Event::new(EVENTS_MISSED.name().clone(), data, crate::io::system_time().wall);
    let mut text = String::new();
    event.write(layout, &mut text);
    text
}
