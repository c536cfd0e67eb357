// SPDX-License-Identifier: MIT OR Apache-2.0
//! What operators can know of the upstream server.

use super::upstream::{Connection, Upstream};
use crate::metrics::Exposition;

impl Upstream {
    pub(super) fn tell(&self, exposition: &mut Exposition) {
        let state = self.state();
        let connected = matches!(state.connection, Connection::Present { .. });
        let in_flight = state.table.iter().count();
        drop(state);
        exposition.gauge(
            "upstream_connected",
            "Whether there is a connection to the upstream server.",
            u8::from(connected),
        );
        exposition.counter(
            "upstream_reconnects",
            "How often there was a connection again.",
            self.connections.get().saturating_sub(1),
        );
        exposition.gauge(
            "upstream_executing_requests",
            "Requests that were sent to the upstream server and are not answered yet.",
            in_flight,
        );
        exposition.gauge(
            "upstream_queued_requests",
            "Requests that wait for being sent there.",
            self.line().len(),
        );
    }
}
