// SPDX-License-Identifier: MIT OR Apache-2.0
//! The log, on standard error.

use std::io;
use std::str::FromStr;
use std::sync::Arc;

use clap::ValueEnum;
use qmp_server::TracePoints;
use serde::Deserialize;
use tracing::level_filters::LevelFilter;
use tracing::subscriber::Interest;
use tracing::{Metadata, Subscriber};
use tracing_appender::non_blocking::WorkerGuard;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Context, Filter, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

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

/// Writes a log from now on. Should nobody read standard error, lines are dropped and the server
/// goes on. What is left is written when the guard is dropped.
pub(crate) fn start(
    format: LogFormat,
    filter: LogFilter,
    trace_points: Arc<TracePoints>,
) -> WorkerGuard {
    let wanted = Wanted { filter: filter.0, trace_points };
    let (writer, guard) = tracing_appender::non_blocking(io::stderr());
    let lines = tracing_subscriber::fmt::layer().with_writer(writer);
    let lines = match format {
        LogFormat::Text => lines.boxed(),
        LogFormat::Json => lines.json().boxed(),
    };
    tracing_subscriber::registry().with(lines.with_filter(wanted)).init();
    guard
}

/// What the filter lets through, and what enabled trace points say.
struct Wanted {
    filter: Targets,
    trace_points: Arc<TracePoints>,
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
