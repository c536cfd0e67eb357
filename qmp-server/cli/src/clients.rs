// SPDX-License-Identifier: MIT OR Apache-2.0
//! What `serve` and `mux` have in common: who is served where, and what is written down about it.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use qmp_dispatch::{Dispatcher, RegisterError, Registry};
use qmp_server::{
    Address, Audit, Control, Listen, ListenError, Metrics, MetricsEndpoint, Quota, Roles,
    RolesInForce, Server, TracePoints,
};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::fcntl_dupfd_cloexec;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::Sourced;
use crate::limit::Limit;
use crate::log::{self, Guard, LogFormat};
use crate::named::Named;
use crate::options::ServerOptions;
use crate::role::{Assignment, NamePattern};
use crate::{Failure, complain};

/// Logs until the guard is dropped. The trace points that were asked for are enabled.
pub(crate) fn start_log(
    options: &ServerOptions,
    trace_points: &Arc<TracePoints>,
) -> Result<Guard, Failure> {
    options.enable_trace_points(trace_points);
    let filter = options.log_filter.clone().unwrap_or_default();
    log::start(options.log.unwrap_or_default(), filter, Arc::clone(trace_points))
        .map_err(Failure::usage)
}

/// Comes after what gives clients their roles: what a role or a door says of deadlines goes before.
pub(crate) fn set_deadline_profile(registry: &mut Registry, options: &ServerOptions) {
    if let Some(Named(profile)) = options.deadline_profile {
        registry.each_monitor(move |locals| profile.given_to(locals));
    }
}

pub(crate) fn set_deadlines(registry: &mut Registry, options: &ServerOptions) {
    for deadline in &options.deadline {
        match &deadline.command {
            Some(command) => registry.set_deadline(command, deadline.after),
            None => registry.set_default_deadline(deadline.after),
        }
    }
}

/// The audits, each file of which is open once, however many machines are written down there.
#[derive(Default)]
pub(crate) struct Audits(BTreeMap<PathBuf, Audit>);

impl Audits {
    /// Opens the audit, if there is to be one. Comes before everything else that intercepts.
    pub(crate) fn start(
        &mut self,
        registry: &mut Registry,
        options: &ServerOptions,
        machine: Option<&str>,
    ) -> Result<Option<Audit>, Failure> {
        let Some(sourced) = &options.audit else { return Ok(None) };
        let file = match self.0.entry(sourced.value.clone()) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => {
                let audit = Audit::open(&sourced.value);
                entry.insert(audit.map_err(|error| blame_audit(sourced, &error))?)
            }
        };
        let mut audit = file.of_machine(machine);
        for NamePattern(pattern) in &options.audit_secret {
            audit.hide(pattern).map_err(Failure::usage)?;
        }
        audit.register(registry);
        Ok(Some(audit))
    }

    /// Opens the files anew, which may have been moved away.
    pub(crate) fn reopen(&self) {
        if self.0.is_empty() {
            tracing::info!("SIGHUP: there is no audit to be opened anew");
        }
        self.0.values().for_each(Audit::reopen);
    }

    /// Waits until everything that has happened is written down, for a while.
    pub(crate) fn flush(&self) {
        self.0.values().for_each(Audit::flush);
    }

    /// Waits for what is still to be written down.
    pub(crate) fn finish(&self) {
        self.0.values().for_each(Audit::finish);
    }
}

fn blame_audit(sourced: &Sourced<PathBuf>, error: &io::Error) -> Failure {
    sourced.blame("audit", format_args!("{}: {error}", sourced.value.display()))
}

/// Signals that the program looks at when it has time, and not where they come.
const SIGNALS: [Signal; 4] = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGUSR2];

/// Prepares the process for serving. To be called before anything else is started.
///
/// Signals wait until they are [looked at](Ending::wait), on this thread and those that it starts. They do so over `exec`, too:
/// a program that takes over misses none.
pub(crate) fn prepare() -> Result<(), Failure> {
    raise_descriptor_limit();
    SigSet::from_iter(SIGNALS).thread_block().map_err(Failure::usage)
}

