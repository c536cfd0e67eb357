// SPDX-License-Identifier: MIT OR Apache-2.0
//! Parses the text of one message by recursive descent. Mirrors QEMU's `qobject/json-parser.c`,
//! whose first error ends the message.

use std::borrow::Cow;
use std::collections::HashSet;

use crate::SyntaxError;
use crate::unicode::{decode, decode_lossy, scalar};
use crate::value::{Number, Object, Value};

/// What is made of a value while it is checked.
pub(crate) trait Build {
    type Value;
    type Array: Default;
    type Object: Default;

    fn null() -> Self::Value;
    fn bool(value: bool) -> Self::Value;
    fn number(text: &str) -> Self::Value;
    fn string(text: Cow<'_, str>) -> Self::Value;
    fn element(array: &mut Self::Array, value: Self::Value);
    fn array(array: Self::Array) -> Self::Value;
    fn member(object: &mut Self::Object, name: &str, value: Self::Value);
    fn object(object: Self::Object) -> Self::Value;
}

/// Builds a [`Value`].
pub(crate) enum Tree {}

impl Build for Tree {
    type Value = Value;
    type Array = Vec<Value>;
    type Object = Object;

    fn null() -> Value {
        Value::Null
    }

    fn bool(value: bool) -> Value {
        Value::Bool(value)
    }

    fn number(text: &str) -> Value {
        Value::Number(number(text))
    }

    fn string(text: Cow<'_, str>) -> Value {
        Value::String(text.into_owned())
    }

    fn element(array: &mut Vec<Value>, value: Value) {
        array.push(value);
    }

    fn array(array: Vec<Value>) -> Value {
        Value::Array(array)
    }

    fn member(object: &mut Object, name: &str, value: Value) {
        object.push_new(name.to_owned(), value);
    }

    fn object(object: Object) -> Value {
        Value::Object(object)
    }
}

/// Only checks.
pub(crate) enum Check {}

impl Build for Check {
    type Value = ();
    type Array = ();
    type Object = ();

