// SPDX-License-Identifier: MIT OR Apache-2.0
//! The client's side of a connection to QEMU's guest agent, without the connection.

use serde::{Deserialize, Serialize};

use crate::server_message::{ServerMessage, ServerMessageError};
use crate::{Dialect, Error, Json, Limits, Reader, ReaderState, Response, Value};

/// The byte that makes an agent forget what it has read, and after which the answer to `guest-sync-delimited` comes. It
/// stands in no JSON text.
const DELIMITER: u8 = 0xFF;

/// Commands that are answered only if they fail: those with `success-response: false` in QEMU's `qga/qapi-schema.json`.
const WITHOUT_RESPONSE: [&str; 4] =
    ["guest-shutdown", "guest-suspend-disk", "guest-suspend-ram", "guest-suspend-hybrid"];

/// The client's side of a connection to QEMU's guest agent (`qemu-ga`), which speaks QMP without greeting, negotiation,
/// events or out-of-band execution.
///
/// The channel outlives its clients and the agent: what comes first may be the rest of an answer to somebody else, and
/// what is sent first may come after half a request of somebody else. Requests have no ids, as agents of old do not take
/// any. So a session begins by synchronising
/// (`guest-sync-delimited`), and drops whatever comes before the answer to that. One command is executed at a time. An agent
/// that does not answer cannot be asked to stop: [`resynchronise`](AgentSession::resynchronise) drops its answer when it
/// comes after all.
///
/// ```
/// use qmp_proto::client::{AgentReceived, AgentSession};
///
/// let mut session = AgentSession::new(7);
/// let text = session.transmit().unwrap();
/// assert_eq!(text, b"\xFF{\"execute\":\"guest-sync-delimited\",\"arguments\":{\"id\": 7}}\n");
///
/// // The rest of an answer to somebody else, and then ours.
/// let mut input: &[u8] = b": {}}\n\xFF{\"return\": 7}\n";
/// assert!(matches!(session.read(&mut input), Some(Ok(AgentReceived::Synchronised))));
///
/// assert!(session.request("guest-ping", None));
/// assert_eq!(session.transmit().unwrap(), b"{\"execute\":\"guest-ping\"}\n");
/// let mut input: &[u8] = b"{\"return\": {}}\n";
/// let Some(Ok(AgentReceived::Response(Ok(json)))) = session.read(&mut input) else { panic!() };
/// assert_eq!(json.as_str(), "{}");
/// ```
#[derive(Debug)]
pub struct AgentSession {
    state: State,
    reader: Reader,
    limits: Limits,
    /// That of the last synchronisation, below 2^32.
    id: u64,
    unsent: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum State {
    /// All is dropped up to the next delimiter.
    Skipping,
    /// After a delimiter: the answer to the synchronisation comes, or that to an earlier one.
    Synchronising,
    Idle,
    Executing,
    /// A command is executed that is answered only if it fails. The answer to the synchronisation that was sent behind it
    /// tells that it has not failed.
    ExecutingSilently,
    /// After a delimiter, and no answer before it.
    Confirming,
}

/// An [`AgentSession`] as data, for another program that goes on with the connection.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AgentSessionState {
    state: State,
    reader: ReaderState,
    id: u64,
    #[serde(with = "crate::bytes_as_text")]
    unsent: Vec<u8>,
}

/// What an agent has sent.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum AgentReceived {
    /// From now on, what comes is for this session.
    Synchronised,
    /// The answer to the command.
    Response(Result<Json, Error>),
    /// The command has been executed that is [not answered](AgentSession::request) unless it fails.
    Executed,
}

/// What an agent sends is not an answer to this session. [Resynchronise](AgentSession::resynchronise) to go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AgentError {
    /// It is not a message.
    #[error("the guest agent sends invalid data: {0}")]
    Invalid(ServerMessageError),
    /// It is a message, but not an answer to what was asked.
    #[error("the guest agent answers what it was not asked")]
    Unexpected,
}

impl AgentSession {
    /// Creates a session that synchronises. `random` is a number that nobody else can be expected to use.
    pub fn new(random: u32) -> AgentSession {
        AgentSession::with_limits(random, Limits::default())
    }

    /// Like [`new`](AgentSession::new), with limits on what the agent may send in one message: it is a guest's program.
    pub fn with_limits(random: u32, limits: Limits) -> AgentSession {
        let reader = Reader::new(Dialect::Qemu10_0, limits);
        let (id, unsent) = (u64::from(random), Vec::new());
        let mut session = AgentSession { state: State::Skipping, reader, limits, id, unsent };
        session.synchronise();
        session
    }

    /// Returns the state of the session, with which another one [goes on](AgentSession::resume).
    pub fn state(&self) -> AgentSessionState {
        AgentSessionState {
            state: self.state,
            reader: self.reader.state(),
            id: self.id,
            unsent: self.unsent.clone(),
        }
    }

