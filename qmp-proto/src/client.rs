// SPDX-License-Identifier: MIT OR Apache-2.0
//! The client's side of a connection, without the connection.
//!
//! A [`Session`] waits for the greeting, negotiates, gives requests their ids and matches responses to
//! them. The caller owns the socket: it passes in what it reads, and sends what
//! [`transmit`](Session::transmit) returns.
//!
//! ```text
//!   bytes ──▶ read() ──▶ Received      Greeting, Ready, Response, Event, ...
//!                          │
//!           request() ─────┴──▶ transmit() ──▶ bytes
//! ```
//!
//! Results and the data of events are the server's own text ([`Json`](crate::Json)), which a proxy passes
//! on and a program [decodes](crate::Json::decode). Nothing that has been received is kept, except for
//! one incomplete message.
//!
//! The guest agent speaks the same messages, but greets nobody: an [`AgentSession`] is for it.
//!
//! # Example
//!
//! A program that asks for the version, with the server's part written out:
//!
//! ```
//! use qmp_proto::client::{Ids, Received, Session};
//! use qmp_proto::{Band, Capability, Event};
//!
//! let mut session = Session::new(Ids::random(7), vec![Capability::OOB]);
//! let mut input: &[u8] = b"{\"QMP\": {\"version\": {}, \"capabilities\": [\"oob\"]}}\r\n";
//! assert!(matches!(session.read(&mut input), Some(Ok(Received::Greeting(_)))));
//! // The greeting makes the session negotiate.
//! let text = session.transmit().unwrap();
//! assert_eq!(
//!     text,
//!     "{\"execute\":\"qmp_capabilities\",\"arguments\":{\"enable\": [\"oob\"]},\"id\":7}\n"
//! );
//!
//! let mut input: &[u8] = b"{\"return\": {}, \"id\": 7}\r\n";
//! assert!(matches!(session.read(&mut input), Some(Ok(Received::Ready))));
//! assert!(session.has_enabled(&Capability::OOB));
//!
//! // Any value can be kept with a request; it comes back with the response.
//! session.request("query-version", None, Band::InBand, "the version").unwrap();
//! assert_eq!(session.transmit().unwrap(), "{\"execute\":\"query-version\",\"id\":4294967303}\n");
//!
//! let mut input: &[u8] = b"{\"timestamp\": {\"seconds\": 1, \"microseconds\": 2}, \"event\": \"STOP\"}\r\n\
//!     {\"return\": {\"package\": \"\"}, \"id\": 4294967303}\r\n";
//! while let Some(received) = session.read(&mut input) {
//!     match received? {
//!         Received::Event(event) => assert_eq!(event.name, "STOP"),
//!         Received::Response { request, result } => {
//!             assert_eq!(request, "the version");
//!             assert_eq!(result.unwrap().as_str(), "{\"package\": \"\"}");
//!         }
//!         other => panic!("not expected: {other:?}"),
//!     }
//! }
//! # Ok::<(), qmp_proto::client::SessionError>(())
//! ```

mod agent;
mod foreign;
mod pending;
mod session;
mod size;

pub use agent::{AgentError, AgentReceived, AgentSession, AgentSessionState};
pub use foreign::{Foreign, Protocol};
pub use pending::Ids;
pub use session::{Received, Session, SessionError, SessionState, Stage};
pub use size::RequestTooLarge;
