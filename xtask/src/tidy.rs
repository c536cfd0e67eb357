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

use crate::command::{Failure, Outcome, no_arguments};
use crate::git;
use crate::manifest::Manifest;
use crate::metadata::packages;
use crate::workspace::{directory, members, root};

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
    let files = git::files()?;
    let mut complaints = tree::check(&files);
    let workspace = Manifest::of(&root)?;
    complaints.extend(packaging::check_workspace(&workspace));
    let rust_version = workspace.get("workspace.package", "rust-version").unwrap_or_default();
    complaints.extend(dependencies::check(&packages()?, rust_version));
    for name in members() {
        let manifest = Manifest::of(&root.join(directory(name)))?;
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
