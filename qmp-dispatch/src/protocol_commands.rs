// SPDX-License-Identifier: MIT OR Apache-2.0
//! The commands that belong to the protocol itself. Mirrors `qapi/control.json` and
//! `qapi/introspect.json`.

use qmp_proto::{Error, Json};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::command::NEGOTIATION;
use crate::handler::ErasedHandler;
use crate::qapi::SchemaInfo;
use crate::{Context, RegisterError, Registry};

/// Registers `qmp_capabilities`, which every server needs.
pub(crate) fn register_negotiation(registry: &mut Registry) -> Result<(), RegisterError> {
    registry.command(NEGOTIATION, qmp_capabilities)?.allow_preconfig();
    Ok(())
}

/// Registers all commands of this module.
pub(crate) fn register(registry: &mut Registry) -> Result<(), RegisterError> {
    register_negotiation(registry)?;
    registry.erased::<(), VersionInfo>(
        "query-version".into(),
        ErasedHandler::AtOnce(Box::new(query_version)),
    )?;
    registry.command("query-commands", query_commands)?;
    registry.erased::<(), Vec<SchemaInfo>>(
        "query-qmp-schema".into(),
        ErasedHandler::AtOnce(Box::new(query_qmp_schema)),
    )?;
    Ok(())
}

#[derive(Deserialize, JsonSchema)]
struct QmpCapabilities {
    enable: Option<Vec<QMPCapability>>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum QMPCapability {
    Oob,
}

fn qmp_capabilities(context: &Context, arguments: QmpCapabilities) -> Result<(), Error> {
    let oob = arguments.enable.is_some_and(|enable| !enable.is_empty());
    context.monitor().negotiate(oob)
}

/// The QAPI type of [`qmp_proto::Version`]. QEMU declares its members in another order than it sends them.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "this only describes another type")]
struct VersionInfo {
    qemu: VersionTriple,
    package: String,
}

#[derive(JsonSchema)]
#[expect(dead_code, reason = "this only describes another type")]
struct VersionTriple {
    major: i64,
    minor: i64,
    micro: i64,
}

fn query_version(context: &Context, _: qmp_proto::Object) -> Result<Json, Error> {
    Json::encode(&context.dispatcher().version()).map_err(|error| Error::generic(error.to_string()))
}

#[derive(Serialize, JsonSchema)]
struct CommandInfo {
    name: String,
}

fn query_commands(context: &Context) -> Result<Vec<CommandInfo>, Error> {
    let registry = context.dispatcher().registry();
    let commands = registry.commands();
    Ok(commands.map(|command| CommandInfo { name: command.name().to_owned() }).collect())
}

fn query_qmp_schema(context: &Context, _: qmp_proto::Object) -> Result<Json, Error> {
    Ok(context.dispatcher().registry().schema().clone())
}
