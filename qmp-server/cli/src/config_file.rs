// SPDX-License-Identifier: MIT OR Apache-2.0
//! The configuration file: `--config FILE`.

use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;

use crate::Failure;
use crate::config::{ConfigFile, Mistake, parse};
use crate::options::{MachineName, ServerOptions};

/// Where the file is.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct ConfigOptions {
    /// Take what is not said here from this TOML file
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Only say whether all options, and the file, are right
    #[arg(long)]
    pub(crate) check_config: bool,
}

impl ConfigOptions {
    /// What the command line says, and for the rest what the file says.
    pub(crate) fn complete(&self, flags: ServerOptions) -> Result<ServerOptions, Failure> {
        match &self.config {
            Some(path) => Ok(flags.or(read(path)?)),
            None => Ok(flags),
        }
    }
}

fn read(path: &Path) -> Result<ServerOptions, Failure> {
    let text = fs::read_to_string(path)
        .map_err(|error| Failure::usage(format_args!("{}: {error}", path.display())))?;
    let mut options: ServerOptions = parse(&text).map_err(|mistake| {
        let Mistake { line, what } = mistake;
        Failure::usage(format_args!("{}:{line}: {what}", path.display()))
    })?;
    let ends: Vec<_> = text.match_indices('\n').map(|(end, _)| end).collect();
    let place = ConfigFile { path, ends: &ends, machine: None };
    options.listen.iter_mut().for_each(|listen| listen.locate(&place));
    options.role.iter_mut().for_each(|role| role.locate(&place));
    options.default_role.iter_mut().for_each(|role| role.locate(&place));
    options.audit.iter_mut().for_each(|audit| audit.locate(&place));
    options.roles.values_mut().for_each(|role| role.locate(&place));
    options.mux.upstream.iter_mut().for_each(|upstream| upstream.locate(&place));
    options.mux.agent.iter_mut().for_each(|agent| agent.locate(&place));
    options.mux.agent_listen.iter_mut().for_each(|listen| listen.locate(&place));
    options.mux.control.iter_mut().for_each(|listen| listen.locate(&place));
    options.metrics.iter_mut().for_each(|listen| listen.locate(&place));
    for machine in &mut options.machine {
        let MachineName(name) = machine.value.name.clone().unwrap_or_default();
        let place = ConfigFile { machine: Some(name), ..place };
        machine.locate(&place);
        let machine = &mut machine.value;
        machine.upstream.iter_mut().for_each(|upstream| upstream.locate(&place));
        machine.listen.iter_mut().for_each(|listen| listen.locate(&place));
        machine.agent.iter_mut().for_each(|agent| agent.locate(&place));
        machine.agent_listen.iter_mut().for_each(|listen| listen.locate(&place));
        machine.role.iter_mut().for_each(|role| role.locate(&place));
        machine.default_role.iter_mut().for_each(|role| role.locate(&place));
        machine.audit.iter_mut().for_each(|audit| audit.locate(&place));
    }
    Ok(options)
}
