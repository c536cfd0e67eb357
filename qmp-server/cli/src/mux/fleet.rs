// SPDX-License-Identifier: MIT OR Apache-2.0
//! The machines that are served, whoever has named them: one table, one way to add one and one to end it.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use qmp_dispatch::Responder;
use qmp_dispatch::proto::Error;
use qmp_server::{
    DialInSockets, Engine, Frozen, Handover, MetricsOfAll, Mux, Server, ServerHandle,
    UpstreamStatus,
};

use super::inbox::{Inbox, Message};
use super::machine::Machine;
use super::orders::{self, AgentStatus, MachineStatus};
use super::sockets::Sockets;
use crate::addresses::{Claim, Taken};
use crate::clients::{Audits, Rules};
use crate::options::ServerOptions;
use crate::{Failure, clients};

/// The machines, and what they have in common.
pub(super) struct Fleet {
    engine: Engine,
    /// Where upstream servers connect, each for one or several of the machines.
    dial_in_sockets: DialInSockets,
    audits: Audits,
    metrics: MetricsOfAll,
    taken: Taken,
    /// Of `taken`, what is of no machine.
    program: Claim,
    /// By name. A machine stays here until it has [ended](Fleet::ended), so that its name and its addresses are its own for as
    /// long as clients could still see it. Boxed, because a node of the tree has room for twice as many as are in it.
    machines: BTreeMap<Option<String>, Box<Served>>,
    /// Those of upstream servers that are named.
    sockets: Sockets,
    /// How many there may be when one more is added.
    most: usize,
    inbox: Arc<Inbox>,
    /// What another program has handed over, until its machines have been looked for.
    pub(super) handed_over: Option<Handover>,
    /// A machine has ended because its upstream server was lost.
    has_lost: bool,
}

/// A machine that is served.
pub(super) struct Served {
    pub(super) machine: Machine,
    pub(super) mux: Mux,
    rules: Rules,
    claim: Claim,
    /// Where it listens, with the ports that the system has chosen.
    listen: Vec<String>,
    /// Its guest agent, if that is shared.
    agent: Option<ServedAgent>,
    /// It has been told to end.
    is_ending: bool,
    /// Operators who wait for that.
    removals: Vec<Responder<()>>,
}

/// The guest agent of a machine, which ends with that.
struct ServedAgent {
    mux: Arc<Mux>,
    rules: Rules,
    listen: Vec<String>,
}

/// A machine that has ended.
pub(super) struct Gone {
    pub(super) machine: Machine,
    /// An operator has said so.
    pub(super) removed: bool,
}

/// A machine that listens, and is not served yet.
pub(super) struct Prepared {
    served: Served,
    server: Server,
    /// Of its guest agent.
    agent: Option<Server>,
}

impl Prepared {
    /// Says where it listens.
    pub(super) fn announce(&self, options: &ServerOptions) {
        let machine = &self.served.machine;
        clients::announce(&self.server, machine.name.as_deref(), options);
        if let (Some(server), Some(options)) = (&self.agent, &machine.agent) {
            clients::announce(server, machine.name.as_deref(), options);
        }
    }
}

fn addresses(server: &Server) -> Vec<String> {
    server.addresses().map(|address| address.to_string()).collect()
}

impl Fleet {
    /// No machines, in a program that has taken these addresses.
    pub(super) fn new(
        (taken, program): (Taken, Claim),
        options: &ServerOptions,
        inbox: Arc<Inbox>,
    ) -> Result<Fleet, Failure> {
        let engine = Engine::builder().per_user(clients::share_of_user(options)).start();
        Ok(Fleet {
            engine: engine.map_err(Failure::usage)?,
            dial_in_sockets: DialInSockets::default(),
            audits: Audits::default(),
            metrics: MetricsOfAll::default(),
            taken,
            program,
            machines: BTreeMap::new(),
            sockets: Sockets::new().map_err(Failure::usage)?,
            most: options.most_machines(),
            inbox,
            handed_over: None,
            has_lost: false,
        })
    }

    /// Makes the mux and the server of a machine, which listens.
    pub(super) fn prepare(
        &mut self,
        (machine, claim): (Machine, Claim),
    ) -> Result<Prepared, Failure> {
        let mut make = |options: &ServerOptions| {
            let mux = machine.mux(options)?.dial_in_at(&self.dial_in_sockets);
            let handed_over = self.handed_over.as_mut();
            let (server, rules) = machine.server(&mux, options, &mut self.audits, handed_over)?;
            Ok((mux, server, rules))
        };
        let made = make(&machine.options).and_then(|made| {
            let agent = machine.agent.as_ref().map(&mut make).transpose()?;
            Ok((made, agent))
        });
        match made {
            Ok(((mux, server, rules), agent)) => {
                let listen = addresses(&server);
                let (is_ending, removals) = (false, Vec::new());
                let (agent, agent_server) = agent
                    .map(|(mux, server, rules)| {
                        let (mux, listen) = (Arc::new(mux), addresses(&server));
                        (ServedAgent { mux, rules, listen }, server)
                    })
                    .unzip();
                let served =
                    Served { machine, mux, rules, claim, listen, agent, is_ending, removals };
                Ok(Prepared { served, server, agent: agent_server })
            }
            Err(failure) => {
                self.taken.release(claim);
                Err(failure)
            }
        }
    }

