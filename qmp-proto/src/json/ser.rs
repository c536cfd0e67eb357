// SPDX-License-Identifier: MIT OR Apache-2.0
//! A serde serializer that writes QEMU's form of JSON.
//!
//! Not serde_json's with a formatter of ours: that takes half as many instructions again, and makes
//! infinite numbers `null` before a formatter sees them.

use std::fmt;

use serde::ser::{self, Serialize};

use super::scalar::{write_double, write_inside, write_integer, write_string};

/// Why a value cannot be written as JSON, such as a map whose keys are arrays.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct EncodeError(String);

impl ser::Error for EncodeError {
    fn custom<T: fmt::Display>(message: T) -> EncodeError {
        EncodeError(message.to_string())
    }
}

pub(super) struct Serializer<'a> {
    out: &'a mut String,
    /// Where the last `None` was written that is still in `out`. Any other value begins with another call, so a member whose
    /// value begins here is a `None`.
    none: Option<usize>,
}

impl<'a> Serializer<'a> {
    pub(super) fn new(out: &'a mut String) -> Serializer<'a> {
        Serializer { out, none: None }
    }

    fn open<'s>(&'s mut self, opener: char, closers: &'static str) -> Compound<'s, 'a> {
        self.out.push(opener);
        let start = self.out.len();
        Compound { serializer: self, first: true, start, closers }
    }

    /// Opens the object of one member that holds the content of an enum's variant.
    fn variant(&mut self, variant: &str) {
        self.out.push('{');
        write_string(variant, self.out);
        self.out.push_str(": ");
    }
}

/// An open array or object.
pub(super) struct Compound<'s, 'a> {
    serializer: &'s mut Serializer<'a>,
    first: bool,
    /// Where the last member begins, with the comma before it.
    start: usize,
    closers: &'static str,
}

impl Compound<'_, '_> {
    fn separate(&mut self) {
        if !std::mem::take(&mut self.first) {
            self.serializer.out.push_str(", ");
        }
    }

    fn element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), EncodeError> {
        self.separate();
        value.serialize(&mut *self.serializer)
    }

    // Names are constants mostly, and where this is inlined they are looked at when it is compiled.
    #[inline]
    fn member<T: Serialize + ?Sized>(&mut self, name: &str, value: &T) -> Result<(), EncodeError> {
        let out = &mut *self.serializer.out;
        self.start = out.len();
        // In as few pieces as possible: most of what is written are names of members.
        match std::mem::take(&mut self.first) {
            true => out.push('"'),
            false => out.push_str(", \""),
        }
        write_inside(name, out);
        out.push_str("\": ");
        self.value(value)
    }

    /// Writes the value of a member, or removes its name if it is absent.
    #[inline]
    fn value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), EncodeError> {
        let from = self.serializer.out.len();
        value.serialize(&mut *self.serializer)?;
        if self.serializer.none == Some(from) {
            self.leave_out();
        }
        Ok(())
    }

    /// Removes the last member.
    #[cold]
    fn leave_out(&mut self) {
        self.serializer.none = None;
        self.serializer.out.truncate(self.start);
        self.first = self.serializer.out.ends_with('{');
    }

    fn close(self) -> Result<(), EncodeError> {
        self.serializer.out.push_str(self.closers);
        Ok(())
    }
}

macro_rules! integers {
    ($($method:ident: $type:ty,)*) => {$(
        fn $method(self, value: $type) -> Result<(), EncodeError> {
            write_integer(value, self.out);
            Ok(())
        }
    )*};
}

impl<'s, 'a> ser::Serializer for &'s mut Serializer<'a> {
    type Ok = ();
    type Error = EncodeError;
    type SerializeSeq = Compound<'s, 'a>;
    type SerializeTuple = Compound<'s, 'a>;
    type SerializeTupleStruct = Compound<'s, 'a>;
    type SerializeTupleVariant = Compound<'s, 'a>;
    type SerializeMap = Compound<'s, 'a>;
    type SerializeStruct = Compound<'s, 'a>;
    type SerializeStructVariant = Compound<'s, 'a>;

