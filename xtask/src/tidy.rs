// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask tidy`: checks rules of the workspace that the compiler does not check.
//!
//! Every check is a function from texts or packages to complaints; only this file reads files.

mod dependencies;
mod layering;
mod packaging;
mod promises;
mod rooms;
mod source;
mod tree;

use std::fs;

use crate::command::{Failure, Outcome, no_arguments};
use crate::files::read_toml;
use crate::git;
use crate::metadata::{member, metadata};
use crate::workspace::{directory, members, root};

/// Packages whose modules are checked.
const WITH_ROOMS: [&str; 2] = ["qmp-server", "qmp-server-cli"];

/// The document whose tables name the tests that hold what it says.
const PROMISES: &str = "docs/secure.md";

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
    complaints.extend(packaging::check_lints(&read_toml(&root.join("Cargo.toml"))?));
    let metadata = metadata()?;
    let rust_version = member(&metadata, "qmp-proto")?.rust_version.clone();
    let rust_version = rust_version.ok_or_else(|| "no Rust version is promised".to_owned())?;
    let config = read_toml(&root.join("xtask/deny.toml"))?;
    let licences = config.get("licenses").and_then(|licenses| licenses.get("allow")?.as_array());
    let licences =
        licences.into_iter().flatten().filter_map(|name| Some(name.as_str()?.to_owned()));
    let licences: Vec<_> = licences.collect();
    complaints.extend(dependencies::check(&metadata.packages, &licences, &rust_version));
    for name in members() {
        let package = member(&metadata, name)?;
        let manifest = read_toml(&root.join(directory(name)).join("Cargo.toml"))?;
        complaints.extend(packaging::check(package, &manifest));
        complaints.extend(layering::check(package));
    }
    for name in WITH_ROOMS {
        let source = format!("{}/src/", directory(name));
        let texts = files.iter().filter_map(|file| {
            Some((file.strip_prefix(&source)?, fs::read_to_string(root.join(file)).ok()?))
        });
        let texts: Vec<_> = texts.filter(|(path, _)| path.ends_with(".rs")).collect();
        let texts: Vec<_> = texts.iter().map(|(path, text)| (*path, text.as_str())).collect();
        complaints.extend(rooms::check(name, &texts));
    }
    let sources = files.iter().filter(|file| file.ends_with(".rs"));
    let sources = sources.filter_map(|file| fs::read_to_string(root.join(file)).ok());
    let promised = fs::read_to_string(root.join(PROMISES));
    let promised = promised.map_err(|error| format!("{PROMISES}: {error}"))?;
    complaints.extend(promises::check(PROMISES, &promised, &sources.collect::<Vec<_>>()));
    for file in &files {
        // A file that is not text is not checked. A deleted file may still be listed.
        if let Ok(text) = fs::read_to_string(root.join(file)) {
            complaints.extend(source::check(file, &text));
        }
    }
    Ok(complaints)
}
