// SPDX-License-Identifier: MIT OR Apache-2.0
//! The entries of `query-qmp-schema`.

use std::collections::{HashMap, HashSet};

use super::introspection::{CommandResult, Entity};
use super::merge::MergedTypes;
use super::model::{Builtin, Case, Kind, Member, Model, TypeRef, Width};
use super::policy::Policy;
use super::schema_info::{
    MetaType, SchemaAlternateMember, SchemaEnumMember, SchemaInfo, SchemaJsonType, SchemaMember,
    SchemaVariant,
};
use super::types::EMPTY_NAME;

/// What types are called.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Naming {
    /// Numbers.
    Masked,
    /// As in Rust.
    Rust,
    /// As in a QAPI schema: in camel case, and integers by their width.
    Qapi,
}

pub(crate) fn write(entities: &[Entity], naming: Naming, policy: &Policy) -> Vec<SchemaInfo> {
    let mut types = MergedTypes::default();
    let mut imported = Vec::with_capacity(entities.len());
    for entity in entities {
        imported.push(ImportedEntity {
            entity,
            arguments: types.import(&entity.arguments),
            result: entity.result.as_ref().and_then(|result| types.import(&result.ty)),
        });
    }
    let writer = Writer {
        model: &types.model,
        policy,
        naming,
        uses: Vec::new(),
        used: HashSet::new(),
        names: HashMap::new(),
        reserved: entities.iter().map(|entity| entity.name.as_str()).chain(BUILTINS).collect(),
    };
    writer.write(&imported)
}

/// A command or an event, with its types in the common model.
struct ImportedEntity<'a> {
    entity: &'a Entity,
    arguments: Option<TypeRef>,
    result: Option<TypeRef>,
}

/// Names types as they are used, and describes them in that order.
struct Writer<'a> {
    model: &'a Model,
    policy: &'a Policy,
    naming: Naming,
    /// The types used so far. `None` is the empty object.
    uses: Vec<(String, Option<TypeRef>)>,
    /// The names of these.
    used: HashSet<String>,
    /// The names of definitions; `None` is the empty object.
    names: HashMap<Option<usize>, String>,
    /// The names of commands, events and builtin types, which no other type has.
    reserved: HashSet<&'a str>,
}

impl Writer<'_> {
    fn write(mut self, entities: &[ImportedEntity<'_>]) -> Vec<SchemaInfo> {
        let mut entries: Vec<SchemaInfo> = entities
            .iter()
            .filter(|imported| self.policy.describes(&imported.entity.features))
            .map(|imported| self.entity(imported))
            .collect();
        let mut next = 0;
        while next < self.uses.len() {
            let (name, ty) = self.uses[next].clone();
            entries.push(self.describe(name, ty.as_ref()));
            next += 1;
        }
        entries
    }

    fn entity(&mut self, imported: &ImportedEntity<'_>) -> SchemaInfo {
        let ImportedEntity { entity, arguments, result } = imported;
        let arg_type = self.use_root(arguments.as_ref());
        let meta = match &entity.result {
            Some(CommandResult { allow_oob, .. }) => MetaType::Command {
                arg_type,
                ret_type: self.use_root(result.as_ref()),
                allow_oob: *allow_oob,
            },
            None => MetaType::Event { arg_type },
        };
        SchemaInfo {
            name: entity.name.clone(),
            meta,
            features: entity.features.clone(),
            documentation: entity.documentation.clone(),
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
            TypeRef::Builtin(builtin) => self.builtin_name(builtin).to_owned(),
            TypeRef::Array(_) => unreachable!("handled above"),
        };
        if self.used.insert(name.clone()) {
            self.uses.push((name.clone(), Some(ty.clone())));
        }
        name
    }

    fn builtin_name(&self, builtin: &Builtin) -> &'static str {
        match builtin {
            Builtin::Int(integer) if self.naming == Naming::Qapi => match integer.width {
                Width::I8 => "int8",
                Width::I16 => "int16",
                Width::I32 => "int32",
                Width::U8 => "uint8",
                Width::U16 => "uint16",
                Width::U32 => "uint32",
                Width::U64 => "uint64",
                Width::I64 | Width::Any64 => "int",
            },
            builtin => builtin.name(),
        }
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
        let name = if self.naming != Naming::Masked {
            let base = index.map_or(EMPTY_NAME, |index| &self.model.definition(index).name);
            let base = match self.naming {
                Naming::Qapi if index.is_some() => camel(base),
                _ => base.to_owned(),
            };
            let taken = |name: &str| {
                self.reserved.contains(name) || self.names.values().any(|other| other == name)
            };
            let mut name = base.clone();
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
            TypeRef::Named(index) => self.model.definition(*index).kind.is_open_map(),
            TypeRef::Builtin(_) | TypeRef::Array(_) => false,
        }
    }

    fn describe(&mut self, name: String, ty: Option<&TypeRef>) -> SchemaInfo {
        let mut features = Vec::new();
        let mut documentation = None;
        let meta = match ty {
            None => MetaType::Object { members: Vec::new(), tag: None, variants: None },
            Some(TypeRef::Builtin(builtin)) => MetaType::Builtin { json_type: json_type(builtin) },
            Some(TypeRef::Array(element)) => {
                MetaType::Array { element_type: self.use_type(element) }
            }
            Some(TypeRef::Named(index)) => {
                let definition = self.model.definition(*index);
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
                let names = values.iter().map(|value| value.name.clone());
                MetaType::Enum { members: members.collect(), values: names.collect() }
            }
            Kind::Alternate(branches) => MetaType::Alternate {
                members: branches
                    .iter()
                    .map(|branch| SchemaAlternateMember { type_name: self.use_type(branch) })
                    .collect(),
            },
            Kind::Object(object) => MetaType::Object {
                members: object
                    .members
                    .iter()
                    .filter(|member| self.policy.describes(&member.features))
                    .map(|member| self.member(member))
                    .collect(),
                tag: object.union.as_ref().map(|union| object.members[union.tag].name.clone()),
                variants: object
                    .union
                    .as_ref()
                    .map(|union| union.cases.iter().map(|case| self.variant(case)).collect()),
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

/// The name of a type as QAPI allows it.
fn camel(name: &str) -> String {
    let mut camel = String::new();
    for word in name.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty()) {
        let (first, rest) = word.split_at(1);
        camel += &first.to_ascii_uppercase();
        camel += rest;
    }
    match camel.starts_with(|first: char| first.is_ascii_alphabetic()) {
        true => camel,
        false => format!("Q{camel}"),
    }
}

const BUILTINS: [&str; 6] = ["str", "int", "number", "bool", "null", "any"];

fn json_type(builtin: &Builtin) -> SchemaJsonType {
    match builtin {
        Builtin::Str(_) => SchemaJsonType::String,
        Builtin::Int(_) => SchemaJsonType::Int,
        Builtin::Number => SchemaJsonType::Number,
        Builtin::Bool => SchemaJsonType::Boolean,
        Builtin::Null => SchemaJsonType::Null,
        Builtin::Any => SchemaJsonType::Value,
    }
}
