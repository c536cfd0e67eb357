// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a type refuses although its schema allows it, in QEMU's words.

use qmp_proto::{DecodeError, DecodeErrorKind, Error, Object, from_object};
use serde::de::{Deserialize, DeserializeOwned, Deserializer};

/// Deserializes arguments that have been checked.
pub(crate) fn decode<A: DeserializeOwned>(arguments: Object) -> Result<A, Error> {
    from_object(arguments).map_err(|error| Error::generic(describe(&error)))
}

/// Deserializes a member that is present, null or not, so that an alternate with null as a branch can tell
/// null from absent.
///
/// ```
/// use qmp_dispatch::qapi::arguments_of;
///
/// #[derive(serde::Deserialize, schemars::JsonSchema)]
/// #[serde(untagged)]
/// enum StrOrNull {
///     Str(String),
///     Null(()),
/// }
///
/// #[derive(serde::Deserialize, schemars::JsonSchema)]
/// struct Change {
///     #[serde(default, deserialize_with = "qmp_dispatch::qapi::present")]
///     #[schemars(with = "StrOrNull")]
///     backing: Option<StrOrNull>,
/// }
///
/// let change = arguments_of::<Change>()?;
/// let absent: Change = change.decode([("x", 1); 0].into_iter().collect()).unwrap();
/// assert!(absent.backing.is_none());
/// let null = [("backing", qmp_proto::Value::Null)].into_iter().collect();
/// assert!(matches!(change.decode(null), Ok(Change { backing: Some(StrOrNull::Null(())) })));
/// # Ok::<(), qmp_dispatch::qapi::SchemaError>(())
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

/// How serde says that none of the branches of an untagged enum has taken a value, without a reason.
const NO_BRANCH: &str = "data did not match any variant of untagged enum";

#[cold]
fn describe(error: &DecodeError) -> String {
    let place = error.path();
    let member = |name: &str| match place.is_empty() {
        true => name.to_owned(),
        false => format!("{place}.{name}"),
    };
    match error.kind() {
        DecodeErrorKind::MissingMember(name) => format!("Parameter '{}' is missing", member(name)),
        DecodeErrorKind::UnknownMember(name) => {
            format!("Parameter '{}' is unexpected", member(name))
        }
        DecodeErrorKind::UnknownVariant(name) => {
            format!("Parameter '{}' does not accept value '{name}'", bare(&place))
        }
        DecodeErrorKind::WrongType { expected } => {
            format!("Invalid parameter type for '{}', expected: {expected}", or_null(&place))
        }
        DecodeErrorKind::WrongValue { expected } => {
            format!("Parameter '{}' expects {expected}", bare(&place))
        }
        DecodeErrorKind::Other(text) if text.starts_with(NO_BRANCH) => {
            format!("Invalid parameter '{}'", or_null(&place))
        }
        DecodeErrorKind::Other(text) if !place.is_empty() => {
            format!("Invalid parameter '{place}': {text}")
        }
        // Of the arguments as a whole, or of we know not which.
        _ => error.to_string(),
    }
}

/// The last name alone; as in the checks, it is all that is told of values whose type is right.
fn bare(place: &str) -> &str {
    let name = place.rsplit('.').next().unwrap_or_default();
    if name.is_empty() || name.ends_with(']') { "null" } else { name }
}

fn or_null(place: &str) -> &str {
    if place.is_empty() { "null" } else { place }
}
