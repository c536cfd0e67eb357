// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the leadership synchronises with: the tests of interleavings compile `leader.rs` against an explorer's
//! primitives instead.

pub(super) use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
pub(super) use std::sync::{Mutex, MutexGuard};
