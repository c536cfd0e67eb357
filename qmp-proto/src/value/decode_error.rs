// SPDX-License-Identifier: MIT OR Apache-2.0
//! Why a value cannot be deserialized.

use std::fmt;

use serde::de::{self, Expected, Unexpected};

/// A value does not have the shape of the type that was asked for.
///
/// Displays as serde's text. QEMU's own words for wrong arguments come from the layer that knows the
/// command; [`problem`](DecodeError::problem) and [`place`](DecodeError::place) are for it.
///
/// ```
/// use qmp_proto::{DecodeProblem, Object, Value, from_object};
///
/// #[derive(Debug, serde::Deserialize)]
/// struct Resize {
///     #[allow(dead_code)]
///     sizes: Vec<std::num::NonZeroI8>,
/// }
///
/// let object = Object::from_iter([("sizes", Value::Array(vec![1.into(), 0.into()]))]);
/// let error = from_object::<Resize>(object).unwrap_err();
/// assert_eq!(error.place(), "sizes[1]");
/// assert_eq!(error.problem(), &DecodeProblem::WrongValue { expected: "a nonzero i8".into() });
/// assert_eq!(error.to_string(), "invalid value: integer `0`, expected a nonzero i8");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecodeError(Box<Details>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Details {
    problem: DecodeProblem,
    /// As serde says it.
    text: String,
    /// From the value up.
    path: Vec<Step>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Member(String),
    Element(usize),
}

/// What a type has against a value: [`DecodeError::problem`].
///
/// ```
/// use qmp_proto::{DecodeProblem, Value, from_value};
///
/// let error = from_value::<bool>(Value::from("on")).unwrap_err();
/// assert_eq!(error.problem(), &DecodeProblem::WrongType { expected: "a boolean".into() });
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DecodeProblem {
    /// It is of another type.
    WrongType {
        /// What the type would take, in its own words.
        expected: String,
    },
    /// The type is right, and the value is not.
    WrongValue {
        /// What the type would take, in its own words.
        expected: String,
    },
    /// An enum has no such variant.
    UnknownVariant(String),
    /// There is no such member.
    UnknownMember(String),
    /// A member is missing.
    MissingMember(&'static str),
    /// Anything else, in the type's own words.
    Other(String),
}

impl DecodeError {
    #[cold]
    fn new(problem: DecodeProblem, text: String) -> DecodeError {
        DecodeError(Box::new(Details { problem, text, path: Vec::new() }))
    }

    /// What is wrong.
    pub fn problem(&self) -> &DecodeProblem {
        &self.0.problem
    }

    /// Where, such as `list[1].id`; empty if it is the value as a whole. Values within an enum with content,
    /// and within what is flattened, are not told apart from it.
    pub fn place(&self) -> String {
        let mut place = String::new();
        for step in self.0.path.iter().rev() {
            match step {
                Step::Member(name) => {
                    if !place.is_empty() {
                        place.push('.');
                    }
                    place.push_str(name);
                }
                Step::Element(index) => place.push_str(&format!("[{index}]")),
            }
        }
        place
    }

    #[cold]
    pub(super) fn in_member(mut self, name: String) -> DecodeError {
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
        DecodeError::new(DecodeProblem::Other(text.clone()), text)
    }

    fn invalid_type(unexpected: Unexpected<'_>, expected: &dyn Expected) -> DecodeError {
        let text = format!("invalid type: {unexpected}, expected {expected}");
        DecodeError::new(DecodeProblem::WrongType { expected: expected.to_string() }, text)
    }

    fn invalid_value(unexpected: Unexpected<'_>, expected: &dyn Expected) -> DecodeError {
        let text = format!("invalid value: {unexpected}, expected {expected}");
        DecodeError::new(DecodeProblem::WrongValue { expected: expected.to_string() }, text)
    }

    fn invalid_length(length: usize, expected: &dyn Expected) -> DecodeError {
        let text = format!("invalid length {length}, expected {expected}");
        DecodeError::new(DecodeProblem::WrongValue { expected: expected.to_string() }, text)
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> DecodeError {
        let text = format!("unknown variant `{variant}`, there are {}", Listed(expected));
        DecodeError::new(DecodeProblem::UnknownVariant(variant.to_owned()), text)
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> DecodeError {
        let text = format!("unknown field `{field}`, there are {}", Listed(expected));
        DecodeError::new(DecodeProblem::UnknownMember(field.to_owned()), text)
    }

    fn missing_field(field: &'static str) -> DecodeError {
        DecodeError::new(DecodeProblem::MissingMember(field), format!("missing field `{field}`"))
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
