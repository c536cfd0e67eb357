// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the cross-crate tests are made of: a runner of recorded conformance cases and a harness for servers.
//!
//! Everything here looks at a server from outside, through its sockets, its command line and its exit status. Nothing
//! here depends on the crates under test, so that none of their mistakes can be made twice.
//!
//! - [`conformance`] holds any QMP server, QEMU included, against the cases in `conformance/cases`. The program
//!   `conformance` is its command line.
//! - [`server`] starts our own server for a test, [`connection`] talks to it, [`programs`] finds the clients that are
//!   not written in Rust.

pub mod conformance;
pub mod connection;
pub mod difffuzz;
pub mod endpoint;
pub mod inputs;
pub mod json;
pub mod process;
pub mod programs;
pub mod server;
