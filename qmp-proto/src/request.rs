// SPDX-License-Identifier: MIT OR Apache-2.0
//! What clients send: commands.

use std::ops::Range;

use crate::lexer::Kind;
use crate::reader::Message;
use crate::{Error, Json, Object, SyntaxError, Value};

/// Whether a command waits for its turn or is executed at once.
///
/// Section "Out-of-band execution" of the QMP specification: `execute` or `exec-oob`.
///
/// ```
/// use qmp_proto::{Band, Request};
///
/// let mut out = String::new();
/// Request { band: Band::OutOfBand, ..Request::new("migrate-pause") }.write(&mut out);
/// assert_eq!(out, "{\"exec-oob\": \"migrate-pause\"}\r\n");
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Band {
    /// In the order of the queue, one after the other.
    #[default]
    InBand,
    /// As soon as it has been read, past whatever is queued or being executed.
    OutOfBand,
}

/// A command as a client sends it: checked as a message, not yet against what the command takes.
///
/// ```
/// use qmp_proto::{Reader, Request};
///
/// let mut reader = Reader::default();
/// let mut input: &[u8] = b"{'execute': 'closefd', 'arguments': {'fdname': 'a'}, 'id': [1]}";
/// let message = reader.read(&mut input).unwrap()?;
/// let request = Request::parse(&message, false).unwrap();
/// assert_eq!(request.command, "closefd");
/// assert_eq!(request.arguments.get("fdname").and_then(|name| name.as_str()), Some("a"));
/// assert_eq!(request.id.unwrap().to_string(), "[1]");
/// # Ok::<(), qmp_proto::SyntaxError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Request {
    /// The name of the command.
    pub command: String,
    /// Its arguments; none is the same as an empty object.
    pub arguments: Object,
    /// What the client wants back with the response: any value, `null` included, or nothing.
    pub id: Option<Value>,
    /// Whether it is to be executed in-band or out-of-band.
    pub band: Band,
}

/// A message that is no valid request, and what its response must carry.
///
/// Out-of-band requests are refused out-of-band; what is not even an object counts as in-band.
///
/// ```
/// use qmp_proto::{Reader, Request, Response};
///
/// let mut reader = Reader::default();
/// let message = reader.read(&mut &b"{'exec': 'stop', 'id': 1}"[..]).unwrap()?;
/// let refused = Request::parse(&message, false).unwrap_err();
/// assert_eq!(refused.to_string(), "GenericError: QMP input member 'exec' is unexpected");
/// let response = Response { id: refused.id, result: Err(refused.error) };
/// assert_eq!(response.id, Some(1.into()));
/// # Ok::<(), qmp_proto::SyntaxError>(())
/// ```
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{error}")]
pub struct RequestError {
    /// What is wrong.
    pub error: Error,
    /// The id, if the message is an object that has one.
    pub id: Option<Value>,
    /// Whether the message asked to be executed in-band or out-of-band.
    pub band: Band,
    /// Whether the message could not be read at all: a [`SyntaxError`].
    pub unreadable: bool,
}

impl From<SyntaxError> for RequestError {
    fn from(error: SyntaxError) -> RequestError {
        RequestError { error: error.into(), id: None, band: Band::InBand, unreadable: true }
    }
}

impl Request {
    /// An in-band request without arguments and id, to be filled in.
    ///
    /// ```
    /// use qmp_proto::{Band, Request};
    ///
    /// let request = Request { id: Some(1.into()), ..Request::new("stop") };
    /// assert!(request.arguments.is_empty());
    /// assert_eq!(request.band, Band::InBand);
    /// ```
    pub fn new(command: impl Into<String>) -> Request {
        Request { command: command.into(), ..Request::default() }
    }

    /// Parses a message and checks that it is a request, in QEMU's order (`qapi/qmp-dispatch.c`);
    /// `oob` says whether the client has enabled out-of-band execution, without which `exec-oob` is
    /// a member like any that does not belong there.
    ///
    /// # Errors
    ///
    /// [`RequestError`] with QEMU's description of the first thing that is wrong.
    pub fn parse(message: &Message<'_>, oob: bool) -> Result<Request, RequestError> {
        match Members::parse(message).and_then(|members| members.into_ordinary(oob)) {
            Some(request) => Ok(request),
            None => Request::from_value(message.to_value()?, oob),
        }
    }

    /// As [`parse`](Request::parse), with the text of the arguments for passing them on: as it came, if
    /// that is plain JSON in ASCII on one line; `None` if there are none.
    ///
    /// ```
    /// use qmp_proto::{Reader, Request};
    ///
    /// let mut reader = Reader::default();
    /// let mut input: &[u8] = br#"{"execute": "balloon", "arguments": {"value":1073741824}}"#;
    /// let message = reader.read(&mut input).unwrap()?;
    /// let (request, text) = Request::parse_with_text(&message, false).unwrap();
    /// assert_eq!(request.command, "balloon");
    /// assert_eq!(text.unwrap().as_str(), r#"{"value":1073741824}"#);
    /// # Ok::<(), qmp_proto::SyntaxError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`parse`](Request::parse).
    pub fn parse_with_text(
        message: &Message<'_>,
        oob: bool,
    ) -> Result<(Request, Option<Json>), RequestError> {
        let ordinary = Members::parse(message).and_then(|members| {
            let tokens = members.text.clone();
            let request = members.into_ordinary(oob)?;
            Some((request, tokens.map(|tokens| message.json_of(tokens))))
        });
        match ordinary {
            Some(both) => Ok(both),
            None => Request::from_value(message.to_value()?, oob).map(|request| (request, None)),
        }
    }

