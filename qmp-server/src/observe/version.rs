// SPDX-License-Identifier: MIT OR Apache-2.0
//! The version that the server reports.

use qmp_dispatch::proto::{Version, VersionTriple};

/// The version of this crate, in QEMU's structure.
pub fn version() -> Version {
    let number = |text: &str| text.parse().unwrap_or_default();
    Version {
        qemu: VersionTriple {
            major: number(env!("CARGO_PKG_VERSION_MAJOR")),
            minor: number(env!("CARGO_PKG_VERSION_MINOR")),
            micro: number(env!("CARGO_PKG_VERSION_PATCH")),
        },
        package: "qmp-server".into(),
    }
}
