// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the workspace is made of, and where.

use std::path::{Path, PathBuf};

/// The libraries, lowest first.
pub(crate) const LIBRARIES: [&str; 6] =
    ["qmp-proto", CODEGEN, "qmp-queue", MACROS, "qmp-dispatch", "qmp-server"];
/// Writes types of `qmp-proto`, in build scripts.
pub(crate) const CODEGEN: &str = "qmp-codegen";
/// The macros of `qmp-dispatch`: a package of its own, because Cargo wants that.
const MACROS: &str = "qmp-dispatch-macros";
/// The package of the program `qmp-server`.
pub(crate) const PROGRAM: &str = "qmp-server-cli";
/// The published crates, lowest first.
pub(crate) const PUBLISHED: [&str; 7] =
    [LIBRARIES[0], LIBRARIES[1], LIBRARIES[2], LIBRARIES[3], LIBRARIES[4], LIBRARIES[5], PROGRAM];
/// The other members.
pub(crate) const SUPPORT: [&str; 2] = ["xtask", "tests"];

/// All members.
pub(crate) fn members() -> impl Iterator<Item = &'static str> {
    PUBLISHED.into_iter().chain(SUPPORT)
}

/// The directory of a member, relative to the root.
pub(crate) fn directory(member: &str) -> &str {
    match member {
        PROGRAM => "qmp-server/cli",
        CODEGEN => "qmp-proto/codegen",
        MACROS => "qmp-dispatch/macros",
        member => member,
    }
}

/// The root of the workspace.
pub(crate) fn root() -> PathBuf {
    let own = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
    own.parent().map_or_else(|| own.clone(), Path::to_owned)
}

/// Cargo's target directory: the one that holds this program's profile directory.
pub(crate) fn target_dir() -> PathBuf {
    let own = std::env::current_exe().ok();
    let target = own.as_deref().and_then(|program| program.parent()?.parent());
    target.map_or_else(|| root().join("target"), Path::to_owned)
}

/// Our server, built for debugging.
pub(crate) fn debug_server() -> PathBuf {
    target_dir().join("debug/qmp-server")
}

/// The directory of examples, built for debugging.
pub(crate) fn debug_examples() -> PathBuf {
    target_dir().join("debug/examples")
}

/// Our server, built for release.
pub(crate) fn release_server() -> PathBuf {
    target_dir().join("release/qmp-server")
}

/// Our server, built as it is handed out.
pub(crate) fn dist_server() -> PathBuf {
    target_dir().join("dist/qmp-server")
}
