// SPDX-License-Identifier: MIT OR Apache-2.0
//! One value as text. Mirrors QEMU's `qobject_from_json` (`qobject/qjson.c`).

use std::str::FromStr;

use super::Value;
use crate::{Reader, SyntaxError};

/// Why a text is not one JSON value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseValueError {
    /// It is not JSON in QEMU's dialect, or too large.
    #[error(transparent)]
    Syntax(#[from] SyntaxError),
    /// The text ends within a value, or before one.
    #[error("incomplete value")]
    Incomplete,
    /// The value is followed by more than white space.
    #[error("trailing characters after the value")]
    Trailing,
}

/// Reads QEMU's dialect within its limits, like a [`Reader`].
impl FromStr for Value {
    type Err = ParseValueError;

    fn from_str(text: &str) -> Result<Value, ParseValueError> {
        let mut reader = Reader::default();
        let mut input = text.as_bytes();
        let value = match reader.read(&mut input) {
            Some(message) => message?.to_value()?,
            // A number or word at the end of the text is complete only when something else follows.
            None => match reader.read(&mut &b" "[..]) {
                Some(message) => message?.to_value()?,
                None => return Err(ParseValueError::Incomplete),
            },
        };
        let alone = reader.read(&mut input).is_none() && reader.is_idle();
        if alone { Ok(value) } else { Err(ParseValueError::Trailing) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_one_value() {
        for text in ["7", " null ", "'a'", "{}\r\n"] {
            assert!(text.parse::<Value>().is_ok(), "{text}");
        }
        for text in ["", " ", "[", "'a", "{'a': 1"] {
            assert_eq!(text.parse::<Value>(), Err(ParseValueError::Incomplete), "{text}");
        }
        for text in ["1 2", "[] [", "{} '", "{} @"] {
            assert_eq!(text.parse::<Value>(), Err(ParseValueError::Trailing), "{text}");
        }
        assert!(matches!("@".parse::<Value>(), Err(ParseValueError::Syntax(_))));
    }
}