    /// Creates a session that goes on where another one was. Returns `None` if the state is not one that a session with these
    /// limits can have.
    ///
    /// ```
    /// use qmp_proto::Limits;
    /// use qmp_proto::client::{AgentReceived, AgentSession};
    ///
    /// let mut session = AgentSession::new(7);
    /// assert!(session.read(&mut &b"\xFF{\"retu"[..]).is_none());
    /// let mut session = AgentSession::resume(session.state(), Limits::default()).unwrap();
    /// let received = session.read(&mut &b"rn\": 7}\n"[..]);
    /// assert!(matches!(received, Some(Ok(AgentReceived::Synchronised))));
    /// ```
    pub fn resume(state: AgentSessionState, limits: Limits) -> Option<AgentSession> {
        let AgentSessionState { state, reader, id, unsent } = state;
        let reader = Reader::resume(reader, limits)?;
        Some(AgentSession { state, reader, limits, id: id & u64::from(u32::MAX), unsent })
    }

    /// Gives up the command that is being executed, if there is one: its answer is dropped when it comes. Other commands wait
    /// until the session has [synchronised](AgentReceived::Synchronised) again.
    pub fn resynchronise(&mut self) {
        self.next_id();
        self.synchronise();
    }

    fn synchronise(&mut self) {
        self.state = State::Skipping;
        // Ends half a request of somebody else.
        self.unsent.push(DELIMITER);
        self.write_synchronisation();
    }

    fn next_id(&mut self) {
        self.id = (self.id + 1) & u64::from(u32::MAX);
    }

    fn write_synchronisation(&mut self) {
        let arguments = crate::Object::from_iter([("id", Value::from(self.id))]);
        self.write("guest-sync-delimited", Some(&Json::from(&arguments)));
    }

    /// Adds a command to what is to be [transmitted](AgentSession::transmit). `arguments` is an object. Returns `false`, and
    /// does nothing, if the session has not synchronised yet or executes a command.
    ///
    /// A few commands (`guest-shutdown`, `guest-suspend-*`) are answered only if they fail. A synchronisation is sent behind
    /// them: [`AgentReceived::Executed`] comes when the agent has answered that alone.
    ///
    /// ```
    /// use qmp_proto::client::{AgentReceived, AgentSession};
    ///
    /// let mut session = AgentSession::new(7);
    /// assert!(session.read(&mut &b"\xFF{\"return\": 7}\n"[..]).is_some());
    /// assert!(session.request("guest-suspend-ram", None));
    /// let received = session.read(&mut &b"\xFF{\"return\": 8}\n"[..]);
    /// assert!(matches!(received, Some(Ok(AgentReceived::Executed))));
    /// ```
    #[must_use = "the command may not have been taken"]
    pub fn request(&mut self, command: &str, arguments: Option<&Json>) -> bool {
        if self.state != State::Idle {
            return false;
        }
        self.write(command, arguments);
        self.state = State::Executing;
        if WITHOUT_RESPONSE.contains(&command) {
            // The agent would answer a delimiter with an error, which could be taken for that of the command.
            self.next_id();
            self.write_synchronisation();
            self.state = State::ExecutingSilently;
        }
        true
    }

    /// Takes the bytes that are to be sent to the agent; `None` if there are none.
    #[must_use = "the agent must be sent this"]
    pub fn transmit(&mut self) -> Option<Vec<u8>> {
        (!self.unsent.is_empty()).then(|| std::mem::take(&mut self.unsent))
    }

    /// Whether a command can be [requested](AgentSession::request).
    pub fn is_idle(&self) -> bool {
        self.state == State::Idle
    }

    /// Whether the session waits for the answer to its synchronisation.
    pub fn is_synchronising(&self) -> bool {
        matches!(self.state, State::Skipping | State::Synchronising)
    }

    /// Bytes that are kept of a message that is not complete.
    pub fn kept(&self) -> usize {
        self.reader.kept()
    }

