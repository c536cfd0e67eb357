// SPDX-License-Identifier: MIT OR Apache-2.0
//! Shared parts of the cross-crate tests: a runner of recorded conformance cases and a harness for servers.
//!
//! Everything here tests a server from outside, through its sockets, its command line and its exit status. Only
//! [`difffuzz`], and [`bench::fairness`] to count, use a crate under test. Elsewhere, the tests do not, so that a mistake in
//! a crate cannot hide itself.
//!
//! What is here fails with a reason, by a panic or an error: that is its purpose, and so it is not documented at each item.
//! Items whose name says what they are have no documentation.
//!
//! - [`chaos`] runs misbehaving clients against our server; the program `soak` is its command line.
//! - [`hostile`] runs attackers of every known kind at once; its command line is `soak --hostile`.
//! - [`conformance`] runs the cases in `conformance/cases` against any QMP server, QEMU included. The program
//!   `conformance` is its command line.
//! - [`difffuzz`] compares the answers to random [`inputs`] with those of a real QEMU.
//! - [`schema`] reads results of `query-qmp-schema`, [`exposition`] metrics in Prometheus's format.
//! - [`bench`] measures our server beside others, [`report`] makes one report of all benchmarks.
//! - [`server`] starts our own server for a test, [`connection`] talks to it, [`programs`] finds the clients that are
//!   not written in Rust.
//! - [`upstream`] starts the mux in front of a QEMU program; [`scripted`] is a server controlled by a test.
//! - [`stdio`] shares a server at standard input and output, again and again.
//! - [`upgrades`] upgrades a mux under load, again and again.
//! - [`waiting`] waits until a condition holds.

#![allow(missing_docs)]

pub mod bench;
pub mod certificates;
pub mod channel;
pub mod chaos;
pub mod command_line;
pub mod conformance;
pub mod connection;
pub mod difffuzz;
pub mod endpoint;
pub mod exposition;
pub mod fuzz;
pub mod hostile;
pub mod inputs;
pub mod json;
pub mod process;
pub mod programs;
pub mod qemus;
pub mod relay;
pub mod report;
pub mod schema;
pub mod scripted;
pub mod server;
pub mod stdio;
pub mod upgrades;
pub mod upstream;
pub mod waiting;

/// The example of the project's front page is compiled.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;

/// The examples of the guide's page on commands are run.
#[cfg(doctest)]
#[doc = include_str!("../../docs/commands.md")]
struct Commands;

/// The examples of the guide's page on types need a schema.
#[cfg(doctest)]
#[doc = include_str!("../../docs/types.md")]
struct Types;

/// The examples of the guide's page on threads are run.
#[cfg(doctest)]
#[doc = include_str!("../../docs/seccomp.md")]
struct Seccomp;
