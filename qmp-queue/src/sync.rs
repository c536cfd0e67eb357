// SPDX-License-Identifier: MIT OR Apache-2.0
//! The synchronisation primitives of this crate. The interleaving tests compile the same sources
//! with shuttle's primitives in their place.

pub(crate) use std::sync::{Condvar, Mutex, MutexGuard};