    integers! {
        serialize_i8: i8, serialize_i16: i16, serialize_i32: i32, serialize_i64: i64, serialize_i128: i128,
        serialize_u8: u8, serialize_u16: u16, serialize_u32: u32, serialize_u64: u64, serialize_u128: u128,
    }

    fn serialize_bool(self, value: bool) -> Result<(), EncodeError> {
        match value {
            true => self.out.push_str("true"),
            false => self.out.push_str("false"),
        }
        Ok(())
    }

    fn serialize_f32(self, value: f32) -> Result<(), EncodeError> {
        self.serialize_f64(value.into())
    }

    fn serialize_f64(self, value: f64) -> Result<(), EncodeError> {
        write_double(value, self.out);
        Ok(())
    }

    fn serialize_char(self, value: char) -> Result<(), EncodeError> {
        self.serialize_str(value.encode_utf8(&mut [0; 4]))
    }

    fn serialize_str(self, value: &str) -> Result<(), EncodeError> {
        write_string(value, self.out);
        Ok(())
    }

    fn serialize_bytes(self, value: &[u8]) -> Result<(), EncodeError> {
        value.serialize(self)
    }

    fn serialize_none(self) -> Result<(), EncodeError> {
        self.none = Some(self.out.len());
        self.serialize_unit()
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), EncodeError> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<(), EncodeError> {
        self.out.push_str("null");
        Ok(())
    }

    fn serialize_unit_struct(self, _name: &'static str) -> Result<(), EncodeError> {
        self.serialize_unit()
    }

    fn serialize_unit_variant(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
    ) -> Result<(), EncodeError> {
        self.serialize_str(variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _name: &'static str,
        value: &T,
    ) -> Result<(), EncodeError> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<(), EncodeError> {
        self.variant(variant);
        value.serialize(&mut *self)?;
        self.out.push('}');
        Ok(())
    }

    fn serialize_seq(self, _len: Option<usize>) -> Result<Compound<'s, 'a>, EncodeError> {
        Ok(self.open('[', "]"))
    }

    fn serialize_tuple(self, _len: usize) -> Result<Compound<'s, 'a>, EncodeError> {
        Ok(self.open('[', "]"))
    }

    fn serialize_tuple_struct(
        self,
        _name: &'static str,
        _len: usize,
    ) -> Result<Compound<'s, 'a>, EncodeError> {
        Ok(self.open('[', "]"))
    }

    fn serialize_tuple_variant(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
        _len: usize,
    ) -> Result<Compound<'s, 'a>, EncodeError> {
        self.variant(variant);
        Ok(self.open('[', "]}"))
    }

    fn serialize_map(self, _len: Option<usize>) -> Result<Compound<'s, 'a>, EncodeError> {
        Ok(self.open('{', "}"))
    }

    fn serialize_struct(
        self,
        _name: &'static str,
        _len: usize,
    ) -> Result<Compound<'s, 'a>, EncodeError> {
        Ok(self.open('{', "}"))
    }

    fn serialize_struct_variant(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
        _len: usize,
    ) -> Result<Compound<'s, 'a>, EncodeError> {
        self.variant(variant);
        Ok(self.open('{', "}}"))
    }
}

macro_rules! elements {
    ($($trait:ident::$method:ident,)*) => {$(
        impl ser::$trait for Compound<'_, '_> {
            type Ok = ();
            type Error = EncodeError;

            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), EncodeError> {
                self.element(value)
            }

            fn end(self) -> Result<(), EncodeError> {
                self.close()
            }
        }
    )*};
}

elements! {
    SerializeSeq::serialize_element, SerializeTuple::serialize_element,
    SerializeTupleStruct::serialize_field, SerializeTupleVariant::serialize_field,
}

macro_rules! members {
    ($($trait:ident)*) => {$(
        impl ser::$trait for Compound<'_, '_> {
            type Ok = ();
            type Error = EncodeError;

            #[inline]
            fn serialize_field<T: Serialize + ?Sized>(
                &mut self,
                name: &'static str,
                value: &T,
            ) -> Result<(), EncodeError> {
                self.member(name, value)
            }

            fn end(self) -> Result<(), EncodeError> {
                self.close()
            }
        }
    )*};
}

