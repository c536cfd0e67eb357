// SPDX-License-Identifier: MIT OR Apache-2.0
//! Limits how often one place in the code logs: clients can cause some lines as often as they like.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::callsite::Identifier;
use tracing::{Level, Metadata};

/// Lines of one place in a [`WINDOW`].
const MOST_LINES: u64 = 60;

const WINDOW: Duration = Duration::from_secs(60);

/// Lines of each place in the code that were written lately.
#[derive(Default)]
pub(super) struct Limiter {
    /// There are as many as places that log, and only those that logged in the last minute or so.
    windows: Mutex<HashMap<Identifier, Window>>,
}

struct Window {
    began: Instant,
    lines: u64,
    level: Level,
    target: String,
}

impl Limiter {
    /// Whether a line may be written. Debugging and trace points, which somebody has asked for, always may.
    pub(super) fn admits(&self, metadata: &Metadata<'_>, now: Instant) -> bool {
        if *metadata.level() > Level::INFO {
            return true;
        }
        let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        let (level, target) = (*metadata.level(), metadata.target());
        let new = || Window { began: now, lines: 0, level, target: target.to_owned() };
        let window = windows.entry(metadata.callsite()).or_insert_with(new);
        window.lines += 1;
        window.lines <= MOST_LINES
    }

    /// Ends the windows that are over, and logs what was left out in them. Returns when the next one is over.
    pub(super) fn report(&self, now: Instant) -> Option<Instant> {
        let mut over = Vec::new();
        let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        windows.retain(|_, window| {
            let is_over = window.began + WINDOW <= now;
            if is_over && window.lines > MOST_LINES {
                over.push((window.lines - MOST_LINES, window.level, window.target.clone()));
            }
            !is_over
        });
        let next = windows.values().map(|window| window.began + WINDOW).min();
        // To log takes the lock again.
        drop(windows);
        for (lines, level, target) in over {
            tracing::warn!("{lines} more lines of {level} {target} in a minute are left out");
        }
        next
    }
}
