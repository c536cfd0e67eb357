// SPDX-License-Identifier: MIT OR Apache-2.0
//! The result of `query-qmp-schema`, from the types of commands and events.

use std::collections::{HashMap, HashSet};

use super::model::{Builtin, Case, Definition, Kind, Member, Model, Object, TypeRef, Union};
use super::policy::Policy;
use super::schema_info::{MetaType, SchemaEnumMember, SchemaInfo, SchemaMember, SchemaVariant};
use super::types::{EMPTY_NAME, Type};

/// What introspection says about a command.
#[derive(Clone, Copy, Debug)]
pub struct CommandInfo<'a> {
    /// Its name.
    pub name: &'a str,
    /// The type of its arguments; see [`Arguments::as_type`](super::Arguments::as_type).
    pub arguments: &'a Type,
    /// The type of its result.
    pub result: &'a Type,
    /// Whether it can be executed out of band.
    pub allow_oob: bool,
    /// Its features, such as `deprecated`.
    pub features: &'a [String],
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
/// introspection.command(&CommandInfo {
///     name: "query-status",
///     arguments: Arguments::none().as_type(),
///     result: &type_of::<StatusInfo>()?,
///     allow_oob: false,
///     features: &[],
/// });
/// let schema = qmp_proto::Json::encode(&introspection.finish()).unwrap();
/// assert!(schema.as_str().starts_with(
///     r#"[{"name": "query-status", "ret-type": "1", "meta-type": "command", "arg-type": "0"}, "#
/// ));
/// # Ok::<(), qmp_dispatch::qapi::SchemaError>(())
/// ```
#[derive(Debug, Default)]
pub struct Introspection {
    entities: Vec<Entity>,
    /// The types of all entities, each once.
    model: Model,
    by_name: HashMap<String, Vec<usize>>,
    unmasked: bool,
    policy: Policy,
}

/// A command or an event.
#[derive(Debug)]
struct Entity {
    name: String,
    features: Vec<String>,
    arguments: Option<TypeRef>,
    /// Of a command.
    result: Option<CommandResult>,
}

#[derive(Debug)]
struct CommandResult {
    ty: Option<TypeRef>,
    allow_oob: bool,
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
        let arguments = self.import(command.arguments);
        let ty = self.import(command.result);
        self.entities.push(Entity {
            name: command.name.to_owned(),
            features: command.features.to_vec(),
            arguments,
            result: Some(CommandResult { ty, allow_oob: command.allow_oob }),
        });
        self
    }

    /// Adds an event. `data` should be an object ([`Type::is_object`]).
    pub fn event(&mut self, name: &str, data: &Type, features: &[String]) -> &mut Introspection {
        let arguments = self.import(data);
        self.entities.push(Entity {
            name: name.to_owned(),
            features: features.to_vec(),
            arguments,
            result: None,
        });
        self
    }

    /// The entries of `query-qmp-schema`.
    pub fn finish(&self) -> Vec<SchemaInfo> {
        Writer {
            introspection: self,
            uses: Vec::new(),
            used: HashSet::new(),
            names: HashMap::new(),
        }
        .write()
    }

    fn import(&mut self, ty: &Type) -> Option<TypeRef> {
        let mut import = Import { target: self, source: &ty.model, imported: HashMap::new() };
        Some(import.type_ref(ty.root.as_ref()?))
    }
}

/// Takes types over from another model.
struct Import<'a> {
    target: &'a mut Introspection,
    source: &'a Model,
    imported: HashMap<usize, usize>,
}

