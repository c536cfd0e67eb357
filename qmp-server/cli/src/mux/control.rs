// SPDX-License-Identifier: MIT OR Apache-2.0
//! The control socket: a QMP server of the mux's own, at which operators add, remove and list machines while it runs.

use std::fmt::Write as _;
use std::sync::Arc;

use qmp_dispatch::proto::{CommandType, Dialect, Json, Object, Value, Version};
use qmp_dispatch::{
    Context, Dispatcher, RegisterError, Registry, Responder, command_types, qapi_types,
};
use qmp_server::{
    Discipline, MetricsOfAll, Server, ServerHandle, UpstreamStatus, register_status, system_time,
    version,
};

use super::fleet::Fleet;
use super::inbox::{Inbox, Message};
use crate::clients::Rules;
use crate::config::{Sourced, read_said};
use crate::options::{ServerOptions, SharedMachine};
use crate::{Failure, clients};

/// Of the server for operators, among what is handed over.
pub(super) const NAME: &str = "control";

command_types! {
    /// Serves one more machine. The arguments are what a section [[machine]] of the configuration file has, and are checked
    /// like it.
    pub(crate) MachineAdd = "__org.qmp-server_machine-add" {
        name: String,
        upstream: String,
        listen: Vec<String>,
        dialect: Option<String>,
        allow_user: Option<Vec<String>>,
        allow_group: Option<Vec<String>>,
        role: Option<Vec<String>>,
        default_role: Option<String>,
        insecure: Option<bool>,
        deadline: Option<Vec<String>>,
        deadline_profile: Option<String>,
        hang_after: Option<String>,
        limit: Option<Vec<String>>,
        audit: Option<String>,
        audit_secret: Option<Vec<String>>,
    } -> MachineStatus;

    /// Ends a machine: its clients are disconnected in order, and its sockets removed. Returns when that is done.
    pub(crate) MachineRemove = "__org.qmp-server_machine-remove" {
        name: String,
    };

    /// Returns what each machine does.
    pub(crate) QueryMachines = "__org.qmp-server_query-machines"() -> Vec<MachineStatus>;

    /// Returns the metrics of all machines, in Prometheus' text format.
    pub(crate) QueryMetrics = "__org.qmp-server_query-metrics"() -> MetricsInfo;
}

qapi_types! {
    /// What a machine of a mux does.
    pub(crate) struct MachineStatus {
        /// Its name; not there if it is the only one, and has none.
        pub(crate) name: Option<String>,
        /// Who has named it.
        pub(crate) origin: OriginStatus,
        /// Where it listens.
        pub(crate) listen: Vec<String>,
        /// How many clients are connected.
        pub(crate) clients: u64,
        /// What its upstream server does.
        pub(crate) upstream: UpstreamStatus,
    }

    /// Who has named a machine: the options or the file, a pattern of the file, or an operator.
    #[derive(Clone, Copy)]
    pub(crate) enum OriginStatus {
        Options,
        Pattern,
        Control,
    }

    pub(crate) struct MetricsInfo {
        /// In Prometheus' text format, version 0.0.4.
        text: String,
    }
}

/// What an operator wants, and who waits for that.
pub(super) enum Order {
    Add(Box<MachineAdd>, Responder<MachineStatus>),
    Remove(String, Responder<()>),
    List(Responder<Vec<MachineStatus>>),
}

impl MachineAdd {
    /// The section of the file that says the same.
    pub(super) fn section(&self) -> Result<Sourced<SharedMachine>, Failure> {
        let arguments = MachineAdd::encode_arguments(self).map_err(Failure::usage)?;
        let arguments = arguments.as_ref().map(Json::to_value);
        let mut text = String::new();
        for (key, value) in arguments.iter().filter_map(Value::as_object).flat_map(Object::iter) {
            // Strings take everything.
            let _ = writeln!(text, "{key} = {}", toml(value));
        }
        read_said(&text)
    }
}

/// Writes a value as TOML: there, characters cannot be written as surrogates, as QEMU writes them in JSON.
fn toml(value: &Value) -> String {
    if let Some(text) = value.as_str() {
        let mut quoted = String::from('"');
        for character in text.chars() {
            if character.is_control() || matches!(character, '"' | '\\') {
                let _ = write!(quoted, "\\U{:08X}", u32::from(character));
            } else {
                quoted.push(character);
            }
        }
        return quoted + "\"";
    }
    if let Some(values) = value.as_array() {
        let values: Vec<_> = values.iter().map(toml).collect();
        return format!("[{}]", values.join(", "));
    }
    value.to_string()
}

