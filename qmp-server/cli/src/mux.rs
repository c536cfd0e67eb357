// SPDX-License-Identifier: MIT OR Apache-2.0
//! `qmp-server mux`: QMP servers, each for many clients.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::mem::take;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use qmp_dispatch::Dispatcher;
use qmp_server::{
    Address, Discipline, Engine, MetricsEndpoint, MetricsOfAll, Mux, Server, TracePoints,
    system_time, version,
};
use rustix::event::{EventfdFlags, eventfd};

use crate::arguments::MuxOptions;
use crate::clients::{Audits, Ending, Running, Woken};
use crate::config::Sourced;
use crate::finder::{Change, Finder, Found, PathPattern};
use crate::options::{QemuDialect, ServerOptions, SharedMachine};
use crate::{Failure, addresses, clients};

pub(crate) fn mux(options: MuxOptions) -> Result<(), Failure> {
    let MuxOptions { config, server: mut options, upstream } = options;
    options.mux = upstream;
    let options = &config.complete(options)?;
    let machines = machines(options)?;
    let patterns = patterns(options)?;
    let of_patterns: Vec<_> =
        patterns.iter().map(|pattern| pattern.machine.complete(options)).collect();
    let all = machines.iter().map(|machine| &machine.options).chain(&of_patterns);
    addresses::check(all.clone(), options.metrics.as_ref())?;
    if config.check_config {
        clients::check(options)?;
        of_patterns.iter().try_for_each(clients::check_roles)?;
        return machines.iter().try_for_each(|machine| {
            machine.mux()?;
            clients::check(&machine.options)
        });
    }
    // Before there is a mux, whose name is said in the log.
    let _log = clients::start_log(options, &Arc::new(TracePoints::default()))?;

    // Before there is a socket to remove.
    let mut ending = Ending::new()?;
    let mut fleet = Fleet::new(options, patterns, ending.running())?;
    // All listen before one is served: who cannot is told of at once, and leaves no socket behind.
    let mut prepared = Vec::new();
    for machine in &machines {
        prepared.push(fleet.prepare(machine)?);
    }
    let metrics = &fleet.metrics;
    let endpoint = clients::serve_metrics(|listen| metrics.serve(listen), options)?;
    if let Some(Address::Unix(path)) = endpoint.as_ref().map(MetricsEndpoint::address) {
        fleet.own.insert(addresses::resolved(path));
    }
    for (machine, (_, server)) in machines.iter().zip(&prepared) {
        clients::announce(server, machine.name.as_deref(), options);
    }
    clients::announce_metrics(endpoint.as_ref(), options);
    let mut muxes = Vec::new();
    for (machine, (mux, server)) in machines.iter().zip(prepared) {
        fleet.serve(machine.name.as_deref(), &mux, server, ending.running())?;
        muxes.push(mux);
    }
    drop(machines);
    fleet.look(options);
    loop {
        let woken = ending.wait(&fleet.audits, &fleet.wakers());
        match woken {
            Woken::Other => fleet.look(options),
            Woken::Signal | Woken::End => break,
        }
    }
    muxes.extend(fleet.found.into_values().map(|one| one.mux));
    muxes.iter().for_each(Mux::shutdown);
    muxes.iter().for_each(Mux::wait);
    fleet.audits.finish();
    Ok(())
}

/// One of the machines that are shared: the only one, which has no name, or one of several.
struct Machine {
    name: Option<String>,
    /// Those of its server.
    options: ServerOptions,
    /// The user that its upstream server must be a process of, if that matters.
    user: Option<u32>,
}

/// Any number of machines.
struct Pattern {
    machine: SharedMachine,
    upstream: PathPattern,
}

/// The machines that the options name, with what there is only one of left to the program.
fn machines(options: &ServerOptions) -> Result<Vec<Machine>, Failure> {
    if options.machine.is_empty() {
        if options.mux.upstream.is_none() {
            return Err(Failure::usage("mux needs --upstream"));
        }
        if options.listen.is_empty() {
            return Err(Failure::usage("mux needs --listen"));
        }
        return Ok(vec![Machine { name: None, options: options.clone(), user: None }]);
    }
    if let Some(upstream) = &options.mux.upstream {
        return Err(upstream.blame("upstream", "each [[machine]] has its own"));
    }
    if let Some(listen) = options.listen.first() {
        return Err(listen.blame("listen", "each [[machine]] has its own"));
    }
    let mut names = BTreeSet::new();
    let mut machines = Vec::new();
    for sourced in &options.machine {
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
        if machine.pattern()?.is_none() {
            let options = machine.complete(options);
            machines.push(Machine { name: Some(name.0.clone()), options, user: None });
        }
    }
    Ok(machines)
}

