// SPDX-License-Identifier: MIT OR Apache-2.0
//! Options of what serves clients.

use std::str::FromStr;
use std::time::Duration;

use clap::Args;
use qmp_server::Listen;

use crate::arguments::seconds;
use crate::log::{LogFilter, LogFormat};

/// What every server can be told.
#[derive(Args, Debug, Default)]
pub(crate) struct ServerOptions {
    /// Where to listen: unix:PATH, unix-abstract:NAME, tcp:HOST:PORT, tls:HOST:PORT, vsock:CID:PORT,
    /// fd:NUMBER, systemd or stdio; may be given more than once
    #[arg(long, value_name = "ADDR[,OPTION=VALUE]...")]
    pub(crate) listen: Vec<Listen>,
    /// Let processes of this user connect, by name or number, instead of the own user and root
    #[arg(long, value_name = "USER")]
    pub(crate) allow_user: Vec<String>,
    /// Let processes of this group's members connect, by name or number
    #[arg(long, value_name = "GROUP")]
    pub(crate) allow_group: Vec<String>,
    /// Let others than those of this machine connect without TLS
    #[arg(long)]
    pub(crate) insecure: bool,
    /// Answer with an error what takes longer than so many seconds: any command, or those of this
    /// name; may be given more than once
    #[arg(long, value_name = "[COMMAND=]SECONDS")]
    pub(crate) deadline: Vec<Deadline>,
    /// How lines of the log look
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t)]
    pub(crate) log: LogFormat,
    /// What to log: off, error, warn (this is the default), info, debug or trace, or such levels
    /// for parts of the program: TARGET=LEVEL,...
    #[arg(long, value_name = "LEVEL")]
    pub(crate) log_filter: Option<LogFilter>,
    /// Enable the trace points that match, as `trace-event-set-state` does; may be given more than
    /// once
    #[arg(long, value_name = "PATTERN")]
    pub(crate) trace: Vec<String>,
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

/// What the reference machine can be told.
#[derive(Args, Debug, Default)]
pub(crate) struct MachineOptions {
    /// The name of the machine
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// The UUID of the machine
    #[arg(long, value_parser = uuid)]
    pub(crate) uuid: Option<String>,
    /// Do not start the machine, wait for `cont`
    #[arg(long)]
    pub(crate) paused: bool,
}

fn uuid(text: &str) -> Result<String, String> {
    let groups: Vec<&str> = text.split('-').collect();
    let lengths: Vec<usize> = groups.iter().map(|group| group.len()).collect();
    let hex = groups.iter().all(|group| group.bytes().all(|byte| byte.is_ascii_hexdigit()));
    if lengths == [8, 4, 4, 4, 12] && hex {
        Ok(text.to_ascii_lowercase())
    } else {
        Err("expected a UUID like 550e8400-e29b-41d4-a716-446655440000".to_owned())
    }
}
