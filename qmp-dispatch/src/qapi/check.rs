// SPDX-License-Identifier: MIT OR Apache-2.0
//! Checks whether values have the type that a command declares, with QEMU's error messages.
//!
//! Mirrors `qobject_input_visitor` and the visitors that QEMU generates: members are visited in the order of
//! their declaration, nested ones before the next sibling; unexpected members are reported last.

use std::collections::HashSet;
use std::iter::Peekable;

use qmp_proto::{Error, Object, Value};

use super::hash_order::first_left;
use super::model::{self, Builtin, Integer, Kind, Model, TypeRef, Width};
use super::path::Path;
use super::policy::Policy;
use crate::steps;

/// Limit of objects and arrays within each other in arguments. QEMU's only limit is the one of its parser, 1024. Ours is
/// lower because serde recurses, and the embedder's types decide how much stack a level takes.
const DEPTH: usize = 128;

/// Walks values and types together.
pub(crate) struct Checker<'m> {
    model: &'m Model,
    policy: &'m Policy,
    direction: Direction,
    /// Set when a negative number was found that stands for a large unsigned one.
    pub(crate) wraps: bool,
}

/// Which way the values go.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    /// Arguments, which clients choose.
    Input,
    /// Results and data of events.
    Output,
}

impl<'m> Checker<'m> {
    pub(crate) fn of_input(model: &'m Model, policy: &'m Policy) -> Checker<'m> {
        Checker { model, policy, direction: Direction::Input, wraps: false }
    }

    pub(crate) fn of_output(model: &'m Model) -> Checker<'m> {
        Checker { model, policy: &Policy::LENIENT, direction: Direction::Output, wraps: false }
    }

    fn is_too_deep(&self, path: &Path<'_>) -> bool {
        self.direction == Direction::Input && path.depth() >= DEPTH
    }

    pub(crate) fn object(
        &mut self,
        ty: &model::Object,
        object: &Object,
        path: &Path<'_>,
    ) -> Result<(), Error> {
        let seen = self.members(ty, object, &mut object.iter().peekable(), path)?;
        if seen.count == object.len() {
            return Ok(());
        }
        let layers = self.model.layers(ty, object).into_iter();
        let known = layers.flat_map(|layer| &layer.members).map(|member| member.name.as_str());
        if seen.open {
            // The known members have been checked already.
            let known: HashSet<_> = known.collect();
            let mut unknown = object.iter().filter(|(name, _)| !known.contains(name));
            return unknown.try_for_each(|(name, value)| self.any(value, &path.member(name)));
        }
        let name = first_unexpected(object, known).unwrap_or_default();
        Err(Error::generic(format!("Parameter '{}' is unexpected", path.member(name))))
    }

    /// Checks the members that the type knows. `next` goes through the members of the value, which are often in the
    /// order of declaration.
    fn members<'o>(
        &mut self,
        ty: &model::Object,
        object: &'o Object,
        next: &mut Peekable<impl Iterator<Item = (&'o str, &'o Value)>>,
        path: &Path<'_>,
    ) -> Result<Seen, Error> {
        let mut seen = Seen { count: 0, open: ty.open };
        for member in &ty.members {
            let value = match next.next_if(|(name, _)| *name == member.name) {
                Some((_, value)) => Some(value),
                None => get(object, &member.name),
            };
            if value.is_none() && member.optional {
                continue;
            }
            self.policy.check_member(&member.name, &member.features)?;
            match value {
                Some(value) => {
                    self.value(&member.ty, value, &path.member(&member.name))?;
                    seen.count += 1;
                }
                None => {
                    let path = path.member(&member.name);
                    return Err(Error::generic(format!("Parameter '{path}' is missing")));
                }
            }
        }
        if let Some(branch) = self.model.branch(ty, object) {
            let inner = self.members(branch, object, next, path)?;
            seen = Seen { count: seen.count + inner.count, open: seen.open || inner.open };
        }
        Ok(seen)
    }

    pub(crate) fn value(
        &mut self,
        ty: &TypeRef,
        value: &Value,
        path: &Path<'_>,
    ) -> Result<(), Error> {
        steps::count(1);
        match ty {
            TypeRef::Builtin(builtin) => self.builtin(builtin, value, path),
            TypeRef::Array(element) => {
                let array = value.as_array().ok_or_else(|| wrong_type(path, "array"))?;
                if self.is_too_deep(path) {
                    return Err(too_deep(path));
                }
                for (index, value) in array.iter().enumerate() {
                    self.value(element, value, &path.element(index))?;
                }
                Ok(())
            }
            TypeRef::Named(index) => {
                let definition = self.model.definition(*index);
                match &definition.kind {
                    Kind::Enum(values) => self.enum_value(values, value, path),
                    Kind::Object(object) => {
                        let value = value.as_object().ok_or_else(|| wrong_type(path, "object"))?;
                        if self.is_too_deep(path) {
                            return Err(too_deep(path));
                        }
                        self.object(object, value, path)
                    }
                    Kind::Alternate(branches) => {
                        match branch_of(self.model, branches, value) {
                            Some(branch) => self.value(branch, value, path),
                            // Not the whole path: this message is of QEMU's generated code, which knows only
                            // the name.
                            None => Err(Error::generic(format!(
                                "Invalid parameter type for '{}', expected: {}",
                                path.bare(),
                                definition.name
                            ))),
                        }
                    }
                }
            }
        }
    }

    fn builtin(&mut self, builtin: &Builtin, value: &Value, path: &Path<'_>) -> Result<(), Error> {
        let (fits, expected) = match builtin {
            Builtin::Any => return self.any(value, path),
            Builtin::Int(integer) => return self.integer(integer, value, path),
            Builtin::Str(length) => match value {
                Value::String(text) if !length.admits(text) => {
                    let name = path.bare();
                    return Err(Error::generic(format!("Parameter '{name}' expects {length}")));
                }
                value => (matches!(value, Value::String(_)), "string"),
            },
            Builtin::Number => (matches!(value, Value::Number(_)), "number"),
            Builtin::Bool => (matches!(value, Value::Bool(_)), "boolean"),
            Builtin::Null => (matches!(value, Value::Null), "null"),
        };
        if fits { Ok(()) } else { Err(wrong_type(path, expected)) }
    }

    /// Checks how deep a value is nested, if its type says nothing else.
    fn any(&self, value: &Value, path: &Path<'_>) -> Result<(), Error> {
        fn fits(value: &Value, depth: usize) -> bool {
            steps::count(1);
            match value {
                Value::Array(array) => {
                    depth < DEPTH && array.iter().all(|element| fits(element, depth + 1))
                }
                Value::Object(object) => {
                    depth < DEPTH && object.iter().all(|(_, member)| fits(member, depth + 1))
                }
                _ => true,
            }
        }
        match self.direction {
            Direction::Input if !fits(value, path.depth()) => Err(too_deep(path)),
            Direction::Input | Direction::Output => Ok(()),
        }
    }

    fn integer(&mut self, integer: &Integer, value: &Value, path: &Path<'_>) -> Result<(), Error> {
        let width = integer.width;
        let number = if width == Width::Any64 {
            let integer = value.as_i64().map(i128::from).or(value.as_u64().map(i128::from));
            integer.ok_or_else(|| wrong_type(path, "integer"))?
        } else if width.is_signed() {
            i128::from(value.as_i64().ok_or_else(|| wrong_type(path, "integer"))?)
        } else {
            let number = unsigned(value)
                .ok_or_else(|| Error::generic(format!("Parameter '{path}' expects uint64")))?;
            self.wraps |= value.as_u64().is_none();
            i128::from(number)
        };
        let name = path.bare();
        if !width.range().contains(&number) {
            return Err(Error::generic(format!("Parameter '{name}' expects {}", width.c_name())));
        }
        if integer.nonzero && number == 0 {
            return Err(Error::generic(format!(
                "Parameter '{name}' expects an integer other than 0"
            )));
        }
        match &integer.bounds {
            Some(bounds) if !bounds.contains(&number) => Err(Error::generic(format!(
                "Parameter '{name}' expects an integer in the range of {} to {}",
                bounds.start(),
                bounds.end()
            ))),
            _ => Ok(()),
        }
    }

    fn enum_value(
        &self,
        values: &[model::EnumValue],
        value: &Value,
        path: &Path<'_>,
    ) -> Result<(), Error> {
        let text = value.as_str().ok_or_else(|| wrong_type(path, "string"))?;
        match values.iter().find(|value| value.name == text) {
            Some(value) => self.policy.check_value(&value.name, &value.features),
            None => {
                let name = path.bare();
                Err(Error::generic(format!("Parameter '{name}' does not accept value '{text}'")))
            }
        }
    }
}

