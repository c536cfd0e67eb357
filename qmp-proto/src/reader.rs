// SPDX-License-Identifier: MIT OR Apache-2.0
//! Cuts a stream of bytes into messages. Mirrors QEMU's `qobject/json-streamer.c`.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::checker::Checker;
use crate::lexer::{Kind, Lexer, Step, Token};
use crate::parser::{Malformed, Parser};
use crate::text::{Origin, Text};
use crate::{Dialect, Json, Limits, Location, SyntaxError, SyntaxErrorKind, Value};

/// Buffers are reused, up to this many bytes and tokens.
const KEPT_BYTES: usize = 64 << 10;
const KEPT_TOKENS: usize = 4 << 10;

/// Cuts a stream of bytes into messages, wherever it happens to be split.
///
/// A message is one JSON value, complete at its closing bracket; messages need no separator. Lexical
/// errors are found here, and reading goes on after them at the same byte as in QEMU. Everything
/// else that can be wrong with a complete message is found when the [`Message`] is parsed; the next
/// one is not affected. Of a message that is not complete, the [dialect](Dialect) of 11.1 reports the
/// first error at once and then skips the rest.
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
    /// The bytes of the current message from earlier input.
    buffer: Vec<u8>,
    /// The tokens of the current message.
    tokens: Vec<Token>,
    /// How many of them were complete when earlier input ended.
    earlier: usize,
    /// Has checked the earlier tokens, if the dialect reports errors before a message is complete.
    checker: Checker,
    /// Of the current message: no token but the earlier ones starts before it.
    origin: Origin,
    /// The current message has been handed out, or dropped.
    spent: bool,
    /// An error has been reported in the current message, and its brackets are still to be closed.
    skipping: bool,
}

/// What has been read of the current message, besides the number of its tokens.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Count {
    bytes: usize,
    braces: isize,
    brackets: isize,
}

impl Count {
    /// Counts one more token after the `earlier` ones. Whether it completes the message.
    #[inline(always)]
    fn add(
        &mut self,
        kind: Kind,
        len: usize,
        earlier: usize,
        limits: &Limits,
    ) -> Result<bool, SyntaxErrorKind> {
        self.add_bracket(kind);
        if len >= limits.token_bytes - self.bytes {
            return Err(SyntaxErrorKind::TokenSizeLimit);
        }
        if earlier >= limits.tokens {
            return Err(SyntaxErrorKind::TokenCountLimit);
        }
        if self.braces + self.brackets > limits.nesting as isize {
            return Err(SyntaxErrorKind::NestingLimit);
        }
        self.bytes += len;
        Ok(!self.is_open())
    }

    #[inline(always)]
    fn add_bracket(&mut self, kind: Kind) {
        match kind {
            Kind::OpenBrace => self.braces += 1,
            Kind::CloseBrace => self.braces -= 1,
            Kind::OpenBracket => self.brackets += 1,
            Kind::CloseBracket => self.brackets -= 1,
            _ => {}
        }
    }

    /// Whether the message goes on. One with too many closers of a kind is over, whatever is open of
    /// the other kind.
    #[inline(always)]
    fn is_open(&self) -> bool {
        let open = self.braces > 0 || self.brackets > 0;
        let overclosed = self.braces < 0 || self.brackets < 0;
        open && !overclosed
    }
}

impl Default for Reader {
    /// A reader of the default dialect, with QEMU's limits.
    fn default() -> Reader {
        Reader::new(Dialect::default(), Limits::default())
    }
}

impl Reader {
    /// A reader at the start of a stream.
    pub fn new(dialect: Dialect, limits: Limits) -> Reader {
        Reader {
            limits: Limits { nesting: limits.nesting.min(Limits::MAX_NESTING), ..limits },
            lexer: Lexer::new(limits.token_bytes),
            count: Count::default(),
            buffer: Vec::new(),
            tokens: Vec::new(),
            earlier: 0,
            checker: Checker::default(),
            origin: Origin::start(dialect),
            spent: false,
            skipping: false,
        }
    }