    /// Takes bytes that have been received from the front of `input`, up to the end of a message. `None` means that `input` is
    /// used up.
    ///
    /// # Errors
    ///
    /// [`AgentError`] if what comes after synchronisation is not an answer to a command.
    #[must_use = "it is something that the agent has sent"]
    pub fn read(&mut self, input: &mut &[u8]) -> Option<Result<AgentReceived, AgentError>> {
        if self.state == State::ExecutingSilently && self.reader.is_idle() {
            *input = input.trim_ascii_start();
            if let Some((&DELIMITER, rest)) = input.split_first() {
                *input = rest;
                self.delimited(State::Confirming);
            }
        }
        if self.is_synchronising() || self.state == State::Confirming {
            if !self.synchronises(input) {
                return None;
            }
            let before = std::mem::replace(&mut self.state, State::Idle);
            return Some(Ok(match before {
                State::Confirming => AgentReceived::Executed,
                _ => AgentReceived::Synchronised,
            }));
        }
        let message = self.reader.read(input)?.map_err(ServerMessageError::from);
        let message = message.and_then(|message| ServerMessage::parse(&message));
        Some(match message {
            Ok(ServerMessage::Response(Response { id: None, result }))
                if self.state == State::Executing =>
            {
                self.state = State::Idle;
                Ok(AgentReceived::Response(result))
            }
            Ok(ServerMessage::Response(Response { id: None, result }))
                if self.state == State::ExecutingSilently =>
            {
                // The answer to the synchronisation is on its way.
                self.state = State::Skipping;
                Ok(AgentReceived::Response(result))
            }
            Ok(_) => Err(AgentError::Unexpected),
            Err(invalid) => Err(AgentError::Invalid(invalid)),
        })
    }

    /// Takes what comes before the answer to the synchronisation, and this, from the front of `input`. Returns whether it was
    /// there.
    fn synchronises(&mut self, input: &mut &[u8]) -> bool {
        loop {
            let delimiter = input.iter().position(|&byte| byte == DELIMITER);
            let mut piece = &input[..delimiter.unwrap_or(input.len())];
            // Behind a delimiter, one message is looked at. All else is for an earlier session, or a part of it.
            if matches!(self.state, State::Synchronising | State::Confirming) {
                let before = piece.len();
                let message = self.reader.read(&mut piece).map(|message| {
                    let message = message.map_err(ServerMessageError::from)?;
                    ServerMessage::parse(&message)
                });
                if let Some(message) = message {
                    *input = &input[before - piece.len()..];
                    if self.is_synchronisation(message) {
                        return true;
                    }
                    self.state = State::Skipping;
                    continue;
                }
            }
            *input = &input[delimiter.map_or(input.len(), |at| at + 1)..];
            if delimiter.is_none() {
                return false;
            }
            self.delimited(State::Synchronising);
        }
    }

    /// After a delimiter, whatever was before it is forgotten.
    fn delimited(&mut self, state: State) {
        self.reader = Reader::new(Dialect::Qemu10_0, self.limits);
        self.state = state;
    }

    fn is_synchronisation(&self, message: Result<ServerMessage, ServerMessageError>) -> bool {
        match message {
            Ok(ServerMessage::Response(Response { result: Ok(json), .. })) => {
                json.to_value().as_u64() == Some(self.id)
            }
            _ => false,
        }
    }

