// SPDX-License-Identifier: MIT OR Apache-2.0
//! Checks that a crate's interface is compatible with the last release.

use super::{Release, tag};
use crate::command::{Failure, Outcome, cargo, output_of, run};
use crate::git::git;
use crate::tool::SEMVER_CHECKS;

pub(super) fn check(name: &'static str, version: &str, release: &Release) -> Outcome {
    if name.ends_with("-macros") {
        println!("    {name} has no interface but its macros, which the tool does not compare");
        return Ok(());
    }
    let tags = output_of(&mut git(list(&tag(name, "*"))))?;
    let Some(last) = tags.lines().next() else {
        println!("    {name} has not been released before");
        return Ok(());
    };
    if last == tag(name, version) {
        return already_released(last, release.dry_run);
    }
    match SEMVER_CHECKS.provide(release.install) {
        Ok(()) => run(&mut cargo(["semver-checks", "--package", name, "--baseline-rev", last])),
        Err(missing) if release.dry_run => {
            println!("    not checked: {missing}");
            Ok(())
        }
        Err(missing) => Err(missing),
    }
}

/// The options for git to list tags, the greatest version first; a release candidate is less than its version.
fn list(pattern: &str) -> [&str; 6] {
    ["-c", "versionsort.suffix=-", "tag", "--list", "--sort=-version:refname", pattern]
}

fn already_released(last: &str, dry_run: bool) -> Outcome {
    if dry_run {
        println!("    {last} is there already: only a greater version can be released");
        return Ok(());
    }
    Err(Failure::Task(format!("{last} is there already")))
}
