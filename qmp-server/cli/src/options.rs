// SPDX-License-Identifier: MIT OR Apache-2.0
//! What can be said on the command line and in the configuration file alike.
//!
//! A field here is both: `--allow-user` and `allow-user`. Everything is checked where it is read, so
//! that whoever is wrong is told the place.

use std::fmt;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::Args;
use qmp_dispatch::proto::Dialect;
use qmp_server::{
    Access, Address, DeadlineProfile, Dial, Limits, Listen, TracePoints, UpstreamLost,
};
use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer};

use crate::Failure;
use crate::config::Sourced;
use crate::deadline::{Deadline, Seconds};
use crate::limit::Limit;
use crate::log::{LogFilter, LogFormat};
use crate::named::Named;
use crate::path_pattern::{Found, PathPattern, fill};
use crate::role::{Assignment, Base, NamePattern, OwnRole, OwnRoles, RoleName};

/// What every server can be told. In the file it stands at the top.
#[derive(Args, Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table", rename_all = "kebab-case")]
pub(crate) struct ServerOptions {
    /// Where to listen: unix:PATH, unix-abstract:NAME, tcp:HOST:PORT, tls:HOST:PORT, vsock:CID:PORT,
    /// fd:NUMBER, systemd or stdio; with server=off,reconnect-ms=N where to connect to a client that
    /// listens; may be given more than once
    #[arg(long, value_name = "ADDR[,OPTION=VALUE]...")]
    pub(crate) listen: Vec<Sourced<Listen>>,
    /// Let processes of this user connect, by name or number, instead of the own user and root; may
    /// be given more than once
    #[arg(long, value_name = "USER")]
    pub(crate) allow_user: Vec<User>,
    /// Let processes of this group's members connect, by name or number; may be given more than
    /// once
    #[arg(long, value_name = "GROUP")]
    pub(crate) allow_group: Vec<Group>,
    /// What clients may do that come through no listener with a role=NAME: those of a user, of a
    /// group's members, or with a name in their certificate; observer, operator, admin or a role of
    /// the file; may be given more than once
    #[arg(
        long,
        value_name = "user:NAME=ROLE | group:NAME=ROLE | dns:NAME=ROLE | uri:URI=ROLE | cn:NAME=ROLE"
    )]
    pub(crate) role: Vec<Sourced<Assignment>>,
    /// What all other clients may do; everything by default, which is admin
    #[arg(long, value_name = "ROLE")]
    pub(crate) default_role: Option<Sourced<String>>,
    /// The tables `[roles.NAME]`.
    #[arg(skip)]
    pub(crate) roles: OwnRoles,
    /// Let others than those of this machine connect without TLS
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_possible_values = true)]
    pub(crate) insecure: Option<bool>,
    /// Answer with an error what takes longer than so many seconds: any command, or those of this
    /// name; may be given more than once
    #[arg(long, value_name = "[COMMAND=]SECONDS")]
    pub(crate) deadline: Vec<Deadline>,
    /// Give all commands the deadlines of a profile, where a listener or role has no other: qemu, or
    /// off
    #[arg(long, value_name = "PROFILE")]
    pub(crate) deadline_profile: Option<Named<DeadlineProfile>>,
    /// How much clients may take: NAME is monitors, bytes or requests, each also with -per-user,
    /// message or unread (bytes of one client), or stalled (seconds, or never); may be given more
    /// than once
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) limit: Vec<Limit>,
    /// Where to answer `GET /metrics` over HTTP, for Prometheus: unix:PATH, tcp:HOST:PORT, or another
    /// address to listen at
    #[arg(long, value_name = "ADDR[,OPTION=VALUE]...")]
    pub(crate) metrics: Option<Sourced<Listen>>,
    /// Write down in this file who comes, goes or is not let in, and what each command was answered,
    /// as lines of JSON; SIGHUP opens it anew
    #[arg(long, value_name = "FILE")]
    pub(crate) audit: Option<Sourced<PathBuf>>,
    /// Leave the values of arguments with such names out of the audit, besides passwords, keys and
    /// the like; may be given more than once
    #[arg(long, value_name = "PATTERN")]
    pub(crate) audit_secret: Vec<NamePattern>,
    /// How lines of the log look; text by default
    #[arg(long, value_name = "FORMAT")]
    pub(crate) log: Option<LogFormat>,
    /// What to log: off, error, warn (this is the default), info, debug or trace, or such levels
    /// for parts of the program: TARGET=LEVEL,...
    #[arg(long, value_name = "LEVEL")]
    pub(crate) log_filter: Option<LogFilter>,
    /// Enable the trace points that match, as `trace-event-set-state` does; may be given more than
    /// once
    #[arg(long, value_name = "PATTERN")]
    pub(crate) trace: Vec<TracePattern>,
    /// The table `[serve]`, whose options are flags of `serve`.
    #[arg(skip)]
    pub(crate) serve: MachineOptions,
    /// The table `[mux]`, likewise.
    #[arg(skip)]
    pub(crate) mux: UpstreamOptions,
    /// The sections `[[machine]]`: what is shared in place of the upstream server of `[mux]`.
    #[arg(skip)]
    pub(crate) machine: Vec<Sourced<SharedMachine>>,
}

