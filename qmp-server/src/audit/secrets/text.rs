// SPDX-License-Identifier: MIT OR Apache-2.0
//! Secrets within texts: URLs, options, headers, command lines and JSON.

use std::borrow::Cow;
use std::ops::Range;

use super::found::Found;
use super::names::{BEFORE_COMMAND_LINES, HEADERS, LOGIN_SCHEMES, SECRET_TYPE, URL_SCHEMES};
use super::{HIDDEN, Secrets, names_match, normal};
use crate::steps;

/// Who has written a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Author {
    /// A client: in doubt, what follows is part of the secret.
    Client,
    /// The server, which quotes what it has been told, and whose sentences have colons.
    Server,
}

impl Secrets {
    /// A text without what is said of names that are secrets, and without the users and passwords of URLs. What is hidden
    /// is noted.
    ///
    /// Goes through the text once: what it looks for further on is either hidden then, or not looked for again.
    pub(super) fn clean<'t>(
        &self,
        text: &'t str,
        source: Author,
        depth: usize,
        found: &mut Found,
    ) -> Cow<'t, str> {
        steps::count(text.len());
        // Without these there is neither a URL, nor an option, nor a word in front of a secret.
        if !text.contains([':', '=', ' ', '\t', '\n']) {
            return text.into();
        }
        let mut cleaning = Cleaning {
            secrets: self,
            source,
            depth,
            found,
            text,
            at: 0,
            word: 0..0,
            copied: 0,
            clean: String::new(),
            last_at: text.rfind('@').unwrap_or(0),
            no_user_before: 0,
            query: text.find('?').unwrap_or(text.len()),
            has_secret_object: normal(text).contains(SECRET_TYPE),
            is_rbd: text.contains("rbd:"),
        };
        cleaning.run();
        if cleaning.copied == 0 {
            return text.into();
        }
        cleaning.clean.push_str(&text[cleaning.copied..]);
        cleaning.clean.into()
    }

    /// Of a command line, the program: the first word, if it looks like the name of one.
    pub(super) fn program(line: &str, found: &mut Found) -> String {
        let is_of_name = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
        let line = line.trim_start();
        let end = line.find(|c| !is_of_name(c)).unwrap_or(line.len());
        let (program, rest) = line.split_at(end);
        let is_whole = rest.is_empty() || rest.starts_with(char::is_whitespace);
        let (kept, rest) = if is_whole { (program, rest) } else { ("", line) };
        if rest.trim().is_empty() {
            return kept.to_owned();
        }
        found.add_line(rest);
        format!("{kept} {HIDDEN}").trim_start().to_owned()
    }
}

struct Cleaning<'a, 't> {
    secrets: &'a Secrets,
    source: Author,
    /// How often more there may be JSON in a text in JSON.
    depth: usize,
    found: &'a mut Found,
    text: &'t str,
    at: usize,
    /// The last word, if nothing but white space and quotes are between it and `at`; else empty.
    word: Range<usize>,
    /// How much of `text` is in `clean`, or hidden there. Never beyond `at`.
    copied: usize,
    clean: String,
    /// The last `@`, up to which a client's URL may have a user.
    last_at: usize,
    /// Between `at` and this there is no `@`.
    no_user_before: usize,
    /// Where a URL may have parameters, from here on.
    query: usize,
    /// A type may be named whose `data` is a secret.
    has_secret_object: bool,
    /// `:` ends an option.
    is_rbd: bool,
}

impl Cleaning<'_, '_> {
    fn run(&mut self) {
        while let Some(byte) = self.byte(self.at) {
            match byte {
                _ if is_of_word(byte) => {
                    let start = self.at;
                    self.at = self.end_of_word(start);
                    self.word = start..self.at;
                    self.before_space();
                    continue;
                }
                b':' if self.word.end == self.at && self.colon() => continue,
                b':' | b'=' if self.assignment() => continue,
                b' ' | b'\t' | b'"' | b'\'' | b'\\' => {}
                _ => self.word = 0..0,
            }
            self.at += 1;
        }
    }

    /// Hides what follows a word such as `--password`, `set_password` or `Bearer`.
    fn before_space(&mut self) {
        let word = &self.text[self.word.clone()];
        let is_key = word.starts_with("-----BEGIN");
        let space = self.byte(self.at).is_some_and(|byte| byte.is_ascii_whitespace());
        let names_secret = || self.source == Author::Client && self.is_secret(word);
        // A sign goes before a value, and not the value itself.
        let is_followed =
            || !matches!(self.byte(self.skip_space(self.at)), None | Some(b'=' | b':'));
        if is_key || (space && names_secret() && is_followed()) {
            let start = if is_key { self.at } else { self.skip_space(self.at) };
            self.found.add_line(&self.text[start..]);
            self.hide(start, self.text.len());
        }
    }

