// SPDX-License-Identifier: MIT OR Apache-2.0
//! The result of `query-qmp-schema`, read.

use std::collections::HashMap;

use qmp_proto::{Object, Value};

use crate::Error;

/// The index of a type among [`Schema::types`].
pub(crate) type Id = usize;

#[derive(Debug, Default)]
pub(crate) struct Schema {
    pub(crate) types: Vec<Type>,
    pub(crate) commands: Vec<Command>,
    pub(crate) events: Vec<Event>,
}

#[derive(Debug)]
pub(crate) struct Type {
    /// As the schema calls it: a number if it is masked, as QEMU's are.
    pub(crate) name: String,
    pub(crate) kind: Kind,
    pub(crate) features: Vec<String>,
}

#[derive(Debug)]
pub(crate) enum Kind {
    Builtin(Builtin),
    Enum(Vec<EnumValue>),
    Array(Id),
    Object(Members),
    /// The types of the branches.
    Alternate(Vec<Id>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Builtin {
    Str,
    Int,
    Number,
    Bool,
    Null,
    Any,
}

#[derive(Debug)]
pub(crate) struct EnumValue {
    pub(crate) name: String,
    pub(crate) features: Vec<String>,
}

/// The members of a struct, or of a union if there is a tag.
#[derive(Debug)]
pub(crate) struct Members {
    pub(crate) members: Vec<Member>,
    pub(crate) tag: Option<Tag>,
}

#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) name: String,
    pub(crate) ty: Id,
    pub(crate) optional: bool,
    pub(crate) features: Vec<String>,
}

#[derive(Debug)]
pub(crate) struct Tag {
    /// The index of the tag among the members.
    pub(crate) member: usize,
    pub(crate) cases: Vec<Case>,
}

#[derive(Debug)]
pub(crate) struct Case {
    pub(crate) value: String,
    pub(crate) ty: Id,
}

#[derive(Debug)]
pub(crate) struct Command {
    pub(crate) name: String,
    pub(crate) arguments: Id,
    pub(crate) result: Id,
    pub(crate) features: Vec<String>,
    pub(crate) allow_oob: bool,
}

#[derive(Debug)]
pub(crate) struct Event {
    pub(crate) name: String,
    pub(crate) data: Id,
    pub(crate) features: Vec<String>,
}

impl Schema {
    /// Reads the result, as an array, a response that has it, or one entry after the other.
    pub(crate) fn parse(text: &str) -> Result<Schema, Error> {
        Schema::of(&entries(text)?)
    }

    fn of(entries: &[Value]) -> Result<Schema, Error> {
        let is_entity =
            |entry: &&Value| matches!(text(entry, "meta-type"), Ok("command" | "event"));
        let types: Vec<&Value> = entries.iter().filter(|entry| !is_entity(entry)).collect();
        let mut ids = HashMap::with_capacity(types.len());
        for (id, entry) in types.iter().enumerate() {
            ids.insert(text(entry, "name")?, id);
        }
        let reader = Reader { ids };
        let mut schema = Schema {
            types: types.into_iter().map(|entry| reader.ty(entry)).collect::<Result<_, _>>()?,
            ..Schema::default()
        };
        for entry in entries.iter().filter(is_entity) {
            let name = text(entry, "name")?.to_owned();
            let features = features(entry)?;
            match text(entry, "meta-type")? {
                "command" => schema.commands.push(Command {
                    name,
                    arguments: reader.id(entry, "arg-type")?,
                    result: reader.id(entry, "ret-type")?,
                    features,
                    allow_oob: entry.get("allow-oob").and_then(Value::as_bool) == Some(true),
                }),
                _ => schema.events.push(Event {
                    name,
                    data: reader.id(entry, "arg-type")?,
                    features,
                }),
            }
        }
        schema.check()?;
        Ok(schema)
    }

    /// Checks what the generator relies on.
    fn check(&self) -> Result<(), Error> {
        for ty in &self.types {
            let Kind::Object(Members { members, tag: Some(tag) }) = &ty.kind else { continue };
            let is_enum = matches!(self.types[members[tag.member].ty].kind, Kind::Enum(_));
            let are_objects =
                tag.cases.iter().all(|case| matches!(self.types[case.ty].kind, Kind::Object(_)));
            if !is_enum || !are_objects {
                return Err(Error::Schema(format!("'{}' is not a union of objects", ty.name)));
            }
        }
        Ok(())
    }

    pub(crate) fn members(&self, id: Id) -> Option<&Members> {
        match &self.types[id].kind {
            Kind::Object(members) => Some(members),
            _ => None,
        }
    }

