// SPDX-License-Identifier: MIT OR Apache-2.0
//! Negative numbers for unsigned types, which QEMU accepts for compatibility.

use qmp_proto::{Object, Value};

use super::check::{branch_of, unsigned};
use super::model::{self, Builtin, Kind, Model, TypeRef};

/// Replaces negative numbers in unsigned places by the large ones of the same 64 bits. The
/// arguments have been checked.
pub(crate) fn wrap(model: &Model, ty: &model::Object, object: Object) -> Object {
    let layers = model.layers(ty, &object);
    let wrapped = object.into_iter().map(|(name, value)| {
        let mut members = layers.iter().flat_map(|layer| &layer.members);
        let value = match members.find(|member| member.name == name) {
            Some(member) => wrap_value(model, &member.ty, value),
            None => value,
        };
        (name, value)
    });
    wrapped.collect()
}

fn wrap_value(model: &Model, ty: &TypeRef, value: Value) -> Value {
    match (ty, value) {
        (TypeRef::Builtin(Builtin::Int(integer)), value) if !integer.width.is_signed() => {
            unsigned(&value).map_or(value, Value::from)
        }
        (TypeRef::Array(element), Value::Array(array)) => {
            let elements = array.into_iter().map(|value| wrap_value(model, element, value));
            Value::Array(elements.collect())
        }
        (TypeRef::Named(index), value) => match (&model.definition(*index).kind, value) {
            (Kind::Object(ty), Value::Object(object)) => wrap(model, ty, object).into(),
            (Kind::Alternate(branches), value) => match branch_of(model, branches, &value) {
                Some(branch) => wrap_value(model, branch, value),
                None => value,
            },
            (_, value) => value,
        },
        (_, value) => value,
    }
}
