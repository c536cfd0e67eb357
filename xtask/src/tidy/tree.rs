// SPDX-License-Identifier: MIT OR Apache-2.0
//! Checks which files exist, and where.

use std::collections::BTreeSet;

use crate::workspace::{directory, members};

const TOP_LEVEL_FILES: [&str; 15] = [
    ".gitattributes",
    ".gitignore",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "PROTOCOL.md",
    "README.md",
    "SECURITY.md",
    "clippy.toml",
    "rust-toolchain.toml",
    "rustfmt.toml",
];
const TOP_LEVEL_DIRECTORIES: [&str; 3] = [".cargo", ".ci", "docs"];
const REQUIRED_FILES: [&str; 4] = ["Cargo.lock", "Cargo.toml", "LICENSE-APACHE", "LICENSE-MIT"];

/// Checks the paths of all files.
pub(super) fn check(files: &[String]) -> Vec<String> {
    let mut complaints = Vec::new();
    let entries: BTreeSet<_> = files
        .iter()
        .map(|file| {
            file.split_once('/').map_or((file.as_str(), false), |(directory, _)| (directory, true))
        })
        .collect();
    for (entry, is_directory) in entries {
        let known = match is_directory {
            true => members().chain(TOP_LEVEL_DIRECTORIES).any(|directory| directory == entry),
            false => TOP_LEVEL_FILES.contains(&entry),
        };
        if !known {
            complaints.push(format!("{entry} does not belong at the top level"));
        }
    }
    let required = REQUIRED_FILES
        .into_iter()
        .map(str::to_owned)
        .chain(members().map(|name| format!("{}/README.md", directory(name))));
    complaints.extend(
        required.filter(|path| !files.contains(path)).map(|path| format!("{path} is missing")),
    );
    complaints
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Vec<String> {
        let readmes = members().map(|name| format!("{}/README.md", directory(name)));
        REQUIRED_FILES.into_iter().map(str::to_owned).chain(readmes).collect()
    }

    #[test]
    fn what_belongs_here_is_accepted() {
        assert_eq!(check(&good()), [""; 0]);
    }

    #[test]
    fn what_does_not_belong_here_is_found() {
        for stray in ["notes.txt", "scripts/build.sh", "tests.rs"] {
            let files: Vec<_> = good().into_iter().chain([stray.to_owned()]).collect();
            assert_eq!(check(&files).len(), 1, "{stray}");
        }
    }

    #[test]
    fn what_is_missing_is_found() {
        let files: Vec<_> = good().into_iter().filter(|file| file != "xtask/README.md").collect();
        assert_eq!(check(&files), ["xtask/README.md is missing"]);
    }
}
