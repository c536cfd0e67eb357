// SPDX-License-Identifier: MIT OR Apache-2.0
//! Checks all direct and indirect dependencies: licences, duplicate versions, and the Rust that they need. Advisories are
//! not in Cargo's metadata; `cargo xtask audit` checks them.

use std::collections::{BTreeMap, BTreeSet};

use cargo_metadata::Package;
use cargo_metadata::semver::Version;
use spdx::{Expression, ParseMode};

/// Crates that are allowed in more than one incompatible version, with the reason.
const TWICE: [(&str, &str); 6] = [
    ("base64", "for tests only: qapi-spec has an old one, pem a new one"),
    ("bitflags", "for an example only: vmm-sys-util has an old one, rustix a new one"),
    ("getrandom", "ring has an old one, crates for tests a new one"),
    ("rand", "for tests only: shuttle has an old one, proptest a new one"),
    ("rand_core", "for tests only: as for rand"),
    (
        "syn",
        "at build time only: x509-parser's macros have an old one, serde's and clap's a new one",
    ),
];

/// Checks all packages, including those of the workspace. `allowed` lists licences.
pub(super) fn check(packages: &[Package], allowed: &[String], promised: &Version) -> Vec<String> {
    let mut complaints = Vec::new();
    for Package { name, version, license, rust_version, .. } in packages {
        let licence = license.as_deref().unwrap_or("unknown");
        if !is_allowed(licence, allowed) {
            complaints.push(format!("{name} {version}: its licence is {licence}"));
        }
        if let Some(needs) = rust_version.as_ref().filter(|needs| *needs > promised) {
            complaints
                .push(format!("{name} {version}: it needs Rust {needs}, we promise {promised}"));
        }
    }
    complaints.extend(check_twice(packages, &TWICE));
    complaints
}

/// Whether the terms of an SPDX expression can be met with these licences alone. An exception only allows more.
fn is_allowed(expression: &str, allowed: &[String]) -> bool {
    Expression::parse_mode(expression, ParseMode::LAX).is_ok_and(|expression| {
        expression.evaluate(|required| {
            let licence = required.license.id();
            licence.is_some_and(|licence| allowed.iter().any(|name| name == licence.name))
        })
    })
}

fn check_twice(packages: &[Package], reasons: &[(&str, &str)]) -> Vec<String> {
    let mut versions = BTreeMap::<&str, BTreeSet<_>>::new();
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

/// Returns the part that all compatible versions share: `1` of 1.2.3, `0.2` of 0.2.3.
fn compatible(version: &Version) -> String {
    match version {
        Version { major: 0, minor: 0, patch, .. } => format!("0.0.{patch}"),
        Version { major: 0, minor, .. } => format!("0.{minor}"),
        Version { major, .. } => major.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::metadata::package;

    #[track_caller]
    fn check_complaint(fields: serde_json::Value, expected: Option<&str>) {
        let complaints =
            check(&[package("a", fields)], &["MIT".to_owned()], &Version::new(1, 88, 0));
        // A reason for a crate that is absent is superfluous.
        let own: Vec<_> = complaints.iter().filter(|text| text.starts_with("a ")).collect();
        assert_eq!(own, Vec::from_iter(expected));
    }

    #[test]
    fn licences_are_allowed_and_nothing_needs_a_newer_rust() {
        check_complaint(json!({}), None);
        check_complaint(json!({"license": null}), Some("a 1.0.0: its licence is unknown"));
        check_complaint(
            json!({"license": "AGPL-3.0-only"}),
            Some("a 1.0.0: its licence is AGPL-3.0-only"),
        );
        check_complaint(json!({"rust_version": "1.88"}), None);
        check_complaint(
            json!({"rust_version": "1.88.1"}),
            Some("a 1.0.0: it needs Rust 1.88.1, we promise 1.88.0"),
        );
    }

    #[test]
    fn expressions_are_evaluated() {
        let allowed = ["MIT", "Apache-2.0"].map(str::to_owned);
        for good in ["MIT/Apache-2.0", "MIT OR GPL-3.0-only", "Apache-2.0 WITH LLVM-exception"] {
            assert!(is_allowed(good, &allowed), "{good}");
        }
        for bad in ["MIT AND GPL-3.0-only", "(MIT OR ISC) AND MPL-2.0", "", "MIT OR"] {
            assert!(!is_allowed(bad, &allowed), "{bad}");
        }
    }

    #[test]
    fn two_versions_need_a_reason() {
        let packages = ["0.2.1", "0.2.9", "0.3.0-rc.1"]
            .map(|version| package("a", json!({"version": version})));
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
}