    fn null() {}
    fn bool(_value: bool) {}
    fn number(_text: &str) {}
    fn string(_text: Cow<'_, str>) {}
    fn element((): &mut (), (): ()) {}
    fn array((): ()) {}
    fn member((): &mut (), _name: &str, (): ()) {}
    fn object((): ()) {}
}

/// An integer if it is spelt like one and fits, a double otherwise.
fn number(text: &str) -> Number {
    if let Ok(value) = text.parse::<i64>() {
        Number::from(value)
    } else if let Ok(value) = text.parse::<u64>() {
        Number::from(value)
    } else {
        // The lexer lets nothing through that Rust would not read; what is too large is infinite.
        Number::from(text.parse::<f64>().unwrap_or(f64::NAN))
    }
}

pub(crate) struct Parser<'t> {
    text: &'t [u8],
    at: usize,
    /// The names of the members read so far, of all open objects, for finding duplicates.
    names: Vec<Cow<'t, str>>,
}

impl<'t> Parser<'t> {
    /// `text` must consist of tokens as the lexer delimits them.
    pub(crate) fn new(text: &'t [u8]) -> Parser<'t> {
        Parser { text, at: 0, names: Vec::new() }
    }

    /// Where the parser stands in the text.
    pub(crate) fn position(&self) -> usize {
        self.at
    }

    /// The first byte of the next token; 0 at the end.
    #[inline]
    pub(crate) fn peek(&mut self) -> u8 {
        while let Some(&byte) = self.text.get(self.at) {
            if !matches!(byte, b' ' | b'\n' | b'\r' | b'\t') {
                return byte;
            }
            self.at += 1;
        }
        0
    }

    /// Parses the value that starts here.
    pub(crate) fn value<B: Build>(&mut self) -> Result<B::Value, SyntaxError> {
        match self.peek() {
            b'"' | b'\'' => self.string().map(B::string),
            b'{' => {
                let mut object = B::Object::default();
                self.members(|parser, name| {
                    let value = parser.value::<B>()?;
                    B::member(&mut object, name, value);
                    Ok(())
                })?;
                Ok(B::object(object))
            }
            b'[' => self.array::<B>(),
            b'-' | b'0'..=b'9' => {
                let start = self.at;
                self.skip_number();
                Ok(B::number(self.ascii(start)))
            }
            b'a'..=b'z' => {
                let start = self.at;
                self.skip(|byte| byte.is_ascii_lowercase());
                match self.ascii(start) {
                    "null" => Ok(B::null()),
                    "true" => Ok(B::bool(true)),
                    "false" => Ok(B::bool(false)),
                    keyword => Err(SyntaxError::InvalidKeyword(keyword.to_owned())),
                }
            }
            _ => Err(SyntaxError::ExpectingValue),
        }
    }

    fn array<B: Build>(&mut self) -> Result<B::Value, SyntaxError> {
        let mut array = B::Array::default();
        self.at += 1;
        if self.peek() == b']' {
            self.at += 1;
            return Ok(B::array(array));
        }
        loop {
            let value = self.value::<B>()?;
            B::element(&mut array, value);
            match self.peek() {
                b',' => self.at += 1,
                b']' => {
                    self.at += 1;
                    return Ok(B::array(array));
                }
                _ => return Err(SyntaxError::ListSeparator),
            }
        }
    }

    /// Parses the object that starts here. `value` is called before the value of each member and
    /// must parse it.
    pub(crate) fn members(
        &mut self,
        mut value: impl FnMut(&mut Self, &str) -> Result<(), SyntaxError>,
    ) -> Result<(), SyntaxError> {
        let first = self.names.len();
        let mut index = NameIndex::default();
        self.at += 1;
        if self.peek() == b'}' {
            self.at += 1;
            return Ok(());
        }
        loop {
            let name = self.name()?;
            if self.peek() != b':' {
                return Err(SyntaxError::MissingColon);
            }
            self.at += 1;
            value(self, &name)?;
            if index.add(&self.names[first..], &name) {
                return Err(SyntaxError::DuplicateKey);
            }
            self.names.push(name);
            match self.peek() {
                b',' => self.at += 1,
                b'}' => {
                    self.at += 1;
                    self.names.truncate(first);
                    return Ok(());
                }
                _ => return Err(SyntaxError::DictSeparator),
            }
        }
    }

    /// A name is parsed as any value first, so what is wrong inside it is reported as such.
    fn name(&mut self) -> Result<Cow<'t, str>, SyntaxError> {
        if matches!(self.peek(), b'"' | b'\'') {
            return self.string();
        }
        self.value::<Check>()?;
        Err(SyntaxError::KeyNotString)
    }

    /// Moves to the end of the number that starts here, which the lexer has found to be complete. A
    /// digit 0 is followed by nothing but a fraction: `0e5` are three tokens.
    fn skip_number(&mut self) {
        self.skip_one(b"-");
        let zero = self.skip_one(b"0");
        self.skip(|byte| !zero && byte.is_ascii_digit());
        let fraction = self.skip_one(b".");
        self.skip(|byte| fraction && byte.is_ascii_digit());
        if (!zero || fraction) && self.skip_one(b"eE") {
            self.skip_one(b"+-");
            self.skip(|byte| byte.is_ascii_digit());
        }
    }

    fn skip_one(&mut self, any_of: &[u8]) -> bool {
        let found = self.text.get(self.at).is_some_and(|byte| any_of.contains(byte));
        self.at += usize::from(found);
        found
    }

    fn skip(&mut self, goes_on: impl Fn(u8) -> bool) {
        while self.text.get(self.at).is_some_and(|&byte| goes_on(byte)) {
            self.at += 1;
        }
    }

    /// What has been skipped since `start`, which is a number or a word.
    fn ascii(&self, start: usize) -> &'t str {
        std::str::from_utf8(&self.text[start..self.at]).unwrap_or_default()
    }