    /// What begins with a word and a colon and is known for it: JSON, a command line, a URL. Whether it was.
    fn colon(&mut self) -> bool {
        let word = self.text[self.word.clone()].to_ascii_lowercase();
        let rest = self.at + 1;
        if word == "json" {
            let start = self.skip_space(rest);
            let is_object = self.byte(start) == Some(b'{');
            let is_client = self.source == Author::Client;
            if is_object || (is_client && start < self.text.len()) {
                let end = if is_object { self.end_of_brackets(start) } else { self.text.len() };
                self.secrets.note_json(&self.text[start..end], self.depth, self.found);
                self.hide(rest, if is_client { self.text.len() } else { end });
                return true;
            }
        }
        let line = &self.text[rest..];
        let is_line = |before: &&str| {
            word == **before || (before.starts_with('-') && word.ends_with(*before))
        };
        // The server may say what it could not execute.
        let is_sentence = self.source == Author::Server && line.starts_with(' ');
        if !is_sentence && BEFORE_COMMAND_LINES.iter().any(is_line) {
            let kept = Secrets::program(line, self.found);
            if kept != line {
                self.copy(rest);
                self.clean.push_str(&kept);
                self.at = self.text.len();
                self.copied = self.at;
            }
            return kept != line;
        }
        let slashes = self.text[rest..].bytes().take_while(|byte| *byte == b'/').count();
        steps::count(slashes);
        let scheme = word.rsplit('.').next().unwrap_or_default();
        let is_url = slashes >= 2 || (slashes == 1 && URL_SCHEMES.contains(&scheme));
        if !is_url || scheme.is_empty() {
            return false;
        }
        self.at = rest + slashes;
        self.word = self.at..self.at;
        self.user(scheme);
        true
    }

    /// Hides the user and password of a URL that goes on here.
    fn user(&mut self, scheme: &str) {
        let start = self.at;
        let end = match self.source {
            Author::Client => self.last_at,
            Author::Server if start < self.no_user_before => return,
            Author::Server => {
                let is_end = |c: char| c.is_whitespace() || "'\"".contains(c);
                let url = &self.text[start..];
                let url = &url[..url.find(is_end).unwrap_or(url.len())];
                steps::count(url.len());
                self.no_user_before = start + url.len();
                start + url.rfind('@').unwrap_or(0)
            }
        };
        if end <= start {
            return;
        }
        let user = &self.text[start..end];
        let plain = |byte: u8| is_of_word(byte) && byte != b'+';
        let login = LOGIN_SCHEMES.contains(&scheme);
        if login && user.bytes().all(plain) {
            return;
        }
        if let Some((_, password)) = user.split_once([':', '%']) {
            self.found.add_value(password);
        }
        self.found.add_value(user);
        self.hide(start, end);
    }

    /// Hides what is said after `=` or `:`, if the word before is the name of a secret. Whether it was.
    fn assignment(&mut self) -> bool {
        let name = &self.text[self.word.clone()];
        if name.is_empty() || !self.is_secret(name) {
            return false;
        }
        let between = &self.text[self.word.end..self.at];
        let is_colon = self.byte(self.at) == Some(b':');
        let is_header = is_colon && between.is_empty() && names_match(HEADERS, &normal(name));
        // A sentence of the server may have a name and a colon, too.
        if is_colon && between.is_empty() && self.source == Author::Server && !is_header {
            return false;
        }
        let start = self.skip_space(self.at + 1);
        let quote = self.quote_around(name.len() + between.len());
        let ends_at_space = self.source == Author::Server && !is_header;
        let end = self.end_of_value(start, quote, ends_at_space);
        if end == start {
            return false;
        }
        self.found.add_value(&self.text[start..end]);
        self.hide(start, end);
        true
    }

    fn is_secret(&self, name: &str) -> bool {
        let is_data = || normal(name.rsplit('.').next().unwrap_or_default()) == "data";
        self.secrets.is_secret(name) || (self.has_secret_object && is_data())
    }