    /// Takes bytes from the front of `input` until a message is complete or an error is found, and
    /// the white space after it.
    ///
    /// `None` means that `input` is used up; call again when more has arrived. After `Some`, call
    /// again with what is left of `input`. An error concerns one message, the reader stays usable.
    ///
    /// # Errors
    ///
    /// [`SyntaxErrorKind::Stray`] for a lexical error, or one of the limit errors; in 11.1 any other,
    /// if it is found before the message is complete.
    #[must_use = "it is a message, or an error in place of one"]
    pub fn read<'r, 'i: 'r>(
        &'r mut self,
        input: &mut &'i [u8],
    ) -> Option<Result<Message<'r>, SyntaxError>> {
        if std::mem::take(&mut self.spent) {
            self.clear();
        }
        let bytes = *input;
        let mut at = 0;
        if self.skipping && !self.skip_message(bytes, &mut at) {
            self.take(input, at);
            return None;
        }
        // The current message is `buffer` and then `bytes[start..at]`.
        let mut start = 0;
        let outcome = loop {
            match self.lexer.step(bytes, &mut at) {
                Step::Token(kind, len) => {
                    if self.tokens.is_empty() {
                        if self.buffer.is_empty() {
                            start = at - len;
                        }
                        self.origin.location = self.lexer.location(at, len);
                        self.origin.first_shift = self.lexer.shift(at, len);
                    }
                    let end = self.buffer.len() + (at - start);
                    match self.count.add(kind, len, self.tokens.len(), &self.limits) {
                        Ok(complete) => {
                            self.tokens.push(Token { kind, start: end - len, end });
                            if complete {
                                break Ok(());
                            }
                        }
                        Err(limit) => break Err(self.limit_error(limit, bytes, &mut start)),
                    }
                }
                Step::Hungry => {
                    let outcome = self.check(bytes, &mut start);
                    if outcome.is_ok() {
                        self.keep(bytes, start);
                    } else {
                        self.drop_message();
                    }
                    self.take(input, at);
                    return outcome.err().map(Err);
                }
                Step::TooLong => {
                    break Err(self.limit_error(
                        SyntaxErrorKind::TokenSizeLimit,
                        bytes,
                        &mut start,
                    ));
                }
                Step::Stray(len, location) => {
                    break Err(self.stray_error(&bytes[..at], start, len, location));
                }
            }
        };
        let end = at;
        self.lexer.skip(bytes, &mut at);
        self.take(input, at);
        self.spent = true;
        Some(outcome.map(|()| {
            let text = if self.buffer.is_empty() {
                &bytes[start..end]
            } else {
                self.buffer.extend_from_slice(&bytes[start..end]);
                &self.buffer[..]
            };
            Message { text, tokens: &self.tokens, origin: &self.origin }
        }))
    }

    /// These many bytes of the input have been read.
    #[inline(always)]
    fn take(&mut self, input: &mut &[u8], len: usize) {
        *input = &input[len..];
        self.lexer.advance(len);
    }

    /// Reads on to the end of a message in which an error has been reported. Whether it is there.
    #[cold]
    fn skip_message(&mut self, bytes: &[u8], at: &mut usize) -> bool {
        loop {
            match self.lexer.step(bytes, at) {
                Step::Hungry => return false,
                Step::Token(kind, _) => {
                    self.count.add_bracket(kind);
                    if !self.count.is_open() {
                        break;
                    }
                }
                Step::TooLong => {}
                Step::Stray(..) => break,
            }
        }
        self.count = Count::default();
        self.skipping = false;
        true
    }

    /// Checks the tokens that have not been checked, if the dialect wants that before a message is
    /// complete.
    #[inline(never)]
    fn check(&mut self, bytes: &[u8], start: &mut usize) -> Result<(), SyntaxError> {
        if self.origin.dialect < Dialect::Qemu11_1 {
            return Ok(());
        }
        let Some(token) = self.tokens.get(self.checker.position()) else { return Ok(()) };
        if token.start < self.buffer.len() {
            // It has begun in earlier input.
            let missing = *start + (token.end - self.buffer.len());
            self.buffer.extend_from_slice(&bytes[*start..missing]);
            *start = missing;
        }
        let text = Text { kept: &self.buffer, rest: &bytes[*start..] };
        self.checker
            .run(self.origin.dialect, text, &self.tokens)
            .map_err(|kind| self.origin.error(kind, text, &self.tokens, self.checker.position()))
    }

    /// A token would pass a limit: an error before it is reported instead.
    #[cold]
    fn limit_error(
        &mut self,
        kind: SyntaxErrorKind,
        bytes: &[u8],
        start: &mut usize,
    ) -> SyntaxError {
        let outcome = self.check(bytes, start);
        self.drop_message();
        let dialect = self.origin.dialect;
        outcome.err().unwrap_or(SyntaxError { kind, dialect, location: None })
    }

    /// The last `len` bytes are not a token: an error before them is reported instead.
    #[cold]
    fn stray_error(
        &mut self,
        bytes: &[u8],
        mut start: usize,
        len: usize,
        location: Location,
    ) -> SyntaxError {
        let outcome = self.check(bytes, &mut start);
        let piece = &bytes[start..];
        let token = if len <= piece.len() {
            &piece[piece.len() - len..]
        } else {
            self.buffer.extend_from_slice(piece);
            &self.buffer[self.buffer.len() - len..]
        };
        let dialect = self.origin.dialect;
        outcome.err().unwrap_or_else(|| SyntaxError {
            kind: SyntaxErrorKind::stray(token, dialect),
            dialect,
            location: (dialect >= Dialect::Qemu11_1).then_some(location),
        })
    }

    /// After an error other than a lexical one, the rest of the message is skipped in 11.1.
    fn drop_message(&mut self) {
        self.spent = true;
        self.skipping = self.origin.dialect >= Dialect::Qemu11_1 && self.count.is_open();
    }

    /// Keeps what has been read of the current message: `bytes` from `start` on, without white space
    /// but for one byte between two tokens.
    #[inline(never)]
    fn keep(&mut self, bytes: &[u8], mut start: usize) {
        let partial = self.lexer.carried();
        if partial > bytes.len() {
            // All of it belongs to a token that has begun earlier.
            return self.buffer.extend_from_slice(bytes);
        }
        if self.tokens.is_empty() && self.buffer.is_empty() {
            start = bytes.len() - partial;
        }
        let piece = &bytes[start..];
        let before = self.buffer.len();
        let mut end = self.tokens[..self.earlier].last().map_or(0, |token| token.end);
        let mut copied = 0;
        let mut removed = 0;
        let buffer = &mut self.buffer;
        let mut shorten = |from: usize, to: usize| {
            if to > from + 1 {
                buffer.extend_from_slice(&piece[copied..from + 1 - before]);
                copied = to - before;
                removed += to - from - 1;
            }
            removed
        };
        for token in &mut self.tokens[self.earlier..] {
            let removed = shorten(end, token.start);
            end = token.end;
            token.start -= removed;
            token.end -= removed;
        }
        if !self.tokens.is_empty() {
            shorten(end, before + piece.len() - partial);
        }
        self.buffer.extend_from_slice(&piece[copied..]);
        self.earlier = self.tokens.len();
        self.origin.offset = self.buffer.len() - partial;
        self.origin.location = self.lexer.location(bytes.len(), partial);
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
        (self.spent || self.tokens.is_empty()) && self.lexer.is_between_tokens() && !self.skipping
    }

    /// How many bytes are kept of a message that is not complete, what is known of its tokens
    /// included.
    pub fn kept(&self) -> usize {
        let tokens = size_of_val(self.tokens.as_slice());
        if self.spent { 0 } else { self.buffer.len() + tokens + self.checker.kept() }
    }

    fn clear(&mut self) {
        if !self.skipping {
            self.count = Count::default();
        }
        self.buffer.clear();
        self.buffer.shrink_to(KEPT_BYTES);
        self.tokens.clear();
        self.tokens.shrink_to(KEPT_TOKENS);
        self.earlier = 0;
        if self.checker.position() > 0 {
            self.checker.clear(KEPT_TOKENS);
        }
        self.origin.offset = 0;
    }
}

