// SPDX-License-Identifier: MIT OR Apache-2.0
//! Finds the first error in a message, token by token. Mirrors the parser of QEMU 11.1
//! (`qobject/json-parser.c`), and knows where that of 10.0 decides otherwise.

use std::borrow::Cow;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::BuildHasher;

use crate::lexer::{Kind, Token};
use crate::parser::unescape;
use crate::text::Text;
use crate::{Dialect, SyntaxErrorKind};

/// What the next token is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Value,
    /// A value, or the end of the array.
    FirstElement,
    /// A string, or the end of the object.
    FirstKey,
    Key,
    Colon,
    MemberEnd,
    ElementEnd,
    /// The value is complete.
    Nothing,
}

/// An entry of [`Checker::open`] for an array.
const ARRAY: usize = usize::MAX;

/// An entry of [`Checker::open`] for a value in place of a key.
const KEY: usize = usize::MAX - 1;

/// The names of an object are compared one by one while they are no more and no longer than this, and by
/// their hashes then.
const FEW: usize = 16;
const SHORT: usize = 64;

/// Checks the tokens of one value, and can be stopped between any two of them.
#[derive(Debug)]
pub(crate) struct Checker {
    next: Next,
    /// How many tokens have been checked.
    at: usize,
    /// What is open: [`ARRAY`], [`KEY`], or where the names of an object begin in `names`.
    open: Vec<usize>,
    /// The tokens that are names in open objects.
    names: Vec<usize>,
    /// The open objects with many or long names; the innermost is the last.
    hashed: Vec<Hashed>,
}

/// The names of an object by their hashes, or the next free number after that.
#[derive(Debug)]
struct Hashed {
    /// The object's entry in [`Checker::open`].
    first: usize,
    names: HashMap<u64, usize>,
}

impl Default for Checker {
    fn default() -> Checker {
        let (open, names, hashed) = (Vec::new(), Vec::new(), Vec::new());
        Checker { next: Next::Value, at: 0, open, names, hashed }
    }
}

impl Checker {
    /// Starts over with the value whose first token is this one.
    pub(crate) fn restart_at(&mut self, at: usize) {
        self.next = Next::Value;
        self.at = at;
        self.open.clear();
        self.names.clear();
        self.hashed.clear();
    }

    /// Starts over, and gives back what is larger than this.
    pub(crate) fn clear(&mut self, largest: usize) {
        self.restart_at(0);
        self.open.shrink_to(largest);
        self.names.shrink_to(largest);
        self.hashed.shrink_to(0);
    }

    /// How many tokens have been checked, or which one is wrong.
    pub(crate) fn position(&self) -> usize {
        self.at
    }

    /// How many bytes are kept.
    pub(crate) fn kept(&self) -> usize {
        let hashed: usize = self.hashed.iter().map(|hashed| hashed.names.len()).sum();
        size_of_val(&*self.open) + size_of_val(&*self.names) + hashed * size_of::<(u64, usize)>()
    }

    /// Checks all tokens that have not been checked, up to the end of the value.
    pub(crate) fn run(
        &mut self,
        dialect: Dialect,
        text: Text<'_>,
        tokens: &[Token],
    ) -> Result<(), SyntaxErrorKind> {
        while self.next != Next::Nothing
            && let Some(&token) = tokens.get(self.at)
        {
            self.next = match self.next {
                Next::Value | Next::FirstElement => self.value(token, text, tokens)?,
                Next::FirstKey if token.kind == Kind::CloseBrace => self.close(text, tokens)?,
                Next::FirstKey | Next::Key => self.key(token, dialect, text)?,
                Next::Colon if token.kind == Kind::Colon => Next::Value,
                Next::Colon => return Err(SyntaxErrorKind::MissingColon),
                Next::MemberEnd => match token.kind {
                    Kind::Comma => Next::Key,
                    Kind::CloseBrace => self.close(text, tokens)?,
                    _ => return Err(SyntaxErrorKind::DictSeparator),
                },
                Next::ElementEnd => match token.kind {
                    Kind::Comma => Next::Value,
                    Kind::CloseBracket => self.close(text, tokens)?,
                    _ => return Err(SyntaxErrorKind::ListSeparator),
                },
                Next::Nothing => Next::Nothing,
            };
            self.at += 1;
        }
        Ok(())
    }

    #[inline]
    fn value(
        &mut self,
        token: Token,
        text: Text<'_>,
        tokens: &[Token],
    ) -> Result<Next, SyntaxErrorKind> {
        match token.kind {
            Kind::PlainString | Kind::Integer | Kind::Double => self.complete(text, tokens),
            Kind::String => {
                string(token, text)?;
                self.complete(text, tokens)
            }
            Kind::OpenBrace => {
                self.open.push(self.names.len());
                Ok(Next::FirstKey)
            }
            Kind::OpenBracket => {
                self.open.push(ARRAY);
                Ok(Next::FirstElement)
            }
            Kind::Keyword => {
                keyword(text.of(token))?;
                self.complete(text, tokens)
            }
            Kind::CloseBracket if self.next == Next::FirstElement => self.close(text, tokens),
            Kind::CloseBrace | Kind::CloseBracket | Kind::Comma | Kind::Colon => {
                Err(SyntaxErrorKind::ExpectingValue)
            }
        }
    }

