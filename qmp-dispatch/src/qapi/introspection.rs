// SPDX-License-Identifier: MIT OR Apache-2.0
//! Descriptions of commands and events, from their types.

use qmp_proto::Json;

use super::entries;
use super::policy::Policy;
use super::schema_info::SchemaInfo;
use super::types::{Arguments, Type};

/// What introspection says about a command.
///
/// ```
/// use qmp_dispatch::qapi::{Arguments, CommandInfo, Introspection, Type};
///
/// let (arguments, result) = (Arguments::none(), Type::empty());
/// let mut info = CommandInfo::new("yank", &arguments, &result);
/// info.allow_oob = true;
/// let entries = Introspection::new().command(&info).finish();
/// assert_eq!(entries[0].name, "yank");
/// ```
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
    /// Its features, such as `deprecated`.
    pub features: &'a [String],
    /// What people are told about it.
    pub documentation: Option<&'a str>,
}

impl<'a> CommandInfo<'a> {
    /// A command that cannot be executed out of band, and of which there is no more to say.
    pub fn new(name: &'a str, arguments: &'a Arguments, result: &'a Type) -> CommandInfo<'a> {
        CommandInfo {
            name,
            arguments,
            result,
            allow_oob: false,
            features: &[],
            documentation: None,
        }
    }
}

/// What introspection says about an event.
///
/// ```
/// use qmp_dispatch::qapi::{EventInfo, Introspection, Type};
///
/// let data = Type::empty();
/// let mut info = EventInfo::new("STOP", &data);
/// let features = ["deprecated".to_owned()];
/// info.features = &features;
/// assert_eq!(Introspection::new().event(&info).finish()[0].features, features);
/// ```
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct EventInfo<'a> {
    /// Its name.
    pub name: &'a str,
    /// The type of its data; should be an object ([`Type::is_object`]).
    pub data: &'a Type,
    /// Its features, such as `deprecated`.
    pub features: &'a [String],
    /// What people are told about it.
    pub documentation: Option<&'a str>,
}

impl<'a> EventInfo<'a> {
    /// An event of which there is no more to say.
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
///
/// ```
/// use qmp_dispatch::qapi::{Arguments, CommandInfo, Introspection, type_of};
///
/// #[derive(schemars::JsonSchema)]
/// struct StatusInfo {
///     running: bool,
/// }
///
/// let mut introspection = Introspection::new();
/// let status = type_of::<StatusInfo>()?;
/// introspection.command(&CommandInfo::new("query-status", &Arguments::none(), &status));
/// assert!(introspection.to_json().as_str().starts_with(
///     r#"[{"name": "query-status", "ret-type": "1", "meta-type": "command", "arg-type": "0"}, "#
/// ));
/// # Ok::<(), qmp_dispatch::qapi::SchemaError>(())
/// ```
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
    /// Of an event, its data.
    pub(crate) arguments: Type,
    /// Of a command.
    pub(crate) result: Option<CommandResult>,
}

#[derive(Debug)]
pub(crate) struct CommandResult {
    pub(crate) ty: Type,
    pub(crate) allow_oob: bool,
}

impl Introspection {
    /// Nothing yet, with masked names.
    pub fn new() -> Introspection {
        Introspection::default()
    }

    /// Whether types keep their names: those of the Rust types, a number added where two of
    /// different shape have the same. For people and generators. By default, names are masked.
    pub fn unmasked(&mut self, unmasked: bool) -> &mut Introspection {
        self.unmasked = unmasked;
        self
    }

    /// Leaves out what a policy hides. By default, nothing is.
    ///
    /// As in QEMU, that is what is deprecated, commands, events and members, but neither values of
    /// enums nor what is unstable. Clients can still be told the names of all commands.
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

    /// The entries of `query-qmp-schema`.
    pub fn finish(&self) -> Vec<SchemaInfo> {
        entries::write(&self.entities, self.unmasked, &self.policy)
    }

    /// The result of `query-qmp-schema`: the entries, their members in QEMU's order.
    pub fn to_json(&self) -> Json {
        let entries = Json::encode(&self.finish()).expect("the schema consists of text");
        Json::from(&entries.to_value())
    }
}
