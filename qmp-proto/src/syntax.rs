// SPDX-License-Identifier: MIT OR Apache-2.0
//! What can be wrong with a message before it is looked at as a message.

use std::fmt;

use crate::Dialect;
use crate::unicode::decode_lossy;

/// QEMU formats the message of a parse error in a buffer of 1,024 bytes.
const LONGEST_MESSAGE: usize = 1023;

/// A message is not JSON as QEMU understands it, or too large.
///
/// Displays as the description that QEMU gives in its error response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyntaxError {
    /// What is wrong.
    pub kind: SyntaxErrorKind,
    /// The dialect that has the words for it.
    pub dialect: Dialect,
    /// The first byte of the token at which the error was found, if the dialect tells.
    pub location: Option<Location>,
}

/// A place in a stream of bytes.
///
/// Displays as `LINE:COLUMN`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Location {
    /// Lines end with LF; the first one is 1.
    pub line: u64,
    /// In bytes; the first one is 1.
    pub column: u64,
}

/// What a [`SyntaxError`] is about.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SyntaxErrorKind {
    /// A token that cannot be one: its bytes up to the first NUL, or with the offending byte at the
    /// end. In 11.1, no more of them than are told.
    Stray(Vec<u8>),
    /// A word other than `true`, `false` and `null`.
    InvalidKeyword(Vec<u8>),
    /// A comma, colon, or closing bracket or brace where a value should be.
    ExpectingValue,
    /// Anything but a string where the name of a member should be. Not in 10.0.
    ExpectingKey,
    /// The name of a member is a value of another type. Only in 10.0.
    KeyNotString,
    /// No colon after the name of a member.
    MissingColon,
    /// Neither a comma nor a closing brace after a member.
    DictSeparator,
    /// Neither a comma nor a closing bracket after an element.
    ListSeparator,
    /// The object has a member of this name already.
    DuplicateKey,
    /// A backslash and a byte that makes no escape sequence with it.
    InvalidEscape,
    /// These bytes are a `\u` escape that is no valid character.
    InvalidCharacter(Vec<u8>),
    /// A string is not valid UTF-8, or holds a noncharacter.
    InvalidUtf8,
    /// More open brackets and braces than [`Limits::nesting`](crate::Limits::nesting).
    NestingLimit,
    /// More tokens than [`Limits::tokens`](crate::Limits::tokens).
    TokenCountLimit,
    /// More bytes of tokens than [`Limits::token_bytes`](crate::Limits::token_bytes) allows.
    TokenSizeLimit,
}

impl SyntaxErrorKind {
    /// That `token` is one that cannot be one.
    pub(crate) fn stray(token: &[u8], dialect: Dialect) -> SyntaxErrorKind {
        let told = match dialect {
            Dialect::Qemu10_0 => token,
            Dialect::Qemu11_1 => &token[..token.len().min(LONGEST_MESSAGE)],
        };
        let end = told.iter().position(|&byte| byte == 0).unwrap_or(told.len());
        SyntaxErrorKind::Stray(told[..end].to_vec())
    }

    pub(crate) fn invalid_keyword(keyword: &[u8]) -> SyntaxErrorKind {
        SyntaxErrorKind::InvalidKeyword(keyword[..keyword.len().min(LONGEST_MESSAGE)].to_vec())
    }

    /// The words of this dialect; the limits have the same in each.
    fn message(&self, dialect: Dialect) -> Result<Vec<u8>, &'static str> {
        use SyntaxErrorKind::*;
        let new = dialect >= Dialect::Qemu11_1;
        let words = match self {
            Stray(token) => {
                let mut message = [b"stray '", &token[..], b"'"].concat();
                if new {
                    message.truncate(LONGEST_MESSAGE);
                }
                return Ok(message);
            }
            InvalidKeyword(keyword) => {
                let mut message = [b"invalid keyword '", &keyword[..], b"'"].concat();
                message.truncate(LONGEST_MESSAGE);
                return Ok(message);
            }
            InvalidCharacter(escape) => {
                let mut message = [&escape[..], b" is not a valid Unicode character"].concat();
                message.truncate(LONGEST_MESSAGE);
                return Ok(message);
            }
            ExpectingValue => "expecting value",
            ExpectingKey => "expecting key",
            KeyNotString => "key is not a string in object",
            MissingColon if new => "expecting ':'",
            MissingColon => "missing : in object pair",
            DictSeparator if new => "expected ',' or '}'",
            DictSeparator => "expected separator in dict",
            ListSeparator if new => "expected ',' or ']'",
            ListSeparator => "expected separator in list",
            DuplicateKey => "duplicate key",
            InvalidEscape => "invalid escape sequence in string",
            InvalidUtf8 => "invalid UTF-8 sequence in string",
            NestingLimit => return Err("JSON nesting depth limit exceeded"),
            TokenCountLimit => return Err("JSON token count limit exceeded"),
            TokenSizeLimit => return Err("JSON token size limit exceeded"),
        };
        Ok(words.into())
    }
}

impl fmt::Display for SyntaxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(location) = self.location {
            write!(f, "{location}: ")?;
        }
        match self.kind.message(self.dialect) {
            Ok(message) => write!(f, "JSON parse error, {}", decode_lossy(&message)),
            Err(limit) => f.write_str(limit),
        }
    }
}

impl std::error::Error for SyntaxError {}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_cut_to_the_size_of_qemus_buffer_wherever_that_is() {
        for character in ["a", "é", "€", "😀"] {
            for dialect in Dialect::ALL {
                for count in [1, 300, 400, 1015, 1016, 1017, 2000] {
                    let bytes = character.repeat(count).into_bytes();
                    let shown = |kind| {
                        let text = SyntaxError { kind, dialect, location: None }.to_string();
                        let message = text.strip_prefix("JSON parse error, ").unwrap();
                        // A piece of a character is shown as one that replaces it.
                        message.strip_suffix('\u{FFFD}').unwrap_or(message).len()
                    };
                    let most = |len: usize| len.saturating_sub(3)..=len.min(LONGEST_MESSAGE);
                    let stray = "stray ''".len() + bytes.len();
                    let keyword = "invalid keyword ''".len() + bytes.len();
                    let len = shown(SyntaxErrorKind::Stray(bytes.clone()));
                    match dialect {
                        Dialect::Qemu10_0 => assert_eq!(len, stray),
                        Dialect::Qemu11_1 => {
                            assert!(most(stray.min(LONGEST_MESSAGE)).contains(&len));
                        }
                    }
                    let len = shown(SyntaxErrorKind::InvalidKeyword(bytes));
                    assert!(most(keyword.min(LONGEST_MESSAGE)).contains(&len), "{len}");
                }
            }
        }
    }

    #[test]
    fn the_place_does_not_count_towards_the_size() {
        let error = |line| SyntaxError {
            kind: SyntaxErrorKind::Stray(b"a".repeat(2000)),
            dialect: Dialect::Qemu11_1,
            location: Some(Location { line, column: 1 }),
        };
        assert_eq!(error(1).to_string().len(), "1:1: JSON parse error, ".len() + LONGEST_MESSAGE);
        assert_eq!(error(u64::MAX).to_string().len(), error(1).to_string().len() + 19);
    }
}
