// SPDX-License-Identifier: MIT OR Apache-2.0
//! JSON values as QEMU holds them: exact 64-bit integers, doubles, text, and objects without
//! duplicate keys.

mod builder;
mod de;
mod ser;

use std::fmt;

pub(crate) use builder::ObjectBuilder;
pub use de::{DecodeError, from_object, from_value};

use crate::order::Order;

/// Any JSON value.
///
/// Equality of objects does not depend on the order of their members. Mirrors `QObject`.
///
/// ```
/// use qmp_proto::{Object, Value};
///
/// let mut object = Object::new();
/// object.insert("device", "disk0");
/// object.insert("size", 1i64 << 40);
/// let value = Value::from(object);
/// assert_eq!(value.get("size").and_then(Value::as_i64), Some(1 << 40));
/// assert_eq!(value.to_string(), r#"{"device": "disk0", "size": 1099511627776}"#);
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Value {
    /// `null`
    #[default]
    Null,
    /// `true` or `false`
    Bool(bool),
    /// An integer or a double.
    Number(Number),
    /// Text. NUL is allowed, noncharacters never come from the parser.
    String(String),
    /// An array.
    Array(Vec<Value>),
    /// An object.
    Object(Object),
}

impl Value {
    /// The member `name`, if this is an object that has it.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.as_object()?.get(name)
    }

    /// The object, if this is one.
    pub fn as_object(&self) -> Option<&Object> {
        match self {
            Value::Object(object) => Some(object),
            _ => None,
        }
    }

    /// The elements, if this is an array.
    pub fn as_array(&self) -> Option<&[Value]> {
        match self {
            Value::Array(array) => Some(array),
            _ => None,
        }
    }

    /// The text, if this is a string.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    /// The truth value, if this is one.
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Value::Bool(value) => Some(*value),
            _ => None,
        }
    }

    /// The number, if this is one.
    pub fn as_number(&self) -> Option<Number> {
        match self {
            Value::Number(number) => Some(*number),
            _ => None,
        }
    }

    /// The integer, if this is one in the range of `i64`. A double is never an integer, not even
    /// `1.0`.
    pub fn as_i64(&self) -> Option<i64> {
        self.as_number()?.as_i64()
    }

    /// The integer, if this is one in the range of `u64`.
    pub fn as_u64(&self) -> Option<u64> {
        self.as_number()?.as_u64()
    }
}

/// The value as QEMU would write it, on one line.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match crate::Json::encode(self) {
            Ok(json) => f.write_str(json.as_str()),
            Err(_) => Err(fmt::Error),
        }
    }
}

/// A number: an integer in the range of `i64` or `u64` exactly, or a double.
///
/// A number is an integer if it was spelt without dot and exponent and fits; `1.0` and `1e3` are
/// doubles, as is `18446744073709551616`. Mirrors `QNum`.
///
/// ```
/// use qmp_proto::Number;
///
/// assert_eq!(Number::from(7u64), Number::from(7i64));
/// assert_eq!(Number::from(7i64).as_u64(), Some(7));
/// assert_eq!(Number::from(7.0).as_i64(), None);
/// assert_eq!(Number::from(7i64).as_f64(), 7.0);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Number(Repr);

#[derive(Clone, Copy, Debug, PartialEq)]
enum Repr {
    Signed(i64),
    /// Only beyond the range of `i64`, so that equal integers are equal.
    Unsigned(u64),
    Double(f64),
}

impl Number {
    /// The integer, if it is one in the range of `i64`.
    pub fn as_i64(self) -> Option<i64> {
        match self.0 {
            Repr::Signed(value) => Some(value),
            Repr::Unsigned(_) | Repr::Double(_) => None,
        }
    }

    /// The integer, if it is one in the range of `u64`.
    pub fn as_u64(self) -> Option<u64> {
        match self.0 {
            Repr::Signed(value) => u64::try_from(value).ok(),
            Repr::Unsigned(value) => Some(value),
            Repr::Double(_) => None,
        }
    }

    /// The nearest double. May be infinite: QEMU reads `1e400` as infinity.
    pub fn as_f64(self) -> f64 {
        match self.0 {
            Repr::Signed(value) => value as f64,
            Repr::Unsigned(value) => value as f64,
            Repr::Double(value) => value,
        }
    }

