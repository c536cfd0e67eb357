// SPDX-License-Identifier: MIT OR Apache-2.0
//! Operations on files, with errors that name the file.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::command::{Failure, Outcome};

pub(crate) fn read(path: &Path) -> Outcome<String> {
    fs::read_to_string(path).map_err(|error| failure(path, &error))
}

pub(crate) fn read_toml(path: &Path) -> Outcome<toml::Table> {
    read(path)?.parse().map_err(|error| Failure::Task(format!("{}: {error}", path.display())))
}

pub(crate) fn read_bytes(path: &Path) -> Outcome<Vec<u8>> {
    fs::read(path).map_err(|error| failure(path, &error))
}

pub(crate) fn write(path: &Path, contents: impl AsRef<[u8]>) -> Outcome {
    fs::write(path, contents).map_err(|error| failure(path, &error))
}

pub(crate) fn append(path: &Path, text: &str) -> Outcome {
    let file = fs::OpenOptions::new().create(true).append(true).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes())).map_err(|error| failure(path, &error))
}

pub(crate) fn copy(from: &Path, to: &Path) -> Outcome {
    fs::copy(from, to).map(drop).map_err(|error| failure(from, &error))
}

/// Removes a directory with its contents, if there is one.
pub(crate) fn remove(path: &Path) -> Outcome {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failure(path, &error)),
        _ => Ok(()),
    }
}

/// Creates an empty directory, and those above it.
pub(crate) fn fresh_directory(path: &Path) -> Outcome {
    remove(path)?;
    directory(path)
}

/// Returns the paths in a directory, sorted.
pub(crate) fn entries(path: &Path) -> Outcome<Vec<PathBuf>> {
    let entries = fs::read_dir(path)
        .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>());
    let mut entries = entries.map_err(|error| failure(path, &error))?;
    entries.sort();
    Ok(entries)
}

/// Creates a directory, and those above it.
pub(crate) fn directory(path: &Path) -> Outcome {
    fs::create_dir_all(path).map_err(|error| failure(path, &error))
}

/// Copies a directory with its contents.
pub(crate) fn copy_directory(from: &Path, to: &Path) -> Outcome {
    directory(to)?;
    for path in entries(from)? {
        let target = to.join(path.file_name().unwrap_or_default());
        if path.is_dir() { copy_directory(&path, &target)? } else { copy(&path, &target)? }
    }
    Ok(())
}

pub(crate) fn failure(path: &Path, error: &io::Error) -> Failure {
    Failure::Task(format!("{}: {error}", path.display()))
}
