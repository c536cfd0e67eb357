// SPDX-License-Identifier: MIT OR Apache-2.0
//! Changes to values that depend on their types.

use qmp_proto::{Object, Value};

use super::check::may_be;
use super::model::{self, Builtin, Kind, Member, Model, TypeRef};

/// Takes a value that has the right type apart, and puts it together again.
pub(crate) struct Rewriter<'m, K, B> {
    pub(crate) model: &'m Model,
    /// Which members are kept.
    pub(crate) keeps: K,
    /// What becomes of values of builtin types.
    pub(crate) builtin: B,
}

impl<K: Fn(&Member) -> bool, B: Fn(&Builtin, Value) -> Value> Rewriter<'_, K, B> {
    pub(crate) fn value(&self, ty: &TypeRef, value: Value) -> Value {
        match (ty, value) {
            (TypeRef::Builtin(builtin), value) => (self.builtin)(builtin, value),
            (TypeRef::Array(element), Value::Array(array)) => {
                let elements = array.into_iter().map(|value| self.value(element, value));
                Value::Array(elements.collect())
            }
            (TypeRef::Named(index), value) => match (&self.model.definition(*index).kind, value) {
                (Kind::Object(ty), Value::Object(object)) => self.object(ty, object).into(),
                (Kind::Alternate(branches), value) => {
                    match branches.iter().find(|branch| may_be(self.model, branch, &value)) {
                        Some(branch) => self.value(branch, value),
                        None => value,
                    }
                }
                (_, value) => value,
            },
            (_, value) => value,
        }
    }

    pub(crate) fn object(&self, ty: &model::Object, object: Object) -> Object {
        let branch = self.model.branch(ty, &object);
        let members = object.into_iter().filter_map(|(name, value)| {
            match ty.members.iter().find(|member| member.name == name) {
                Some(member) if (self.keeps)(member) => {
                    let value = self.value(&member.ty, value);
                    Some((name, value))
                }
                Some(_) => None,
                None => Some((name, value)),
            }
        });
        let object = members.collect();
        match branch {
            Some(branch) => self.object(branch, object),
            None => object,
        }
    }
}
