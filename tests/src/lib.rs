// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the cross-crate tests are made of: a runner of recorded conformance cases and a harness for servers.
//!
//! Everything here looks at a server from outside, through its sockets, its command line and its exit status. Only
//! [`difffuzz`], and [`bench::fairness`] to count, use a crate under test: elsewhere, a mistake of ours could be made twice
//! and cancel itself out.
//!
//! - [`chaos`] sends our server clients of every bad sort; the program `soak` is its command line.
//! - [`hostile`] lets attackers of every known kind loose on it, all at once; so does `soak --hostile`.
//! - [`conformance`] holds any QMP server, QEMU included, against the cases in `conformance/cases`. The program
//!   `conformance` is its command line.
//! - [`difffuzz`] compares the answers to random [`inputs`] with those of a real QEMU.
//! - [`schema`] reads what `query-qmp-schema` returns, [`exposition`] what Prometheus would.
//! - [`bench`] measures our server beside others, [`report`] makes one report of all benchmarks.
//! - [`server`] starts our own server for a test, [`connection`] talks to it, [`programs`] finds the clients that are
//!   not written in Rust.
//! - [`upstream`] has the mux in front of a program of QEMU's, and [`scripted`] is a server that does what a test says.

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
pub mod relay;
pub mod report;
pub mod schema;
pub mod scripted;
pub mod server;
pub mod upstream;

/// The example of the project's front page is compiled.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;

/// The examples of the guide's page on commands are run.
#[cfg(doctest)]
#[doc = include_str!("../../docs/commands.md")]
struct Commands;
