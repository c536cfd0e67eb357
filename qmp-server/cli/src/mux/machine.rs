// SPDX-License-Identifier: MIT OR Apache-2.0
//! One machine, and what it is made of.

use qmp_dispatch::Dispatcher;
use qmp_server::{Discipline, Mux, Server, system_time, version};

use super::finder::Found;
use crate::clients::Audits;
use crate::options::{QemuDialect, ServerOptions};
use crate::{Failure, clients};

/// One of the machines that are shared.
pub(super) struct Machine {
    /// `None` for the only one, without a section of its own.
    pub(super) name: Option<String>,
    /// Those of its server.
    pub(super) options: ServerOptions,
    pub(super) origin: Origin,
}

/// Who has named a machine.
pub(super) enum Origin {
    /// The command line or the file.
    Options,
    /// A pattern of the file. Its upstream server must be a process of the user whose folder it is in.
    Found(Found),
}

impl Machine {
    /// What would fail of what can be tried without anybody noticing.
    pub(super) fn check(&self) -> Result<(), Failure> {
        self.mux()?;
        clients::check(&self.options)
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
        Ok(match &self.origin {
            Origin::Found(found) => mux.only_of_user(found.owner),
            Origin::Options => mux,
        })
    }

    /// The server for its clients, which listens.
    pub(super) fn server(&self, mux: &Mux, audits: &mut Audits) -> Result<Server, Failure> {
        let options = &self.options;
        if let (Err(error), Some(upstream)) = (mux.open(), &options.mux.upstream) {
            return Err(upstream.blame("upstream", error));
        }
        let mut registry = mux.registry().map_err(Failure::usage)?;
        let audit = audits.start(&mut registry, options, self.name.as_deref())?;
        clients::set_deadlines(&mut registry, options);
        clients::set_roles(&mut registry, options)?;
        let dispatcher = Dispatcher::new(registry, version(), system_time);
        let server = Server::new(dispatcher).discipline(Discipline::OnePerMonitor);
        let server = match options.mux.dialect {
            Some(QemuDialect(dialect)) => server.dialect(dialect),
            None => server.dialect_of_greeting(),
        };
        let server = clients::allow(server, options, audit.as_ref())?;
        clients::listen(server, options)
    }
}