/// What a [`Reader`] has read of a message that is not complete, and where it is in the stream: as data, for another program
/// that goes on reading the stream.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ReaderState {
    /// As [`Dialect`] displays it.
    dialect: String,
    lexer: Lexer,
    count: Count,
    /// The message so far. Its tokens are found again in it.
    #[serde(with = "crate::bytes_as_text")]
    buffer: Vec<u8>,
    offset: usize,
    location: Location,
    first_shift: i64,
    skipping: bool,
}

impl Reader {
    /// Returns the state of the reader, with which another one [goes on](Reader::resume).
    pub fn state(&self) -> ReaderState {
        let (count, buffer, offset) = match self.spent {
            true if self.skipping => (self.count.clone(), Vec::new(), 0),
            true => (Count::default(), Vec::new(), 0),
            false => (self.count.clone(), self.buffer.clone(), self.origin.offset),
        };
        ReaderState {
            dialect: self.origin.dialect.to_string(),
            lexer: self.lexer.clone(),
            count,
            buffer,
            offset,
            location: self.origin.location,
            first_shift: self.origin.first_shift,
            skipping: self.skipping,
        }
    }

    /// Creates a reader that goes on where another one was. Returns `None` if the state is not one that a reader with these
    /// limits can have.
    pub fn resume(state: ReaderState, limits: Limits) -> Option<Reader> {
        let mut reader = Reader::new(state.dialect.parse().ok()?, limits);
        reader.lexer = reader.lexer.resumed(state.lexer)?;
        let mut at = 0;
        let mut lexer = Lexer::new(limits.token_bytes);
        while let Step::Token(kind, len) = lexer.step(&state.buffer, &mut at) {
            reader.tokens.push(Token { kind, start: at - len, end: at });
        }
        let is_whole = at == state.buffer.len() && state.offset <= at;
        let within = state.count.bytes < limits.token_bytes && reader.tokens.len() <= limits.tokens;
        if !is_whole || !within {
            return None;
        }
        reader.earlier = reader.tokens.len();
        reader.count = state.count;
        reader.buffer = state.buffer;
        let dialect = reader.origin.dialect;
        reader.origin = Origin {
            dialect,
            offset: state.offset,
            location: state.location,
            first_shift: state.first_shift,
        };
        reader.skipping = state.skipping;
        if dialect >= Dialect::Qemu11_1 {
            let text = Text { kept: &reader.buffer, rest: &[] };
            reader.checker.run(dialect, text, &reader.tokens).ok()?;
        }
        Some(reader)
    }
}

