// SPDX-License-Identifier: MIT OR Apache-2.0
//! Values of the types of a schema.

use std::collections::HashMap;

use qmp_dispatch::proto::{Object, Value};
use tests::inputs::Random;

/// Types within each other, beyond which values become as small as they can be.
const DEPTH: usize = 6;

/// The entries of a schema.
pub(crate) struct Entries(HashMap<String, Value>);

impl Entries {
    pub(crate) fn parse(lines: &str) -> Entries {
        let entry = |line: &str| {
            let entry: Value = line.parse().expect("an entry");
            (text(&entry, "name").to_owned(), entry)
        };
        Entries(lines.lines().map(entry).collect())
    }

    /// Arguments of a command, or data of an event.
    pub(crate) fn arguments(&self, name: &str, random: &mut Random) -> Value {
        self.value(text(&self.0[name], "arg-type"), random, 0)
    }

    pub(crate) fn result(&self, name: &str, random: &mut Random) -> Value {
        self.value(text(&self.0[name], "ret-type"), random, 0)
    }

    fn value(&self, ty: &str, random: &mut Random, depth: usize) -> Value {
        let entry = &self.0[ty];
        match text(entry, "meta-type") {
            "builtin" => match text(entry, "json-type") {
                "string" => random.pick(&["", "x", "null", "\u{e9}\u{1f600}"]).into(),
                "int" => {
                    let numbers = [
                        0.into(),
                        Value::from(-1),
                        i64::MIN.into(),
                        i64::MAX.into(),
                        u64::MAX.into(),
                    ];
                    numbers[random.below(numbers.len())].clone()
                }
                "number" => [0.5, -1e300][random.below(2)].into(),
                "boolean" => random.one_in(2).into(),
                "null" => Value::Null,
                _ => Value::from(Object::from_iter([("any", Value::Null)])),
            },
            "enum" => {
                let values = items(entry, "values");
                values[random.below(values.len())].clone()
            }
            "array" => {
                let count = if depth > DEPTH { 0 } else { random.below(3) };
                let element = text(entry, "element-type");
                Value::Array((0..count).map(|_| self.value(element, random, depth + 1)).collect())
            }
            "alternate" => {
                let branches = items(entry, "members");
                let is_flat =
                    |branch: &&Value| self.0[text(branch, "type")].get("members").is_none();
                let flat = branches.iter().find(is_flat).filter(|_| depth > DEPTH);
                let branch = flat.unwrap_or(&branches[random.below(branches.len())]);
                self.value(text(branch, "type"), random, depth + 1)
            }
            _ => {
                let mut object = Object::new();
                self.add_members(ty, &mut object, random, depth);
                object.into()
            }
        }
    }

    fn add_members(&self, ty: &str, object: &mut Object, random: &mut Random, depth: usize) {
        let entry = &self.0[ty];
        for member in items(entry, "members") {
            let is_optional = member.as_object().is_some_and(|member| member.contains("default"));
            if !is_optional || depth <= DEPTH && random.one_in(2) {
                let value = self.value(text(member, "type"), random, depth + 1);
                object.insert(text(member, "name"), value);
            }
        }
        let Some(tag) = entry.get("tag").and_then(Value::as_str) else { return };
        let variants = items(entry, "variants");
        let variant = &variants[random.below(variants.len())];
        object.insert(tag, text(variant, "case"));
        self.add_members(text(variant, "type"), object, random, depth);
    }
}

/// Adds a member to each object.
pub(crate) fn add_unknown(value: &mut Value) {
    match value {
        Value::Array(elements) => elements.iter_mut().for_each(add_unknown),
        Value::Object(object) => {
            let members = std::mem::take(object).into_iter();
            *object = members
                .map(|(name, mut value)| {
                    add_unknown(&mut value);
                    (name, value)
                })
                .chain([("x-new".to_owned(), Value::Null)])
                .collect();
        }
        _ => {}
    }
}

fn text<'v>(value: &'v Value, key: &str) -> &'v str {
    value.get(key).and_then(Value::as_str).expect("text")
}

fn items<'v>(value: &'v Value, key: &str) -> &'v [Value] {
    value.get(key).and_then(Value::as_array).expect("an array")
}
