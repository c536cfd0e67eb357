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
//! - A handler runs only with arguments that are right. Errors in them are answered
//!   before, in QEMU's words and order.
//! - A request gets one response, with its id, also when its handler panics.
//! - An event that a handler emits comes before the response to its command. Nobody gets events
//!   before having completed negotiation.
//! - While a handler runs, [`current`] names its monitor, on that thread and nowhere else; the one
//!   before is back afterwards, however the handler ended. The same holds for each poll of an
//!   [async](Registry::async_command) handler.
//! - A handler that has begun is not interrupted. One that answers later is notified when its client has disconnected or
//!   its deadline has passed.
//! - Introspection is derived from the same types as the checks; nobody writes a schema twice.
//!
//! # A first command
//!
//! A whole program, which depends on nothing but this crate:
//!
//! ```
//! use qmp_dispatch::proto::Error;
//! use qmp_dispatch::{Context, LocalClient, RegisterError, Registry, qapi_types};
//!
//! qapi_types! {
//!     struct BlockResize {
//!         node_name: String,
//!         size: i64,
//!     }
//! }
//!
//! fn block_resize(_: &Context, new: BlockResize) -> Result<(), Error> {
//!     match new.size {
//!         0.. => Ok(()),
//!         _ => Err(Error::generic(format!("'{}' cannot shrink below zero", new.node_name))),
//!     }
//! }
//!
//! fn main() -> Result<(), RegisterError> {
//!     let mut registry = Registry::new();
//!     registry.command("block_resize", block_resize)?;
//!
//!     let client = LocalClient::new(registry);
//!     let said = client.ask(
//!         "{'execute': 'block_resize', 'arguments': {'node-name': 'disk0', 'size': -1}}
//!          {'execute': 'block_resize', 'arguments': {'node-name': 'disk0', 'size': '1G'}}",
//!     );
//!     assert_eq!(
//!         said,
//!         [
//!             r#"{"error": {"class": "GenericError", "desc": "'disk0' cannot shrink below zero"}}"#,
//!             r#"{"error": {"class": "GenericError", "desc": "Invalid parameter type for 'size', expected: integer"}}"#,
//!         ]
//!     );
//!     Ok(())
//! }
//! ```
//!
//! [`qapi`] says which Rust types there are in QAPI. Types that derive serde's traits and
//! [`JsonSchema`](schemars::JsonSchema) by themselves are as good as those of [`qapi_types!`].
//!
//! # Features
//!
//! - `macros`: the attribute `#[qmp_commands]`, with which methods of an impl block become commands. Off by default.
//!
//! # A client elsewhere
//!
//! The owner of a connection creates a monitor for it, passes messages to the monitor, and transmits its output:
//!
//! ```
//! use std::sync::{Arc, Mutex};
//!
//! use qmp_dispatch::proto::{Layout, Reader, Version};
//! use qmp_dispatch::{Dispatcher, Locals, Output, Registry, Time};
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
//! let version = Version::new(0, 1, 0, "example");
//! let dispatcher = Dispatcher::new(Registry::new(), version, Time::default);
//!
//! let screen = Arc::new(Screen::default());
//! let monitor = dispatcher.connect(screen.clone(), Layout::Compact, Locals::default());
//! let mut reader = Reader::default();
//! let mut input: &[u8] = b"{'execute': 'qmp_capabilities', 'id': 1}";
//! while let Some(message) = reader.read(&mut input) {
//!     // What is in-band may wait in a queue here.
//!     monitor.execute(monitor.receive(message), || ());
//! }
//!
//! let said = screen.0.lock().unwrap();
//! let lines: Vec<&str> = said.lines().collect();
//! assert!(lines[0].starts_with(r#"{"QMP": {"version": "#));
//! assert_eq!(lines[1], r#"{"return": {}, "id": 1}"#);
//! ```

