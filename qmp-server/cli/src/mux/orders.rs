// SPDX-License-Identifier: MIT OR Apache-2.0
//! What operators can ask of a mux: commands of the control socket.

use std::fmt::Write as _;

use qmp_dispatch::proto::{CommandType, Json, Object, Value};
use qmp_dispatch::{Responder, command_types, qapi_types};
use qmp_server::UpstreamStatus;

use crate::Failure;
use crate::config::{Sourced, read_said};
use crate::options::SharedMachine;

/// Of the server for operators, among what is handed over.
pub(super) const NAME: &str = "control";

command_types! {
    /// Serves one more machine. The arguments are what a section [[machine]] of the configuration file has, and are checked
    /// like it.
    pub(crate) MachineAdd = "__org.qmp-server_machine-add" {
        name: String,
        upstream: String,
        listen: Vec<String>,
        agent: Option<String>,
        agent_listen: Option<Vec<String>>,
        agent_timeout: Option<String>,
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
        pub(super) name: String,
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
        /// What its guest agent does, if that is shared.
        pub(crate) agent: Option<AgentStatus>,
    }

    /// What the guest agent of a machine does.
    pub(crate) struct AgentStatus {
        /// Where its clients are served.
        pub(crate) listen: Vec<String>,
        /// How many are connected.
        pub(crate) clients: u64,
        /// Its channel. It hangs if the agent does not answer.
        pub(crate) channel: UpstreamStatus,
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
        pub(crate) text: String,
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