    fn write(&mut self, command: &str, arguments: Option<&Json>) {
        let mut text = "{\"execute\":".to_owned();
        Json::write_string(command, &mut text);
        if let Some(arguments) = arguments {
            text.push_str(",\"arguments\":");
            text.push_str(arguments.as_str());
        }
        text.push_str("}\n");
        self.unsent.extend_from_slice(text.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a session makes of these bytes, in short.
    fn read(session: &mut AgentSession, bytes: &[u8]) -> Vec<String> {
        let mut input = bytes;
        let mut seen = Vec::new();
        while let Some(received) = session.read(&mut input) {
            seen.push(match received {
                Ok(AgentReceived::Synchronised) => "synchronised".to_owned(),
                Ok(AgentReceived::Response(Ok(json))) => json.to_string(),
                Ok(AgentReceived::Response(Err(error))) => error.to_string(),
                Ok(AgentReceived::Executed) => "executed".to_owned(),
                Err(error) => format!("failed: {error}"),
            });
        }
        seen
    }

    fn idle() -> AgentSession {
        let mut session = AgentSession::new(7);
        assert!(session.transmit().is_some() && session.is_synchronising());
        assert_eq!(read(&mut session, b"\xFF{'return': 7}"), ["synchronised"]);
        session
    }

    #[test]
    fn all_is_dropped_that_comes_before_the_answer_to_the_synchronisation() {
        for before in [
            &b""[..],
            b"{'return': {}, 'id': 7}\n",
            b"half an answer\"}}\n",
            b"{'return': \"half of another",
            b"\xFF{'return': 6}\n{'return': {}}\n",
            b"\xFF\xFF\xFF[[[\xFF{'return': 7, 'error': {}}\n",
            b"\xFF{'error': {'class': 'GenericError', 'desc': 'no'}}\n",
        ] {
            let text = [before, b"\xFF{'return': 7}\n"].concat();
            assert_eq!(read(&mut AgentSession::new(7), &text), ["synchronised"]);
            let mut session = AgentSession::new(7);
            let seen = text.iter().flat_map(|byte| read(&mut session, &[*byte]));
            assert_eq!(seen.collect::<Vec<_>>(), ["synchronised"], "byte by byte");
        }
    }

    #[test]
    fn one_command_is_executed_at_a_time() {
        let mut session = AgentSession::new(u32::MAX);
        assert!(!session.request("guest-ping", None), "it has not synchronised");
        assert!(session.transmit().is_some());
        assert_eq!(read(&mut session, b"\xFF{'return': 4294967295}"), ["synchronised"]);
        assert!(session.request("guest-ping", None) && !session.request("guest-info", None));
        let sent = session.transmit().unwrap();
        assert_eq!(sent, b"{\"execute\":\"guest-ping\"}\n");
        assert_eq!(read(&mut session, b"{'return': {}}\n"), ["{}"]);
        assert!(session.request("guest-x", Some(&Json::EMPTY_OBJECT)));
        let error = b"{'error': {'class': 'CommandNotFound', 'desc': 'no'}}\n";
        assert_eq!(read(&mut session, error), ["CommandNotFound: no"]);
        assert!(session.is_idle());
    }

    #[test]
    fn the_answer_to_a_command_that_was_given_up_is_dropped() {
        let mut session = idle();
        assert!(session.request("guest-fsfreeze-freeze", None));
        session.resynchronise();
        let sent = session.transmit().unwrap();
        assert!(
            sent.ends_with(
                b"\xFF{\"execute\":\"guest-sync-delimited\",\"arguments\":{\"id\": 8}}\n"
            )
        );
        let text = b"{'return': 3}\n\xFF{'return': 8}\n";
        assert_eq!(read(&mut session, text), ["synchronised"]);
        // Twice, of which the first is not answered in time, either.
        (0..2).for_each(|_| session.resynchronise());
        let text = b"\xFF{'return': 9}\n\xFF{'return': 10}\n";
        assert_eq!(read(&mut session, text), ["synchronised"]);
    }

    #[test]
    fn a_command_without_response_has_been_executed_when_what_follows_it_is_answered() {
        for (text, expected) in [
            (&b"\xFF{'return': 8}\n"[..], &["executed"][..]),
            (b" \r\n\xFF{'return': 8}\n", &["executed"]),
            (
                b"{'error': {'class': 'GenericError', 'desc': 'no'}}\n\xFF{'return': 8}\n",
                &["GenericError: no", "synchronised"],
            ),
            (b"{'return': {}}\n\xFF{'return': 8}\n", &["{}", "synchronised"]),
            // An answer to somebody else in between.
            (b"\xFF{'return': 7}\n\xFF{'return': 8}\n", &["synchronised"]),
        ] {
            for at_once in [true, false] {
                let mut session = idle();
                assert!(session.request("guest-shutdown", None));
                assert!(!session.request("guest-ping", None));
                let sent = session.transmit().unwrap();
                assert!(sent.starts_with(b"{\"execute\":\"guest-shutdown\"}\n{"), "no delimiter");
                let seen = match at_once {
                    true => read(&mut session, text),
                    false => text.iter().flat_map(|byte| read(&mut session, &[*byte])).collect(),
                };
                assert_eq!(seen, expected);
                assert!(session.is_idle());
            }
        }
    }

    #[test]
    fn a_session_goes_on_elsewhere_at_any_byte() {
        let text = b"\xFF{'return': 7}\n{'return': {'a': 1}}\n\xFF{'return': 8}\n";
        for at in 0..=text.len() {
            let mut session = AgentSession::new(7);
            let mut seen = Vec::new();
            for (index, byte) in text.iter().enumerate() {
                if index == at {
                    let state = serde_json::to_string(&session.state()).unwrap();
                    let state = serde_json::from_str(&state).unwrap();
                    session = AgentSession::resume(state, Limits::default()).unwrap();
                }
                seen.extend(read(&mut session, &[*byte]));
                if seen.len() == 1 && session.is_idle() {
                    assert!(session.request("guest-a", None));
                } else if seen.len() == 2 && session.is_idle() {
                    assert!(session.request("guest-suspend-ram", None));
                }
            }
            assert_eq!(seen, ["synchronised", r#"{"a": 1}"#, "executed"]);
        }
    }

    #[test]
    fn what_was_not_asked_for_is_an_error() {
        for (text, expected) in [
            (
                &b"{'return': {}, 'id': 3}"[..],
                "failed: the guest agent answers what it was not asked",
            ),
            (b"{'event': 'STOP'}", "failed: the guest agent answers what it was not asked"),
        ] {
            let mut session = idle();
            assert!(session.request("guest-ping", None));
            assert_eq!(read(&mut session, text), [expected]);
        }
        let seen = read(&mut idle(), b"hello\n");
        assert!(seen[0].starts_with("failed: the guest agent sends invalid data"), "{seen:?}");
        assert_eq!(read(&mut idle(), b"{'return': {}}").len(), 1, "nothing was asked");
    }
}
