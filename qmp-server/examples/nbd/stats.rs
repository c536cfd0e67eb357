// SPDX-License-Identifier: MIT OR Apache-2.0
//! What has been done with a device, and what `query-blockstats` returns of it. Mirrors QEMU's
//! `qapi/block-core.json`.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Serialize;

use crate::export::{Export, Failure, Operation};

#[derive(Serialize, JsonSchema)]
pub(crate) struct BlockStats {
    device: String,
    #[serde(rename = "node-name")]
    node_name: String,
    stats: BlockDeviceStats,
}

impl BlockStats {
    pub(crate) fn of(export: &Export) -> BlockStats {
        BlockStats {
            device: export.name().to_owned(),
            node_name: export.name().to_owned(),
            stats: export.stats(),
        }
    }
}

/// Counters since the start. There are no zones and nothing is merged, so these stay zero, and figures
/// over intervals were not asked for.
#[derive(Clone, Default, Serialize, JsonSchema)]
pub(crate) struct BlockDeviceStats {
    rd_bytes: u64,
    wr_bytes: u64,
    zone_append_bytes: u64,
    unmap_bytes: u64,
    rd_operations: u64,
    wr_operations: u64,
    zone_append_operations: u64,
    flush_operations: u64,
    unmap_operations: u64,
    rd_total_time_ns: u64,
    wr_total_time_ns: u64,
    zone_append_total_time_ns: u64,
    flush_total_time_ns: u64,
    unmap_total_time_ns: u64,
    wr_highest_offset: u64,
    rd_merged: u64,
    wr_merged: u64,
    zone_append_merged: u64,
    unmap_merged: u64,
    failed_rd_operations: u64,
    failed_wr_operations: u64,
    failed_zone_append_operations: u64,
    failed_flush_operations: u64,
    failed_unmap_operations: u64,
    invalid_rd_operations: u64,
    invalid_wr_operations: u64,
    invalid_zone_append_operations: u64,
    invalid_flush_operations: u64,
    invalid_unmap_operations: u64,
    account_invalid: bool,
    account_failed: bool,
    timed_stats: Vec<TimedStats>,
}

#[derive(Clone, Serialize, JsonSchema)]
struct TimedStats {
    interval_length: u64,
}

impl BlockDeviceStats {
    /// Counts an operation on `length` bytes at `offset` that took this long.
    pub(crate) fn count(
        &mut self,
        operation: Operation,
        offset: u64,
        length: u64,
        time: Duration,
        result: &Result<(), Failure>,
    ) {
        let (done, failed, invalid) = match operation {
            Operation::Read => (
                &mut self.rd_operations,
                &mut self.failed_rd_operations,
                &mut self.invalid_rd_operations,
            ),
            Operation::Write => (
                &mut self.wr_operations,
                &mut self.failed_wr_operations,
                &mut self.invalid_wr_operations,
            ),
            Operation::Flush => (
                &mut self.flush_operations,
                &mut self.failed_flush_operations,
                &mut self.invalid_flush_operations,
            ),
            Operation::Unmap => (
                &mut self.unmap_operations,
                &mut self.failed_unmap_operations,
                &mut self.invalid_unmap_operations,
            ),
        };
        match result {
            Ok(()) => *done += 1,
            Err(Failure::Io(_)) => *failed += 1,
            Err(Failure::ReadOnly | Failure::OutOfRange) => *invalid += 1,
        }
        if result.is_ok() {
            self.add(operation, offset, length, time);
        }
    }

    fn add(&mut self, operation: Operation, offset: u64, length: u64, time: Duration) {
        let nanoseconds = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        match operation {
            Operation::Read => {
                self.rd_bytes += length;
                self.rd_total_time_ns += nanoseconds;
            }
            Operation::Write => {
                self.wr_bytes += length;
                self.wr_total_time_ns += nanoseconds;
                self.wr_highest_offset = self.wr_highest_offset.max(offset + length);
            }
            Operation::Flush => self.flush_total_time_ns += nanoseconds,
            Operation::Unmap => {
                self.unmap_bytes += length;
                self.unmap_total_time_ns += nanoseconds;
            }
        }
    }
}
