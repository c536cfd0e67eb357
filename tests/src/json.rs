// SPDX-License-Identifier: MIT OR Apache-2.0
//! JSON values that lose nothing of how they were written down, except white space and escapes.
//!
//! Members keep their order and may repeat, numbers keep their spelling: the conformance cases are about exactly
//! these, and so no general-purpose JSON library will do.

use std::fmt;

/// Deeper than any reply of a QMP server (1024) inside a case, and not too deep for the stack of a test.
const MAX_DEPTH: usize = 1200;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Json {
    Null,
    /// `true` or `false`
    Bool(bool),
    /// A number, as it was spelt.
    Number(String),
    /// A string, decoded.
    String(String),
    Array(Vec<Json>),
    /// An object: its members in the order in which they were written.
    Object(Vec<(String, Json)>),
}

/// How a value is laid out as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// On one line, with one blank after each colon and comma.
    Compact,
    /// Every element on a line of its own, four blanks per level.
    Pretty,
}

/// Why a text is not JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyntaxError {
    pub reason: &'static str,
    /// At which byte of the text.
    pub offset: usize,
}

impl fmt::Display for SyntaxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at byte {}", self.reason, self.offset)
    }
}

impl std::error::Error for SyntaxError {}

impl Json {
    /// Parses a text that holds one JSON value.
    pub fn parse(text: &str) -> Result<Self, SyntaxError> {
        let mut parser = Parser { text, at: 0, depth: 0 };
        let value = parser.value()?;
        parser.skip_white_space();
        if parser.at < text.len() {
            return Err(parser.error("more than one value"));
        }
        Ok(value)
    }

    /// The value of the first member of this name, if this is an object that has one.
    pub fn get(&self, name: &str) -> Option<&Self> {
        let Self::Object(members) = self else { return None };
        members.iter().find(|(key, _)| key == name).map(|(_, value)| value)
    }

    /// The string, if this is one.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }

    /// The elements, if this is an array.
    pub fn as_array(&self) -> Option<&[Self]> {
        match self {
            Self::Array(elements) => Some(elements),
            _ => None,
        }
    }

    /// The number, if this is one without fraction and exponent that fits.
    pub fn as_i64(&self) -> Option<i64> {
        match self {
            Self::Number(text) => text.parse().ok(),
            _ => None,
        }
    }

    /// The text of this value in the layout and with the escapes of a QMP server; line ends are `\n`.
    pub fn to_text(&self, layout: Layout) -> String {
        let mut text = String::new();
        self.write(&mut text, layout, 0);
        text
    }

    fn write(&self, out: &mut String, layout: Layout, depth: usize) {
        match self {
            Self::Null => out.push_str("null"),
            Self::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
            Self::Number(text) => out.push_str(text),
            Self::String(text) => write_string(out, text),
            Self::Array(elements) => {
                write_list(out, layout, depth, ['[', ']'], elements, |out, element| {
                    element.write(out, layout, depth + 1);
                });
            }
            Self::Object(members) => {
                write_list(out, layout, depth, ['{', '}'], members, |out, (name, value)| {
                    write_string(out, name);
                    out.push_str(": ");
                    value.write(out, layout, depth + 1);
                });
            }
        }
    }
}

/// The compact text.
impl fmt::Display for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_text(Layout::Compact))
    }
}

impl From<&str> for Json {
    fn from(text: &str) -> Self {
        Self::String(text.to_owned())
    }
}

fn write_list<T>(
    out: &mut String,
    layout: Layout,
    depth: usize,
    [open, close]: [char; 2],
    items: &[T],
    mut write_item: impl FnMut(&mut String, &T),
) {
    out.push(open);
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            out.push_str(if layout == Layout::Pretty { "," } else { ", " });
        }
        break_line(out, layout, depth + 1);
        write_item(out, item);
    }
    break_line(out, layout, depth);
    out.push(close);
}

fn break_line(out: &mut String, layout: Layout, depth: usize) {
    if layout == Layout::Pretty {
        out.push('\n');
        out.extend(std::iter::repeat_n("    ", depth));
    }
}

fn write_string(out: &mut String, text: &str) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            ' '..='~' => out.push(character),
            _ => {
                for unit in character.encode_utf16(&mut [0; 2]) {
                    out.push_str(&format!("\\u{unit:04X}"));
                }
            }
        }
    }
    out.push('"');
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
}

