// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the mailbox and the leadership synchronise with, in one place: the tests of interleavings compile the same
//! sources against an explorer's primitives instead.

pub(crate) use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
pub(crate) use std::sync::{Mutex, MutexGuard};
