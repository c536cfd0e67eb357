// SPDX-License-Identifier: MIT OR Apache-2.0
//! Values as a source and a target of serde's deserialization.

use std::cell::Cell;
use std::fmt;

use serde::de::{
    self, Deserialize, DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess,
    IntoDeserializer, MapAccess, SeqAccess, VariantAccess, Visitor,
};

use super::number::Repr;
use super::object::Member;
use super::{DecodeError, Number, Object, ObjectBuilder, Value};

/// Converts a value to any type that serde can deserialize.
///
/// # Errors
///
/// [`DecodeError`] if the value has another shape.
pub fn from_value<T: DeserializeOwned>(value: Value) -> Result<T, DecodeError> {
    T::deserialize(value)
}

/// Converts the members of an object, such as the arguments of a command, to any type that serde can
/// deserialize. The unit type takes an object without members.
///
/// # Errors
///
/// [`DecodeError`] if the object has other members.
pub fn from_object<T: DeserializeOwned>(object: Object) -> Result<T, DecodeError> {
    T::deserialize(Value::Object(object))
}

thread_local! {
    /// A value on its way to a `Value`, within one call of `deserialize_newtype_struct`.
    static HANDED_OVER: Cell<Option<Value>> = const { Cell::new(None) };
}

/// Asks for the value as it is. A deserializer that has none takes it for the name of a structure and goes on to its content.
const AS_IT_IS: &str = "$qmp_proto::Value";

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_newtype_struct(AS_IT_IS, ValueVisitor)
    }
}

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Object, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::Object(object) => Ok(object),
            _ => Err(de::Error::custom("expected an object")),
        }
    }
}

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Number, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::Number(number) => Ok(number),
            _ => Err(de::Error::custom("expected a number")),
        }
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(HANDED_OVER.take().unwrap_or(Value::Null))
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(
        self,
        deserializer: D,
    ) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        Value::deserialize(deserializer)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut array = Vec::new();
        while let Some(element) = seq.next_element()? {
            array.push(element);
        }
        Ok(Value::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut object = ObjectBuilder::default();
        while let Some(name) = map.next_key()? {
            object.insert(name, map.next_value()?);
        }
        Ok(Value::Object(object.build()))
    }
}

impl<'de> IntoDeserializer<'de, DecodeError> for Value {
    type Deserializer = Value;

    fn into_deserializer(self) -> Value {
        self
    }
}

impl<'de> Deserializer<'de> for Value {
    type Error = DecodeError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match self {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(value),
            Value::Number(Number(Repr::Signed(value))) => visitor.visit_i64(value),
            Value::Number(Number(Repr::Unsigned(value))) => visitor.visit_u64(value),
            Value::Number(Number(Repr::Double(value))) => visitor.visit_f64(value),
            Value::String(text) => visitor.visit_string(text),
            Value::Array(array) => Elements { rest: array.into_iter(), taken: 0 }.visit(visitor),
            Value::Object(object) => {
                Members { all: object.into_members(), asked: 0 }.visit(visitor)
            }
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match self {
            Value::Null => visitor.visit_none(),
            value => visitor.visit_some(value),
        }
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match self {
            Value::Object(object) if object.is_empty() => visitor.visit_unit(),
            value => value.deserialize_any(visitor),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        // Nothing is copied: types that look at their value first, such as unions, are within each other, and each of them
        // would copy all that is within it.
        if name == AS_IT_IS {
            HANDED_OVER.set(Some(self));
            let value = visitor.visit_unit();
            // A visitor in between may not have passed the call on.
            HANDED_OVER.take();
            return value;
        }
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        match self {
            Value::String(variant) => visitor.visit_enum(Variant { variant, content: None }),
            Value::Object(object) => {
                let mut members = object.into_iter();
                match (members.next(), members.next()) {
                    (Some((variant, content)), None) => {
                        visitor.visit_enum(Variant { variant, content: Some(content) })
                    }
                    _ => Err(de::Error::custom("expected an object with one member")),
                }
            }
            _ => Err(de::Error::custom("expected a string or an object with one member")),
        }
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf
        unit_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}

/// Like serde's own `SeqDeserializer`, which needs so much more stack for each level of nesting that a
/// client could exhaust it.
struct Elements {
    rest: std::vec::IntoIter<Value>,
    taken: usize,
}

impl Elements {
    fn visit<'de, V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, DecodeError> {
        let value = visitor.visit_seq(&mut self)?;
        match self.rest.len() {
            0 => Ok(value),
            left => Err(de::Error::custom(format_args!("{left} elements too many"))),
        }
    }
}

impl<'de> SeqAccess<'de> for Elements {
    type Error = DecodeError;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, DecodeError> {
        let Some(element) = self.rest.next() else { return Ok(None) };
        self.taken += 1;
        match seed.deserialize(element) {
            Ok(value) => Ok(Some(value)),
            Err(error) => Err(error.in_element(self.taken - 1)),
        }
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.rest.len())
    }
}

/// Like serde's own `MapDeserializer`, with less stack. Takes the values out of the members, which stay
/// where they are: to move them would take longer than most visitors do.
struct Members {
    all: Vec<Member>,
    /// The number of members whose names have been asked for; the values before the last of them have been
    /// taken.
    asked: usize,
}

impl Members {
    fn visit<'de, V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, DecodeError> {
        let value = visitor.visit_map(&mut self)?;
        match self.left() {
            0 => Ok(value),
            left => Err(de::Error::custom(format_args!("{left} members too many"))),
        }
    }

    fn left(&self) -> usize {
        self.all.len() - self.asked
    }
}

impl<'de> MapAccess<'de> for Members {
    type Error = DecodeError;

    fn next_key_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, DecodeError> {
        let Some(member) = self.all.get(self.asked) else { return Ok(None) };
        self.asked += 1;
        seed.deserialize(member.name.as_str().into_deserializer()).map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<S::Value, DecodeError> {
        let member = &mut self.all[self.asked - 1];
        match seed.deserialize(std::mem::take(&mut member.value)) {
            Ok(value) => Ok(value),
            Err(error) => Err(error.in_member(std::mem::take(&mut member.name))),
        }
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.left())
    }
}

/// An enum in serde's form: the name of the variant, or an object of its name and content.
struct Variant {
    variant: String,
    content: Option<Value>,
}

impl<'de> EnumAccess<'de> for Variant {
    type Error = DecodeError;
    type Variant = Content;

    fn variant_seed<S: DeserializeSeed<'de>>(
        self,
        seed: S,
    ) -> Result<(S::Value, Content), DecodeError> {
        let name = seed.deserialize(self.variant.into_deserializer())?;
        Ok((name, Content(self.content)))
    }
}

struct Content(Option<Value>);

impl Content {
    fn required(self) -> Result<Value, DecodeError> {
        self.0.ok_or_else(|| de::Error::custom("the variant lacks its content"))
    }
}

impl<'de> VariantAccess<'de> for Content {
    type Error = DecodeError;

    fn unit_variant(self) -> Result<(), DecodeError> {
        match self.0 {
            None => Ok(()),
            Some(_) => Err(de::Error::custom("the variant has no content")),
        }
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(
        self,
        seed: S,
    ) -> Result<S::Value, DecodeError> {
        seed.deserialize(self.required()?)
    }

    fn tuple_variant<V: Visitor<'de>>(
        self,
        _len: usize,
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        self.required()?.deserialize_any(visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        self.required()?.deserialize_any(visitor)
    }
}
