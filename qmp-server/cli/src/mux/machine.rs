// SPDX-License-Identifier: MIT OR Apache-2.0
//! One machine, and what it is made of.

use std::fmt::Display;
use std::path::Path;
use std::sync::Arc;

use qmp_dispatch::Dispatcher;
use qmp_server::{Address, Connect, Dial, Discipline, Handover, Mux, Server, system_time, version};

use super::orders::{MachineAdd, OriginStatus};
use crate::clients::{Audits, Rules};
use crate::config::Sourced;
use crate::deadline::Seconds;
use crate::options::{Lost, QemuDialect, ServerOptions, SharedMachine};
use crate::path_pattern::Found;
use crate::{Failure, clients};

/// One of the machines that are shared.
#[derive(Clone)]
pub(super) struct Machine {
    /// `None` for the only one, without a section of its own.
    pub(super) name: Option<String>,
    /// Those of its server.
    pub(super) options: ServerOptions,
    /// What is said of this machine alone; `None` if it has no name.
    section: Option<SharedMachine>,
    pub(super) origin: Origin,
}

/// Who has named a machine.
#[derive(Clone)]
pub(super) enum Origin {
    /// The command line or the file.
    Options,
    /// An operator, at the control socket, with these arguments.
    Control(Arc<str>),
    /// A pattern of the file. Its upstream server must be a process of the user whose folder it is in.
    Found(Found),
}

impl Origin {
    pub(super) fn status(&self) -> OriginStatus {
        match self {
            Origin::Options => OriginStatus::Options,
            Origin::Control(_) => OriginStatus::Control,
            Origin::Found(_) => OriginStatus::Pattern,
        }
    }
}

impl Machine {
    /// The machine of a section, unless that is a pattern.
    pub(super) fn of_section(
        sourced: &Sourced<SharedMachine>,
        all: &ServerOptions,
        origin: Origin,
    ) -> Result<Option<Machine>, Failure> {
        let section = &sourced.value;
        if section.name.is_none() {
            return Err(sourced.blame("name", "the name of the machine is missing"));
        }
        if section.upstream.is_none() {
            return Err(sourced.blame("upstream", "the server to share is missing"));
        }
        if section.listen.is_empty() {
            return Err(sourced.blame("listen", "there is no address to serve it at"));
        }
        if section.limits_machines() {
            return Err(sourced.blame("limit", "'machines' is a limit of the whole mux"));
        }
        if section.pattern()?.is_some() {
            return Ok(None);
        }
        Ok(Some(Machine::new(section.clone(), all, origin)))
    }

    /// The only machine of these options.
    pub(super) fn only(all: &ServerOptions) -> Machine {
        let options = all.of_only_machine();
        let name = options.mux.name.clone().map(|name| name.0);
        Machine { name, options, section: None, origin: Origin::Options }
    }

    /// The machine of a section that is complete.
    pub(super) fn new(section: SharedMachine, all: &ServerOptions, origin: Origin) -> Machine {
        let name = section.name.clone().unwrap_or_default().0;
        let options = section.complete(all);
        Machine { name: Some(name), options, section: Some(section), origin }
    }

    /// The same machine, with something else said of all.
    pub(super) fn among(&self, all: &ServerOptions) -> Machine {
        match &self.section {
            Some(section) => Machine::new(section.clone(), all, self.origin.clone()),
            None => Machine::only(all),
        }
    }

