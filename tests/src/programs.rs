// SPDX-License-Identifier: MIT OR Apache-2.0
//! Programs that some tests need and that do not come with Rust.
//!
//! A test whose program is absent prints that and passes; with `CI=true`, it fails.

use std::path::{Path, PathBuf};

use qmp_proto::Dialect;

use crate::server::target_dir;

/// The versions of the Python packages that the tests are for.
pub const PYTHON_REQUIREMENTS: &str = include_str!("../interop/requirements.txt");
const NODE_PACKAGES: &str = include_str!("../interop/node-packages.txt");
/// The virtual environment that `cargo xtask test` makes, in the target directory.
pub const PYTHON_ENVIRONMENT: &str = "interop-venv";

/// Finds a program on the search path; `None` means that the calling test is to be skipped.
pub fn find(name: &str, how_to_install: &str) -> Option<PathBuf> {
    on_path(name).or_else(|| absent(name, how_to_install))
}

/// Finds a program that the tests can do without, because another one shows the same: `None` means that
/// what is only for this one is left out, everywhere.
pub fn find_optional(name: &str) -> Option<PathBuf> {
    let found = on_path(name);
    if found.is_none() {
        eprintln!("{name} is absent: not tested with it");
    }
    found
}

fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).map(|directory| directory.join(name)).find(|file| file.is_file())
}

/// A release of QEMU whose behaviour is ours. `cargo xtask oracles` unpacks both into the target directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Oracle {
    V10_0,
    V11_1,
}

impl Oracle {
    /// Returns the one that speaks this dialect.
    pub fn of(dialect: Dialect) -> Self {
        if dialect >= Dialect::Qemu11_1 { Self::V11_1 } else { Self::V10_0 }
    }

    /// Finds a program of this release: `qemu-system-x86_64`, `qemu-storage-daemon`, `qemu-img`, `qemu-io` or `qemu-nbd`.
    /// `None` means that the calling test is to be skipped.
    pub fn program(self, name: &str) -> Option<PathBuf> {
        let (variable, directory) = match self {
            Self::V10_0 => ("QMP_QEMU_10_0", "oracles/qemu-10.0/bin"),
            Self::V11_1 => ("QMP_QEMU_11_1", "oracles/qemu-11.1/bin"),
        };
        let programs =
            std::env::var_os(variable).map_or_else(|| target_dir().join(directory), PathBuf::from);
        let program = programs.join(name);
        if program.is_file() { Some(program) } else { absent(name, "run `cargo xtask oracles`") }
    }
}

/// Finds QEMU's guest agent, which `cargo xtask oracles` unpacks, too. `None` means that the calling test is to be skipped.
///
/// # Panics
///
/// If there is none and `CI=true` is set.
#[must_use]
pub fn guest_agent() -> Option<PathBuf> {
    let programs = std::env::var_os("QMP_QEMU_GA")
        .map_or_else(|| target_dir().join("oracles/qemu-ga-10.0/bin"), PathBuf::from);
    let program = programs.join("qemu-ga");
    if program.is_file() { Some(program) } else { absent("qemu-ga", "run `cargo xtask oracles`") }
}

/// Finds a program of the Python environment, such as `python` or `qmp-shell`.
pub fn find_python(name: &str) -> Option<PathBuf> {
    let environment = target_dir().join(PYTHON_ENVIRONMENT);
    let program = environment.join("bin").join(name);
    if program.is_file() && has(&environment, "requirements.txt", PYTHON_REQUIREMENTS) {
        return Some(program);
    }
    absent(name, "run `cargo xtask test`, which makes a Python environment in the target directory")
}

/// Finds Node, and the directory with the packages that `cargo xtask test` installs where Node and npm are. `None` means
/// that what is only for these packages is left out.
///
/// # Panics
///
/// If the packages are absent or of other versions, Node and npm are not, and `CI=true` is set.
#[must_use]
pub fn find_node() -> Option<(PathBuf, PathBuf)> {
    let node = find_optional("node")?;
    find_optional("npm")?;
    let environment = target_dir().join("interop-node");
    if has(&environment, "node-packages.txt", NODE_PACKAGES) {
        return Some((node, environment.join("node_modules")));
    }
    absent("node-qemu", "run `cargo xtask test`, which installs it into the target directory")
}

/// Whether everything in this list has been installed there.
fn has(environment: &Path, list: &str, packages: &str) -> bool {
    std::fs::read_to_string(environment.join(list)).is_ok_and(|text| text == packages)
}

fn absent<T>(name: &str, how_to_install: &str) -> Option<T> {
    let ci = std::env::var_os("CI").is_some_and(|value| value == "true");
    assert!(!ci, "{name} is absent; to install it: {how_to_install}");
    eprintln!("skipped, {name} is absent; to install it: {how_to_install}");
    None
}
