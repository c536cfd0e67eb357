// SPDX-License-Identifier: MIT OR Apache-2.0
//! What Cargo knows of all packages that are part of this workspace, or that it depends on, here on Linux.

use std::path::PathBuf;

use crate::command::{Failure, Outcome, cargo, output_of};
use crate::json::Json;

/// A package in one version.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) version: String,
    /// An SPDX expression.
    pub(crate) licence: Option<String>,
    /// The oldest Rust that it says to build with.
    pub(crate) rust_version: Option<String>,
    /// Where its manifest is.
    pub(crate) directory: PathBuf,
}

/// All packages, for tests and with all features, too.
pub(crate) fn packages() -> Outcome<Vec<Package>> {
    let arguments = ["metadata", "--locked", "--all-features", "--format-version", "1"];
    let platform = ["--filter-platform", &host()?];
    parse(&output_of(cargo(arguments).args(platform))?)
}

/// The target that programs are built for, unless one says otherwise.
pub(crate) fn host() -> Outcome<String> {
    let said = output_of(&mut cargo(["--version", "--verbose"]))?;
    let host = said.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).ok_or_else(|| Failure::Task("Cargo names no host".to_owned()))
}

fn parse(text: &str) -> Outcome<Vec<Package>> {
    let metadata = Json::parse(text)?;
    let packages = metadata.get("packages").map(Json::items).unwrap_or_default();
    packages
        .iter()
        .map(|package| {
            let field = |name: &str| package.get(name).and_then(Json::text).map(str::to_owned);
            let required = |name: &str| {
                field(name).ok_or_else(|| Failure::Task(format!("Cargo tells no {name}")))
            };
            let mut directory = PathBuf::from(required("manifest_path")?);
            directory.pop();
            Ok(Package {
                name: required("name")?,
                version: required("version")?,
                licence: field("license"),
                rust_version: field("rust_version"),
                directory,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cargo_prints_is_understood() {
        let text = r#"{"packages": [{"name": "a", "version": "1.2.3", "license": "MIT", "rust_version": null,
            "manifest_path": "/x/a-1.2.3/Cargo.toml"}], "version": 1}"#;
        let expected = Package {
            name: "a".to_owned(),
            version: "1.2.3".to_owned(),
            licence: Some("MIT".to_owned()),
            rust_version: None,
            directory: "/x/a-1.2.3".into(),
        };
        assert_eq!(parse(text).unwrap(), [expected]);
        assert!(parse(r#"{"packages": [{"name": "a"}]}"#).is_err());
    }
}
