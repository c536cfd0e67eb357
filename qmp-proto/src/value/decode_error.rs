// SPDX-License-Identifier: MIT OR Apache-2.0
//! Why a value cannot be deserialized.

use std::fmt;

use serde::de::{self, Expected, Unexpected};

/// A value does not have the shape of a type.
///
/// Displays as serde's text. QEMU's own words for wrong arguments come from the layer that knows the
/// command; [`kind`](DecodeError::kind) and [`path`](DecodeError::path) are for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecodeError(Box<Details>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Details {
    kind: DecodeErrorKind,
    /// serde's own.
    text: String,
    /// From the innermost step to the outermost.
    path: Vec<Step>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Member(String),
    Element(usize),
}

/// Why a type rejects a value: [`DecodeError::kind`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DecodeErrorKind {
    /// The value is of another type.
    WrongType {
        /// What the type accepts, in its own words.
        expected: String,
    },
    /// The type is right, and the value is not.
    WrongValue {
        /// What the type accepts, in its own words.
        expected: String,
    },
    /// An enum has no such variant.
    UnknownVariant(String),
    /// There is no such member.
    UnknownMember(String),
    /// A member is missing.
    MissingMember(&'static str),
    /// Another reason, in the type's own words.
    Other(String),
}

impl DecodeError {
    #[cold]
    fn new(kind: DecodeErrorKind, text: String) -> DecodeError {
        DecodeError(Box::new(Details { kind, text, path: Vec::new() }))
    }

    /// Returns what is wrong.
    pub fn kind(&self) -> &DecodeErrorKind {
        &self.0.kind
    }

    /// Returns where it is wrong, such as `list[1].id`; empty for the value as a whole. Does not go into
    /// enums with content, nor into flattened members.
    pub fn path(&self) -> String {
        let mut path = String::new();
        for step in self.0.path.iter().rev() {
            match step {
                Step::Member(name) => {
                    if !path.is_empty() {
                        path.push('.');
                    }
                    path.push_str(name);
                }
                Step::Element(index) => path.push_str(&format!("[{index}]")),
            }
        }
        path
    }

    #[cold]
    pub(crate) fn in_member(mut self, name: String) -> DecodeError {
        self.0.path.push(Step::Member(name));
        self
    }

    #[cold]
    pub(super) fn in_element(mut self, index: usize) -> DecodeError {
        self.0.path.push(Step::Element(index));
        self
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.text)
    }
}

impl std::error::Error for DecodeError {}

impl de::Error for DecodeError {
    fn custom<T: fmt::Display>(message: T) -> DecodeError {
        let text = message.to_string();
        DecodeError::new(DecodeErrorKind::Other(text.clone()), text)
    }

    fn invalid_type(unexpected: Unexpected<'_>, expected: &dyn Expected) -> DecodeError {
        let text = format!("invalid type: {unexpected}, expected {expected}");
        DecodeError::new(DecodeErrorKind::WrongType { expected: expected.to_string() }, text)
    }

    fn invalid_value(unexpected: Unexpected<'_>, expected: &dyn Expected) -> DecodeError {
        let text = format!("invalid value: {unexpected}, expected {expected}");
        DecodeError::new(DecodeErrorKind::WrongValue { expected: expected.to_string() }, text)
    }

    fn invalid_length(length: usize, expected: &dyn Expected) -> DecodeError {
        let text = format!("invalid length {length}, expected {expected}");
        DecodeError::new(DecodeErrorKind::WrongValue { expected: expected.to_string() }, text)
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> DecodeError {
        let text = format!("unknown variant `{variant}`, there are {}", Listed(expected));
        DecodeError::new(DecodeErrorKind::UnknownVariant(variant.to_owned()), text)
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> DecodeError {
        let text = format!("unknown field `{field}`, there are {}", Listed(expected));
        DecodeError::new(DecodeErrorKind::UnknownMember(field.to_owned()), text)
    }

    fn missing_field(field: &'static str) -> DecodeError {
        DecodeError::new(DecodeErrorKind::MissingMember(field), format!("missing field `{field}`"))
    }

    fn duplicate_field(field: &'static str) -> DecodeError {
        de::Error::custom(format_args!("duplicate field `{field}`"))
    }
}

struct Listed(&'static [&'static str]);

impl fmt::Display for Listed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("none");
        }
        let quoted: Vec<String> = self.0.iter().map(|name| format!("`{name}`")).collect();
        f.write_str(&quoted.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Object, Value, from_object, from_value};

    #[test]
    fn what_is_wrong_is_found_with_its_path() {
        #[derive(Debug, serde::Deserialize)]
        struct Resize {
            #[allow(dead_code)]
            sizes: Vec<std::num::NonZeroI8>,
        }
        let object = Object::from_iter([("sizes", Value::Array(vec![1.into(), 0.into()]))]);
        let error = from_object::<Resize>(object).unwrap_err();
        assert_eq!(error.path(), "sizes[1]");
        assert_eq!(error.kind(), &DecodeErrorKind::WrongValue { expected: "a nonzero i8".into() });
        assert_eq!(error.to_string(), "invalid value: integer `0`, expected a nonzero i8");

        let error = from_value::<bool>(Value::from("on")).unwrap_err();
        assert_eq!(error.path(), "");
        assert_eq!(error.kind(), &DecodeErrorKind::WrongType { expected: "a boolean".into() });

        assert_eq!(from_object::<()>(Object::new()), Ok(()));
        assert!(from_object::<()>(Object::from_iter([("x", 1)])).is_err());
    }
}
