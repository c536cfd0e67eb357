// SPDX-License-Identifier: MIT OR Apache-2.0
//! The state of one connection, as its client sees it.
//!
//! ```text
//!              greeting                 response to negotiation
//!   Greeting ────────────▶ Negotiation ─────────────────────────▶ Ready
//!       │                       │                                   │
//!       └───────────────────────┴────── an error ─────▶ Failed ◀────┘
//! ```

use serde::{Deserialize, Serialize};

use super::foreign::{Foreign, Item, Preamble};
use super::pending::{Ids, Pending};
use super::size::{self, RequestTooLarge};
use crate::{
    Band, Capability, Dialect, Error, Event, Greeting, Json, Limits, Reader, ReaderState,
    RequestText, Response, ServerMessage, ServerMessageError, Value,
};

/// One connection to a server, from its greeting on; see the [module](super) for an example.
///
/// `T` is a value of the caller's that is kept with each request until its response arrives.
#[derive(Debug)]
pub struct Session<T = ()> {
    state: State,
    reader: Reader,
    limits: Limits,
    /// Before the greeting, those the caller wants; after it, those of them that are offered.
    capabilities: Vec<Capability>,
    ids: Ids,
    pending: Pending<T>,
    unsent: String,
}

#[derive(Debug)]
enum State {
    Greeting(Preamble),
    Negotiation,
    Ready,
    Failed,
}

/// How far a [`Session`] has come: what a server that is silent still owes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Stage {
    /// The greeting has not arrived.
    Greeting,
    /// The response to the negotiation has not arrived.
    Negotiation,
    /// Commands can be executed.
    Ready,
    /// An error has ended the session.
    Failed,
}

/// What a server has sent.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Received<T = ()> {
    /// The greeting. The negotiation is ready to be [transmitted](Session::transmit).
    Greeting(Greeting),
    /// The server has accepted the negotiation and executes commands.
    Ready,
    /// The response to a request. Responses arrive in any order if some requests are out-of-band.
    Response {
        /// What was kept with the request.
        request: T,
        /// What the command returned, or what went wrong.
        result: Result<Json, Error>,
    },
    /// An event. Before [`Ready`](Received::Ready), it may have been meant for an earlier client.
    Event(Event),
    /// An error without an id: the server could not read a request, and does not say which. It may have been
    /// meant for an earlier client.
    ErrorWithoutId(Error),
    /// A response to none of the pending requests: QEMU may send what it owes an earlier client.
    Unmatched(Response),
}

/// Why a [`Session`] cannot go on.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum SessionError {
    /// It is not a QMP server.
    #[error(transparent)]
    Foreign(#[from] Foreign),
    /// A message is not one that a server may send.
    #[error("invalid message from the server: {0}")]
    Invalid(#[from] ServerMessageError),
    /// The server has sent a second greeting.
    #[error("the server has greeted twice")]
    SecondGreeting,
    /// The server has refused the negotiation.
    #[error("the server has refused the negotiation: {0}")]
    NegotiationRefused(Error),
}

/// A [`Session`] at the stage [`Ready`](Stage::Ready) as data, for another program that goes on with the connection.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SessionState<T> {
    reader: ReaderState,
    capabilities: Vec<Capability>,
    pending: Pending<T>,
    unsent: String,
}

impl<T: Clone> Session<T> {
    /// Returns the state of the session, with which another one [goes on](Session::resume); `None` at any other stage
    /// than [`Ready`](Stage::Ready).
    pub fn state(&self) -> Option<SessionState<T>> {
        let is_ready = matches!(self.state, State::Ready);
        is_ready.then(|| SessionState {
            reader: self.reader.state(),
            capabilities: self.capabilities.clone(),
            pending: self.pending.clone(),
            unsent: self.unsent.clone(),
        })
    }
}

