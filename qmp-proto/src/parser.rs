// SPDX-License-Identifier: MIT OR Apache-2.0
//! Parses one message by recursive descent over its tokens. Mirrors QEMU's `qobject/json-parser.c`,
//! whose first error ends the message.

use std::borrow::Cow;
use std::collections::HashSet;

use crate::SyntaxError;
use crate::lexer::{Kind, Token, tokens};
use crate::unicode::{decode, decode_lossy, scalar};
use crate::value::{Number, ObjectBuilder, Value};

/// What is made of a value while it is checked.
pub(crate) trait Build: Sized {
    type Value;
    type Array: Default;

    fn null() -> Self::Value;
    fn bool(value: bool) -> Self::Value;
    /// `kind` tells integers from other numbers.
    fn number(kind: Kind, text: &str) -> Self::Value;
    fn string(text: Cow<'_, str>) -> Self::Value;
    fn element(array: &mut Self::Array, value: Self::Value);
    fn array(array: Self::Array) -> Self::Value;
    /// Parses the object that starts here.
    fn object(parser: &mut Parser<'_>) -> Result<Self::Value, SyntaxError>;
}

/// Builds a [`Value`].
pub(crate) enum Tree {}

impl Build for Tree {
    type Value = Value;
    type Array = Vec<Value>;

    fn null() -> Value {
        Value::Null
    }

    fn bool(value: bool) -> Value {
        Value::Bool(value)
    }

    fn number(kind: Kind, text: &str) -> Value {
        Value::Number(number(kind, text))
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

    fn object(parser: &mut Parser<'_>) -> Result<Value, SyntaxError> {
        let mut object = ObjectBuilder::default();
        let mut name = parser.first_name()?;
        while let Some(new) = name {
            let value = parser.value::<Tree>()?;
            if object.insert(new.into_owned(), value).is_some() {
                return Err(SyntaxError::DuplicateKey);
            }
            name = parser.next_name()?;
        }
        Ok(Value::Object(object.build()))
    }
}

/// Only checks.
pub(crate) enum Check {}

impl Build for Check {
    type Value = ();
    type Array = ();

    fn null() {}
    fn bool(_value: bool) {}
    fn number(_kind: Kind, _text: &str) {}
    fn string(_text: Cow<'_, str>) {}
    fn element((): &mut (), (): ()) {}
    fn array((): ()) {}

    fn object(parser: &mut Parser<'_>) -> Result<(), SyntaxError> {
        let mut names = DistinctNames::new(parser);
        let mut name = parser.first_name()?;
        while let Some(new) = name {
            parser.value::<Check>()?;
            names.add(parser, new)?;
            name = parser.next_name()?;
        }
        names.forget(parser);
        Ok(())
    }
}

fn keyword<B: Build>(text: &str) -> Result<B::Value, SyntaxError> {
    match text {
        "null" => Ok(B::null()),
        "true" => Ok(B::bool(true)),
        "false" => Ok(B::bool(false)),
        _ => Err(SyntaxError::InvalidKeyword(text.to_owned())),
    }
}

/// An integer if it is spelt like one and fits, a double otherwise.
fn number(kind: Kind, text: &str) -> Number {
    if kind == Kind::Integer {
        if let Ok(value) = text.parse::<i64>() {
            return Number::from(value);
        }
        if let Ok(value) = text.parse::<u64>() {
            return Number::from(value);
        }
    }
    // The lexer lets nothing through that Rust would not read; what is too large is infinite.
    Number::from(text.parse::<f64>().unwrap_or(f64::NAN))
}

/// Parses a text that is known to be well-formed as any value.
pub(crate) fn parse_well_formed(text: &[u8]) -> Value {
    Parser::new(text, &tokens(text)).value::<Tree>().unwrap_or_default()
}

pub(crate) struct Parser<'t> {
    text: &'t [u8],
    /// The text again, if it is valid as a whole.
    utf8: Option<&'t str>,
    tokens: &'t [Token],
    at: usize,
    /// The names of the members read so far, of all open objects, for finding duplicates.
    names: Vec<Cow<'t, str>>,
}

impl<'t> Parser<'t> {
    /// `tokens` are those of `text`.
    pub(crate) fn new(text: &'t [u8], tokens: &'t [Token]) -> Parser<'t> {
        Parser { text, utf8: std::str::from_utf8(text).ok(), tokens, at: 0, names: Vec::new() }
    }

    /// The number of tokens that have been parsed.
    pub(crate) fn position(&self) -> usize {
        self.at
    }

    /// The kind of the next token.
    #[inline]
    pub(crate) fn peek(&self) -> Option<Kind> {
        self.tokens.get(self.at).map(|token| token.kind)
    }

    /// Parses the value that starts here.
    pub(crate) fn value<B: Build>(&mut self) -> Result<B::Value, SyntaxError> {
        let Some(&token) = self.tokens.get(self.at) else {
            return Err(SyntaxError::ExpectingValue);
        };
        match token.kind {
            Kind::PlainString | Kind::String => {
                self.at += 1;
                self.string(token).map(B::string)
            }
            Kind::OpenBrace => B::object(self),
            Kind::OpenBracket => self.array::<B>(),
            Kind::Integer | Kind::Double => {
                self.at += 1;
                Ok(B::number(token.kind, self.ascii(token.start, token.end)))
            }
            Kind::Keyword => {
                self.at += 1;
                keyword::<B>(self.ascii(token.start, token.end))
            }
            Kind::CloseBrace | Kind::CloseBracket | Kind::Comma | Kind::Colon => {
                Err(SyntaxError::ExpectingValue)
            }
        }
    }

    fn array<B: Build>(&mut self) -> Result<B::Value, SyntaxError> {
        let mut array = B::Array::default();
        self.at += 1;
        if self.peek() == Some(Kind::CloseBracket) {
            self.at += 1;
            return Ok(B::array(array));
        }
        loop {
            let value = self.value::<B>()?;
            B::element(&mut array, value);
            let separator = self.peek();
            self.at += 1;
            match separator {
                Some(Kind::Comma) => {}
                Some(Kind::CloseBracket) => return Ok(B::array(array)),
                _ => return Err(SyntaxError::ListSeparator),
            }
        }
    }

    /// Opens the object that starts here, and goes to the value of its first member.
    #[inline]
    pub(crate) fn first_name(&mut self) -> Result<Option<Cow<'t, str>>, SyntaxError> {
        self.at += 1;
        if self.peek() == Some(Kind::CloseBrace) {
            self.at += 1;
            return Ok(None);
        }
        self.name().map(Some)
    }

    /// Goes on behind the value of a member to the value of the next one.
    #[inline]
    pub(crate) fn next_name(&mut self) -> Result<Option<Cow<'t, str>>, SyntaxError> {
        let separator = self.peek();
        self.at += 1;
        match separator {
            Some(Kind::Comma) => self.name().map(Some),
            Some(Kind::CloseBrace) => Ok(None),
            _ => Err(SyntaxError::DictSeparator),
        }
    }

