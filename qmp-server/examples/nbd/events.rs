// SPDX-License-Identifier: MIT OR Apache-2.0
//! What QMP clients are told unasked. Mirrors QEMU's events of the same names.

use std::io;
use std::time::Duration;

use qmp_dispatch::{Dispatcher, EmitError, EventType, RegisterError, Registry, qapi_types};
use qmp_server::{SHUTDOWN, Shutdown, ShutdownCause};

use crate::export::{Export, Operation, is_no_space};

qapi_types! {
    struct BlockIoError {
        qom_path: String,
        device: String,
        node_name: String,
        operation: IoOperationType,
        action: BlockErrorAction,
        nospace: bool,
        reason: String,
    }

    enum IoOperationType {
        Read,
        Write,
    }

    /// What has been done about an error.
    enum BlockErrorAction {
        Report,
    }

    struct BlockExportDeleted {
        id: String,
    }
}

const BLOCK_IO_ERROR: EventType<BlockIoError> = EventType::new("BLOCK_IO_ERROR");
const BLOCK_EXPORT_DELETED: EventType<BlockExportDeleted> = EventType::new("BLOCK_EXPORT_DELETED");

pub(crate) fn register(registry: &mut Registry) -> Result<(), RegisterError> {
    registry
        .event(&BLOCK_IO_ERROR)?
        .at_most_every(Duration::from_secs(1))
        .similar_by(|error| error.device.clone());
    registry.event(&BLOCK_EXPORT_DELETED)?;
    registry.event(&SHUTDOWN)?;
    Ok(())
}

/// Tells of an error of a device, from whatever thread has met with it.
pub(crate) fn block_io_error(
    dispatcher: &Dispatcher,
    device: &str,
    operation: Operation,
    error: &io::Error,
) {
    let event = BlockIoError {
        // There is no object model here, nor is there for a QEMU device that nothing is attached to.
        qom_path: String::new(),
        device: device.to_owned(),
        node_name: device.to_owned(),
        operation: match operation {
            Operation::Read => IoOperationType::Read,
            Operation::Write | Operation::Flush | Operation::Unmap => IoOperationType::Write,
        },
        action: BlockErrorAction::Report,
        nospace: is_no_space(error),
        reason: error.to_string(),
    };
    if let Err(error) = dispatcher.emit(&BLOCK_IO_ERROR, &event) {
        eprintln!("nbd: {error}");
    }
}

pub(crate) fn block_export_deleted(
    dispatcher: &Dispatcher,
    export: &Export,
) -> Result<(), EmitError> {
    dispatcher.emit(&BLOCK_EXPORT_DELETED, &BlockExportDeleted { id: export.name().to_owned() })
}

pub(crate) fn shutdown(dispatcher: &Dispatcher, reason: ShutdownCause) -> Result<(), EmitError> {
    dispatcher.emit(&SHUTDOWN, &Shutdown { guest: false, reason })
}
