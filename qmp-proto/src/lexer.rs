// SPDX-License-Identifier: MIT OR Apache-2.0
//! Finds where tokens end. Mirrors the state machine of QEMU's `qobject/json-lexer.c`.

use serde::{Deserialize, Serialize};

use crate::Location;
use crate::scan::plain_run;

/// What a byte can be at the start of a token.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Blank,
    /// A token by itself.
    Mark(Kind),
    Quote,
    Minus,
    Zero,
    /// 1 to 9
    Digit,
    /// a to z
    Letter,
    Stray,
}

static CLASS: [Class; 256] = classes();

const fn classes() -> [Class; 256] {
    let mut table = [Class::Stray; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = match byte as u8 {
            b' ' | b'\t' | b'\r' | b'\n' => Class::Blank,
            b'{' => Class::Mark(Kind::OpenBrace),
            b'}' => Class::Mark(Kind::CloseBrace),
            b'[' => Class::Mark(Kind::OpenBracket),
            b']' => Class::Mark(Kind::CloseBracket),
            b',' => Class::Mark(Kind::Comma),
            b':' => Class::Mark(Kind::Colon),
            b'"' | b'\'' => Class::Quote,
            b'-' => Class::Minus,
            b'0' => Class::Zero,
            b'1'..=b'9' => Class::Digit,
            b'a'..=b'z' => Class::Letter,
            _ => Class::Stray,
        };
        byte += 1;
    }
    table
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum State {
    /// Between tokens.
    Start,
    /// Skipping what follows a lexical error.
    Recovery,
    /// In a string opened by this quote.
    String(u8),
    /// Behind a backslash in such a string.
    Escape(u8),
    /// Behind a minus: a digit must follow.
    Minus,
    /// Behind a leading zero: only a dot continues the number.
    Zero,
    /// In the digits before the dot.
    Integer,
    /// Behind the dot: a digit must follow.
    Dot,
    /// In the digits behind the dot.
    Fraction,
    /// Behind `e`: a sign or digit must follow.
    Exponent,
    /// Behind the sign of the exponent: a digit must follow.
    ExponentSign,
    /// In the digits of the exponent.
    ExponentDigits,
    /// In a word.
    Keyword,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    OpenBrace,
    CloseBrace,
    OpenBracket,
    CloseBracket,
    Comma,
    Colon,
    /// A string whose characters are all printable ASCII and stand for themselves.
    PlainString,
    /// Any other string.
    String,
    /// A number without dot and exponent.
    Integer,
    /// Any other number.
    Double,
    Keyword,
}

impl Kind {
    /// Whether such a token ends before a byte that does not continue it, which is read before the
    /// token is complete.
    pub(crate) fn ends_before_next(self) -> bool {
        matches!(self, Kind::Integer | Kind::Double | Kind::Keyword)
    }
}

/// A token, and where it stands in the text of its message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Token {
    pub(crate) kind: Kind,
    pub(crate) start: usize,
    pub(crate) end: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// The input is used up, and the token at hand, if any, is not complete.
    Hungry,
    /// A token has ended; so many bytes long.
    Token(Kind, usize),
    /// The current token, this many bytes with the one last read, cannot be one; where it began.
    Stray(usize, Location),
    /// The token at hand is longer than a token may be.
    TooLong,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Lexer {
    state: State,
    /// Bytes of the token at hand that came with earlier input.
    carried: usize,
    /// The string at hand is a [`Kind::PlainString`] so far.
    plain: bool,
    #[serde(skip)]
    max_token: usize,
    /// The line that is being read, from 1. Only white space and stray tokens have an LF in them.
    line: u64,
    /// Where that line begins. As all places here, an offset into the current input, below zero (that
    /// is, wrapped) if it is in earlier input.
    line_start: u64,
    /// QEMU counts a byte before it looks at it, so a token that starts with the byte that has ended a
    /// number, a word or the recovery from an error is located one column too far; and one behind a
    /// token that was too long is located where that began.
    shifted: Shifted,
    /// The same for the last number or word, which has ended where `shifted` is now.
    shifted_before: Shifted,
}

/// A token that starts at `at` is located `columns` from there.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Shifted {
    at: u64,
    columns: i64,
}

impl Lexer {
    pub(crate) fn new(max_token: usize) -> Lexer {
        // No token starts there.
        let nowhere = Shifted { at: u64::MAX, columns: 0 };
        Lexer {
            state: State::Start,
            carried: 0,
            plain: true,
            max_token,
            line: 1,
            line_start: 0,
            shifted: nowhere,
            shifted_before: nowhere,
        }
    }

