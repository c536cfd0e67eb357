// SPDX-License-Identifier: MIT OR Apache-2.0
//! The locks this crate is built on, in one place: the interleaving tests compile the same sources against
//! an explorer's locks instead.

pub(crate) use std::sync::{Condvar, Mutex, MutexGuard};
