// SPDX-License-Identifier: MIT OR Apache-2.0
//! Cuts a stream of bytes into messages. Mirrors QEMU's `qobject/json-streamer.c`.

use std::ops::Range;

use crate::lexer::{Kind, Lexer, Step, Token};
use crate::parser::{Check, Parser, Tree};
use crate::unicode::decode_lossy;
use crate::{Json, Limits, SyntaxError, Value};

/// White space between two tokens that is longer than this is shortened where it is met, so that
/// the text of a message is bounded by its tokens.
const LONGEST_BLANK: usize = 32;

/// What a message has taken is kept for the next one, but no more than so many bytes and tokens.
const KEPT_BYTES: usize = 64 << 10;
const KEPT_TOKENS: usize = 4 << 10;

/// Cuts a stream of bytes into messages, wherever it happens to be split.
///
/// A message is one JSON value, complete at its closing bracket; messages need no separator. Lexical
/// errors are found here, and reading goes on behind them at the same byte as in QEMU. Everything
/// else that can be wrong with a message is found when the [`Message`] is parsed; the next one is
/// not affected.
///
/// A message that arrives in one piece is not copied. Of one that comes in pieces, what has been
/// read is kept; [`Limits`] bounds how much that can be.
///
/// ```
/// use qmp_proto::Reader;
///
/// let mut reader = Reader::default();
/// let mut messages = Vec::new();
/// for mut piece in [&b"{'execute': 'st"[..], b"op'} {'execute'", b": 'cont'}"] {
///     while let Some(message) = reader.read(&mut piece) {
///         messages.push(message?.to_value()?.to_string());
///     }
/// }
/// assert_eq!(messages, [r#"{"execute": "stop"}"#, r#"{"execute": "cont"}"#]);
/// # Ok::<(), qmp_proto::SyntaxError>(())
/// ```
#[derive(Debug)]
pub struct Reader {
    limits: Limits,
    lexer: Lexer,
    count: Count,
    /// What earlier input held of the message at hand.
    buffer: Vec<u8>,
    /// The tokens of the message at hand.
    tokens: Vec<Token>,
    /// The message at hand has been handed out, or dropped.
    spent: bool,
}

/// What has been read of the message at hand, besides the number of its tokens.
#[derive(Debug, Default)]
struct Count {
    bytes: usize,
    braces: isize,
    brackets: isize,
}

impl Count {
    /// Counts one more token behind the `earlier` ones. Whether it completes the message.
    #[inline(always)]
    fn add(
        &mut self,
        kind: Kind,
        len: usize,
        earlier: usize,
        limits: &Limits,
    ) -> Result<bool, SyntaxError> {
        match kind {
            Kind::OpenBrace => self.braces += 1,
            Kind::CloseBrace => self.braces -= 1,
            Kind::OpenBracket => self.brackets += 1,
            Kind::CloseBracket => self.brackets -= 1,
            _ => {}
        }
        if len >= limits.token_bytes - self.bytes {
            return Err(SyntaxError::TokenSizeLimit);
        }
        if earlier >= limits.tokens {
            return Err(SyntaxError::TokenCountLimit);
        }
        if self.braces + self.brackets > limits.nesting as isize {
            return Err(SyntaxError::NestingLimit);
        }
        self.bytes += len;
        let open = self.braces > 0 || self.brackets > 0;
        let overclosed = self.braces < 0 || self.brackets < 0;
        Ok(!open || overclosed)
    }
}

impl Default for Reader {
    /// A reader with QEMU's limits.
    fn default() -> Reader {
        Reader::new(Limits::default())
    }
}

impl Reader {
    /// A reader at the start of a stream.
    pub fn new(limits: Limits) -> Reader {
        Reader {
            limits: Limits { nesting: limits.nesting.min(Limits::MAX_NESTING), ..limits },
            lexer: Lexer::new(limits.token_bytes),
            count: Count::default(),
            buffer: Vec::new(),
            tokens: Vec::new(),
            spent: false,
        }
    }

