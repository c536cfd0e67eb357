// SPDX-License-Identifier: MIT OR Apache-2.0
//! The secrets of one request, which are not to turn up elsewhere.

use std::collections::HashSet;

use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind};

use super::HIDDEN;
use crate::steps;

/// Pieces of secrets that are shorter stand in too many texts by chance.
const SHORTEST_PIECE: usize = 3;

/// Secrets of this length are no words that QEMU knows, as a rule.
const LONG: usize = 6;

/// Each text once, however often it was found.
#[derive(Default)]
pub(super) struct Found(HashSet<String>);

impl Found {
    /// Notes a secret.
    pub(super) fn add(&mut self, secret: &str) {
        if !secret.is_empty() && !self.0.contains(secret) {
            self.0.insert(secret.to_owned());
        }
    }

    /// Notes a part or another spelling of a secret.
    pub(super) fn add_piece(&mut self, piece: &str) {
        if piece.len() >= SHORTEST_PIECE {
            self.add(piece);
        }
    }

    /// Notes a text, and its words without their quotes.
    pub(super) fn add_line(&mut self, line: &str) {
        self.add_piece(line.trim());
        for word in line.split_whitespace() {
            self.add_piece(word);
            self.add_piece(word.trim_matches(['"', '\'']));
        }
    }

    /// Notes what is said after a name in a text, and what it is without the quotes and escapes of option strings, of
    /// command lines and of URLs.
    pub(super) fn add_value(&mut self, value: &str) {
        let value = value.trim_matches(['"', '\'', '\\']);
        self.add_piece(value);
        self.add_piece(&value.replace(",,", ","));
        self.add_piece(&value.replace('\\', ""));
        self.add_piece(&percent_decoded(value));
    }

    /// What hides them elsewhere.
    pub(super) fn into_hider(self) -> Hider {
        steps::count(self.0.iter().map(String::len).sum());
        if self.0.is_empty() {
            return Hider::Nothing;
        }
        // In one pass, so that nothing is replaced in what stands for another secret. Of those that begin at the same
        // place, the longest is hidden. An automaton of this kind takes the least time to make: it is used once or twice.
        let automaton = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostLongest)
            .kind(Some(AhoCorasickKind::NoncontiguousNFA))
            .build(&self.0);
        automaton.map_or(Hider::Everything, Hider::Secrets)
    }
}

/// Hides the secrets of a request.
pub(super) enum Hider {
    Nothing,
    Secrets(AhoCorasick),
    /// There are too many to look for.
    Everything,
}

impl Hider {
    pub(super) fn hide_in(&self, text: String) -> String {
        self.hide_of_length(1, text)
    }

    /// Hides those secrets only that are not in a text by chance.
    pub(super) fn hide_long_in(&self, text: String) -> String {
        self.hide_of_length(LONG, text)
    }

    fn hide_of_length(&self, least: usize, text: String) -> String {
        let automaton = match self {
            Hider::Nothing => return text,
            Hider::Secrets(automaton) => automaton,
            Hider::Everything => return HIDDEN.to_owned(),
        };
        steps::count(text.len());
        let mut clean = String::with_capacity(text.len());
        automaton.replace_all_with(&text, &mut clean, |found, secret, clean| {
            clean.push_str(if found.len() < least { secret } else { HIDDEN });
            true
        });
        clean
    }
}

fn percent_decoded(text: &str) -> String {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, behind @ ..] = rest {
        let hex = behind.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        let byte = hex.filter(|_| *first == b'%').and_then(|hex| u8::from_str_radix(hex, 16).ok());
        decoded.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { &behind[2..] } else { behind };
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_within_others_are_hidden_once() {
        let mut found = Found::default();
        for secret in ["*", "*", "abc", "abcd", ""] {
            found.add(secret);
        }
        assert_eq!(
            found.into_hider().hide_in("x abcd * abc *** ab".to_owned()),
            "x *** *** *** ********* ab"
        );
    }

    #[test]
    fn values_are_found_however_they_are_quoted() {
        let mut found = Found::default();
        found.add_value("'hun,,ter%20\\:2'");
        let hider = found.into_hider();
        for spelling in ["hun,,ter%20\\:2", "hun,ter%20\\:2", "hun,,ter%20:2", "hun,,ter \\:2"] {
            assert_eq!(hider.hide_in(format!("no '{spelling}'")), "no '***'");
        }
    }
}
