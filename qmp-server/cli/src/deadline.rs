// SPDX-License-Identifier: MIT OR Apache-2.0
//! How long something may take.

use std::str::FromStr;
use std::time::Duration;

/// A day, after which nobody waits any more.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

pub(crate) fn seconds(text: &str) -> Result<Duration, String> {
    text.parse()
        .ok()
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .filter(|duration| *duration <= LONGEST)
        .ok_or_else(|| format!("expected a number of seconds, at most {}", LONGEST.as_secs()))
}

/// How long a command may take: one, or all of which nothing else is said.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Deadline {
    pub(crate) command: Option<String>,
    pub(crate) after: Duration,
}

impl FromStr for Deadline {
    type Err = String;

    fn from_str(text: &str) -> Result<Deadline, String> {
        let (command, after) = match text.split_once('=') {
            Some(("", _)) => return Err("the name of the command is missing".to_owned()),
            Some((command, after)) => (Some(command.to_owned()), after),
            None => (None, text),
        };
        match seconds(after)? {
            Duration::ZERO => Err("every command takes some time".to_owned()),
            after => Ok(Deadline { command, after }),
        }
    }
}

/// A time that is not zero.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Seconds(pub(crate) Duration);

impl FromStr for Seconds {
    type Err = String;

    fn from_str(text: &str) -> Result<Seconds, String> {
        match seconds(text)? {
            Duration::ZERO => Err("expected a number of seconds above zero".to_owned()),
            after => Ok(Seconds(after)),
        }
    }
}
