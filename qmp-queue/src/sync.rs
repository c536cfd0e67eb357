// SPDX-License-Identifier: MIT OR Apache-2.0
//! What this crate synchronises with, in one place: the interleaving tests compile the same sources
//! against an explorer's primitives instead.

pub(crate) use std::sync::atomic::{AtomicU8, Ordering};
pub(crate) use std::sync::{Condvar, Mutex, MutexGuard};
