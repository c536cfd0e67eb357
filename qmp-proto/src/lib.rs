// SPDX-License-Identifier: MIT OR Apache-2.0
//! The messages of the QEMU Machine Protocol (QMP), byte for byte as QEMU reads and writes them.
//!
//! Bytes in, messages out; messages in, bytes out, for both sides of a connection. There are no
//! sockets here, no threads and no clocks: the caller reads, writes and tells the time.
//!
//! ```text
//!             bytes ──▶ Reader ──▶ Message ──▶ Request         (what clients send)
//!                                          └─▶ ServerMessage   (greeting, response, event)
//!
//!    Greeting, Response, Event, Request ──▶ write() ──▶ bytes
//! ```
//!
//! [`client`] has the state of a connection, as its client sees it.
//!
//! # What it promises
//!
//! - [`Reader`] accepts what QEMU accepts and refuses what it refuses, with the same description, and
//!   finds its way back to the stream at the same byte: QEMU's JSON has single-quoted strings, no
//!   separators between messages, and its own way of recovering. QEMU 10.0 and 11.1 word and locate
//!   errors in different ways; the [`Dialect`] says which of them is mirrored, by default 11.1.
//! - What is written is what QEMU would write: ASCII, one line ended by CR LF (or pretty-printed),
//!   the members of envelopes and echoed ids in QEMU's order, numbers as QEMU formats them.
//! - [`Limits`] bound what one message can take; passing one is an error like any other.
//! - Types that cannot say what the protocol forbids: a [`Response`] is a success *or* an error.
//!
//! One thing is not as in QEMU: where it writes `inf`, which is not JSON, we write the largest
//! finite double (see [`Json`]).
//!
//! # Example
//!
//! A server that knows one command, without its socket:
//!
//! ```
//! use qmp_proto::{Bands, Error, Json, Layout, Reader, Request, Response};
//!
//! fn respond(request: Request) -> Response {
//!     let result = match request.command.as_str() {
//!         "query-name" => Json::encode(&std::collections::BTreeMap::from([("name", "vm0")]))
//!             .map_err(|error| Error::generic(error.to_string())),
//!         name => Err(Error::command_not_found(name)),
//!     };
//!     Response::new(request.id, result)
//! }
//!
//! let mut reader = Reader::default();
//! let mut input: &[u8] = b"{'execute': 'query-name', 'id': 1} {'execute': 'x'} @";
//! let mut out = String::new();
//! while let Some(message) = reader.read(&mut input) {
//!     let request =
//!         message.map_err(Into::into).and_then(|message| Request::parse(&message, Bands::InBand));
//!     let response = match request {
//!         Ok(request) => respond(request),
//!         Err(refused) => Response::new(refused.id, Err(refused.error)),
//!     };
//!     response.write(Layout::Compact, &mut out);
//! }
//! let lines: Vec<&str> = out.lines().collect();
//! assert_eq!(lines[0], r#"{"return": {"name": "vm0"}, "id": 1}"#);
//! assert!(lines[1].contains("The command x has not been found"));
//! assert!(lines[2].contains("stray '@'"));
//! ```

pub mod bytes_as_text;
mod checker;
pub mod client;
mod command_type;
mod command_types_macro;
pub mod decode;
mod dialect;
mod error;
mod event;
mod greeting;
mod json;
mod lexer;
mod limits;
mod order;
mod parser;
mod reader;
mod request;
mod response;
mod scan;
mod server_message;
mod syntax;
mod text;
mod unicode;
mod value;

pub use command_type::{CommandType, EventType};
#[doc(hidden)]
pub use command_types_macro::doc;
pub use dialect::{Dialect, UnknownDialect};
pub use error::{BoxError, Error, ErrorClass, UnknownErrorClass};
pub use event::{Event, Timestamp};
pub use greeting::{Capability, Greeting, Version, VersionTriple};
pub use json::{EncodeError, Json, Layout};
pub use limits::Limits;
pub use reader::{Message, Reader, ReaderState};
pub use request::{Band, Bands, Request, RequestError, RequestText};
pub use response::Response;
pub use server_message::{ServerMessage, ServerMessageError};
pub use syntax::{Location, SyntaxError, SyntaxErrorKind};
pub use value::object;
pub use value::{
    DecodeError, DecodeErrorKind, Number, Object, ParseValueError, Value, from_object, from_value,
};

/// Derives `Serialize` and `Deserialize`, as [`command_types!`] does. A crate that does not depend on it derives with
/// `#[serde(crate = "qmp_proto::serde")]`.
pub use serde;

/// All of it can be sent to another thread, and shared.
const _: () = {
    const fn check<T: Send + Sync + Unpin>() {}
    check::<(Reader, Message<'static>, Request, RequestError, RequestText<'static>)>();
    check::<(Greeting, Response, Event, ServerMessage, ServerMessageError, SyntaxError)>();
    check::<(client::Session, client::Received, client::SessionError)>();
    check::<(Json, EncodeError, Value, object::Iter<'static>, object::IntoIter, DecodeError)>();
};

/// Its example is run.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
