// SPDX-License-Identifier: MIT OR Apache-2.0
//! Merges the types of all commands and events into one model, in which each type occurs once.

use std::collections::{HashMap, HashSet};

use super::model::{Case, Definition, Kind, Member, Model, Object, TypeRef, Union};
use super::types::Type;

/// One model with the types of many. Types of the same name become one if QAPI does not distinguish them: the width of
/// integers does not matter, and a member that is optional in one of them is optional in the merged type.
#[derive(Debug, Default)]
pub(crate) struct MergedTypes {
    pub(crate) model: Model,
    by_name: HashMap<String, Vec<usize>>,
}

impl MergedTypes {
    /// Adds a type and returns its reference within [`MergedTypes::model`]; `None` for the empty object.
    pub(crate) fn import(&mut self, ty: &Type) -> Option<TypeRef> {
        let mut import = Import { target: self, source: &ty.model, imported: HashMap::new() };
        Some(import.type_ref(ty.root.as_ref()?))
    }
}

/// Copies types from another model.
struct Import<'a> {
    target: &'a mut MergedTypes,
    source: &'a Model,
    /// Indices in `source`, and the indices in `target` that stand for them.
    imported: HashMap<usize, usize>,
}

impl Import<'_> {
    fn type_ref(&mut self, ty: &TypeRef) -> TypeRef {
        match ty {
            TypeRef::Builtin(builtin) => TypeRef::Builtin(builtin.clone()),
            TypeRef::Array(element) => TypeRef::Array(Box::new(self.type_ref(element))),
            TypeRef::Named(index) => TypeRef::Named(self.definition(*index)),
        }
    }

    fn definition(&mut self, index: usize) -> usize {
        if let Some(&known) = self.imported.get(&index) {
            return known;
        }
        let source = self.source.definition(index);
        let candidates = self.target.by_name.get(&source.name).cloned().unwrap_or_default();
        for candidate in candidates {
            let mut pairs = self.imported.clone();
            if self.same(index, candidate, &mut pairs) {
                self.merge(&pairs);
                self.imported = pairs;
                return candidate;
            }
        }
        let definitions = &mut self.target.model.definitions;
        let new = definitions.len();
        definitions.push(Definition { kind: Kind::Enum(Vec::new()), ..source.clone() });
        self.target.by_name.entry(source.name.clone()).or_default().push(new);
        self.imported.insert(index, new);
        let kind = match &source.kind {
            Kind::Enum(values) => Kind::Enum(values.clone()),
            Kind::Object(object) => Kind::Object(self.object(object)),
            Kind::Alternate(branches) => {
                Kind::Alternate(branches.iter().map(|ty| self.type_ref(ty)).collect())
            }
        };
        self.target.model.definitions[new].kind = kind;
        new
    }

    fn object(&mut self, object: &Object) -> Object {
        let members = object
            .members
            .iter()
            .map(|member| Member { ty: self.type_ref(&member.ty), ..member.clone() })
            .collect();
        let union = object.union.as_ref().map(|union| Union {
            tag: union.tag,
            cases: union
                .cases
                .iter()
                .map(|case| Case {
                    value: case.value.clone(),
                    ty: case.ty.as_ref().map(|ty| self.type_ref(ty)),
                })
                .collect(),
        });
        Object { members, union, open: object.open }
    }

    /// Whether QAPI does not distinguish the two types, assuming that it does not distinguish those in `pairs`. The
    /// assumption ends the recursion for types that contain themselves.
    fn same(&self, source: usize, target: usize, pairs: &mut HashMap<usize, usize>) -> bool {
        if let Some(&known) = pairs.get(&source) {
            return known == target;
        }
        pairs.insert(source, target);
        let source = self.source.definition(source);
        let target = self.target.model.definition(target);
        if source.name != target.name || source.features != target.features {
            return false;
        }
        match (&source.kind, &target.kind) {
            // The order does not matter: another declaration may have the variants in another order.
            (Kind::Enum(ours), Kind::Enum(theirs)) => {
                let theirs: HashSet<_> =
                    theirs.iter().map(|their| (&their.name, &their.features)).collect();
                ours.len() == theirs.len()
                    && ours.iter().all(|our| theirs.contains(&(&our.name, &our.features)))
            }
            (Kind::Alternate(ours), Kind::Alternate(theirs)) => {
                same_items(ours, theirs, |our, their| self.same_type(our, their, pairs))
            }
            (Kind::Object(ours), Kind::Object(theirs)) => {
                let cases = |object: &Object| {
                    let union = object.union.as_ref();
                    union.map(|union| union.cases.clone()).unwrap_or_default()
                };
                let tag = |object: &Object| object.union.as_ref().map(|union| union.tag);
                tag(ours) == tag(theirs)
                    && ours.open == theirs.open
                    && same_items(&ours.members, &theirs.members, |our, their| {
                        our.name == their.name
                            && our.features == their.features
                            && self.same_type(&our.ty, &their.ty, pairs)
                    })
                    && same_items(&cases(ours), &cases(theirs), |our, their| {
                        our.value == their.value
                            && match (&our.ty, &their.ty) {
                                (Some(our), Some(their)) => self.same_type(our, their, pairs),
                                (our, their) => our.is_none() && their.is_none(),
                            }
                    })
            }
            _ => false,
        }
    }

    fn same_type(&self, our: &TypeRef, their: &TypeRef, pairs: &mut HashMap<usize, usize>) -> bool {
        match (our, their) {
            (TypeRef::Builtin(our), TypeRef::Builtin(their)) => our.name() == their.name(),
            (TypeRef::Array(our), TypeRef::Array(their)) => self.same_type(our, their, pairs),
            (TypeRef::Named(our), TypeRef::Named(their)) => self.same(*our, *their, pairs),
            _ => false,
        }
    }

    /// Makes those members of the targets optional that are optional in their sources.
    fn merge(&mut self, pairs: &HashMap<usize, usize>) {
        for (&source, &target) in pairs {
            let source = &self.source.definition(source).kind;
            let target = &mut self.target.model.definitions[target].kind;
            if let (Kind::Object(source), Kind::Object(target)) = (source, target) {
                for (source, target) in source.members.iter().zip(&mut target.members) {
                    target.optional |= source.optional;
                }
            }
        }
    }
}

fn same_items<T>(ours: &[T], theirs: &[T], mut same: impl FnMut(&T, &T) -> bool) -> bool {
    ours.len() == theirs.len() && ours.iter().zip(theirs).all(|(our, their)| same(our, their))
}