    fn string(&mut self) -> Result<Cow<'t, str>, SyntaxError> {
        let text = self.text;
        let quote = text[self.at];
        let start = self.at + 1;
        let mut end = start;
        let mut plain = true;
        loop {
            match text[end] {
                byte if byte == quote => break,
                b'\\' => {
                    plain = false;
                    end += 2;
                }
                byte => {
                    plain &= byte.is_ascii();
                    end += 1;
                }
            }
        }
        self.at = end + 1;
        if plain && let Ok(ascii) = std::str::from_utf8(&text[start..end]) {
            return Ok(Cow::Borrowed(ascii));
        }
        unescape(&text[start..=end]).map(Cow::Owned)
    }
}

/// Finds duplicate names: by comparing them one by one while they are few, by their hashes then.
#[derive(Default)]
struct NameIndex {
    hashed: Option<HashSet<String>>,
}

impl NameIndex {
    const FEW: usize = 16;

    /// Whether `name` is one of `earlier` already. It is added to them by the caller.
    fn add(&mut self, earlier: &[Cow<'_, str>], name: &str) -> bool {
        if earlier.len() < Self::FEW {
            return earlier.iter().any(|other| other == name);
        }
        let hashed = self
            .hashed
            .get_or_insert_with(|| earlier.iter().map(|name| name.clone().into_owned()).collect());
        !hashed.insert(name.to_owned())
    }
}

/// Decodes what is between the quotes of a string; `raw` ends with the closing quote.
fn unescape(raw: &[u8]) -> Result<String, SyntaxError> {
    let mut text = String::with_capacity(raw.len());
    let mut at = 0;
    while at + 1 < raw.len() {
        if raw[at] == b'\\' {
            let (decoded, len) = escape(&raw[at..])?;
            text.push(decoded);
            at += len;
        } else {
            let (decoded, len) = decode(&raw[at..]);
            text.push(decoded.ok_or(SyntaxError::InvalidUtf8)?);
            at += len;
        }
    }
    Ok(text)
}

/// The character that the escape sequence at the start of `raw` stands for, and its length.
fn escape(raw: &[u8]) -> Result<(char, usize), SyntaxError> {
    let decoded = match raw[1] {
        byte @ (b'"' | b'\'' | b'\\' | b'/') => char::from(byte),
        b'b' => '\u{8}',
        b'f' => '\u{C}',
        b'n' => '\n',
        b'r' => '\r',
        b't' => '\t',
        b'u' => return unicode_escape(raw),
        _ => return Err(SyntaxError::InvalidEscape),
    };
    Ok((decoded, 2))
}

fn unicode_escape(raw: &[u8]) -> Result<(char, usize), SyntaxError> {
    let unit = hex4(raw);
    let (code, len) = match unit {
        Some(lead @ 0xD800..=0xDBFF) if raw[6..].starts_with(b"\\u") => match hex4(&raw[6..]) {
            Some(trail @ 0xDC00..=0xDFFF) => {
                (Some(0x1_0000 + ((lead & 0x3FF) << 10) + (trail & 0x3FF)), 12)
            }
            _ => (None, 6),
        },
        unit => (unit, 6),
    };
    code.and_then(scalar)
        .map(|decoded| (decoded, len))
        .ok_or_else(|| SyntaxError::InvalidCharacter(decode_lossy(&raw[..len.min(raw.len())])))
}

/// The four hex digits of the `\u` escape at the start of `raw`.
fn hex4(raw: &[u8]) -> Option<u32> {
    let digits = raw.get(2..6)?;
    digits.iter().try_fold(0, |code, &digit| Some(code << 4 | char::from(digit).to_digit(16)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &[u8], expected: Result<Value, &str>) {
        let got = Parser::new(text).value::<Tree>();
        assert_eq!(
            got.as_ref().map_err(ToString::to_string),
            expected.as_ref().map_err(|e| format!("JSON parse error, {e}"))
        );
        let checked = Parser::new(text).value::<Check>();
        assert_eq!(checked.err(), got.err(), "checking only");
    }

    #[test]
    fn numbers_are_exact_integers_if_they_fit() {
        check(b"-0", Ok(0.into()));
        check(b"9223372036854775808", Ok((1u64 << 63).into()));
        check(b"-9223372036854775809", Ok((-9223372036854775808.0).into()));
        check(b"18446744073709551616", Ok(18446744073709551616.0.into()));
        check(b"1.0", Ok(1.0.into()));
        check(b"1e400", Ok(f64::INFINITY.into()));
    }

    #[test]
    fn a_number_ends_where_the_lexer_ends_it() {
        check(b"{'a': 0e}", Err("expected separator in dict"));
        check(b"[1-1]", Err("expected separator in list"));
        check(b"[1.5e5-1]", Err("expected separator in list"));
        check(b"[1e5e5]", Err("expected separator in list"));
        check(b"[-0e5]", Err("expected separator in list"));
        check(
            b"[-0.5e1,0.0,0,10]",
            Ok(vec![(-5.0).into(), 0.0.into(), 0.into(), 10.into()].into()),
        );
    }

    #[test]
    fn strings_are_decoded() {
        check(b"'\\\"\\'\\\\\\/\\b\\f\\n\\r\\t'", Ok("\"'\\/\u{8}\u{C}\n\r\t".into()));
        check(b"'\\u00e9\\uD83D\\uDE00\\u0000\xC0\x80'", Ok("é😀\0\0".into()));
        check(b"'\\x41'", Err("invalid escape sequence in string"));
        check(b"'\\u12'", Err("\\u12' is not a valid Unicode character"));
        check(b"'\\u12G45'", Err("\\u12G4 is not a valid Unicode character"));
        check(b"'\\uD83Dx'", Err("\\uD83D is not a valid Unicode character"));
        check(b"'\\uD83D\\u0041'", Err("\\uD83D is not a valid Unicode character"));
        check(b"'\\uD83F\\uDFFF'", Err("\\uD83F\\uDFFF is not a valid Unicode character"));
        check(b"'\xED\xA0\x80'", Err("invalid UTF-8 sequence in string"));
    }

    #[test]
    fn the_first_error_is_reported() {
        check(b"{'a' 1}", Err("missing : in object pair"));
        check(b"{'a': 1 'b'}", Err("expected separator in dict"));
        check(b"[1 2]", Err("expected separator in list"));
        check(b"[1,]", Err("expecting value"));
        check(b"{'a': 1,}", Err("expecting value"));
        check(b"{[nul]: 1}", Err("invalid keyword 'nul'"));
        check(b"{[null]: 1}", Err("key is not a string in object"));
        check(b"{'a': 1, '\\u0061': nul}", Err("invalid keyword 'nul'"));
        check(b"{'a': 1, '\\u0061': 2}", Err("duplicate key"));
        check(b"{'a': {'a': 1}, 'b': {'a': 1}, 'a': 1}", Err("duplicate key"));
    }

    #[test]
    fn duplicates_are_found_among_many_names() {
        let members: Vec<String> = (0..100).map(|index| format!("'n{index}': {{}}")).collect();
        let object = format!("{{{}}}", members.join(","));
        assert!(Parser::new(object.as_bytes()).value::<Check>().is_ok());
        for name in ["n0", "n15", "n16", "n17", "n99"] {
            let object = format!("{{{}, '{name}': 1}}", members.join(","));
            check(object.as_bytes(), Err("duplicate key"));
        }
    }

    #[test]
    fn a_keyword_is_cut_to_the_size_of_the_message_buffer() {
        let error = Parser::new("a".repeat(2000).as_bytes()).value::<Check>().unwrap_err();
        assert_eq!(error.to_string().len(), "JSON parse error, ".len() + 1023);
    }
}
