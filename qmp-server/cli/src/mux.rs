// SPDX-License-Identifier: MIT OR Apache-2.0
//! `qmp-server mux`: QMP servers, each for many clients.

use std::collections::BTreeSet;
use std::sync::Arc;

use qmp_dispatch::Dispatcher;
use qmp_server::{
    Discipline, Engine, MetricsOfAll, Mux, Server, TracePoints, system_time, version,
};

use crate::arguments::MuxOptions;
use crate::clients::{Audits, Ending};
use crate::options::{QemuDialect, ServerOptions};
use crate::{Failure, addresses, clients};

pub(crate) fn mux(options: MuxOptions) -> Result<(), Failure> {
    let MuxOptions { config, server: mut options, upstream } = options;
    options.mux = upstream;
    let options = &config.complete(options)?;
    let machines = machines(options)?;
    addresses::check(machines.iter().map(|machine| &machine.options), options.metrics.as_ref())?;
    if config.check_config {
        clients::check(options)?;
        return machines.iter().try_for_each(|machine| {
            machine.mux()?;
            clients::check(&machine.options)
        });
    }
    // Before there is a mux, whose name is said in the log.
    let _log = clients::start_log(options, &Arc::new(TracePoints::default()))?;
    let muxes = machines.iter().map(Machine::mux).collect::<Result<Vec<_>, _>>()?;

    // Before there is a socket to remove.
    let mut ending = Ending::new()?;
    let mut audits = Audits::default();
    let metrics = MetricsOfAll::default();
    // All listen before one is served: who cannot is told of at once, and leaves no socket behind.
    let mut servers = Vec::new();
    for (machine, mux) in machines.iter().zip(&muxes) {
        let server = machine.server(mux, &mut audits)?;
        metrics.add(machine.name.as_deref(), server.metrics());
        servers.push(server);
    }
    let endpoint = clients::serve_metrics(|listen| metrics.serve(listen), options)?;
    for (machine, server) in machines.iter().zip(&servers) {
        clients::announce(server, machine.name.as_deref(), options);
    }
    clients::announce_metrics(endpoint.as_ref(), options);
    let engine = Engine::new().map_err(Failure::usage)?;
    for ((machine, mux), server) in machines.iter().zip(&muxes).zip(servers) {
        let (running, metrics, name) = (ending.running(), metrics.clone(), machine.name.clone());
        let server = server.on_end(move || {
            metrics.remove(name.as_deref());
            drop(running);
        });
        mux.serve_on(&engine, server).map_err(Failure::usage)?;
    }
    drop(machines);
    ending.wait(&audits);
    muxes.iter().for_each(Mux::shutdown);
    muxes.iter().for_each(Mux::wait);
    audits.finish();
    Ok(())
}

/// One of the machines that are shared: the only one, which has no name, or one of several.
struct Machine {
    name: Option<String>,
    /// Those of its server.
    options: ServerOptions,
}

/// The machines that the options speak of, with what there is only one of left to the program.
fn machines(options: &ServerOptions) -> Result<Vec<Machine>, Failure> {
    if options.machine.is_empty() {
        if options.mux.upstream.is_none() {
            return Err(Failure::usage("mux needs --upstream"));
        }
        if options.listen.is_empty() {
            return Err(Failure::usage("mux needs --listen"));
        }
        return Ok(vec![Machine { name: None, options: options.clone() }]);
    }
    if let Some(upstream) = &options.mux.upstream {
        return Err(upstream.blame("upstream", "each [[machine]] has its own"));
    }
    if let Some(listen) = options.listen.first() {
        return Err(listen.blame("listen", "each [[machine]] has its own"));
    }
    let mut names = BTreeSet::new();
    let named = options.machine.iter().map(|sourced| {
        let machine = &sourced.value;
        let Some(name) = &machine.name else {
            return Err(sourced.blame("name", "the name of the machine is missing"));
        };
        if !names.insert(name) {
            return Err(sourced.blame("name", "another machine has this name"));
        }
        if machine.upstream.is_none() {
            return Err(sourced.blame("upstream", "the server to share is missing"));
        }
        if machine.listen.is_empty() {
            return Err(sourced.blame("listen", "there is no address to serve it at"));
        }
        Ok(Machine { name: Some(name.0.clone()), options: machine.complete(options) })
    });
    named.collect()
}

impl Machine {
    fn mux(&self) -> Result<Mux, Failure> {
        let Some(upstream) = &self.options.mux.upstream else {
            return Err(Failure::usage("mux needs --upstream"));
        };
        let address = upstream.value.address.clone();
        let mux = upstream.value.verify().and_then(|()| match &self.name {
            Some(name) => Mux::named(name, address),
            None => Mux::new(address),
        });
        mux.map_err(|error| upstream.blame("upstream", error))
    }

    /// The server for its clients, which listens.
    fn server(&self, mux: &Mux, audits: &mut Audits) -> Result<Server, Failure> {
        let options = &self.options;
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
