// SPDX-License-Identifier: MIT OR Apache-2.0
//! Crates as they would be published: packed by Cargo, with no path to any other.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::command::{Failure, Outcome, cargo, run};
use crate::files;
use crate::manifest::Manifest;
use crate::workspace::{LIBRARIES, root, target_dir};

/// A crate that has been packed, and unpacked again elsewhere.
#[derive(Debug)]
pub(crate) struct Packed {
    pub(crate) name: &'static str,
    pub(crate) directory: PathBuf,
    pub(crate) manifest: Manifest,
}

/// Packs all crates, changes that are not committed included, and unpacks them in a directory.
pub(crate) fn pack_into(directory: &Path) -> Outcome<Vec<Packed>> {
    let version = version()?;
    let mut package = cargo(["package", "--quiet", "--no-verify", "--allow-dirty"]);
    // Together, because Cargo takes those that are not published yet from each other then.
    run(package.args(LIBRARIES.iter().flat_map(|name| ["--package", name])))?;
    files::fresh_directory(directory)?;
    LIBRARIES.into_iter().map(|name| unpack(name, &version, directory)).collect()
}

/// The version of all crates.
pub(crate) fn version() -> Outcome<String> {
    let workspace = Manifest::of(&root())?;
    let version = workspace.get("workspace.package", "version").map(str::to_owned);
    version.ok_or_else(|| Failure::Task("the workspace has no version".to_owned()))
}

fn unpack(name: &'static str, version: &str, directory: &Path) -> Outcome<Packed> {
    let file = target_dir().join(format!("package/{name}-{version}.crate"));
    // All packed files are from 2006, and Cargo would not notice that they have changed.
    run(Command::new("tar").args(["--touch", "-xzf"]).arg(file).arg("-C").arg(directory))?;
    let directory = directory.join(format!("{name}-{version}"));
    let manifest = Manifest::of(&directory)?;
    Ok(Packed { name, directory, manifest })
}
