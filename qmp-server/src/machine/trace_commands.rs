// SPDX-License-Identifier: MIT OR Apache-2.0
//! Switching trace points: `trace-event-get-state`, `trace-event-set-state`. Mirrors
//! `qapi/trace.json` and `trace/qmp.c`.

use std::sync::Arc;

use qmp_dispatch::proto::Error;
use qmp_dispatch::{Context, RegisterError, Registry};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{TracePoints, glob};

#[derive(Deserialize, JsonSchema)]
struct TraceEventGetState {
    name: String,
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
struct TraceEventSetState {
    name: String,
    enable: bool,
    /// Every trace point here is available.
    #[expect(dead_code, reason = "has nothing to excuse")]
    ignore_unavailable: Option<bool>,
}

#[derive(Serialize, JsonSchema)]
struct TraceEventInfo {
    name: &'static str,
    state: TraceEventState,
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[expect(dead_code, reason = "every trace point here is available")]
enum TraceEventState {
    Unavailable,
    Disabled,
    Enabled,
}

/// Registers `trace-event-get-state` and `trace-event-set-state`.
///
/// # Errors
///
/// [`RegisterError`] if the registry has one of the commands already.
pub fn register_trace_points(
    registry: &mut Registry,
    trace_points: &Arc<TracePoints>,
) -> Result<(), RegisterError> {
    let mut group = registry.with(Arc::clone(trace_points));
    group.command("trace-event-get-state", trace_event_get_state)?;
    group.command("trace-event-set-state", trace_event_set_state)?;
    Ok(())
}

/// The trace points that `name` stands for. A name that is no pattern must be one of them.
fn select(points: &TracePoints, name: &str) -> Result<Vec<&'static str>, Error> {
    let is_pattern = name.contains('*');
    let selected: Vec<_> = if is_pattern {
        points.names().filter(|point| glob::matches(name, point)).collect()
    } else {
        points.names().filter(|point| *point == name).collect()
    };
    if selected.is_empty() && !is_pattern {
        return Err(Error::generic(format!("unknown event \"{name}\"")));
    }
    Ok(selected)
}

fn trace_event_get_state(
    points: &TracePoints,
    _: &Context,
    arguments: TraceEventGetState,
) -> Result<Vec<TraceEventInfo>, Error> {
    let info = |name| TraceEventInfo {
        name,
        state: match points.is_enabled(name) {
            true => TraceEventState::Enabled,
            false => TraceEventState::Disabled,
        },
    };
    Ok(select(points, &arguments.name)?.into_iter().map(info).collect())
}

fn trace_event_set_state(
    points: &TracePoints,
    _: &Context,
    arguments: TraceEventSetState,
) -> Result<(), Error> {
    for name in select(points, &arguments.name)? {
        points.set(name, arguments.enable);
    }
    Ok(())
}
