// SPDX-License-Identifier: MIT OR Apache-2.0
//! Decodes arguments whose schema has been checked, and words what the type itself still refuses as QEMU would.

use qmp_proto::{DecodeError, DecodeErrorKind, Error, Object, from_object};
use serde::de::DeserializeOwned;

/// Deserializes arguments that have been checked.
pub(crate) fn decode<A: DeserializeOwned>(arguments: Object) -> Result<A, Error> {
    from_object(arguments).map_err(|error| Error::generic(describe(&error)))
}

/// The beginning of serde's message when no variant of an untagged enum accepts a value. It gives no reason.
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
        // The error concerns the arguments as a whole, or serde did not say which of them.
        _ => error.to_string(),
    }
}

/// Returns the last name of a path. The checks, too, report no more of a value whose type is right.
fn bare(place: &str) -> &str {
    let name = place.rsplit('.').next().unwrap_or_default();
    if name.is_empty() || name.ends_with(']') { "null" } else { name }
}

fn or_null(place: &str) -> &str {
    if place.is_empty() { "null" } else { place }
}