    /// Whether this is an integer.
    pub fn is_integer(self) -> bool {
        !matches!(self.0, Repr::Double(_))
    }
}

impl From<i64> for Number {
    fn from(value: i64) -> Number {
        Number(Repr::Signed(value))
    }
}

impl From<u64> for Number {
    fn from(value: u64) -> Number {
        Number(i64::try_from(value).map_or(Repr::Unsigned(value), Repr::Signed))
    }
}

impl From<f64> for Number {
    fn from(value: f64) -> Number {
        Number(Repr::Double(value))
    }
}

/// The members of an object, each name once, in the order in which they were added.
///
/// Written in QEMU's order, which is that of a hash table and not that of insertion. Mirrors
/// `QDict`.
///
/// ```
/// use qmp_proto::{Object, Value};
///
/// let mut object = Object::new();
/// assert_eq!(object.insert("id", 1), None);
/// assert_eq!(object.insert("id", 2), Some(Value::from(1)));
/// assert_eq!(object.len(), 1);
/// ```
#[derive(Clone, Default)]
pub struct Object {
    members: Vec<(String, Value)>,
}

impl Object {
    /// An object without members.
    pub const fn new() -> Object {
        Object { members: Vec::new() }
    }

    /// The number of members.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether there are no members.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// The value of the member `name`. Looks at one member after the other.
    pub fn get(&self, name: &str) -> Option<&Value> {
        let (_, value) = self.members.iter().find(|(key, _)| key == name)?;
        Some(value)
    }

    /// Whether there is a member `name`.
    pub fn contains(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// Adds a member, or replaces the value of the one of that name and returns the former value.
    pub fn insert(&mut self, name: impl Into<String>, value: impl Into<Value>) -> Option<Value> {
        let (name, value) = (name.into(), value.into());
        match self.members.iter_mut().find(|(key, _)| *key == name) {
            Some((_, old)) => Some(std::mem::replace(old, value)),
            None => {
                self.members.push((name, value));
                None
            }
        }
    }

    /// Takes the member `name` out.
    pub fn remove(&mut self, name: &str) -> Option<Value> {
        let index = self.members.iter().position(|(key, _)| key == name)?;
        Some(self.members.remove(index).1)
    }

    /// The members in the order in which they were added.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Value)> {
        self.members.iter().map(|(name, value)| (name.as_str(), value))
    }

    /// The members in the order in which QEMU writes and checks them: by the buckets of its hash
    /// table, and the one added last first within a bucket.
    pub fn iter_in_qemu_order(&self) -> impl ExactSizeIterator<Item = (&str, &Value)> {
        let order = Order::of(self.members.iter().map(|(name, _)| name.as_str()));
        (0..order.len()).map(move |place| {
            let (name, value) = &self.members[order.at(place)];
            (name.as_str(), value)
        })
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

impl IntoIterator for Object {
    type Item = (String, Value);
    type IntoIter = std::vec::IntoIter<(String, Value)>;

    fn into_iter(self) -> Self::IntoIter {
        self.members.into_iter()
    }
}

/// A later member replaces an earlier one of the same name.
impl<N: Into<String>, V: Into<Value>> FromIterator<(N, V)> for Object {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(members: I) -> Object {
        let mut object = ObjectBuilder::default();
        for (name, value) in members {
            object.insert(name.into(), value.into());
        }
        object.build()
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Value {
        Value::Bool(value)
    }
}

impl From<i32> for Value {
    fn from(value: i32) -> Value {
        Value::Number(i64::from(value).into())
    }
}

impl From<i64> for Value {
    fn from(value: i64) -> Value {
        Value::Number(value.into())
    }
}

impl From<u64> for Value {
    fn from(value: u64) -> Value {
        Value::Number(value.into())
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Value {
        Value::Number(value.into())
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Value {
        Value::String(value.to_owned())
    }
}

impl From<String> for Value {
    fn from(value: String) -> Value {
        Value::String(value)
    }
}

impl From<Vec<Value>> for Value {
    fn from(value: Vec<Value>) -> Value {
        Value::Array(value)
    }
}

impl From<Object> for Value {
    fn from(value: Object) -> Value {
        Value::Object(value)
    }
}
