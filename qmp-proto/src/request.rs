// SPDX-License-Identifier: MIT OR Apache-2.0
//! What clients send: commands.

use std::ops::Range;

use crate::lexer::Kind;
use crate::reader::Message;
use crate::{Error, Json, Object, SyntaxError, Value};

/// Whether a command waits for its turn or is executed at once.
///
/// Section "Out-of-band execution" of the QMP specification: `execute` or `exec-oob`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize,
)]
pub enum Band {
    /// In the order of the queue, one after the other.
    #[default]
    InBand,
    /// As soon as it has been read, ahead of whatever is queued or being executed.
    OutOfBand,
}

/// The kinds of requests that a client may send.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Bands {
    /// Only `execute`; `exec-oob` is an unexpected member like any other.
    #[default]
    InBand,
    /// `exec-oob`, too: the client has enabled [`Capability::OOB`](crate::Capability::OOB).
    Both,
}

/// A command as a client sends it: checked as a message, not yet against what the command takes.
///
/// ```
/// use qmp_proto::{Band, Bands, Reader, Request};
///
/// let mut reader = Reader::default();
/// let mut input: &[u8] = b"{'execute': 'closefd', 'arguments': {'fdname': 'a'}, 'id': [1]}";
/// let message = reader.read(&mut input).unwrap()?;
/// let mut request = Request::parse(&message, Bands::InBand).unwrap();
/// assert_eq!(request.command, "closefd");
/// assert_eq!(request.arguments.get("fdname").and_then(|name| name.as_str()), Some("a"));
///
/// request.band = Band::OutOfBand;
/// let mut out = String::new();
/// request.write(&mut out);
/// assert_eq!(out, "{\"exec-oob\":\"closefd\",\"arguments\":{\"fdname\": \"a\"},\"id\":[1]}\n");
/// # Ok::<(), qmp_proto::SyntaxError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Request {
    /// The name of the command.
    pub command: String,
    /// The arguments; none is the same as an empty object.
    pub arguments: Object,
    /// What the response carries back: any value, `null` included, or nothing.
    pub id: Option<Value>,
    /// Whether it is to be executed in-band or out-of-band.
    pub band: Band,
}

/// A message is not a valid request; has what its response must carry.
///
/// Out-of-band requests are refused out-of-band; what is not even an object counts as in-band.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{error}")]
#[non_exhaustive]
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
    /// Creates an in-band request without arguments and id.
    pub fn new(command: impl Into<String>) -> Request {
        Request { command: command.into(), ..Request::default() }
    }

    /// Parses a message and checks that it is a request, in QEMU's order (`qapi/qmp-dispatch.c`).
    ///
    /// # Errors
    ///
    /// [`RequestError`] with QEMU's description of the first thing that is wrong.
    pub fn parse(message: &Message<'_>, bands: Bands) -> Result<Request, RequestError> {
        Request::parse_with_tokens(message, bands).map(|(request, _)| request)
    }

    /// Like [`parse`](Request::parse), and returns the arguments' raw text for forwarding, if there are
    /// any. Text that is not plain JSON in ASCII on one line is rewritten.
    ///
    /// # Errors
    ///
    /// Like [`parse`](Request::parse).
    pub fn parse_with_text(
        message: &Message<'_>,
        bands: Bands,
    ) -> Result<(Request, Option<Json>), RequestError> {
        let (request, tokens) = Request::parse_with_tokens(message, bands)?;
        Ok((request, tokens.map(|tokens| message.json_of(tokens))))
    }

    /// Returns the tokens of the arguments, too. What is wrong is found the slow way: there is hardly
    /// ever anything.
    #[inline]
    fn parse_with_tokens(
        message: &Message<'_>,
        bands: Bands,
    ) -> Result<(Request, Option<Range<usize>>), RequestError> {
        match Members::parse(message).and_then(|members| members.into_request(bands)) {
            Some(request) => Ok(request),
            None => Err(refuse(message, bands)),
        }
    }

    /// Appends the request like [`write`](Request::write), with this text for its arguments.
    pub fn write_with_text(&self, arguments: Option<&Json>, out: &mut String) {
        let arguments = arguments.map(|json| |out: &mut String| out.push_str(json.as_str()));
        let id = self.id.as_ref().map(|id| |out: &mut String| Json::write_value(id, out));
        write(&self.command, arguments, id, self.band, out);
    }

    /// Appends the request as one line, ended by LF. Has no needless blanks: QEMU reads byte by byte.
    pub fn write(&self, out: &mut String) {
        let arguments = (!self.arguments.is_empty())
            .then_some(|out: &mut String| Json::write_object(&self.arguments, out));
        let id = self.id.as_ref().map(|id| |out: &mut String| Json::write_value(id, out));
        write(&self.command, arguments, id, self.band, out);
    }
}

