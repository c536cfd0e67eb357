// SPDX-License-Identifier: MIT OR Apache-2.0
//! Trace points that can be switched while the server runs.

use std::sync::atomic::{AtomicBool, Ordering};

/// The trace points that the layers below have, by QEMU's names.
const NAMES: [&str; 4] = [
    "handle_qmp_command",
    "monitor_qmp_cmd_in_band",
    "monitor_qmp_cmd_out_of_band",
    "monitor_qmp_respond",
];

/// Which trace points are enabled; none at first. What they say goes to the log.
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
        if let Some(point) = point {
            point.store(enabled, Ordering::Relaxed);
        }
        point.is_some()
    }

    fn point(&self, name: &str) -> Option<&AtomicBool> {
        let index = NAMES.iter().position(|point| *point == name)?;
        Some(&self.enabled[index])
    }
}
