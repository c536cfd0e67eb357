// SPDX-License-Identifier: MIT OR Apache-2.0
//! QMP commands as typed Rust functions.
//!
//! Register functions and get what QEMU's code generator makes from a schema: argument checks with
//! QEMU's own error texts, `query-commands`, `query-qmp-schema`, capabilities negotiation, events.
//! No sockets and no threads: messages in, responses and events out. `qmp-server` brings the I/O;
//! any other transport will do.
//!
//! # What it promises
//!
//! - A handler runs only with arguments that are right. Whatever is wrong with them is answered
//!   before, in QEMU's words and order.
//! - A request gets one response, with its id, also when its handler panics.
//! - An event that a handler emits comes before the response to its command. Nobody gets events
//!   before having completed negotiation.
//! - While a handler runs, [`current`] names its monitor, on that thread and nowhere else; the one
//!   before is back afterwards, however the handler ended.
//! - Introspection is derived from the same types as the checks; nobody writes a schema twice.
//!
//! # Example
//!
//! ```
//! use std::sync::{Arc, Mutex};
//!
//! use qmp_dispatch::proto::{Error, Layout, Reader, Version, VersionTriple};
//! use qmp_dispatch::{Context, Dispatcher, Locals, Output, Registry, Time};
//! use schemars::JsonSchema;
//! use serde::Deserialize;
//!
//! #[derive(Deserialize, JsonSchema)]
//! struct BlockResize {
//!     device: String,
//!     size: i64,
//! }
//!
//! fn block_resize(_: &Context, arguments: BlockResize) -> Result<(), Error> {
//!     match arguments.size {
//!         0.. => Ok(()),
//!         _ => Err(Error::generic(format!("'{}' cannot shrink below zero", arguments.device))),
//!     }
//! }
//!
//! /// Where the monitor's output goes: a socket elsewhere, a string here.
//! #[derive(Default)]
//! struct Screen(Mutex<String>);
//!
//! impl Output for Screen {
//!     fn transmit(&self, text: &str) {
//!         self.0.lock().unwrap().push_str(text);
//!     }
//! }
//!
//! let mut registry = Registry::new();
//! registry.command("block_resize", block_resize)?;
//! let version = Version {
//!     qemu: VersionTriple { major: 0, minor: 1, micro: 0 },
//!     package: "example".into(),
//! };
//! let dispatcher = Dispatcher::new(registry, version, Time::default);
//!
//! let screen = Arc::new(Screen::default());
//! let monitor = dispatcher.connect(screen.clone(), Layout::Compact, Locals::default());
//! let mut reader = Reader::default();
//! let mut input: &[u8] = b"{'execute': 'qmp_capabilities'}
//!     {'execute': 'block_resize', 'arguments': {'device': 'disk0', 'size': '1G'}, 'id': 1}";
//! while let Some(message) = reader.read(&mut input) {
//!     monitor.execute(monitor.receive(message), || ());
//! }
//!
//! let said = screen.0.lock().unwrap();
//! let lines: Vec<&str> = said.lines().collect();
//! assert!(lines[0].starts_with(r#"{"QMP": {"version": "#));
//! assert_eq!(lines[1], r#"{"return": {}}"#);
//! assert_eq!(
//!     lines[2],
//!     r#"{"id": 1, "error": {"class": "GenericError", "desc": "Invalid parameter type for 'size', expected: integer"}}"#
//! );
//! # Ok::<(), qmp_dispatch::RegisterError>(())
//! ```

mod command;
mod context;
mod deadline;
mod dispatcher;
mod event;
mod forward;
mod handler;
mod intercept;
mod locals;
mod monitor;
mod protocol_commands;
pub mod qapi;
mod registry;
mod reply;
mod throttle;
mod trace;

pub use qmp_proto as proto;
/// Derives [`JsonSchema`](schemars::JsonSchema). A crate that does not depend on it derives with
/// `#[schemars(crate = "qmp_dispatch::schemars")]`.
pub use schemars;
/// Derives `Serialize` and `Deserialize`. A crate that does not depend on it derives with
/// `#[serde(crate = "qmp_dispatch::serde")]`.
pub use serde;

pub use command::Command;
pub use context::{Context, current};
pub use dispatcher::{Dispatcher, Time};
pub use event::{DeclaredEvent, EmitError, EventType};
pub use forward::{Forwarded, Forwarder};
pub use handler::{DeferredHandler, Handler, Stateless};
pub use intercept::{Call, Interceptor};
pub use locals::Locals;
pub use monitor::{Monitor, MonitorId, Output, Pending};
pub use registry::{Group, RegisterError, Registry};
pub use reply::Responder;

/// Its example is compiled.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