    /// The machine that an operator wants.
    pub(super) fn of_order(new: &MachineAdd, all: &ServerOptions) -> Result<Machine, Failure> {
        let section = new.section()?;
        let inherited = "what the program has inherited is for the options alone";
        let is_inherited = |address: &Address| {
            matches!(address, Address::Fd(_) | Address::Systemd(_) | Address::Stdio)
        };
        if let Some(listen) =
            section.value.listen.iter().find(|said| is_inherited(&said.value.address))
        {
            return Err(listen.blame("listen", inherited));
        }
        if let Some(upstream) = &section.value.upstream
            && is_inherited(upstream.value.address())
        {
            return Err(upstream.blame("upstream", inherited));
        }
        let said = serde_json::to_string(new).map_err(Failure::usage)?;
        let origin = Origin::Control(said.into());
        let machine = Machine::of_section(&section, all, origin)?;
        let pattern = || section.blame("upstream", "patterns are for the file alone");
        let machine = machine.ok_or_else(pattern)?;
        machine.check()?;
        Ok(machine)
    }

    /// What the operator has said who has added it, if one has.
    pub(super) fn order(&self) -> Option<&str> {
        match &self.origin {
            Origin::Control(order) => Some(order),
            Origin::Options | Origin::Found(_) => None,
        }
    }

    /// Where its upstream server listens, if that is a socket's file and was not found by a pattern.
    pub(super) fn socket(&self) -> Option<&Path> {
        match (&self.options.mux.upstream.as_ref()?.value, &self.origin) {
            (Dial::Out(Connect { address: Address::Unix(path), .. }), origin) => {
                (!matches!(origin, Origin::Found(_))).then_some(path)
            }
            _ => None,
        }
    }

    /// What would fail of what can be tried without anybody noticing.
    pub(super) fn check(&self) -> Result<(), Failure> {
        self.mux()?;
        clients::check(&self.options)
    }

    /// Says that something is wrong with this machine.
    pub(super) fn blame(&self, error: impl Display) -> Failure {
        match &self.options.mux.upstream {
            Some(upstream) => upstream.blame("name", error),
            None => Failure::usage(error),
        }
    }

    pub(super) fn mux(&self) -> Result<Mux, Failure> {
        let Some(upstream) = &self.options.mux.upstream else {
            return Err(Failure::usage("mux needs --upstream"));
        };
        let connect = upstream.value.clone();
        let mux = match &self.name {
            Some(name) => Mux::named(name, connect),
            None => Mux::new(connect),
        };
        let mux = mux.map_err(|error| upstream.blame("upstream", error))?;
        let mux = match self.options.mux.upstream_lost {
            Some(Lost(what)) => mux.on_upstream_lost(what),
            None => mux,
        };
        let mux = match self.options.mux.hang_after {
            Some(Seconds(after)) => mux.hang_after(after),
            None => mux,
        };
        Ok(match &self.origin {
            Origin::Found(found) => mux.only_of_user(found.owner),
            Origin::Options | Origin::Control(_) => mux,
        })
    }

    /// The server for its clients, which listens.
    pub(super) fn server(
        &self,
        mux: &Mux,
        audits: &mut Audits,
        handed_over: Option<&mut Handover>,
    ) -> Result<(Server, Rules), Failure> {
        let options = &self.options;
        let mut registry = mux.registry().map_err(Failure::usage)?;
        let audit = audits.start(&mut registry, options, self.name.as_deref())?;
        clients::set_deadlines(&mut registry, options);
        let roles = clients::set_roles(&mut registry, options)?;
        clients::set_deadline_profile(&mut registry, options);
        let dispatcher = Dispatcher::new(registry, version(), system_time);
        let server = Server::new(dispatcher).discipline(Discipline::OnePerMonitor);
        let server = match options.mux.dialect {
            Some(QemuDialect(dialect)) => server.dialect(dialect),
            None => server.dialect_of_greeting(),
        };
        let server = clients::allow(server, options, audit.as_ref())?;
        let server = match handed_over {
            Some(handover) => handover.resume(mux, server),
            None => server,
        };
        if let (Err(error), Some(upstream)) = (mux.open(), &options.mux.upstream) {
            return Err(upstream.blame("upstream", error));
        }
        let server = clients::listen(server, options)?;
        let rules = Rules::new(&server, roles);
        Ok((server, rules))
    }
}