    /// Serves a machine.
    pub(super) fn serve(&mut self, prepared: Prepared) -> Result<&Served, Failure> {
        let Prepared { served, server, agent } = prepared;
        let name = served.machine.name.clone();
        let metrics = server.metrics();
        served.mux.report_to(&metrics);
        // When both servers have ended.
        let told = Arc::new(TellOfEnd { name: name.clone(), inbox: Arc::clone(&self.inbox) });
        if let (Some(ServedAgent { mux, .. }), Some(server)) = (&served.agent, agent) {
            served.mux.report_agent(mux);
            let told = Arc::clone(&told);
            mux.serve_on(&self.engine, server.on_end(move || drop(told)))
                .map_err(Failure::usage)?;
        }
        let agent = served.agent.as_ref().map(|agent| Arc::clone(&agent.mux));
        let server = server.on_end(move || {
            agent.iter().for_each(|agent| agent.shutdown());
            drop(told);
        });
        // Before anybody is served who could look for them.
        self.metrics.add(name.as_deref(), metrics);
        served.mux.serve_on(&self.engine, server).map_err(Failure::usage)?;
        if let Some(socket) = served.machine.socket() {
            self.sockets.watch(socket);
        }
        Ok(self.machines.entry(name).or_insert(Box::new(served)))
    }

    /// Serves one more machine, and says where.
    pub(super) fn add(
        &mut self,
        machine: Machine,
        options: &ServerOptions,
    ) -> Result<&Served, Failure> {
        if let (Some(name), true) = (&machine.name, self.machines.contains_key(&machine.name)) {
            return Err(Failure::usage(format_args!("another machine has the name '{name}'")));
        }
        let there = self.machines.len();
        if there >= self.most {
            return Err(Failure::usage(format_args!(
                "there are {there} machines already, as many as the limit 'machines' allows"
            )));
        }
        let claims = self.taken.claim([&machine.options])?;
        let claim = claims.into_iter().next().unwrap_or_default();
        let prepared = self.prepare((machine, claim))?;
        prepared.announce(options);
        self.serve(prepared)
    }

    pub(super) fn get(&self, name: &Option<String>) -> Option<&Served> {
        self.machines.get(name).map(|served| &**served)
    }

