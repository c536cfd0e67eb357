// SPDX-License-Identifier: MIT OR Apache-2.0
//! Crates as they would be published: packed by Cargo, without paths to each other.

use std::path::{Path, PathBuf};
use std::process::Command;

use cargo_metadata::{Metadata, Package};

use crate::command::{Outcome, cargo, run};
use crate::files;
use crate::metadata::member;
use crate::workspace::{LIBRARIES, target_dir};

/// A crate that was packed, and unpacked elsewhere.
#[derive(Debug)]
pub(crate) struct Packed {
    pub(crate) name: &'static str,
    pub(crate) directory: PathBuf,
    pub(crate) package: Package,
}

/// Packs all crates, including uncommitted changes, and unpacks them in a directory.
pub(crate) fn pack_into(directory: &Path, metadata: &Metadata) -> Outcome<Vec<Packed>> {
    let mut package = cargo(["package", "--quiet", "--no-verify", "--allow-dirty"]);
    // All in one command: Cargo then builds a crate with the others as packed, even if they are not published yet.
    run(package.args(LIBRARIES.iter().flat_map(|name| ["--package", name])))?;
    files::fresh_directory(directory)?;
    LIBRARIES.into_iter().map(|name| unpack(name, member(metadata, name)?, directory)).collect()
}

fn unpack(name: &'static str, package: &Package, directory: &Path) -> Outcome<Packed> {
    let version = &package.version;
    let file = target_dir().join(format!("package/{name}-{version}.crate"));
    // Packed files have a date of 2006, so Cargo would not notice that they have changed.
    run(Command::new("tar").args(["--touch", "-xzf"]).arg(file).arg("-C").arg(directory))?;
    let directory = directory.join(format!("{name}-{version}"));
    Ok(Packed { name, directory, package: package.clone() })
}