/// Returns the member that QEMU reports as unexpected: of those that are not `known`, the first one in the order of its
/// hash table. That depends on the order in which it asks for the known ones, which is that of their declaration.
///
/// Takes time linear in the number of members; if their names collide too often for that, returns the first member of the
/// object that is not known.
fn first_unexpected<'o, 'k>(
    object: &'o Object,
    known: impl IntoIterator<Item = &'k str>,
) -> Option<&'o str> {
    let known: Vec<&str> = known.into_iter().filter(|name| get(object, name).is_some()).collect();
    let names = object.iter_in_qemu_order().map(|(name, _)| name);
    first_left(names, &known).or_else(|| {
        let known: HashSet<&str> = known.into_iter().collect();
        object.iter().map(|(name, _)| name).find(|name| !known.contains(name))
    })
}

/// Returns the branch of an alternate for values of this JSON type.
pub(crate) fn branch_of<'m>(
    model: &Model,
    branches: &'m [TypeRef],
    value: &Value,
) -> Option<&'m TypeRef> {
    let json_type = Some(JsonType::of(value));
    branches.iter().find(|branch| self::json_type(model, branch) == json_type)
}

struct Seen {
    count: usize,
    open: bool,
}

/// Returns the number that an unsigned type reads from the value. A negative number stands for the unsigned one with
/// the same 64 bits.
pub(crate) fn unsigned(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| Some(value.as_i64()?.cast_unsigned()))
}

