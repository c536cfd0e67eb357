// SPDX-License-Identifier: MIT OR Apache-2.0
//! The text of a message that may not lie in one place.

use crate::lexer::Token;
use crate::{Dialect, Location, SyntaxError, SyntaxErrorKind};

/// The text of a message, of which a part has been kept and the rest is still where it came in. No
/// token lies in both.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Text<'t> {
    pub(crate) kept: &'t [u8],
    pub(crate) rest: &'t [u8],
}

impl<'t> Text<'t> {
    #[inline]
    pub(crate) fn of(self, token: Token) -> &'t [u8] {
        let kept = self.kept.len();
        match token.start < kept {
            true => &self.kept[token.start..token.end],
            false => &self.rest[token.start - kept..token.end - kept],
        }
    }

    fn between(self, start: usize, end: usize) -> impl Iterator<Item = u8> {
        let all = self.kept.iter().chain(self.rest).copied();
        all.skip(start).take(end - start)
    }
}

/// Where a message, or what is left of it to be looked at, stands in the stream.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Origin {
    pub(crate) dialect: Dialect,
    /// A place in the text: no token that is still to be looked at starts before it.
    pub(crate) offset: usize,
    /// The same place in the stream.
    pub(crate) location: Location,
    /// How many columns from its place the first token is located.
    pub(crate) first_shift: i64,
}

impl Origin {
    pub(crate) fn start(dialect: Dialect) -> Origin {
        let location = Location { line: 1, column: 1 };
        Origin { dialect, offset: 0, location, first_shift: 0 }
    }

    /// What QEMU reports if it finds `kind` at this token.
    #[cold]
    pub(crate) fn error(
        &self,
        kind: SyntaxErrorKind,
        text: Text<'_>,
        tokens: &[Token],
        index: usize,
    ) -> SyntaxError {
        let dialect = self.dialect;
        let located = dialect >= Dialect::Qemu11_1;
        let location = located.then(|| self.locate(text, tokens, index));
        SyntaxError { kind, dialect, location }
    }

    /// Where QEMU locates a token: one column too far if its first byte has ended a number or a word.
    fn locate(&self, text: Text<'_>, tokens: &[Token], index: usize) -> Location {
        let start = tokens.get(index).map_or(self.offset, |token| token.start);
        let mut location = self.location;
        for byte in text.between(self.offset, start) {
            match byte {
                b'\n' => location = Location { line: location.line + 1, column: 1 },
                _ => location.column += 1,
            }
        }
        let shift = match index.checked_sub(1).map(|before| tokens[before]) {
            None => self.first_shift,
            Some(before) => i64::from(before.end == start && before.kind.ends_before_next()),
        };
        location.column = location.column.saturating_add_signed(shift);
        location
    }
}
