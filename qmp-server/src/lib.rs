// SPDX-License-Identifier: MIT OR Apache-2.0
//! A control socket that clients of the QEMU Machine Protocol cannot tell from QEMU's own.
//!
//! This crate wires the layers below to the world: `qmp-dispatch` has the commands, `qmp-queue` says
//! whose turn it is, and here are the sockets and threads. The program `qmp-server` is in the package
//! `qmp-server-cli`.
//!
//! # What it promises
//!
//! - Any number of clients on one socket at a time, each with a monitor of its own.
//! - In-band commands of all clients are executed one at a time, or one of each client
//!   ([`Discipline`]), the least recently served client first. Out-of-band commands are executed at
//!   once, also while an in-band command blocks.
//! - Back-pressure is not reading: a client that has as many requests waiting as it may, or that
//!   does not read its responses, is not read from, and holds up nobody else. Nothing it does makes
//!   memory grow without bound.
//! - Descriptors that clients pass along reach the handlers, through [`Descriptors`].
//! - The server ends in order: what is being executed is answered, clients get what is left for
//!   them, sockets are removed.
//! - Nobody is let in unknown: processes of this machine are identified ([`Access`]), and what comes
//!   from elsewhere needs TLS (feature `tls`), unless one insists otherwise. Handlers can see the [`Peer`].
//!
//! ```
//! use std::io::{BufRead, BufReader, Write};
//! use std::os::unix::net::UnixStream;
//!
//! use qmp_server::dispatch::{Context, Dispatcher, Registry};
//! use qmp_server::{Address, Listen, Server, system_time, version};
//!
//! let mut registry = Registry::new();
//! registry.infallible_command("x-ping", |_: &Context| "pong".to_owned())?;
//! let dispatcher = Dispatcher::new(registry, version(), system_time);
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("qmp.sock");
//! let listen = Listen::new(Address::Unix(path.clone()));
//! let server = Server::new(dispatcher).listen(&listen)?.spawn()?;
//!
//! let mut client = UnixStream::connect(path)?;
//! client.write_all(b"{'execute': 'qmp_capabilities'} {'execute': 'x-ping'}")?;
//! let said: Vec<String> = BufReader::new(client).lines().take(3).collect::<Result<_, _>>()?;
//! assert!(said[0].starts_with(r#"{"QMP": {"version": "#));
//! assert_eq!(said[1..], [r#"{"return": {}}"#, r#"{"return": "pong"}"#]);
//! # server.control().shutdown();
//! # server.wait();
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Features
//!
//! Unix sockets, TCP on loopback addresses, vsock, inherited descriptors and stdio are always there. All else is a
//! feature, and off by default:
//!
//! - `tls`: listening at `tls:` addresses, with clients' certificates if asked for;
//! - `roles`: what each client may do ([`Roles`]);
//! - `audit`: what clients do, written to a file ([`Audit`]);
//! - `metrics`: figures for Prometheus, also over HTTP ([`Metrics`]);
//! - `mux`: one QMP server, such as QEMU, shared among many clients ([`Mux`]);
//! - `machine`: the commands and events of a simulated guest ([`register_machine`]), and the parts that it is made of, each
//!   by itself: [`register_descriptors`], [`FdSets`], [`RunControl`], [`Yank`], [`register_trace_points`];
//! - `macros`: the attribute `dispatch::qmp_commands`, with which methods become commands;
//! - `tokio`: clients over streams of an asynchronous runtime, and async commands on it ([`TokioExecutor`]).
//!
//! # Three ways to embed it
//!
//! - [`Server::spawn`]: on threads of its own. The usual request is read, executed and answered
//!   without a switch between them.
//! - [`Server::embed`]: in-band commands are executed by a poll loop that is there already, which
//!   polls a descriptor and calls [`Embedded::dispatch_one`].
//! - With the feature `tokio`, `Control::serve_stream`: over anything that is `AsyncRead` and
//!   `AsyncWrite`, in a task.
//!
//! Of the examples, `nbd` is a whole program: a block back end with a main loop, threads that do I/O, and
//! the commands and events that QEMU has for that.

#![cfg_attr(docsrs, feature(doc_cfg))]
// The core has functions that only the features call. Dead code is found when all of them are on.
#![cfg_attr(
    not(all(
        feature = "audit",
        feature = "machine",
        feature = "metrics",
        feature = "mux",
        feature = "roles",
        feature = "tls"
    )),
    allow(dead_code)
)]

mod access;
mod agent_client;
#[cfg(feature = "audit")]
mod audit;
mod client;
mod deadline_profile;
mod engine;
#[cfg(feature = "tokio")]
mod executor;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod glob;
#[cfg(any(feature = "mux", feature = "roles"))]
mod introspected;
mod io;
mod listen;
#[cfg(feature = "machine")]
mod machine;
#[cfg(feature = "metrics")]
mod metrics;
#[cfg(feature = "mux")]
mod mux;
mod observe;
#[cfg(feature = "roles")]
mod roles;
mod server;
mod session;
mod steps;
mod transport;

/// Commands, events and, below them, messages: what a program that embeds the server needs of both.
pub use qmp_dispatch as dispatch;

pub use access::{Access, Limits, Quota};
pub use agent_client::AgentClient;
#[cfg(feature = "audit")]
pub use audit::Audit;
pub use client::{Client, ClientError, Closed};
pub use deadline_profile::{DeadlineProfile, UnknownProfile};
pub use engine::{Engine, EngineBuilder};
#[cfg(feature = "tokio")]
pub use executor::TokioExecutor;
#[cfg(any(feature = "audit", feature = "roles"))]
pub use glob::PatternError;
pub use io::system_time;
pub use listen::{Listen, ListenError};
#[cfg(feature = "machine")]
pub use machine::{
    FdSets, Guest, MachineOptions, RunControl, RunState, SHUTDOWN, Shutdown, ShutdownCause, Yank,
    YankInstance, register_descriptors, register_fd_sets, register_machine, register_preconfig,
    register_run_state, register_trace_points, register_yank,
};
#[cfg(feature = "metrics")]
pub use metrics::{Metrics, MetricsEndpoint, MetricsOfAll, register_metrics};
#[cfg(feature = "mux")]
pub use mux::{
    Dial, DialIn, DialInSockets, Frozen, Handover, InFlightCommand, Mux, UnknownUpstreamLost,
    UpstreamLost, UpstreamStatus,
};
pub use observe::{ClientStatus, RunningCommand, ServerStatus, TracePoints, version};
#[cfg(feature = "roles")]
pub use roles::{Role, RoleError, Roles, RolesInForce, Subject};
pub use server::{Control, Embedded, Server, ServerHandle, register_status};
pub use session::{Descriptor, Descriptors, Discipline, EVENTS_MISSED, EventsMissed};
pub use transport::{
    Address, AddressError, CertificateName, Closing, Connect, ConnectTls, DialOut, KeepAlive,
    ListenTls, Listener, Peer, Received, Renewal, Transport, Travels,
};

/// Its example is compiled.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

#[cfg(all(test, feature = "audit", feature = "metrics", feature = "mux", feature = "roles"))]
mod tests {
    use super::*;

    #[test]
    fn what_embedders_hold_can_be_shared_by_threads() {
        fn check<T: Send + Sync>() {}
        check::<Audit>();
        check::<Metrics>();
        check::<MetricsEndpoint>();
        check::<Mux>();
        check::<Roles>();
    }
}
