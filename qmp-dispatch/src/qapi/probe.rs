// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whether a type takes what its schema describes, found out by trying. For tests and debug builds.
//!
//! `JsonSchema` and `Deserialize` are derived from the same attributes, mostly: functions given by
//! `deserialize_with`, implementations by hand and some combinations of attributes only change one of
//! them. A client would find out, long after registration, by an error that makes no sense.

use std::collections::{HashMap, HashSet};

use qmp_proto::{DecodeError, DecodeErrorKind, Object, Value, from_object};
use serde::de::DeserializeOwned;

use super::check::branch_of;
use super::model::{self, Builtin, Integer, Kind, Length, Model, TypeRef};
use super::types::Arguments;

/// The reason for which `T` refuses arguments that pass the checks, if there is one.
///
/// Being stricter about strings and numbers does not count: those of a sample are arbitrary.
pub(crate) fn disagreement<T: DeserializeOwned>(arguments: &Arguments) -> Option<String> {
    let ty = arguments.as_type();
    let Some(root) = &ty.root else { return refusal::<T>(Object::new().into()).map(explain) };
    let mut sampler = Sampler {
        model: &ty.model,
        explored: HashSet::new(),
        on_the_way: Vec::new(),
        plain: HashMap::new(),
    };
    sampler.variations(root).into_iter().find_map(|Variation { value, before }| {
        let error = refusal::<T>(value.clone())?;
        let counts = match before {
            // What is added is all that can be wrong.
            Some(before) => refusal::<T>(before).is_none(),
            None => is_about_shape(&ty.model, root, &value, &error),
        };
        counts.then(|| explain(error))
    })
}

fn refusal<T: DeserializeOwned>(sample: Value) -> Option<DecodeError> {
    match sample {
        Value::Object(arguments) => from_object::<T>(arguments).err(),
        _ => None,
    }
}

fn explain(error: DecodeError) -> String {
    match error.path() {
        place if place.is_empty() => error.to_string(),
        place => format!("at {place}, {error}"),
    }
}

fn is_about_shape(model: &Model, root: &TypeRef, sample: &Value, error: &DecodeError) -> bool {
    match error.kind() {
        DecodeErrorKind::WrongType { .. }
        | DecodeErrorKind::UnknownMember(_)
        | DecodeErrorKind::MissingMember(_) => true,
        DecodeErrorKind::UnknownVariant(variant) => {
            let enums = model.definitions.iter().filter_map(|definition| match &definition.kind {
                Kind::Enum(values) => Some(values),
                Kind::Object(_) | Kind::Alternate(_) => None,
            });
            enums.flatten().any(|value| value.name == *variant)
        }
        _ => !is_arbitrary(model, root, sample),
    }
}

/// Whether there is a string or a number in the value that a type might refuse for good reasons.
fn is_arbitrary(model: &Model, ty: &TypeRef, value: &Value) -> bool {
    match (ty, value) {
        (TypeRef::Builtin(builtin), _) => {
            matches!(builtin, Builtin::Str(_) | Builtin::Int(_) | Builtin::Number)
        }
        (TypeRef::Array(element), Value::Array(array)) => {
            array.iter().any(|value| is_arbitrary(model, element, value))
        }
        (TypeRef::Named(index), value) => match (&model.definition(*index).kind, value) {
            (Kind::Object(object), Value::Object(members)) => {
                let layers = model.layers(object, members).into_iter();
                layers.flat_map(|layer| &layer.members).any(|member| {
                    let value = members.get(&member.name);
                    value.is_some_and(|value| is_arbitrary(model, &member.ty, value))
                })
            }
            (Kind::Alternate(branches), value) => branch_of(model, branches, value)
                .is_some_and(|branch| is_arbitrary(model, branch, value)),
            _ => false,
        },
        _ => false,
    }
}

/// The name of a member that no type declares. One where any may be.
const STRANGE: &str = "any text";

/// A value to be tried. Of all that are tried, one has nothing optional, and the others differ from it in one
/// place: each member, each value of an enum, each case of a union and each branch of an alternate is in one
/// of them.
struct Variation {
    value: Value,
    /// The same without a [`STRANGE`] member, if it has one.
    before: Option<Value>,
}

impl From<Value> for Variation {
    fn from(value: Value) -> Variation {
        Variation { value, before: None }
    }
}

impl Variation {
    fn within(self, outer: impl Fn(Value) -> Value) -> Variation {
        Variation { value: outer(self.value), before: self.before.map(outer) }
    }
}

struct Sampler<'m> {
    model: &'m Model,
    /// The definitions whose variations are in some samples already.
    explored: HashSet<usize>,
    /// Those whose plainest value is being put together.
    on_the_way: Vec<usize>,
    /// The plainest values, as far as known.
    plain: HashMap<usize, Value>,
}