/// The end of the program: a signal says so, or nothing runs any more.
pub(crate) struct Ending {
    signals: SignalFd,
    /// Its other end is closed when nothing runs any more.
    over: OwnedFd,
    /// `None` once it is waited for.
    running: Option<Running>,
}

/// Held by what runs.
#[derive(Clone)]
pub(crate) struct Running {
    _other_end: Arc<OwnedFd>,
}

/// What was waited for.
pub(crate) enum Woken {
    /// A signal says that the program is to end; whether that is what a service manager sends.
    Signal { is_term: bool },
    /// SIGHUP, which says that files have changed or have been moved away.
    HangUp,
    /// SIGUSR2, which says that there is a new program.
    Upgrade,
    /// Nothing runs any more.
    End,
    /// Something else is readable.
    Other,
}

impl Ending {
    /// Signals that are [held](prepare) end the program in its order.
    pub(crate) fn new() -> Result<Ending, Failure> {
        let (over, other_end) = pipe_with(PipeFlags::CLOEXEC).map_err(Failure::usage)?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        let signals = SignalFd::with_flags(&SigSet::from_iter(SIGNALS), flags);
        let running = Some(Running { _other_end: Arc::new(other_end) });
        Ok(Ending { signals: signals.map_err(Failure::usage)?, over, running })
    }

    /// To be dropped by what runs when it has ended.
    pub(crate) fn running(&self) -> Option<Running> {
        self.running.clone()
    }

    /// Waits for a signal, until all that runs has ended, or until one of `others` is readable.
    pub(crate) fn wait(&mut self, others: &[BorrowedFd<'_>]) -> Woken {
        self.running = None;
        loop {
            let own = [self.signals.as_fd(), self.over.as_fd()];
            let all = own.iter().chain(others);
            let mut fds: Vec<_> =
                all.map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN)).collect();
            if poll(&mut fds, None).is_err() {
                continue;
            }
            let ready: Vec<_> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
            match ready[..] {
                [true, ..] => {
                    let Ok(Some(signal)) = self.signals.read_signal() else { continue };
                    return match Signal::try_from(signal.ssi_signo.cast_signed()) {
                        Ok(Signal::SIGHUP) => Woken::HangUp,
                        Ok(Signal::SIGUSR2) => Woken::Upgrade,
                        signal => Woken::Signal { is_term: signal == Ok(Signal::SIGTERM) },
                    };
                }
                [_, true, ..] => return Woken::End,
                _ if ready.contains(&true) => return Woken::Other,
                _ => {}
            }
        }
    }
}

/// The roles that were asked for; `None` if all may do everything. Finds whatever is wrong with them.
fn roles(options: &ServerOptions) -> Result<Option<Roles>, Failure> {
    let mut roles = Roles::default();
    for (name, sourced) in &options.roles {
        let key = format!("roles.{}", name.0);
        if sourced.value.allows_nothing() {
            return Err(sourced.blame(&key, "nothing is allowed: say allow, allow-events or base"));
        }
        let role = sourced.value.make(name).and_then(|role| roles.add(role));
        role.map_err(|error| sourced.blame(&key, error))?;
    }
    let mut wanted = false;
    for sourced in &options.listen {
        if let Some(role) = &sourced.value.role {
            roles.find(role).map_err(|error| sourced.blame("listen", error))?;
            wanted = true;
        }
    }
    if let Some(sourced) = &options.metrics {
        let Listen { role, notices, .. } = &sourced.value;
        if role.is_some() {
            return Err(sourced.blame("metrics", "metrics take no role"));
        }
        if *notices {
            return Err(sourced.blame("metrics", "metrics have no notices"));
        }
    }
    for sourced in &options.role {
        let Assignment { subject, role } = &sourced.value;
        let assigned = roles.assign(subject.clone(), role);
        assigned.map_err(|error| sourced.blame("role", error))?;
        wanted = true;
    }
    if let Some(sourced) = &options.default_role {
        let set = roles.set_default(&sourced.value);
        set.map_err(|error| sourced.blame("default-role", error))?;
        wanted = true;
    }
    Ok(wanted.then_some(roles))
}

