// SPDX-License-Identifier: MIT OR Apache-2.0
//! What may be depended on, directly or not: licences, versions, and the oldest Rust. What is said about maintenance and
//! security is not in Cargo's metadata but in databases, which `cargo xtask audit` asks.

use std::collections::{BTreeMap, BTreeSet};

use super::licence::is_permissive;
use crate::metadata::Package;

/// Crates that are there in more than one incompatible version, and why that is so.
const TWICE: [(&str, &str); 6] = [
    ("base64", "for tests only: qapi-spec has an old one, pem a new one"),
    ("bitflags", "for an example only: vmm-sys-util has an old one, rustix a new one"),
    ("getrandom", "ring has an old one, what is for tests only a new one"),
    ("rand", "for tests only: shuttle has an old one, proptest a new one"),
    ("rand_core", "for tests only: what belongs to rand"),
    (
        "syn",
        "at build time only: x509-parser's macros have an old one, serde's and clap's a new one",
    ),
];

/// Checks all packages, those of the workspace included.
pub(super) fn check(packages: &[Package], rust_version: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    for Package { name, version, licence, rust_version: needs, .. } in packages {
        let licence = licence.as_deref().unwrap_or("unknown");
        if !is_permissive(licence) {
            complaints.push(format!("{name} {version}: its licence is {licence}"));
        }
        if let Some(needs) = needs.as_deref().filter(|needs| is_newer(needs, rust_version)) {
            complaints.push(format!(
                "{name} {version}: it needs Rust {needs}, we promise {rust_version}"
            ));
        }
    }
    complaints.extend(check_twice(packages, &TWICE));
    complaints
}

fn check_twice(packages: &[Package], reasons: &[(&str, &str)]) -> Vec<String> {
    let mut versions = BTreeMap::<&str, BTreeSet<String>>::new();
    for Package { name, version, .. } in packages {
        versions.entry(name).or_default().insert(compatible(version));
    }
    versions.retain(|_, versions| versions.len() > 1);
    let excused = |name: &str| reasons.iter().any(|(excused, _)| *excused == name);
    let unexcused = versions.iter().filter(|(name, _)| !excused(name)).map(|(name, versions)| {
        let versions = Vec::from_iter(versions.iter().map(String::as_str)).join(" and ");
        format!("{name}: versions {versions}, without a reason in xtask/src/tidy/dependencies.rs")
    });
    let superfluous = reasons.iter().filter(|(name, _)| !versions.contains_key(name));
    let superfluous = superfluous.map(|(name, _)| format!("{name} is not there twice any more"));
    unexcused.chain(superfluous).collect()
}

/// What all compatible versions have in common: `1` of 1.2.3, `0.2` of 0.2.3.
fn compatible(version: &str) -> String {
    let significant = numbers(version).iter().take_while(|number| **number == 0).count() + 1;
    version.split(['.', '-', '+']).take(significant).collect::<Vec<_>>().join(".")
}

/// Whether one version comes after the other: 1.88.0 does not come after 1.88.
fn is_newer(one: &str, other: &str) -> bool {
    let (one, other) = (numbers(one), numbers(other));
    let padded = |numbers: Vec<u64>| numbers.into_iter().chain(std::iter::repeat(0)).take(3);
    padded(one).gt(padded(other))
}

/// The parts of a version, but for what is behind its last number.
fn numbers(version: &str) -> Vec<u64> {
    let end = version.find(['-', '+']).unwrap_or(version.len());
    version[..end].split('.').map_while(|part| part.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, version: &str) -> Package {
        let (name, version) = (name.to_owned(), version.to_owned());
        Package { name, version, licence: Some("MIT".to_owned()), ..Package::default() }
    }

    /// Those that have to be there because their reasons are.
    fn twice() -> Vec<Package> {
        let names = TWICE.iter().map(|(name, _)| name);
        names.flat_map(|name| [package(name, "1.0.0"), package(name, "2.0.0")]).collect()
    }

    #[track_caller]
    fn check_complaints(more: Package, expected: &[&str]) {
        let packages = [twice(), vec![more]].concat();
        assert_eq!(check(&packages, "1.88"), expected);
    }

    #[test]
    fn licences_are_permissive() {
        check_complaints(package("a", "1.0.0"), &[]);
        let licence = Some("AGPL-3.0-only".to_owned());
        check_complaints(
            Package { licence, ..package("a", "1.0.0") },
            &["a 1.0.0: its licence is AGPL-3.0-only"],
        );
        check_complaints(
            Package { licence: None, ..package("a", "1.0.0") },
            &["a 1.0.0: its licence is unknown"],
        );
    }

    #[test]
    fn nothing_needs_a_newer_rust_than_we() {
        for (needs, expected) in [
            ("1.88", &[][..]),
            ("1.88.0", &[]),
            ("1.9", &[]),
            ("1.88.1", &["a 1.0.0: it needs Rust 1.88.1, we promise 1.88"]),
            ("1.100", &["a 1.0.0: it needs Rust 1.100, we promise 1.88"]),
        ] {
            let rust_version = Some(needs.to_owned());
            check_complaints(Package { rust_version, ..package("a", "1.0.0") }, expected);
        }
    }

    #[test]
    fn two_versions_need_a_reason() {
        let packages = ["0.2.1", "0.2.9", "0.3.0-rc.1"].map(|version| package("a", version));
        let complaints = check_twice(&packages, &[]);
        assert_eq!(complaints.len(), 1);
        assert!(complaints[0].starts_with("a: versions 0.2 and 0.3, without a reason"));
        assert_eq!(check_twice(&packages, &[("a", "because")]), [""; 0]);
        assert_eq!(check_twice(&packages[..2], &[]), [""; 0]);
        assert_eq!(
            check_twice(&packages[..2], &[("a", "because")]),
            ["a is not there twice any more"]
        );
    }

    #[test]
    fn the_first_number_that_is_not_0_counts() {
        let versions = ["1.2.3", "0.2.17", "0.0.5", "1.2.1+spec-1.1.0", "10.0.0-rc.1"];
        assert_eq!(versions.map(compatible), ["1", "0.2", "0.0.5", "1", "10"]);
    }
}
