// SPDX-License-Identifier: MIT OR Apache-2.0
//! JSON values as QEMU has them: exact 64-bit integers, doubles, text, and objects without duplicate
//! names.

mod de;
mod decode_error;
mod number;
pub mod object;
mod parse;
mod ser;

use std::fmt;

pub use de::{from_object, from_value};
pub use decode_error::{DecodeError, DecodeErrorKind};
pub use number::Number;
pub use object::Object;
pub(crate) use object::ObjectBuilder;
pub use parse::ParseValueError;

/// Any JSON value.
///
/// Equality of objects does not depend on the order of their members. Mirrors `QObject`.
///
/// ```
/// use qmp_proto::{Object, Value, from_object};
///
/// let mut object = Object::new();
/// object.insert("device", "disk0");
/// object.insert("size", 1i64 << 40);
/// let value = Value::from(object.clone());
/// assert_eq!(value.get("size").and_then(Value::as_i64), Some(1 << 40));
/// assert_eq!(value.to_string(), r#"{"device": "disk0", "size": 1099511627776}"#);
/// assert_eq!("{'size': 1099511627776, 'device': 'disk0'}".parse(), Ok(value));
///
/// #[derive(Debug, serde::Deserialize)]
/// struct Resize {
///     size: i8,
/// }
/// let error = from_object::<Resize>(object).unwrap_err();
/// assert_eq!(error.path(), "size");
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
    /// Text. May have NULs. The parser accepts no noncharacters.
    String(String),
    /// An array.
    Array(Vec<Value>),
    /// An object.
    Object(Object),
}

impl Value {
    /// Returns about how many bytes the value has allocated: what a queue of values takes, for whoever bounds it. Takes time linear
    /// in the number of values.
    pub fn heap_size(&self) -> usize {
        match self {
            Value::Null | Value::Bool(_) | Value::Number(_) => 0,
            Value::String(text) => text.capacity(),
            Value::Array(elements) => {
                let own = elements.capacity() * size_of::<Value>();
                elements.iter().fold(own, |sum, element| sum + element.heap_size())
            }
            Value::Object(object) => object.heap_size(),
        }
    }

    /// Returns the member `name`, if this is an object that has it.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.as_object()?.get(name)
    }

    /// Returns the object, if this is one.
    pub fn as_object(&self) -> Option<&Object> {
        match self {
            Value::Object(object) => Some(object),
            _ => None,
        }
    }

    /// Returns the elements, if this is an array.
    pub fn as_array(&self) -> Option<&[Value]> {
        match self {
            Value::Array(array) => Some(array),
            _ => None,
        }
    }

    /// Returns the text, if this is a string.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    /// Returns `true` if this is `null`.
    pub fn is_null(&self) -> bool {
        matches!(self, Value::Null)
    }

    /// Returns the Boolean, if this is one.
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Value::Bool(value) => Some(*value),
            _ => None,
        }
    }

    /// Returns the number, if this is one.
    pub fn as_number(&self) -> Option<Number> {
        match self {
            Value::Number(number) => Some(*number),
            _ => None,
        }
    }

    /// Returns the integer, if this is one in the range of `i64`. A double is never an integer, not even
    /// `1.0`.
    pub fn as_i64(&self) -> Option<i64> {
        self.as_number()?.as_i64()
    }

    /// Returns the integer, if this is one in the range of `u64`.
    pub fn as_u64(&self) -> Option<u64> {
        self.as_number()?.as_u64()
    }

    /// Returns the nearest double, if this is a number.
    pub fn as_f64(&self) -> Option<f64> {
        Some(self.as_number()?.as_f64())
    }
}

/// As QEMU would write it, on one line.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::new();
        crate::Json::write_value(self, &mut text);
        f.write_str(&text)
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Value {
        Value::Bool(value)
    }
}

impl From<Number> for Value {
    fn from(number: Number) -> Value {
        Value::Number(number)
    }
}

macro_rules! from_numbers {
    ($($number:ty)*) => {$(
        impl From<$number> for Value {
            fn from(value: $number) -> Value {
                Value::Number(value.into())
            }
        }
    )*};
}

from_numbers! { i32 u32 i64 u64 f64 }

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