/// Gives clients their roles, if any were spoken of.
pub(crate) fn set_roles(
    registry: &mut Registry,
    options: &ServerOptions,
) -> Result<Option<RolesInForce>, Failure> {
    Ok(roles(options)?.map(|roles| roles.register(registry)))
}

/// The rules for the clients of a server that can change while it runs: who may connect, who may do what, and deadlines.
pub(crate) struct Rules {
    dispatcher: Dispatcher,
    roles: Option<RolesInForce>,
}

impl Rules {
    pub(crate) fn new(server: &Server, roles: Option<RolesInForce>) -> Rules {
        Rules { dispatcher: server.dispatcher().clone(), roles }
    }

    /// Changes the rules of a server that runs. Returns whether that was all there is to change; otherwise nothing has changed.
    pub(crate) fn change(
        &self,
        server: &Control,
        before: &ServerOptions,
        now: &ServerOptions,
    ) -> Result<bool, Failure> {
        let is_all = before.with_rules_of(now) == *now;
        let roles = roles(now)?;
        if !is_all || roles.is_some() != self.roles.is_some() {
            return Ok(false);
        }
        let access = now.access().map_err(Failure::usage)?;
        let look_up_groups = roles.as_ref().is_some_and(Roles::depend_on_groups);
        // Before those may connect for whom they are.
        if let (Some(in_force), Some(roles)) = (&self.roles, roles) {
            in_force.replace(roles);
        }
        let deadlines = self.dispatcher.update(|registry| {
            registry.clear_deadlines();
            set_deadlines(registry, now);
            Ok::<_, RegisterError>(())
        });
        deadlines.map_err(Failure::usage)?;
        server.set_access(access, look_up_groups);
        Ok(true)
    }
}

/// Descriptors that there is room for from the beginning: 32 KiB of the system's memory.
const ROOM_FOR_DESCRIPTORS: u64 = 4096;

/// Lets as many clients come as the system allows: at first it is fewer, for the sake of programs that use `select`.
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    // A limit that cannot be raised is in force as it is.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
    // The system doubles a table that is full, and as soon as there are several threads, whoever opens a descriptor then
    // waits for some ten milliseconds, and with the loop's thread everybody. Now there is one thread.
    let most = getrlimit(Resource::Nofile).current.unwrap_or(ROOM_FOR_DESCRIPTORS);
    let last = most.min(ROOM_FOR_DESCRIPTORS).saturating_sub(1);
    if let Ok(last) = i32::try_from(last) {
        drop(fcntl_dupfd_cloexec(rustix::stdio::stdin(), last));
    }
}

/// Reads keys and certificates again. They have been checked, and otherwise stay as they are.
pub(crate) fn renew(server: &Control) {
    if let Err(error) = server.renew() {
        tracing::error!("SIGHUP: certificates stay as they were: {error}");
    }
}

/// What one user may take of all machines together: half of the descriptors that the process may open for connections, and a
/// quarter for what comes with messages. The rest is for the machines themselves and for other users.
pub(crate) fn share_of_user(options: &ServerOptions) -> Quota {
    let open = getrlimit(Resource::Nofile).current;
    let open = open.and_then(|open| usize::try_from(open).ok()).unwrap_or(usize::MAX);
    // More for one machine is more for all of them.
    let of_machine = options.limits().per_user;
    let mut share = Quota::UNLIMITED;
    share.descriptors = (open / 4).max(256);
    share.monitors = (open / 2).max(256);
    if options.limit.iter().any(Limit::is_of_connections) {
        share.monitors = share.monitors.max(of_machine.monitors);
    }
    share
}

