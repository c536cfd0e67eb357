// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask dist`: builds the distributed archive and Debian package of the program.
//!
//! The build is reproducible: the same toolchain makes the same bytes, wherever the sources are.

mod archive;
mod check;
mod debian;
mod generated;
mod origin;
mod program;
mod third_party;
mod tree;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::command::{Failure, Outcome, output_of, step};
use crate::files;
use crate::git;
use crate::install::{Program, install_programs};
use crate::workspace::{root, target_dir};
use generated::Generated;
use origin::Origin;

pub(crate) fn run(arguments: &[String]) -> Outcome {
    let options = Options::parse(arguments)?;
    step("tools", || install_programs(&options.programs()))?;
    let origin = Origin::of_workspace()?;
    let place = target_dir().join("dist");
    let mut made = Vec::new();
    step(&format!("build {}", origin.title()), || {
        made = make(&root(), &place, &origin, &options)?;
        let names: Vec<_> = made.iter().filter_map(|path| path.file_name()).collect();
        files::write(&place.join("SHA256SUMS"), checksums(&place, &names)?)
    })?;
    if options.check {
        check::run(&made, &origin, &options)?;
    }
    for path in made.iter().chain([&place.join("SHA256SUMS")]) {
        println!("{}", path.display());
    }
    Ok(())
}

/// What to build, and whether to check it.
struct Options {
    archive: bool,
    package: bool,
    check: bool,
}

impl Options {
    fn parse(arguments: &[String]) -> Outcome<Self> {
        let mut options = Self { archive: false, package: false, check: false };
        for argument in arguments {
            match argument.as_str() {
                "archive" => options.archive = true,
                "deb" => options.package = true,
                "--check" => options.check = true,
                other => {
                    return Err(Failure::Usage(format!(
                        "dist takes archive, deb and --check, not '{other}'"
                    )));
                }
            }
        }
        if !(options.archive || options.package) {
            (options.archive, options.package) = (true, true);
        }
        Ok(options)
    }

    fn programs(&self) -> Vec<Program> {
        let mut programs =
            vec![("git", "git"), ("gzip", "gzip"), ("tar", "tar"), ("sha256sum", "coreutils")];
        if self.package {
            programs.extend(debian::PROGRAMS);
        }
        if self.check {
            programs.extend(check::PROGRAMS);
        }
        programs
    }
}

/// Builds what is wanted from a copy of the sources, into a directory, which is created if necessary.
fn make(source: &Path, place: &Path, origin: &Origin, options: &Options) -> Outcome<Vec<PathBuf>> {
    let program = program::build(source, &place.join("build"), origin)?;
    let parts = Parts {
        source,
        origin,
        third_party: third_party::text()?,
        generated: Generated::by(&program)?,
        program,
    };
    parts.try_example()?;
    let mut made = Vec::new();
    if options.archive {
        made.push(archive::make(&parts, place)?);
    }
    if options.package {
        made.push(debian::make(&parts, place)?);
    }
    Ok(made)
}

/// The contents that the archive and the package share.
struct Parts<'a> {
    /// The root of the sources.
    source: &'a Path,
    origin: &'a Origin,
    program: PathBuf,
    generated: Generated,
    third_party: String,
}

const EXAMPLE: &str = "xtask/dist/mux.toml";
const UNITS: [&str; 2] = ["qmp-server-mux@.service", "qmp-server-mux@.socket"];
/// The user that the units need.
const USER: &str = "qmp-server.conf";

impl Parts<'_> {
    fn read(&self, path: &str) -> Outcome<String> {
        files::read(&self.source.join(path))
    }

    fn unit(&self, name: &str) -> PathBuf {
        self.source.join("xtask/dist/systemd").join(name)
    }

    /// The guides, relative to the sources.
    fn documents(&self) -> Outcome<Vec<String>> {
        Ok(git::files()?.into_iter().filter(|path| path.starts_with("docs/")).collect())
    }

    /// Checks that the program accepts the configuration that comes with it.
    fn try_example(&self) -> Outcome {
        let mut try_it = Command::new(&self.program);
        try_it.args(["mux", "--check-config", "--config"]).arg(self.source.join(EXAMPLE));
        output_of(&mut try_it).map(drop)
    }
}

/// Returns the checksums of the files below a directory, in the format of `sha256sum --check`.
fn checksums(directory: &Path, names: &[impl AsRef<OsStr>]) -> Outcome<String> {
    output_of(Command::new("sha256sum").args(names).current_dir(directory))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Outcome<Options> {
        Options::parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn everything_is_made_unless_something_is_named() {
        let options = parse("--check").unwrap();
        assert!(options.archive && options.package && options.check);
        let options = parse("archive").unwrap();
        assert!(options.archive && !options.package && !options.check);
        assert!(options.programs().iter().all(|(program, _)| *program != "dpkg-deb"));
        assert!(matches!(parse("rpm"), Err(Failure::Usage(_))));
    }
}