    /// Takes bytes from the front of `input` until a message is complete or an error is found, and
    /// the white space behind it.
    ///
    /// `None` means that `input` is used up; call again when more has arrived. After `Some`, call
    /// again with what is left of `input`. An error concerns one message, the reader stays usable.
    ///
    /// # Errors
    ///
    /// [`SyntaxError::Stray`] for a lexical error, or one of the limit errors.
    #[must_use = "it is a message, or an error in place of one"]
    pub fn read<'r, 'i: 'r>(
        &'r mut self,
        input: &mut &'i [u8],
    ) -> Option<Result<Message<'r>, SyntaxError>> {
        if std::mem::take(&mut self.spent) {
            self.clear();
        }
        let bytes = *input;
        // The message at hand is `buffer` and then `bytes[start..at]`.
        let mut start = 0;
        let mut at = 0;
        let outcome = loop {
            if self.lexer.is_between_tokens() {
                let blank = at;
                self.lexer.skip(bytes, &mut at);
                if self.tokens.is_empty() {
                    start = at;
                } else if at > blank {
                    self.shorten_blank(bytes, &mut start, at);
                }
            }
            match self.lexer.step(bytes, &mut at) {
                Step::Hungry => {
                    self.buffer.extend_from_slice(&bytes[start..]);
                    *input = &[];
                    return None;
                }
                Step::Token(kind, len) => {
                    let end = self.buffer.len() + (at - start);
                    match self.count.add(kind, len, self.tokens.len(), &self.limits) {
                        Ok(complete) => {
                            self.tokens.push(Token { kind, start: end - len, end });
                            if complete {
                                break Ok(());
                            }
                        }
                        Err(error) => break Err(error),
                    }
                }
                Step::TooLong => break Err(SyntaxError::TokenSizeLimit),
                Step::Stray(len) => {
                    break Err(SyntaxError::Stray(self.last_token(&bytes[start..at], len)));
                }
            }
        };
        let end = at;
        if self.lexer.is_between_tokens() {
            self.lexer.skip(bytes, &mut at);
        }
        *input = &bytes[at..];
        self.spent = true;
        Some(outcome.map(|()| {
            let text = if self.buffer.is_empty() {
                &bytes[start..end]
            } else {
                self.buffer.extend_from_slice(&bytes[start..end]);
                &self.buffer[..]
            };
            Message { text, tokens: &self.tokens }
        }))
    }

    /// Keeps one byte of the white space behind the last token, which ends at `bytes[at]`, if there is
    /// too much of it.
    #[inline]
    fn shorten_blank(&mut self, bytes: &[u8], start: &mut usize, at: usize) {
        let end = self.tokens.last().map_or(0, |token| token.end);
        if self.buffer.len() + (at - *start) - end > LONGEST_BLANK {
            self.buffer.extend_from_slice(&bytes[*start..at]);
            self.buffer.truncate(end + 1);
            *start = at;
        }
    }

    /// Whether nothing of a message has been read that is not complete.
    ///
    /// ```
    /// let mut reader = qmp_proto::Reader::default();
    /// assert!(reader.read(&mut &b"  {'execute'"[..]).is_none());
    /// assert!(!reader.is_idle(), "a stream that ends here ends within a message");
    /// assert!(reader.read(&mut &b": 'stop'}"[..]).is_some());
    /// assert!(reader.is_idle());
    /// ```
    pub fn is_idle(&self) -> bool {
        (self.spent || self.tokens.is_empty()) && self.lexer.is_between_tokens()
    }

    /// How many bytes are kept of a message that is not complete, what is known of its tokens
    /// included.
    ///
    /// ```
    /// let mut reader = qmp_proto::Reader::default();
    /// assert_eq!(reader.kept(), 0);
    /// assert!(reader.read(&mut &b"{'execute':"[..]).is_none());
    /// assert!(reader.kept() >= 11);
    /// assert!(reader.read(&mut &b" 'stop'}"[..]).is_some());
    /// assert_eq!(reader.kept(), 0);
    /// ```
    pub fn kept(&self) -> usize {
        match self.spent {
            true => 0,
            false => self.buffer.len() + size_of_val(self.tokens.as_slice()),
        }
    }

    fn clear(&mut self) {
        self.count = Count::default();
        self.buffer.clear();
        self.buffer.shrink_to(KEPT_BYTES);
        self.tokens.clear();
        self.tokens.shrink_to(KEPT_TOKENS);
    }

    /// The text of the token at the end of `buffer` and then `piece`, up to its first NUL.
    fn last_token(&mut self, piece: &[u8], len: usize) -> String {
        self.buffer.extend_from_slice(piece);
        let token = &self.buffer[self.buffer.len() - len..];
        let end = token.iter().position(|&byte| byte == 0);
        decode_lossy(&token[..end.unwrap_or(len)])
    }
}

