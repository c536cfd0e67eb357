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
use tracing::{Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::writer::OptionalWriter;
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
#[derive(Clone, Debug, PartialEq)]
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
    let lines = Lines::default();
    let wanted = Wanted { filter: filter.0, trace_points };
    let limited = Limited { lines: lines.clone(), limiter: Arc::clone(&limiter) };
    let layer = tracing_subscriber::fmt::layer().with_writer(limited);
    let layer = match format {
        LogFormat::Text => layer.boxed(),
        LogFormat::Json => layer.json().boxed(),
    };
    tracing_subscriber::registry().with(layer.with_filter(wanted)).init();
    // Not `Stderr`, whose lock would be held as long as nobody reads.
    let stderr = File::from(io::stderr().as_fd().try_clone_to_owned()?);
    Ok(lines.start(stderr, move |now| limiter.report(now)))
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

/// Where lines are written, if their place in the code has not logged too often.
///
/// Not a filter: of those, one alone that refuses an event (`event_enabled`) leaves the state of its thread wrong.
struct Limited {
    lines: Lines,
    limiter: Arc<Limiter>,
}

impl MakeWriter<'_> for Limited {
    type Writer = OptionalWriter<Lines>;

    fn make_writer(&self) -> OptionalWriter<Lines> {
        OptionalWriter::some(self.lines.clone())
    }

    fn make_writer_for(&self, metadata: &Metadata<'_>) -> OptionalWriter<Lines> {
        match self.limiter.admits(metadata, Instant::now()) {
            true => self.make_writer(),
            false => OptionalWriter::none(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::time::Duration;

    use super::*;

    /// What is logged meanwhile. For one test alone: callsites learn from all subscribers of the process.
    fn logged(what: impl FnOnce(&Limiter)) -> String {
        let (limiter, lines) = (Arc::<Limiter>::default(), Lines::default());
        let (mut reader, writer) = io::pipe().unwrap();
        let guard = lines.start(writer, |_| None);
        let trace_points = Arc::new(TracePoints::default());
        let filter = "trace".parse::<LogFilter>().unwrap().0;
        let wanted = Wanted { filter, trace_points };
        let limited = Limited { lines, limiter: Arc::clone(&limiter) };
        let layer = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(limited);
        let subscriber = tracing_subscriber::registry().with(layer.with_filter(wanted));
        tracing::subscriber::with_default(subscriber, || what(&limiter));
        drop(guard);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn one_place_logs_so_many_lines_in_a_minute() {
        let text = logged(|limiter| {
            for number in 0..300 {
                tracing::warn!(number, "a stranger knocks");
            }
            tracing::warn!("something else");
            let next = limiter.report(Instant::now()).unwrap();
            limiter.report(next + Duration::from_secs(1));
            tracing::warn!("a stranger knocks");
            // Somebody wants to see this in full.
            (0..300).for_each(|_| tracing::debug!("a step"));
        });
        assert_eq!(text.matches("a step").count(), 300);
        assert_eq!(text.matches("a stranger knocks").count(), 61);
        assert!(text.contains("something else"));
        let left_out = "240 more lines of WARN qmp_server::log::tests in a minute are left out";
        assert!(text.contains(left_out), "{text}");
    }

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
