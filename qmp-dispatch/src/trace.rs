// SPDX-License-Identifier: MIT OR Apache-2.0
//! Trace points, by the names of QEMU's `monitor/trace-events`: what happens to every message.
//!
//! What they say is put into words only if somebody listens.

use std::fmt;
use std::time::Duration;

use qmp_proto::{Band, Event, Json, Request, RequestError, Value};
use tracing::field;

use crate::MonitorId;

/// Its name is its message, too: what writes logs shows no other.
macro_rules! trace_point {
    ($name:literal, $($field:tt)+) => {
        tracing::event!(name: $name, tracing::Level::TRACE, $($field)+, $name)
    };
}

/// A message has come that can be read.
pub(crate) fn handle_qmp_command(monitor: MonitorId, text: &[u8]) {
    trace_point!("handle_qmp_command", %monitor,
        request = %OneLine(&String::from_utf8_lossy(text)));
}

/// A request is about to be executed.
pub(crate) fn command(monitor: MonitorId, request: &Request) {
    let Request { command, id, band, .. } = request;
    let (id, command) = (id.as_ref(), Some(command.as_str()));
    match band {
        Band::InBand => in_band(monitor, id, command),
        Band::OutOfBand => out_of_band(monitor, id, command),
    }
}

/// What is no request is about to be answered.
pub(crate) fn refused(monitor: MonitorId, refused: &RequestError) {
    let RequestError { error, id, band, unreadable, .. } = refused;
    match band {
        Band::InBand if *unreadable => trace_point!("monitor_qmp_err_in_band", %monitor,
            desc = &*error.desc),
        Band::InBand => in_band(monitor, id.as_ref(), None),
        Band::OutOfBand => out_of_band(monitor, id.as_ref(), None),
    }
}

fn in_band(monitor: MonitorId, id: Option<&Value>, command: Option<&str>) {
    trace_point!("monitor_qmp_cmd_in_band", %monitor,
        id = id.map(field::display),
        command);
}

fn out_of_band(monitor: MonitorId, id: Option<&Value>, command: Option<&str>) {
    trace_point!("monitor_qmp_cmd_out_of_band", %monitor,
        id = id.map(field::display),
        command);
}

/// A message goes to a client: a greeting, a response or an event, as in QEMU.
pub(crate) fn monitor_qmp_respond(monitor: MonitorId, text: &str) {
    trace_point!("monitor_qmp_respond", %monitor,
        response = %OneLine(text));
}

/// An event has been emitted; its rate limit is still to be looked at. `rate` is in nanoseconds.
pub(crate) fn monitor_protocol_event_queue(event: &Event, interval: Duration) {
    trace_point!("monitor_protocol_event_queue", event = %event.name,
        data = event.data.as_ref().map(Json::as_str),
        rate = u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX));
}

/// An event goes to the clients.
pub(crate) fn monitor_protocol_event_emit(event: &Event) {
    trace_point!("monitor_protocol_event_emit", event = %event.name,
        data = event.data.as_ref().map(Json::as_str));
}

/// The time is over in which events similar to one that was sent were held back; `held` is the last
/// of them.
pub(crate) fn monitor_protocol_event_handler(event: &str, held: Option<&Event>) {
    trace_point!(
        "monitor_protocol_event_handler",
        event,
        data = held.and_then(|held| held.data.as_ref()).map(Json::as_str)
    );
}

/// A message as one line, whatever its layout.
struct OneLine<'t>(&'t str);

impl fmt::Display for OneLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines = self.0.split(char::is_control).map(|line| line.trim_matches(' '));
        let mut lines = lines.filter(|line| !line.is_empty());
        f.write_str(lines.next().unwrap_or_default())?;
        lines.try_for_each(|line| write!(f, " {line}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_one_line_whatever_its_layout() {
        let message = "{\r\n    \"return\": {\r\n    }\r\n}\r\n";
        assert_eq!(OneLine(message).to_string(), r#"{ "return": { } }"#);
    }
}
