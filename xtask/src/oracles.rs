// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask oracles`: provides the versions of QEMU that our server is compared with, and its guest agent. They are unpacked from Debian's
//! packages into the target directory, with all their libraries: nothing is installed, and the host's release of Debian does
//! not matter.

use std::ffi::OsString;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::command::{Failure, Outcome, no_arguments, output_of, run as run_command};
use crate::files;
use crate::workspace::target_dir;

/// A release of QEMU that our server mirrors, or its guest agent.
#[derive(Clone, Copy)]
struct Oracle {
    /// What it is called, and its directory with the version.
    name: &'static str,
    version: &'static str,
    /// The suite of Debian that has it.
    suite: &'static str,
    /// The environment variable with the directory of its programs, for tests. If it is set, that directory is used and
    /// nothing is unpacked.
    variable: &'static str,
    packages: &'static [&'static str],
    /// Packages that may be missing from the backports.
    firmware: &'static [&'static str],
    programs: &'static [&'static str],
}

const ORACLES: [Oracle; 3] = [
    Oracle { version: "10.0", suite: "trixie", variable: "QMP_QEMU_10_0", ..QEMU },
    Oracle { version: "11.1", suite: "trixie-backports", variable: "QMP_QEMU_11_1", ..QEMU },
    Oracle {
        name: "qemu-ga",
        version: "10.0",
        suite: "trixie",
        variable: "QMP_QEMU_GA",
        packages: &["qemu-guest-agent"],
        firmware: &[],
        programs: &["qemu-ga"],
    },
];

/// What both releases have.
const QEMU: Oracle = Oracle {
    name: "qemu",
    version: "",
    suite: "",
    variable: "",
    packages: &["qemu-system-x86", "qemu-system-common", "qemu-system-data", "qemu-utils"],
    firmware: &["seabios", "ipxe-qemu"],
    programs: &["qemu-system-x86_64", "qemu-storage-daemon", "qemu-img", "qemu-io", "qemu-nbd"],
};

pub(crate) fn run(arguments: &[String]) -> Outcome {
    no_arguments("oracles", arguments)?;
    for (variable, value) in environment()? {
        println!("{variable}={}", value.display());
    }
    Ok(())
}

/// Provides all oracles. Returns the environment for programs that use them: a variable for each, with the directory of
/// its programs.
pub(crate) fn environment() -> Outcome<Vec<(&'static str, PathBuf)>> {
    ORACLES.into_iter().map(|oracle| Ok((oracle.variable, oracle.provide()?))).collect()
}

/// Returns the search path with the first oracle in front, so that `qemu-system-x86_64` is the one of that release.
pub(crate) fn search_path() -> Outcome<OsString> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let directories = [ORACLES[0].provide()?].into_iter().chain(std::env::split_paths(&path));
    std::env::join_paths(directories).map_err(|error| Failure::Task(error.to_string()))
}

impl Oracle {
    fn provide(self) -> Outcome<PathBuf> {
        if let Some(programs) = std::env::var_os(self.variable) {
            return Ok(programs.into());
        }
        let place = target_dir().join("oracles").join(format!("{}-{}", self.name, self.version));
        let programs = place.join("bin");
        // Moved here last, so that this directory is never incomplete.
        if !programs.is_dir() {
            self.unpack(&place).map_err(|failure| {
                Failure::Task(format!(
                    "{} {} cannot be unpacked: {failure}\n\
                     It needs apt-get and dpkg-deb, and a mirror of Debian in apt's sources. Or set {} to a directory with \
                     {} of QEMU {}",
                    self.name,
                    self.version,
                    self.variable,
                    self.programs.join(", "),
                    self.version
                ))
            })?;
        }
        Ok(programs)
    }

    fn unpack(self, place: &Path) -> Outcome {
        eprintln!("unpacking {} {} into {}", self.name, self.version, place.display());
        files::fresh_directory(place)?;
        let apt = Apt::new(&place.join("apt"))?;
        apt.run(&["update"])?;
        let wanted = self.packages.iter().map(|name| format!("{name}/{}", self.suite));
        let wanted: Vec<_> = wanted.collect();
        let firmware = self.firmware.iter().copied();
        let wanted: Vec<_> = wanted.iter().map(String::as_str).chain(firmware).collect();
        let fetch = ["install", "--yes", "--no-install-recommends", "--download-only"];
        apt.run(&[&fetch[..], &["--target-release", self.suite], &wanted[..]].concat())?;
        let root = place.join("root");
        for package in apt.fetched()? {
            run_command(Command::new("dpkg-deb").arg("--extract").arg(package).arg(&root))?;
        }
        let unfinished = place.join("unfinished");
        files::directory(&unfinished)?;
        let libraries = libraries(&root)?;
        for program in self.programs {
            let path = unfinished.join(program);
            files::write(&path, wrapper(&root, &libraries, program))?;
            fs::set_permissions(&path, Permissions::from_mode(0o755))
                .map_err(|error| files::failure(&path, &error))?;
        }
        let said = output_of(Command::new(unfinished.join(self.programs[0])).arg("--version"))?;
        if !said.contains(&format!(" {}.", self.version)) {
            return Err(Failure::Task(format!("{} has {}", self.suite, said.trim())));
        }
        let programs = place.join("bin");
        fs::rename(&unfinished, &programs).map_err(|error| files::failure(&programs, &error))?;
        files::remove(&place.join("apt"))
    }
}