    /// A name is parsed as any value first, so what is wrong inside it is reported as such.
    #[inline]
    fn name(&mut self) -> Result<Cow<'t, str>, SyntaxError> {
        let name = match self.tokens.get(self.at) {
            Some(&token) if matches!(token.kind, Kind::PlainString | Kind::String) => {
                self.at += 1;
                self.string(token)?
            }
            _ => return Err(self.no_name()),
        };
        if self.peek() != Some(Kind::Colon) {
            return Err(SyntaxError::MissingColon);
        }
        self.at += 1;
        Ok(name)
    }

    #[cold]
    fn no_name(&mut self) -> SyntaxError {
        match self.value::<Check>() {
            Ok(()) => SyntaxError::KeyNotString,
            Err(error) => error,
        }
    }

    #[inline]
    fn string(&self, token: Token) -> Result<Cow<'t, str>, SyntaxError> {
        if token.kind == Kind::PlainString {
            return Ok(Cow::Borrowed(self.ascii(token.start + 1, token.end - 1)));
        }
        unescape(&self.text[token.start + 1..token.end])
    }

    /// A part of the text that the lexer has found to be ASCII.
    #[inline]
    fn ascii(&self, start: usize, end: usize) -> &'t str {
        let ascii = match self.utf8 {
            Some(text) => text.get(start..end),
            None => std::str::from_utf8(&self.text[start..end]).ok(),
        };
        ascii.unwrap_or_default()
    }
}

/// Finds duplicate names in an object: by comparing them one by one while they are few, by their
/// hashes then.
pub(crate) struct DistinctNames<'t> {
    /// Where the names of this object begin among those of all open ones.
    first: usize,
    hashed: Option<HashSet<Cow<'t, str>>>,
}

impl<'t> DistinctNames<'t> {
    const FEW: usize = 16;

    pub(crate) fn new(parser: &Parser<'t>) -> DistinctNames<'t> {
        DistinctNames { first: parser.names.len(), hashed: None }
    }

    #[inline]
    pub(crate) fn add(
        &mut self,
        parser: &mut Parser<'t>,
        name: Cow<'t, str>,
    ) -> Result<(), SyntaxError> {
        let earlier = &parser.names[self.first..];
        let new = match earlier.len() {
            0..Self::FEW => !earlier.contains(&name),
            _ => {
                let collect = || earlier.iter().cloned().collect();
                self.hashed.get_or_insert_with(collect).insert(name.clone())
            }
        };
        parser.names.push(name);
        if new { Ok(()) } else { Err(SyntaxError::DuplicateKey) }
    }

    /// The object is complete.
    pub(crate) fn forget(self, parser: &mut Parser<'t>) {
        parser.names.truncate(self.first);
    }
}

/// Decodes what is between the quotes of a string; `raw` ends with the closing quote.
#[inline(never)]
fn unescape<'t>(raw: &[u8]) -> Result<Cow<'t, str>, SyntaxError> {
    let mut text = String::with_capacity(raw.len());
    let mut at = 0;
    while at + 1 < raw.len() {
        let (decoded, len) = match raw[at] {
            b'\\' => escape(&raw[at..])?,
            _ => {
                let (decoded, len) = decode(&raw[at..]);
                (decoded.ok_or(SyntaxError::InvalidUtf8)?, len)
            }
        };
        text.push(decoded);
        at += len;
    }
    Ok(Cow::Owned(text))
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
        let got = Parser::new(text, &tokens(text)).value::<Tree>();
        assert_eq!(
            got.as_ref().map_err(ToString::to_string),
            expected.as_ref().map_err(|e| format!("JSON parse error, {e}"))
        );
        let checked = Parser::new(text, &tokens(text)).value::<Check>();
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
        let object = object.as_bytes();
        assert!(Parser::new(object, &tokens(object)).value::<Check>().is_ok());
        for name in ["n0", "n15", "n16", "n17", "n99"] {
            let object = format!("{{{}, '{name}': 1}}", members.join(","));
            check(object.as_bytes(), Err("duplicate key"));
        }
    }

    #[test]
    fn a_keyword_is_cut_to_the_size_of_the_message_buffer() {
        let text = b"a".repeat(2000);
        let error = Parser::new(&text, &tokens(&text)).value::<Check>().unwrap_err();
        assert_eq!(error.to_string().len(), "JSON parse error, ".len() + 1023);
    }
}
