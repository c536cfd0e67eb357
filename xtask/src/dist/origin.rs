// SPDX-License-Identifier: MIT OR Apache-2.0
//! The origin of a build: version, commit and time.

use std::process::Command;

use crate::command::{Outcome, output_of};
use crate::git::{git, uncommitted};
use crate::metadata::{host, version};

pub(super) struct Origin {
    pub(super) version: String,
    /// The target of the build, which is this machine's.
    pub(super) target: String,
    /// The text of `--version`: version, commit and day.
    pub(super) build: String,
    /// Time of the commit in seconds since 1970, which all files have.
    pub(super) epoch: String,
    /// The same in the format of e-mail.
    pub(super) date: String,
    /// The committer, with an address.
    pub(super) author: String,
}

impl Origin {
    /// Reads the last commit. `SOURCE_DATE_EPOCH`, if set, replaces its time, as in other build systems.
    pub(super) fn of_workspace() -> Outcome<Self> {
        let version = version()?;
        let commit = output_of(&mut git(["rev-parse", "--short=12", "HEAD"]))?;
        let mark = if uncommitted()?.is_some() { "-modified" } else { "" };
        let epoch = match std::env::var("SOURCE_DATE_EPOCH") {
            Ok(epoch) => epoch,
            Err(_) => last_commit("%ct")?,
        };
        let day = date(&epoch, "%Y-%m-%d")?;
        Ok(Self {
            build: format!("{version} ({}{mark} {day})", commit.trim()),
            date: date(&epoch, "%a, %d %b %Y %H:%M:%S +0000")?,
            author: last_commit("%an <%ae>")?,
            target: host()?,
            version,
            epoch,
        })
    }

    /// Returns the common part of the names of files and directories.
    pub(super) fn title(&self) -> String {
        format!("qmp-server-{}-{}", self.version, self.target)
    }
}

fn last_commit(format: &str) -> Outcome<String> {
    let format = format!("--format={format}");
    Ok(output_of(&mut git(["log", "-1", &format]))?.trim().to_owned())
}

fn date(epoch: &str, format: &str) -> Outcome<String> {
    let mut date = Command::new("date");
    date.env("LC_ALL", "C").args(["--utc", &format!("--date=@{epoch}"), &format!("+{format}")]);
    Ok(output_of(&mut date)?.trim().to_owned())
}