/// The text of one complete message: its tokens are well-formed, its structure is not yet checked.
///
/// What it means is found by [`to_value`](Message::to_value), [`Request::parse`](crate::Request::parse)
/// or [`ServerMessage::parse`](crate::ServerMessage::parse).
///
/// ```
/// use qmp_proto::{Reader, SyntaxError};
///
/// let mut reader = Reader::default();
/// let mut input: &[u8] = b"{'id' 1} {'id': 2}";
/// let first = reader.read(&mut input).unwrap()?;
/// assert_eq!(first.to_value(), Err(SyntaxError::MissingColon));
/// let second = reader.read(&mut input).unwrap()?;
/// assert_eq!(second.to_value()?.to_string(), r#"{"id": 2}"#);
/// # Ok::<(), SyntaxError>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Message<'r> {
    text: &'r [u8],
    tokens: &'r [Token],
}

impl<'r> Message<'r> {
    /// The message as it came, for passing it on. White space is as in the input, except that very
    /// long runs of it may have been shortened.
    ///
    /// ```
    /// let mut reader = qmp_proto::Reader::default();
    /// let mut input: &[u8] = b"  {'execute':  'stop'}  {";
    /// let message = reader.read(&mut input).unwrap()?;
    /// assert_eq!(message.as_bytes(), b"{'execute':  'stop'}");
    /// # Ok::<(), qmp_proto::SyntaxError>(())
    /// ```
    pub fn as_bytes(&self) -> &'r [u8] {
        self.text
    }

    /// Parses the message as any JSON value.
    ///
    /// # Errors
    ///
    /// [`SyntaxError`] for the first thing that is wrong with it.
    pub fn to_value(&self) -> Result<Value, SyntaxError> {
        self.parser().value::<Tree>()
    }

    /// The value where `parser`, which is one of this message, stands.
    pub(crate) fn json(&self, parser: &mut Parser<'_>) -> Result<Json, SyntaxError> {
        let from = parser.position();
        parser.value::<Check>()?;
        Ok(self.json_of(from..parser.position()))
    }

    /// The value of these tokens, which has been checked.
    pub(crate) fn json_of(&self, tokens: Range<usize>) -> Json {
        Json::from_checked(self.text, &self.tokens[tokens])
    }

    pub(crate) fn parser(&self) -> Parser<'r> {
        Parser::new(self.text, self.tokens)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the reader makes of `input`: displayed values and errors.
    fn read_all(reader: &mut Reader, mut input: &[u8]) -> Vec<String> {
        let mut seen = Vec::new();
        while let Some(message) = reader.read(&mut input) {
            seen.push(match message.and_then(|message| message.to_value()) {
                Ok(value) => value.to_string(),
                Err(error) => error.to_string(),
            });
        }
        seen
    }

    #[track_caller]
    fn check(input: &[u8], expected: &[&str]) {
        assert_eq!(read_all(&mut Reader::default(), input), expected, "in one piece");
        let mut reader = Reader::default();
        let bytewise: Vec<String> =
            input.iter().flat_map(|byte| read_all(&mut reader, &[*byte])).collect();
        assert_eq!(bytewise, expected, "byte by byte");
    }

    #[test]
    fn values_need_no_separator() {
        check(b"{}[]'a'\"b\"1 true[null]", &["{}", "[]", "\"a\"", "\"b\"", "1", "true", "[null]"]);
    }

    #[test]
    fn numbers_and_words_wait_for_the_byte_behind_them() {
        check(b"42", &[]);
        check(b"42\n", &["42"]);
        check(b"true", &[]);
        check(b"true[]", &["true", "[]"]);
    }

    #[test]
    fn a_number_ends_where_its_grammar_does() {
        check(b"0e5 ", &["0", "JSON parse error, invalid keyword 'e'", "5"]);
        check(b"0.0e5 ", &["0"]);
        check(b"01 ", &["JSON parse error, stray '01'"]);
        check(b"-01 ", &["JSON parse error, stray '-01'"]);
        check(b"1.}{}", &["JSON parse error, stray '1.}'", "{}"]);
        check(b"1e\n{}", &["JSON parse error, stray '1e\n'", "{}"]);
    }

    #[test]
    fn either_count_below_zero_completes_a_value() {
        let value = "JSON parse error, expecting value";
        check(b"[{]}{}", &[value, "{}"]);
        check(b"[}{}", &[value, "{}"]);
        check(b"{\"a\": ]}", &[value, value]);
        check(b"}],:", &[value, value, value, value]);
    }

    #[test]
    fn recovery_skips_to_something_structural() {
        check(b"@ 'quoted' \t rubbish {}", &["JSON parse error, stray '@'", "{}"]);
        check(b"'a\nb{}", &["JSON parse error, stray ''a\n'", "{}"]);
        check(b"'a\r\n1 ", &["JSON parse error, stray ''a\r'", "1"]);
        check(b"{'a': [1, \xFF\n{}", &["JSON parse error, stray '\u{FFFD}'", "{}"]);
    }

    #[test]
    fn the_text_of_a_stray_token_ends_at_nul() {
        check(b"'ab\0 {}", &["JSON parse error, stray ''ab'", "{}"]);
    }

    #[test]
    fn limits_drop_the_message_and_reading_goes_on() {
        let nesting = Limits { nesting: 2, ..Limits::default() };
        let limit = "JSON nesting depth limit exceeded";
        let value = "JSON parse error, expecting value";
        assert_eq!(read_all(&mut Reader::new(nesting), b"[[[]]]"), [limit, value, value, value]);

        let tokens = Limits { tokens: 3, ..Limits::default() };
        let limit = "JSON token count limit exceeded";
        assert_eq!(read_all(&mut Reader::new(tokens), b"[1][1, 2]"), ["[1]", limit, value]);

        let size = Limits { token_bytes: 6, ..Limits::default() };
        let limit = "JSON token size limit exceeded";
        assert_eq!(read_all(&mut Reader::new(size), b"'abc''abcd'"), ["\"abc\"", limit]);
        assert_eq!(read_all(&mut Reader::new(size), b"'abcde12 "), [limit, "2"]);
    }

    #[test]
    fn the_buffer_does_not_grow_with_white_space() {
        let mut reader = Reader::default();
        assert_eq!(read_all(&mut reader, b"[1"), [""; 0]);
        for len in [1000, 1, 2, 3, 31, 32, 33].repeat(100) {
            assert_eq!(read_all(&mut reader, &[b' '].repeat(len)), [""; 0]);
        }
        assert!(reader.buffer.len() < 1000, "{}", reader.buffer.len());
        assert_eq!(read_all(&mut reader, b", 2]"), ["[1, 2]"]);
    }

    #[test]
    fn a_large_buffer_is_not_kept() {
        let mut reader = Reader::default();
        let large = format!("['{}'", "x".repeat(1 << 20));
        assert_eq!(read_all(&mut reader, large.as_bytes()).len(), 0);
        assert_eq!(read_all(&mut reader, b"]").len(), 1);
        assert_eq!(read_all(&mut reader, b"").len(), 0);
        assert!(reader.buffer.capacity() <= KEPT_BYTES);
    }
}