impl<T> Session<T> {
    /// Creates a session that goes on where another one was, with the default limits. Returns `None` if the state is not one
    /// that a session can have.
    ///
    /// ```
    /// use qmp_proto::client::{Ids, Received, Session};
    /// use qmp_proto::Band;
    ///
    /// let mut session = Session::new(Ids::random(1), vec![]);
    /// let _ = session.read(&mut &br#"{"QMP": {"version": {}, "capabilities": []}}"#[..]);
    /// let _ = session.read(&mut &br#"{"return": {}, "id": 1}"#[..]);
    /// session.request("stop", None, Band::InBand, "ours")?;
    /// let state = session.state().expect("it is ready");
    /// let mut session = Session::resume(state).expect("it is sound");
    /// let received = session.read(&mut &br#"{"return": {}, "id": 4294967297}"#[..]);
    /// assert!(matches!(received, Some(Ok(Received::Response { request: "ours", .. }))));
    /// # Ok::<(), qmp_proto::client::RequestTooLarge<&str>>(())
    /// ```
    pub fn resume(state: SessionState<T>) -> Option<Session<T>> {
        let SessionState { reader, capabilities, pending, unsent } = state;
        let limits = Limits::default();
        Some(Session {
            state: State::Ready,
            reader: Reader::resume(reader, limits)?,
            limits,
            capabilities,
            ids: pending.ids(),
            pending: Some(pending).filter(Pending::is_sound)?,
            unsent,
        })
    }

    /// Creates the session of a connection that has just been made. Of `capabilities`, those are
    /// enabled that the server offers.
    pub fn new(ids: Ids, capabilities: Vec<Capability>) -> Session<T> {
        Session::with_limits(ids, capabilities, Limits::default())
    }

    /// Like [`new`](Session::new), with limits on what the server may send in one message. Before the
    /// greeting it may send [`Limits::token_bytes`] in all.
    pub fn with_limits(ids: Ids, capabilities: Vec<Capability>, limits: Limits) -> Session<T> {
        Session {
            state: State::Greeting(Preamble::default()),
            // What a server sends is looked at when it is complete, whatever dialect the server speaks.
            reader: Reader::new(Dialect::Qemu10_0, limits),
            limits,
            capabilities,
            ids,
            pending: Pending::new(ids),
            unsent: String::new(),
        }
    }

    /// Takes bytes that have been received from the front of `input`, up to the end of a message.
    ///
    /// `None` means that `input` is used up; call again when more has arrived. After `Some`, call
    /// again with what is left of `input`, and then [`transmit`](Session::transmit).
    ///
    /// # Errors
    ///
    /// [`SessionError`] ends the session: from then on, input is discarded.
    #[must_use = "it is something that the server has sent"]
    pub fn read(&mut self, input: &mut &[u8]) -> Option<Result<Received<T>, SessionError>> {
        let received = match self.state {
            State::Greeting(_) => self.read_before_greeting(input),
            State::Negotiation | State::Ready => self.read_message(input),
            State::Failed => {
                *input = &[];
                None
            }
        };
        if let Some(Err(_)) = received {
            self.state = State::Failed;
        }
        received
    }

    fn read_message(&mut self, input: &mut &[u8]) -> Option<Result<Received<T>, SessionError>> {
        let message = self.reader.read(input)?.map_err(ServerMessageError::from);
        let message = message.and_then(|message| ServerMessage::parse(&message));
        Some(message.map_err(SessionError::from).and_then(|message| self.received(message)))
    }

    /// Skips the rest of a response for an earlier client.
    fn read_before_greeting(
        &mut self,
        input: &mut &[u8],
    ) -> Option<Result<Received<T>, SessionError>> {
        let State::Greeting(preamble) = &mut self.state else { return None };
        // A piece ends with its line, so that an item never belongs to an earlier line.
        let mut piece: &[u8] = &[];
        while !input.is_empty() {
            if piece.is_empty() {
                piece = first_piece(input);
            }
            let before = piece;
            let mut nested = false;
            let message = self.reader.read(&mut piece);
            let taken;
            (taken, *input) = input.split_at(before.len() - piece.len());
            // The reader takes the blanks after an item along, and with them the end of its line.
            let (inside, after) = taken.split_at(taken.trim_ascii_end().len());
            preamble.look(inside);
            let message = message.map(|message| {
                let message = message.map_err(ServerMessageError::from)?;
                nested = matches!(message.as_bytes(), [b'{' | b'[', ..]);
                ServerMessage::parse(&message)
            });
            match &message {
                None => {}
                Some(Ok(_)) => preamble.add(Item::Message),
                Some(Err(ServerMessageError::NotAnObject | ServerMessageError::UnknownKind))
                    if nested =>
                {
                    preamble.add(Item::Value);
                }
                Some(Err(ServerMessageError::Syntax(_) | ServerMessageError::NotAnObject)) => {
                    preamble.add(Item::Garbage);
                }
                Some(Err(invalid)) => return Some(Err(invalid.clone().into())),
            }
            preamble.look(after);
            if let Some(foreign) = preamble.verdict(self.limits.token_bytes) {
                return Some(Err(foreign.into()));
            }
            if let Some(Ok(message)) = message {
                return Some(self.received(message));
            }
        }
        None
    }