    #[inline]
    fn key(
        &mut self,
        token: Token,
        dialect: Dialect,
        text: Text<'_>,
    ) -> Result<Next, SyntaxErrorKind> {
        match token.kind {
            Kind::PlainString => {}
            Kind::String => drop(string(token, text)?),
            _ => return self.no_key(token, dialect, text),
        }
        self.names.push(self.at);
        Ok(Next::Colon)
    }

    /// 10.0 parses a key as any value first, and reports an error inside it as such.
    #[cold]
    fn no_key(
        &mut self,
        token: Token,
        dialect: Dialect,
        text: Text<'_>,
    ) -> Result<Next, SyntaxErrorKind> {
        if dialect >= Dialect::Qemu11_1 {
            return Err(SyntaxErrorKind::ExpectingKey);
        }
        self.open.push(KEY);
        self.next = Next::Value;
        self.value(token, text, &[])
    }

    /// An array or object ends.
    #[inline]
    fn close(&mut self, text: Text<'_>, tokens: &[Token]) -> Result<Next, SyntaxErrorKind> {
        if let Some(first) = self.open.pop()
            && first < KEY
        {
            self.names.truncate(first);
            if self.hashed.last().is_some_and(|hashed| hashed.first == self.open.len()) {
                self.hashed.pop();
            }
        }
        self.complete(text, tokens)
    }

    /// A value is complete, and with it the member or element that it belongs to.
    #[inline]
    fn complete(&mut self, text: Text<'_>, tokens: &[Token]) -> Result<Next, SyntaxErrorKind> {
        match self.open.last() {
            None => Ok(Next::Nothing),
            Some(&ARRAY) => Ok(Next::ElementEnd),
            Some(&KEY) => Err(SyntaxErrorKind::KeyNotString),
            Some(&first) => match self.is_last_name_new(first, text, tokens) {
                true => Ok(Next::MemberEnd),
                false => Err(SyntaxErrorKind::DuplicateKey),
            },
        }
    }

    /// Whether no earlier member of the innermost object, whose names begin there, has the last one's name.
    #[inline]
    fn is_last_name_new(&mut self, first: usize, text: Text<'_>, tokens: &[Token]) -> bool {
        let Some((&last, earlier)) = self.names[first..].split_last() else { return true };
        let is_hashed =
            self.hashed.last().is_some_and(|hashed| hashed.first + 1 == self.open.len());
        let token = tokens[last];
        let short = token.kind == Kind::PlainString && token.end - token.start <= SHORT;
        if is_hashed || !short || earlier.len() >= FEW {
            return self.is_hash_new(first, is_hashed, text, tokens);
        }
        let name = &text.of(token)[1..];
        earlier.iter().all(|&earlier| {
            let earlier = tokens[earlier];
            let (len, earlier) = (earlier.end - earlier.start, &text.of(earlier)[1..]);
            // The quotes may be different ones.
            len != name.len() + 1 || earlier[..len - 2] != name[..len - 2]
        })
    }

    #[inline(never)]
    fn is_hash_new(
        &mut self,
        first: usize,
        is_hashed: bool,
        text: Text<'_>,
        tokens: &[Token],
    ) -> bool {
        let names = &self.names[first..];
        let to_add = if is_hashed { &names[names.len() - 1..] } else { names };
        if !is_hashed {
            self.hashed.push(Hashed { first: self.open.len() - 1, names: HashMap::new() });
        }
        let Some(hashed) = self.hashed.last_mut() else { return true };
        to_add.iter().all(|&name| hashed.add(name, text, tokens))
    }
}

impl Hashed {
    /// Whether the name is new.
    fn add(&mut self, name: usize, text: Text<'_>, tokens: &[Token]) -> bool {
        let decoded = |name: usize| string(tokens[name], text).unwrap_or_default();
        let new = decoded(name);
        let mut hash = self.names.hasher().hash_one(&*new);
        loop {
            match self.names.entry(hash) {
                Entry::Vacant(entry) => {
                    entry.insert(name);
                    return true;
                }
                Entry::Occupied(entry) if decoded(*entry.get()) == new => return false,
                Entry::Occupied(_) => hash = hash.wrapping_add(1),
            }
        }
    }
}

fn string<'t>(token: Token, text: Text<'t>) -> Result<Cow<'t, str>, SyntaxErrorKind> {
    let raw = &text.of(token)[1..];
    match token.kind {
        Kind::PlainString => Ok(str::from_utf8(&raw[..raw.len() - 1]).unwrap_or_default().into()),
        _ => unescape(raw),
    }
}

fn keyword(text: &[u8]) -> Result<(), SyntaxErrorKind> {
    match text {
        b"null" | b"true" | b"false" => Ok(()),
        _ => Err(SyntaxErrorKind::invalid_keyword(text)),
    }
}