    fn from_value(value: Value, oob: bool) -> Result<Request, RequestError> {
        let Value::Object(mut object) = value else {
            let error = Error::generic("QMP input must be a JSON object");
            return Err(RequestError { error, id: None, band: Band::InBand, unreadable: false });
        };
        let out_of_band = oob && object.contains("exec-oob") && !object.contains("execute");
        let band = if out_of_band { Band::OutOfBand } else { Band::InBand };
        let checked = check_members(&object, oob);
        let id = object.remove("id");
        if let Err(error) = checked {
            return Err(RequestError { error, id, band, unreadable: false });
        }
        let name = object.remove("execute").or_else(|| object.remove("exec-oob"));
        let Some(Value::String(command)) = name else {
            let error = Error::generic("QMP input lacks member 'execute'");
            return Err(RequestError { error, id, band, unreadable: false });
        };
        let arguments = match object.remove("arguments") {
            Some(Value::Object(arguments)) => arguments,
            _ => Object::new(),
        };
        Ok(Request { command, arguments, id, band })
    }

    /// Appends the request, as a client sends it: one line, ended by CR LF.
    pub fn write(&self, out: &mut String) {
        out.push_str(match self.band {
            Band::InBand => "{\"execute\": ",
            Band::OutOfBand => "{\"exec-oob\": ",
        });
        Json::write_string(&self.command, out);
        if !self.arguments.is_empty() {
            out.push_str(", \"arguments\": ");
            Json::write_object(&self.arguments, out);
        }
        if let Some(id) = &self.id {
            out.push_str(", \"id\": ");
            Json::write_value(id, out);
        }
        out.push_str("}\r\n");
    }
}

/// A request that is sent on: its arguments are text already.
///
/// ```
/// use qmp_proto::{Band, RequestText};
///
/// let mut out = String::new();
/// RequestText { command: "stop", arguments: None, id: 7, band: Band::InBand }.write(&mut out);
/// assert_eq!(out, "{\"execute\":\"stop\",\"id\":7}\n");
/// ```
#[derive(Clone, Copy, Debug)]
pub struct RequestText<'a> {
    /// The name of the command.
    pub command: &'a str,
    /// Its arguments, an object, if there are any.
    pub arguments: Option<&'a Json>,
    /// What comes back with the response.
    pub id: u64,
    /// Whether it is to be executed in-band or out-of-band.
    pub band: Band,
}

impl RequestText<'_> {
    /// Appends the request: one line, ended by LF, and without blanks, as QEMU reads byte by byte.
    pub fn write(&self, out: &mut String) {
        out.push_str(match self.band {
            Band::InBand => "{\"execute\":",
            Band::OutOfBand => "{\"exec-oob\":",
        });
        Json::write_string(self.command, out);
        if let Some(arguments) = self.arguments {
            out.push_str(",\"arguments\":");
            out.push_str(arguments.as_str());
        }
        out.push_str(",\"id\":");
        out.push_str(&self.id.to_string());
        out.push_str("}\n");
    }
}

/// Checks each member by itself, in the order of QEMU's hash table.
fn check_members(object: &Object, oob: bool) -> Result<(), Error> {
    let member =
        |name: &str, what: &str| Error::generic(format!("QMP input member '{name}' {what}"));
    let mut named = false;
    for (name, value) in object.iter_in_qemu_order() {
        match name {
            "execute" | "exec-oob" if oob || name == "execute" => {
                if value.as_str().is_none() {
                    return Err(member(name, "must be a string"));
                }
                if std::mem::replace(&mut named, true) {
                    return Err(member("execute", "clashes with 'exec-oob'"));
                }
            }
            "arguments" if value.as_object().is_none() => {
                return Err(member(name, "must be an object"));
            }
            "arguments" | "id" => {}
            _ => return Err(member(name, "is unexpected")),
        }
    }
    Ok(())
}

/// The members of an ordinary request, read without building the object that holds them.
#[derive(Default)]
struct Members {
    execute: Option<Value>,
    exec_oob: Option<Value>,
    arguments: Option<Value>,
    /// The tokens of the arguments.
    text: Option<Range<usize>>,
    id: Option<Value>,
}