    /// Whether this is the object of no members that stands for no arguments, no result and no data.
    pub(crate) fn is_empty(&self, id: Id) -> bool {
        self.members(id).is_some_and(|object| object.members.is_empty())
    }
}

fn entries(text: &str) -> Result<Vec<Value>, Error> {
    let mut values = crate::qapi::values(text)?;
    if let [Value::Array(_)] = values[..]
        && let Some(Value::Array(entries)) = values.pop()
    {
        return Ok(entries);
    }
    let result = values.iter().find_map(|value| value.get("return")?.as_array());
    Ok(result.map(<[Value]>::to_vec).unwrap_or(values))
}

/// Reads entries whose types are known by name.
struct Reader<'e> {
    ids: HashMap<&'e str, Id>,
}

impl Reader<'_> {
    fn id(&self, entry: &Value, key: &str) -> Result<Id, Error> {
        let name = text(entry, key)?;
        self.ids
            .get(name)
            .copied()
            .ok_or_else(|| Error::Schema(format!("no type is called '{name}'")))
    }

    fn ty(&self, entry: &Value) -> Result<Type, Error> {
        let unknown = |what: &str| Error::Schema(format!("what is {what} in {entry}?"));
        let kind = match text(entry, "meta-type")? {
            "builtin" => Kind::Builtin(match text(entry, "json-type")? {
                "string" => Builtin::Str,
                "int" => Builtin::Int,
                "number" => Builtin::Number,
                "boolean" => Builtin::Bool,
                "null" => Builtin::Null,
                "value" => Builtin::Any,
                other => return Err(unknown(other)),
            }),
            "enum" => Kind::Enum(match entry.get("members") {
                Some(_) => items(entry, "members", |value| {
                    Ok(EnumValue {
                        name: text(value, "name")?.to_owned(),
                        features: features(value)?,
                    })
                })?,
                // QEMU before 6.2 has their names alone.
                None => items(entry, "values", |value| {
                    let name = value.as_str().ok_or_else(|| unknown("a value"))?.to_owned();
                    Ok(EnumValue { name, features: Vec::new() })
                })?,
            }),
            "array" => Kind::Array(self.id(entry, "element-type")?),
            "alternate" => {
                Kind::Alternate(items(entry, "members", |branch| self.id(branch, "type"))?)
            }
            "object" => Kind::Object(self.object(entry)?),
            other => return Err(unknown(other)),
        };
        Ok(Type { name: text(entry, "name")?.to_owned(), kind, features: features(entry)? })
    }

    fn object(&self, entry: &Value) -> Result<Members, Error> {
        let members = items(entry, "members", |member| {
            Ok(Member {
                name: text(member, "name")?.to_owned(),
                ty: self.id(member, "type")?,
                optional: member.as_object().is_some_and(|member| member.contains("default")),
                features: features(member)?,
            })
        })?;
        let Some(name) = entry.get("tag").and_then(Value::as_str) else {
            return Ok(Members { members, tag: None });
        };
        let member = members.iter().position(|member| member.name == name);
        let member =
            member.ok_or_else(|| Error::Schema(format!("no member is the tag '{name}'")))?;
        let cases = items(entry, "variants", |case| {
            Ok(Case { value: text(case, "case")?.to_owned(), ty: self.id(case, "type")? })
        })?;
        Ok(Members { members, tag: Some(Tag { member, cases }) })
    }
}

fn text<'e>(entry: &'e Value, key: &str) -> Result<&'e str, Error> {
    let text = entry.as_object().and_then(|entry: &Object| entry.get(key)?.as_str());
    text.ok_or_else(|| {
        Error::Schema(format!("an entry of query-qmp-schema has no '{key}': {entry}"))
    })
}

fn features(entry: &Value) -> Result<Vec<String>, Error> {
    match entry.get("features") {
        None => Ok(Vec::new()),
        Some(_) => items(entry, "features", |feature| {
            let name =
                feature.as_str().ok_or_else(|| Error::Schema("a feature is no text".into()))?;
            Ok(name.to_owned())
        }),
    }
}

fn items<T>(
    entry: &Value,
    key: &str,
    item: impl Fn(&Value) -> Result<T, Error>,
) -> Result<Vec<T>, Error> {
    let array = entry.get(key).and_then(Value::as_array);
    let array = array.ok_or_else(|| Error::Schema(format!("no array '{key}' in {entry}")))?;
    array.iter().map(item).collect()
}
