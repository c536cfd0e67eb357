// SPDX-License-Identifier: MIT OR Apache-2.0
//! Finding where a server answers otherwise than QEMU does.
//!
//! Random [inputs](crate::inputs) go to all [peers](peer::Peer), one of which is a real QEMU, many on one connection:
//!
//! - Any [`messages`] go to the smallest QEMU there is; between two of them the connection is brought back to a clean
//!   state. A [`model`](model::Model), which is `qmp-proto` and the rules of negotiation, foretells the answers, and says
//!   which of them may overtake others.
//! - Well-formed commands with all kinds of [`arguments`] go to a QEMU with a machine, if there is one.
//! - [`files`] of any contents, and their beginnings, go to the smallest QEMU on a connection each, which is half-closed
//!   behind them.
//!
//! Our side is the server, or the [mux](peer::Subject::Mux) in front of the same program.
//!
//! A difference is made [as small as possible](shrink::shrink) before it is shown.

mod answers;
pub mod arguments;
mod batches;
pub mod files;
pub mod messages;
pub mod model;
pub mod peer;
mod shrink;

pub use batches::{Options, Outcome};