mod audience;
mod closing;
mod command;
mod context;
mod deadlines;
mod dispatcher;
mod emit;
mod event;
mod filters;
mod forward;
mod handler;
mod handover;
mod intercept;
mod last_command;
mod later;
mod local_client;
mod locals;
mod monitor;
mod panics;
#[doc(hidden)]
pub mod parts;
mod protocol_commands;
pub mod qapi;
mod registry;
mod reply;
mod serve;
mod state;
mod stats;
mod steps;
mod timers;
mod trace;
mod types_macro;

/// ```
/// use std::sync::Arc;
///
/// use qmp_dispatch::proto::Error;
/// use qmp_dispatch::{Context, LocalClient, Registry, qapi_types, qmp_commands};
///
/// qapi_types! {
///     struct BlockResize {
///         node_name: String,
///         size: i64,
///     }
/// }
///
/// struct Disks;
///
/// #[qmp_commands]
/// impl Disks {
///     /// Resizes a disk.
///     #[qmp(name = "block_resize")]
///     fn block_resize(&self, _: &Context, new: BlockResize) -> Result<(), Error> {
///         Err(Error::generic(format!("there is no disk '{}'", new.node_name)))
///     }
///
///     /// Counts the blocks of a disk.
///     #[qmp(oob, unstable)]
///     fn x_count(&self, node_name: String, block_size: Option<u32>) -> u64 {
///         node_name.len() as u64 * u64::from(block_size.unwrap_or(512))
///     }
/// }
///
/// let mut registry = Registry::new();
/// Arc::new(Disks).register(&mut registry)?;
/// let said = LocalClient::new(registry)
///     .ask("{'execute': 'x-count', 'arguments': {'node-name': 'disk0', 'block-size': 2}}");
/// assert_eq!(said, [r#"{"return": 10}"#]);
/// # Ok::<(), qmp_dispatch::RegisterError>(())
/// ```
#[cfg(feature = "macros")]
pub use qmp_dispatch_macros::qmp_commands;
pub use qmp_proto as proto;
pub use qmp_proto::{CommandType, EventType};
/// Derives [`JsonSchema`](schemars::JsonSchema). A crate that does not depend on it derives with
/// `#[schemars(crate = "qmp_dispatch::schemars")]`.
pub use schemars;
/// Derives `Serialize` and `Deserialize`. A crate that does not depend on it derives with
/// `#[serde(crate = "qmp_dispatch::serde")]`.
pub use serde;

/// What types of [`qapi_types!`] call this crate.
#[doc(hidden)]
pub mod __derive {
    pub use crate as __qmp_dispatch;
}

pub use command::Command;
pub use context::{Context, current};
pub use deadlines::Deadlines;
pub use dispatcher::{Dispatcher, Snapshot, Time};
pub use event::{DeclaredEvent, EmitError, EventSettings};
pub use forward::{Forwarded, Forwarder};
pub use handler::{DeferredHandler, Handler, InfallibleHandler};
pub use handover::{MonitorState, RequestState};
pub use intercept::{Call, Interceptor};
pub use later::{AsyncContext, AsyncHandler, Spawn, Task};
pub use local_client::{CallError, LocalClient, VirtualClock};
pub use locals::Locals;
pub use monitor::{Monitor, MonitorId, Output, Pending, Spent};
pub use panics::install_panic_hook;
pub use registry::{Group, RegisterError, Registry};
pub use reply::Responder;
pub use serve::{Outcome, Serves, ServesAsync, ServesWith};
pub use stats::DispatcherStats;

/// All of it can be sent to another thread, and shared.
const _: () = {
    const fn check<T: Send + Sync + Unpin>() {}
    check::<(Dispatcher, Snapshot, Monitor, Pending, Context, Call<'static>, Responder<proto::Json>)>(
    );
    check::<(Registry, Command, DeclaredEvent, EventType<fn()>, RegisterError, EmitError)>();
    check::<(AsyncContext, &dyn Spawn, LocalClient, CallError, VirtualClock)>();
    check::<(Locals, Forwarded, qapi::Arguments, qapi::Introspection)>();
};

/// Its example is compiled.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