/// The server for operators.
pub(super) struct Operators {
    options: ServerOptions,
    rules: Rules,
    server: ServerHandle,
}

/// The server for operators, which listens and does not run yet.
pub(super) struct PreparedOperators {
    options: ServerOptions,
    rules: Rules,
    server: Server,
}

impl PreparedOperators {
    /// `None` if nobody wants it.
    pub(super) fn new(
        options: &ServerOptions,
        inbox: &Arc<Inbox>,
        fleet: &mut Fleet,
    ) -> Result<Option<PreparedOperators>, Failure> {
        let options = options.of_control();
        if options.listen.is_empty() {
            return Ok(None);
        }
        let mut registry = Registry::new();
        let audit = fleet.audits().start(&mut registry, &options, None)?;
        register(&mut registry, inbox, fleet.metrics()).map_err(Failure::usage)?;
        clients::set_deadlines(&mut registry, &options);
        let roles = clients::set_roles(&mut registry, &options)?;
        clients::set_deadline_profile(&mut registry, &options);
        // QEMU's text for errors, and its number: clients take features after it.
        let dialect = Dialect::default();
        let version = Version { qemu: dialect.version(), ..version() };
        let dispatcher = Dispatcher::new(registry, version, system_time);
        let server =
            Server::new(dispatcher).dialect(dialect).discipline(Discipline::OnePerMonitor).stay();
        let server = clients::allow(server, &options, audit.as_ref())?;
        let server = match &mut fleet.handed_over {
            Some(handover) => handover.resume_server(NAME, server),
            None => server,
        };
        let server = clients::listen(server, &options)?;
        Ok(Some(PreparedOperators { rules: Rules::new(&server, roles), options, server }))
    }

    /// Says where it listens.
    pub(super) fn announce(&self) {
        clients::announce_control(&self.server, &self.options);
    }

    pub(super) fn serve(self, fleet: &Fleet) -> Result<Operators, Failure> {
        let PreparedOperators { options, rules, server } = self;
        Ok(Operators { options, rules, server: fleet.host(server)? })
    }
}

impl Operators {
    /// Lets it be what is said of it now. Returns false if it cannot be that while it runs.
    pub(super) fn change(&mut self, now: ServerOptions) -> bool {
        let control = self.server.control();
        let changed = self.options == now || {
            let changed = self.rules.change(&control, &self.options, &now);
            changed.unwrap_or_else(|failure| {
                tracing::error!("SIGHUP: {}", failure.what());
                false
            })
        };
        if changed {
            self.options = now;
            clients::renew(&control);
        }
        changed
    }

    pub(super) fn server(&self) -> &ServerHandle {
        &self.server
    }

    /// Begins with the end.
    pub(super) fn shut_down(&self) {
        self.server.control().shutdown();
    }

    pub(super) fn end(self) {
        self.shut_down();
        self.server.wait();
    }
}

fn register(
    registry: &mut Registry,
    inbox: &Arc<Inbox>,
    metrics: MetricsOfAll,
) -> Result<(), RegisterError> {
    register_status(registry)?;
    let order = |inbox: &Arc<Inbox>| {
        let inbox = Arc::clone(inbox);
        move |order| inbox.post(Message::Order(order))
    };
    let post = order(inbox);
    registry.serve_deferred::<MachineAdd>(move |_: &Context, new, responder| {
        post(Order::Add(Box::new(new), responder));
    })?;
    let post = order(inbox);
    registry.serve_deferred::<MachineRemove>(move |_: &Context, machine, responder| {
        post(Order::Remove(machine.name, responder));
    })?;
    let post = order(inbox);
    registry
        .serve_deferred::<QueryMachines>(move |_: &Context, (), responder| {
            post(Order::List(responder));
        })?
        .allow_oob()
        .allow_preconfig();
    registry
        .serve::<QueryMetrics>(move |_: &Context, ()| MetricsInfo { text: metrics.text() })?
        .allow_oob()
        .allow_preconfig();
    Ok(())
}
