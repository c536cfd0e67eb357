// SPDX-License-Identifier: MIT OR Apache-2.0
//! Monitors and their requests as data, for another program that goes on with the connections.
//!
//! Only what is plain can be handed over: requests that have not been executed, and those that were
//! [forwarded](crate::Forwarder) and are not answered. A handler that has begun belongs to its program.

use std::time::Duration;

use qmp_proto::{
    Band, Bands, Error, ErrorClass, Limits, Reader, Request, RequestError, SyntaxErrorKind, Value,
};
use serde::{Deserialize, Serialize};

use crate::monitor::{Greeted, Pending};
use crate::reply::Deadline;

/// A [`Monitor`](crate::Monitor) as data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct MonitorState {
    /// Its number, which it keeps.
    pub id: u64,
    /// Whether it has enabled out-of-band execution; `None` before negotiation is complete.
    pub oob: Option<bool>,
    pub(crate) greeted: Greeted,
}

/// A request as data: one that has not been executed, or that was forwarded and is not answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RequestState {
    what: What,
    pub(crate) deadline: Option<Deadline>,
    pub(crate) mark: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum What {
    Request {
        line: String,
        band: Band,
    },
    /// The error that is answered in its turn. The id is text.
    Refused {
        class: ErrorClass,
        desc: String,
        id: Option<String>,
        band: Band,
        unreadable: bool,
    },
}

/// What a request that was handed over has besides its message.
#[derive(Debug)]
pub(crate) struct Resumed {
    pub(crate) deadline: Option<Deadline>,
    pub(crate) mark: Option<u64>,
}

/// The message has been read within limits already, and may be longer as it is written now.
const NO_LIMITS: Limits =
    Limits { token_bytes: usize::MAX / 2, tokens: usize::MAX / 2, nesting: 1024 };

impl RequestState {
    pub(crate) fn of(request: &Request, text: Option<&qmp_proto::Json>) -> RequestState {
        let mut line = String::new();
        match text {
            Some(text) => request.write_with_text(Some(text), &mut line),
            None => request.write(&mut line),
        }
        let what = What::Request { line, band: request.band };
        RequestState { what, deadline: None, mark: None }
    }

    pub(crate) fn of_refused(refused: &RequestError) -> RequestState {
        let RequestError { error, id, band, unreadable, .. } = refused;
        let what = What::Refused {
            class: error.class,
            desc: error.desc.to_string(),
            id: id.as_ref().map(Value::to_string),
            band: *band,
            unreadable: *unreadable,
        };
        RequestState { what, deadline: None, mark: None }
    }

    /// Whether the request was to be executed in-band or out-of-band.
    pub fn band(&self) -> Band {
        match &self.what {
            What::Request { band, .. } | What::Refused { band, .. } => *band,
        }
    }

    /// Notes a number for the [forwarder](crate::Forwarded::mark).
    #[must_use]
    pub fn marked(self, mark: u64) -> RequestState {
        RequestState { mark: Some(mark), ..self }
    }

    /// The request as it was received, with the text of its arguments.
    pub(crate) fn into_parts(
        self,
        with_text: bool,
    ) -> (Result<Request, RequestError>, Option<qmp_proto::Json>, Resumed) {
        let RequestState { what, deadline, mark } = self;
        let resumed = Resumed { deadline, mark };
        let line = match what {
            What::Request { line, .. } => line,
            What::Refused { class, desc, id, band, unreadable } => {
                let mut refused = RequestError::from(unreadable_id());
                refused.error = Error::new(class, desc);
                refused.id = id.and_then(|id| id.parse().ok());
                (refused.band, refused.unreadable) = (band, unreadable);
                return (Err(refused), None, resumed);
            }
        };
        let mut reader = Reader::new(qmp_proto::Dialect::default(), NO_LIMITS);
        let parsed = match reader.read(&mut line.as_bytes()) {
            Some(Ok(message)) if with_text => Request::parse_with_text(&message, Bands::Both),
            Some(Ok(message)) => {
                Request::parse(&message, Bands::Both).map(|request| (request, None))
            }
            Some(Err(error)) => Err(error.into()),
            None => Err(unreadable_id().into()),
        };
        match parsed {
            Ok((request, text)) => (Ok(request), text, resumed),
            Err(refused) => (Err(refused), None, resumed),
        }
    }
}

