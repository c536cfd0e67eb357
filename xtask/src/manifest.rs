// SPDX-License-Identifier: MIT OR Apache-2.0
//! As much of TOML as Cargo manifests need here.

use std::collections::BTreeMap;
use std::path::Path;

use crate::command::Outcome;
use crate::files;

/// A manifest: for each table its entries, as text.
#[derive(Debug, Default)]
pub(crate) struct Manifest {
    tables: BTreeMap<String, Vec<(String, String)>>,
}

impl Manifest {
    /// The manifest of the package, or of the workspace, in this directory.
    pub(crate) fn of(directory: &Path) -> Outcome<Self> {
        Ok(Self::parse(&files::read(&directory.join("Cargo.toml"))?))
    }

    pub(crate) fn parse(text: &str) -> Self {
        let mut manifest = Self::default();
        let mut table = String::new();
        let mut lines = text.lines().map(without_comment);
        while let Some(line) = lines.next() {
            if let Some(name) = line.strip_prefix('[') {
                table = name.trim_matches(['[', ']']).trim().to_owned();
                manifest.tables.entry(table.clone()).or_default();
            } else if let Some((key, value)) = line.split_once('=') {
                let mut value = value.trim().to_owned();
                while is_open(&value) {
                    let Some(next) = lines.next() else { break };
                    value.push(' ');
                    value.push_str(next);
                }
                let entries = manifest.tables.entry(table.clone()).or_default();
                entries.push((key.trim().replace('"', ""), value.trim_matches('"').to_owned()));
            }
        }
        manifest
    }

    /// The value of a key, without its quotes.
    pub(crate) fn get(&self, table: &str, key: &str) -> Option<&str> {
        let entries = self.tables.get(table)?;
        entries.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    /// The keys of a table.
    pub(crate) fn keys(&self, table: &str) -> impl Iterator<Item = &str> {
        self.tables.get(table).into_iter().flatten().map(|(key, _)| key.as_str())
    }

    /// The dependencies of these kinds, for all targets, each with all that is said about it.
    pub(crate) fn dependencies(&self, kinds: &[&str]) -> BTreeMap<String, String> {
        let mut found = BTreeMap::<String, String>::new();
        for (table, entries) in &self.tables {
            for kind in kinds {
                let name_in_table =
                    table.rsplit_once(&format!("{kind}.")).filter(|(before, _)| is_scope(before));
                let is_table = table.strip_suffix(kind).is_some_and(is_scope);
                for (key, value) in entries {
                    let (name, said) = match name_in_table {
                        Some((_, name)) => (name, format!("{key} = {value}")),
                        None if is_table => match key.split_once('.') {
                            Some((name, rest)) => (name, format!("{rest} = {value}")),
                            None => (key.as_str(), value.clone()),
                        },
                        None => continue,
                    };
                    let name = renamed(&said).unwrap_or(name).to_owned();
                    found.entry(name).or_default().push_str(&format!("{said} "));
                }
            }
        }
        found
    }
}

/// What may come before `dependencies` in the name of a table: nothing, the workspace, or a target.
fn is_scope(before: &str) -> bool {
    before.is_empty()
        || before == "workspace."
        || (before.starts_with("target.") && before.ends_with('.'))
}

/// The package that is meant where the dependency has a name of its own.
fn renamed(said: &str) -> Option<&str> {
    said.split_once("package = \"")?.1.split('"').next()
}

fn without_comment(line: &str) -> &str {
    let mut quoted = false;
    let end = line.find(|character| {
        quoted ^= character == '"';
        character == '#' && !quoted
    });
    line[..end.unwrap_or(line.len())].trim()
}

fn is_open(value: &str) -> bool {
    let count = |wanted: &[char]| value.matches(wanted).count();
    count(&['[', '{']) > count(&[']', '}'])
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r##"
        [package]
        name = "one" # not "two"
        version.workspace = true
        description = "with a # in it"

        [dependencies]
        a.workspace = true
        b = { workspace = true, features = [
            "x", # why
            "y",
        ] }
        c = "1.0"
        own = { package = "d", version = "2" }

        [dependencies.e]
        version = "3"
        path = "../e"

        [target.'cfg(unix)'.dependencies]
        f = "4"

        [dev-dependencies]
        g = "5"

        [lints]
        workspace = true
    "##;

    #[test]
    fn keys_are_found_in_their_tables() {
        let manifest = Manifest::parse(TEXT);
        assert_eq!(manifest.get("package", "name"), Some("one"));
        assert_eq!(manifest.get("package", "description"), Some("with a # in it"));
        assert_eq!(manifest.get("package", "version.workspace"), Some("true"));
        assert_eq!(manifest.get("lints", "workspace"), Some("true"));
        assert_eq!(manifest.get("package", "workspace"), None);
    }

    #[test]
    fn dependencies_are_found_however_they_are_written() {
        let manifest = Manifest::parse(TEXT);
        let found = manifest.dependencies(&["dependencies"]);
        assert_eq!(found.keys().collect::<Vec<_>>(), ["a", "b", "c", "d", "e", "f"]);
        assert!(found["e"].contains("path = ../e") && found["e"].contains("version = 3"));
        assert!(found["b"].contains("\"y\""));
        assert_eq!(
            manifest.dependencies(&["dev-dependencies"]).into_keys().collect::<Vec<_>>(),
            ["g"]
        );
    }
}
