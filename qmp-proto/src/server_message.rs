// SPDX-License-Identifier: MIT OR Apache-2.0
//! What clients and proxies receive.

use serde::Deserialize;

use crate::lexer::Kind;
use crate::parser::Malformed;
use crate::reader::Message;
use crate::{
    Capability, DecodeError, Error, ErrorClass, Event, Greeting, Json, Object, Response,
    SyntaxError, Timestamp, Value, Version, from_value,
};

/// Any message that a server sends.
///
/// ```
/// use qmp_proto::{Reader, ServerMessage};
///
/// let mut reader = Reader::default();
/// let mut input: &[u8] = b"{\"return\": {\"enabled\": true}, \"id\": \"a\"}\r\n";
/// let message = reader.read(&mut input).unwrap()?;
/// let ServerMessage::Response(response) = ServerMessage::parse(&message)? else { panic!() };
/// assert_eq!(response.id, Some("a".into()));
/// assert_eq!(response.result.unwrap().as_str(), "{\"enabled\": true}");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub enum ServerMessage {
    /// The first message of a connection.
    Greeting(Greeting),
    /// The response to a request.
    Response(Response),
    /// Something that happened.
    Event(Event),
}

/// Why a message is not one that a server sends.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ServerMessageError {
    /// It is not well-formed.
    #[error(transparent)]
    Syntax(#[from] SyntaxError),
    /// It is not an object.
    #[error("a message of a server must be a JSON object")]
    NotAnObject,
    /// It is an object, but neither a greeting, nor a response, nor an event.
    #[error("a message of a server must have a member 'QMP', 'return', 'error' or 'event'")]
    UnknownKind,
    /// It has both `return` and `error`.
    #[error("a response cannot have both 'return' and 'error'")]
    BothOutcomes,
    /// A member is missing or has the wrong shape.
    #[error("member '{member}': {reason}")]
    Member {
        /// The name of the member.
        member: &'static str,
        /// What is wrong with it.
        reason: DecodeError,
    },
}

/// The members by which the kinds of messages differ, and those that belong to them.
#[derive(Default)]
struct Members {
    greeting: Option<Value>,
    result: Option<Json>,
    error: Option<Value>,
    event: Option<Value>,
    id: Option<Value>,
    data: Option<Json>,
    timestamp: Option<Value>,
}

impl ServerMessage {
    /// Parses a message that came from a server. Members that are not known are ignored; an error
    /// class that is not known is read as [`ErrorClass::GenericError`]. Of a greeting it is enough that
    /// its version is an object and its capabilities are an array, as for qemu.qmp.
    ///
    /// # Errors
    ///
    /// [`ServerMessageError`] says what the message lacks.
    pub fn parse(message: &Message<'_>) -> Result<ServerMessage, ServerMessageError> {
        let members = match Members::parse(message) {
            Ok(Some(members)) => members,
            Ok(None) => return Err(ServerMessageError::NotAnObject),
            Err(Malformed) => return Err(message.error().into()),
        };
        if let Some(greeting) = members.greeting {
            return parse_greeting(greeting).map(ServerMessage::Greeting);
        }
        if let Some(name) = members.event {
            let timestamp = match members.timestamp {
                Some(timestamp) => decode("timestamp", timestamp)?,
                None => Timestamp::UNKNOWN,
            };
            let name = decode::<String>("event", name)?.into();
            return Ok(ServerMessage::Event(Event { name, data: members.data, timestamp }));
        }
        let result = match (members.result, members.error) {
            (Some(json), None) => Ok(json),
            (None, Some(error)) => Err(decode::<Failure>("error", error)?.into()),
            (Some(_), Some(_)) => return Err(ServerMessageError::BothOutcomes),
            (None, None) => return Err(ServerMessageError::UnknownKind),
        };
        Ok(ServerMessage::Response(Response { id: members.id, result }))
    }
}

impl Members {
    /// `None` if the message is not an object.
    fn parse(message: &Message<'_>) -> Result<Option<Members>, Malformed> {
        let mut members = Members::default();
        let mut parser = message.parser();
        if parser.peek() != Some(Kind::OpenBrace) {
            parser.skip_value()?;
            return Ok(None);
        }
        let mut others = false;
        let mut name = parser.first_name()?;
        while let Some(new) = name {
            let is_new = match &*new {
                "QMP" => members.greeting.replace(parser.value()?).is_none(),
                "return" => members.result.replace(message.json(&mut parser)?).is_none(),
                "error" => members.error.replace(parser.value()?).is_none(),
                "event" => members.event.replace(parser.value()?).is_none(),
                "id" => members.id.replace(parser.value()?).is_none(),
                "data" => members.data.replace(message.json(&mut parser)?).is_none(),
                "timestamp" => members.timestamp.replace(parser.value()?).is_none(),
                _ => {
                    parser.skip_value()?;
                    others = true;
                    true
                }
            };
            if !is_new {
                return Err(Malformed);
            }
            name = parser.next_name()?;
        }
        if others {
            // There may be two of the same name.
            message.parser().skip_value()?;
        }
        Ok(Some(members))
    }
}

