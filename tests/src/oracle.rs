// SPDX-License-Identifier: MIT OR Apache-2.0
//! Real QEMUs, one of each dialect, that are compared with.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use qmp_proto::Dialect;

use crate::server::target_dir;

/// The environment variable that names the directory with a QEMU for each dialect.
const DIRECTORY: &str = "QMP_ORACLES";

/// QEMU's smallest program with a monitor.
pub const STORAGE_DAEMON: &str = "qemu-storage-daemon";
/// QEMU with a machine.
pub const MACHINE: &str = "qemu-system-x86_64";

/// A QEMU whose answers are right in its dialect.
#[derive(Clone, Debug)]
pub struct Oracle {
    dialect: Dialect,
    /// Starts its programs, if they are not on the search path.
    run: Option<PathBuf>,
}

impl Oracle {
    /// Finds one of this dialect: in the directory that `QMP_ORACLES` names, or in `oracles` of the target directory,
    /// where `DIALECT/run PROGRAM ARGUMENTS` starts its programs (`cargo xtask oracles` makes it); or on the search path.
    ///
    /// # Errors
    ///
    /// Fails if there is none that has this program, and says where it could be.
    pub fn find(dialect: Dialect, program: &str) -> Result<Self, String> {
        let directory = std::env::var_os(DIRECTORY).map(PathBuf::from);
        let directory = directory.unwrap_or_else(|| target_dir().join("oracles"));
        let unpacked = directory.join(dialect.name()).join("run");
        let mut found = Vec::new();
        for run in [Some(unpacked.clone()), None] {
            let oracle = Self { dialect, run };
            match oracle.version(program) {
                Ok(version) if version.starts_with(dialect.name()) => return Ok(oracle),
                Ok(version) => found.push(version),
                Err(_) => {}
            }
        }
        Err(format!(
            "there is no {program} of QEMU {dialect}, neither by {} (cargo xtask oracles) nor on the search path{}",
            unpacked.display(),
            if found.is_empty() { String::new() } else { format!(" (but {})", found.join(", ")) }
        ))
    }

    /// Its dialect.
    #[must_use]
    pub fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// Starts the command line for one of its programs.
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        match &self.run {
            None => Command::new(program),
            Some(run) => {
                let mut command = Command::new(run);
                command.arg(program);
                command
            }
        }
    }

    /// Such as `10.0.2 (Debian ...)`.
    fn version(&self, program: &str) -> Result<String, String> {
        let output = self.command(program).arg("--version").stdin(Stdio::null()).output();
        let text = output.map_err(|error| error.to_string())?.stdout;
        let text = String::from_utf8_lossy(&text);
        let line = text.lines().next().unwrap_or_default();
        let version = line.split_once(" version ").map(|(_, version)| version.to_owned());
        version.ok_or_else(|| format!("{program} tells no version"))
    }
}
