// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask consumers`: uses each packed crate from outside the workspace, as another project would.

mod minimal;

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::command::{Outcome, cargo, no_arguments, run as run_command, step};
use crate::files;
use crate::metadata::metadata;
use crate::packed::{Packed, pack_into};
use crate::workspace::{root, target_dir};

pub(crate) fn run(arguments: &[String]) -> Outcome {
    no_arguments("consumers", arguments)?;
    let place = target_dir().join("consumers");
    let mut crates = Vec::new();
    step("pack", || {
        crates = pack_into(&place.join("packed"), &metadata()?)?;
        Ok(())
    })?;
    for taken in &crates {
        let project = Project::new(taken, &crates, &place)?;
        step(&format!("format {}", taken.name), || project.check_format())?;
        for variant in
            [Variant::Default, Variant::NoFeatures, Variant::AllFeatures, Variant::Minimal]
        {
            step(&format!("{}, {}", taken.name, variant.text()), || {
                project.write(variant)?;
                run_command(project.cargo("run").arg("--quiet"))
            })?;
        }
    }
    Ok(())
}

/// The features and versions that a consumer asks for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Variant {
    Default,
    NoFeatures,
    AllFeatures,
    /// All features, and the oldest allowed versions of our dependencies.
    Minimal,
}

impl Variant {
    fn text(self) -> &'static str {
        match self {
            Self::Default => "default features",
            Self::NoFeatures => "no features",
            Self::AllFeatures => "all features",
            Self::Minimal => "minimal versions",
        }
    }
}

/// A consumer, outside of the workspace.
struct Project<'a> {
    taken: &'a Packed,
    crates: &'a [Packed],
    directory: PathBuf,
    target: PathBuf,
    /// Its manifest, as another project would write it.
    template: String,
}

impl<'a> Project<'a> {
    fn new(taken: &'a Packed, crates: &'a [Packed], place: &Path) -> Outcome<Self> {
        let source = root().join("xtask/consumers").join(taken.name);
        let directory = place.join(taken.name);
        files::fresh_directory(&directory)?;
        files::copy_directory(&source, &directory)?;
        let template = files::read(&source.join("Cargo.toml"))?;
        Ok(Self { taken, crates, directory, target: place.join("target"), template })
    }

    /// Returns a Cargo command in the directory of the project.
    fn cargo(&self, task: &str) -> Command {
        let mut command = cargo([task]);
        command.current_dir(&self.directory).env("CARGO_TARGET_DIR", &self.target);
        // These programs are not debugged, and debug information makes them large.
        command.env("CARGO_PROFILE_DEV_DEBUG", "0");
        command
    }

    fn check_format(&self) -> Outcome {
        let config = root().join("rustfmt.toml");
        run_command(self.cargo("fmt").args(["--", "--check", "--config-path"]).arg(config))
    }

    /// Writes the manifest again, and removes the lock file.
    fn write(&self, variant: Variant) -> Outcome {
        let lock = self.directory.join("Cargo.lock");
        if lock.exists() {
            std::fs::remove_file(&lock).map_err(|error| format!("{}: {error}", lock.display()))?;
        }
        files::write(&self.directory.join("Cargo.toml"), self.manifest(variant)?)
    }

    /// Returns the consumer's manifest, with paths to our unpacked crates, which may not be published yet.
    fn manifest(&self, variant: Variant) -> Outcome<String> {
        let Packed { name, package, .. } = self.taken;
        let plain = self.template.lines().find(|line| line.starts_with(&format!("{name} = ")));
        let plain = plain.ok_or_else(|| format!("the consumer of {name} does not take it"))?;
        let version = plain.rsplit(" = ").next().unwrap_or_default();
        let all: Vec<_> = package.features.keys().map(|feature| format!("{feature:?}")).collect();
        let features = match variant {
            Variant::Default => String::new(),
            Variant::NoFeatures => ", default-features = false".to_owned(),
            Variant::AllFeatures | Variant::Minimal => format!(", features = [{}]", all.join(", ")),
        };
        let taken = format!("{name} = {{ version = {version}{features} }}");
        let pins = match variant {
            Variant::Minimal => minimal::pins(name, self.crates),
            _ => String::new(),
        };
        let unpacked = |packed: &Packed| {
            format!("{} = {{ path = {:?} }}\n", packed.name, packed.directory.display().to_string())
        };
        let patches: String = self.crates.iter().map(unpacked).collect();
        let stranger = self.template.replace(plain, &taken);
        Ok(format!("{stranger}\n{pins}\n[patch.crates-io]\n{patches}"))
    }
}