/// The text of one complete message: its tokens are well-formed, its structure is not yet checked.
///
/// What it means is found by [`to_value`](Message::to_value), [`Request::parse`](crate::Request::parse)
/// or [`ServerMessage::parse`](crate::ServerMessage::parse).
#[derive(Clone, Copy, Debug)]
pub struct Message<'r> {
    text: &'r [u8],
    tokens: &'r [Token],
    origin: &'r Origin,
}

impl<'r> Message<'r> {
    /// The message as it came, for passing it on. White space between two tokens is as in the input, or
    /// has been shortened to its first byte.
    pub fn as_bytes(&self) -> &'r [u8] {
        self.text
    }

    /// Parses the message as any JSON value.
    ///
    /// # Errors
    ///
    /// [`SyntaxError`] for the first thing that is wrong with it.
    pub fn to_value(&self) -> Result<Value, SyntaxError> {
        self.parser().value().map_err(|Malformed| self.error())
    }

    /// The first thing that is wrong with a message that has been found to be malformed.
    #[cold]
    pub(crate) fn error(&self) -> SyntaxError {
        let text = Text { kept: self.text, rest: &[] };
        let mut checker = Checker::default();
        let outcome = checker.run(self.origin.dialect, text, self.tokens);
        let kind = outcome.err().unwrap_or(SyntaxErrorKind::ExpectingValue);
        self.origin.error(kind, text, self.tokens, checker.position())
    }

    /// The value where `parser`, which is one of this message, stands.
    pub(crate) fn json(&self, parser: &mut Parser<'_>) -> Result<Json, Malformed> {
        let from = parser.position();
        parser.skip_value()?;
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

    /// The reader that goes on in another program.
    fn handed_over(reader: &Reader) -> Reader {
        let state = serde_json::to_string(&reader.state()).unwrap();
        Reader::resume(serde_json::from_str(&state).unwrap(), reader.limits).unwrap()
    }

    #[track_caller]
    fn check_in(dialect: Dialect, input: &[u8], expected: &[&str]) {
        let reader = || Reader::new(dialect, Limits::default());
        assert_eq!(read_all(&mut reader(), input), expected, "{dialect}, in one piece");
        let mut handed = reader();
        let mut seen = Vec::new();
        for byte in input {
            seen.extend(read_all(&mut handed, &[*byte]));
            handed = handed_over(&handed);
        }
        assert_eq!(seen, expected, "{dialect}, handed over after each byte");
        let mut bytes = reader();
        let seen: Vec<String> =
            input.iter().flat_map(|byte| read_all(&mut bytes, &[*byte])).collect();
        assert_eq!(seen, expected, "{dialect}, byte by byte");
        for cut in 1..input.len() {
            let mut pieces = reader();
            let mut seen = read_all(&mut pieces, &input[..cut]);
            seen.extend(read_all(&mut pieces, &input[cut..]));
            assert_eq!(seen, expected, "{dialect}, cut at {cut}");
        }
    }

    /// In 10.0; what is not an error of syntax is the same in 11.1.
    #[track_caller]
    fn check(input: &[u8], expected: &[&str]) {
        check_in(Dialect::Qemu10_0, input, expected);
        if !expected.iter().any(|line| line.starts_with("JSON")) {
            check_in(Dialect::Qemu11_1, input, expected);
        }
    }

    #[track_caller]
    fn check_new(input: &[u8], expected: &[&str]) {
        check_in(Dialect::Qemu11_1, input, expected);
    }

    fn limited(dialect: Dialect, limits: Limits) -> Reader {
        Reader::new(dialect, limits)
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
        let old = Dialect::Qemu10_0;
        assert_eq!(read_all(&mut limited(old, nesting), b"[[[]]]"), [limit, value, value, value]);

        let tokens = Limits { tokens: 3, ..Limits::default() };
        let limit = "JSON token count limit exceeded";
        assert_eq!(read_all(&mut limited(old, tokens), b"[1][1, 2]"), ["[1]", limit, value]);

        let size = Limits { token_bytes: 6, ..Limits::default() };
        let limit = "JSON token size limit exceeded";
        assert_eq!(read_all(&mut limited(old, size), b"'abc''abcd'"), ["\"abc\"", limit]);
        assert_eq!(read_all(&mut limited(old, size), b"'abcde12 "), [limit, "2"]);
    }

    #[test]
    fn the_buffer_does_not_grow_with_white_space() {
        let mut reader = Reader::default();
        assert_eq!(read_all(&mut reader, b"[1"), [""; 0]);
        for len in [1000, 1, 2, 3, 31, 32, 33].repeat(100) {
            assert_eq!(read_all(&mut reader, &[b' '].repeat(len)), [""; 0]);
        }
        assert_eq!(reader.buffer, b"[1 ");
        assert_eq!(read_all(&mut reader, b", 2]"), ["[1, 2]"]);
        for piece in [&b"  [  1  ,\t\t'a b  "[..], b"  c'   ", b" , 2\n\n, n", b"ull    ]"] {
            let mut input = piece;
            let message = reader.read(&mut input).transpose().unwrap();
            match message {
                None => assert!(!reader.buffer.windows(2).any(|pair| pair == b"\t\t")),
                Some(message) => {
                    assert_eq!(message.as_bytes(), b"[ 1 ,\t'a b    c' , 2\n, null    ]");
                }
            }
        }
    }

    #[test]
    fn an_error_is_located_at_its_token() {
        check_new(b"{'a' 1}", &["1:6: JSON parse error, expecting ':'"]);
        check_new(b"\n\r\n [1, \n\t 2 'b']", &["4:5: JSON parse error, expected ',' or ']'"]);
        check_new(b"{}\n{'\xC3\xA9':\n1 2}", &["{}", "3:3: JSON parse error, expected ',' or '}'"]);
        check_new(
            b"['a\n'b\nc",
            &["1:2: JSON parse error, stray ''a\n'", "3:1: JSON parse error, invalid keyword 'c'"]
                [..1],
        );
    }

    #[test]
    fn a_token_whose_first_byte_ended_another_is_one_column_too_far() {
        let value = |place: &str| format!("{place}: JSON parse error, expecting value");
        check_new(b"\n[1}", &["2:4: JSON parse error, expected ',' or ']'"]);
        check_new(b"\n[1 }", &["2:4: JSON parse error, expected ',' or ']'"]);
        check_new(b"1,:", &["1", &value("1:3"), &value("1:3")]);
        check_new(b"@,", &["1:1: JSON parse error, stray '@'", &value("1:3")]);
        check_new(b"@ ,", &["1:1: JSON parse error, stray '@'", &value("1:4")]);
        check_new(b"@\n,", &["1:1: JSON parse error, stray '@'", &value("2:1")]);
        check_new(b"1@", &["1", "1:3: JSON parse error, stray '@'"]);
        check_new(b"[1@", &["1:4: JSON parse error, stray '@'"]);
    }

    #[test]
    fn an_error_comes_at_once_and_the_rest_is_skipped() {
        let error = "1:4: JSON parse error, expected ',' or ']'";
        let ignored = ["[1 2 , {} 'a' nul @", "[1 2 [[{}]]", "[1 2 '\\q'", "[1 2 {'execute': 'x'}"];
        for text in ignored {
            check_new(text.as_bytes(), &[error]);
        }
        check_new(b"[1 2 [] ] {}", &[error, "{}"]);
        check_new(b"[1 2 } {}", &[error, "{}"]);
        check_new(b"[1 2 \xFF\n {}", &[error, "{}"]);
        check_new(b"[1 2 @ ] {}", &[error, "1:9: JSON parse error, expecting value", "{}"]);
        check_new(b"[1 @ 2 {}", &["1:4: JSON parse error, stray '@'", "{}"]);
        check_new(b"[}{}", &["1:2: JSON parse error, expecting value", "{}"]);
    }

    #[test]
    fn an_earlier_error_beats_a_limit() {
        let limits = Limits { token_bytes: 20, tokens: 6, nesting: 3 };
        let read = |text: &str| {
            let mut bytes = limited(Dialect::Qemu11_1, limits);
            let seen: Vec<_> =
                text.bytes().flat_map(|byte| read_all(&mut bytes, &[byte])).collect();
            let whole = read_all(&mut limited(Dialect::Qemu11_1, limits), text.as_bytes());
            assert_eq!(seen, whole, "byte by byte: {text}");
            whole
        };
        let error = "1:4: JSON parse error, expected ',' or ']'";
        let depth = "JSON nesting depth limit exceeded";
        assert_eq!(read("[1 2 [[[[[]]]]] ] 3 "), [error, "3"]);
        assert_eq!(read("[1 2 ,,,,,,,,,,,] 3 "), [error, "3"]);
        assert_eq!(read("[1 2 'aaaaaaaaaaaaaaaaaaaaaaaaaa ''] 3 "), [error, "3"]);
        assert_eq!(
            read("[[[[ [[]] @ ] 3 "),
            [depth, "1:14: JSON parse error, expecting value", "3"]
        );
        assert_eq!(read("[[[[]]]] 3 "), [depth, "3"]);
        assert_eq!(read("[1,2,3,4] 3 "), ["JSON token count limit exceeded", "3"]);
    }

    #[test]
    fn what_follows_a_token_that_is_too_long_is_located_where_that_began() {
        let limits = Limits { token_bytes: 6, ..Limits::default() };
        let size = "JSON token size limit exceeded";
        for pieces in [1, 2, 100] {
            let mut reader = limited(Dialect::Qemu11_1, limits);
            let seen: Vec<String> = b"\n 'abcdeff,, ,"
                .chunks(pieces)
                .flat_map(|piece| read_all(&mut reader, piece))
                .collect();
            let at = |place: &str| format!("{place}: JSON parse error, expecting value");
            assert_eq!(
                seen,
                [
                    size,
                    "2:2: JSON parse error, invalid keyword 'f'",
                    &at("2:11"),
                    &at("2:11"),
                    &at("2:13")
                ]
            );
        }
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
