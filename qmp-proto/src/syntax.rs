// SPDX-License-Identifier: MIT OR Apache-2.0
//! What can be wrong with a message before it is looked at as a message.

/// A message is not JSON as QEMU understands it, or too large.
///
/// Displays as the description that QEMU gives in its error response.
///
/// ```
/// use qmp_proto::{Reader, SyntaxError};
///
/// let mut reader = Reader::default();
/// let message = reader.read(&mut &b"{'execute' 'stop'}"[..]).unwrap()?;
/// let error = message.to_value().unwrap_err();
/// assert_eq!(error, SyntaxError::MissingColon);
/// assert_eq!(error.to_string(), "JSON parse error, missing : in object pair");
/// # Ok::<(), SyntaxError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SyntaxError {
    /// A token that cannot be one; the text ends with the offending byte.
    #[error("JSON parse error, stray '{0}'")]
    Stray(String),
    /// A word other than `true`, `false` and `null`.
    #[error("JSON parse error, {}", invalid_keyword(.0))]
    InvalidKeyword(String),
    /// A comma, colon, or closing bracket or brace where a value should be.
    #[error("JSON parse error, expecting value")]
    ExpectingValue,
    /// The name of a member is a value of another type.
    #[error("JSON parse error, key is not a string in object")]
    KeyNotString,
    /// No colon after the name of a member.
    #[error("JSON parse error, missing : in object pair")]
    MissingColon,
    /// Neither a comma nor a closing brace after a member.
    #[error("JSON parse error, expected separator in dict")]
    DictSeparator,
    /// Neither a comma nor a closing bracket after an element.
    #[error("JSON parse error, expected separator in list")]
    ListSeparator,
    /// The object has a member of this name already.
    #[error("JSON parse error, duplicate key")]
    DuplicateKey,
    /// A backslash and a byte that makes no escape sequence with it.
    #[error("JSON parse error, invalid escape sequence in string")]
    InvalidEscape,
    /// A `\u` escape that is no valid character.
    #[error("JSON parse error, {0} is not a valid Unicode character")]
    InvalidCharacter(String),
    /// A string is not valid UTF-8, or holds a noncharacter.
    #[error("JSON parse error, invalid UTF-8 sequence in string")]
    InvalidUtf8,
    /// More open brackets and braces than [`Limits::nesting`](crate::Limits::nesting).
    #[error("JSON nesting depth limit exceeded")]
    NestingLimit,
    /// More tokens than [`Limits::tokens`](crate::Limits::tokens).
    #[error("JSON token count limit exceeded")]
    TokenCountLimit,
    /// More bytes of tokens than [`Limits::token_bytes`](crate::Limits::token_bytes) allows.
    #[error("JSON token size limit exceeded")]
    TokenSizeLimit,
}

/// QEMU formats the message of a parse error in a buffer of 1,024 bytes.
fn invalid_keyword(keyword: &str) -> String {
    let mut message = format!("invalid keyword '{keyword}'");
    message.truncate(1023);
    message
}
