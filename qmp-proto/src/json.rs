// SPDX-License-Identifier: MIT OR Apache-2.0
//! JSON text in QEMU's form.

mod elements;
mod layout;
mod scalar;
mod ser;
mod tree;

use std::borrow::Cow;
use std::fmt;

use serde::Serialize;
use serde::de::DeserializeOwned;

pub use layout::Layout;
pub use ser::EncodeError;

use crate::lexer::{Kind, Token};
use crate::parser::parse_well_formed;
use crate::{DecodeError, Object, Value, from_value};

/// Room for most results and the rest of their responses, so that they are written without moving.
pub(crate) const USUAL_SIZE: usize = 256;

/// The text of one JSON value, well-formed, in ASCII and on one line.
///
/// What [`encode`](Json::encode) makes is spelt as QEMU spells it: `", "` and `": "` as separators,
/// characters outside of printable ASCII as `\uXXXX`, doubles as by C's `%.17g`. Members keep the
/// order in which their type serializes them; those of a [`Value`] come in QEMU's order.
///
/// JSON has no infinite numbers. QEMU prints `inf`, which no client can read; here they become the
/// largest finite double with that sign, and what is not a number becomes `null`.
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
/// assert_eq!(Json::encode(&("é", 0.1))?.as_str(), r#"["\u00E9", 0.10000000000000001]"#);
/// # Ok::<(), qmp_proto::EncodeError>(())
/// ```
#[derive(Clone)]
pub struct Json {
    text: Cow<'static, str>,
    /// Where the value begins: behind [`RETURN`], or at once.
    start: usize,
}

/// What comes before the result of a successful command. Values are written behind it, so that those
/// that are results need not move.
pub(crate) const RETURN: &str = "{\"return\": ";

impl Json {
    /// The empty object, which is the result of a command that returns nothing.
    pub const EMPTY_OBJECT: Json = Json { text: Cow::Borrowed("{}"), start: 0 };

    /// Writes `value` in QEMU's form.
    ///
    /// # Errors
    ///
    /// [`EncodeError`] if the type's own serialization fails, or a map has keys that are neither
    /// text nor numbers nor truth values.
    pub fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Json, EncodeError> {
        let mut text = behind_return();
        value.serialize(&mut ser::Serializer::new(&mut text))?;
        Ok(Json { text: text.into(), start: RETURN.len() })
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.text[self.start..]
    }

    /// The text behind [`RETURN`].
    #[inline]
    pub(crate) fn into_return(self) -> String {
        match self.text {
            Cow::Owned(text) if self.start == RETURN.len() => text,
            Cow::Owned(mut text) => {
                text.insert_str(0, RETURN);
                text
            }
            Cow::Borrowed(value) => {
                let mut text = behind_return();
                text.push_str(value);
                text
            }
        }
    }

    /// Parses the text as any value.
    pub fn to_value(&self) -> Value {
        parse_well_formed(self.as_str().as_bytes())
    }

    /// Parses the text as the given type.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] if the value has another shape.
    ///
    /// ```
    /// use qmp_proto::Json;
    ///
    /// let json = Json::encode(&[1, 2])?;
    /// assert_eq!(json.decode::<Vec<u8>>().unwrap(), [1, 2]);
    /// # Ok::<(), qmp_proto::EncodeError>(())
    /// ```
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, DecodeError> {
        from_value(self.to_value())
    }

    /// Leaves out elements of an array: those for whose indices `keep` returns false. The text of the
    /// others stays as it is. What is no array stays as it is, too.
    ///
    /// ```
    /// use qmp_proto::Json;
    ///
    /// let json = Json::encode(&["a", "b", "c"])?;
    /// assert_eq!(json.retain_elements(|index| index != 1).as_str(), r#"["a", "c"]"#);
    /// # Ok::<(), qmp_proto::EncodeError>(())
    /// ```
    #[must_use]
    pub fn retain_elements(&self, keep: impl FnMut(usize) -> bool) -> Json {
        elements::retain(self.as_str(), keep)
            .map_or_else(|| self.clone(), |text| Json { text: text.into(), start: 0 })
    }

    /// Takes over the value that these tokens of `text` make. Its text is kept if it is plain JSON
    /// in ASCII on one line, and is written anew otherwise.
    pub(crate) fn from_checked(text: &[u8], tokens: &[Token]) -> Json {
        let (Some(first), Some(last)) = (tokens.first(), tokens.last()) else {
            return Json::from(&Value::Null);
        };
        let value = &text[first.start..last.end];
        // No short cut in this loop: like this it looks at many bytes at a time.
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
            _ => Json::from(&parse_well_formed(value)),
        }
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
        let mut text = behind_return();
        tree::write_value(value, &mut text);
        Json { text: text.into(), start: RETURN.len() }
    }
}

impl From<&Object> for Json {
    fn from(object: &Object) -> Json {
        let mut text = behind_return();
        tree::write_object(object, &mut text);
        Json { text: text.into(), start: RETURN.len() }
    }
}

/// By its text.
impl PartialEq for Json {
    fn eq(&self, other: &Json) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Json {}

fn behind_return() -> String {
    let mut text = String::with_capacity(USUAL_SIZE);
    text.push_str(RETURN);
    text
}
