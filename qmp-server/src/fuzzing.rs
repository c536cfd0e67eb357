// SPDX-License-Identifier: MIT OR Apache-2.0
//! Entries for fuzzing. No part of the API: anything here may change at any time.

use qmp_dispatch::proto::{Error, Request};

use crate::audit::line_of;
use crate::steps;

/// How many steps this thread has counted while it did some work. Not all loops count theirs.
pub fn steps_during<T>(work: impl FnOnce() -> T) -> (T, u64) {
    steps::during(work)
}

/// The line of the audit for a request that had this error.
pub fn audited(request: &Request, error: Error) -> String {
    line_of(request, error)
}
