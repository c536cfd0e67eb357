// SPDX-License-Identifier: MIT OR Apache-2.0
//! The oldest versions that our manifests allow.

use std::collections::BTreeMap;

use cargo_metadata::semver::VersionReq;
use cargo_metadata::{DependencyKind, Package};

use crate::packed::Packed;

/// Returns a table of dependencies that makes Cargo select the lower bound of each direct dependency of one of our crates, and
/// of our crates below it. The table is for a target that does not exist: Cargo selects versions for all targets.
pub(super) fn pins(crate_name: &'static str, crates: &[Packed]) -> String {
    let mut table = "[target.'cfg(any())'.dependencies]\n".to_owned();
    for (name, bound) in bounds(crate_name, crates) {
        table += &format!("{name} = {{ version = \"={bound}\", default-features = false }}\n");
    }
    table
}

fn bounds(crate_name: &'static str, crates: &[Packed]) -> BTreeMap<String, String> {
    let mut bounds = BTreeMap::new();
    let mut todo = vec![crate_name];
    while let Some(name) = todo.pop() {
        let Some(taken) = crates.iter().find(|packed| packed.name == name) else { continue };
        for (dependency, bound) in bounds_of(&taken.package) {
            match crates.iter().find(|packed| packed.name == dependency) {
                Some(ours) => todo.push(ours.name),
                None => _ = bounds.insert(dependency, bound),
            }
        }
    }
    bounds
}

fn bounds_of(package: &Package) -> impl Iterator<Item = (String, String)> {
    let run_time = package.dependencies.iter().filter(|other| other.kind == DependencyKind::Normal);
    run_time.filter_map(|other| Some((other.name.clone(), lower_bound(&other.req)?)))
}

/// Returns the oldest version that meets a requirement: 1.2.0 for `^1.2`.
fn lower_bound(requirement: &VersionReq) -> Option<String> {
    let first = requirement.comparators.first()?;
    Some(format!("{}.{}.{}", first.major, first.minor.unwrap_or(0), first.patch.unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::metadata::{dependency, package};

    #[test]
    fn run_time_dependencies_have_lower_bounds() {
        let dependencies = json!([
            dependency("serde", "^1.0.219", json!(null)),
            dependency("nix", "^0.30", json!(null)),
            dependency("regex", "^1", json!("dev")),
            dependency("slab", "^1", json!(null)),
        ]);
        let package = package("a", json!({"dependencies": dependencies}));
        let found: Vec<_> = bounds_of(&package).collect();
        let expected = [("serde", "1.0.219"), ("nix", "0.30.0"), ("slab", "1.0.0")];
        assert_eq!(found, expected.map(|(name, bound)| (name.to_owned(), bound.to_owned())));
    }
}