    fn received(&mut self, message: ServerMessage) -> Result<Received<T>, SessionError> {
        let Response { id, result } = match message {
            ServerMessage::Greeting(greeting) => return self.greeted(greeting),
            ServerMessage::Event(event) => return Ok(Received::Event(event)),
            ServerMessage::Response(response) => response,
        };
        let number = id.as_ref().and_then(Value::as_u64);
        if matches!(self.state, State::Negotiation) && number == Some(self.ids.negotiation) {
            result.map_err(SessionError::NegotiationRefused)?;
            self.state = State::Ready;
            return Ok(Received::Ready);
        }
        if let Some(request) = number.and_then(|number| self.pending.take(number)) {
            return Ok(Received::Response { request, result });
        }
        Ok(match (id, result) {
            (None, Err(error)) => Received::ErrorWithoutId(error),
            (id, result) => Received::Unmatched(Response { id, result }),
        })
    }

    fn greeted(&mut self, greeting: Greeting) -> Result<Received<T>, SessionError> {
        if !matches!(self.state, State::Greeting(_)) {
            return Err(SessionError::SecondGreeting);
        }
        self.state = State::Negotiation;
        self.capabilities.retain(|wanted| greeting.capabilities.contains(wanted));
        let arguments = enable(&self.capabilities);
        let request = RequestText {
            command: "qmp_capabilities",
            arguments: arguments.as_ref(),
            id: self.ids.negotiation,
            band: Band::InBand,
        };
        request.write(&mut self.unsent);
        Ok(Received::Greeting(greeting))
    }

    /// Adds a request to what is to be [transmitted](Session::transmit). `arguments` is an object.
    ///
    /// A server executes commands after [`Received::Ready`]; those that it reads before the
    /// negotiation it refuses. It takes out-of-band requests if it [has that
    /// capability](Session::has_enabled).
    ///
    /// # Errors
    ///
    /// [`RequestTooLarge`] has the request back if it is beyond QEMU's limits, which are
    /// [`Limits::default`].
    pub fn request(
        &mut self,
        command: &str,
        arguments: Option<&Json>,
        band: Band,
        request: T,
    ) -> Result<(), RequestTooLarge<T>> {
        let from = self.unsent.len();
        let id = self.pending.next_id();
        RequestText { command, arguments, id, band }.write(&mut self.unsent);
        if let Err(limit) = size::check(&self.unsent[from..], &Limits::default()) {
            self.unsent.truncate(from);
            return Err(RequestTooLarge { request, limit });
        }
        self.pending.insert(band, request);
        Ok(())
    }

    /// Takes the text that is to be sent to the server; `None` if there is none. Call it after
    /// [`read`](Session::read) and [`request`](Session::request).
    #[must_use = "the server must be sent this"]
    pub fn transmit(&mut self) -> Option<String> {
        (!self.unsent.is_empty()).then(|| std::mem::take(&mut self.unsent))
    }

    /// Returns how far the session has come.
    pub fn stage(&self) -> Stage {
        match self.state {
            State::Greeting(_) => Stage::Greeting,
            State::Negotiation => Stage::Negotiation,
            State::Ready => Stage::Ready,
            State::Failed => Stage::Failed,
        }
    }

    /// Returns what the server seems to speak, if what it has sent of a line is not QMP: a better reason than
    /// silence when there is no greeting.
    pub fn suspect(&self) -> Option<Foreign> {
        match &self.state {
            State::Greeting(preamble) => preamble.suspect(),
            _ => None,
        }
    }

    /// Returns `true` if the server has enabled this capability.
    pub fn has_enabled(&self, capability: &Capability) -> bool {
        matches!(self.state, State::Ready) && self.capabilities.contains(capability)
    }

    /// Returns how many bytes are kept of a message that is not complete.
    pub fn kept(&self) -> usize {
        self.reader.kept()
    }

    /// Returns what is kept with the requests that have no response yet, in no particular order.
    pub fn pending(&self) -> impl Iterator<Item = &T> {
        self.pending.iter()
    }

    /// Returns how many requests of this kind have no response yet.
    pub fn pending_count(&self, band: Band) -> usize {
        self.pending.count(band)
    }