impl Sampler<'_> {
    /// The plainest value of the type first.
    fn variations(&mut self, ty: &TypeRef) -> Vec<Variation> {
        let mut values: Vec<Variation> = self.plain(ty).map(Variation::from).into_iter().collect();
        match ty {
            TypeRef::Array(element) => {
                let elements = self.variations(element).into_iter().skip(1);
                let array = |element| Value::Array(vec![element]);
                values.extend(elements.map(|element| element.within(array)));
            }
            TypeRef::Named(index) if self.explored.insert(*index) => {
                match &self.model.definition(*index).kind {
                    Kind::Enum(names) => {
                        let names = names.iter().skip(1).map(|value| value.name.as_str());
                        values.extend(names.map(|name| Value::from(name).into()));
                    }
                    Kind::Alternate(branches) => {
                        values = branches.iter().flat_map(|ty| self.variations(ty)).collect();
                    }
                    Kind::Object(object) => values = self.objects(object, &Object::new()),
                }
            }
            TypeRef::Builtin(_) | TypeRef::Named(_) => {}
        }
        values
    }

    /// All variations of an object that has some members already.
    fn objects(&mut self, ty: &model::Object, outer: &Object) -> Vec<Variation> {
        let Some(base) = self.required(ty, outer.clone()) else { return Vec::new() };
        let mut values = Vec::new();
        match &ty.union {
            None => values.push(Value::from(base).into()),
            Some(union) => {
                for case in &union.cases {
                    let mut base = base.clone();
                    base.insert(ty.members[union.tag].name.clone(), case.value.as_str());
                    match case.ty.as_ref().and_then(|ty| self.model.object(ty)) {
                        Some(branch) => values.extend(self.objects(branch, &base)),
                        None => values.push(Value::from(base).into()),
                    }
                }
            }
        }
        // Others differ from the plainest one, which comes first and is complete.
        let Some(Variation { value: Value::Object(complete), .. }) = values.first() else {
            return values;
        };
        let complete = complete.clone();
        let with = |name: &str, value| {
            let mut object = complete.clone();
            object.insert(name, value);
            Value::from(object)
        };
        let tag = ty.union.as_ref().map(|union| union.tag);
        for (index, member) in ty.members.iter().enumerate() {
            if Some(index) == tag {
                continue;
            }
            let usual = usize::from(!member.optional);
            let variations = self.variations(&member.ty).into_iter().skip(usual);
            let within = |variation: Variation| variation.within(|value| with(&member.name, value));
            values.extend(variations.map(within));
        }
        if ty.open {
            let value = with(STRANGE, Value::Null);
            values.push(Variation { value, before: Some(complete.clone().into()) });
        }
        values
    }

    /// Adds the members that there must be, but not those of cases.
    fn required(&mut self, ty: &model::Object, mut object: Object) -> Option<Object> {
        for member in ty.members.iter().filter(|member| !member.optional) {
            object.insert(member.name.clone(), self.plain(&member.ty)?);
        }
        Some(object)
    }

    /// A value with as little in it as possible; `None` if there is none that is finite.
    fn plain(&mut self, ty: &TypeRef) -> Option<Value> {
        match ty {
            TypeRef::Builtin(builtin) => Some(plain_builtin(builtin)),
            TypeRef::Array(element) => {
                Some(Value::Array(self.plain(element).into_iter().collect()))
            }
            TypeRef::Named(index) => {
                if let Some(known) = self.plain.get(index) {
                    return Some(known.clone());
                }
                // What is finite need not contain itself.
                if self.on_the_way.contains(index) {
                    return None;
                }
                self.on_the_way.push(*index);
                let value = self.plain_definition(*index);
                self.on_the_way.pop();
                self.plain.insert(*index, value.clone()?);
                value
            }
        }
    }

    fn plain_definition(&mut self, index: usize) -> Option<Value> {
        match &self.model.definition(index).kind {
            Kind::Enum(values) => Some(values.first()?.name.as_str().into()),
            Kind::Alternate(branches) => branches.iter().find_map(|branch| self.plain(branch)),
            Kind::Object(object) => self.plain_object(object, Object::new()),
        }
    }

    fn plain_object(&mut self, ty: &model::Object, outer: Object) -> Option<Value> {
        let object = self.required(ty, outer)?;
        let Some(union) = &ty.union else { return Some(object.into()) };
        union.cases.iter().find_map(|case| {
            let mut object = object.clone();
            object.insert(ty.members[union.tag].name.clone(), case.value.as_str());
            match case.ty.as_ref().and_then(|ty| self.model.object(ty)) {
                Some(branch) => self.plain_object(branch, object),
                None => Some(object.into()),
            }
        })
    }
}

fn plain_builtin(builtin: &Builtin) -> Value {
    match builtin {
        Builtin::Str(length) => text(*length).into(),
        Builtin::Int(integer) => plain_integer(integer),
        Builtin::Number => 0.5.into(),
        Builtin::Bool => true.into(),
        Builtin::Null | Builtin::Any => Value::Null,
    }
}

fn plain_integer(Integer { width, bounds, .. }: &Integer) -> Value {
    let range = bounds.clone().unwrap_or(width.range());
    let one = 1.clamp(*range.start(), *range.end());
    match (i64::try_from(one), u64::try_from(one)) {
        (Ok(one), _) => one.into(),
        (_, Ok(one)) => one.into(),
        _ => Value::Null,
    }
}

/// As short as it may be, but not empty.
fn text(Length { min, max }: Length) -> String {
    let length = min.max(1).min(max);
    // A limit beyond that is not worth trying.
    "x".repeat(u16::try_from(length).unwrap_or(u16::MAX).into())
}
