// SPDX-License-Identifier: MIT OR Apache-2.0
//! Builds one message's value by recursive descent over its tokens. Mirrors QEMU's
//! `qobject/json-parser.c`. What is wrong with a malformed one, the [`Checker`] says.

use std::borrow::Cow;

use crate::checker::Checker;
use crate::lexer::{Kind, Token, tokens};
use crate::text::Text;
use crate::unicode::{decode, scalar};
use crate::value::{Number, ObjectBuilder, Value};
use crate::{Dialect, SyntaxErrorKind};

/// There is a mistake in the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

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
    Parser::new(text, &tokens(text)).value().unwrap_or_default()
}

pub(crate) struct Parser<'t> {
    text: &'t [u8],
    /// The text again, if it is valid as a whole.
    utf8: Option<&'t str>,
    tokens: &'t [Token],
    at: usize,
    checker: Checker,
}

impl<'t> Parser<'t> {
    /// `tokens` are those of `text`.
    pub(crate) fn new(text: &'t [u8], tokens: &'t [Token]) -> Parser<'t> {
        let (utf8, checker) = (std::str::from_utf8(text).ok(), Checker::default());
        Parser { text, utf8, tokens, at: 0, checker }
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

    /// Builds the value that starts here.
    pub(crate) fn value(&mut self) -> Result<Value, Malformed> {
        let &token = self.tokens.get(self.at).ok_or(Malformed)?;
        match token.kind {
            Kind::PlainString | Kind::String => {
                self.at += 1;
                Ok(Value::String(self.string(token)?.into_owned()))
            }
            Kind::OpenBrace => self.object(),
            Kind::OpenBracket => self.array(),
            Kind::Integer | Kind::Double => {
                self.at += 1;
                Ok(Value::Number(number(token.kind, self.ascii(token.start, token.end))))
            }
            Kind::Keyword => {
                self.at += 1;
                match self.ascii(token.start, token.end) {
                    "null" => Ok(Value::Null),
                    "true" => Ok(Value::Bool(true)),
                    "false" => Ok(Value::Bool(false)),
                    _ => Err(Malformed),
                }
            }
            Kind::CloseBrace | Kind::CloseBracket | Kind::Comma | Kind::Colon => Err(Malformed),
        }
    }

    /// Checks the value that starts here, and goes behind it.
    pub(crate) fn skip_value(&mut self) -> Result<(), Malformed> {
        self.checker.restart_at(self.at);
        let text = Text { kept: self.text, rest: &[] };
        // The dialects accept the same.
        self.checker.run(Dialect::default(), text, self.tokens).map_err(|_| Malformed)?;
        self.at = self.checker.position();
        Ok(())
    }

    fn array(&mut self) -> Result<Value, Malformed> {
        let mut array = Vec::new();
        self.at += 1;
        if self.peek() == Some(Kind::CloseBracket) {
            self.at += 1;
            return Ok(Value::Array(array));
        }
        loop {
            array.push(self.value()?);
            let separator = self.peek();
            self.at += 1;
            match separator {
                Some(Kind::Comma) => {}
                Some(Kind::CloseBracket) => return Ok(Value::Array(array)),
                _ => return Err(Malformed),
            }
        }
    }

    fn object(&mut self) -> Result<Value, Malformed> {
        let mut object = ObjectBuilder::default();
        let mut name = self.first_name()?;
        while let Some(new) = name {
            let value = self.value()?;
            if object.insert(new.into_owned(), value).is_some() {
                return Err(Malformed);
            }
            name = self.next_name()?;
        }
        Ok(Value::Object(object.build()))
    }

