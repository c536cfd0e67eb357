// SPDX-License-Identifier: MIT OR Apache-2.0
//! Parts of deserialization that serde's attributes do not have, for types that are written by hand or generated.

use std::fmt::Display;

use serde::de::{Deserialize, DeserializeOwned, Deserializer, Error};

use crate::{DecodeError, Object, Value, from_value};

/// Deserializes a member that is present, null or not, so that a type with null among its values can tell null from absent.
/// A member whose schema is made of its type without the `Option` also needs `skip_serializing_if`, if it is written, too:
/// otherwise its schema says that it is always there.
///
/// ```
/// use qmp_proto::{Object, Value, from_object};
///
/// #[derive(serde::Deserialize)]
/// #[serde(untagged)]
/// enum StrOrNull {
///     Str(String),
///     Null,
/// }
///
/// #[derive(serde::Deserialize)]
/// struct Change {
///     #[serde(default, deserialize_with = "qmp_proto::decode::present")]
///     backing: Option<StrOrNull>,
/// }
///
/// let absent: Change = from_object(Object::new())?;
/// assert!(absent.backing.is_none());
/// let null = Object::from_iter([("backing", Value::Null)]);
/// assert!(matches!(from_object(null), Ok(Change { backing: Some(StrOrNull::Null) })));
/// # Ok::<(), qmp_proto::DecodeError>(())
/// ```
///
/// # Errors
///
/// Those of `T`.
pub fn present<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    T::deserialize(deserializer).map(Some)
}

/// Deserializes an object by taking its members: for `Deserialize` by hand.
///
/// Other than with `#[serde(flatten)]` and `#[serde(tag = "…")]`, nothing is copied if the deserializer is a [`Value`], however
/// deep such types are within each other.
///
/// ```
/// use qmp_proto::{DecodeError, Object, Value, decode, from_object, from_value};
///
/// /// A union: the members of `info` depend on `type`.
/// enum ImageInfo {
///     Luks { cipher: String },
///     Raw,
///     Unknown(Object),
/// }
///
/// impl<'de> serde::Deserialize<'de> for ImageInfo {
///     fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
///         decode::object(deserializer, |mut members| {
///             Ok(match decode::tag(&members, "type")? {
///                 "luks" => Self::Luks { cipher: decode::member(&mut members, "cipher")? },
///                 "raw" => Self::Raw,
///                 _ => Self::Unknown(members),
///             })
///         })
///     }
/// }
///
/// let info: ImageInfo = from_value("{'type': 'luks', 'cipher': 'aes'}".parse().unwrap())?;
/// assert!(matches!(info, ImageInfo::Luks { cipher } if cipher == "aes"));
/// # Ok::<(), DecodeError>(())
/// ```
///
/// # Errors
///
/// Those of `read`, and an error if this is not an object.
pub fn object<'de, D, T>(
    deserializer: D,
    read: impl FnOnce(Object) -> Result<T, DecodeError>,
) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
{
    read(Object::deserialize(deserializer)?).map_err(|error| D::Error::custom(Located(error)))
}

/// Deserializes any value by looking at it: for `Deserialize` by hand, as [`object`].
///
/// # Errors
///
/// Those of `read`.
pub fn value<'de, D, T>(
    deserializer: D,
    read: impl FnOnce(Value) -> Result<T, DecodeError>,
) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
{
    read(Value::deserialize(deserializer)?).map_err(|error| D::Error::custom(Located(error)))
}

/// Returns the text of the member by which a union tells its variants apart.
///
/// # Errors
///
/// An error if the member is missing, or not a string.
pub fn tag<'o>(members: &'o Object, name: &'static str) -> Result<&'o str, DecodeError> {
    let tag = members.get(name).ok_or_else(|| DecodeError::missing_field(name))?;
    let wrong = || DecodeError::custom("expected a string").in_member(name.to_owned());
    tag.as_str().ok_or_else(wrong)
}

/// Removes a member and converts it.
///
/// # Errors
///
/// An error if the member is missing, and those of `T`.
pub fn member<T: DeserializeOwned>(
    members: &mut Object,
    name: &'static str,
) -> Result<T, DecodeError> {
    optional_member(members, name)?.ok_or_else(|| DecodeError::missing_field(name))
}

/// Removes a member and converts it, if there is one.
///
/// # Errors
///
/// Those of `T`.
pub fn optional_member<T: DeserializeOwned>(
    members: &mut Object,
    name: &'static str,
) -> Result<Option<T>, DecodeError> {
    let Some(value) = members.remove(name) else { return Ok(None) };
    from_value(value).map(Some).map_err(|error| error.in_member(name.to_owned()))
}

/// Returns the error of a value that is not of one of these JSON types.
pub fn unexpected(value: &Value, expected: &str) -> DecodeError {
    let found = match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    };
    DecodeError::custom(format_args!("expected {expected}, found {found}"))
}

/// An error with its place: where it goes to, the place gets lost.
struct Located(DecodeError);

impl Display for Located {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0.path() {
            path if path.is_empty() => self.0.fmt(f),
            path => write!(f, "{path}: {}", self.0),
        }
    }
}