impl ServerOptions {
    /// What is said here, and for the rest what is said there.
    pub(crate) fn or(self, other: ServerOptions) -> ServerOptions {
        ServerOptions {
            listen: or(self.listen, other.listen),
            allow_user: or(self.allow_user, other.allow_user),
            allow_group: or(self.allow_group, other.allow_group),
            role: or(self.role, other.role),
            default_role: self.default_role.or(other.default_role),
            // There are no flags for these.
            roles: other.roles,
            insecure: self.insecure.or(other.insecure),
            deadline: or(self.deadline, other.deadline),
            deadline_profile: self.deadline_profile.or(other.deadline_profile),
            limit: or(self.limit, other.limit),
            metrics: self.metrics.or(other.metrics),
            audit: self.audit.or(other.audit),
            audit_secret: or(self.audit_secret, other.audit_secret),
            log: self.log.or(other.log),
            log_filter: self.log_filter.or(other.log_filter),
            trace: or(self.trace, other.trace),
            serve: self.serve.or(other.serve),
            mux: self.mux.or(other.mux),
            machine: other.machine,
        }
    }

    /// How to listen, with what is said for all addresses.
    pub(crate) fn complete(&self, listen: &Listen) -> Listen {
        let mut listen = listen.clone();
        listen.insecure |= self.insecure.unwrap_or_default();
        let role = listen.role.as_deref().and_then(|name| self.own_role(name));
        listen.notices |= role.is_some_and(OwnRole::has_notices);
        listen
    }

    /// The table `[roles.NAME]`, if there is one.
    fn own_role(&self, name: &str) -> Option<&OwnRole> {
        let role = self.roles.iter().find(|(own, _)| own.0 == name);
        role.map(|(_, sourced)| &sourced.value)
    }

    /// Who may connect.
    pub(crate) fn access(&self) -> std::io::Result<Access> {
        let mut access = Access::default();
        self.allow_user.iter().try_for_each(|user| access.allow_user(&user.0))?;
        self.allow_group.iter().try_for_each(|group| access.allow_group(&group.0))?;
        Ok(access)
    }

    /// How much clients may take.
    pub(crate) fn limits(&self) -> Limits {
        let mut limits = Limits::default();
        self.limit.iter().for_each(|limit| limit.set(&mut limits));
        limits
    }

    /// The options of the only machine of a mux, without what there is one of in the whole program.
    pub(crate) fn of_only_machine(&self) -> ServerOptions {
        ServerOptions {
            metrics: None,
            log_filter: None,
            trace: Vec::new(),
            mux: UpstreamOptions { control: Vec::new(), ..self.mux.clone() },
            ..self.clone()
        }
    }

