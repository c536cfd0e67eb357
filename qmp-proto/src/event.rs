// SPDX-License-Identifier: MIT OR Apache-2.0
//! What servers send without a request.

use std::borrow::Cow;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{Json, Layout};

/// The wall-clock time at which an event occurred: the seconds since 1970 (UTC), and the
/// microseconds within that second.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Timestamp {
    /// Seconds since 1970; -1 if the server could not tell the time.
    pub seconds: i64,
    /// Microseconds within the second; -1 if the server could not tell the time.
    pub microseconds: i64,
}

impl Timestamp {
    /// The timestamp of a server that could not tell the time.
    pub const UNKNOWN: Timestamp = Timestamp { seconds: -1, microseconds: -1 };

    /// Converts the time since 1970; fractions of a microsecond are cut off.
    pub fn from_unix(since_1970: Duration) -> Timestamp {
        Timestamp {
            seconds: i64::try_from(since_1970.as_secs()).unwrap_or(i64::MAX),
            microseconds: since_1970.subsec_micros().into(),
        }
    }
}

/// Something that happened; sent to every client that has completed negotiation.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Event {
    /// The name, in capitals by convention.
    pub name: Cow<'static, str>,
    /// The data; absent if the event has none.
    pub data: Option<Json>,
    /// When it happened.
    pub timestamp: Timestamp,
}

impl Event {
    /// Creates an event with these members.
    pub fn new(
        name: impl Into<Cow<'static, str>>,
        data: Option<Json>,
        timestamp: Timestamp,
    ) -> Event {
        Event { name: name.into(), data, timestamp }
    }

    /// Appends the event as QEMU writes it, ended by CR LF.
    pub fn write(&self, layout: Layout, out: &mut String) {
        let from = out.len();
        out.push_str("{\"timestamp\": {\"seconds\": ");
        Json::write_integer(self.timestamp.seconds, out);
        out.push_str(", \"microseconds\": ");
        Json::write_integer(self.timestamp.microseconds, out);
        out.push_str("}, \"event\": ");
        Json::write_string(&self.name, out);
        if let Some(data) = &self.data {
            out.push_str(", \"data\": ");
            out.push_str(data.as_str());
        }
        out.push('}');
        layout.finish(out, from);
    }
}
