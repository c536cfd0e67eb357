// SPDX-License-Identifier: MIT OR Apache-2.0
//! Ending connections that hang: `query-yank`, `yank`. Mirrors `qapi/yank.json` and `util/yank.c`.

use qmp_dispatch::proto::{Error, ErrorClass};
use qmp_dispatch::{Context, RegisterError, Registry};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Control;

#[derive(PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "kebab-case")]
enum YankInstance {
    #[serde(rename_all = "kebab-case")]
    BlockNode {
        node_name: String,
    },
    Chardev {
        id: String,
    },
    Migration,
}

#[derive(Deserialize, JsonSchema)]
struct Yank {
    instances: Vec<YankInstance>,
}

pub(super) fn register(registry: &mut Registry) -> Result<(), RegisterError> {
    registry.command("query-yank", query_yank)?.allow_oob();
    registry.command("yank", yank)?.allow_oob();
    Ok(())
}

fn query_yank(context: &Context) -> Result<Vec<YankInstance>, Error> {
    let labels = context.monitor().local::<Control>().map(Control::labels).unwrap_or_default();
    Ok(labels.into_iter().map(|id| YankInstance::Chardev { id }).collect())
}

/// Yanks all instances, or none if one of them does not exist.
fn yank(context: &Context, arguments: Yank) -> Result<(), Error> {
    let existing = query_yank(context)?;
    if !arguments.instances.iter().all(|instance| existing.contains(instance)) {
        return Err(Error::new(ErrorClass::DeviceNotFound, "Instance not found"));
    }
    if let Some(control) = context.monitor().local::<Control>() {
        for instance in &arguments.instances {
            if let YankInstance::Chardev { id } = instance {
                control.yank(id);
            }
        }
    }
    Ok(())
}
