// SPDX-License-Identifier: MIT OR Apache-2.0
//! One machine, and what it is made of.

use std::fmt::Display;
use std::path::Path;
use std::sync::Arc;

use qmp_dispatch::Dispatcher;
use qmp_server::{
    Address, Connect, Dial, Discipline, Handover, Listen, Mux, Server, UpstreamLost, system_time,
    version,
};

use super::orders::{MachineAdd, OriginStatus};
use crate::clients::{Audits, Rules};
use crate::config::Sourced;
use crate::deadline::Seconds;
use crate::named::Named;
use crate::options::{ServerOptions, SharedMachine};
use crate::path_pattern::Found;
use crate::{Failure, clients};

/// One of the machines that are shared.
#[derive(Clone)]
pub(super) struct Machine {
    /// `None` for the only one, without a section of its own.
    pub(super) name: Option<String>,
    /// Those of its server.
    pub(super) options: ServerOptions,
    /// Those of the server for its guest agent's clients, if that is shared.
    pub(super) agent: Option<ServerOptions>,
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
        Machine::check_agent(section.agent.as_ref(), &section.agent_listen)?;
        if section.limits_machines() {
            return Err(sourced.blame("limit", "'machines' is a limit of the whole mux"));
        }
        if section.pattern()?.is_some() {
            return Ok(None);
        }
        Ok(Some(Machine::new(section.clone(), all, origin)))
    }

    /// A guest agent that is shared has a channel, and a place where it is served.
    pub(super) fn check_agent(
        agent: Option<&Sourced<Dial>>,
        listen: &[Sourced<Listen>],
    ) -> Result<(), Failure> {
        match (agent, listen.first()) {
            (Some(agent), None) => {
                Err(agent.blame("agent", "there is no agent-listen to serve the guest agent at"))
            }
            (None, Some(listen)) => {
                Err(listen.blame("agent-listen", "the channel of the guest agent is missing"))
            }
            _ => Ok(()),
        }
    }

    /// The only machine of these options.
    pub(super) fn only(all: &ServerOptions) -> Machine {
        let options = all.of_only_machine();
        let name = options.mux.name.clone().map(|name| name.0);
        let agent = options.of_agent();
        Machine { name, options, agent, section: None, origin: Origin::Options }
    }

    /// The machine of a section that is complete.
    pub(super) fn new(section: SharedMachine, all: &ServerOptions, origin: Origin) -> Machine {
        let name = section.name.clone().unwrap_or_default().0;
        let options = section.complete(all);
        let agent = options.of_agent();
        Machine { name: Some(name), options, agent, section: Some(section), origin }
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
        let SharedMachine { upstream, listen, agent, agent_listen, .. } = &section.value;
        for (key, all) in [("listen", listen), ("agent-listen", agent_listen)] {
            if let Some(listen) = all.iter().find(|said| is_inherited(&said.value.address)) {
                return Err(listen.blame(key, inherited));
            }
        }
        for (key, dial) in [("upstream", upstream), ("agent", agent)] {
            if let Some(dial) = dial.as_ref().filter(|dial| is_inherited(dial.value.address())) {
                return Err(dial.blame(key, inherited));
            }
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
        for options in [&self.options].into_iter().chain(&self.agent) {
            self.mux(options)?;
            clients::check(options)?;
        }
        Ok(())
    }

    /// Says that something is wrong with this machine.
    pub(super) fn blame(&self, error: impl Display) -> Failure {
        match &self.options.mux.upstream {
            Some(upstream) => upstream.blame("name", error),
            None => Failure::usage(error),
        }
    }

    /// The mux of these options: the machine's own, or those of its guest agent.
    pub(super) fn mux(&self, options: &ServerOptions) -> Result<Mux, Failure> {
        let (key, _) = options.keys();
        let Some(upstream) = &options.mux.upstream else {
            return Err(Failure::usage("mux needs --upstream"));
        };
        let connect = upstream.value.clone();
        let mux = match &self.name {
            name if options.mux.for_agent => Mux::for_agent(name.as_deref(), connect),
            Some(name) => Mux::named(name, connect),
            None => Mux::new(connect),
        };
        let mux = mux.map_err(|error| upstream.blame(key, error))?;
        let mux = match options.mux.upstream_lost {
            // The machine may be there without its agent.
            Some(Named(UpstreamLost::Exit)) if options.mux.for_agent => {
                mux.on_upstream_lost(UpstreamLost::Disconnect)
            }
            Some(Named(what)) => mux.on_upstream_lost(what),
            None => mux,
        };
        let mux = match options.mux.hang_after {
            Some(Seconds(after)) => mux.hang_after(after),
            None => mux,
        };
        let mux = match options.mux.agent_timeout {
            Some(Seconds(within)) => mux.answer_within(within),
            None => mux,
        };
        Ok(match &self.origin {
            Origin::Found(found) => mux.only_of_user(found.owner),
            Origin::Options | Origin::Control(_) => mux,
        })
    }

    /// The server for the clients of a mux, which listens.
    pub(super) fn server(
        &self,
        mux: &Mux,
        options: &ServerOptions,
        audits: &mut Audits,
        handed_over: Option<&mut Handover>,
    ) -> Result<(Server, Rules), Failure> {
        let mut registry = mux.registry().map_err(Failure::usage)?;
        let audit = audits.start(&mut registry, options, self.name.as_deref())?;
        clients::set_deadlines(&mut registry, options);
        let roles = clients::set_roles(&mut registry, options)?;
        clients::set_deadline_profile(&mut registry, options);
        let dispatcher = Dispatcher::new(registry, version(), system_time);
        let server = Server::new(dispatcher).discipline(Discipline::OnePerMonitor);
        let server = match options.mux.dialect {
            Some(Named(dialect)) => server.dialect(dialect),
            None => server.dialect_of_greeting(),
        };
        let server = clients::allow(server, options, audit.as_ref())?;
        let server = match handed_over {
            Some(handover) => handover.resume(mux, server),
            None => server,
        };
        if let (Err(error), Some(upstream)) = (mux.open(), &options.mux.upstream) {
            return Err(upstream.blame(options.keys().0, error));
        }
        let server = clients::listen(server, options)?;
        let rules = Rules::new(&server, roles);
        Ok((server, rules))
    }
}
