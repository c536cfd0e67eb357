// SPDX-License-Identifier: MIT OR Apache-2.0
//! JSON text in QEMU's form.

mod elements;
mod layout;
mod scalar;
mod ser;
mod tree;

use std::borrow::Cow;
use std::fmt;
use std::hash::{Hash, Hasher};

use serde::de::DeserializeOwned;
use serde::{Serialize, Serializer};

pub use layout::Layout;
pub use ser::EncodeError;

use crate::lexer::{Kind, Token};
use crate::parser::parse_well_formed;
use crate::{DecodeError, Object, Value, from_value};

/// Initial capacity in bytes; most responses never reallocate.
pub(crate) const USUAL_SIZE: usize = 256;

/// The text of one JSON value: well-formed, in ASCII and on one line.
///
/// [`encode`](Json::encode) writes as QEMU does: `", "` and `": "` as separators, characters outside of
/// printable ASCII as `\uXXXX`, doubles like C's `%.17g`. Members keep the order in which their type
/// serializes them; those of a [`Value`] are in QEMU's order. A member that is `None` is left out, as QEMU leaves out
/// optional members that are absent; null is written for a unit. Text that was received keeps its spelling.
///
/// JSON has no infinite numbers. QEMU prints `inf`, which no client can read; here they become the
/// largest finite double with that sign, and NaN becomes `null`.
///
/// ```
/// use qmp_proto::Json;
///
/// #[derive(serde::Serialize)]
/// struct StatusInfo<'a> {
///     status: &'a str,
///     running: bool,
/// }
///
/// let json = Json::encode(&StatusInfo { status: "running", running: true })?;
/// assert_eq!(json.as_str(), r#"{"status": "running", "running": true}"#);
/// let json = Json::encode(&("é", 0.1))?;
/// assert_eq!(json.as_str(), r#"["\u00E9", 0.10000000000000001]"#);
/// assert_eq!(json.decode(), Ok(("é".to_owned(), 0.1)));
/// assert_eq!(json.retain_elements(|index| index > 0).as_str(), "[0.10000000000000001]");
/// # Ok::<(), qmp_proto::EncodeError>(())
/// ```
#[derive(Clone)]
pub struct Json {
    text: Cow<'static, str>,
    /// Where the value begins in the text: after [`RETURN`], or at 0.
    start: usize,
}

/// The start of a successful response. Values are written after it, so that a result need not be moved
/// when it becomes a response.
pub(crate) const RETURN: &str = "{\"return\": ";

impl Json {
    /// The empty object: the result of a command that returns nothing.
    pub const EMPTY_OBJECT: Json = Json { text: Cow::Borrowed("{}"), start: 0 };

    /// Writes `value` in QEMU's form.
    ///
    /// # Errors
    ///
    /// [`EncodeError`] if the type's own serialization fails, or a map has keys that are neither
    /// text nor numbers nor Booleans.
    pub fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Json, EncodeError> {
        let mut text = after_return();
        value.serialize(&mut ser::Serializer::new(&mut text))?;
        Ok(Json { text: text.into(), start: RETURN.len() })
    }

    /// Returns the text.
    pub fn as_str(&self) -> &str {
        &self.text[self.start..]
    }

    /// Returns the text with [`RETURN`] before it.
    #[inline]
    pub(crate) fn into_return(self) -> String {
        match self.text {
            Cow::Owned(text) if self.start == RETURN.len() => text,
            Cow::Owned(mut text) => {
                text.insert_str(0, RETURN);
                text
            }
            Cow::Borrowed(value) => {
                let mut text = after_return();
                text.push_str(value);
                text
            }
        }
    }

    /// Parses the text.
    pub fn to_value(&self) -> Value {
        parse_well_formed(self.as_str().as_bytes())
    }

