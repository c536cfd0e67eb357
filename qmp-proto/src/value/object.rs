// SPDX-License-Identifier: MIT OR Apache-2.0
//! Objects.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::hash::{BuildHasher, BuildHasherDefault, Hasher, RandomState};

use super::Value;
use crate::order::{Order, bucket};

/// The members of an object, in the order in which they were added. Names are unique.
///
/// Objects are written in QEMU's order, which is that of a hash table. Mirrors `QDict`.
///
/// ```
/// use qmp_proto::{Object, Value};
///
/// let mut object = Object::new();
/// assert_eq!(object.insert("id", 1), None);
/// assert_eq!(object.insert("id", 2), Some(Value::from(1)));
/// assert_eq!(object.len(), 1);
/// assert_eq!(object.to_string(), r#"{"id": 2}"#);
/// for (name, value) in &object {
///     assert_eq!((name, value.as_i64()), ("id", Some(2)));
/// }
/// ```
#[derive(Clone, Default)]
pub struct Object {
    members: Vec<Member>,
}

#[derive(Clone)]
pub(super) struct Member {
    pub(super) name: String,
    pub(super) value: Value,
}

impl Object {
    /// Creates an object without members.
    pub const fn new() -> Object {
        Object { members: Vec::new() }
    }

    /// Returns the number of members.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Returns about how many bytes the members have allocated; see [`Value::heap_size`].
    pub fn heap_size(&self) -> usize {
        let own = self.members.capacity() * size_of::<Member>();
        let of = |member: &Member| member.name.capacity() + member.value.heap_size();
        self.members.iter().fold(own, |sum, member| sum + of(member))
    }

    /// Returns `true` if there are no members.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Returns the value of the member `name`. Takes time linear in the number of members.
    pub fn get(&self, name: &str) -> Option<&Value> {
        let member = self.members.iter().find(|member| member.name == name)?;
        Some(&member.value)
    }

    /// Returns `true` if there is a member `name`.
    pub fn contains(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// Adds a member, or replaces the value of the member of that name and returns the former value. Takes time
    /// linear in the number of members; to add many, [extend](Extend) the object.
    pub fn insert(&mut self, name: impl Into<String>, value: impl Into<Value>) -> Option<Value> {
        let (name, value) = (name.into(), value.into());
        match self.members.iter_mut().find(|member| member.name == name) {
            Some(old) => Some(std::mem::replace(&mut old.value, value)),
            None => {
                self.members.push(Member { name, value });
                None
            }
        }
    }

    /// Removes the member `name` and returns its value.
    pub fn remove(&mut self, name: &str) -> Option<Value> {
        let index = self.members.iter().position(|member| member.name == name)?;
        Some(self.members.remove(index).value)
    }

    pub(super) fn into_members(self) -> Vec<Member> {
        self.members
    }

    /// Returns the members in the order in which they were added.
    pub fn iter(&self) -> Iter<'_> {
        Iter(self.members.iter())
    }

    /// Returns the members like [`iter`](Object::iter), with values that can be changed.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (&str, &mut Value)> {
        self.members.iter_mut().map(|member| (member.name.as_str(), &mut member.value))
    }

    /// Returns the members in the order in which QEMU writes and checks them: by the buckets of its hash
    /// table, and within a bucket the member added last comes first.
    pub fn iter_in_qemu_order(&self) -> impl ExactSizeIterator<Item = (&str, &Value)> {
        let order = Order::of(self.members.iter().map(|member| bucket(&member.name)));
        (0..order.len()).map(move |place| {
            let member = &self.members[order.at(place)];
            (member.name.as_str(), &member.value)
        })
    }
}

/// As QEMU would write it, on one line.
impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::new();
        crate::Json::write_object(self, &mut text);
        f.write_str(&text)
    }
}

impl fmt::Debug for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl PartialEq for Object {
    fn eq(&self, other: &Object) -> bool {
        fn sorted(object: &Object) -> Vec<(&str, &Value)> {
            let mut members: Vec<_> = object.iter().collect();
            members.sort_unstable_by_key(|&(name, _)| name);
            members
        }
        self.len() == other.len() && sorted(self) == sorted(other)
    }
}

impl<'a> IntoIterator for &'a Object {
    type Item = (&'a str, &'a Value);
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

impl IntoIterator for Object {
    type Item = (String, Value);
    type IntoIter = IntoIter;

    fn into_iter(self) -> IntoIter {
        IntoIter(self.members.into_iter())
    }
}

/// The members of an [`Object`] in the order in which they were added: [`Object::iter`].
#[derive(Clone)]
pub struct Iter<'a>(std::slice::Iter<'a, Member>);

