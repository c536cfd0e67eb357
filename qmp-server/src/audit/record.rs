// SPDX-License-Identifier: MIT OR Apache-2.0
//! One line.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use qmp_dispatch::Monitor;
use qmp_dispatch::proto::{Band, Error, Json, Request, RequestError, Value};
use serde::Serialize;

use super::secrets::{Redacted, Secrets, without_quotation};
use crate::Peer;
use crate::access::{DoorRole, GivenRole};
use crate::observe::Refusal;

/// Names and descriptions have no reason to be longer.
const LONGEST_TEXT: usize = 1024;

/// The role of those of whom nothing is said.
const NO_ROLES: &str = "admin";

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Record<'a> {
    time: String,
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    machine: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    monitor: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    peer: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    oob: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    command: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    arguments: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    class: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    desc: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    duration_us: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    count: Option<u64>,
}

impl<'a> Record<'a> {
    pub(super) fn new(kind: &'static str) -> Record<'a> {
        Record {
            time: now(),
            kind,
            machine: None,
            monitor: None,
            peer: None,
            role: None,
            oob: None,
            id: None,
            command: None,
            arguments: None,
            outcome: None,
            reason: None,
            class: None,
            desc: None,
            duration_us: None,
            count: None,
        }
    }

    /// Something that has happened at this machine.
    pub(super) fn at(self, machine: Option<&'a str>) -> Record<'a> {
        Record { machine, ..self }
    }

    /// Somebody has not become a client.
    pub(super) fn connection_refused(peer: Option<&Peer>, why: Refusal, desc: &str) -> Record<'a> {
        Record {
            peer: peer.map(name_of),
            reason: Some(why.name()),
            desc: Some(cut(desc).into_owned()),
            ..Record::new("connection-refused")
        }
    }

    /// Something that a client has done.
    pub(super) fn of(kind: &'static str, monitor: &'a Monitor) -> Record<'a> {
        Record {
            monitor: Some(monitor.id().into()),
            peer: monitor.local::<Peer>().map(name_of),
            role: Some(role_of(monitor).as_ref().to_owned()),
            ..Record::new(kind)
        }
    }

    /// So many lines are missing here.
    pub(super) fn lost(count: u64) -> Record<'a> {
        Record { count: Some(count), ..Record::new("lost") }
    }

    /// A request and its outcome; `None` if there will be none.
    pub(super) fn request(
        &mut self,
        request: &Request,
        outcome: Option<&Result<Json, Error>>,
        secrets: &Secrets,
    ) {
        let redacted = secrets.redact(request);
        match outcome {
            None => self.outcome = Some("none"),
            Some(Ok(_)) => self.outcome = Some("ok"),
            Some(Err(error)) => self.error(error, &redacted.described(secrets, &error.desc)),
        }
        let Redacted { command, arguments, id, .. } = redacted;
        self.oob = (request.band == Band::OutOfBand).then_some(true);
        self.id = id;
        self.command = Some(command.into_owned());
        self.arguments = Some(arguments);
    }

    pub(super) fn duration(&mut self, duration: Duration) {
        self.duration_us = Some(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX));
    }

    pub(super) fn refused(&mut self, refused: &RequestError, secrets: &Secrets) {
        self.oob = (refused.band == Band::OutOfBand).then_some(true);
        self.id = refused.id.as_ref().map(|id| secrets.id(id));
        let RequestError { error, unreadable, .. } = refused;
        let desc = match unreadable {
            true => without_quotation(&error.desc),
            false => secrets.refused(&error.desc),
        };
        self.error(error, &desc);
    }

    fn error(&mut self, error: &Error, desc: &str) {
        self.outcome = Some("error");
        self.class = Some(error.class.name());
        self.desc = Some(cut(desc).into_owned());
    }

    pub(super) fn to_line(&self) -> String {
        // Made of text and values.
        let json = Json::encode(self).unwrap_or(Json::EMPTY_OBJECT);
        format!("{json}\n")
    }
}

/// A client whose listener names a role that does not exist is not served, whatever its role is.
fn role_of(monitor: &Monitor) -> Arc<str> {
    let named = || monitor.local().map(|DoorRole(role)| Arc::clone(role));
    let given = monitor.local().and_then(GivenRole::name);
    given.or_else(named).unwrap_or_else(|| NO_ROLES.into())
}

/// RFC 3339, in UTC, with microseconds.
fn now() -> String {
    humantime::format_rfc3339_micros(SystemTime::now()).to_string()
}

/// Of a peer with many names, the first ones.
fn name_of(peer: &Peer) -> String {
    cut(&peer.to_string()).into_owned()
}

fn cut(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(LONGEST_TEXT) {
        None => text.into(),
        Some((end, _)) => format!("{}...", &text[..end]).into(),
    }
}

#[cfg(test)]
mod tests {
    use qmp_dispatch::proto::Object;

    use super::*;

    #[test]
    fn times_are_utc_with_microseconds() {
        let time = now();
        let shape: String =
            time.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
        assert_eq!(shape, "0000-00-00T00:00:00.000000Z");
    }

    #[test]
    fn texts_without_end_are_cut() {
        let long = "é".repeat(5000);
        assert_eq!(cut(&long).chars().count(), LONGEST_TEXT + 3);
        assert_eq!(cut("short"), "short");
    }

    #[test]
    fn lines_are_bounded() {
        let texts = ["a", "\u{1}", "é", "\u{1F600}", "\"", "pw=a,b=c,", "[1,2,'", "token "];
        let values = texts.map(|text| Value::from(text.repeat(100)));
        let more = [Value::Null, 1.into(), Value::Array(Vec::new()), Value::Object(Object::new())];
        for value in values.into_iter().chain(more) {
            for count in [10, 100, 1000, 2000, 4000, 8000] {
                let array = Value::Array(vec![value.clone(); count]);
                let mut request = Request::new("x");
                request.arguments = Object::from_iter([("a", array.clone())]);
                request.id = Some(array.clone());
                let outcome = Err(Error::generic(array.to_string()));
                let mut record = Record::new("command");
                record.request(&request, Some(&outcome), &Secrets::default());
                let length = record.to_line().len();
                assert!(length < 64 << 10, "{count} of {value}: {length}");
            }
        }
    }

    #[test]
    fn who_is_not_let_in_is_named_if_known() {
        let peer = Peer::Address("192.0.2.1:4711".to_owned());
        let line = Record::connection_refused(Some(&peer), Refusal::Handshake, "why").to_line();
        let end = r#""peer": "192.0.2.1:4711", "reason": "handshake", "desc": "why"}"#;
        assert!(line.ends_with(&format!("\"kind\": \"connection-refused\", {end}\n")), "{line}");
        let line = Record::connection_refused(None, Refusal::Limit, "why").to_line();
        assert!(!line.contains("peer"), "{line}");
    }

    #[test]
    fn what_is_not_known_is_left_out() {
        let line = Record::lost(7).to_line();
        assert!(line.starts_with(r#"{"time": ""#), "{line}");
        assert!(line.ends_with("\", \"kind\": \"lost\", \"count\": 7}\n"), "{line}");
    }
}
