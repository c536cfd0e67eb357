// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask dist --check`: checks that the build is reproducible, and what lintian and systemd report.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::origin::Origin;
use super::program::program_in;
use super::{Options, UNITS, make};
use crate::command::{Failure, Outcome, output_of, run as run_command, step};
use crate::files;
use crate::git;
use crate::install::Program;
use crate::workspace::{root, target_dir};

pub(super) const PROGRAMS: [Program; 2] = [("lintian", "lintian"), ("systemd-analyze", "systemd")];

/// The highest acceptable exposure in tenths: 0 is harmless, 100 has all rights.
const EXPOSURE: &str = "--threshold=20";

pub(super) fn run(made: &[PathBuf], origin: &Origin, options: &Options) -> Outcome {
    step("build the same again elsewhere", || again(made, origin, options))?;
    step("units of systemd", units)?;
    if let Some(package) = made.iter().find(|path| path.extension() == Some("deb".as_ref())) {
        step("lintian", || {
            run_command(Command::new("lintian").args(["--fail-on", "error"]).arg(package))
        })?;
    }
    Ok(())
}

/// Copies the sources to another directory, builds everything from them, and compares.
fn again(made: &[PathBuf], origin: &Origin, options: &Options) -> Outcome {
    let place = target_dir().join("dist/again");
    let source = place.join("somewhere else");
    copy_sources(&source)?;
    let second = make(&source, &place.join("made"), origin, options)?;
    for (one, other) in made.iter().zip(&second) {
        if files::read_bytes(one)? != files::read_bytes(other)? {
            let (one, other) = (one.display(), other.display());
            return Err(Failure::Task(format!("{one} and {other} are not the same")));
        }
    }
    // The second build takes much space, and is equal to the first.
    files::fresh_directory(&place)
}

fn copy_sources(to: &Path) -> Outcome {
    files::fresh_directory(to)?;
    for file in git::files()? {
        let from = root().join(&file);
        if from.exists() {
            let to = to.join(&file);
            files::directory(to.parent().unwrap_or(&to))?;
            files::copy(&from, &to)?;
        }
    }
    Ok(())
}

/// Checks that systemd accepts the units, and the exposure of the services that it computes.
fn units() -> Outcome {
    let place = target_dir().join("dist/units");
    files::fresh_directory(&place)?;
    let program = format!("\"{}\"", program_in(&target_dir().join("dist/build")).display());
    let mut instances = Vec::new();
    for name in UNITS {
        let text = files::read(&root().join("xtask/dist/systemd").join(name))?;
        let instance = place.join(name.replace('@', "@vm1"));
        // It need not be installed here.
        files::write(&instance, text.replace("/usr/bin/qmp-server", &program))?;
        instances.push(instance);
    }
    let mut verify = Command::new("systemd-analyze");
    run_command(verify.args(["verify", "--man=no"]).args(&instances))?;
    let mut security = Command::new("systemd-analyze");
    security.args(["security", "--no-pager", "--offline=yes", EXPOSURE]).arg(&instances[0]);
    output_of(&mut security).map(drop)
}
