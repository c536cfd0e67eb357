// SPDX-License-Identifier: MIT OR Apache-2.0
//! The third-party crates in the program, and their licences.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use cargo_metadata::Package;

use crate::command::{Outcome, cargo, output_of};
use crate::files;
use crate::metadata::metadata;
use crate::workspace::PROGRAM;

/// Prefixes of the names of files with licences.
const LICENCE_FILES: [&str; 5] = ["LICENSE", "LICENCE", "UNLICENSE", "COPYING", "NOTICE"];

/// All crates, and each text once.
pub(super) fn text() -> Outcome<String> {
    let wanted = ["tree", "--locked", "--package", PROGRAM, "--edges", "normal"];
    let plain = ["--prefix", "none", "--no-dedupe", "--format", "{p}"];
    let tree = output_of(cargo(wanted).args(plain))?;
    let packages = metadata()?.packages;
    let mut crates = built_from(&tree)
        .into_iter()
        .map(|(name, version)| {
            let found = packages
                .iter()
                .find(|found| found.name == name && found.version.to_string() == version);
            Crate::new(found.ok_or_else(|| format!("nothing is known of {name} {version}"))?)
        })
        .collect::<Outcome<Vec<_>>>()?;
    crates.sort_by(|one, other| (&one.name, &one.version).cmp(&(&other.name, &other.version)));
    Ok(render(&crates))
}

/// Returns name and version of each crate in `cargo tree`'s list, except those of the workspace, which have a path.
fn built_from(tree: &str) -> Vec<(&str, &str)> {
    let lines = tree.lines().filter(|line| !line.contains("(/"));
    let mut crates: Vec<_> = lines
        .filter_map(|line| {
            let (name, rest) = line.split_once(" v")?;
            Some((name, rest.split(' ').next()?))
        })
        .collect();
    crates.sort_unstable();
    crates.dedup();
    crates
}

struct Crate {
    name: String,
    version: String,
    licence: String,
    texts: Vec<String>,
}

impl Crate {
    fn new(package: &Package) -> Outcome<Self> {
        let directory = package.manifest_path.parent();
        let directory = directory.ok_or_else(|| format!("{} has no directory", package.name))?;
        Ok(Self {
            name: package.name.to_string(),
            version: package.version.to_string(),
            licence: package.license.clone().unwrap_or_default(),
            texts: licence_texts(directory.as_std_path())?,
        })
    }
}

fn licence_texts(directory: &Path) -> Outcome<Vec<String>> {
    let mut paths = files::entries(directory)?;
    paths.retain(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_uppercase();
        path.is_file() && LICENCE_FILES.iter().any(|start| name.starts_with(start))
    });
    paths.iter().map(|path| files::read(path)).collect()
}

/// Returns a list of crates that refers to a list of texts.
fn render(crates: &[Crate]) -> String {
    let mut numbers = BTreeMap::<&str, usize>::new();
    let mut texts = String::new();
    let mut list =
        "The program contains Rust's standard library, under MIT OR Apache-2.0, and these crates, or code that \
         they have generated.\n\n"
            .to_owned();
    for Crate { name, version, licence, texts: own } in crates {
        let mut refers = Vec::new();
        for text in own {
            let next = numbers.len() + 1;
            let number = *numbers.entry(text).or_insert(next);
            refers.push(number.to_string());
            if number == next {
                _ = write!(texts, "\n{}\nText {number}\n\n{}\n", "-".repeat(80), text.trim_end());
            }
        }
        let refers = match &refers[..] {
            [] => "its package has no text".to_owned(),
            [one] => format!("text {one}"),
            more => format!("texts {}", more.join(", ")),
        };
        _ = writeln!(list, "{name} {version}: {licence} ({refers})");
    }
    list + &texts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crates_of_others_are_found_once() {
        let tree = "qmp-server-cli v0.1.0 (/src/qmp-server/cli)\nb v1.0.0\na v0.2.0+x (proc-macro)\nb v1.0.0\n";
        assert_eq!(built_from(tree), [("a", "0.2.0+x"), ("b", "1.0.0")]);
    }

    #[test]
    fn each_text_is_there_once() {
        let taken = |name: &str, texts: &[&str]| Crate {
            name: name.to_owned(),
            version: "1.0.0".to_owned(),
            licence: "MIT".to_owned(),
            texts: texts.iter().map(|text| (*text).to_owned()).collect(),
        };
        let text = render(&[taken("a", &["one", "two"]), taken("b", &["two"]), taken("c", &[])]);
        assert!(text.contains("\na 1.0.0: MIT (texts 1, 2)\nb 1.0.0: MIT (text 2)\n"), "{text}");
        assert!(text.contains("\nc 1.0.0: MIT (its package has no text)\n"), "{text}");
        assert_eq!(text.matches("Text 2\n\ntwo\n").count(), 1, "{text}");
    }
}
