// SPDX-License-Identifier: MIT OR Apache-2.0
//! Negative numbers for unsigned types, which QEMU accepts for compatibility.

use qmp_proto::{Object, Value};

use super::check::{Checker, unsigned};
use super::model::{self, Builtin, Kind, Model, TypeRef};

/// Replaces negative numbers in unsigned places by the large ones of the same 64 bits. The
/// arguments have been checked.
pub(crate) fn wrap(model: &Model, ty: &model::Object, object: Object) -> Object {
    let tag = ty.union.as_ref().map(|union| {
        let value = object.get(&ty.members[union.tag].name).and_then(Value::as_str);
        let case = union.cases.iter().find(|case| Some(case.value.as_str()) == value);
        case.and_then(|case| model.object(case.ty.as_ref()?))
    });
    let object = object
        .into_iter()
        .map(|(name, value)| match ty.members.iter().find(|member| member.name == name) {
            Some(member) => {
                let value = wrap_value(model, &member.ty, value);
                (name, value)
            }
            None => (name, value),
        })
        .collect();
    match tag.flatten() {
        Some(branch) => wrap(model, branch, object),
        None => object,
    }
}

fn wrap_value(model: &Model, ty: &TypeRef, value: Value) -> Value {
    match (ty, value) {
        (TypeRef::Builtin(Builtin::Int(integer)), value) if !integer.width.is_signed() => {
            unsigned(&value).map_or(value, Value::from)
        }
        (TypeRef::Array(element), Value::Array(array)) => {
            let wrapped = array.into_iter().map(|value| wrap_value(model, element, value));
            Value::Array(wrapped.collect())
        }
        (TypeRef::Named(index), value) => match (&model.definition(*index).kind, value) {
            (Kind::Object(ty), Value::Object(object)) => wrap(model, ty, object).into(),
            (Kind::Alternate(branches), value) => {
                let checker = Checker::new(model);
                match branches.iter().find(|branch| checker.may_be(branch, &value)) {
                    Some(branch) => wrap_value(model, branch, value),
                    None => value,
                }
            }
            (_, value) => value,
        },
        (_, value) => value,
    }
}
