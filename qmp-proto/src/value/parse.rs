// SPDX-License-Identifier: MIT OR Apache-2.0
//! One value as text. Mirrors QEMU's `qobject_from_json` (`qobject/qjson.c`).

use std::str::FromStr;

use super::Value;
use crate::{Reader, SyntaxError};

/// A text is not one JSON value.
///
/// ```
/// use qmp_proto::{ParseValueError, Value};
///
/// assert_eq!("[1".parse::<Value>(), Err(ParseValueError::Incomplete));
/// assert_eq!("[1] 2".parse::<Value>(), Err(ParseValueError::Trailing));
/// let error = "[1,]".parse::<Value>().unwrap_err();
/// assert_eq!(error.to_string(), "1:4: JSON parse error, expecting value");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseValueError {
    /// It is not JSON as QEMU understands it, or too large.
    #[error(transparent)]
    Syntax(#[from] SyntaxError),
    /// It ends before the value does, or there is none.
    #[error("the value is not complete")]
    Incomplete,
    /// There is more than white space behind the value.
    #[error("there is something behind the value")]
    Trailing,
}

/// In QEMU's dialect, and within its limits, as a [`Reader`] reads it.
impl FromStr for Value {
    type Err = ParseValueError;

    fn from_str(text: &str) -> Result<Value, ParseValueError> {
        let mut reader = Reader::default();
        let mut input = text.as_bytes();
        let value = match reader.read(&mut input) {
            Some(message) => message?.to_value()?,
            // A number or a word at the end is complete when something else follows.
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