impl Import<'_> {
    fn type_ref(&mut self, ty: &TypeRef) -> TypeRef {
        match ty {
            TypeRef::Builtin(builtin) => TypeRef::Builtin(builtin.clone()),
            TypeRef::Array(element) => TypeRef::Array(Box::new(self.type_ref(element))),
            TypeRef::Named(index) => TypeRef::Named(self.definition(*index)),
        }
    }

    fn definition(&mut self, index: usize) -> usize {
        if let Some(&known) = self.imported.get(&index) {
            return known;
        }
        let source = self.source.definition(index);
        let candidates = self.target.by_name.get(&source.name).cloned().unwrap_or_default();
        for candidate in candidates {
            let mut pairs = self.imported.clone();
            if self.same(index, candidate, &mut pairs) {
                self.merge(&pairs);
                self.imported = pairs;
                return candidate;
            }
        }
        let definitions = &mut self.target.model.definitions;
        let new = definitions.len();
        definitions.push(Definition { kind: Kind::Enum(Vec::new()), ..source.clone() });
        self.target.by_name.entry(source.name.clone()).or_default().push(new);
        self.imported.insert(index, new);
        let kind = match &source.kind {
            Kind::Enum(values) => Kind::Enum(values.clone()),
            Kind::Object(object) => Kind::Object(self.object(object)),
            Kind::Alternate(branches) => {
                Kind::Alternate(branches.iter().map(|ty| self.type_ref(ty)).collect())
            }
        };
        self.target.model.definitions[new].kind = kind;
        new
    }

    fn object(&mut self, object: &Object) -> Object {
        let members = object
            .members
            .iter()
            .map(|member| Member { ty: self.type_ref(&member.ty), ..member.clone() })
            .collect();
        let union = object.union.as_ref().map(|union| Union {
            tag: union.tag,
            cases: union
                .cases
                .iter()
                .map(|case| Case {
                    value: case.value.clone(),
                    ty: case.ty.as_ref().map(|ty| self.type_ref(ty)),
                })
                .collect(),
        });
        Object { members, union, open: object.open }
    }

    /// Whether the types are the same but for documentation and which members are optional, given
    /// that those in `pairs` are.
    fn same(&self, source: usize, target: usize, pairs: &mut HashMap<usize, usize>) -> bool {
        if let Some(&known) = pairs.get(&source) {
            return known == target;
        }
        pairs.insert(source, target);
        let source = self.source.definition(source);
        let target = self.target.model.definition(target);
        if source.name != target.name || source.features != target.features {
            return false;
        }
        match (&source.kind, &target.kind) {
            // In any order: that of a tag is the order of the variants.
            (Kind::Enum(ours), Kind::Enum(theirs)) => {
                let theirs: HashSet<_> =
                    theirs.iter().map(|their| (&their.name, &their.features)).collect();
                ours.len() == theirs.len()
                    && ours.iter().all(|our| theirs.contains(&(&our.name, &our.features)))
            }
            (Kind::Alternate(ours), Kind::Alternate(theirs)) => {
                same_items(ours, theirs, |our, their| self.same_type(our, their, pairs))
            }
            (Kind::Object(ours), Kind::Object(theirs)) => {
                let cases = |object: &Object| {
                    let union = object.union.as_ref();
                    union.map(|union| union.cases.clone()).unwrap_or_default()
                };
                let tag = |object: &Object| object.union.as_ref().map(|union| union.tag);
                tag(ours) == tag(theirs)
                    && ours.open == theirs.open
                    && same_items(&ours.members, &theirs.members, |our, their| {
                        our.name == their.name
                            && our.features == their.features
                            && self.same_type(&our.ty, &their.ty, pairs)
                    })
                    && same_items(&cases(ours), &cases(theirs), |our, their| {
                        our.value == their.value
                            && match (&our.ty, &their.ty) {
                                (Some(our), Some(their)) => self.same_type(our, their, pairs),
                                (our, their) => our.is_none() && their.is_none(),
                            }
                    })
            }
            _ => false,
        }
    }

    fn same_type(&self, our: &TypeRef, their: &TypeRef, pairs: &mut HashMap<usize, usize>) -> bool {
        match (our, their) {
            (TypeRef::Builtin(our), TypeRef::Builtin(their)) => our.name() == their.name(),
            (TypeRef::Array(our), TypeRef::Array(their)) => self.same_type(our, their, pairs),
            (TypeRef::Named(our), TypeRef::Named(their)) => self.same(*our, *their, pairs),
            _ => false,
        }
    }

    /// Makes members optional that are so in one of two directions.
    fn merge(&mut self, pairs: &HashMap<usize, usize>) {
        for (&source, &target) in pairs {
            let source = &self.source.definition(source).kind;
            let target = &mut self.target.model.definitions[target].kind;
            if let (Kind::Object(source), Kind::Object(target)) = (source, target) {
                for (source, target) in source.members.iter().zip(&mut target.members) {
                    target.optional |= source.optional;
                }
            }
        }
    }
}

fn same_items<T>(ours: &[T], theirs: &[T], mut same: impl FnMut(&T, &T) -> bool) -> bool {
    ours.len() == theirs.len() && ours.iter().zip(theirs).all(|(our, their)| same(our, their))
}

/// Names types as they are used, and describes them in that order.
struct Writer<'a> {
    introspection: &'a Introspection,
    /// The types used so far. `None` is the empty object.
    uses: Vec<(String, Option<TypeRef>)>,
    /// The names of these.
    used: HashSet<String>,
    /// The names of definitions; `None` is the empty object.
    names: HashMap<Option<usize>, String>,
}

