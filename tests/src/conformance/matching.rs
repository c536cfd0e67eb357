// SPDX-License-Identifier: MIT OR Apache-2.0
//! Comparing what came with what a case expects.

use std::collections::HashMap;
use std::fmt;

use regex::Regex;

use crate::connection::shown;
use crate::json::Json;

/// The values that placeholders have captured.
pub type Captures = HashMap<String, Json>;

/// Where a value differs from what is expected, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mismatch {
    path: String,
    what: String,
}

impl Mismatch {
    fn new(what: impl Into<String>) -> Self {
        Self { path: String::new(), what: what.into() }
    }

    fn expected(expected: impl fmt::Display, actual: &Json) -> Self {
        Self::new(format!("expected {expected}, received {}", shown(&actual.to_string())))
    }

    fn below(mut self, parent: impl fmt::Display) -> Self {
        self.path.insert_str(0, &parent.to_string());
        self
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "${}: {}", self.path, self.what)
    }
}

/// Compares a value with an expectation that may hold placeholders; what they capture is added to `captures`.
pub fn match_value(
    expected: &Json,
    actual: &Json,
    captures: &mut Captures,
) -> Result<(), Mismatch> {
    match (expected, actual) {
        (Json::String(text), _) => match Placeholder::parse(text) {
            Some(placeholder) => placeholder.check(actual, captures),
            None => match_plain(expected, actual),
        },
        (Json::Object(members), _) if is_contains(members) => {
            match_contains(&members[0].1, actual, captures)
        }
        (Json::Object(expected), Json::Object(actual)) => match_members(expected, actual, captures),
        (Json::Object(_), _) => Err(Mismatch::expected("an object", actual)),
        (Json::Array(wanted), Json::Array(got)) if wanted.len() == got.len() => {
            let pairs = wanted.iter().zip(got).enumerate();
            pairs.into_iter().try_for_each(|(index, (wanted, got))| {
                match_value(wanted, got, captures)
                    .map_err(|error| error.below(format_args!("[{index}]")))
            })
        }
        (Json::Array(wanted), Json::Array(got)) => Err(Mismatch::new(format!(
            "expected {} elements, received {}",
            wanted.len(),
            got.len()
        ))),
        (Json::Array(_), _) => Err(Mismatch::expected("an array", actual)),
        _ => match_plain(expected, actual),
    }
}

fn match_plain(expected: &Json, actual: &Json) -> Result<(), Mismatch> {
    if expected == actual {
        Ok(())
    } else {
        Err(Mismatch::expected(shown(&expected.to_string()), actual))
    }
}

fn match_members(
    expected: &[(String, Json)],
    actual: &[(String, Json)],
    captures: &mut Captures,
) -> Result<(), Mismatch> {
    let names = |members: &[(String, Json)]| {
        members.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>()
    };
    let (wanted, got) = (names(expected), names(actual));
    if wanted != got {
        return Err(Mismatch::new(format!(
            "expected the members {wanted:?} in this order, received {got:?}"
        )));
    }
    expected.iter().zip(actual).try_for_each(|((name, wanted), (_, got))| {
        match_value(wanted, got, captures).map_err(|error| error.below(format_args!(".{name}")))
    })
}

fn is_contains(members: &[(String, Json)]) -> bool {
    matches!(members, [(name, Json::Array(_))] if name == "<contains>")
}

fn match_contains(expected: &Json, actual: &Json, captures: &mut Captures) -> Result<(), Mismatch> {
    let Some(elements) = actual.as_array() else {
        return Err(Mismatch::expected("an array", actual));
    };
    for wanted in expected.as_array().unwrap_or_default() {
        let found = elements.iter().any(|element| {
            let mut trial = captures.clone();
            let matches = match_value(wanted, element, &mut trial).is_ok();
            if matches {
                *captures = trial;
            }
            matches
        });
        if !found {
            return Err(Mismatch::new(format!(
                "no element matches {}",
                shown(&wanted.to_string())
            )));
        }
    }
    Ok(())
}

/// `<kind>` or `<kind:detail>`; the detail is a pattern, or the name under which the value is captured.
struct Placeholder<'a> {
    kind: &'a str,
    detail: Option<&'a str>,
}

impl<'a> Placeholder<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let inner = text.strip_prefix('<')?.strip_suffix('>')?;
        let (kind, detail) =
            inner.split_once(':').map_or((inner, None), |(kind, detail)| (kind, Some(detail)));
        let known =
            ["any", "int", "string", "bool", "array", "object", "same", "re"].contains(&kind);
        known.then_some(Self { kind, detail })
    }

    fn check(&self, actual: &Json, captures: &mut Captures) -> Result<(), Mismatch> {
        let detail = self.detail.unwrap_or_default();
        let captured = match (self.kind, actual) {
            ("int", Json::Number(text)) => {
                text.bytes().all(|byte| byte == b'-' || byte.is_ascii_digit())
            }
            ("any", _)
            | ("string", Json::String(_))
            | ("bool", Json::Bool(_))
            | ("array", Json::Array(_))
            | ("object", Json::Object(_)) => true,
            ("same", _) if captures.get(detail) == Some(actual) => return Ok(()),
            ("re", Json::String(text)) => match whole_match(detail) {
                Ok(pattern) if pattern.is_match(text) => return Ok(()),
                Ok(_) => false,
                Err(error) => return Err(Mismatch::new(format!("bad pattern: {error}"))),
            },
            _ => false,
        };
        if !captured {
            let wanted = self.detail.map_or(String::new(), |detail| format!(":{detail}"));
            return Err(Mismatch::expected(format_args!("<{}{wanted}>", self.kind), actual));
        }
        if let Some(name) = self.detail {
            captures.insert(name.to_owned(), actual.clone());
        }
        Ok(())
    }
}

