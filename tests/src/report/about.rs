// SPDX-License-Identifier: MIT OR Apache-2.0
//! When and with what it was measured.

use std::path::Path;
use std::process::Command;

use super::{Fact, Layer};
use crate::bench::machine;
use crate::bench::peer::Kind;
use crate::bench::stacks::STACKS;

/// The day in UTC.
pub(super) fn date() -> Result<String, String> {
    said_by("date", &["--utc", "+%Y-%m-%d"]).ok_or_else(|| "`date` does not say the day".to_owned())
}

/// The revision of the sources, with a `+` if they have been changed since.
pub(super) fn revision() -> Option<String> {
    let revision = said_by("git", &["rev-parse", "--short=12", "HEAD"])?;
    let changes = said_by("git", &["status", "--porcelain", "--untracked-files=no"])?;
    Some(if changes.is_empty() { revision } else { revision + "+" })
}

pub(super) fn machine() -> Vec<Fact> {
    let facts = machine::describe().into_iter().map(|(name, value)| {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        Fact { name, value }
    });
    facts.collect()
}

/// The versions of the compiler and of all that has been measured beside ours.
pub(super) fn versions(root: &Path, layers: &[Layer]) -> Vec<Fact> {
    let mut facts = Vec::new();
    let mut add = |name: &str, version: Option<String>| {
        facts.extend(version.map(|value| Fact { name: name.to_owned(), value }));
    };
    let rustc = said_by("rustc", &["--version"]);
    add("rustc", rustc.map(|said| said.trim_start_matches("rustc ").to_owned()));
    for kind in [Kind::Qemu, Kind::StorageDaemon] {
        if is_measured(kind.name(), layers) {
            let said = said_by(kind.name(), &["--version"]).unwrap_or_default();
            add(kind.name(), said.lines().next().map(str::to_owned));
        }
    }
    for (name, package) in STACKS {
        if is_measured(name, layers) {
            add(package, locked(&root.join("tests/peers/Cargo.lock"), package));
        }
    }
    for package in ["serde_json", "crossbeam-channel"] {
        if is_measured(package, layers) {
            add(package, locked(&root.join("Cargo.lock"), package));
        }
    }
    facts
}

/// Returns what could have been measured, and was not.
pub(super) fn absent(layers: &[Layer]) -> Vec<String> {
    let servers = [Kind::Qemu, Kind::StorageDaemon];
    let servers = servers.into_iter().map(|kind| (kind.name(), "is not installed"));
    let stacks = STACKS.into_iter().map(|(name, _)| (name, "has not been built"));
    let absent = servers.chain(stacks).filter(|(name, _)| !is_measured(name, layers));
    absent.map(|(name, why)| format!("{name} {why}, and is left out.")).collect()
}

fn is_measured(name: &str, layers: &[Layer]) -> bool {
    let mut rows = layers.iter().flat_map(|layer| &layer.groups).flat_map(|group| &group.rows);
    rows.any(|row| row.of(name).is_some())
}

/// The version of a package in a `Cargo.lock`.
fn locked(file: &Path, package: &str) -> Option<String> {
    let text = std::fs::read_to_string(file).ok()?;
    let (_, rest) = text.split_once(&format!("name = \"{package}\"\nversion = \""))?;
    rest.split('"').next().map(str::to_owned)
}

fn said_by(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    output.status.success().then_some(said)
}