    /// Readable when there is something to [look](Fleet::look) at.
    pub(super) fn waker(&self) -> BorrowedFd<'_> {
        self.sockets.as_fd()
    }

    /// Looks at which upstream servers have come, of those that are named.
    pub(super) fn look(&mut self) {
        let appeared = self.sockets.appeared().unwrap_or_else(|error| {
            tracing::error!(%error, "cannot look for the sockets of upstream servers");
            Vec::new()
        });
        for socket in appeared {
            for served in self.machines.values() {
                if served.machine.socket() != Some(&socket) {
                    continue;
                }
                let machine = served.machine.name.as_deref();
                tracing::debug!(machine, "the socket of the upstream server has appeared");
                served.mux.upstream_appeared();
            }
        }
    }

    /// Lets a machine be what is said of it now. Returns whether it can be that while it runs; otherwise nothing has changed.
    pub(super) fn change(&mut self, now: &Machine) -> Result<bool, Failure> {
        let Some(served) = self.machines.get_mut(&now.name) else { return Ok(false) };
        let before = &served.machine.options;
        let changed = match served.mux.control() {
            _ if served.is_ending => false,
            _ if *before == now.options => true,
            Some(server) => {
                served.rules.change(&server, before, &now.options)? && served.change_agent(now)?
            }
            None => false,
        };
        if changed {
            served.machine = now.clone();
            served.muxes().filter_map(Mux::control).for_each(|control| clients::renew(&control));
        }
        Ok(changed)
    }

    pub(super) fn names(&self) -> Vec<Option<String>> {
        self.machines.keys().cloned().collect()
    }

    /// Takes other addresses for the program itself, in the place of what it had.
    pub(super) fn claim_for_program(&mut self, options: &ServerOptions) -> Result<(), Failure> {
        let before = std::mem::take(&mut self.program);
        self.taken.release(before);
        self.program = self.taken.claim_for_program(options)?;
        Ok(())
    }

    /// Says how many machines there may be when one more is added.
    pub(super) fn set_most(&mut self, most: usize) {
        self.most = most;
    }

    /// Ends a machine. It leaves when it has [ended](Fleet::ended).
    pub(super) fn end(&mut self, name: &Option<String>) {
        if let Some(served) = self.machines.get_mut(name) {
            served.is_ending = true;
            served.muxes().for_each(Mux::shutdown);
        }
    }

    /// Ends a machine for an operator, who is answered when it has ended.
    pub(super) fn remove(&mut self, name: String, responder: Responder<()>) {
        let text = format!("there is no machine '{name}'");
        let name = Some(name);
        self.end(&name);
        match self.machines.get_mut(&name) {
            Some(served) => served.removals.push(responder),
            None => responder.respond(Err(Error::generic(text))),
        }
    }

    /// Whether a machine has been told to end, and has not yet.
    pub(super) fn any_is_ending(&self) -> bool {
        self.machines.values().any(|served| served.is_ending)
    }

    /// Takes out a machine that has ended: because it was [shut down](Mux::shutdown), or because nobody can come any more.
    pub(super) fn ended(&mut self, name: Option<String>) -> Option<Gone> {
        let served = self.machines.remove(&name)?;
        self.metrics.remove(name.as_deref());
        if let Some(socket) = served.machine.socket() {
            self.sockets.forget(socket);
        }
        self.has_lost |= served.mux.has_lost_upstream();
        self.taken.release(served.claim);
        tracing::info!(machine = name, "a machine has gone");
        let removed = !served.removals.is_empty();
        served.removals.into_iter().for_each(|waiting| waiting.respond(Ok::<_, Error>(())));
        Some(Gone { machine: served.machine, removed })
    }

    /// What each machine does.
    pub(super) fn status(&self) -> Vec<MachineStatus> {
        self.machines.values().map(|served| served.status()).collect()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.machines.is_empty()
    }

    /// Whether this socket is one of ours, or the upstream server of a machine.
    pub(super) fn has_socket(&self, path: &Path) -> bool {
        self.taken.has_socket(path)
    }

    pub(super) fn metrics(&self) -> MetricsOfAll {
        self.metrics.clone()
    }

    /// Whether a machine has ended because its upstream server was lost.
    pub(super) fn has_lost(&self) -> bool {
        self.has_lost
    }

    pub(super) fn audits(&mut self) -> &mut Audits {
        &mut self.audits
    }

    /// Runs the server for operators beside the machines.
    pub(super) fn host(&self, server: Server) -> Result<ServerHandle, Failure> {
        server.spawn_on(&self.engine).map_err(Failure::usage)
    }

    /// Stops all machines and the server for operators, and packs them for another program.
    pub(super) fn freeze(
        &self,
        control: Option<&ServerHandle>,
        at_most: Duration,
    ) -> io::Result<Frozen> {
        let muxes = self.muxes();
        let control = control.map(|server| (orders::NAME, server));
        let added = self.machines.values().filter_map(|served| served.machine.order());
        let added = serde_json::to_string(&added.collect::<Vec<_>>())?;
        Handover::freeze(&self.engine, muxes, control.as_slice(), at_most, &added)
    }

    fn muxes(&self) -> impl Iterator<Item = &Mux> {
        self.machines.values().flat_map(|served| served.muxes())
    }

    /// What is served, in a few words.
    pub(super) fn summary(&self) -> String {
        match self.machines.len() {
            1 => "shares one machine".to_owned(),
            machines => format!("shares {machines} machines"),
        }
    }

    /// Ends all machines, and waits until they have.
    pub(super) fn shut_down(&mut self) {
        self.muxes().for_each(Mux::shutdown);
        self.muxes().for_each(Mux::wait);
        self.names().into_iter().for_each(|name| drop(self.ended(name)));
    }
}

impl Served {
    pub(super) fn status(&self) -> MachineStatus {
        let (clients, upstream) = status(&self.mux);
        let agent = self.agent.as_ref().map(|agent| {
            let (clients, channel) = status(&agent.mux);
            AgentStatus { listen: agent.listen.clone(), clients, channel }
        });
        MachineStatus {
            name: self.machine.name.clone(),
            origin: self.machine.origin.status(),
            listen: self.listen.clone(),
            clients,
            upstream,
            agent,
        }
    }

    /// That of its upstream server, and that of its guest agent if that is shared.
    fn muxes(&self) -> impl Iterator<Item = &Mux> {
        [&self.mux].into_iter().chain(self.agent.iter().map(|agent| &*agent.mux))
    }

    /// Its upstream server has just appeared, and with it the channel of its guest agent.
    pub(super) fn upstream_appeared(&self) {
        self.muxes().for_each(Mux::upstream_appeared);
    }

    /// Lets the guest agent's server be what is said of it now. Returns whether it can be that while it runs.
    fn change_agent(&self, now: &Machine) -> Result<bool, Failure> {
        match (&self.agent, &self.machine.agent, &now.agent) {
            (None, None, None) => Ok(true),
            (Some(agent), Some(before), Some(now)) => match agent.mux.control() {
                Some(server) => agent.rules.change(&server, before, now),
                None => Ok(false),
            },
            _ => Ok(false),
        }
    }
}

/// How many clients a mux has, and what its upstream server does.
fn status(mux: &Mux) -> (u64, UpstreamStatus) {
    let clients = mux.control().and_then(|control| control.status());
    let mut upstream = mux.status();
    // It would be said twice.
    upstream.machine = None;
    (clients.map_or(0, |status| status.clients), upstream)
}

/// Tells the main thread when it is dropped.
struct TellOfEnd {
    name: Option<String>,
    inbox: Arc<Inbox>,
}

impl Drop for TellOfEnd {
    fn drop(&mut self) {
        self.inbox.post(Message::Ended(self.name.take()));
    }
}
