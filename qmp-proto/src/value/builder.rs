// SPDX-License-Identifier: MIT OR Apache-2.0
//! Objects that grow large, as those that come from a client may.

use std::collections::HashMap;

use super::{Object, Value};

/// Puts an object together. Unlike [`Object::insert`], which looks at all members, it takes about
/// the same time for each of very many members.
#[derive(Default)]
pub(crate) struct ObjectBuilder {
    object: Object,
    /// Where the members are, as soon as there are more than a few.
    index: Option<HashMap<String, usize>>,
}

impl ObjectBuilder {
    const FEW: usize = 16;

    /// As [`Object::insert`].
    #[inline]
    pub(crate) fn insert(&mut self, name: String, value: Value) -> Option<Value> {
        if self.object.len() < Self::FEW {
            return self.object.insert(name, value);
        }
        let index = self.index.get_or_insert_with(|| {
            let names = self.object.iter().map(|(name, _)| name.to_owned());
            names.enumerate().map(|(at, name)| (name, at)).collect()
        });
        match index.get(&name) {
            Some(&at) => Some(std::mem::replace(&mut self.object.members[at].1, value)),
            None => {
                index.insert(name.clone(), self.object.len());
                self.object.members.push((name, value));
                None
            }
        }
    }

    pub(crate) fn build(self) -> Object {
        self.object
    }
}
