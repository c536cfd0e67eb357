// SPDX-License-Identifier: MIT OR Apache-2.0
//! Results and data of events as clients get them.

use qmp_proto::Value;
use serde::ser::{Serialize, SerializeMap, Serializer};

use super::check::branch_of;
use super::model::{Kind, Model, TypeRef};
use super::policy::Policy;

/// A value that is written without the members that the policy hides. The others keep their order.
pub(crate) struct Shown<'a> {
    pub(crate) model: &'a Model,
    pub(crate) policy: &'a Policy,
    /// `None` if nothing is known of it.
    pub(crate) ty: Option<&'a TypeRef>,
    pub(crate) value: &'a Value,
}

impl<'a> Shown<'a> {
    fn part(&self, ty: Option<&'a TypeRef>, value: &'a Value) -> Shown<'a> {
        Shown { ty, value, ..*self }
    }
}

impl Serialize for Shown<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let ty = self.ty.map(|ty| match ty {
            TypeRef::Named(index) => match &self.model.definition(*index).kind {
                Kind::Alternate(branches) => branch_of(self.model, branches, self.value),
                Kind::Enum(_) | Kind::Object(_) => Some(ty),
            },
            TypeRef::Builtin(_) | TypeRef::Array(_) => Some(ty),
        });
        let ty = ty.flatten();
        match self.value {
            Value::Array(elements) => {
                let element = match ty {
                    Some(TypeRef::Array(element)) => Some(&**element),
                    _ => None,
                };
                serializer.collect_seq(elements.iter().map(|value| self.part(element, value)))
            }
            Value::Object(object) => {
                let layers = ty.and_then(|ty| self.model.object(ty));
                let layers = layers.map(|ty| self.model.layers(ty, object)).unwrap_or_default();
                let mut map = serializer.serialize_map(None)?;
                for (name, value) in object {
                    let members = layers.iter().flat_map(|layer| &layer.members);
                    let member = members.into_iter().find(|member| member.name == name);
                    if member.is_none_or(|member| self.policy.shows(&member.features)) {
                        map.serialize_entry(name, &self.part(member.map(|m| &m.ty), value))?;
                    }
                }
                map.end()
            }
            value => value.serialize(serializer),
        }
    }
}
