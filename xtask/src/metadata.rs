// SPDX-License-Identifier: MIT OR Apache-2.0
//! Cargo's metadata of the workspace's packages and their dependencies, for this machine's target.

use cargo_metadata::{CargoOpt, Metadata, MetadataCommand, Package};

use crate::command::{Failure, Outcome, cargo, output_of};
use crate::workspace::root;

/// Returns all packages, with all features, including dependencies of tests.
pub(crate) fn metadata() -> Outcome<Metadata> {
    let mut command = MetadataCommand::new();
    command.current_dir(root()).features(CargoOpt::AllFeatures);
    command.other_options(["--locked", "--filter-platform", &host()?].map(str::to_owned));
    command.exec().map_err(|error| Failure::Task(error.to_string()))
}

/// Returns the default target of builds.
pub(crate) fn host() -> Outcome<String> {
    let said = output_of(&mut cargo(["--version", "--verbose"]))?;
    let host = said.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).ok_or_else(|| Failure::Task("cargo reports no host".to_owned()))
}

/// Returns a member of the workspace.
pub(crate) fn member<'a>(metadata: &'a Metadata, name: &str) -> Outcome<&'a Package> {
    let mut members = metadata.workspace_packages().into_iter();
    members
        .find(|package| package.name == name)
        .ok_or_else(|| Failure::Task(format!("no member is called {name}")))
}

/// Returns the version, which all crates share.
pub(crate) fn version() -> Outcome<String> {
    Ok(member(&metadata()?, "qmp-proto")?.version.to_string())
}

/// Returns a package as Cargo describes it, with these fields and a name.
#[cfg(test)]
pub(crate) fn package(name: &str, fields: serde_json::Value) -> Package {
    let mut package = serde_json::json!({
        "name": name, "version": "1.0.0", "id": name, "dependencies": [], "targets": [], "features": {},
        "manifest_path": "/Cargo.toml", "license": "MIT",
    });
    for (field, value) in fields.as_object().into_iter().flatten() {
        package[field] = value.clone();
    }
    serde_json::from_value(package).expect("a package")
}

/// Returns a dependency as Cargo describes it; the kind is `null`, `dev` or `build`.
#[cfg(test)]
pub(crate) fn dependency(name: &str, version: &str, kind: serde_json::Value) -> serde_json::Value {
    serde_json::json!({
        "name": name, "req": version, "kind": kind, "optional": false, "uses_default_features": true,
        "features": [], "target": null, "rename": null,
    })
}
