// SPDX-License-Identifier: MIT OR Apache-2.0
//! A directory of collected files, with modes that do not depend on the umask.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::command::{Failure, Outcome, run};
use crate::files;

pub(super) struct Tree {
    root: PathBuf,
    /// Relative to the root.
    files: Vec<String>,
}

impl Tree {
    /// Creates an empty tree in this directory.
    pub(super) fn new(root: PathBuf) -> Outcome<Self> {
        files::fresh_directory(&root)?;
        set_mode(&root, 0o755)?;
        Ok(Self { root, files: Vec::new() })
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// Returns the paths of all files, sorted.
    pub(super) fn files(&self) -> Vec<&str> {
        let mut files: Vec<_> = self.files.iter().map(String::as_str).collect();
        files.sort_unstable();
        files
    }

    pub(super) fn file(&mut self, path: &str, contents: impl AsRef<[u8]>) -> Outcome {
        self.add(path, contents.as_ref(), 0o644)
    }

    /// Adds a copy of a file.
    pub(super) fn copy(&mut self, path: &str, from: &Path) -> Outcome {
        self.add(path, &files::read_bytes(from)?, 0o644)
    }

    pub(super) fn program(&mut self, path: &str, from: &Path) -> Outcome {
        self.add(path, &files::read_bytes(from)?, 0o755)
    }

    /// Adds a compressed file, named `PATH.gz`.
    pub(super) fn zipped(&mut self, path: &str, contents: impl AsRef<[u8]>) -> Outcome {
        self.file(path, contents)?;
        let mut gzip = Command::new("gzip");
        run(gzip.args(["--no-name", "--best", path]).current_dir(&self.root))?;
        let path = self.files.pop().unwrap_or_default() + ".gz";
        set_mode(&self.root.join(&path), 0o644)?;
        self.files.push(path);
        Ok(())
    }

    /// Creates a directory, and those above it.
    pub(super) fn directory(&self, path: &str) -> Outcome {
        let path = self.root.join(path);
        files::directory(&path)?;
        let mut below = path.ancestors().take_while(|directory| **directory != self.root);
        below.try_for_each(|directory| set_mode(directory, 0o755))
    }

    fn add(&mut self, path: &str, contents: &[u8], mode: u32) -> Outcome {
        if let Some((directory, _)) = path.rsplit_once('/') {
            self.directory(directory)?;
        }
        let whole = self.root.join(path);
        files::write(&whole, contents)?;
        self.files.push(path.to_owned());
        set_mode(&whole, mode)
    }
}

fn set_mode(path: &Path, mode: u32) -> Outcome {
    fs::set_permissions(path, Permissions::from_mode(mode))
        .map_err(|error| Failure::Task(format!("{}: {error}", path.display())))
}