    /// Takes what is kept with the requests that have no response yet: after the end of the connection.
    pub fn take_pending(&mut self) -> Vec<T> {
        self.pending.take_all()
    }
}

/// Returns the input up to the end of its first line, or a part of that: a line can have many messages, and
/// after each of them the end is searched for again.
fn first_piece(input: &[u8]) -> &[u8] {
    let piece = &input[..input.len().min(1024)];
    let end = piece.iter().position(|&byte| byte == b'\n');
    &piece[..end.map_or(piece.len(), |end| end + 1)]
}

/// The arguments of `qmp_capabilities`.
fn enable(capabilities: &[Capability]) -> Option<Json> {
    let names = capabilities.iter().map(|capability| Value::from(capability.name())).collect();
    let arguments = crate::Object::from_iter([("enable", Value::Array(names))]);
    (!capabilities.is_empty()).then(|| Json::from(&arguments))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Protocol;

    const GREETING: &str = r#"{"QMP": {"version": {}, "capabilities": ["oob", "x"]}}"#;

    fn session() -> Session<&'static str> {
        Session::new(Ids::nth_connection(3, 5), vec![Capability::OOB, "y".into()])
    }

    /// What a session makes of `text`, in short.
    fn read(session: &mut Session<&'static str>, text: impl AsRef<[u8]>) -> Vec<String> {
        let mut input = text.as_ref();
        let mut seen = Vec::new();
        while let Some(received) = session.read(&mut input) {
            seen.push(match received {
                Ok(Received::Greeting(greeting)) => format!("greeting {}", greeting.version),
                Ok(Received::Ready) => "ready".to_owned(),
                Ok(Received::Response { request, result: Ok(json) }) => format!("{request} {json}"),
                Ok(Received::Response { request, result: Err(error) }) => {
                    format!("{request} {error}")
                }
                Ok(Received::Event(event)) => format!("event {}", event.name),
                Ok(Received::ErrorWithoutId(error)) => format!("error {error}"),
                Ok(Received::Unmatched(response)) => format!("unmatched {:?}", response.id),
                Err(error) => format!("failed: {error}"),
            });
        }
        seen
    }

    fn ready() -> Session<&'static str> {
        let mut session = session();
        let text = format!("{GREETING}{{'return': {{}}, 'id': 4294967301}}");
        assert_eq!(read(&mut session, text), ["greeting unknown version", "ready"]);
        assert!(session.transmit().is_some());
        session
    }

    #[track_caller]
    fn check_foreign(text: &[u8], protocol: Protocol, excerpt: &str) {
        let foreign = Foreign { protocol, excerpt: excerpt.to_owned() };
        let expected = [format!("failed: {foreign}")];
        assert_eq!(read(&mut session(), text), expected);
        let mut session = session();
        let bytewise = text.iter().flat_map(|byte| read(&mut session, [*byte]));
        assert_eq!(bytewise.collect::<Vec<_>>(), expected, "byte by byte");
        assert_eq!(session.stage(), Stage::Failed);
    }

    #[test]
    fn capabilities_are_those_wanted_and_offered() {
        let mut session = session();
        assert_eq!(session.transmit(), None);
        read(&mut session, GREETING);
        let negotiation =
            r#"{"execute":"qmp_capabilities","arguments":{"enable": ["oob"]},"id":4294967301}"#;
        assert_eq!(session.transmit(), Some(format!("{negotiation}\n")));
        assert!(!session.has_enabled(&Capability::OOB), "not yet");
        assert_eq!(read(&mut session, "{'return': {}, 'id': 4294967301}"), ["ready"]);
        let enabled =
            [Capability::OOB, "x".into(), "y".into()].map(|name| session.has_enabled(&name));
        assert_eq!(enabled, [true, false, false]);

        let mut session: Session = Session::new(Ids::random(1), vec![]);
        assert!(session.read(&mut GREETING.as_bytes()).is_some());
        let negotiation = "{\"execute\":\"qmp_capabilities\",\"id\":1}\n";
        assert_eq!(session.transmit().as_deref(), Some(negotiation));
    }

    #[test]
    fn events_around_greeting_and_negotiation_are_not_lost() {
        let mut session = session();
        let event = |name| format!("{{'event': '{name}'}}\r\n");
        let text = [&event("A"), GREETING, "\r\n", &event("B")].concat();
        assert_eq!(read(&mut session, text), ["event A", "greeting unknown version", "event B"]);
        assert_eq!(session.stage(), Stage::Negotiation);
        let text = [&event("C"), "{'return': {}, 'id': 4294967301}\r\n", &event("D")].concat();
        assert_eq!(read(&mut session, text), ["event C", "ready", "event D"]);
    }

    #[test]
    fn what_was_left_for_the_client_before_is_no_answer() {
        let mut session = session();
        let rest = "efault\", \"on\": null, \"text\": \"it's (qemu) 1.}\"}], \"id\": 3}\r\n";
        let response = "{'return': {}, 'id': 4294967301}\r\n";
        let text = [rest, response, "{'error': {'class': 'x', 'desc': 'd'}}", GREETING].concat();
        let (unmatched, greeting) =
            ("unmatched Some(Number(Number(Signed(4294967301))))", "greeting unknown version");
        assert_eq!(read(&mut session, text), [unmatched, "error GenericError: d", greeting]);
        let text = "{'return': {}} {'return': {}, 'id': 3} {'error': {'class': '', 'desc': 'd'}}";
        let unmatched = ["unmatched None", "unmatched Some(Number(Number(Signed(3))))"];
        assert_eq!(read(&mut session, text), [unmatched[0], unmatched[1], "error GenericError: d"]);
        assert_eq!(session.stage(), Stage::Negotiation);
    }

    #[test]
    fn the_rest_of_a_response_may_begin_anywhere() {
        for response in [
            r#"{"return": [{"a": {}, "b": [1, 2.5e3, "x"]}, {"c": "{}\" [it's [\\", "d'[": true}], "id": "x"}"#,
            "{\r\n    \"return\": [\r\n        {\r\n            \"a\": null,\r\n            \"b\": -1\r\n        }\r\n    ]\r\n}",
        ] {
            for from in 1..response.len() {
                let text = [&response[from..], "\r\n", GREETING, "\r\n"].concat();
                let seen = read(&mut session(), &text);
                assert_eq!(
                    seen.last().map(String::as_str),
                    Some("greeting unknown version"),
                    "{text}"
                );
            }
        }
    }

    #[test]
    fn a_server_of_another_protocol_is_named() {
        let human = b"QEMU 10.0.2 monitor - type 'help' for more information\r\n(qemu) ";
        let excerpt = r"QEMU 10.0.2 monitor - type \'help\' for more information";
        check_foreign(human, Protocol::HumanMonitor, excerpt);
        let telnet = [b"\xFF\xFB\x01\xFF\xFB\x03", &human[..]].concat();
        let excerpt =
            r"\xff\xfb\x01\xff\xfb\x03QEMU 10.0.2 monitor - type \'help\' for more information";
        check_foreign(&telnet, Protocol::HumanMonitor, excerpt);
        check_foreign(b"\xFF\xFD\x18 login:\n", Protocol::Telnet, r"\xff\xfd\x18 login:");
        let http = b"HTTP/1.1 400 Bad Request\r\nServer: x\r\n\r\n";
        check_foreign(http, Protocol::Http, "HTTP/1.1 400 Bad Request");
        check_foreign(b"SSH-2.0-OpenSSH_9.2\r\n", Protocol::Ssh, "SSH-2.0-OpenSSH_9.2");
        check_foreign(b"RFB 003.008\n", Protocol::Vnc, "RFB 003.008");
        check_foreign(b"{}\r\n", Protocol::Json, "{}");
        check_foreign(b"\n{\"a\":\n 1\n}\n", Protocol::Json, "}");
        check_foreign(b"[1, 2]\n", Protocol::Json, "[1, 2]");
        check_foreign(
            b"220 mail.example.org ESMTP\r\n",
            Protocol::Unknown,
            "220 mail.example.org ESMTP",
        );
        check_foreign(b"welcome\n", Protocol::Unknown, "welcome");
    }

    #[test]
    fn other_protocols_are_found_behind_the_rest_of_a_response() {
        check_foreign(b"1}\r\nHTTP/1.1 408 x\r\n", Protocol::Http, "HTTP/1.1 408 x");
    }

    #[test]
    fn what_is_not_yet_a_line_is_suspect() {
        for (text, protocol) in [
            (&b"(qemu) "[..], Some(Protocol::HumanMonitor)),
            (b"\x15\x03\x01\x00\x02\x02\x28", Some(Protocol::Tls)),
            (b"{}", Some(Protocol::Json)),
            (b"login: ", Some(Protocol::Unknown)),
            (b"{\"QMP\": ", None),
            (b" \r\n", None),
            (b"{'event': 'A'}", None),
        ] {
            let mut session = session();
            read(&mut session, text);
            assert_eq!(session.suspect().map(|foreign| foreign.protocol), protocol, "{text:?}");
        }
    }

    #[test]
    fn what_comes_before_a_greeting_is_bounded() {
        let limits = Limits { token_bytes: 1000, ..Limits::default() };
        for text in ["{'event': 'A'}\r\n", "\"id\": 1}\r\n", ",", " \n"] {
            let mut session: Session = Session::with_limits(Ids::random(1), vec![], limits);
            let sent = std::iter::repeat_n(text, 1001).find(|text| {
                let mut input = text.as_bytes();
                std::iter::from_fn(|| session.read(&mut input)).any(|received| received.is_err())
            });
            assert!(sent.is_some(), "{text}");
        }
    }

    #[test]
    fn invalid_messages_and_a_second_greeting_end_a_session() {
        let invalid = "failed: invalid message from the server: ";
        let cases = [
            (GREETING, "failed: the server has greeted twice".to_owned()),
            ("[1]", format!("{invalid}a message of a server must be a JSON object")),
            (
                "{'event': 1}",
                format!("{invalid}member 'event': invalid type: integer `1`, expected a string"),
            ),
            ("@", format!("{invalid}JSON parse error, stray '@'")),
        ];
        for (text, expected) in cases {
            let mut session = ready();
            assert_eq!(read(&mut session, [text, "{'event': 'A'}"].concat()), [expected]);
            assert_eq!(session.stage(), Stage::Failed);
        }
        let refused = read(&mut session(), "{'QMP': {'version': {}}}");
        assert_eq!(refused, [format!("{invalid}member 'QMP': missing field `capabilities`")]);
    }

    #[test]
    fn a_refused_negotiation_ends_a_session() {
        let mut session = session();
        read(&mut session, GREETING);
        let text = "{'error': {'class': 'GenericError', 'desc': 'd'}, 'id': 4294967301}";
        let expected = "failed: the server has refused the negotiation: GenericError: d";
        assert_eq!(read(&mut session, text), [expected]);
    }

    #[test]
    fn responses_find_their_requests_in_any_order() {
        let mut session = ready();
        let stop = Json::from(&crate::Object::from_iter([("x", "é")]));
        session.request("stop", Some(&stop), Band::InBand, "stop").unwrap();
        session.request("yank", None, Band::OutOfBand, "yank").unwrap();
        let text = "{\"execute\":\"stop\",\"arguments\":{\"x\": \"\\u00E9\"},\"id\":3}\n\
                    {\"exec-oob\":\"yank\",\"id\":13}\n";
        assert_eq!(session.transmit().as_deref(), Some(text));
        assert_eq!([Band::InBand, Band::OutOfBand].map(|band| session.pending_count(band)), [1, 1]);
        let text = "{'return': [], 'id': 13} {'return': 1, 'id': 13} {'return': {'a':1}, 'id': 3}";
        let seen = read(&mut session, text);
        assert_eq!(
            seen,
            ["yank []", "unmatched Some(Number(Number(Signed(13))))", "stop {\"a\": 1}"]
        );
        session.request("cont", None, Band::InBand, "cont").unwrap();
        assert_eq!(session.pending().collect::<Vec<_>>(), [&"cont"]);
        assert_eq!(session.take_pending(), ["cont"]);
        assert_eq!(read(&mut session, "{'return': {}, 'id': 23}").len(), 1);
    }

    #[test]
    fn a_request_beyond_the_limits_of_a_server_is_not_sent() {
        let mut session = ready();
        session.request("a", None, Band::InBand, "a").unwrap();
        let list = Value::Array(vec![0.into(); (1 << 20) - 1]);
        let arguments = Json::from(&crate::Object::from_iter([("x", list)]));
        let refused = session.request("b", Some(&arguments), Band::InBand, "b");
        let RequestTooLarge { request, limit } = refused.unwrap_err();
        assert_eq!((request, limit.kind), ("b", crate::SyntaxErrorKind::TokenCountLimit));
        assert_eq!(session.transmit().as_deref(), Some("{\"execute\":\"a\",\"id\":3}\n"));
        assert_eq!(session.pending_count(Band::InBand), 1);
    }
}