    /// Keeps what cannot change while the program runs as `running` says it. Returns the names of what is another here.
    pub(crate) fn keep_fixed(&mut self, running: &ServerOptions) -> Vec<&'static str> {
        let mut changed = Vec::new();
        let mut keep = |name, is_same: bool| changed.extend((!is_same).then_some(name));
        keep("log", self.log == running.log);
        keep("log-filter", self.log_filter == running.log_filter);
        keep("trace", self.trace == running.trace);
        self.log = running.log;
        self.log_filter.clone_from(&running.log_filter);
        self.trace.clone_from(&running.trace);
        changed
    }

    /// The same, with what `other` says of who may connect, who may do what, and deadlines.
    pub(crate) fn with_rules_of(&self, other: &ServerOptions) -> ServerOptions {
        ServerOptions {
            allow_user: other.allow_user.clone(),
            allow_group: other.allow_group.clone(),
            role: other.role.clone(),
            default_role: other.default_role.clone(),
            roles: other.roles.clone(),
            deadline: other.deadline.clone(),
            ..self.clone()
        }
    }

    /// The options of the server for operators of a mux.
    pub(crate) fn of_control(&self) -> ServerOptions {
        ServerOptions {
            listen: self.mux.control.clone(),
            metrics: None,
            mux: UpstreamOptions::default(),
            machine: Vec::new(),
            ..self.clone()
        }
    }

    /// The options of the server for the clients of the machine's guest agent, if that is shared. Deadlines of all commands are
    /// those of QEMU's.
    pub(crate) fn of_agent(&self) -> Option<ServerOptions> {
        let UpstreamOptions { agent, agent_listen, agent_timeout, upstream_lost, quiet, .. } =
            self.mux.clone();
        let named = |deadline: &&Deadline| deadline.command.is_some();
        Some(ServerOptions {
            listen: agent_listen,
            deadline: self.deadline.iter().filter(named).cloned().collect(),
            deadline_profile: None,
            mux: UpstreamOptions {
                upstream: Some(agent?),
                agent_timeout,
                upstream_lost,
                quiet,
                for_agent: true,
                ..UpstreamOptions::default()
            },
            ..self.clone()
        })
    }

    /// The names of the options that say where the upstream server is, and where it is served.
    pub(crate) fn keys(&self) -> (&'static str, &'static str) {
        if self.mux.for_agent { ("agent", "agent-listen") } else { ("upstream", "listen") }
    }

    /// How many machines a mux may have when one more is found or added.
    pub(crate) fn most_machines(&self) -> usize {
        self.limit.iter().rev().find_map(Limit::machines).unwrap_or(MOST_MACHINES)
    }

    /// Enables the trace points that were asked for.
    pub(crate) fn enable_trace_points(&self, points: &TracePoints) {
        for pattern in &self.trace {
            points.enable_matching(&pattern.0);
        }
    }
}

/// Machines that may be served, unless a limit says otherwise. Each takes three descriptors with one client.
const MOST_MACHINES: usize = 4096;

/// What the reference machine can be told.
#[derive(Args, Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table", rename_all = "kebab-case")]
pub(crate) struct MachineOptions {
    /// The name of the machine
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// The UUID of the machine
    #[arg(long)]
    pub(crate) uuid: Option<Uuid>,
    /// Do not start the machine, wait for `cont`
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_possible_values = true)]
    pub(crate) paused: Option<bool>,
    /// The QEMU that the machine takes after, in its errors and its version: 10.0 or 11.1 (this is
    /// the default)
    #[arg(long, value_name = "VERSION")]
    pub(crate) dialect: Option<Named<Dialect>>,
}

impl MachineOptions {
    /// What is said here, and for the rest what is said there.
    pub(crate) fn or(self, other: MachineOptions) -> MachineOptions {
        MachineOptions {
            name: self.name.or(other.name),
            uuid: self.uuid.or(other.uuid),
            paused: self.paused.or(other.paused),
            dialect: self.dialect.or(other.dialect),
        }
    }
}