    /// Parses the text as the given type.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] if the value has another shape.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, DecodeError> {
        from_value(self.to_value())
    }

    /// Returns the array without the elements for whose indices `keep` returns false. The other elements
    /// keep their text. A value that is not an array is returned unchanged.
    #[must_use]
    pub fn retain_elements(&self, keep: impl FnMut(usize) -> bool) -> Json {
        elements::retain(self.as_str(), keep)
            .map_or_else(|| self.clone(), |text| Json { text: text.into(), start: 0 })
    }

    /// Creates the value that consists of these tokens of `text`, which have been checked. Text that is not
    /// plain JSON in ASCII on one line is rewritten; members keep their order.
    pub(crate) fn from_checked(text: &[u8], tokens: &[Token]) -> Json {
        let (Some(first), Some(last)) = (tokens.first(), tokens.last()) else {
            return Json::from(&Value::Null);
        };
        let value = &text[first.start..last.end];
        // No early exit, so that the loop vectorises.
        let on_one_line = value.iter().fold(true, |all, byte| all & matches!(byte, b' '..=b'~'));
        let strict = |token: &Token| match token.kind {
            Kind::PlainString => text[token.start] == b'"',
            Kind::String => {
                text[token.start] == b'"'
                    && !text[token.start..token.end].windows(2).any(|pair| pair == b"\\'")
            }
            _ => true,
        };
        match std::str::from_utf8(value) {
            Ok(value) if on_one_line && tokens.iter().all(strict) => {
                Json { text: value.to_owned().into(), start: 0 }
            }
            _ => Json::from_tokens(text, tokens),
        }
    }

    /// Writes each token in QEMU's form.
    #[cold]
    fn from_tokens(text: &[u8], tokens: &[Token]) -> Json {
        let mut out = after_return();
        for token in tokens {
            match token.kind {
                Kind::OpenBrace => out.push('{'),
                Kind::CloseBrace => out.push('}'),
                Kind::OpenBracket => out.push('['),
                Kind::CloseBracket => out.push(']'),
                Kind::Comma => out.push_str(", "),
                Kind::Colon => out.push_str(": "),
                _ => tree::write_value(&parse_well_formed(&text[token.start..token.end]), &mut out),
            }
        }
        Json { text: out.into(), start: RETURN.len() }
    }

    /// Writes a value whose serialization cannot fail.
    pub(crate) fn write_value(value: &Value, out: &mut String) {
        tree::write_value(value, out);
    }

    pub(crate) fn write_object(object: &Object, out: &mut String) {
        tree::write_object(object, out);
    }

    pub(crate) fn write_integer(value: i64, out: &mut String) {
        scalar::write_integer(value, out);
    }

    /// Writes a string with its quotes.
    pub(crate) fn write_string(text: &str, out: &mut String) {
        scalar::write_string(text, out);
    }
}

impl fmt::Debug for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Json({self})")
    }
}

impl fmt::Display for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl From<&Value> for Json {
    fn from(value: &Value) -> Json {
        let mut text = after_return();
        tree::write_value(value, &mut text);
        Json { text: text.into(), start: RETURN.len() }
    }
}

impl From<&Object> for Json {
    fn from(object: &Object) -> Json {
        let mut text = after_return();
        tree::write_object(object, &mut text);
        Json { text: text.into(), start: RETURN.len() }
    }
}

impl AsRef<str> for Json {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

/// By the text: values that are spelt differently are different.
impl PartialEq for Json {
    fn eq(&self, other: &Json) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Json {}

impl Hash for Json {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

/// As the value, with its members in the order of the text.
impl Serialize for Json {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        AsWritten(&self.to_value()).serialize(serializer)
    }
}

struct AsWritten<'a>(&'a Value);

impl Serialize for AsWritten<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::Array(array) => serializer.collect_seq(array.iter().map(AsWritten)),
            Value::Object(object) => {
                serializer.collect_map(object.iter().map(|(name, value)| (name, AsWritten(value))))
            }
            scalar => scalar.serialize(serializer),
        }
    }
}

fn after_return() -> String {
    let mut text = String::with_capacity(USUAL_SIZE);
    text.push_str(RETURN);
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Reader, ServerMessage};

    #[test]
    fn text_is_serialized_as_its_value_in_its_own_order() {
        let text = r#"{"return": {"major":1, "micro": [{"b":"\u00E9","a":-1.50}, null]}}"#;
        let mut reader = Reader::default();
        let message = reader.read(&mut text.as_bytes()).unwrap().unwrap();
        let Ok(ServerMessage::Response(response)) = ServerMessage::parse(&message) else {
            panic!()
        };
        let expected = r#"[{"major": 1, "micro": [{"b": "\u00E9", "a": -1.5}, null]}]"#;
        assert_eq!(Json::encode(&[response.result.unwrap()]).unwrap().as_str(), expected);
    }

    #[test]
    fn equal_text_is_equal_however_it_was_made() {
        let written = Json::encode(&Vec::<u8>::new()).unwrap();
        let cut = Json::encode(&[1]).unwrap().retain_elements(|_| false);
        assert_eq!((&written, written.as_ref()), (&cut, "[]"));
        assert_eq!(std::collections::HashSet::from([written, cut]).len(), 1);
    }
}
