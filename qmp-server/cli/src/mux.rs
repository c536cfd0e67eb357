// SPDX-License-Identifier: MIT OR Apache-2.0
//! `qmp-server mux`: QMP servers, each for many clients.

mod control;
mod finder;
mod fleet;
mod inbox;
mod machine;
mod orders;
mod patterns;
mod plan;
mod reload;
mod sockets;
mod upgrade;

use std::os::fd::AsFd;
use std::sync::Arc;

use qmp_dispatch::proto::Error;
use qmp_server::{Dial, Handover, MetricsEndpoint, TracePoints};

use self::control::{Operators, PreparedOperators};
use self::fleet::Fleet;
use self::inbox::{Inbox, Message};
use self::machine::Machine;
use self::orders::{MachineAdd, Order};
pub(crate) use self::orders::{MachineStatus, QueryMachines};
use self::patterns::Patterns;
use self::plan::Plan;
use crate::arguments::{AttachOptions, MuxOptions};
use crate::attach::{self, Attached};
use crate::clients::{Ending, Woken};
use crate::config_file::ConfigOptions;
use crate::exec::Behind;
use crate::options::ServerOptions;
use crate::{Failure, clients, notify};

pub(crate) fn mux(options: MuxOptions) -> Result<(), Failure> {
    let MuxOptions { config, server: mut options, upstream, exec, hand_over_format } = options;
    if let Some(format) = hand_over_format.filter(|&format| format != Handover::FORMAT) {
        let ours = Handover::FORMAT;
        let error = format!("what is handed over has the format {format}, and not {ours}");
        return Err(Failure::usage(error));
    }
    let behind = match config.check_config {
        true => exec.to_check(),
        false => exec.run()?,
    };
    options.mux = upstream;
    let said = Said { config, flags: options, behind };
    let options = said.options()?;
    if said.config.check_config {
        return Plan::of(&options)?.0.check(&options);
    }
    run(said, options, None)
}

/// `qmp-server attach`: a mux for one QEMU, to which the monitor is added that it shares.
pub(crate) fn attach(options: AttachOptions) -> Result<(), Failure> {
    let AttachOptions { through, config, server } = options;
    let mut said = Said { config, flags: server, behind: None };
    let options = said.options()?;
    if let Some(upstream) = &options.mux.upstream {
        return Err(upstream.blame("upstream", "it is the QEMU that is attached to"));
    }
    if let Some(machine) = options.machine.first() {
        return Err(machine.blame("machine", "one QEMU is attached to"));
    }
    if options.listen.is_empty() {
        return Err(Failure::usage("attach needs --listen"));
    }
    through.check()?;
    if said.config.check_config {
        return clients::check(&options);
    }
    // From now on no signal ends the program before the monitor has been removed.
    clients::prepare()?;
    let (attached, ours) = through.attach()?;
    // Also when the file is read again.
    said.flags.mux.upstream = Some(Dial::from(attach::address_of(ours)).into());
    let options = said.options()?;
    run(said, options, Some(attached))
}

/// Serves until the end, and then takes away what was attached.
fn run(said: Said, options: ServerOptions, mut attached: Option<Attached>) -> Result<(), Failure> {
    let served = serve(said, options, &mut attached);
    if let Some(attached) = attached {
        attached.detach();
    }
    served
}

fn serve(
    said: Said,
    options: ServerOptions,
    attached: &mut Option<Attached>,
) -> Result<(), Failure> {
    // Before there is a mux, whose name is said in the log.
    clients::prepare()?;
    let log = clients::start_log(&options, &Arc::new(TracePoints::default()))?;

    // Before anything is opened.
    let handed_over = upgrade::received();
    // Before there is a socket to remove.
    let mut ending = Ending::new()?;
    // When nothing runs any more is told by the table of machines.
    let _running = ending.running();
    let mut host = Host::start(said, options, handed_over)?;
    if let Some(behind) = &host.said.behind {
        behind.ready().map_err(Failure::usage)?;
    }
    notify::ready(&host.summary());
    while host.goes_on() {
        let held = attached.as_ref().and_then(Attached::as_fd);
        let wakers = host.patterns.waker().into_iter();
        let wakers = wakers.chain([host.inbox.as_fd(), host.fleet.waker()]);
        let wakers: Vec<_> = wakers.chain(held).collect();
        match ending.wait(&wakers) {
            Woken::HangUp => {
                notify::reloading();
                host.reload();
                notify::ready(&host.summary());
            }
            Woken::Other => {
                attached.iter_mut().for_each(Attached::look);
                host.look();
            }
            // The monitor through which it is to be removed is this process's.
            Woken::Upgrade if attached.is_some() => {
                tracing::warn!("attach cannot be upgraded: end it, and attach again");
            }
            Woken::Upgrade => host.upgrade(&log),
            Woken::Signal { is_term: true }
                if attached.is_none() && notify::can_store() && host.store() =>
            {
                drop(log);
                // Nothing is cleaned up: it is the next program's.
                std::process::exit(0);
            }
            Woken::Signal { .. } => {
                attached.iter_mut().for_each(|attached| attached.is_signalled = true);
                break;
            }
            Woken::End => break,
        }
    }
    notify::stopping();
    match host.end() {
        true => Err(Failure::upstream_lost()),
        false => Ok(()),
    }
}

