// SPDX-License-Identifier: MIT OR Apache-2.0
//! Holding a QMP server against recorded cases.
//!
//! A [case](case::Case) is a list of [steps](step::Step): bytes to send, and what must come back, to the byte. Each case
//! has a connection of its own; [`case_run`] goes through its steps, [`matching`] compares what came with what was
//! expected. [`selection`] says which cases apply, [`target`] starts the server where that is asked for,
//! [`our_server`] ours over any transport, and [`runner`] does all of them and counts. [`junit`] writes the results for CI
//! systems.

pub mod case;
pub mod case_run;
pub mod junit;
pub mod matching;
pub mod our_server;
pub mod runner;
pub mod selection;
pub mod step;
pub mod target;
