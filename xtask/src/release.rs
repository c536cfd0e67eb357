// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask release`: checks, packs and verifies crates, publishes them and tags what has been published.

mod changelog;
mod semver;

use std::path::PathBuf;

use crate::bench;
use crate::command::{Failure, Outcome, cargo, output_of, run as run_command, step};
use crate::files;
use crate::git::{git, uncommitted};
use crate::metadata::{member, metadata, version};
use crate::workspace::{LIBRARIES, PUBLISHED, root, target_dir};

pub(crate) fn run(arguments: &[String]) -> Outcome {
    let release = Release::parse(arguments)?;
    let version = version()?;
    let built = with_those_below(&release.crates)?;
    step("check that the tree is clean", tree_is_clean)?;
    step("check the changelog", || {
        let text = files::read(&root().join("CHANGELOG.md"))?;
        let section = changelog::section(&text, &version, release.dry_run)?;
        release.crates.iter().try_for_each(|name| changelog::mentions(section, name))
    })?;
    let libraries = release.crates.iter().filter(|name| LIBRARIES.contains(name));
    for name in libraries {
        step(&format!("check that the interface of {name} is compatible"), || {
            semver::check(name, &version, &release)
        })?;
    }
    if built.contains(&"qmp-server") {
        step("check the work of a request", || bench::counted(&[]))?;
    }
    let place = fresh_place()?;
    step(&format!("pack {}, and build from what was packed", built.join(", ")), || {
        let mut package = cargo(["package", "--locked", "--target-dir"]);
        run_command(package.arg(&place).args(packages(&built)))
    })?;
    if release.dry_run {
        let tags: Vec<_> = release.crates.iter().map(|name| tag(name, &version)).collect();
        println!("dry run: nothing is published; the tags would be {}", tags.join(" "));
        return Ok(());
    }
    step("publish", || {
        let mut publish = cargo(["publish", "--locked", "--target-dir"]);
        run_command(publish.arg(&place).args(packages(&release.crates)))
    })?;
    step("tag", || release.crates.iter().try_for_each(|name| set_tag(name, &version)))?;
    println!("`git push --tags` tells others");
    Ok(())
}

/// The arguments of a release.
struct Release {
    /// The crates, lowest layer first.
    crates: Vec<&'static str>,
    dry_run: bool,
    /// Whether to install missing tools.
    install: bool,
}

impl Release {
    fn parse(arguments: &[String]) -> Outcome<Self> {
        let mut release = Self { crates: Vec::new(), dry_run: false, install: false };
        for argument in arguments {
            match argument.as_str() {
                "--dry-run" => release.dry_run = true,
                "--install" => release.install = true,
                "all" => release.crates = PUBLISHED.to_vec(),
                other => match PUBLISHED.into_iter().find(|name| *name == other) {
                    Some(name) => release.crates.push(name),
                    None => return Err(Failure::Usage(format!("release does not take '{other}'"))),
                },
            }
        }
        if release.crates.is_empty() {
            return Err(Failure::Usage(format!(
                "release expects crates: {}, or all",
                PUBLISHED.join(", ")
            )));
        }
        release.crates.sort_by_key(|name| PUBLISHED.iter().position(|other| other == name));
        release.crates.dedup();
        Ok(release)
    }
}

/// Returns these crates and those of the workspace that they depend on, lowest layer first. They are packed together, so that
/// each is built with the packed form of the others.
fn with_those_below(crates: &[&'static str]) -> Outcome<Vec<&'static str>> {
    let metadata = metadata()?;
    let mut needed = crates.to_vec();
    for name in PUBLISHED.into_iter().rev() {
        if needed.contains(&name) {
            let below = &member(&metadata, name)?.dependencies;
            let is_below = |other: &&str| below.iter().any(|dependency| dependency.name == *other);
            needed.extend(PUBLISHED.into_iter().filter(is_below));
        }
    }
    Ok(PUBLISHED.into_iter().filter(|name| needed.contains(name)).collect())
}

/// Returns a directory for packing and building, with a name of this commit: Cargo caches packed crates by place and version,
/// and would build the others with the contents of an earlier commit.
fn fresh_place() -> Outcome<PathBuf> {
    let place = target_dir().join("packed");
    files::fresh_directory(&place)?;
    Ok(place.join(output_of(&mut git(["rev-parse", "HEAD"]))?.trim()))
}

fn packages(crates: &[&'static str]) -> impl Iterator<Item = &'static str> {
    crates.iter().flat_map(|name| ["--package", name])
}

fn tree_is_clean() -> Outcome {
    match uncommitted()? {
        None => Ok(()),
        Some(first) => Err(Failure::Task(format!("not committed: {first}"))),
    }
}

fn tag(name: &str, version: &str) -> String {
    format!("{name}-v{version}")
}

fn set_tag(name: &str, version: &str) -> Outcome {
    let message = format!("{name} {version}");
    run_command(&mut git(["tag", "--annotate", "--message", &message, &tag(name, version)]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::CODEGEN;

    fn parse(line: &str) -> Outcome<Release> {
        let arguments: Vec<_> = line.split_whitespace().map(str::to_owned).collect();
        Release::parse(&arguments)
    }

    #[test]
    fn crates_are_released_lowest_first() {
        let release = parse("qmp-server --dry-run qmp-proto qmp-server").unwrap();
        assert_eq!(release.crates, ["qmp-proto", "qmp-server"]);
        assert!(release.dry_run);
        assert_eq!(parse("all").unwrap().crates, PUBLISHED);
    }

    #[test]
    fn what_is_no_crate_of_ours_is_refused() {
        for line in ["", "--dry-run", "xtask", "all --force"] {
            assert!(matches!(parse(line), Err(Failure::Usage(_))), "{line}");
        }
    }

    #[test]
    fn a_crate_is_built_with_those_below_it() {
        let below = with_those_below(&["qmp-dispatch"]).unwrap();
        assert_eq!(below, ["qmp-proto", "qmp-dispatch-macros", "qmp-dispatch"]);
        let at_run_time = |name: &&str| *name != CODEGEN;
        let libraries: Vec<_> = LIBRARIES.into_iter().filter(at_run_time).collect();
        assert_eq!(with_those_below(&["qmp-server"]).unwrap(), libraries);
        let published: Vec<_> = PUBLISHED.into_iter().filter(at_run_time).collect();
        assert_eq!(with_those_below(&["qmp-server-cli"]).unwrap(), published);
    }
}