    /// A quote that stands right before the name of this length, in what the server has written: it quotes until the next.
    fn quote_around(&self, before: usize) -> Option<u8> {
        let start = self.at.checked_sub(before + 1)?;
        let quote = self.byte(start).filter(|byte| matches!(byte, b'\'' | b'"'))?;
        let closed_before_value = self.byte(self.at - 1) == Some(quote);
        (self.source == Author::Server && !closed_before_value).then_some(quote)
    }

    /// Where a value ends that begins here: within quotes, where they end; else where the next option begins. It may
    /// have anything in it, so that in doubt it goes on.
    fn end_of_value(&self, start: usize, outer_quote: Option<u8>, ends_at_space: bool) -> usize {
        let mut at = start;
        match self.byte(at) {
            Some(b'{' | b'[') => return self.end_of_brackets(at),
            Some(b'\\') if matches!(self.byte(at + 1), Some(b'"' | b'\'')) => {
                at = self.end_of_quotes(at + 1);
            }
            Some(b'"' | b'\'') => at = self.end_of_quotes(at),
            _ => {}
        }
        let was_quoted = at > start;
        let in_query = self.query < start;
        while let Some(byte) = self.byte(at) {
            match byte {
                b',' | b'}' | b']' | b')' if was_quoted => break,
                // QEMU's own escape.
                b',' if self.byte(at + 1) == Some(b',') => at += 1,
                b',' if self.is_option(at + 1) => break,
                b':' if self.is_rbd
                    && self.byte(at - 1) != Some(b'\\')
                    && self.is_option(at + 1) =>
                {
                    break;
                }
                b'&' if in_query => break,
                b'\n' => break,
                quote if outer_quote == Some(quote) => break,
                b'\'' | b'"' | b' ' if ends_at_space && !was_quoted => break,
                _ => {}
            }
            at += 1;
        }
        let at = at.min(self.text.len());
        steps::count(at - start);
        at
    }

    /// Whether `NAME=` or `"NAME":` is here.
    fn is_option(&self, start: usize) -> bool {
        let quoted = |at| matches!(self.byte(at), Some(b'"' | b'\'' | b'\\'));
        let mut at = self.skip_space(start);
        let is_quoted = quoted(at);
        while quoted(at) {
            at += 1;
        }
        let name = at;
        at = self.end_of_word(at);
        let has_name = at > name;
        while quoted(at) {
            at += 1;
        }
        steps::count(at - start);
        let sign = self.byte(self.skip_space(at));
        has_name && (sign == Some(b'=') || (is_quoted && sign == Some(b':')))
    }

    /// Behind the quote that closes the one here.
    fn end_of_quotes(&self, start: usize) -> usize {
        let quote = self.byte(start);
        let mut at = start + 1;
        while let Some(byte) = self.byte(at) {
            if Some(byte) == quote {
                return at + 1;
            }
            at += if byte == b'\\' && self.byte(at + 1) != quote { 2 } else { 1 };
        }
        self.text.len()
    }

    /// Behind the bracket that closes the one here, as JSON counts them.
    fn end_of_brackets(&self, start: usize) -> usize {
        let (mut at, mut depth) = (start, 0usize);
        let mut quote = None;
        while let Some(byte) = self.byte(at) {
            at += 1;
            match (byte, quote) {
                (b'\\', Some(_)) => at += 1,
                (_, Some(open)) if byte == open => quote = None,
                (b'"' | b'\'', None) => quote = Some(byte),
                (b'{' | b'[', None) => depth += 1,
                (b'}' | b']', None) => {
                    depth -= 1;
                    if depth == 0 {
                        break;
                    }
                }
                _ => {}
            }
        }
        let at = at.min(self.text.len());
        steps::count(at - start);
        at
    }

    fn end_of_word(&self, start: usize) -> usize {
        let rest = &self.text.as_bytes()[start..];
        start + rest.iter().take_while(|byte| is_of_word(**byte)).count()
    }

    fn skip_space(&self, start: usize) -> usize {
        let rest = &self.text.as_bytes()[start.min(self.text.len())..];
        let spaces = rest.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
        steps::count(spaces);
        start + spaces
    }

    fn byte(&self, at: usize) -> Option<u8> {
        self.text.as_bytes().get(at).copied()
    }

    fn copy(&mut self, end: usize) {
        self.clean.push_str(&self.text[self.copied..end]);
        self.copied = end;
    }

    fn hide(&mut self, start: usize, end: usize) {
        self.copy(start);
        if start < end {
            self.clean.push_str(HIDDEN);
        }
        self.copied = end;
        self.at = end;
        self.word = end..end;
    }
}

fn is_of_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'+')
}