impl Writer<'_> {
    fn write(mut self) -> Vec<SchemaInfo> {
        let Introspection { entities, policy, .. } = self.introspection;
        let mut entries: Vec<SchemaInfo> = entities
            .iter()
            .filter(|entity| policy.describes(&entity.features))
            .map(|entity| self.entity(entity))
            .collect();
        let mut next = 0;
        while next < self.uses.len() {
            let (name, ty) = self.uses[next].clone();
            entries.push(self.describe(name, ty.as_ref()));
            next += 1;
        }
        entries
    }

    fn entity(&mut self, entity: &Entity) -> SchemaInfo {
        let arg_type = self.use_root(entity.arguments.as_ref());
        let meta = match &entity.result {
            Some(result) => MetaType::Command {
                arg_type,
                ret_type: self.use_root(result.ty.as_ref()),
                allow_oob: result.allow_oob,
            },
            None => MetaType::Event { arg_type },
        };
        SchemaInfo {
            name: entity.name.clone(),
            meta,
            features: entity.features.clone(),
            documentation: None,
        }
    }

    /// Arguments of any name are those of no declaration.
    fn use_root(&mut self, ty: Option<&TypeRef>) -> String {
        match ty {
            Some(ty) if !self.is_open_map(ty) => self.use_type(ty),
            _ => self.use_empty(),
        }
    }

    /// The name by which entries refer to this type.
    fn use_type(&mut self, ty: &TypeRef) -> String {
        // QAPI has no name for an object of any members.
        let ty = if self.is_open_map(ty) { &TypeRef::Builtin(Builtin::Any) } else { ty };
        if let TypeRef::Array(element) = ty {
            // The array comes before its element.
            let position = self.uses.len();
            let name = format!("[{}]", self.use_type(element));
            if self.used.insert(name.clone()) {
                self.uses.insert(position, (name.clone(), Some(ty.clone())));
            }
            return name;
        }
        let name = match ty {
            TypeRef::Named(index) => self.name(Some(*index)),
            TypeRef::Builtin(builtin) => builtin.name().to_owned(),
            TypeRef::Array(_) => unreachable!("handled above"),
        };
        if self.used.insert(name.clone()) {
            self.uses.push((name.clone(), Some(ty.clone())));
        }
        name
    }

    fn use_empty(&mut self) -> String {
        let name = self.name(None);
        if self.used.insert(name.clone()) {
            self.uses.push((name.clone(), None));
        }
        name
    }

    fn name(&mut self, index: Option<usize>) -> String {
        if let Some(name) = self.names.get(&index) {
            return name.clone();
        }
        let name = if self.introspection.unmasked {
            let model = &self.introspection.model;
            let base = index.map_or(EMPTY_NAME, |index| &model.definition(index).name);
            let taken = |name: &str| self.names.values().any(|other| other == name);
            let mut name = base.to_owned();
            let mut number = 2;
            while taken(&name) {
                name = format!("{base}{number}");
                number += 1;
            }
            name
        } else {
            self.names.len().to_string()
        };
        self.names.insert(index, name.clone());
        name
    }

    fn is_open_map(&self, ty: &TypeRef) -> bool {
        match ty {
            TypeRef::Named(index) => self.introspection.model.definition(*index).kind.is_open_map(),
            TypeRef::Builtin(_) | TypeRef::Array(_) => false,
        }
    }

    fn describe(&mut self, name: String, ty: Option<&TypeRef>) -> SchemaInfo {
        let mut features = Vec::new();
        let mut documentation = None;
        let meta = match ty {
            None => MetaType::Object { members: Vec::new(), union: None },
            Some(TypeRef::Builtin(builtin)) => MetaType::Builtin { json_type: json_type(builtin) },
            Some(TypeRef::Array(element)) => {
                MetaType::Array { element_type: self.use_type(element) }
            }
            Some(TypeRef::Named(index)) => {
                let definition = self.introspection.model.definition(*index);
                features.clone_from(&definition.features);
                documentation.clone_from(&definition.doc);
                self.kind(&definition.kind)
            }
        };
        SchemaInfo { name, meta, features, documentation }
    }

    fn kind(&mut self, kind: &Kind) -> MetaType {
        match kind {
            Kind::Enum(values) => {
                let members = values.iter().map(|value| SchemaEnumMember {
                    name: value.name.clone(),
                    features: value.features.clone(),
                    documentation: value.doc.clone(),
                });
                MetaType::Enum { members: members.collect() }
            }
            Kind::Alternate(branches) => MetaType::Alternate {
                members: branches.iter().map(|branch| self.use_type(branch)).collect(),
            },
            Kind::Object(object) => MetaType::Object {
                members: object
                    .members
                    .iter()
                    .filter(|member| self.introspection.policy.describes(&member.features))
                    .map(|member| self.member(member))
                    .collect(),
                union: object.union.as_ref().map(|union| {
                    let tag = object.members[union.tag].name.clone();
                    (tag, union.cases.iter().map(|case| self.variant(case)).collect())
                }),
            },
        }
    }

    fn member(&mut self, member: &Member) -> SchemaMember {
        SchemaMember {
            name: member.name.clone(),
            type_name: self.use_type(&member.ty),
            optional: member.optional,
            features: member.features.clone(),
            documentation: member.doc.clone(),
        }
    }

    fn variant(&mut self, case: &Case) -> SchemaVariant {
        let type_name = match &case.ty {
            Some(ty) => self.use_root(Some(ty)),
            None => self.use_empty(),
        };
        SchemaVariant { case: case.value.clone(), type_name }
    }
}

fn json_type(builtin: &Builtin) -> &'static str {
    match builtin {
        Builtin::Str => "string",
        Builtin::Int(_) => "int",
        Builtin::Number => "number",
        Builtin::Bool => "boolean",
        Builtin::Null => "null",
        Builtin::Any => "value",
    }
}
