// SPDX-License-Identifier: MIT OR Apache-2.0
//! A serde serializer for the names of members.

use std::fmt;

use serde::ser::{self, Impossible, Serialize};

use super::EncodeError;
use super::scalar::write_string;

/// Writes the key of a map, which JSON wants to be a string.
pub(super) struct Name<'a> {
    out: &'a mut String,
}

impl<'a> Name<'a> {
    pub(super) fn new(out: &'a mut String) -> Name<'a> {
        Name { out }
    }

    fn display(self, name: impl fmt::Display) -> Result<(), EncodeError> {
        write_string(&name.to_string(), self.out);
        Ok(())
    }

    fn refuse<T>() -> Result<T, EncodeError> {
        Err(ser::Error::custom("the name of a member must be a string"))
    }
}

impl ser::Serializer for Name<'_> {
    type Ok = ();
    type Error = EncodeError;
    type SerializeSeq = Impossible<(), EncodeError>;
    type SerializeTuple = Impossible<(), EncodeError>;
    type SerializeTupleStruct = Impossible<(), EncodeError>;
    type SerializeTupleVariant = Impossible<(), EncodeError>;
    type SerializeMap = Impossible<(), EncodeError>;
    type SerializeStruct = Impossible<(), EncodeError>;
    type SerializeStructVariant = Impossible<(), EncodeError>;

    fn serialize_str(self, value: &str) -> Result<(), EncodeError> {
        write_string(value, self.out);
        Ok(())
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

    fn serialize_bool(self, value: bool) -> Result<(), EncodeError> {
        self.display(value)
    }

    fn serialize_char(self, value: char) -> Result<(), EncodeError> {
        self.display(value)
    }

    fn serialize_i8(self, value: i8) -> Result<(), EncodeError> {
        self.display(value)
    }

    fn serialize_i16(self, value: i16) -> Result<(), EncodeError> {
        self.display(value)
    }

    fn serialize_i32(self, value: i32) -> Result<(), EncodeError> {
        self.display(value)
    }

    fn serialize_i64(self, value: i64) -> Result<(), EncodeError> {
        self.display(value)
    }

    fn serialize_u8(self, value: u8) -> Result<(), EncodeError> {
        self.display(value)
    }

    fn serialize_u16(self, value: u16) -> Result<(), EncodeError> {
        self.display(value)
    }

    fn serialize_u32(self, value: u32) -> Result<(), EncodeError> {
        self.display(value)
    }

    fn serialize_u64(self, value: u64) -> Result<(), EncodeError> {
        self.display(value)
    }

    fn serialize_f32(self, _value: f32) -> Result<(), EncodeError> {
        Self::refuse()
    }

    fn serialize_f64(self, _value: f64) -> Result<(), EncodeError> {
        Self::refuse()
    }

    fn serialize_bytes(self, _value: &[u8]) -> Result<(), EncodeError> {
        Self::refuse()
    }

    fn serialize_none(self) -> Result<(), EncodeError> {
        Self::refuse()
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), EncodeError> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<(), EncodeError> {
        Self::refuse()
    }

    fn serialize_unit_struct(self, _name: &'static str) -> Result<(), EncodeError> {
        Self::refuse()
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _name: &'static str,
        _index: u32,
        _variant: &'static str,
        _value: &T,
    ) -> Result<(), EncodeError> {
        Self::refuse()
    }

    fn serialize_seq(self, _len: Option<usize>) -> Result<Self::SerializeSeq, EncodeError> {
        Self::refuse()
    }

    fn serialize_tuple(self, _len: usize) -> Result<Self::SerializeTuple, EncodeError> {
        Self::refuse()
    }

    fn serialize_tuple_struct(
        self,
        _name: &'static str,
        _len: usize,
    ) -> Result<Self::SerializeTupleStruct, EncodeError> {
        Self::refuse()
    }

    fn serialize_tuple_variant(
        self,
        _name: &'static str,
        _index: u32,
        _variant: &'static str,
        _len: usize,
    ) -> Result<Self::SerializeTupleVariant, EncodeError> {
        Self::refuse()
    }

    fn serialize_map(self, _len: Option<usize>) -> Result<Self::SerializeMap, EncodeError> {
        Self::refuse()
    }

    fn serialize_struct(
        self,
        _name: &'static str,
        _len: usize,
    ) -> Result<Self::SerializeStruct, EncodeError> {
        Self::refuse()
    }

    fn serialize_struct_variant(
        self,
        _name: &'static str,
        _index: u32,
        _variant: &'static str,
        _len: usize,
    ) -> Result<Self::SerializeStructVariant, EncodeError> {
        Self::refuse()
    }
}
