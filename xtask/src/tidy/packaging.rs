// SPDX-License-Identifier: MIT OR Apache-2.0
//! Checks the manifests, so that each crate can be published and used alone.

use cargo_metadata::Package;
use cargo_metadata::semver::VersionReq;
use toml::{Table, Value};

use crate::workspace::SUPPORT;

const INHERITED: [&str; 4] = ["version", "edition", "rust-version", "license"];
/// The limits of crates.io for keywords.
const KEYWORDS: usize = 5;
const LETTERS: usize = 20;

/// Checks Cargo's metadata of a member, and what its manifest inherits.
pub(super) fn check(package: &Package, manifest: &Table) -> Vec<String> {
    let name = package.name.as_str();
    let mut complaints = Vec::new();
    let mut require = |met: bool, rule: &str| {
        if !met {
            complaints.push(format!("{name}/Cargo.toml: {rule}"));
        }
    };
    let inherits = |table: &str, field: &str| {
        let value = manifest.get(table).and_then(|table| table.get(field)?.get("workspace"));
        value == Some(&Value::Boolean(true))
    };
    for field in INHERITED {
        require(
            inherits("package", field),
            &format!("{field} is not inherited from the workspace"),
        );
    }
    let lints = manifest.get("lints").and_then(|lints| lints.get("workspace"));
    require(lints == Some(&Value::Boolean(true)), "the lints are not inherited");
    require(package.description.is_some(), "there is no description");
    // Cargo reports `publish = false` as `Some([])`.
    let published = package.publish.is_none();
    if SUPPORT.contains(&name) {
        require(!published, "publish = false is missing");
        return complaints;
    }
    require(published, "the crate is to be published");
    require(!package.categories.is_empty(), "there are no categories");
    require(inherits("package", "keywords"), "keywords is not inherited from the workspace");
    let keywords = &package.keywords;
    let fit = keywords.len() <= KEYWORDS && keywords.iter().all(|word| word.len() <= LETTERS);
    require(fit, "crates.io accepts at most five keywords of at most twenty letters");
    require(
        package.readme.as_ref().is_some_and(|readme| readme == "README.md"),
        "readme is not README.md",
    );
    let documentation = format!("https://docs.rs/{name}");
    require(
        package.documentation.as_deref() == Some(&documentation),
        &format!("documentation is not {documentation}"),
    );
    for dependency in &package.dependencies {
        let without_version = dependency.path.is_some() && dependency.req == VersionReq::STAR;
        require(!without_version, &format!("{} lacks its version", dependency.name));
    }
    complaints
}

/// Checks that the workspace forbids unsafe code. The members inherit the lint.
pub(super) fn check_lints(manifest: &Table) -> Vec<String> {
    let lints = manifest.get("workspace").and_then(|table| table.get("lints")?.get("rust"));
    match lints.and_then(|lints| lints.get(LINT)?.as_str()) {
        Some("forbid") => Vec::new(),
        _ => vec![format!("the workspace does not forbid {LINT}")],
    }
}

const LINT: &str = "unsafe_code";

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::metadata::{dependency, package};

    const MANIFEST: &str = "[package]\nversion.workspace = true\nedition.workspace = true\nrust-version.workspace = true\n\
        license.workspace = true\nkeywords.workspace = true\n[lints]\nworkspace = true\n";

    #[track_caller]
    fn check_complaints(fields: Value, manifest: &str, expected: &[&str]) {
        let mut good = json!({
            "description": "d", "categories": ["c"], "readme": "README.md",
            "documentation": "https://docs.rs/qmp-queue", "publish": null,
        });
        for (field, value) in fields.as_object().unwrap() {
            good[field] = value.clone();
        }
        let complaints = check(&package("qmp-queue", good), &manifest.parse().unwrap());
        let expected = expected.iter().map(|rule| format!("qmp-queue/Cargo.toml: {rule}"));
        assert_eq!(complaints, Vec::from_iter(expected));
    }

    #[test]
    fn good_manifests_inherit() {
        check_complaints(json!({}), MANIFEST, &[]);
        for field in INHERITED {
            let bad = MANIFEST.replace(&format!("\n{field}.workspace = true\n"), "\n");
            let rule = format!("{field} is not inherited from the workspace");
            check_complaints(json!({}), &bad, &[&rule]);
        }
        let bad = MANIFEST.replace("[lints]\nworkspace = true\n", "");
        check_complaints(json!({}), &bad, &["the lints are not inherited"]);
    }

    #[test]
    fn published_crates_are_described() {
        for (fields, rule) in [
            (json!({"description": null}), "there is no description"),
            (json!({"publish": []}), "the crate is to be published"),
            (json!({"categories": []}), "there are no categories"),
            (json!({"readme": "x.md"}), "readme is not README.md"),
            (
                json!({"keywords": ["1", "2", "3", "4", "5", "6"]}),
                "crates.io accepts at most five keywords of at most twenty letters",
            ),
            (json!({"documentation": null}), "documentation is not https://docs.rs/qmp-queue"),
        ] {
            check_complaints(fields, MANIFEST, &[rule]);
        }
    }

    #[test]
    fn internal_dependencies_have_versions() {
        let mut ours = dependency("qmp-proto", "*", json!(null));
        ours["path"] = json!("/qmp-proto");
        let fields = json!({"dependencies": [ours]});
        check_complaints(fields, MANIFEST, &["qmp-proto lacks its version"]);
    }

    #[test]
    fn support_crates_stay_here() {
        let manifest = MANIFEST.parse().unwrap();
        let complaints = check(&package("xtask", json!({"description": "d"})), &manifest);
        assert_eq!(complaints, ["xtask/Cargo.toml: publish = false is missing"]);
    }

    #[test]
    fn the_lint_is_forbidden_not_denied() {
        let lints =
            |level| format!("[workspace.lints.rust]\n{LINT} = \"{level}\"\n").parse().unwrap();
        assert_eq!(check_lints(&lints("forbid")), [""; 0]);
        assert_eq!(check_lints(&lints("deny")).len(), 1);
    }
}