/// An apt-get with its own state: it has only the sources given here and no installed packages, so it fetches all
/// dependencies of the wanted packages, including the C library.
struct Apt(PathBuf);

impl Apt {
    fn new(place: &Path) -> Outcome<Self> {
        for directory in ["lists/partial", "archives/partial"] {
            files::directory(&place.join(directory))?;
        }
        files::write(&place.join("status"), "")?;
        let mirror = mirror()?;
        let sources = ORACLES.map(|oracle| format!("deb {mirror} {} main\n", oracle.suite));
        files::write(&place.join("sources.list"), sources.concat())?;
        Ok(Self(place.to_owned()))
    }

    fn run(&self, arguments: &[&str]) -> Outcome {
        let own = |name: &str| self.0.join(name).display().to_string();
        let options = [
            ("Dir::Etc::sourcelist", own("sources.list")),
            ("Dir::Etc::sourceparts", "/dev/null".to_owned()),
            ("Dir::Etc::preferences", "/dev/null".to_owned()),
            ("Dir::Etc::preferencesparts", "/dev/null".to_owned()),
            ("Dir::State::Lists", own("lists")),
            ("Dir::State::status", own("status")),
            ("Dir::Cache", own("")),
            ("Dir::Cache::archives", own("archives")),
            // The user to which apt switches for downloads cannot write here.
            ("APT::Sandbox::User", String::new()),
        ];
        let mut apt = Command::new("apt-get");
        apt.arg("-qq").args(options.map(|(name, value)| format!("-o{name}={value}")));
        output_of(apt.args(arguments)).map(drop)
    }

    fn fetched(&self) -> Outcome<Vec<PathBuf>> {
        let packages = files::entries(&self.0.join("archives"))?;
        Ok(packages.into_iter().filter(|path| path.extension() == Some("deb".as_ref())).collect())
    }
}

/// Returns the mirror of Debian in apt's configuration.
fn mirror() -> Outcome<String> {
    let mut ask = Command::new("apt-get");
    ask.args(["indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"]);
    let found = output_of(&mut ask)?;
    let mirror = found.lines().find(|uri| uri.trim_end_matches('/').ends_with("/debian"));
    mirror
        .map(str::to_owned)
        .ok_or_else(|| Failure::Task("apt's sources have no mirror of Debian".to_owned()))
}

/// Returns the directory of the C library, its loader and most other libraries, such as `usr/lib/x86_64-linux-gnu`.
fn libraries(root: &Path) -> Outcome<PathBuf> {
    let found = files::entries(&root.join("usr/lib"))?;
    let found = found.into_iter().find(|path| path.to_string_lossy().ends_with("-linux-gnu"));
    found.ok_or_else(|| Failure::Task("the packages have no libraries".to_owned()))
}

/// Returns a script that starts a program with the unpacked loader, libraries and modules. It also passes the directory of the
/// firmware, which QEMU would otherwise look for where its package installs it.
fn wrapper(root: &Path, libraries: &Path, program: &str) -> String {
    let directory = if root.join("usr/sbin").join(program).exists() { "sbin" } else { "bin" };
    let (root, libraries) = (root.display(), libraries.display());
    let firmware = match program.starts_with("qemu-system") {
        true => format!(
            " -L '{root}/usr/share/qemu' -L '{root}/usr/share/seabios' -L '{root}/usr/lib/ipxe/qemu'"
        ),
        false => String::new(),
    };
    format!(
        "#!/bin/sh\nexport QEMU_MODULE_DIR='{libraries}/qemu'\n\
         exec '{libraries}'/ld-linux-*.so.* --argv0 {program} --library-path '{libraries}:{libraries}/libproxy' \
         '{root}/usr/{directory}/{program}'{firmware} \"$@\"\n"
    )
}