/// What the mux can be told.
#[derive(Args, Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table", rename_all = "kebab-case")]
pub(crate) struct UpstreamOptions {
    /// The server to share: unix:PATH, a path with a slash, unix-abstract:NAME, tcp:HOST:PORT,
    /// tls:HOST:PORT with ca=FILE, vsock:CID:PORT, or a connection that is inherited: fd:NUMBER or
    /// systemd:NAME; QEMU's server=on,wait=off may follow; with dial-in=on where to listen for it
    #[arg(long, value_name = "ADDR[,OPTION=VALUE]...")]
    pub(crate) upstream: Option<Sourced<Dial>>,
    /// The QEMU whose errors clients get for what is no message: 10.0 or 11.1; by default the one
    /// that the server is, or is next to
    #[arg(long, value_name = "VERSION")]
    pub(crate) dialect: Option<Named<Dialect>>,
    /// Say in the log and in the status that the server hangs when a command is unanswered for so
    /// long; by default that depends on the command, as with --deadline-profile qemu
    #[arg(long, value_name = "SECONDS")]
    pub(crate) hang_after: Option<Seconds>,
    /// The channel of the machine's guest agent (qemu-ga), which is shared, too: an address as for
    /// --upstream
    #[arg(long, value_name = "ADDR[,OPTION=VALUE]...")]
    pub(crate) agent: Option<Sourced<Dial>>,
    /// Where to listen for clients of the guest agent, which speak as to the agent itself; as for
    /// --listen; may be given more than once
    #[arg(long, value_name = "ADDR[,OPTION=VALUE]...")]
    pub(crate) agent_listen: Vec<Sourced<Listen>>,
    /// How long the guest agent may take for a command of which --deadline says nothing; 60 by default
    #[arg(long, value_name = "SECONDS")]
    pub(crate) agent_timeout: Option<Seconds>,
    /// These are the options of the server for the clients of a guest agent.
    #[arg(skip)]
    #[serde(skip)]
    pub(crate) for_agent: bool,
    /// Where operators add, remove and list machines while the mux runs; may be given more than once
    #[arg(long, value_name = "ADDR[,OPTION=VALUE]...")]
    pub(crate) control: Vec<Sourced<Listen>>,
    /// What QEMU calls its machine, with `--exec`.
    #[arg(skip)]
    #[serde(skip)]
    pub(crate) name: Option<MachineName>,
    /// Where clients are served is not told, with `--exec`: QEMU's messages go there, and are read by who has started it.
    #[arg(skip)]
    #[serde(skip)]
    pub(crate) quiet: bool,
    /// What becomes of clients when the server is lost, and while it is not there: disconnect (they get
    /// the end, and are refused, as by the server itself; this is the default), keep (they stay, and get
    /// errors) or exit (as disconnect, and the mux ends); those of addresses with notices=on always stay
    #[arg(long, value_name = "WHAT")]
    pub(crate) upstream_lost: Option<Named<UpstreamLost>>,
}

impl UpstreamOptions {
    /// What is said here, and for the rest what is said there.
    pub(crate) fn or(self, other: UpstreamOptions) -> UpstreamOptions {
        UpstreamOptions {
            upstream: self.upstream.or(other.upstream),
            dialect: self.dialect.or(other.dialect),
            hang_after: self.hang_after.or(other.hang_after),
            agent: self.agent.or(other.agent),
            agent_listen: or(self.agent_listen, other.agent_listen),
            agent_timeout: self.agent_timeout.or(other.agent_timeout),
            for_agent: self.for_agent || other.for_agent,
            control: or(self.control, other.control),
            name: self.name.or(other.name),
            quiet: self.quiet || other.quiet,
            upstream_lost: self.upstream_lost.or(other.upstream_lost),
        }
    }
}

