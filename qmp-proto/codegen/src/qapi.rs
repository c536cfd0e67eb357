// SPDX-License-Identifier: MIT OR Apache-2.0
//! QAPI schemas as QEMU's source has them: what introspection leaves out is taken from there.

use std::collections::{HashMap, HashSet};

use qmp_proto::{Object, Reader, Value};

use crate::Error;
use crate::schema::{Builtin, Id, Kind, Schema};

/// What a QAPI schema says beyond introspection.
#[derive(Debug, Default)]
pub(crate) struct Known {
    /// Names of types.
    pub(crate) names: HashMap<Id, String>,
    /// The integer types of members, by object and name, of branches of alternates, by their position, and of results, by
    /// command.
    pub(crate) integers: HashMap<(Place, String), &'static str>,
    /// The names of the branches of alternates.
    pub(crate) branches: HashMap<Id, Vec<String>>,
    /// Arguments that may have members which the schema does not list.
    pub(crate) open: HashSet<Id>,
}

/// What has a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Place {
    Type(Id),
    Result,
}

/// Returns the values in a text of QEMU's JSON, of which a line ends where a comment begins.
pub(crate) fn values(text: &str) -> Result<Vec<Value>, Error> {
    let text = without_comments(text);
    let mut reader = Reader::default();
    let mut input = text.as_bytes();
    let mut values = Vec::new();
    while let Some(message) = reader.read(&mut input) {
        values.push(message.and_then(|message| message.to_value())?);
    }
    if reader.is_idle() {
        Ok(values)
    } else {
        Err(Error::Schema("the text ends within a value".into()))
    }
}

fn without_comments(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for line in text.lines() {
        let mut quote = None;
        let mut escaped = false;
        let end = line.char_indices().find(|&(_, c)| {
            match quote {
                None if matches!(c, '"' | '\'') => quote = Some(c),
                Some(open) if c == open && !escaped => quote = None,
                _ => {}
            }
            escaped = c == '\\' && !escaped;
            quote.is_none() && c == '#'
        });
        plain += end.map_or(line, |(end, _)| &line[..end]);
        plain.push('\n');
    }
    plain
}

impl Known {
    /// Finds the definitions of a schema's types, from its commands and events, which have the same names everywhere.
    pub(crate) fn find(schema: &Schema, texts: &[String]) -> Result<Known, Error> {
        let mut expressions = Vec::new();
        for text in texts {
            expressions.extend(values(text)?);
        }
        let mut definitions = HashMap::new();
        for expression in expressions.iter().filter_map(Value::as_object) {
            for kind in ["command", "event", "struct", "union", "alternate", "enum"] {
                if let Some(name) = expression.get(kind).and_then(Value::as_str) {
                    definitions.insert(name, expression);
                }
            }
        }
        let mut finder =
            Finder { schema, definitions, known: Known::default(), visited: HashSet::new() };
        for command in &schema.commands {
            // Takes the properties of the device. Introspection does not say so, and every client needs them.
            if command.name == "device_add" {
                finder.known.open.insert(command.arguments);
            }
            let Some(definition) = finder.definition(&command.name, "command") else { continue };
            if let Some(data) = definition.get("data") {
                finder.root(command.arguments, data);
            }
            if definition.get("gen").and_then(Value::as_bool) == Some(false) {
                finder.known.open.insert(command.arguments);
            }
            if let Some(result) = definition.get("returns") {
                finder.ty(command.result, result);
                finder.integer(Place::Result, &command.name, result);
            }
        }
        for event in &schema.events {
            let definition = finder.definition(&event.name, "event");
            if let Some(data) = definition.and_then(|definition| definition.get("data")) {
                finder.root(event.data, data);
            }
        }
        Ok(finder.known)
    }
}

struct Finder<'s> {
    schema: &'s Schema,
    definitions: HashMap<&'s str, &'s Object>,
    known: Known,
    visited: HashSet<Id>,
}

