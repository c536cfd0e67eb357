// SPDX-License-Identifier: MIT OR Apache-2.0
//! Queries to git about this repository.

use std::process::Command;

use crate::command::{Outcome, output_of};
use crate::workspace::root;

/// Returns a git command in the root of the workspace.
pub(crate) fn git<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Command {
    let mut command = Command::new("git");
    command.args(arguments).current_dir(root());
    command
}

/// Returns the files of the repository: all that are not ignored, including new ones, and deleted ones that are still
/// committed.
pub(crate) fn files() -> Outcome<Vec<String>> {
    let mut list = git(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
    Ok(output_of(&mut list)?.split_terminator('\0').map(str::to_owned).collect())
}

/// Returns the first change that is not committed.
pub(crate) fn uncommitted() -> Outcome<Option<String>> {
    let status = output_of(&mut git(["status", "--porcelain"]))?;
    Ok(status.lines().next().map(|line| line.trim().to_owned()))
}