/// One of the machines that a mux shares.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table", rename_all = "kebab-case")]
pub(crate) struct SharedMachine {
    pub(crate) name: Option<MachineName>,
    pub(crate) upstream: Option<Sourced<Dial>>,
    dialect: Option<Named<Dialect>>,
    upstream_lost: Option<Named<UpstreamLost>>,
    pub(crate) listen: Vec<Sourced<Listen>>,
    pub(crate) agent: Option<Sourced<Dial>>,
    pub(crate) agent_listen: Vec<Sourced<Listen>>,
    agent_timeout: Option<Seconds>,
    allow_user: Vec<User>,
    allow_group: Vec<Group>,
    pub(crate) role: Vec<Sourced<Assignment>>,
    pub(crate) default_role: Option<Sourced<String>>,
    insecure: Option<bool>,
    deadline: Vec<Deadline>,
    deadline_profile: Option<Named<DeadlineProfile>>,
    hang_after: Option<Seconds>,
    limit: Vec<Limit>,
    pub(crate) audit: Option<Sourced<PathBuf>>,
    audit_secret: Vec<NamePattern>,
}

impl SharedMachine {
    /// The options of this machine's server: what is said here, and for the rest what is said for all. What there is one
    /// of in the whole program is left out.
    pub(crate) fn complete(&self, all: &ServerOptions) -> ServerOptions {
        let machine = self.clone();
        ServerOptions {
            listen: machine.listen,
            allow_user: or(machine.allow_user, all.allow_user.clone()),
            allow_group: or(machine.allow_group, all.allow_group.clone()),
            role: or(machine.role, all.role.clone()),
            default_role: machine.default_role.or_else(|| all.default_role.clone()),
            roles: all.roles.clone(),
            insecure: machine.insecure.or(all.insecure),
            deadline: or(machine.deadline, all.deadline.clone()),
            deadline_profile: machine.deadline_profile.or(all.deadline_profile),
            limit: or(machine.limit, all.limit.clone()),
            audit: machine.audit.or_else(|| all.audit.clone()),
            audit_secret: or(machine.audit_secret, all.audit_secret.clone()),
            log: all.log,
            mux: UpstreamOptions {
                upstream: machine.upstream,
                agent: machine.agent,
                agent_listen: machine.agent_listen,
                agent_timeout: machine.agent_timeout.or(all.mux.agent_timeout),
                dialect: machine.dialect.or(all.mux.dialect),
                upstream_lost: machine.upstream_lost.or(all.mux.upstream_lost),
                hang_after: machine.hang_after.or(all.mux.hang_after),
                ..UpstreamOptions::default()
            },
            ..ServerOptions::default()
        }
    }

    /// Whether it says how many machines there may be, which is not for one of them to say.
    pub(crate) fn limits_machines(&self) -> bool {
        self.limit.iter().any(|limit| limit.machines().is_some())
    }

    /// Which paths the upstream servers of its machines have, if there may be any number of them.
    pub(crate) fn pattern(&self) -> Result<Option<PathPattern>, Failure> {
        let Some(sourced) = &self.upstream else { return Ok(None) };
        let Address::Unix(path) = sourced.value.address() else { return Ok(None) };
        if matches!(sourced.value, Dial::In(_)) {
            return Ok(None);
        }
        PathPattern::parse(path).map_err(|error| sourced.blame("upstream", error))
    }

    /// What is said of one of these machines.
    pub(crate) fn filled(&self, found: &Found) -> SharedMachine {
        let fill = |text: &str| fill(text, &found.captures);
        let fill_path =
            |path: &Path| path.to_str().map_or_else(|| path.to_owned(), |path| fill(path).into());
        let mut machine = self.clone();
        if let Some(MachineName(name)) = &mut machine.name {
            *name = fill(name);
        }
        if let Some(upstream) = &mut machine.upstream {
            let path = Address::Unix(found.path.clone());
            if let Dial::Out(connect) = &mut upstream.value {
                connect.address = path;
            }
        }
        let agent = machine.agent.iter_mut().map(|agent| match &mut agent.value {
            Dial::Out(connect) => &mut connect.address,
            Dial::In(dial_in) => &mut dial_in.listen.address,
        });
        let listen = machine.listen.iter_mut().chain(&mut machine.agent_listen);
        for address in agent.chain(listen.map(|listen| &mut listen.value.address)) {
            match address {
                Address::Unix(path) => *path = fill_path(path),
                Address::UnixAbstract(name) => *name = fill(name),
                _ => {}
            }
        }
        if let Some(audit) = &mut machine.audit {
            audit.value = fill_path(&audit.value);
        }
        machine
    }
}

