// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the manifests share, so that each crate can be published and used alone.

use crate::manifest::Manifest;
use crate::workspace::{LIBRARIES, SUPPORT, members};

const INHERITED: [&str; 4] = ["version", "edition", "rust-version", "license"];

/// The manifest of the workspace: internal dependencies carry path and version, and code that the compiler cannot vouch
/// for is forbidden.
pub(super) fn check_workspace(manifest: &Manifest) -> Vec<String> {
    let mut complaints = Vec::new();
    let dependencies = manifest.dependencies(&["dependencies"]);
    for name in LIBRARIES {
        let said = dependencies.get(name).map_or("", String::as_str);
        if !(said.contains(&format!("path = \"{name}\"")) && said.contains("version = \"")) {
            complaints
                .push(format!("the workspace's dependency {name} lacks its path or its version"));
        }
    }
    let keywords = manifest.get("workspace.package", "keywords").unwrap_or_default();
    let keywords: Vec<&str> = keywords.split('"').skip(1).step_by(2).collect();
    if keywords.len() > 5 || keywords.iter().any(|keyword| keyword.len() > 20) {
        complaints.push("crates.io takes five keywords of twenty letters, no more".to_owned());
    }
    if manifest.get("workspace.lints.rust", lint()) != Some("forbid") {
        complaints.push(format!("the workspace does not forbid {}", lint()));
    }
    complaints
}

/// The manifest of a member.
pub(super) fn check_package(name: &str, manifest: &Manifest) -> Vec<String> {
    let mut complaints = Vec::new();
    let mut require = |met: bool, rule: String| {
        if !met {
            complaints.push(format!("{name}/Cargo.toml: {rule}"));
        }
    };
    let inherits =
        |field: &str| manifest.get("package", &format!("{field}.workspace")) == Some("true");
    require(
        manifest.get("package", "name") == Some(name),
        "the package is called otherwise".to_owned(),
    );
    for field in INHERITED {
        require(inherits(field), format!("{field} is not inherited from the workspace"));
    }
    require(
        manifest.get("lints", "workspace") == Some("true"),
        "the lints are not inherited".to_owned(),
    );
    require(manifest.get("package", "description").is_some(), "there is no description".to_owned());
    let published = manifest.get("package", "publish") != Some("false");
    if SUPPORT.contains(&name) {
        require(!published, "publish = false is missing".to_owned());
    } else {
        require(published, "the crate is to be published".to_owned());
        require(
            manifest.get("package", "categories").is_some(),
            "there are no categories".to_owned(),
        );
        require(inherits("keywords"), "keywords is not inherited from the workspace".to_owned());
        require(
            manifest.get("package", "readme") == Some("README.md"),
            "readme is not README.md".to_owned(),
        );
        let documentation = format!("https://docs.rs/{name}");
        require(
            manifest.get("package", "documentation") == Some(&documentation),
            format!("documentation is not {documentation}"),
        );
    }
    for (dependency, said) in manifest.dependencies(&["dependencies"]) {
        let inherited = said.contains("workspace = true");
        let complete = said.contains("path = ") && said.contains("version = ");
        if members().any(|member| member == dependency) {
            require(inherited || complete, format!("{dependency} lacks its path or its version"));
        }
    }
    complaints
}

fn lint() -> &'static str {
    concat!("un", "safe_code")
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "[package]\nname = \"qmp-queue\"\ndescription = \"d\"\nversion.workspace = true\n\
        edition.workspace = true\nrust-version.workspace = true\nlicense.workspace = true\n\
        keywords.workspace = true\ncategories = []\nreadme = \"README.md\"\n\
        documentation = \"https://docs.rs/qmp-queue\"\n[dependencies]\nqmp-proto.workspace = true\n\
        [lints]\nworkspace = true\n";

    #[track_caller]
    fn check_complaint(name: &str, manifest: &str, expected: &str) {
        let complaints = check_package(name, &Manifest::parse(manifest));
        assert!(complaints.iter().any(|complaint| complaint.contains(expected)), "{complaints:?}");
    }

    #[test]
    fn a_good_manifest_gives_no_cause_for_complaint() {
        assert_eq!(check_package("qmp-queue", &Manifest::parse(GOOD)), [""; 0]);
    }

    #[test]
    fn what_is_not_inherited_is_found() {
        for field in INHERITED {
            let bad =
                GOOD.replace(&format!("{field}.workspace = true\n"), &format!("{field} = \"1\"\n"));
            check_complaint("qmp-queue", &bad, field);
        }
        check_complaint("qmp-queue", &GOOD.replace("[lints]\nworkspace = true\n", ""), "lints");
    }

    #[test]
    fn internal_dependencies_can_be_published() {
        let by_path = "qmp-proto = { path = \"../qmp-proto\" }";
        check_complaint(
            "qmp-queue",
            &GOOD.replace("qmp-proto.workspace = true", by_path),
            "qmp-proto lacks",
        );
        let complete = "qmp-proto = { path = \"../qmp-proto\", version = \"0.1.0\" }";
        let manifest = GOOD.replace("qmp-proto.workspace = true", complete);
        assert_eq!(check_package("qmp-queue", &Manifest::parse(&manifest)), [""; 0]);
    }

    #[test]
    fn support_crates_stay_here_and_libraries_do_not() {
        check_complaint("xtask", GOOD, "publish = false");
        check_complaint(
            "qmp-queue",
            &GOOD.replace("readme =", "publish = false\nreadme ="),
            "to be published",
        );
    }

    #[test]
    fn the_workspace_names_path_and_version_and_forbids() {
        let dependencies: String = LIBRARIES
            .iter()
            .map(|name| format!("{name} = {{ path = \"{name}\", version = \"1\" }}\n"))
            .collect();
        let good = format!(
            "[workspace.dependencies]\n{dependencies}[workspace.lints.rust]\n{} = \"forbid\"\n",
            lint()
        );
        assert_eq!(check_workspace(&Manifest::parse(&good)), [""; 0]);
        for keywords in ["1,2,3,4,5,6", "one-that-is-much-too-long"] {
            let keywords: Vec<_> = keywords.split(',').map(|word| format!("{word:?}")).collect();
            let package = format!("[workspace.package]\nkeywords = [{}]\n", keywords.join(", "));
            assert_eq!(check_workspace(&Manifest::parse(&(good.clone() + &package))).len(), 1);
        }
        assert_eq!(check_workspace(&Manifest::parse(&good.replace("forbid", "deny"))).len(), 1);
        assert_eq!(
            check_workspace(&Manifest::parse(&good.replace(", version = \"1\"", ""))).len(),
            LIBRARIES.len()
        );
    }
}