members! { SerializeStruct SerializeStructVariant }

impl ser::SerializeMap for Compound<'_, '_> {
    type Ok = ();
    type Error = EncodeError;

    /// Writes the key like any value. Text is a name already; numbers and Booleans get quotes.
    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), EncodeError> {
        self.start = self.serializer.out.len();
        self.separate();
        let from = self.serializer.out.len();
        key.serialize(&mut *self.serializer)?;
        let out = &mut *self.serializer.out;
        match out.as_bytes().get(from) {
            Some(b'"') => {}
            Some(b'-' | b'0'..=b'9' | b't' | b'f') => {
                out.insert(from, '"');
                out.push('"');
            }
            _ => return Err(ser::Error::custom("the name of a member must be a string")),
        }
        out.push_str(": ");
        Ok(())
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), EncodeError> {
        self.value(value)
    }

    fn end(self) -> Result<(), EncodeError> {
        self.close()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::Json;

    #[derive(serde::Serialize, PartialEq, Eq, PartialOrd, Ord)]
    enum Key {
        Unit,
        Newtype(u8),
    }

    #[test]
    fn keys_are_text_numbers_and_booleans() {
        fn encode<K: Serialize + Ord>(key: K) -> Result<String, EncodeError> {
            Json::encode(&BTreeMap::from([(key, ())])).map(|json| json.to_string())
        }
        let written = |name: &str| Ok(format!("{{\"{name}\": null}}"));
        assert_eq!(encode("é"), written("\\u00E9"));
        assert_eq!(encode('"'), written("\\\""));
        assert_eq!(encode(Key::Unit), written("Unit"));
        assert_eq!(encode(Some(-1)), written("-1"));
        assert_eq!(encode(u64::MAX), written("18446744073709551615"));
        assert_eq!(encode(true), written("true"));
        for refused in [encode([1]), encode(()), encode(None::<u8>), encode(Key::Newtype(1))] {
            assert_eq!(refused.unwrap_err().to_string(), "the name of a member must be a string");
        }
    }

    #[test]
    fn members_that_are_none_are_absent() {
        #[derive(serde::Serialize, Default)]
        struct Outer {
            a: Option<u8>,
            #[serde(flatten)]
            inner: Inner,
            b: Vec<Option<u8>>,
            c: Option<Option<()>>,
        }
        #[derive(serde::Serialize, Default)]
        struct Inner {
            d: Option<Box<Outer>>,
            e: Option<u8>,
            f: BTreeMap<&'static str, Option<u8>>,
        }
        let check = |outer: Outer, expected: &str| {
            assert_eq!(Json::encode(&outer).unwrap().as_str(), expected);
        };
        check(Outer::default(), r#"{"f": {}, "b": []}"#);
        let outer = Outer {
            a: Some(1),
            inner: Inner {
                d: Some(Box::default()),
                e: None,
                f: BTreeMap::from([("x", None), ("y", Some(2)), ("z", None)]),
            },
            b: vec![None, Some(3), None],
            c: Some(Some(())),
        };
        let expected =
            r#"{"a": 1, "d": {"f": {}, "b": []}, "f": {"y": 2}, "b": [null, 3, null], "c": null}"#;
        check(outer, expected);
        let last = Outer { b: vec![None], c: Some(None), ..Outer::default() };
        check(last, r#"{"f": {}, "b": [null]}"#);
        assert_eq!(Json::encode(&None::<u8>).unwrap().as_str(), "null");
    }

    #[test]
    fn variants_are_objects_of_one_member() {
        #[derive(serde::Serialize)]
        enum Shape {
            Newtype(u8),
            Tuple(u8, u8),
            Struct { a: i8 },
        }
        let shapes = (Shape::Newtype(1), Shape::Tuple(1, 2), Shape::Struct { a: -1 });
        let expected = r#"[{"Newtype": 1}, {"Tuple": [1, 2]}, {"Struct": {"a": -1}}]"#;
        assert_eq!(Json::encode(&shapes).unwrap().as_str(), expected);
    }
}
