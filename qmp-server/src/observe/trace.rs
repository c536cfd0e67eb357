// SPDX-License-Identifier: MIT OR Apache-2.0
//! Trace points of the queue, by the names of QEMU's `monitor/trace-events`. Those of messages and
//! events are in `qmp-dispatch`.

use qmp_dispatch::MonitorId;
use qmp_queue::Producer;

/// Its name is its message, too: what writes logs shows no other.
macro_rules! trace_point {
    ($name:literal, $($field:tt)+) => {
        tracing::event!(name: $name, tracing::Level::TRACE, $($field)+, $name)
    };
}

/// A request is about to be queued behind `len` others of its monitor.
pub(crate) fn monitor_qmp_in_band_enqueue<T>(monitor: MonitorId, producer: &Producer<T>) {
    trace_point!("monitor_qmp_in_band_enqueue", %monitor, len = queued(producer));
}

/// A request has been taken from the queue, where its monitor has `len` left.
pub(crate) fn monitor_qmp_in_band_dequeue<T>(monitor: MonitorId, producer: &Producer<T>) {
    trace_point!("monitor_qmp_in_band_dequeue", %monitor, len = queued(producer));
}

/// A monitor is not read from any more (`cnt` is 1), or is again (-1).
pub(crate) fn monitor_suspend(monitor: MonitorId, cnt: i32) {
    trace_point!("monitor_suspend", %monitor, cnt);
}

fn queued<T>(producer: &Producer<T>) -> usize {
    producer.stats().map_or(0, |stats| stats.queued)
}