/// Reads a greeting, of whose version any part may be missing.
fn parse_greeting(greeting: Value) -> Result<Greeting, ServerMessageError> {
    #[derive(Deserialize)]
    struct Parts {
        version: Object,
        capabilities: Vec<Value>,
    }

    let Parts { version, capabilities } = decode("QMP", greeting)?;
    let number = |name| version.get("qemu")?.get(name)?.as_i64();
    let [major, minor, micro] =
        ["major", "minor", "micro"].map(|name| number(name).unwrap_or_default());
    let package = version.get("package").and_then(Value::as_str).unwrap_or_default().to_owned();
    let names = capabilities.iter().filter_map(Value::as_str);
    Ok(Greeting {
        version: Version::new(major, minor, micro, package),
        capabilities: names.map(|name| Capability::from(name.to_owned())).collect(),
    })
}

fn decode<T: serde::de::DeserializeOwned>(
    member: &'static str,
    value: Value,
) -> Result<T, ServerMessageError> {
    from_value(value).map_err(|reason| ServerMessageError::Member { member, reason })
}

/// An error of any class.
#[derive(Deserialize)]
struct Failure {
    class: String,
    desc: String,
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Error {
        Error::new(failure.class.parse().unwrap_or(ErrorClass::GenericError), failure.desc)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Reader, SyntaxErrorKind};

    fn parse(text: &str) -> Result<ServerMessage, ServerMessageError> {
        let mut reader = Reader::default();
        let mut input = text.as_bytes();
        let message = reader.read(&mut input).expect("a message")?;
        ServerMessage::parse(&message)
    }

    #[test]
    fn results_that_are_not_in_our_form_are_written_anew() {
        let Ok(ServerMessage::Response(response)) = parse("{'return': ['é',\r\n1e0, \"it's\"]}")
        else {
            panic!("a response");
        };
        assert_eq!(response.result.unwrap().as_str(), "[\"\\u00E9\", 1, \"it's\"]");
    }

    #[test]
    fn members_keep_their_order_when_a_result_comes_on_several_lines() {
        let text = "{\r\n    \"return\": {\r\n        \"z\": 1,\r\n        \"a\": [\r\n            \"\u{e9}\",\r\n            {\r\n            }\r\n        ]\r\n    }\r\n}";
        let Ok(ServerMessage::Response(response)) = parse(text) else { panic!("a response") };
        assert_eq!(response.result.unwrap().as_str(), "{\"z\": 1, \"a\": [\"\\u00E9\", {}]}");
    }

    #[test]
    fn what_is_not_a_message_of_a_server_is_refused() {
        assert_eq!(parse("[1]"), Err(ServerMessageError::NotAnObject));
        assert!(matches!(
            parse("[,]"),
            Err(ServerMessageError::Syntax(error)) if error.kind == SyntaxErrorKind::ExpectingValue
        ));
        assert!(matches!(
            parse("{'return': 1, 'a': {'b': 1}, 'a': 2}"),
            Err(ServerMessageError::Syntax(error)) if error.kind == SyntaxErrorKind::DuplicateKey
        ));
        assert_eq!(parse("{'id': 1}"), Err(ServerMessageError::UnknownKind));
        assert_eq!(parse("{'return': 1, 'error': 1}"), Err(ServerMessageError::BothOutcomes));
        let error = parse("{'error': {'class': 'GenericError'}}").unwrap_err();
        assert_eq!(error.to_string(), "member 'error': missing field `desc`");
    }

    #[test]
    fn greetings_are_read_as_qemu_qmp_reads_them() {
        let read = |version: &str, capabilities: &str| {
            parse(&format!("{{'QMP': {{'version': {version}, 'capabilities': {capabilities}}}}}"))
        };
        let greeting = |version, capabilities: &[Capability]| {
            Ok(ServerMessage::Greeting(Greeting { version, capabilities: capabilities.to_vec() }))
        };
        assert_eq!(read("{}", "[]"), greeting(Version::new(0, 0, 0, ""), &[]));
        assert_eq!(
            read("{'qemu': {'major': 9, 'minor': '?'}, 'package': null}", "['oob', 1, 'x']"),
            greeting(Version::new(9, 0, 0, ""), &[Capability::OOB, "x".into()])
        );
        for (version, capabilities) in [("[]", "[]"), ("'9'", "[]"), ("{}", "{}"), ("{}", "null")] {
            let refused = read(version, capabilities);
            assert!(matches!(refused, Err(ServerMessageError::Member { member: "QMP", .. })));
        }
        assert!(parse("{'QMP': {'version': {}}}").is_err());
    }

    #[test]
    fn an_event_may_lack_its_time() {
        let event = Event { name: "STOP".into(), data: None, timestamp: Timestamp::UNKNOWN };
        assert_eq!(parse("{'event': 'STOP'}"), Ok(ServerMessage::Event(event)));
        assert!(parse("{'event': 'STOP', 'timestamp': null}").is_err());
    }

    #[test]
    fn an_unknown_error_class_is_generic() {
        let message = parse("{'error': {'class': 'Novel', 'desc': 'd', 'more': 1}}");
        let response = Response { id: None, result: Err(Error::generic("d")) };
        assert_eq!(message, Ok(ServerMessage::Response(response)));
    }
}