impl<'s> Finder<'s> {
    fn definition(&self, name: &str, kind: &str) -> Option<&'s Object> {
        self.definitions.get(name).copied().filter(|definition| definition.contains(kind))
    }

    /// Pairs arguments or data with a name or the members themselves.
    fn root(&mut self, id: Id, said: &'s Value) {
        match said {
            Value::Object(members) => self.object(id, &[members]),
            said => self.ty(id, said),
        }
    }

    /// Pairs a type with what a QAPI schema says of it: a name, or an array of one.
    fn ty(&mut self, id: Id, said: &'s Value) {
        match (&self.schema.types[id].kind, plain(said)) {
            (Kind::Array(element), Value::Array(said)) => {
                if let [said] = said.as_slice() {
                    self.ty(*element, said);
                }
            }
            (Kind::Builtin(_) | Kind::Array(_), _) => {}
            (_, Value::String(name)) => self.named(id, name),
            _ => {}
        }
    }

    fn named(&mut self, id: Id, name: &str) {
        let kind = match &self.schema.types[id].kind {
            Kind::Enum(_) => "enum",
            Kind::Alternate(_) => "alternate",
            Kind::Object(object) if object.tag.is_some() => "union",
            _ => "struct",
        };
        let Some(definition) = self.definition(name, kind) else { return };
        if !self.visited.insert(id) {
            return;
        }
        self.known.names.insert(id, name.to_owned());
        match &self.schema.types[id].kind {
            Kind::Object(_) => {
                let members = self.layers(definition);
                self.object(id, &members);
                self.cases(id, definition);
            }
            Kind::Alternate(branches) => {
                let Some(data) = definition.get("data").and_then(Value::as_object) else { return };
                // Branches that a server is built without are missing, so the order alone does not tell.
                let mut rest: Vec<_> = data.iter().collect();
                let mut names = Vec::new();
                for &branch in branches {
                    let found = rest.iter().position(|(_, said)| self.fits(branch, said));
                    let Some(found) = found else { return };
                    let (name, said) = rest.remove(found);
                    names.push(name.to_owned());
                    self.integer(Place::Type(id), name, said);
                    self.ty(branch, said);
                }
                self.known.branches.insert(id, names);
            }
            _ => {}
        }
    }

    /// Whether a branch of an alternate can be this: no two of them have the same JSON type.
    fn fits(&self, id: Id, said: &Value) -> bool {
        let name = plain(said).as_str();
        match &self.schema.types[id].kind {
            Kind::Builtin(Builtin::Int) => name.is_some_and(|name| rust_integer(name).is_some()),
            Kind::Builtin(builtin) => {
                name == Some(match builtin {
                    Builtin::Str => "str",
                    Builtin::Number => "number",
                    Builtin::Bool => "bool",
                    Builtin::Null => "null",
                    Builtin::Any | Builtin::Int => "any",
                })
            }
            Kind::Array(_) => matches!(plain(said), Value::Array(_)),
            Kind::Enum(_) => name.is_some_and(|name| self.definition(name, "enum").is_some()),
            Kind::Object(_) => name.is_some_and(|name| {
                self.definition(name, "struct").or(self.definition(name, "union")).is_some()
            }),
            Kind::Alternate(_) => false,
        }
    }

    /// The members of a struct or union, and those of what it is based on.
    fn layers(&self, definition: &'s Object) -> Vec<&'s Object> {
        let mut layers = Vec::new();
        let mut next = Some(definition);
        while let Some(definition) = next.take() {
            if definition.contains("struct") {
                layers.extend(definition.get("data").and_then(Value::as_object));
            }
            match definition.get("base") {
                Some(Value::Object(members)) => layers.push(members),
                // A cycle is not a schema, and must not hold us up.
                Some(Value::String(base)) if layers.len() < 64 => {
                    next = self.definition(base, "struct");
                }
                _ => {}
            }
        }
        layers
    }

    fn object(&mut self, id: Id, layers: &[&'s Object]) {
        let Some(object) = self.schema.members(id) else { return };
        for member in &object.members {
            let optional = format!("*{}", member.name);
            let said =
                layers.iter().find_map(|layer| layer.get(&member.name).or(layer.get(&optional)));
            if let Some(said) = said {
                self.integer(Place::Type(id), &member.name, said);
                self.ty(member.ty, said);
            }
        }
    }

    fn cases(&mut self, id: Id, definition: &'s Object) {
        let Some(tag) = self.schema.members(id).and_then(|object| object.tag.as_ref()) else {
            return;
        };
        let Some(data) = definition.get("data").and_then(Value::as_object) else { return };
        for case in &tag.cases {
            if let Some(said) = data.get(&case.value) {
                self.ty(case.ty, said);
            }
        }
    }

    fn integer(&mut self, place: Place, name: &str, said: &Value) {
        let said = match plain(said) {
            Value::Array(element) => element.first(),
            said => Some(said),
        };
        if let Some(integer) = said.and_then(Value::as_str).and_then(rust_integer) {
            self.known.integers.insert((place, name.to_owned()), integer);
        }
    }
}

/// The type alone, without conditions and features.
fn plain(said: &Value) -> &Value {
    match said.get("type") {
        Some(ty @ (Value::String(_) | Value::Array(_)))
            if said.as_object().is_some_and(|said| {
                said.iter().all(|(key, _)| matches!(key, "type" | "if" | "features"))
            }) =>
        {
            ty
        }
        _ => said,
    }
}

fn rust_integer(name: &str) -> Option<&'static str> {
    Some(match name {
        "int" | "int64" => "i64",
        "int8" => "i8",
        "int16" => "i16",
        "int32" => "i32",
        "uint8" => "u8",
        "uint16" => "u16",
        "uint32" => "u32",
        "uint64" | "size" => "u64",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_end_lines_outside_of_strings() {
        let text = "# 'one\n{ 'a': 'x#y', # two\n 'b': \"#\" }\n##\n[1]";
        let read = values(text).unwrap();
        assert_eq!(read.len(), 2);
        assert_eq!(read[0].get("a").and_then(Value::as_str), Some("x#y"));
        assert!(values("{ 'a': # 1 }").is_err());
    }
}
