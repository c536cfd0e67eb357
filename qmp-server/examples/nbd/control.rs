// SPDX-License-Identifier: MIT OR Apache-2.0
//! The commands: QEMU's, with its arguments, results and errors.

use std::sync::Arc;

use qmp_dispatch::proto::Error;
use qmp_dispatch::{Context, EmitError, RegisterError, Registry, qapi_types};
use qmp_server::ShutdownCause;

use crate::back_end::BackEnd;
use crate::block_types::BlockInfo;
use crate::events;
use crate::stats::BlockStats;

qapi_types! {
    struct BlockResize {
        device: Option<String>,
        node_name: Option<String>,
        size: i64,
    }
}

pub(crate) fn register(
    registry: &mut Registry,
    back_end: &Arc<BackEnd>,
) -> Result<(), RegisterError> {
    let mut group = registry.with(Arc::clone(back_end));
    group.command("query-block", query_block)?;
    group.command("query-blockstats", query_blockstats)?;
    group.command("block_resize", block_resize)?;
    group.command("quit", quit)?;
    Ok(())
}

fn query_block(back_end: &BackEnd, _: &Context) -> Result<Vec<BlockInfo>, Error> {
    Ok(back_end.exports().iter().map(BlockInfo::of).collect())
}

fn query_blockstats(back_end: &BackEnd, _: &Context) -> Result<Vec<BlockStats>, Error> {
    Ok(back_end.exports().iter().map(BlockStats::of).collect())
}

/// Clients that are connected already go by the old size, and clients that come by the new one: NBD has
/// no way to tell them.
fn block_resize(back_end: &BackEnd, _: &Context, new: BlockResize) -> Result<(), Error> {
    // A device and its node have the same name here.
    let [device, node_name] = [new.device, new.node_name].map(Option::unwrap_or_default);
    let export = back_end.find(&device).or_else(|| back_end.find(&node_name)).ok_or_else(|| {
        Error::generic(format!("Cannot find device='{device}' nor node-name='{node_name}'"))
    })?;
    let size = u64::try_from(new.size)
        .map_err(|_| Error::generic("Parameter 'size' expects a >0 size"))?;
    export.resize(size).map_err(|error| Error::generic(format!("Could not resize file: {error}")))
}

fn quit(back_end: &BackEnd, context: &Context) -> Result<(), EmitError> {
    events::shutdown(context.dispatcher(), ShutdownCause::HostQmpQuit)?;
    back_end.quit();
    Ok(())
}