    /// Goes on where another lexer was, with this one's limit. `None` if that has passed the limit already.
    pub(crate) fn resumed(&self, other: Lexer) -> Option<Lexer> {
        let within = other.carried <= self.max_token;
        within.then_some(Lexer { max_token: self.max_token, ..other })
    }

    /// How many bytes of the current token have been read, if it is not complete.
    pub(crate) fn carried(&self) -> usize {
        self.carried
    }

    /// The place `back` bytes before `input[at]`, with no LF between the two.
    #[inline(always)]
    pub(crate) fn location(&self, at: usize, back: usize) -> Location {
        let place = (at as u64).wrapping_sub(back as u64);
        Location { line: self.line, column: place.wrapping_sub(self.line_start).wrapping_add(1) }
    }

    /// How many columns from its place a token is located that starts `back` bytes before `input[at]`.
    #[inline(always)]
    pub(crate) fn shift(&self, at: usize, back: usize) -> i64 {
        let place = (at as u64).wrapping_sub(back as u64);
        let places = [self.shifted, self.shifted_before];
        places.into_iter().find(|shifted| shifted.at == place).map_or(0, |shifted| shifted.columns)
    }

    /// The input continues with what was `input[len]`.
    #[inline(always)]
    pub(crate) fn advance(&mut self, len: usize) {
        self.line_start = self.line_start.wrapping_sub(len as u64);
        for shifted in [&mut self.shifted, &mut self.shifted_before] {
            shifted.at = shifted.at.wrapping_sub(len as u64);
        }
    }

    pub(crate) fn is_between_tokens(&self) -> bool {
        matches!(self.state, State::Start | State::Recovery)
    }

    /// Moves `at` over white space, or over what is skipped after an error; only between tokens.
    #[inline(always)]
    pub(crate) fn skip(&mut self, input: &[u8], at: &mut usize) {
        if self.state == State::Recovery {
            self.recover(input, at);
        }
        if self.state == State::Start {
            while let Some(&byte) = input.get(*at)
                && CLASS[usize::from(byte)] == Class::Blank
            {
                *at += 1;
                if byte == b'\n' {
                    self.start_line(*at);
                }
            }
        }
    }

    #[inline(always)]
    fn start_line(&mut self, at: usize) {
        self.line += 1;
        self.line_start = at as u64;
    }

    fn recover(&mut self, input: &[u8], at: &mut usize) {
        // Quotes mean nothing here, and a TAB is skipped where other control bytes are not.
        while let Some(&byte) = input.get(*at) {
            let ends = matches!(byte, b'{' | b'}' | b'[' | b']' | b',' | b':')
                || (byte < 0x20 && byte != b'\t')
                || byte >= 0xFE;
            if ends {
                self.state = State::Start;
                self.shifted = Shifted { at: *at as u64, columns: 1 };
                break;
            }
            *at += 1;
        }
    }

    /// Reads on from `input[*at]` to the end of the current token, or over what is between tokens to the
    /// end of the next one. A number or word ends *before*
    /// the first byte that does not continue it, which is left unread.
    // By force, as what else the reader does for each token: in a build of one codegen unit, the
    // compiler does not by itself, and reading takes a fifth longer. Not what the parser does: its
    // recursion has to fit a small stack.
    #[inline(always)]
    pub(crate) fn step(&mut self, input: &[u8], at: &mut usize) -> Step {
        self.skip(input, at);
        if self.state == State::Start {
            let Some(&byte) = input.get(*at) else { return Step::Hungry };
            match CLASS[usize::from(byte)] {
                Class::Mark(kind) => {
                    *at += 1;
                    return Step::Token(kind, 1);
                }
                Class::Quote => {
                    // Most strings are plain, and complete.
                    let run = plain_run(&input[*at + 1..], byte);
                    if input.get(*at + 1 + run) == Some(&byte) && run + 2 <= self.max_token {
                        *at += run + 2;
                        return Step::Token(Kind::PlainString, run + 2);
                    }
                    self.state = State::String(byte);
                }
                Class::Minus => self.state = State::Minus,
                Class::Zero => self.state = State::Zero,
                Class::Digit => self.state = State::Integer,
                Class::Letter => self.state = State::Keyword,
                Class::Blank | Class::Stray => {
                    *at += 1;
                    return self.stray(input, *at, 1);
                }
            }
            return self.go_on(input, at, 1);
        }
        if self.state == State::Recovery {
            return Step::Hungry;
        }
        self.go_on(input, at, 0)
    }

