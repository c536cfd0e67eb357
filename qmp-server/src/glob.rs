// SPDX-License-Identifier: MIT OR Apache-2.0
//! Patterns like those of a shell's file names.

use crate::steps;

/// No name of a command, an event or a member could match this.
#[cfg(any(feature = "audit", feature = "roles"))]
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no pattern of names: letters, digits, '-', '_', '.', '*' and '?'")]
pub struct PatternError(String);

/// Checks that names of QAPI could match a pattern.
#[cfg(any(feature = "audit", feature = "roles"))]
pub(crate) fn check(pattern: &str) -> Result<(), PatternError> {
    let good = |character: char| character.is_ascii_alphanumeric() || "-_.*?".contains(character);
    match !pattern.is_empty() && pattern.chars().all(good) {
        true => Ok(()),
        false => Err(PatternError(pattern.to_owned())),
    }
}

#[cfg(any(feature = "audit", feature = "roles"))]
impl PatternError {
    /// What was meant to be a pattern.
    pub fn pattern(&self) -> &str {
        &self.0
    }
}

/// Whether `text` matches a pattern in which `*` stands for any text and `?` for any character.
pub(crate) fn matches(pattern: &str, text: &str) -> bool {
    let mut rest = text;
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    match strip(rest, first) {
        Some(tail) => rest = tail,
        None => return false,
    }
    let mut parts = parts.peekable();
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            let Some(start) = rest.len().checked_sub(part.len()) else { return false };
            return rest.is_char_boundary(start) && strip(&rest[start..], part) == Some("");
        }
        // The leftmost match leaves most for what follows.
        let found = rest.char_indices().find_map(|(at, _)| strip(&rest[at..], part));
        match found.or_else(|| part.is_empty().then_some(rest)) {
            Some(tail) => rest = tail,
            None => return false,
        }
    }
    rest.is_empty()
}

/// What follows `part`, in which `?` stands for any character, at the start of `text`.
fn strip<'t>(text: &'t str, part: &str) -> Option<&'t str> {
    let mut rest = text.chars();
    for wanted in part.chars() {
        steps::count(1);
        let got = rest.next()?;
        if wanted != '?' && wanted != got {
            return None;
        }
    }
    Some(rest.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Patterns are an operator's, and names a client's; of trace points, it is the other way round.
    #[test]
    fn it_takes_steps_in_proportion_to_the_name_and_to_the_pattern() {
        for (pattern, text) in
            [("*", "a"), ("*aaab", "a"), ("a*a*a*b", "a"), ("*a?a*b", "a"), ("**?*b*", "é")]
        {
            let of_text = |count| steps::during(|| matches(pattern, &text.repeat(count))).1;
            assert!(of_text(2000) <= 2 * of_text(1000) + 20, "{pattern} {text}");
            let name = "handle_qmp_command";
            let of_pattern = |count| steps::during(|| matches(&pattern.repeat(count), name)).1;
            assert!(of_pattern(2000) <= 2 * of_pattern(1000) + 20, "{pattern}");
        }
    }

    #[test]
    fn patterns_match_like_those_of_a_shell() {
        for (pattern, text, expected) in [
            ("*", "", true),
            ("*", "anything", true),
            ("handle_*", "handle_qmp_command", true),
            ("*command", "handle_qmp_command", true),
            ("h*qmp*d", "handle_qmp_command", true),
            ("h*q?p*d", "handle_qmp_command", true),
            ("h**d", "hd", true),
            ("h*x*d", "handle_qmp_command", false),
            ("*qmp", "handle_qmp_command", false),
            ("qmp*", "handle_qmp_command", false),
            ("ab*ba", "aba", false),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }
}
