// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is built from: which version, which commit, from when.

use std::process::Command;

use crate::command::{Outcome, output_of};
use crate::git::{git, uncommitted};
use crate::metadata::{host, version};

pub(super) struct Origin {
    pub(super) version: String,
    /// The target that is built for, which is this machine's.
    pub(super) target: String,
    /// What the program says of itself: version, commit and day.
    pub(super) build: String,
    /// When, in seconds since 1970: all files have this time.
    pub(super) epoch: String,
    /// The same as e-mail has it.
    pub(super) date: String,
    /// Who has made the commit, with an address.
    pub(super) author: String,
}

impl Origin {
    /// The last commit. As everywhere, `SOURCE_DATE_EPOCH` goes before its time.
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

    /// How files and directories are called.
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