fn whole_match(pattern: &str) -> Result<Regex, regex::Error> {
    Regex::new(&format!(r"(?s)\A(?:{pattern})\z"))
}

/// Whether a message is exactly the expected text, in which `<<int>>`, `<<str>>` (the inside of a string) and `<<any>>`
/// stand for what varies.
pub fn match_raw(expected: &str, actual: &str) -> bool {
    const PATTERNS: [(&str, &str); 3] =
        [("<<int>>", r"-?[0-9]+"), ("<<str>>", r#"(?:[^"\\]|\\.)*"#), ("<<any>>", r".*")];
    let pattern = PATTERNS.iter().fold(regex::escape(expected), |pattern, (name, part)| {
        pattern.replace(&regex::escape(name), part)
    });
    if PATTERNS.iter().any(|(name, _)| expected.contains(name)) {
        whole_match(&pattern).is_ok_and(|pattern| pattern.is_match(actual))
    } else {
        expected == actual
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(expected: &str, actual: &str) -> bool {
        match_value(
            &Json::parse(expected).unwrap(),
            &Json::parse(actual).unwrap(),
            &mut Captures::new(),
        )
        .is_ok()
    }

    #[test]
    fn order_and_spelling_count() {
        assert!(matches(r#"{"a": 1, "b": [true, null]}"#, r#"{"a": 1, "b": [true, null]}"#));
        assert!(!matches(r#"{"a": 1, "b": 2}"#, r#"{"b": 2, "a": 1}"#));
        assert!(!matches(r#"{"a": 1}"#, r#"{"a": 1, "b": 2}"#));
        assert!(!matches("1", "1.0"));
        assert!(!matches("1", "\"1\""));
        assert!(!matches("[1]", "[1, 2]"));
    }

    #[test]
    fn placeholders_stand_for_kinds_of_values() {
        for (placeholder, good, bad) in [
            ("<int>", "-12", "1.5"),
            ("<string>", "\"\"", "1"),
            ("<bool>", "false", "null"),
            ("<array>", "[1]", "{}"),
            ("<object>", "{}", "[]"),
            ("<re:a.*z>", "\"a\\nz\"", "\"az.\""),
            ("<nothing known>", "\"<nothing known>\"", "\"\""),
        ] {
            let expected = Json::from(placeholder).to_string();
            assert!(matches(&expected, good), "{placeholder} {good}");
            assert!(!matches(&expected, bad), "{placeholder} {bad}");
        }
        assert!(matches("\"<any>\"", "null"));
    }

    #[test]
    fn captured_values_can_be_asked_for_again() {
        assert!(matches(r#"["<int:a>", "<same:a>"]"#, "[7, 7]"));
        assert!(!matches(r#"["<int:a>", "<same:a>"]"#, "[7, 8]"));
        assert!(!matches(r#""<same:a>""#, "7"));
    }

    #[test]
    fn contained_elements_come_in_any_order_and_capture() {
        let expected = r#"[{"<contains>": [{"n": "b", "t": "<int:t>"}, {"n": "a", "t": "<any>"}]}, "<same:t>"]"#;
        assert!(matches(
            expected,
            r#"[[{"n": "a", "t": 1}, {"n": "c", "t": 3}, {"n": "b", "t": 2}], 2]"#
        ));
        assert!(!matches(expected, r#"[[{"n": "a", "t": 1}, {"n": "c", "t": 3}], 2]"#));
    }

    #[test]
    fn a_mismatch_says_where() {
        let (expected, actual) = (r#"{"a": [1, {"b": 2}]}"#, r#"{"a": [1, {"b": 3}]}"#);
        let error = match_value(
            &Json::parse(expected).unwrap(),
            &Json::parse(actual).unwrap(),
            &mut Captures::new(),
        );
        assert_eq!(error.unwrap_err().to_string(), "$.a[1].b: expected 2, received 3");
    }

    #[test]
    fn raw_text_is_compared_to_the_byte() {
        assert!(match_raw(r#"{"a": inf}"#, r#"{"a": inf}"#));
        assert!(!match_raw(r#"{"a": inf}"#, r#"{"a":inf}"#));
        assert!(match_raw(
            r#"{"n": <<int>>, "s": "<<str>>", <<any>>}"#,
            r#"{"n": -5, "s": "x\"y", {}}"#
        ));
        assert!(!match_raw(r#"{"s": "<<str>>"}"#, r#"{"s": "x", "y": "z"}"#));
    }
}
