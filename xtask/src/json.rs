// SPDX-License-Identifier: MIT OR Apache-2.0
//! As much of JSON as Cargo's own output needs here: what is well-formed is read, what is not is refused somehow.

use crate::command::{Failure, Outcome};

/// A JSON value. Numbers, booleans and null stay as they are written: nobody here asks for them.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Json {
    Word(String),
    Text(String),
    List(Vec<Json>),
    Object(Vec<(String, Json)>),
}

impl Json {
    pub(crate) fn parse(text: &str) -> Outcome<Self> {
        let mut parser = Parser(text);
        let value = parser.value();
        match (value, parser.peek()) {
            (Some(value), None) => Ok(value),
            _ => {
                let at = text.len() - parser.0.len();
                Err(Failure::Task(format!("no JSON at byte {at}")))
            }
        }
    }

    /// A member of an object.
    pub(crate) fn get(&self, key: &str) -> Option<&Json> {
        match self {
            Self::Object(members) => {
                members.iter().find(|(name, _)| name == key).map(|(_, value)| value)
            }
            _ => None,
        }
    }

    pub(crate) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The elements of a list.
    pub(crate) fn items(&self) -> &[Json] {
        match self {
            Self::List(items) => items,
            _ => &[],
        }
    }
}

/// The text that is still to be read.
struct Parser<'t>(&'t str);

impl Parser<'_> {
    fn peek(&mut self) -> Option<char> {
        self.0 = self.0.trim_start();
        self.0.chars().next()
    }

    /// Takes a character if it comes next.
    fn take(&mut self, wanted: char) -> Option<()> {
        let found = self.peek() == Some(wanted);
        found.then(|| self.0 = &self.0[wanted.len_utf8()..])
    }

    fn value(&mut self) -> Option<Json> {
        match self.peek()? {
            '"' => self.string().map(Json::Text),
            '[' => self.sequence('[', ']', Self::value).map(Json::List),
            '{' => self.sequence('{', '}', Self::member).map(Json::Object),
            _ => self.word().map(Json::Word),
        }
    }

    fn sequence<T>(
        &mut self,
        open: char,
        close: char,
        element: impl Fn(&mut Self) -> Option<T>,
    ) -> Option<Vec<T>> {
        self.take(open)?;
        let mut elements = Vec::new();
        if self.take(close).is_some() {
            return Some(elements);
        }
        loop {
            elements.push(element(self)?);
            if self.take(close).is_some() {
                return Some(elements);
            }
            self.take(',')?;
        }
    }

    fn member(&mut self) -> Option<(String, Json)> {
        self.peek();
        let key = self.string()?;
        self.take(':')?;
        Some((key, self.value()?))
    }

    fn word(&mut self) -> Option<String> {
        let is_part =
            |character: char| character.is_ascii_alphanumeric() || "+-.".contains(character);
        let end = self.0.find(|character| !is_part(character)).unwrap_or(self.0.len());
        let (word, rest) = self.0.split_at(end);
        self.0 = rest;
        (!word.is_empty()).then(|| word.to_owned())
    }

    fn string(&mut self) -> Option<String> {
        let mut rest = self.0.strip_prefix('"')?.chars();
        let mut text = String::new();
        loop {
            match rest.next()? {
                '"' => break,
                '\\' => text.push(match rest.next()? {
                    'n' => '\n',
                    't' => '\t',
                    'r' => '\r',
                    'b' => '\u{8}',
                    'f' => '\u{c}',
                    'u' => escaped(&mut rest)?,
                    character => character,
                }),
                character => text.push(character),
            }
        }
        self.0 = rest.as_str();
        Some(text)
    }
}

/// The character whose number in UTF-16 comes next. Cargo escapes control characters only, so there are no surrogates.
fn escaped(rest: &mut std::str::Chars<'_>) -> Option<char> {
    let digits: String = rest.take(4).collect();
    char::from_u32(u32::from_str_radix(&digits, 16).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read() {
        let value = Json::parse(r#" {"a": [1, {"b": null}, "x\n\"\u001b"], "c": {}, "d": []} "#);
        let value = value.unwrap();
        let items = value.get("a").unwrap().items();
        assert_eq!(items[0], Json::Word("1".to_owned()));
        assert_eq!(items[1].get("b"), Some(&Json::Word("null".to_owned())));
        assert_eq!(items[2].text(), Some("x\n\"\u{1b}"));
        assert_eq!(value.get("c"), Some(&Json::Object(Vec::new())));
        assert!(value.get("d").unwrap().items().is_empty());
        assert_eq!(value.get("e"), None);
    }

    #[test]
    fn what_is_broken_is_refused() {
        for text in ["", "[1", "[1,]", "{\"a\" 1}", "{a: 1}", "\"x", "\"\\u12", "1 2", "[1]]"] {
            assert!(Json::parse(text).is_err(), "{text}");
        }
    }
}
