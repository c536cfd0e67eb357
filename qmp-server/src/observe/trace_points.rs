// SPDX-License-Identifier: MIT OR Apache-2.0
//! Trace points that can be switched while the server runs.

use crate::glob;
use std::sync::atomic::{AtomicBool, Ordering};

/// The trace points of this crate and of the layers below, by QEMU's names.
const NAMES: [&str; 11] = [
    "handle_qmp_command",
    "monitor_protocol_event_emit",
    "monitor_protocol_event_handler",
    "monitor_protocol_event_queue",
    "monitor_qmp_cmd_in_band",
    "monitor_qmp_cmd_out_of_band",
    "monitor_qmp_err_in_band",
    "monitor_qmp_in_band_dequeue",
    "monitor_qmp_in_band_enqueue",
    "monitor_qmp_respond",
    "monitor_suspend",
];

/// Which trace points are enabled; none at first.
///
/// A trace point is an event of the crate `tracing`, of level TRACE, with QEMU's name as its
/// [name](tracing::Metadata::name). Whether one is written is up to the program's subscriber: its
/// filter asks [`is_enabled`](TracePoints::is_enabled), which is asked again whenever the answer
/// has changed, so a filter may keep what it was told.
///
/// ```
/// use qmp_server::TracePoints;
///
/// let points = TracePoints::default();
/// assert!(!points.is_enabled("handle_qmp_command"));
/// assert!(points.set("handle_qmp_command", true));
/// assert!(points.is_enabled("handle_qmp_command"));
/// assert!(!points.set("no-such-point", true));
/// ```
#[derive(Debug, Default)]
pub struct TracePoints {
    enabled: [AtomicBool; NAMES.len()],
}

impl TracePoints {
    /// The names of all trace points.
    pub fn names(&self) -> impl Iterator<Item = &'static str> + use<> {
        NAMES.into_iter()
    }

    /// Whether this trace point exists and is enabled.
    pub fn is_enabled(&self, name: &str) -> bool {
        self.point(name).is_some_and(|point| point.load(Ordering::Relaxed))
    }

    /// Enables or disables a trace point. Whether there is one of that name.
    pub fn set(&self, name: &str, enabled: bool) -> bool {
        let point = self.point(name);
        if point.is_some_and(|point| point.swap(enabled, Ordering::Relaxed) != enabled) {
            tracing::callsite::rebuild_interest_cache();
        }
        point.is_some()
    }

    /// Enables the trace points that `pattern` stands for, in which `*` is any text and `?` any
    /// character. Whether there is one.
    pub fn enable_matching(&self, pattern: &str) -> bool {
        let mut names = self.names().filter(|name| glob::matches(pattern, name)).peekable();
        let found = names.peek().is_some();
        for name in names {
            self.set(name, true);
        }
        found
    }

    /// Whether any trace point is enabled.
    pub fn is_any_enabled(&self) -> bool {
        self.enabled.iter().any(|point| point.load(Ordering::Relaxed))
    }

    fn point(&self, name: &str) -> Option<&AtomicBool> {
        let index = NAMES.iter().position(|point| *point == name)?;
        Some(&self.enabled[index])
    }
}
