// SPDX-License-Identifier: MIT OR Apache-2.0
//! The secrets of one request, which are not to turn up elsewhere.

use std::collections::HashSet;

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
        let mut secrets: Vec<String> = self.0.into_iter().collect();
        steps::count(secrets.iter().map(String::len).sum());
        secrets.sort_unstable();
        let mut beginnings: Vec<Option<usize>> = Vec::with_capacity(secrets.len());
        for (index, secret) in secrets.iter().enumerate() {
            // Between a secret and one that begins like it, all others begin like it, too.
            let mut beginning = index.checked_sub(1);
            while let Some(at) = beginning.filter(|&at| !secret.starts_with(&secrets[at])) {
                steps::count(1);
                beginning = beginnings[at];
            }
            beginnings.push(beginning);
        }
        let mut first_bytes = [false; 256];
        secrets.iter().filter_map(|secret| secret.bytes().next()).for_each(|byte| {
            first_bytes[usize::from(byte)] = true;
        });
        Hider { secrets, beginnings, first_bytes }
    }
}

/// Bytes that may be compared for each byte of a text. An attacker's secrets begin alike; others' take a few.
const COMPARED: usize = 256;

/// Hides the secrets of a request: in one pass, so that nothing is replaced in what stands for another secret. Of those that
/// begin at the same place, the longest is hidden. To make an automaton of the secrets would take longer than to look for
/// them: that is done for a few texts only.
pub(super) struct Hider {
    /// Sorted, and each once.
    secrets: Vec<String>,
    /// Of each, the longest of the others that it begins with.
    beginnings: Vec<Option<usize>>,
    /// The bytes that they begin with.
    first_bytes: [bool; 256],
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
        steps::count(text.len());
        let mut left = COMPARED * (text.len() + 16);
        let mut clean = String::new();
        let (mut copied, mut at) = (0, 0);
        while let Some(&byte) = text.as_bytes().get(at) {
            if !self.first_bytes[usize::from(byte)] {
                at += 1;
                continue;
            }
            let Ok(found) = self.longest_at(&text.as_bytes()[at..], &mut left) else {
                return HIDDEN.to_owned();
            };
            if found >= least.max(1) {
                clean.push_str(&text[copied..at]);
                clean.push_str(HIDDEN);
                copied = at + found;
            }
            at += found.max(1);
        }
        if copied == 0 && clean.is_empty() {
            return text;
        }
        clean.push_str(&text[copied..]);
        clean
    }

    /// The length of the longest secret that a text begins with, 0 if there is none. An error if too much had to be compared.
    fn longest_at(&self, text: &[u8], left: &mut usize) -> Result<usize, TooMuch> {
        let mut pay = |secret: &str| {
            let bytes = secret.len().min(text.len());
            steps::count(1 + bytes / COMPARED);
            *left = left.saturating_sub(bytes + 1);
        };
        // Those that the text begins with are before it, and the last one before it begins with them.
        let after = self.secrets.partition_point(|secret| {
            pay(secret);
            secret.as_bytes() <= text
        });
        let mut last = after.checked_sub(1);
        while let Some(index) = last {
            let secret = &self.secrets[index];
            pay(secret);
            if text.starts_with(secret.as_bytes()) {
                return if *left > 0 { Ok(secret.len()) } else { Err(TooMuch) };
            }
            last = self.beginnings[index];
        }
        if *left > 0 { Ok(0) } else { Err(TooMuch) }
    }
}

struct TooMuch;

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
    fn the_longest_secret_is_hidden_wherever_others_begin_like_it() {
        let words = &["a", "ab", "abc", "abd", "b", "bab", "abcabd", "é", "éa"];
        let mut found = Found::default();
        words.iter().for_each(|word| found.add(word));
        let hider = found.into_hider();
        let texts = words.iter().flat_map(|a| {
            words.iter().flat_map(move |b| words.iter().map(move |c| format!("{a}{b}-{c}z{a}")))
        });
        for text in texts {
            // As it is defined, in quadratic time.
            let (mut expected, mut rest) = (String::new(), text.as_str());
            while let Some(next) = rest.chars().next() {
                let longest = words
                    .iter()
                    .filter(|word| rest.starts_with(**word))
                    .max_by_key(|word| word.len());
                expected.push_str(if longest.is_some() {
                    HIDDEN
                } else {
                    &rest[..next.len_utf8()]
                });
                rest = &rest[longest.map_or(next.len_utf8(), |word| word.len())..];
            }
            assert_eq!(hider.hide_in(text.clone()), expected, "{text}");
        }
    }

    #[test]
    fn secrets_that_begin_alike_take_steps_in_proportion_to_the_text() {
        let mut found = Found::default();
        (1..150).for_each(|length| found.add(&format!("{}b", "a".repeat(length))));
        let hider = found.into_hider();
        let steps = |length| steps::during(|| hider.hide_in("a".repeat(length))).1;
        assert!(steps(8000) <= 2 * steps(4000) + 1000, "{} {}", steps(8000), steps(4000));
        assert_eq!(hider.hide_in("a".repeat(10_000)), HIDDEN, "too much to be compared");
        assert_eq!(hider.hide_in("xaaabx".to_owned()), "x***x");
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
