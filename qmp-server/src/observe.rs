// SPDX-License-Identifier: MIT OR Apache-2.0
//! What operators can see: counters, snapshots of them, and trace points.

mod client_counters;
mod counter;
mod counters;
mod histogram;
mod status;
pub(crate) mod trace;
mod trace_points;
mod version;

pub(crate) use client_counters::ClientCounters;
pub(crate) use counter::Counter;
pub(crate) use counters::{Counters, CutOff, Gauges, Refusal};
#[cfg(feature = "metrics")]
pub(crate) use histogram::Distribution;
pub(crate) use status::milliseconds;
pub use status::{ClientStatus, RunningCommand, ServerStatus};
pub use trace_points::TracePoints;
pub use version::version;
