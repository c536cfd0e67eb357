// SPDX-License-Identifier: MIT OR Apache-2.0
//! Options of what serves clients.

use clap::Args;
use qmp_server::Listen;

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
