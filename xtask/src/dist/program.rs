// SPDX-License-Identifier: MIT OR Apache-2.0
//! Builds the program so that it does not depend on time or place.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::origin::Origin;
use crate::command::{Failure, Outcome, cargo, output_of, run};
use crate::metadata::metadata;
use crate::workspace::PROGRAM;

/// Builds the program, and checks that it reports its origin.
pub(super) fn build(source: &Path, target_directory: &Path, origin: &Origin) -> Outcome<PathBuf> {
    let arguments = ["build", "--locked", "--profile", "dist", "--package", PROGRAM];
    let mut build = cargo(arguments);
    build.args(["--bin", "qmp-server", "--target-dir"]).arg(target_directory).current_dir(source);
    build.env("CARGO_ENCODED_RUSTFLAGS", flags(source, target_directory)?);
    build.env("QMP_SERVER_BUILD", &origin.build).env("SOURCE_DATE_EPOCH", &origin.epoch);
    run(&mut build)?;
    let program = program_in(target_directory);
    let said = output_of(Command::new(&program).arg("--version"))?;
    match said.trim() == format!("qmp-server {}", origin.build) {
        true => Ok(program),
        false => Err(Failure::Task(format!("the program calls itself {}", said.trim()))),
    }
}

pub(super) fn program_in(target_directory: &Path) -> PathBuf {
    target_directory.join("dist/qmp-server")
}

/// Returns flags of rustc that remove the machine's directories from the program. The last flag that matches applies.
fn flags(source: &Path, target_directory: &Path) -> Outcome<String> {
    let sysroot = output_of(Command::new("rustc").args(["--print", "sysroot"]))?;
    let mut directories = registries()?;
    directories.extend([
        (PathBuf::from(sysroot.trim()), "/rust"),
        (source.to_owned(), "/qmp-server"),
        (target_directory.to_owned(), "/target"),
    ]);
    let flags = directories
        .iter()
        .map(|(directory, name)| format!("--remap-path-prefix={}={name}", directory.display()));
    // The separator of `CARGO_ENCODED_RUSTFLAGS`, so that paths may have spaces.
    Ok(flags.collect::<Vec<_>>().join("\u{1f}"))
}

/// Returns the directories in which Cargo has put dependencies. Their names depend on the registry.
fn registries() -> Outcome<Vec<(PathBuf, &'static str)>> {
    let metadata = metadata()?;
    let others = metadata.packages.iter().filter(|package| package.source.is_some());
    let directories = others.filter_map(|package| package.manifest_path.parent()?.parent());
    let directories: BTreeSet<_> = directories.collect();
    Ok(directories.into_iter().map(|directory| (directory.into(), "/crates")).collect())
}