/// Returns a member. Counts as many steps as the linear search may take.
fn get<'o>(object: &'o Object, name: &str) -> Option<&'o Value> {
    steps::count(object.len());
    object.get(name)
}

fn too_deep(path: &Path<'_>) -> Error {
    Error::generic(format!("Parameter '{path}' is nested too deeply"))
}

fn wrong_type(path: &Path<'_>, expected: &str) -> Error {
    Error::generic(format!("Invalid parameter type for '{path}', expected: {expected}"))
}

/// The JSON types by which the branches of an alternate are distinguished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum JsonType {
    Null,
    Bool,
    Number,
    String,
    Array,
    Object,
}

impl JsonType {
    fn of(value: &Value) -> JsonType {
        match value {
            Value::Null => JsonType::Null,
            Value::Bool(_) => JsonType::Bool,
            Value::Number(_) => JsonType::Number,
            Value::String(_) => JsonType::String,
            Value::Array(_) => JsonType::Array,
            Value::Object(_) => JsonType::Object,
        }
    }
}

/// Returns the JSON type of all values of a type, if they have one in common.
pub(crate) fn json_type(model: &Model, ty: &TypeRef) -> Option<JsonType> {
    Some(match ty {
        TypeRef::Builtin(Builtin::Any) => return None,
        TypeRef::Builtin(Builtin::Null) => JsonType::Null,
        TypeRef::Builtin(Builtin::Bool) => JsonType::Bool,
        TypeRef::Builtin(Builtin::Int(_) | Builtin::Number) => JsonType::Number,
        TypeRef::Builtin(Builtin::Str(_)) => JsonType::String,
        TypeRef::Array(_) => JsonType::Array,
        TypeRef::Named(index) => match model.definition(*index).kind {
            Kind::Enum(_) => JsonType::String,
            Kind::Object(_) => JsonType::Object,
            Kind::Alternate(_) => return None,
        },
    })
}

#[cfg(test)]
mod tests {
    use qmp_proto::{Object, Value};
    use schemars::JsonSchema;

    use super::DEPTH;
    use crate::qapi::arguments_of;
    use crate::steps::{assert_linear, steps_of};

    #[derive(JsonSchema)]
    #[expect(dead_code, reason = "only the schema is used")]
    struct Node {
        child: Option<Box<Node>>,
        list: Option<Vec<Node>>,
        any: Option<serde_json::Value>,
        number: Option<u64>,
        #[serde(flatten)]
        rest: std::collections::HashMap<String, serde_json::Value>,
    }

    #[derive(JsonSchema)]
    #[expect(dead_code, reason = "only the schema is used")]
    struct Closed {
        a: Option<u8>,
        b: Option<u8>,
        c: Option<u8>,
    }

    #[track_caller]
    fn assert_check_is_linear<T: JsonSchema>(size: usize, sample: impl Fn(usize) -> Object) {
        let arguments = arguments_of::<T>().unwrap();
        assert_linear(size, |size| {
            let sample = sample(size);
            steps_of(|| _ = arguments.prepare(sample))
        });
    }

    fn nested(depth: usize, name: &'static str) -> Object {
        let leaf = Object::from_iter([("number", Value::from(-1)), ("x", Value::Null)]);
        (1..depth).fold(leaf, |inner, _| Object::from_iter([(name, Value::from(inner))]))
    }

    #[test]
    fn many_unexpected_arguments_take_linear_time() {
        let many = |count| (0..count).map(|number| (format!("name{number}"), 1)).collect();
        assert_check_is_linear::<Closed>(1_000, many);
        assert_check_is_linear::<Node>(1_000, many);
        assert_check_is_linear::<()>(1_000, |count| {
            let mut some: Object = many(count);
            some.extend([("a", Value::Null)]);
            some
        });
    }

    #[test]
    fn deep_arguments_take_linear_time() {
        assert_check_is_linear::<Node>(DEPTH / 2, |depth| nested(depth, "child"));
        assert_check_is_linear::<Node>(DEPTH / 2, |depth| nested(depth, "any"));
        assert_check_is_linear::<Node>(DEPTH / 2, |depth| nested(depth, "x"));
    }

    #[test]
    fn many_elements_take_linear_time() {
        assert_check_is_linear::<Node>(1_000, |count| {
            let elements = (0..count).map(|_| nested(2, "child").into());
            Object::from_iter([("list", Value::Array(elements.collect()))])
        });
    }
}
