// SPDX-License-Identifier: MIT OR Apache-2.0
//! Commands and events as JSON Schema.

use std::collections::HashSet;

use schemars::Schema;
use serde_json::{Map, Value, json};

use super::introspection::Entity;
use super::merge::{MergedTypes, Sameness};
use super::model::{
    Builtin, Definition, EnumValue, Integer, Kind, Length, Member, Model, Object, TypeRef,
};
use super::policy::Policy;

pub(crate) fn write(entities: &[Entity], policy: &Policy) -> Schema {
    let mut types = MergedTypes::new(Sameness::Exact);
    let shown = entities.iter().filter(|entity| policy.describes(&entity.features));
    let shown: Vec<_> = shown
        .map(|entity| {
            let arguments = types.import(&entity.arguments);
            let result = entity.result.as_ref().map(|result| types.import(&result.ty));
            (entity, arguments, result)
        })
        .collect();
    let mut writer = Writer::new(&types.model, policy);
    let (mut commands, mut events) = (Map::new(), Map::new());
    for (entity, arguments, result) in shown {
        let mut about = annotations(entity.documentation.as_deref(), &entity.features);
        let arguments = writer.root(arguments.as_ref());
        match (&entity.result, result) {
            (Some(command), Some(result)) => {
                if command.allow_oob {
                    about.insert("allow-oob".to_owned(), true.into());
                }
                about.insert("arguments".to_owned(), arguments.into());
                about.insert("result".to_owned(), writer.root(result.as_ref()).into());
                commands.insert(entity.name.clone(), about.into());
            }
            _ => {
                about.insert("data".to_owned(), arguments.into());
                events.insert(entity.name.clone(), about.into());
            }
        }
    }
    let mut document = Map::new();
    document.insert("$schema".to_owned(), "https://json-schema.org/draft/2020-12/schema".into());
    document.insert("commands".to_owned(), commands.into());
    document.insert("events".to_owned(), events.into());
    document.insert("$defs".to_owned(), writer.definitions().into());
    document.into()
}

type Keywords = Map<String, Value>;

struct Writer<'a> {
    model: &'a Model,
    policy: &'a Policy,
    /// Of all definitions, no two alike.
    names: Vec<String>,
    /// Those that something refers to, in the order of first use.
    used: Vec<usize>,
}

impl<'a> Writer<'a> {
    fn new(model: &'a Model, policy: &'a Policy) -> Writer<'a> {
        let mut taken = HashSet::new();
        let mut names: Vec<String> = Vec::with_capacity(model.definitions.len());
        for Definition { name, .. } in &model.definitions {
            let mut unique = name.clone();
            let mut number = 2;
            while !taken.insert(unique.clone()) {
                unique = format!("{name}{number}");
                number += 1;
            }
            names.push(unique);
        }
        Writer { model, policy, names, used: Vec::new() }
    }

    /// Describes what is referred to, and what that refers to.
    fn definitions(mut self) -> Keywords {
        let mut definitions = Map::new();
        let mut next = 0;
        while let Some(&index) = self.used.get(next) {
            let definition = self.definition(index);
            definitions.insert(self.names[index].clone(), definition.into());
            next += 1;
        }
        definitions
    }

    fn root(&mut self, ty: Option<&TypeRef>) -> Keywords {
        match ty {
            Some(ty) => self.type_ref(ty),
            None => self.object(&Object::default(), &[]),
        }
    }

    fn type_ref(&mut self, ty: &TypeRef) -> Keywords {
        match ty {
            TypeRef::Builtin(builtin) => keywords(self::builtin(builtin)),
            TypeRef::Array(element) => {
                keywords(json!({"type": "array", "items": self.type_ref(element)}))
            }
            TypeRef::Named(index) => {
                if !self.used.contains(index) {
                    self.used.push(*index);
                }
                // As in JSON pointers, which references are.
                let name = self.names[*index].replace('~', "~0").replace('/', "~1");
                keywords(json!({"$ref": format!("#/$defs/{name}")}))
            }
        }
    }

    fn definition(&mut self, index: usize) -> Keywords {
        let Definition { doc, features, kind, .. } = self.model.definition(index);
        let mut schema = annotations(doc.as_deref(), features);
        schema.extend(match kind {
            Kind::Enum(values) => enumeration(values),
            Kind::Object(object) => self.object(object, &[]),
            Kind::Alternate(branches) => {
                let branches = branches.iter().map(|branch| self.type_ref(branch).into());
                keywords(json!({"anyOf": Value::Array(branches.collect())}))
            }
        });
        schema
    }

    /// A union is one of its cases, each with all members: what a member can be, and which ones
    /// there are, depends on the tag.
    fn object(&mut self, object: &Object, outer: &[Settled<'_>]) -> Keywords {
        let Some(union) = &object.union else { return self.structure(object, outer) };
        let mut schemas = Vec::new();
        for case in &union.cases {
            let tag = Some((&object.members[union.tag], case.value.as_str()));
            let settled = Settled { members: &object.members, tag, open: object.open };
            let settled: Vec<_> = outer.iter().copied().chain([settled]).collect();
            schemas.push(match &case.ty {
                Some(TypeRef::Named(index)) => {
                    let branch = self.model.definition(*index);
                    let mut schema = keywords(json!({"title": branch.name}));
                    schema.extend(annotations(branch.doc.as_deref(), &branch.features));
                    if let Kind::Object(branch) = &branch.kind {
                        schema.extend(self.object(branch, &settled));
                    }
                    schema
                }
                _ => self.structure(&Object::default(), &settled),
            });
        }
        keywords(json!({"oneOf": schemas}))
    }

    fn structure(&mut self, object: &Object, outer: &[Settled<'_>]) -> Keywords {
        let own = Settled { members: &object.members, tag: None, open: object.open };
        let (mut properties, mut required) = (Map::new(), Vec::new());
        let mut open = false;
        for settled in outer.iter().chain([&own]) {
            open |= settled.open;
            let members = settled.members.iter();
            for member in members.filter(|member| self.policy.describes(&member.features)) {
                let mut schema = annotations(member.doc.as_deref(), &member.features);
                schema.extend(match settled.tag {
                    Some((tag, value)) if tag.name == member.name => {
                        keywords(json!({"type": "string", "const": value}))
                    }
                    _ => self.type_ref(&member.ty),
                });
                properties.insert(member.name.clone(), schema.into());
                if !member.optional {
                    required.push(member.name.as_str());
                }
            }
        }
        keywords(json!({
            "type": "object",
            "properties": properties,
            "required": required,
            "additionalProperties": open,
        }))
    }
}

/// Members that a case of a union has from further out.
#[derive(Clone, Copy)]
struct Settled<'a> {
    members: &'a [Member],
    /// Which of them is the tag, and its value.
    tag: Option<(&'a Member, &'a str)>,
    open: bool,
}

