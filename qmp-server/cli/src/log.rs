// SPDX-License-Identifier: MIT OR Apache-2.0
//! The log, on standard error.

mod limiter;
mod writer;

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Instant;

use clap::ValueEnum;
use qmp_server::TracePoints;
use serde::Deserialize;
use tracing::level_filters::LevelFilter;
use tracing::subscriber::Interest;
use tracing::{Event, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Context, Filter, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

use self::limiter::Limiter;
pub(crate) use self::writer::Guard;
use self::writer::Lines;

/// How lines of the log look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// Which lines get into the log, whatever the trace points: a level, levels of targets, or both.
#[derive(Clone, Debug)]
pub(crate) struct LogFilter(Targets);

impl Default for LogFilter {
    fn default() -> LogFilter {
        LogFilter(Targets::new().with_default(LevelFilter::WARN))
    }
}

impl FromStr for LogFilter {
    type Err = String;

    fn from_str(text: &str) -> Result<LogFilter, String> {
        for part in text.split(',') {
            // A target without a level would be understood, and so would any misspelt level.
            let level = part.split_once('=').map_or(part, |(_, level)| level);
            if level.is_empty() || level.parse::<LevelFilter>().is_err() {
                return Err(format!(
                    "'{level}' is no level: expected off, error, warn, info, debug or trace"
                ));
            }
        }
        text.parse().map(LogFilter).map_err(|_| "expected LEVEL or TARGET=LEVEL".to_owned())
    }
}

/// Writes a log from now on, until the guard is dropped. If nobody reads standard error, lines are dropped and the
/// server goes on.
pub(crate) fn start(
    format: LogFormat,
    filter: LogFilter,
    trace_points: Arc<TracePoints>,
) -> io::Result<Guard> {
    let limiter = Arc::<Limiter>::default();
    let wanted = Wanted { filter: filter.0, trace_points, limiter: Arc::clone(&limiter) };
    let lines = Lines::default();
    let layer = tracing_subscriber::fmt::layer().with_writer(lines.clone());
    let layer = match format {
        LogFormat::Text => layer.boxed(),
        LogFormat::Json => layer.json().boxed(),
    };
    tracing_subscriber::registry().with(layer.with_filter(wanted)).init();
    // Not `Stderr`, whose lock would be held as long as nobody reads.
    let stderr = File::from(io::stderr().as_fd().try_clone_to_owned()?);
    lines.start(stderr, move |now| limiter.report(now))
}

/// What the filter lets through, and what enabled trace points say.
struct Wanted {
    filter: Targets,
    trace_points: Arc<TracePoints>,
    limiter: Arc<Limiter>,
}

impl Wanted {
    fn wants(&self, metadata: &Metadata<'_>) -> bool {
        self.filter.would_enable(metadata.target(), metadata.level())
            || self.trace_points.is_enabled(metadata.name())
    }
}

impl<S: Subscriber> Filter<S> for Wanted {
    fn enabled(&self, metadata: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        self.wants(metadata)
    }

    fn event_enabled(&self, event: &Event<'_>, _: &Context<'_, S>) -> bool {
        self.limiter.admits(event.metadata(), Instant::now())
    }

    /// Kept by each place that logs, so that one which is not wanted costs next to nothing. Asked
    /// for again when trace points change.
    fn callsite_enabled(&self, metadata: &'static Metadata<'static>) -> Interest {
        if self.wants(metadata) { Interest::always() } else { Interest::never() }
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        if self.trace_points.is_any_enabled() {
            return Some(LevelFilter::TRACE);
        }
        Filter::<S>::max_level_hint(&self.filter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_of_targets_are_understood() {
        for good in ["warn", "off", "qmp_server=debug", "info,qmp_server::core=trace", "DEBUG"] {
            assert!(good.parse::<LogFilter>().is_ok(), "{good}");
        }
    }

    #[test]
    fn what_is_no_level_is_not_taken_for_a_target() {
        for bad in ["", "loud", "qmp_server", "qmp_server=loud", "warn,", "warn,qmp_server"] {
            assert!(bad.parse::<LogFilter>().is_err(), "{bad}");
        }
    }
}
