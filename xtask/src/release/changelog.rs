// SPDX-License-Identifier: MIT OR Apache-2.0
//! Checks that the changelog describes the release.

use crate::command::{Failure, Outcome};

const UNRELEASED: &str = "Unreleased";

/// Returns the section of a version. In a dry run, the unreleased section will do.
pub(super) fn section<'t>(text: &'t str, version: &str, dry_run: bool) -> Outcome<&'t str> {
    if let Some(section) = titled(text, version) {
        return Ok(section);
    }
    match titled(text, UNRELEASED) {
        Some(section) if dry_run => {
            println!("    CHANGELOG.md: what is '{UNRELEASED}' has yet to become {version}");
            Ok(section)
        }
        _ => Err(Failure::Task(format!("CHANGELOG.md has no section {version}"))),
    }
}

/// Returns the text below the heading `## TITLE` or `## TITLE - DATE`.
fn titled<'t>(text: &'t str, title: &str) -> Option<&'t str> {
    let mut sections = text.split("\n## ").skip(1);
    sections.find(|section| {
        let heading = section.lines().next().unwrap_or_default();
        heading.split(" - ").next().map(|found| found.trim_matches(['[', ']', ' '])) == Some(title)
    })
}

/// Checks that an entry of the section is about a crate.
pub(super) fn mentions(section: &str, name: &str) -> Outcome {
    let name = format!("`{name}`");
    let about = |line: &str| {
        line.starts_with("- ") && line.split(':').next().unwrap_or_default().contains(&name)
    };
    match section.lines().any(about) {
        true => Ok(()),
        false => Err(Failure::Task(format!("CHANGELOG.md says nothing of {name} in this version"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# Changelog\n\n## Unreleased\n\n- `a`: new\n\n## 0.2.0 - 2030-01-01\n\n\
        ### Added\n\n- `b`, `c`: newer\n\n## [0.1.0]\n\n- all is new: `d`\n";

    #[test]
    fn a_version_has_its_section() {
        assert!(section(TEXT, "0.2.0", false).unwrap().contains("newer"));
        assert!(!section(TEXT, "0.2.0", false).unwrap().contains("all is new"));
        assert!(section(TEXT, "0.1.0", false).unwrap().contains("all is new"));
    }

    #[test]
    fn what_is_not_released_yet_will_do_for_a_dry_run() {
        assert!(section(TEXT, "0.3.0", true).unwrap().contains("`a`"));
        assert!(section(TEXT, "0.3.0", false).is_err());
        assert!(section("# Changelog\n\n## 0.1.0\n", "0.3.0", true).is_err());
    }

    #[test]
    fn an_entry_begins_with_what_it_is_about() {
        let section = section(TEXT, "0.2.0", false).unwrap();
        assert_eq!(mentions(section, "b"), Ok(()));
        assert_eq!(mentions(section, "c"), Ok(()));
        assert!(mentions(section, "a").is_err());
        assert!(mentions(titled(TEXT, "0.1.0").unwrap(), "d").is_err());
    }
}
