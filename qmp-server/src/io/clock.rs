// SPDX-License-Identifier: MIT OR Apache-2.0
//! The time.

use std::sync::LazyLock;
use std::time::{Instant, SystemTime};

use qmp_dispatch::Time;
use qmp_dispatch::proto::Timestamp;

/// The time as the system tells it, for [`Dispatcher::new`](qmp_dispatch::Dispatcher::new).
pub fn system_time() -> Time {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    let wall = match SystemTime::now().duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) => Timestamp::from_unix(since),
        // What QEMU says when it cannot tell the time.
        Err(_) => Timestamp { seconds: -1, microseconds: -1 },
    };
    Time { wall, monotonic: START.elapsed() }
}