fn builtin(builtin: &Builtin) -> Value {
    match builtin {
        Builtin::Str(Length { min, max }) => {
            let mut schema = json!({"type": "string"});
            if *min != Length::ANY.min {
                schema["minLength"] = (*min).into();
            }
            if *max != Length::ANY.max {
                schema["maxLength"] = (*max).into();
            }
            schema
        }
        Builtin::Int(Integer { width, bounds, nonzero }) => {
            let range = bounds.clone().unwrap_or(width.range());
            let format = width.c_name().trim_end_matches("_t");
            let mut schema = json!({
                "type": "integer",
                "format": format,
                "minimum": bound(*range.start()),
                "maximum": bound(*range.end()),
            });
            if *nonzero {
                schema["not"] = json!({"const": 0});
            }
            schema
        }
        Builtin::Number => json!({"type": "number"}),
        Builtin::Bool => json!({"type": "boolean"}),
        Builtin::Null => json!({"type": "null"}),
        Builtin::Any => json!({}),
    }
}

/// Of integers of at most 64 bits.
fn bound(bound: i128) -> Value {
    match i64::try_from(bound) {
        Ok(bound) => bound.into(),
        Err(_) => u64::try_from(bound).unwrap_or(u64::MAX).into(),
    }
}

fn enumeration(values: &[EnumValue]) -> Keywords {
    let is_plain = |value: &EnumValue| value.doc.is_none() && value.features.is_empty();
    if values.iter().all(is_plain) {
        let names: Vec<&str> = values.iter().map(|value| value.name.as_str()).collect();
        return keywords(json!({"type": "string", "enum": names}));
    }
    let values = values.iter().map(|value| {
        let mut schema = annotations(value.doc.as_deref(), &value.features);
        schema.insert("const".to_owned(), value.name.as_str().into());
        Value::from(schema)
    });
    keywords(json!({"type": "string", "oneOf": values.collect::<Vec<_>>()}))
}

fn annotations(doc: Option<&str>, features: &[String]) -> Keywords {
    let mut keywords = Map::new();
    if let Some(doc) = doc {
        keywords.insert("description".to_owned(), doc.into());
    }
    if features.iter().any(|feature| feature == "deprecated") {
        keywords.insert("deprecated".to_owned(), true.into());
    }
    if !features.is_empty() {
        keywords.insert("x-qapi-features".to_owned(), features.into());
    }
    keywords
}

fn keywords(value: Value) -> Keywords {
    match value {
        Value::Object(keywords) => keywords,
        _ => Map::new(),
    }
}
