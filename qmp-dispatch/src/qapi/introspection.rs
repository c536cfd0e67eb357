// SPDX-License-Identifier: MIT OR Apache-2.0
//! Descriptions of commands and events, from their types.

use qmp_proto::Json;

use super::entries::{self, Naming};
use super::policy::Policy;
use super::schema_info::SchemaInfo;
use super::text;
use super::types::{Arguments, Type};

/// The description of a command.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct CommandInfo<'a> {
    /// Its name.
    pub name: &'a str,
    /// The type of its arguments.
    pub arguments: &'a Arguments,
    /// The type of its result.
    pub result: &'a Type,
    /// Whether it can be executed out of band.
    pub allow_oob: bool,
    /// Whether it can be executed before the machine is set up. Only [`to_qapi`](Introspection::to_qapi) shows it.
    pub allow_preconfig: bool,
    /// Whether a success is answered. Only [`to_qapi`](Introspection::to_qapi) shows it.
    pub success_response: bool,
    /// Its features, such as `deprecated`.
    pub features: &'a [String],
    /// Its documentation.
    pub documentation: Option<&'a str>,
}

impl<'a> CommandInfo<'a> {
    /// Describes a command that cannot be executed out of band, without features and documentation.
    pub fn new(name: &'a str, arguments: &'a Arguments, result: &'a Type) -> CommandInfo<'a> {
        CommandInfo {
            name,
            arguments,
            result,
            allow_oob: false,
            allow_preconfig: false,
            success_response: true,
            features: &[],
            documentation: None,
        }
    }
}

/// The description of an event.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct EventInfo<'a> {
    /// Its name.
    pub name: &'a str,
    /// The type of its data; should be an object ([`Type::is_object`]).
    pub data: &'a Type,
    /// Its features, such as `deprecated`.
    pub features: &'a [String],
    /// Its documentation.
    pub documentation: Option<&'a str>,
}

impl<'a> EventInfo<'a> {
    /// Describes an event without features and documentation.
    pub fn new(name: &'a str, data: &'a Type) -> EventInfo<'a> {
        EventInfo { name, data, features: &[], documentation: None }
    }
}

/// Collects commands and events and describes them as `query-qmp-schema` does.
///
/// Commands and events come first, in the order in which they were added; then the types that they
/// use, in the order of first use, then those that these use, and so on. Types of the same name and
/// the same shape are one, whichever Rust types they come from; if one of them makes a member
/// optional, it is. Names of types are masked, as clients must not depend on them: decimal numbers
/// in the order of first use.
#[derive(Debug, Default)]
pub struct Introspection {
    entities: Vec<Entity>,
    unmasked: bool,
    policy: Policy,
}

/// A command or an event.
#[derive(Debug)]
pub(crate) struct Entity {
    pub(crate) name: String,
    pub(crate) documentation: Option<String>,
    pub(crate) features: Vec<String>,
    /// The arguments of a command, or the data of an event.
    pub(crate) arguments: Type,
    /// `None` for an event.
    pub(crate) result: Option<CommandResult>,
}

#[derive(Debug)]
pub(crate) struct CommandResult {
    pub(crate) ty: Type,
    pub(crate) allow_oob: bool,
    pub(crate) allow_preconfig: bool,
    pub(crate) success_response: bool,
}

impl Introspection {
    /// Creates an empty introspection, with masked names.
    pub fn new() -> Introspection {
        Introspection::default()
    }

    /// Sets whether types are called by the names of the Rust types, for people and generators. A number is added if
    /// two different types have the same name. By default, names are masked.
    pub fn unmasked(&mut self, unmasked: bool) -> &mut Introspection {
        self.unmasked = unmasked;
        self
    }

    /// Sets a policy whose hidden entities are left out. By default, nothing is left out.
    ///
    /// As in QEMU, these are deprecated commands, events and members, but neither values of enums nor anything
    /// unstable.
    pub fn policy(&mut self, policy: Policy) -> &mut Introspection {
        self.policy = policy;
        self
    }

    /// Adds a command.
    pub fn command(&mut self, command: &CommandInfo<'_>) -> &mut Introspection {
        self.entities.push(Entity {
            name: command.name.to_owned(),
            documentation: command.documentation.map(str::to_owned),
            features: command.features.to_vec(),
            arguments: command.arguments.as_type().clone(),
            result: Some(CommandResult {
                ty: command.result.clone(),
                allow_oob: command.allow_oob,
                allow_preconfig: command.allow_preconfig,
                success_response: command.success_response,
            }),
        });
        self
    }

    /// Adds an event.
    pub fn event(&mut self, event: &EventInfo<'_>) -> &mut Introspection {
        self.entities.push(Entity {
            name: event.name.to_owned(),
            documentation: event.documentation.map(str::to_owned),
            features: event.features.to_vec(),
            arguments: event.data.clone(),
            result: None,
        });
        self
    }

    /// Returns the entries of `query-qmp-schema`.
    pub fn finish(&self) -> Vec<SchemaInfo> {
        let naming = if self.unmasked { Naming::Rust } else { Naming::Masked };
        entries::write(&self.entities, naming, &self.policy)
    }

    /// Returns the QAPI schema as text, as QEMU's source has it: with doc comments, features, and the widths of integers, for
    /// people and for generators. Names are those of the Rust types, in QAPI's form. An object that accepts any members
    /// becomes `any`, and an array of arrays stays one, although QAPI does not have them.
    ///
    /// ```
    /// use qmp_dispatch::{Context, Registry, proto::Error, qapi_types};
    ///
    /// qapi_types! {
    ///     struct SetSpeed {
    ///         /// In bytes per second.
    ///         speed: u32,
    ///         node_name: Option<String>,
    ///     }
    /// }
    ///
    /// let mut registry = Registry::new();
    /// registry.command("x-set-speed", |_: &Context, _: SetSpeed| Ok::<_, Error>(()))?.allow_oob();
    /// let qapi = registry.introspection().to_qapi();
    /// assert!(qapi.contains("{ 'command': 'x-set-speed', 'data': 'SetSpeed', 'allow-oob': true }\n"));
    /// assert!(qapi.contains("\n# @speed: In bytes per second.\n##\n{ 'struct': 'SetSpeed',\n"));
    /// assert!(qapi.contains("\n  'data': { 'speed': 'uint32', '*node-name': 'str' } }\n"));
    /// # Ok::<(), qmp_dispatch::RegisterError>(())
    /// ```
    pub fn to_qapi(&self) -> String {
        text::write(&entries::write(&self.entities, Naming::Qapi, &self.policy), &self.entities)
    }

    /// Returns the result of `query-qmp-schema`, with members in QEMU's order.
    pub fn to_json(&self) -> Json {
        let entries = Json::encode(&self.finish()).expect("the schema consists of text");
        Json::from(&entries.to_value())
    }
}
