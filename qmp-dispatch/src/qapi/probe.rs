// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whether a type takes what its schema describes, found out by trying.
//!
//! `JsonSchema` and `Deserialize` are derived from the same attributes, mostly: functions given by
//! `deserialize_with`, implementations by hand and some combinations of attributes only change one of
//! them. A client would find out, long after registration, by an error that makes no sense.

use std::collections::{HashMap, HashSet};

use qmp_proto::{DecodeError, DecodeProblem, Object, Value, from_object};
use serde::de::DeserializeOwned;

use super::model::{self, Builtin, Integer, Kind, Length, Model, TypeRef};
use super::types::Arguments;

/// The reason for which `T` refuses arguments that pass the checks, if there is one. That it is
/// choosy about strings and numbers is none.
pub(crate) fn disagreement<T: DeserializeOwned>(arguments: &Arguments) -> Option<String> {
    let samples = samples(arguments);
    samples.into_iter().find_map(|Sample { arguments, has_strange_member }| {
        let error = from_object::<T>(arguments).err()?;
        (has_strange_member || is_about_shape(&error)).then(|| match error.place() {
            place if place.is_empty() => error.to_string(),
            place => format!("at {place}, {error}"),
        })
    })
}

fn is_about_shape(error: &DecodeError) -> bool {
    match error.problem() {
        DecodeProblem::UnknownVariant(variant) => *variant != text(Length::ANY),
        DecodeProblem::WrongType { .. }
        | DecodeProblem::UnknownMember(_)
        | DecodeProblem::MissingMember(_) => true,
        // So says what serde derives for `flatten`, and nothing that is choosy about values.
        DecodeProblem::Other(text) => {
            ["unknown field `", "no variant of enum ", "can only flatten structs and maps"]
                .iter()
                .any(|beginning| text.starts_with(beginning))
        }
        _ => false,
    }
}

/// Arguments to be tried.
struct Sample {
    arguments: Object,
    /// Whether there is a member in it that is not declared, where there may be.
    has_strange_member: bool,
}

/// What no key is unless it may be any text.
const STRANGE: &str = "any text";

/// One with nothing optional, and others that differ from it in one place: each member, each value
/// of an enum, each case of a union and each branch of an alternate is in one of them.
fn samples(arguments: &Arguments) -> Vec<Sample> {
    let ty = arguments.as_type();
    let Some(root) = &ty.root else {
        return vec![Sample { arguments: Object::new(), has_strange_member: false }];
    };
    let mut sampler = Sampler {
        model: &ty.model,
        explored: HashSet::new(),
        on_the_way: Vec::new(),
        plain: HashMap::new(),
    };
    let values = sampler.variations(root).into_iter();
    let samples = values.filter_map(|value| match value {
        Value::Object(arguments) => {
            let has_strange_member = Value::from(arguments.clone()).to_string().contains(STRANGE);
            Some(Sample { arguments, has_strange_member })
        }
        _ => None,
    });
    samples.collect()
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
    fn variations(&mut self, ty: &TypeRef) -> Vec<Value> {
        let mut values: Vec<Value> = self.plain(ty).into_iter().collect();
        match ty {
            TypeRef::Array(element) => {
                let elements = self.variations(element).into_iter().skip(1);
                values.extend(elements.map(|element| Value::Array(vec![element])));
            }
            TypeRef::Named(index) if self.explored.insert(*index) => {
                match &self.model.definition(*index).kind {
                    Kind::Enum(names) => {
                        values.extend(names.iter().skip(1).map(|value| value.name.as_str().into()));
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
    fn objects(&mut self, ty: &model::Object, outer: &Object) -> Vec<Value> {
        let Some(base) = self.required(ty, outer.clone()) else { return Vec::new() };
        let mut values = Vec::new();
        match &ty.union {
            None => values.push(base.clone().into()),
            Some(union) => {
                for case in &union.cases {
                    let mut base = base.clone();
                    base.insert(ty.members[union.tag].name.clone(), case.value.as_str());
                    match case.ty.as_ref().and_then(|ty| self.model.object(ty)) {
                        Some(branch) => values.extend(self.objects(branch, &base)),
                        None => values.push(base.into()),
                    }
                }
            }
        }
        // Others differ from the plainest one, which comes first and is complete.
        let Some(Value::Object(complete)) = values.first().cloned() else { return values };
        let tag = ty.union.as_ref().map(|union| union.tag);
        for (index, member) in ty.members.iter().enumerate() {
            if Some(index) == tag {
                continue;
            }
            let usual = usize::from(!member.optional);
            for value in self.variations(&member.ty).into_iter().skip(usual) {
                let mut object = complete.clone();
                object.insert(member.name.clone(), value);
                values.push(object.into());
            }
        }
        if ty.open {
            let mut object = complete;
            object.insert(STRANGE, Value::Null);
            values.push(object.into());
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
