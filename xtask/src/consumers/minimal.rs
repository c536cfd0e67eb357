// SPDX-License-Identifier: MIT OR Apache-2.0
//! The oldest versions that our manifests allow.

use std::collections::BTreeMap;

use crate::manifest::Manifest;
use crate::packed::Packed;

/// A table of dependencies that leaves Cargo no choice but the lower bound of each direct dependency of one of our
/// crates, and of those of our crates below it. It is for a target that does not exist: versions are chosen for all.
pub(super) fn pins(crate_name: &'static str, crates: &[Packed]) -> String {
    let mut table = "[target.'cfg(any())'.dependencies]\n".to_owned();
    for (name, bound) in bounds(crate_name, crates) {
        table +=
            &format!("{name} = {{ version = \"={}\", default-features = false }}\n", exact(&bound));
    }
    table
}

fn bounds(crate_name: &'static str, crates: &[Packed]) -> BTreeMap<String, String> {
    let mut bounds = BTreeMap::new();
    let mut todo = vec![crate_name];
    while let Some(name) = todo.pop() {
        let Some(taken) = crates.iter().find(|packed| packed.name == name) else { continue };
        for (dependency, bound) in bounds_of(&taken.manifest) {
            match crates.iter().find(|packed| packed.name == dependency) {
                Some(ours) => todo.push(ours.name),
                None => _ = bounds.insert(dependency, bound),
            }
        }
    }
    bounds
}

fn bounds_of(manifest: &Manifest) -> impl Iterator<Item = (String, String)> {
    let dependencies = manifest.dependencies(&["dependencies"]);
    dependencies.into_iter().filter_map(|(name, said)| {
        let version = said.split("version = ").nth(1)?;
        let version = version.trim_start_matches(['"', '^']);
        let end = version.find(|character| character != '.' && !char::is_ascii_digit(&character));
        Some((name, version[..end.unwrap_or(version.len())].to_owned()))
    })
}

/// A bound in full: `1.2` is 1.2.0.
fn exact(bound: &str) -> String {
    let missing = 2_usize.saturating_sub(bound.matches('.').count());
    bound.to_owned() + &".0".repeat(missing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lower_bounds_are_found_as_cargo_writes_them() {
        let manifest = Manifest::parse(
            "[dependencies.serde]\nversion = \"1.0.219\"\nfeatures = [\"derive\"]\n\
             [dependencies.nix]\nversion = \"^0.30\"\n[dev-dependencies.regex]\nversion = \"1\"\n\
             [dependencies]\nitoa = { version = \"1.0.15\", optional = true }\n",
        );
        let found: Vec<_> = bounds_of(&manifest).collect();
        let expected = [("itoa", "1.0.15"), ("nix", "0.30"), ("serde", "1.0.219")];
        assert_eq!(found, expected.map(|(name, bound)| (name.to_owned(), bound.to_owned())));
    }

    #[test]
    fn bounds_are_completed() {
        assert_eq!(exact("1"), "1.0.0");
        assert_eq!(exact("0.30"), "0.30.0");
        assert_eq!(exact("1.0.219"), "1.0.219");
    }
}