/// A request whose arguments are text already, for proxies.
#[derive(Clone, Copy, Debug)]
pub struct RequestText<'a> {
    /// The name of the command.
    pub command: &'a str,
    /// The arguments, an object, if there are any.
    pub arguments: Option<&'a Json>,
    /// What the response carries back.
    pub id: u64,
    /// Whether it is to be executed in-band or out-of-band.
    pub band: Band,
}

impl RequestText<'_> {
    /// Appends the request, like [`Request::write`].
    pub fn write(&self, out: &mut String) {
        let arguments = self.arguments.map(|json| |out: &mut String| out.push_str(json.as_str()));
        let id = Some(|out: &mut String| out.push_str(itoa::Buffer::new().format(self.id)));
        write(self.command, arguments, id, self.band, out);
    }
}

fn write(
    command: &str,
    arguments: Option<impl FnOnce(&mut String)>,
    id: Option<impl FnOnce(&mut String)>,
    band: Band,
    out: &mut String,
) {
    out.push_str(match band {
        Band::InBand => "{\"execute\":",
        Band::OutOfBand => "{\"exec-oob\":",
    });
    Json::write_string(command, out);
    if let Some(arguments) = arguments {
        out.push_str(",\"arguments\":");
        arguments(out);
    }
    if let Some(id) = id {
        out.push_str(",\"id\":");
        id(out);
    }
    out.push_str("}\n");
}

/// Returns what is wrong with a message that is not a request.
#[cold]
fn refuse(message: &Message<'_>, bands: Bands) -> RequestError {
    let refused = |error, id, band| RequestError { error, id, band, unreadable: false };
    let mut object = match message.to_value() {
        Ok(Value::Object(object)) => object,
        Ok(_) => {
            let error = Error::generic("QMP input must be a JSON object");
            return refused(error, None, Band::InBand);
        }
        Err(error) => return error.into(),
    };
    let out_of_band =
        bands == Bands::Both && object.contains("exec-oob") && !object.contains("execute");
    let band = if out_of_band { Band::OutOfBand } else { Band::InBand };
    let error = first_error(&object, bands);
    refused(error, object.remove("id"), band)
}

/// Checks each member by itself, in the order of QEMU's hash table. If nothing is wrong with those that are
/// there, the name of the command is missing.
fn first_error(object: &Object, bands: Bands) -> Error {
    let member =
        |name: &str, what: &str| Error::generic(format!("QMP input member '{name}' {what}"));
    let mut named = false;
    for (name, value) in object.iter_in_qemu_order() {
        match name {
            "execute" | "exec-oob" if bands == Bands::Both || name == "execute" => {
                if value.as_str().is_none() {
                    return member(name, "must be a string");
                }
                if std::mem::replace(&mut named, true) {
                    return member("execute", "clashes with 'exec-oob'");
                }
            }
            "arguments" if value.as_object().is_none() => {
                return member(name, "must be an object");
            }
            "arguments" | "id" => {}
            _ => return member(name, "is unexpected"),
        }
    }
    Error::generic("QMP input lacks member 'execute'")
}

/// The members of a request, read without building the object that holds them.
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
    /// Returns `None` if anything is wrong, or a member does not belong there.
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

    /// Returns the request and the tokens of its arguments, or `None` if one of the checks would fail.
    #[inline]
    fn into_request(self, bands: Bands) -> Option<(Request, Option<Range<usize>>)> {
        let (command, band) = match (self.execute, self.exec_oob) {
            (Some(Value::String(command)), None) => (command, Band::InBand),
            (None, Some(Value::String(command))) if bands == Bands::Both => {
                (command, Band::OutOfBand)
            }
            _ => return None,
        };
        let arguments = match self.arguments {
            None => Object::new(),
            Some(Value::Object(arguments)) => arguments,
            Some(_) => return None,
        };
        Some((Request { command, arguments, id: self.id, band }, self.text))
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
        Request::parse(&message, if oob { Bands::Both } else { Bands::InBand })
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
            let (request, text) = Request::parse_with_text(&message, Bands::Both).unwrap();
            assert_eq!(Request::parse(&message, Bands::Both), Ok(request));
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
            "{\"exec-oob\":\"yank\",\"arguments\":{\"instances\": []},\"id\":\"\\u00E9\"}\n"
        );
        assert_eq!(parse(&text, true), Ok(request));
    }
}