    /// Opens the object that starts here, and goes to the value of its first member.
    #[inline]
    pub(crate) fn first_name(&mut self) -> Result<Option<Cow<'t, str>>, Malformed> {
        self.at += 1;
        if self.peek() == Some(Kind::CloseBrace) {
            self.at += 1;
            return Ok(None);
        }
        self.name().map(Some)
    }

    /// Goes on behind the value of a member to the value of the next one.
    #[inline]
    pub(crate) fn next_name(&mut self) -> Result<Option<Cow<'t, str>>, Malformed> {
        let separator = self.peek();
        self.at += 1;
        match separator {
            Some(Kind::Comma) => self.name().map(Some),
            Some(Kind::CloseBrace) => Ok(None),
            _ => Err(Malformed),
        }
    }

    #[inline]
    fn name(&mut self) -> Result<Cow<'t, str>, Malformed> {
        let name = match self.tokens.get(self.at) {
            Some(&token) if matches!(token.kind, Kind::PlainString | Kind::String) => {
                self.at += 1;
                self.string(token)?
            }
            _ => return Err(Malformed),
        };
        if self.peek() != Some(Kind::Colon) {
            return Err(Malformed);
        }
        self.at += 1;
        Ok(name)
    }

    #[inline]
    fn string(&self, token: Token) -> Result<Cow<'t, str>, Malformed> {
        if token.kind == Kind::PlainString {
            return Ok(Cow::Borrowed(self.ascii(token.start + 1, token.end - 1)));
        }
        unescape(&self.text[token.start + 1..token.end]).map_err(|_| Malformed)
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

/// Decodes what is between the quotes of a string; `raw` ends with the closing quote.
#[inline(never)]
pub(crate) fn unescape<'t>(raw: &[u8]) -> Result<Cow<'t, str>, SyntaxErrorKind> {
    let mut text = String::with_capacity(raw.len());
    let mut at = 0;
    while at + 1 < raw.len() {
        let (decoded, len) = match raw[at] {
            b'\\' => escape(&raw[at..])?,
            _ => {
                let (decoded, len) = decode(&raw[at..]);
                (decoded.ok_or(SyntaxErrorKind::InvalidUtf8)?, len)
            }
        };
        text.push(decoded);
        at += len;
    }
    Ok(Cow::Owned(text))
}

/// The character that the escape sequence at the start of `raw` stands for, and its length.
fn escape(raw: &[u8]) -> Result<(char, usize), SyntaxErrorKind> {
    let decoded = match raw[1] {
        byte @ (b'"' | b'\'' | b'\\' | b'/') => char::from(byte),
        b'b' => '\u{8}',
        b'f' => '\u{C}',
        b'n' => '\n',
        b'r' => '\r',
        b't' => '\t',
        b'u' => return unicode_escape(raw),
        _ => return Err(SyntaxErrorKind::InvalidEscape),
    };
    Ok((decoded, 2))
}

fn unicode_escape(raw: &[u8]) -> Result<(char, usize), SyntaxErrorKind> {
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
        .ok_or_else(|| SyntaxErrorKind::InvalidCharacter(raw[..len.min(raw.len())].to_vec()))
}

/// The four hex digits of the `\u` escape at the start of `raw`.
fn hex4(raw: &[u8]) -> Option<u32> {
    let digits = raw.get(2..6)?;
    digits.iter().try_fold(0, |code, &digit| Some(code << 4 | char::from(digit).to_digit(16)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Limits, Reader};

    #[track_caller]
    fn check(text: &[u8], expected: Result<Value, &str>) {
        let mut reader = Reader::new(Dialect::Qemu10_0, Limits::default());
        let text = [text, b" "].concat();
        let message = reader.read(&mut &text[..]).unwrap().unwrap();
        assert_eq!(
            message.to_value().map_err(|error| error.to_string()),
            expected.map_err(|error| format!("JSON parse error, {error}"))
        );
        assert_eq!(message.parser().skip_value().is_ok(), message.to_value().is_ok());
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
        assert!(Parser::new(object, &tokens(object)).skip_value().is_ok());
        for name in ["n0", "n15", "n16", "n17", "n99"] {
            let object = format!("{{{}, '{name}': 1}}", members.join(","));
            check(object.as_bytes(), Err("duplicate key"));
        }
    }
}