impl Parser<'_> {
    fn error(&self, reason: &'static str) -> SyntaxError {
        SyntaxError { reason, offset: self.at }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn skip_white_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
    }

    /// Takes `token`, after white space, if it comes next.
    fn takes(&mut self, token: &str) -> bool {
        self.skip_white_space();
        let found = self.text[self.at..].starts_with(token);
        if found {
            self.at += token.len();
        }
        found
    }

    fn value(&mut self) -> Result<Json, SyntaxError> {
        self.skip_white_space();
        match self.peek() {
            Some(b'{') => self.object(),
            Some(b'[') => self.array(),
            Some(b'"') => self.string().map(Json::String),
            Some(b'-' | b'0'..=b'9') => self.number().map(Json::Number),
            _ if self.takes("null") => Ok(Json::Null),
            _ if self.takes("true") => Ok(Json::Bool(true)),
            _ if self.takes("false") => Ok(Json::Bool(false)),
            _ => Err(self.error("expected a value")),
        }
    }

    fn enter(&mut self) -> Result<(), SyntaxError> {
        self.at += 1;
        self.depth += 1;
        if self.depth > MAX_DEPTH { Err(self.error("nested too deeply")) } else { Ok(()) }
    }

    fn array(&mut self) -> Result<Json, SyntaxError> {
        self.enter()?;
        let mut elements = Vec::new();
        if !self.takes("]") {
            loop {
                elements.push(self.value()?);
                if self.takes("]") {
                    break;
                }
                if !self.takes(",") {
                    return Err(self.error("expected a comma or the end of an array"));
                }
            }
        }
        self.depth -= 1;
        Ok(Json::Array(elements))
    }

    fn object(&mut self) -> Result<Json, SyntaxError> {
        self.enter()?;
        let mut members = Vec::new();
        if !self.takes("}") {
            loop {
                self.skip_white_space();
                let name = self.string()?;
                if !self.takes(":") {
                    return Err(self.error("expected a colon"));
                }
                members.push((name, self.value()?));
                if self.takes("}") {
                    break;
                }
                if !self.takes(",") {
                    return Err(self.error("expected a comma or the end of an object"));
                }
            }
        }
        self.depth -= 1;
        Ok(Json::Object(members))
    }

    fn number(&mut self) -> Result<String, SyntaxError> {
        let start = self.at;
        self.skip_byte(b"-");
        if !self.skip_byte(b"0") && self.skip_digits() == 0 {
            return Err(self.error("expected a digit"));
        }
        if self.skip_byte(b".") && self.skip_digits() == 0 {
            return Err(self.error("expected a digit"));
        }
        if self.skip_byte(b"eE") {
            self.skip_byte(b"+-");
            if self.skip_digits() == 0 {
                return Err(self.error("expected a digit"));
            }
        }
        Ok(self.text[start..self.at].to_owned())
    }

    fn skip_byte(&mut self, choice: &[u8]) -> bool {
        let found = self.peek().is_some_and(|byte| choice.contains(&byte));
        self.at += usize::from(found);
        found
    }

    fn skip_digits(&mut self) -> usize {
        let start = self.at;
        while self.skip_byte(b"0123456789") {}
        self.at - start
    }

    fn string(&mut self) -> Result<String, SyntaxError> {
        if !self.skip_byte(b"\"") {
            return Err(self.error("expected a string"));
        }
        let mut decoded = String::new();
        loop {
            let start = self.at;
            while !matches!(self.peek(), None | Some(b'"' | b'\\' | 0..0x20)) {
                self.at += 1;
            }
            decoded.push_str(&self.text[start..self.at]);
            if self.skip_byte(b"\"") {
                return Ok(decoded);
            }
            if !self.skip_byte(b"\\") {
                return Err(self.error("control character or end of text in a string"));
            }
            decoded.push(self.escape()?);
        }
    }

    fn escape(&mut self) -> Result<char, SyntaxError> {
        let escaped = self.peek();
        self.at += 1;
        Ok(match escaped {
            Some(b'"') => '"',
            Some(b'\\') => '\\',
            Some(b'/') => '/',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => return self.unicode_escape(),
            _ => return Err(self.error("unknown escape")),
        })
    }

    fn unicode_escape(&mut self) -> Result<char, SyntaxError> {
        let first = self.code_unit()?;
        let units = if (0xD800..0xDC00).contains(&first) && self.text[self.at..].starts_with("\\u")
        {
            self.at += 2;
            vec![first, self.code_unit()?]
        } else {
            vec![first]
        };
        String::from_utf16(&units)
            .ok()
            .and_then(|text| text.chars().next())
            .ok_or_else(|| self.error("half a surrogate pair"))
    }

    fn code_unit(&mut self) -> Result<u16, SyntaxError> {
        let digits = self.text.get(self.at..self.at + 4).unwrap_or_default();
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(self.error("expected four hexadecimal digits"));
        }
        self.at += 4;
        u16::from_str_radix(digits, 16).map_err(|_| self.error("expected four hexadecimal digits"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_round_trip(text: &str) {
        assert_eq!(Json::parse(text).unwrap().to_text(Layout::Compact), text);
    }

    #[test]
    fn order_spelling_and_repetition_survive() {
        check_round_trip(
            r#"{"b": 1, "a": 1.50e+05, "b": [-0, 0.1, {}, []], "z": [null, true, false]}"#,
        );
    }

    #[test]
    fn strings_are_ascii_with_upper_case_escapes() {
        check_round_trip(r#""\"\\\b\f\n\r\t/ \u00E9\u007F\uD834\uDD1E""#);
        assert_eq!(Json::parse(r#""\ud834\udd1e\/""#).unwrap(), Json::from("\u{1D11E}/"));
    }

    #[test]
    fn pretty_layout_breaks_the_line_in_empty_containers() {
        let text = "{\n    \"return\": {\n    },\n    \"id\": [\n        1,\n        2\n    ]\n}";
        assert_eq!(Json::parse(text).unwrap().to_text(Layout::Pretty), text);
    }

    #[test]
    fn what_is_not_json_is_refused() {
        for text in [
            "",
            "1 2",
            "inf",
            "01",
            "1.",
            "{\"a\" 1}",
            "[1,]",
            "'a'",
            "\"\t\"",
            "\"\\x\"",
            "\"\\ud800\"",
        ] {
            assert!(Json::parse(text).is_err(), "{text}");
        }
        assert!(Json::parse(&"[".repeat(MAX_DEPTH + 1)).is_err());
    }
}