/// An error of a message that nothing is known of.
fn unreadable_id() -> qmp_proto::SyntaxError {
    qmp_proto::SyntaxError {
        kind: SyntaxErrorKind::ExpectingValue,
        dialect: qmp_proto::Dialect::default(),
        location: None,
    }
}

impl Pending {
    /// Returns the request as data, with which [`Monitor::receive_again`](crate::Monitor::receive_again) makes it again.
    pub fn state(&self) -> RequestState {
        let mut state = match self.request() {
            Ok(request) => RequestState::of(request, self.text()),
            Err(refused) => RequestState::of_refused(refused),
        };
        if let Some(Resumed { deadline, mark }) = self.resumed() {
            (state.deadline, state.mark) = (*deadline, *mark);
        }
        state
    }
}

impl Deadline {
    pub(crate) fn new(after: Duration) -> Deadline {
        Deadline { after, left: after }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use qmp_proto::Json;

    use super::*;
    use crate::{Context, Forwarded, LocalClient, Monitor, Registry, Responder};

    type Held = Arc<Mutex<Vec<(Option<u64>, Option<Json>, Responder<Json>)>>>;

    fn forwarding() -> (Registry, Held) {
        let held = Held::default();
        let keep = Arc::clone(&held);
        let forward = move |_: &Context, request: Forwarded, responder: Responder<Json>| {
            keep.lock().unwrap().push((request.mark, request.text, responder));
        };
        (Registry::forwarding(forward), held)
    }

    fn receive(monitor: &Monitor, text: &str) -> Pending {
        monitor.receive(Reader::default().read(&mut text.as_bytes()).unwrap())
    }

    /// Through the form in which it goes.
    fn as_text(state: &RequestState) -> RequestState {
        serde_json::from_str(&serde_json::to_string(state).unwrap()).unwrap()
    }

    #[test]
    fn a_request_that_waits_is_the_same_afterwards() {
        let client = LocalClient::new(forwarding().0);
        let monitor = client.monitor();
        for text in [
            r#"{"execute": "stop", "arguments": {"b": 1, "a": [1e300, "\u00e9"]}, "id": {"x": null}}"#,
            r#"{"exec-oob": "yank"}"#,
            "{'execute': 1, 'id': 7}",
            "[1 2]",
        ] {
            let pending = receive(monitor, text);
            let again = monitor.receive_again(as_text(&pending.state()));
            assert_eq!(again.request(), pending.request(), "{text}");
            assert_eq!(again.text(), pending.text());
            assert_eq!(again.band(), pending.band());
        }
    }

    #[test]
    fn a_request_that_was_forwarded_is_answered_by_another_program() {
        let (mut registry, held) = forwarding();
        registry.set_default_deadline(Duration::from_secs(10));
        let client = LocalClient::new(registry);
        let monitor = client.monitor();
        monitor.execute(receive(monitor, "{'execute': 'stop', 'id': 'x'}"), || ());
        let (mark, _, responder) = held.lock().unwrap().pop().unwrap();
        assert_eq!(mark, None);
        let state = as_text(&responder.state(Band::InBand).unwrap().marked(7));
        responder.abandon();

        let (registry, held) = forwarding();
        let other = LocalClient::new(registry);
        let monitor = other.monitor();
        monitor.execute(monitor.receive_again(state), || ());
        let (mark, text, responder) = held.lock().unwrap().pop().unwrap();
        assert_eq!((mark, text), (Some(7), None));
        assert!(monitor.dispatcher().timeout().is_some(), "its deadline goes on");
        responder.respond_json(Ok(Json::from(&Value::Null)));
        assert_eq!(other.ask(""), [r#"{"return": null, "id": "x"}"#]);
    }

    #[test]
    fn a_monitor_goes_on_without_a_greeting() {
        let (client, other) =
            (LocalClient::new(Registry::new()), LocalClient::new(Registry::new()));
        let state = client.monitor().state();
        assert_eq!((state.id, state.oob), (1, Some(true)));
        struct Silent;
        impl crate::Output for Silent {
            fn transmit(&self, text: &str) {
                panic!("it is sent {text}");
            }
        }
        let output = Arc::new(Silent);
        let dispatcher = other.monitor().dispatcher();
        let layout = qmp_proto::Layout::default();
        let state = MonitorState { id: 7, ..state };
        let again = dispatcher.reconnect(output, layout, crate::Locals::default(), &state);
        assert_eq!(again.state(), state);
        assert_eq!(u64::from(LocalClient::connect(dispatcher).monitor().id()), 8);
    }
}
