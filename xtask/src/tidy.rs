// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask tidy`: the rules of the workspace that no compiler knows.
//!
//! Every check is a function from texts to complaints; only this file reads any.

mod dependencies;
mod layering;
mod licence;
mod packaging;
mod source;
mod tree;

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::command::{Failure, Outcome, no_arguments, output_of};
use crate::manifest::Manifest;
use crate::metadata::packages;
use crate::workspace::{members, root};

pub(crate) fn run(arguments: &[String]) -> Outcome {
    no_arguments("tidy", arguments)?;
    let complaints = check_all()?;
    for complaint in &complaints {
        println!("tidy: {complaint}");
    }
    match complaints.len() {
        0 => Ok(()),
        count => Err(Failure::Task(format!("{count} complaints"))),
    }
}

fn check_all() -> Outcome<Vec<String>> {
    let root = root();
    let files = files_of(&root)?;
    let mut complaints = tree::check(&files);
    let workspace = Manifest::of(&root)?;
    complaints.extend(packaging::check_workspace(&workspace));
    let rust_version = workspace.get("workspace.package", "rust-version").unwrap_or_default();
    complaints.extend(dependencies::check(&packages()?, rust_version));
    for name in members() {
        let manifest = Manifest::of(&root.join(name))?;
        complaints.extend(packaging::check_package(name, &manifest));
        complaints.extend(layering::check(name, &manifest));
    }
    for file in &files {
        // What is no text cannot be checked, and what has been deleted but not committed is not there.
        if let Ok(text) = fs::read_to_string(root.join(file)) {
            complaints.extend(source::check(file, &text));
        }
    }
    Ok(complaints)
}

/// The files of the repository, new ones included unless they are ignored.
fn files_of(root: &Path) -> Outcome<Vec<String>> {
    let mut git = Command::new("git");
    git.args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]).current_dir(root);
    Ok(output_of(&mut git)?.split_terminator('\0').map(str::to_owned).collect())
}