/// What the options say of machines that are found.
fn patterns(options: &ServerOptions) -> Result<Vec<Pattern>, Failure> {
    let mut patterns = Vec::new();
    for sourced in &options.machine {
        let machine = sourced.value.clone();
        let Some(upstream) = machine.pattern()? else { continue };
        let missing = |text: &str| {
            let number =
                (1..=upstream.len()).find(|number| !text.contains(&format!("{{{number}}}")));
            number.map(|number| format!("{{{number}}} is missing, which tells the machines apart"))
        };
        if let Some(what) = machine.name.as_ref().and_then(|name| missing(&name.0)) {
            return Err(sourced.blame("name", what));
        }
        for listen in &machine.listen {
            let what = match &listen.value.address {
                Address::Unix(path) => missing(&path.to_string_lossy()),
                Address::UnixAbstract(name) => missing(name),
                _ => {
                    Some("machines that are found are served at unix: or unix-abstract:".to_owned())
                }
            };
            if let Some(what) = what {
                return Err(listen.blame("listen", what));
            }
        }
        patterns.push(Pattern { machine, upstream });
    }
    Ok(patterns)
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
        let mux = mux.map_err(|error| upstream.blame("upstream", error))?;
        Ok(match self.user {
            Some(uid) => mux.only_of_user(uid),
            None => mux,
        })
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

/// What machines have in common, and those that were found.
struct Fleet {
    engine: Engine,
    audits: Audits,
    metrics: MetricsOfAll,
    patterns: Vec<Pattern>,
    finder: Option<Finder>,
    /// By the paths of their upstream servers.
    found: BTreeMap<PathBuf, FoundMachine>,
    names: BTreeSet<String>,
    /// Sockets that are no machines to be found: those at which we listen, and those of machines that are named.
    own: HashSet<PathBuf>,
    ended: Arc<Ended>,
    /// While machines may be found.
    _running: Option<Running>,
}

struct FoundMachine {
    mux: Mux,
    found: Found,
    name: String,
    /// Where it is served.
    sockets: Vec<PathBuf>,
}

/// Machines that were found and have ended, for the main thread.
struct Ended {
    paths: Mutex<Vec<PathBuf>>,
    waker: OwnedFd,
}

impl Fleet {
    fn new(
        options: &ServerOptions,
        patterns: Vec<Pattern>,
        running: Option<Running>,
    ) -> Result<Fleet, Failure> {
        let upstreams = patterns.iter().map(|pattern| pattern.upstream.clone()).collect();
        let finds = !patterns.is_empty();
        let finder = finds.then(|| Finder::new(upstreams)).transpose().map_err(Failure::usage)?;
        let waker = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        let waker = waker.map_err(Failure::usage)?;
        let named = options.machine.iter().filter_map(|sourced| sourced.value.name.clone());
        Ok(Fleet {
            engine: Engine::new().map_err(Failure::usage)?,
            audits: Audits::default(),
            metrics: MetricsOfAll::default(),
            patterns,
            finder,
            found: BTreeMap::new(),
            names: named.map(|name| name.0).collect(),
            own: HashSet::new(),
            ended: Arc::new(Ended { paths: Mutex::default(), waker }),
            _running: running.filter(|_| finds),
        })
    }

    /// Makes the mux and the server of a machine, which listens.
    fn prepare(&mut self, machine: &Machine) -> Result<(Mux, Server), Failure> {
        let mux = machine.mux()?;
        let server = machine.server(&mux, &mut self.audits)?;
        self.own.extend(sockets(&server));
        if let (None, Some(Sourced { value, .. })) = (machine.user, &machine.options.mux.upstream)
            && let Address::Unix(path) = &value.address
        {
            self.own.insert(addresses::resolved(path));
        }
        let metrics = server.metrics();
        mux.report_to(&metrics);
        self.metrics.add(machine.name.as_deref(), metrics);
        Ok((mux, server))
    }

    /// Serves a machine. `held` is dropped when it has ended.
    fn serve(
        &self,
        name: Option<&str>,
        mux: &Mux,
        server: Server,
        held: impl Send + Sync + 'static,
    ) -> Result<(), Failure> {
        let (metrics, name) = (self.metrics.clone(), name.map(str::to_owned));
        let server = server.on_end(move || {
            metrics.remove(name.as_deref());
            drop(held);
        });
        mux.serve_on(&self.engine, server).map_err(Failure::usage)
    }

    /// What is readable when there is something to look at.
    fn wakers(&self) -> Vec<BorrowedFd<'_>> {
        let finder = self.finder.iter().map(AsFd::as_fd);
        finder.chain([self.ended.waker.as_fd()]).collect()
    }

    /// Looks at which machines have come, gone and ended.
    fn look(&mut self, options: &ServerOptions) {
        let _ = rustix::io::read(&self.ended.waker, &mut [0; 8]);
        let ended = take(&mut *self.ended.paths.lock().unwrap_or_else(PoisonError::into_inner));
        for path in ended {
            let Some(machine) = self.found.remove(&path) else { continue };
            for socket in &machine.sockets {
                self.own.remove(socket);
            }
            self.names.remove(&machine.name);
            tracing::info!(machine = machine.name, "a machine has gone");
            // It may have come again before its mux had ended.
            if let Some(found) = self.finder.as_ref().and_then(|finder| finder.known(&path)) {
                self.appeared(found, options);
            }
        }
        let changes = self.finder.as_mut().map(Finder::changes).transpose();
        let changes = changes.unwrap_or_else(|error| {
            tracing::error!(%error, "cannot look for machines");
            None
        });
        for change in changes.into_iter().flatten() {
            match change {
                Change::Appeared(found) => self.appeared(found, options),
                Change::Gone(found) => {
                    if let Some(machine) = self.found.get(&found.path) {
                        machine.mux.upstream_gone();
                    }
                }
            }
        }
    }

    fn appeared(&mut self, found: Found, options: &ServerOptions) {
        if self.own.contains(&addresses::resolved(&found.path)) {
            return;
        }
        match self.found.get(&found.path) {
            Some(machine) if machine.found == found => machine.mux.upstream_appeared(),
            // It is another user's now, and comes again when this one has ended.
            Some(machine) => machine.mux.shutdown(),
            None => {
                let path = found.path.clone();
                if let Err(failure) = self.add(found, options) {
                    tracing::error!(path = %path.display(), "a machine is not served: {failure}");
                }
            }
        }
    }

    fn add(&mut self, found: Found, options: &ServerOptions) -> Result<(), Failure> {
        let Some(pattern) = self.patterns.get(found.pattern) else { return Ok(()) };
        let section = pattern.machine.filled(&found);
        let name = section.name.clone().unwrap_or_default().0;
        if !self.names.insert(name.clone()) {
            return Err(Failure::usage(format_args!("another machine has the name '{name}'")));
        }
        let machine = Machine {
            name: Some(name.clone()),
            options: section.complete(options),
            user: Some(found.owner),
        };
        let added = self.prepare(&machine).and_then(|(mux, server)| {
            let sockets = sockets(&server).collect();
            clients::announce(&server, Some(&name), options);
            let held = TellOfEnd { path: found.path.clone(), ended: Arc::clone(&self.ended) };
            self.serve(Some(&name), &mux, server, held)?;
            mux.upstream_appeared();
            Ok((mux, sockets))
        });
        match added {
            Ok((mux, sockets)) => {
                tracing::info!(machine = name, path = %found.path.display(), "a machine was found");
                let machine = FoundMachine { mux, name, sockets, found };
                self.found.insert(machine.found.path.clone(), machine);
                Ok(())
            }
            Err(failure) => {
                self.names.remove(&name);
                Err(failure)
            }
        }
    }
}

/// The files of the sockets that a server listens at.
fn sockets(server: &Server) -> impl Iterator<Item = PathBuf> {
    server.addresses().filter_map(|address| match address {
        Address::Unix(path) => Some(addresses::resolved(&path)),
        _ => None,
    })
}

/// Tells the main thread when it is dropped.
struct TellOfEnd {
    path: PathBuf,
    ended: Arc<Ended>,
}

impl Drop for TellOfEnd {
    fn drop(&mut self) {
        let path = take(&mut self.path);
        self.ended.paths.lock().unwrap_or_else(PoisonError::into_inner).push(path);
        let _ = rustix::io::write(&self.ended.waker, &1u64.to_ne_bytes());
    }
}