/// What a machine is called.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct MachineName(pub(crate) String);

/// Bytes of a name, at most: it is in every line of the log and of metrics.
const LONGEST_NAME: usize = 255;

impl FromStr for MachineName {
    type Err = String;

    fn from_str(text: &str) -> Result<MachineName, String> {
        match text {
            "" => Err("the name of the machine is empty".to_owned()),
            _ if text.len() > LONGEST_NAME => {
                Err(format!("the name of the machine has more than {LONGEST_NAME} bytes"))
            }
            _ if text.contains(char::is_control) => {
                Err("the name of the machine has control characters".to_owned())
            }
            _ => Ok(MachineName(text.to_owned())),
        }
    }
}

fn or<T>(these: Vec<T>, others: Vec<T>) -> Vec<T> {
    if these.is_empty() { others } else { these }
}

/// A user that exists, or a number.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct User(String);

impl FromStr for User {
    type Err = String;

    fn from_str(text: &str) -> Result<User, String> {
        Access::default().allow_user(text).map_err(|error| error.to_string())?;
        Ok(User(text.to_owned()))
    }
}

/// A group that exists, or a number.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Group(String);

impl FromStr for Group {
    type Err = String;

    fn from_str(text: &str) -> Result<Group, String> {
        Access::default().allow_group(text).map_err(|error| error.to_string())?;
        Ok(Group(text.to_owned()))
    }
}

/// What some trace point matches.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TracePattern(String);

impl FromStr for TracePattern {
    type Err = String;

    fn from_str(text: &str) -> Result<TracePattern, String> {
        match TracePoints::default().enable_matching(text) {
            true => Ok(TracePattern(text.to_owned())),
            false => Err(format!("there is no trace point '{text}'")),
        }
    }
}

/// A UUID, in lower case.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Uuid(String);

impl From<Uuid> for String {
    fn from(uuid: Uuid) -> String {
        uuid.0
    }
}

impl FromStr for Uuid {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Uuid, &'static str> {
        let groups: Vec<&str> = text.split('-').collect();
        let lengths: Vec<usize> = groups.iter().map(|group| group.len()).collect();
        let hex = groups.iter().all(|group| group.bytes().all(|byte| byte.is_ascii_hexdigit()));
        if lengths == [8, 4, 4, 4, 12] && hex {
            Ok(Uuid(text.to_ascii_lowercase()))
        } else {
            Err("expected a UUID like 550e8400-e29b-41d4-a716-446655440000")
        }
    }
}

/// In the file these are strings as on the command line. A visitor that fails is told of with the place of
/// the string.
macro_rules! deserialize_as_parsed {
    ($($type:ty),+) => {$(
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<$type, D::Error> {
                deserializer.deserialize_str(Parsed(PhantomData))
            }
        }
    )+};
}

struct Parsed<T>(PhantomData<T>);

impl<T: FromStr<Err: fmt::Display>> Visitor<'_> for Parsed<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }
}

deserialize_as_parsed!(
    User,
    Group,
    Assignment,
    Base,
    NamePattern,
    RoleName,
    Deadline,
    Limit,
    LogFilter,
    MachineName,
    Named<DeadlineProfile>,
    Named<Dialect>,
    Named<UpstreamLost>,
    Seconds,
    TracePattern,
    Uuid
);
