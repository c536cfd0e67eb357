// SPDX-License-Identifier: MIT OR Apache-2.0
//! What `query-block` returns. Mirrors QEMU's `qapi/block-core.json`, so that its clients find what
//! they rely on; of what they can do without, it has what is true of a file.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Serialize;

use crate::export::Export;

#[derive(Serialize, JsonSchema)]
pub(crate) struct BlockInfo {
    device: String,
    r#type: String,
    removable: bool,
    locked: bool,
    inserted: BlockDeviceInfo,
}

#[derive(Serialize, JsonSchema)]
struct BlockDeviceInfo {
    file: PathBuf,
    #[serde(rename = "node-name")]
    node_name: String,
    ro: bool,
    drv: String,
    backing_file_depth: u64,
    active: bool,
    encrypted: bool,
    detect_zeroes: DetectZeroes,
    bps: u64,
    bps_rd: u64,
    bps_wr: u64,
    iops: u64,
    iops_rd: u64,
    iops_wr: u64,
    image: ImageInfo,
    cache: CacheInfo,
    write_threshold: u64,
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
struct ImageInfo {
    filename: PathBuf,
    format: String,
    actual_size: u64,
    virtual_size: u64,
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
struct CacheInfo {
    writeback: bool,
    direct: bool,
    no_flush: bool,
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum DetectZeroes {
    Off,
}

impl BlockInfo {
    pub(crate) fn of(export: &Export) -> BlockInfo {
        BlockInfo {
            device: export.name().to_owned(),
            r#type: "unknown".to_owned(),
            removable: false,
            locked: false,
            inserted: BlockDeviceInfo::of(export),
        }
    }
}

impl BlockDeviceInfo {
    fn of(export: &Export) -> BlockDeviceInfo {
        BlockDeviceInfo {
            file: export.path().to_owned(),
            node_name: export.name().to_owned(),
            ro: export.is_read_only(),
            drv: "raw".to_owned(),
            backing_file_depth: 0,
            active: true,
            encrypted: false,
            detect_zeroes: DetectZeroes::Off,
            // Nothing is throttled.
            bps: 0,
            bps_rd: 0,
            bps_wr: 0,
            iops: 0,
            iops_rd: 0,
            iops_wr: 0,
            image: ImageInfo {
                filename: export.path().to_owned(),
                format: "raw".to_owned(),
                actual_size: export.allocated(),
                virtual_size: export.size(),
            },
            cache: CacheInfo { writeback: true, direct: false, no_flush: false },
            write_threshold: 0,
        }
    }
}