impl fmt::Debug for Iter<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.clone()).finish()
    }
}

impl<'a> Iterator for Iter<'a> {
    type Item = (&'a str, &'a Value);

    fn next(&mut self) -> Option<(&'a str, &'a Value)> {
        self.0.next().map(|member| (member.name.as_str(), &member.value))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.0.size_hint()
    }
}

impl ExactSizeIterator for Iter<'_> {}

/// The members of an [`Object`] that was consumed, in the order in which they were added.
pub struct IntoIter(std::vec::IntoIter<Member>);

impl fmt::Debug for IntoIter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(Iter(self.0.as_slice().iter())).finish()
    }
}

impl Iterator for IntoIter {
    type Item = (String, Value);

    fn next(&mut self) -> Option<(String, Value)> {
        self.0.next().map(|member| (member.name, member.value))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.0.size_hint()
    }
}

impl ExactSizeIterator for IntoIter {}

/// A later member replaces an earlier one of the same name.
impl<N: Into<String>, V: Into<Value>> FromIterator<(N, V)> for Object {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(members: I) -> Object {
        let mut object = Object::new();
        object.extend(members);
        object
    }
}

/// Like [`Object::insert`] for each member, in linear time.
impl<N: Into<String>, V: Into<Value>> Extend<(N, V)> for Object {
    fn extend<I: IntoIterator<Item = (N, V)>>(&mut self, members: I) {
        let mut object = ObjectBuilder { object: std::mem::take(self), index: None };
        for (name, value) in members {
            object.insert(name.into(), value.into());
        }
        *self = object.build();
    }
}

/// Builds an object. Unlike [`Object::insert`], which looks at all members, it takes constant time for each
/// of very many members.
#[derive(Default)]
pub(crate) struct ObjectBuilder {
    object: Object,
    /// Finds members by name, once there are more than a few.
    index: Option<Index>,
}

/// The indices of members by the hashes of their names. The names themselves are in the object: clients can choose very
/// many, and copies would take as long as the rest of parsing.
#[derive(Default)]
struct Index {
    /// Keyed at random, so that clients cannot choose names that collide.
    hasher: RandomState,
    members: HashMap<u64, usize, BuildHasherDefault<AsIs>>,
}

/// The hasher of what is a hash already.
#[derive(Default)]
struct AsIs(u64);

impl Hasher for AsIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("only hashes are hashed");
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

impl Index {
    /// Returns the index of the member `name`, or notes that it will be the next one.
    fn find_or_add(&mut self, members: &[Member], name: &str) -> Option<usize> {
        match self.members.entry(self.hasher.hash_one(name)) {
            Entry::Vacant(vacant) => {
                vacant.insert(members.len());
                None
            }
            Entry::Occupied(found) if members[*found.get()].name == name => Some(*found.get()),
            // Two names have the same hash of 64 bits, and only one of them is in the index.
            Entry::Occupied(_) => members.iter().position(|member| member.name == name),
        }
    }
}

impl ObjectBuilder {
    const FEW: usize = 16;

    /// Like [`Object::insert`].
    #[inline]
    pub(crate) fn insert(&mut self, name: String, value: Value) -> Option<Value> {
        if self.object.len() < Self::FEW {
            return self.object.insert(name, value);
        }
        self.insert_among_many(name, value)
    }

    // Not inlined into the parser, which recurses: the index would take much of its stack.
    #[inline(never)]
    fn insert_among_many(&mut self, name: String, value: Value) -> Option<Value> {
        let members = &mut self.object.members;
        let index = self.index.get_or_insert_with(|| {
            let mut index = Index::default();
            for at in 0..members.len() {
                index.find_or_add(&members[..at], &members[at].name);
            }
            index
        });
        match index.find_or_add(members, &name) {
            Some(at) => Some(std::mem::replace(&mut members[at].value, value)),
            None => {
                members.push(Member { name, value });
                None
            }
        }
    }

    pub(crate) fn build(self) -> Object {
        self.object
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_member_replaces_an_earlier_one_of_the_same_name() {
        let numbered = |numbers: std::ops::Range<i32>, value: i32| {
            numbers.map(move |number| (number.to_string(), value))
        };
        for len in [3, 40] {
            let mut object = Object::from_iter(numbered(0..len, 1));
            object.extend(numbered(len - 2..len + 2, 2));
            let expected = numbered(0..len - 2, 1).chain(numbered(len - 2..len + 2, 2));
            let expected: Vec<_> =
                expected.map(|(name, value)| (name, Value::from(value))).collect();
            assert_eq!(object.into_iter().collect::<Vec<_>>(), expected);
        }
    }
}