impl Members {
    /// `None` if there is anything wrong, or a member that does not belong there.
    fn parse(message: &Message<'_>) -> Option<Members> {
        let mut members = Members::default();
        let mut parser = message.parser();
        if parser.peek() != Some(Kind::OpenBrace) {
            return None;
        }
        let mut name = parser.first_name().ok()?;
        while let Some(new) = name {
            let member = match &*new {
                "execute" => &mut members.execute,
                "exec-oob" => &mut members.exec_oob,
                "arguments" => &mut members.arguments,
                "id" => &mut members.id,
                _ => return None,
            };
            let from = parser.position();
            if member.replace(parser.value().ok()?).is_some() {
                return None;
            }
            if new == "arguments" {
                members.text = Some(from..parser.position());
            }
            name = parser.next_name().ok()?;
        }
        Some(members)
    }

    /// `None` if one of the checks would fail.
    fn into_ordinary(self, oob: bool) -> Option<Request> {
        let (command, band) = match (self.execute, self.exec_oob) {
            (Some(Value::String(command)), None) => (command, Band::InBand),
            (None, Some(Value::String(command))) if oob => (command, Band::OutOfBand),
            _ => return None,
        };
        let arguments = match self.arguments {
            None => Object::new(),
            Some(Value::Object(arguments)) => arguments,
            Some(_) => return None,
        };
        Some(Request { command, arguments, id: self.id, band })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Reader;

    fn parse(text: &str, oob: bool) -> Result<Request, RequestError> {
        let mut reader = Reader::default();
        let mut input = text.as_bytes();
        let message = reader.read(&mut input).expect("a message")?;
        Request::parse(&message, oob)
    }

    #[track_caller]
    fn check_error(text: &str, oob: bool, expected: &str) {
        let refused = parse(text, oob).unwrap_err();
        assert_eq!(refused.error.desc, expected, "{text}");
    }

    #[test]
    fn the_first_member_in_hash_order_is_reported() {
        check_error(
            "{'arguments': 1, 'execute': 1}",
            false,
            "QMP input member 'execute' must be a string",
        );
        check_error("{'bar': 1, 'execute': 1}", false, "QMP input member 'bar' is unexpected");
        check_error(
            "{'foo': 1, 'execute': 1}",
            false,
            "QMP input member 'execute' must be a string",
        );
        check_error(
            "{'execute': 'a', 'arguments': null}",
            false,
            "QMP input member 'arguments' must be an object",
        );
        check_error("{'id': 1}", false, "QMP input lacks member 'execute'");
        check_error("{}", true, "QMP input lacks member 'execute'");
        check_error("[]", true, "QMP input must be a JSON object");
    }

    #[test]
    fn exec_oob_exists_only_where_it_is_enabled() {
        let text = "{'exec-oob': 'a', 'id': 1}";
        check_error(text, false, "QMP input member 'exec-oob' is unexpected");
        assert_eq!(parse(text, true).unwrap().band, Band::OutOfBand);
        let both = "{'execute': 'a', 'exec-oob': 'b'}";
        check_error(both, true, "QMP input member 'execute' clashes with 'exec-oob'");
        assert_eq!(parse(both, true).unwrap_err().band, Band::InBand);
        assert_eq!(parse("{'exec-oob': 1}", true).unwrap_err().band, Band::OutOfBand);
        assert_eq!(parse("{'exec-oob': 1}", false).unwrap_err().band, Band::InBand);
    }

    #[test]
    fn refusals_carry_the_id() {
        assert_eq!(parse("{'id': null}", false).unwrap_err().id, Some(Value::Null));
        assert_eq!(parse("{'x': 1}", false).unwrap_err().id, None);
    }

    #[test]
    fn the_text_of_arguments_is_kept_where_it_is_plain_json() {
        let text = |text: &str| {
            let mut reader = Reader::default();
            let mut input = text.as_bytes();
            let message = reader.read(&mut input).unwrap().unwrap();
            let (request, text) = Request::parse_with_text(&message, true).unwrap();
            assert_eq!(Request::parse(&message, true), Ok(request));
            text.map(|text| text.to_string())
        };
        assert_eq!(text("{'execute': 'a'}"), None);
        let plain = r#"{"b":1e0,  "a": "\u00e9\/"}"#;
        let exec_oob = format!("{{'id': 1, 'arguments':{plain}, 'exec-oob': 'a'}}");
        assert_eq!(text(&exec_oob).as_deref(), Some(plain));
        assert_eq!(
            text("{'execute': 'a', 'arguments': {'b': 'é'}}").as_deref(),
            Some(r#"{"b": "\u00E9"}"#)
        );
    }

    #[test]
    fn a_request_is_written_as_it_is_read() {
        let mut request = Request::new("yank");
        request.arguments.insert("instances", Vec::new());
        request.id = Some("é".into());
        request.band = Band::OutOfBand;
        let mut text = String::new();
        request.write(&mut text);
        assert_eq!(
            text,
            "{\"exec-oob\": \"yank\", \"arguments\": {\"instances\": []}, \"id\": \"\\u00E9\"}\r\n"
        );
        assert_eq!(parse(&text, true), Ok(request));
    }
}
