// SPDX-License-Identifier: MIT OR Apache-2.0
//! What git knows of this repository.

use std::process::Command;

use crate::command::{Outcome, output_of};
use crate::workspace::root;

/// Git, in the root of the workspace.
pub(crate) fn git<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Command {
    let mut command = Command::new("git");
    command.args(arguments).current_dir(root());
    command
}

/// The files of the repository, new ones included unless they are ignored. One that has been deleted, but not committed,
/// is named, too.
pub(crate) fn files() -> Outcome<Vec<String>> {
    let mut list = git(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
    Ok(output_of(&mut list)?.split_terminator('\0').map(str::to_owned).collect())
}

/// The first of what has been changed, but not committed.
pub(crate) fn uncommitted() -> Outcome<Option<String>> {
    let status = output_of(&mut git(["status", "--porcelain"]))?;
    Ok(status.lines().next().map(|line| line.trim().to_owned()))
}