/// Lets in who may connect, for as much as they may take. Others are told of in the audit.
pub(crate) fn allow(
    server: Server,
    options: &ServerOptions,
    audit: Option<&Audit>,
) -> Result<Server, Failure> {
    let access = options.access().map_err(Failure::usage)?;
    let server = server.access(access).limits(options.limits());
    let server = match roles(options)? {
        Some(roles) if roles.depend_on_groups() => server.look_up_groups(),
        _ => server,
    };
    Ok(match audit {
        Some(audit) => server.audit(audit),
        None => server,
    })
}

/// Says what would fail of what can be tried without anybody noticing.
pub(crate) fn check(options: &ServerOptions) -> Result<(), Failure> {
    check_roles(options)?;
    if let Some(sourced) = &options.audit {
        Audit::verify(&sourced.value).map_err(|error| blame_audit(sourced, &error))?;
    }
    for sourced in &options.listen {
        let listen = options.complete(&sourced.value);
        let (_, key) = options.keys();
        if options.mux.for_agent && listen.pretty {
            return Err(sourced.blame(key, "pretty=on is not for clients of a guest agent"));
        }
        listen.verify().map_err(|error| sourced.blame(key, error))?;
    }
    if let Some(sourced) = &options.metrics {
        let listen = options.complete(&sourced.value);
        Metrics::verify(&listen).map_err(|error| sourced.blame("metrics", error))?;
    }
    Ok(())
}

/// Says what is wrong with roles.
pub(crate) fn check_roles(options: &ServerOptions) -> Result<(), Failure> {
    roles(options).map(drop)
}

/// Serves metrics until what is returned is dropped, if anybody wants them.
pub(crate) fn serve_metrics(
    serve: impl FnOnce(&Listen) -> Result<MetricsEndpoint, ListenError>,
    options: &ServerOptions,
) -> Result<Option<MetricsEndpoint>, Failure> {
    let Some(sourced) = &options.metrics else { return Ok(None) };
    let listen = options.complete(&sourced.value);
    serve(&listen).map(Some).map_err(|error| sourced.blame("metrics", error))
}

/// Listens wherever it is said.
pub(crate) fn listen(mut server: Server, options: &ServerOptions) -> Result<Server, Failure> {
    for sourced in &options.listen {
        let listen = options.complete(&sourced.value);
        let (_, key) = options.keys();
        server = server.listen(&listen).map_err(|error| sourced.blame(key, error))?;
    }
    Ok(server)
}

/// Says where a server listens, and of which machine if there are several.
pub(crate) fn announce(server: &Server, machine: Option<&str>, options: &ServerOptions) {
    let what = if options.mux.for_agent { "guest agent" } else { "listening" };
    server.addresses().for_each(|address| announce_address(what, &address, machine, options));
}

/// Says where operators are served.
pub(crate) fn announce_control(server: &Server, options: &ServerOptions) {
    server.addresses().for_each(|address| announce_address("control", &address, None, options));
}

/// Says where metrics are served.
pub(crate) fn announce_metrics(endpoint: Option<&MetricsEndpoint>, options: &ServerOptions) {
    if let Some(endpoint) = endpoint {
        announce_address("metrics", endpoint.address(), None, options);
    }
}

fn announce_address(what: &str, address: &Address, machine: Option<&str>, options: &ServerOptions) {
    if options.mux.quiet {
        return;
    }
    match (options.log.unwrap_or_default(), machine) {
        (LogFormat::Text, None) => complain(&format_args!("qmp-server: {what} at {address}")),
        (LogFormat::Text, Some(machine)) => {
            complain(&format_args!("qmp-server: {machine}: {what} at {address}"));
        }
        (LogFormat::Json, machine) => tracing::info!(%address, machine, "{what}"),
    }
}