/// Where the options are from, for they are read again.
struct Said {
    config: ConfigOptions,
    flags: ServerOptions,
    behind: Option<Behind>,
}

impl Said {
    /// What is said now.
    fn options(&self) -> Result<ServerOptions, Failure> {
        let mut options = self.config.complete(self.flags.clone())?;
        if let Some(behind) = &self.behind {
            behind.complete(&mut options)?;
        }
        Ok(options)
    }
}

/// The mux of a host: its machines, and what they have in common.
struct Host {
    said: Said,
    options: ServerOptions,
    inbox: Arc<Inbox>,
    fleet: Fleet,
    patterns: Patterns,
    /// Machines that are to be served when others have ended.
    coming: Vec<Machine>,
    /// Serves operators, if anybody wants that.
    control: Option<Operators>,
    metrics: Option<MetricsEndpoint>,
}

impl Host {
    /// Serves what the options say.
    fn start(
        said: Said,
        options: ServerOptions,
        handed_over: Option<Handover>,
    ) -> Result<Host, Failure> {
        let (plan, claims) = Plan::of(&options)?;
        let inbox = Arc::new(Inbox::new()?);
        let taken = (claims.taken, claims.program);
        let mut fleet = Fleet::new(taken, &options, Arc::clone(&inbox))?;
        fleet.handed_over = handed_over;
        let patterns = Patterns::new(plan.patterns)?;
        // All listen before one is served: who cannot is told of at once, and leaves no socket behind.
        let mut prepared = Vec::new();
        for machine in plan.machines.into_iter().zip(claims.machines) {
            prepared.push(fleet.prepare(machine)?);
        }
        let control = PreparedOperators::new(&options, &inbox, &mut fleet)?;
        let all = fleet.metrics();
        let metrics = clients::serve_metrics(|listen| all.serve(listen), &options)?;
        prepared.iter().for_each(|prepared| prepared.announce(&options));
        control.iter().for_each(PreparedOperators::announce);
        clients::announce_metrics(metrics.as_ref(), &options);
        for prepared in prepared {
            fleet.serve(prepared)?;
        }
        let control = control.map(|control| control.serve(&fleet)).transpose()?;
        let coming = Vec::new();
        let mut host = Host { said, options, inbox, fleet, patterns, coming, control, metrics };
        host.take_over();
        Ok(host)
    }

    /// Whether there are machines, or may be.
    fn goes_on(&self) -> bool {
        let may_come = self.patterns.find_more() || self.control.is_some();
        may_come || !self.fleet.is_empty() || !self.coming.is_empty()
    }

    /// Looks at which machines have come, gone and ended, and at what operators want.
    fn look(&mut self) {
        for message in self.inbox.take() {
            match message {
                Message::Ended(name) => {
                    if let Some(gone) = self.fleet.ended(name) {
                        self.patterns.ended(&gone, &mut self.fleet, &self.options);
                        self.settle();
                    }
                }
                Message::Order(order) => self.obey(order),
            }
        }
        self.patterns.look(&mut self.fleet, &self.options);
        self.fleet.look();
    }

    fn obey(&mut self, order: Order) {
        match order {
            // Who has gone does not learn what has become of it.
            Order::Add(new, responder) if responder.is_awaited() => {
                let added = self.add(&new);
                responder
                    .respond(added.map_err(|failure| Error::generic(failure.what().to_owned())));
            }
            Order::Remove(name, responder) if responder.is_awaited() => {
                self.fleet.remove(name, responder);
            }
            Order::List(responder) if responder.is_awaited() => {
                responder.respond(Ok::<_, Error>(self.fleet.status()));
            }
            Order::Add(..) | Order::Remove(..) | Order::List(_) => {}
        }
    }

    fn add(&mut self, new: &MachineAdd) -> Result<MachineStatus, Failure> {
        let machine = Machine::of_order(new, &self.options)?;
        let served = self.fleet.add(machine, &self.options)?;
        tracing::info!(machine = served.machine.name, "a machine was added");
        Ok(served.status())
    }

    /// Ends all in order. Whether a machine has ended because its upstream server was lost.
    fn end(mut self) -> bool {
        if let Some(control) = &self.control {
            control.shut_down();
        }
        self.inbox.close();
        self.fleet.shut_down();
        if let Some(control) = self.control {
            control.end();
        }
        self.fleet.audits().finish();
        self.fleet.has_lost()
    }
}