    /// Reads on in a token of which the next `known` bytes have been looked at.
    #[inline]
    fn go_on(&mut self, input: &[u8], at: &mut usize, known: usize) -> Step {
        let start = *at;
        let room = self.max_token.saturating_add(1) - self.carried;
        let input = &input[..input.len().min(start.saturating_add(room))];
        let mut rest = start + known.min(input.len() - start);
        let end = match self.state {
            State::String(_) | State::Escape(_) => self.string(input, &mut rest),
            State::Keyword => word(input, &mut rest),
            _ => self.number(input, &mut rest),
        };
        *at = rest;
        let len = self.carried + (rest - start);
        match end {
            End::Input if len > self.max_token => {
                let columns = self.shift(rest, len).saturating_sub_unsigned(len as u64);
                self.shifted = Shifted { at: rest as u64, columns };
                self.restart(State::Start);
                Step::TooLong
            }
            End::Input => {
                self.carried = len;
                Step::Hungry
            }
            End::Token(kind) => {
                if kind.ends_before_next() {
                    self.shifted_before = self.shifted;
                    self.shifted = Shifted { at: rest as u64, columns: 1 };
                }
                self.restart(State::Start);
                Step::Token(kind, len)
            }
            End::Stray => self.stray(input, rest, len),
        }
    }

    /// The `len` bytes before `input[at]` are not a token.
    #[cold]
    fn stray(&mut self, input: &[u8], at: usize, len: usize) -> Step {
        let mut location = self.location(at, len);
        location.column = location.column.saturating_add_signed(self.shift(at, len));
        if input[at - 1] == b'\n' {
            self.start_line(at);
        }
        self.restart(State::Recovery);
        Step::Stray(len, location)
    }

    fn restart(&mut self, state: State) {
        self.carried = 0;
        self.plain = true;
        self.state = state;
    }

    #[inline]
    fn string(&mut self, input: &[u8], rest: &mut usize) -> End {
        let (State::String(quote) | State::Escape(quote)) = self.state else { return End::Stray };
        if matches!(self.state, State::String(_)) {
            *rest += plain_run(&input[*rest..], quote);
        }
        while let Some(&byte) = input.get(*rest) {
            *rest += 1;
            let escaped = matches!(self.state, State::Escape(_));
            if !(0x20..0xFE).contains(&byte) {
                return End::Stray;
            } else if escaped {
                self.state = State::String(quote);
            } else if byte == quote {
                return End::Token(if self.plain { Kind::PlainString } else { Kind::String });
            } else if byte == b'\\' {
                self.plain = false;
                self.state = State::Escape(quote);
                continue;
            } else {
                self.plain = false;
            }
            *rest += plain_run(&input[*rest..], quote);
        }
        End::Input
    }

    #[inline]
    fn number(&mut self, input: &[u8], rest: &mut usize) -> End {
        while let Some(&byte) = input.get(*rest) {
            self.state = match (self.state, byte) {
                (State::Minus, b'0') => State::Zero,
                (State::Minus | State::Integer, b'0'..=b'9') => State::Integer,
                (State::Zero | State::Integer, b'.') => State::Dot,
                (State::Dot | State::Fraction, b'0'..=b'9') => State::Fraction,
                (State::Integer | State::Fraction, b'e' | b'E') => State::Exponent,
                (State::Exponent, b'+' | b'-') => State::ExponentSign,
                (State::Exponent | State::ExponentSign | State::ExponentDigits, b'0'..=b'9') => {
                    State::ExponentDigits
                }
                (State::Zero, b'0'..=b'9')
                | (State::Minus | State::Dot | State::Exponent | State::ExponentSign, _) => {
                    *rest += 1;
                    return End::Stray;
                }
                (State::Zero | State::Integer, _) => return End::Token(Kind::Integer),
                _ => return End::Token(Kind::Double),
            };
            *rest += 1;
        }
        End::Input
    }
}

/// Where reading on in a token has come to.
enum End {
    Input,
    Token(Kind),
    Stray,
}

#[inline]
fn word(input: &[u8], rest: &mut usize) -> End {
    while let Some(byte) = input.get(*rest) {
        if !byte.is_ascii_lowercase() {
            return End::Token(Kind::Keyword);
        }
        *rest += 1;
    }
    End::Input
}

/// The tokens of a text that is known to consist of tokens.
pub(crate) fn tokens(text: &[u8]) -> Vec<Token> {
    let mut lexer = Lexer::new(usize::MAX);
    let mut tokens = Vec::new();
    let mut at = 0;
    loop {
        match lexer.step(text, &mut at) {
            Step::Token(kind, len) => tokens.push(Token { kind, start: at - len, end: at }),
            // A number or word at the very end waits for what follows it.
            Step::Hungry => match lexer.step(b" ", &mut 0) {
                Step::Token(kind, len) => tokens.push(Token { kind, start: at - len, end: at }),
                _ => return tokens,
            },
            Step::Stray(..) | Step::TooLong => return tokens,
        }
    }
}
