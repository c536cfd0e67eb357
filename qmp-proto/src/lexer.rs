// SPDX-License-Identifier: MIT OR Apache-2.0
//! Finds where tokens end. Mirrors the state machine of QEMU's `qobject/json-lexer.c`.

/// What a byte can be at the start of a token.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Blank,
    OpenBrace,
    CloseBrace,
    OpenBracket,
    CloseBracket,
    /// Comma or colon.
    Separator,
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
            b'{' => Class::OpenBrace,
            b'}' => Class::CloseBrace,
            b'[' => Class::OpenBracket,
            b']' => Class::CloseBracket,
            b',' | b':' => Class::Separator,
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

/// Whether a string goes on through this byte whatever the quotes: neither a quote, nor a
/// backslash, nor a byte that strings cannot hold.
static PLAIN: [bool; 256] = plain();

const fn plain() -> [bool; 256] {
    let mut table = [false; 256];
    let mut byte = 0x20;
    while byte < 0xFE {
        table[byte] = !matches!(byte as u8, b'"' | b'\'' | b'\\');
        byte += 1;
    }
    table
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
pub(crate) enum Token {
    OpenBrace,
    CloseBrace,
    OpenBracket,
    CloseBracket,
    /// Comma or colon.
    Separator,
    String,
    Number,
    Keyword,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// The input is used up, and the token at hand, if any, is not complete.
    Hungry,
    /// A token has ended; so many bytes long.
    Token(Token, usize),
    /// The token at hand, so many bytes with the one last read, cannot be one.
    Stray(usize),
    /// The token at hand is longer than a token may be.
    TooLong,
}

#[derive(Debug)]
pub(crate) struct Lexer {
    state: State,
    /// Bytes of the token at hand that came with earlier input.
    carried: usize,
    max_token: usize,
}

impl Lexer {
    pub(crate) fn new(max_token: usize) -> Lexer {
        Lexer { state: State::Start, carried: 0, max_token }
    }

    pub(crate) fn is_between_tokens(&self) -> bool {
        matches!(self.state, State::Start | State::Recovery)
    }

    /// Moves `at` over white space, or over what is skipped after an error; only between tokens.
    #[inline]
    pub(crate) fn skip(&mut self, input: &[u8], at: &mut usize) {
        let mut rest = *at;
        if self.state == State::Recovery {
            // Quotes mean nothing here, and a TAB is skipped where other control bytes are not.
            while let Some(&byte) = input.get(rest) {
                let ends = matches!(byte, b'{' | b'}' | b'[' | b']' | b',' | b':')
                    || (byte < 0x20 && byte != b'\t')
                    || byte >= 0xFE;
                if ends {
                    self.state = State::Start;
                    break;
                }
                rest += 1;
            }
        }
        if self.state == State::Start {
            while let Some(&byte) = input.get(rest)
                && CLASS[usize::from(byte)] == Class::Blank
            {
                rest += 1;
            }
        }
        *at = rest;
    }

    /// Reads on from `input[*at]` to the end of the token at hand. A number or word ends *before*
    /// the first byte that does not continue it, which is left unread.
    #[inline]
    pub(crate) fn step(&mut self, input: &[u8], at: &mut usize) -> Step {
        let start = *at;
        let room = self.max_token.saturating_add(1) - self.carried;
        let end = input.len().min(start.saturating_add(room));
        let input = &input[..end];
        let mut rest = start;
        let mut state = self.state;
        let step = loop {
            let Some(&byte) = input.get(rest) else {
                let read = self.carried + (rest - start);
                break if read > self.max_token { Step::TooLong } else { Step::Hungry };
            };
            let len = self.carried + (rest - start);
            state = match state {
                State::Start => {
                    rest += 1;
                    match CLASS[usize::from(byte)] {
                        Class::Quote => State::String(byte),
                        Class::Separator => break Step::Token(Token::Separator, 1),
                        Class::OpenBrace => break Step::Token(Token::OpenBrace, 1),
                        Class::CloseBrace => break Step::Token(Token::CloseBrace, 1),
                        Class::OpenBracket => break Step::Token(Token::OpenBracket, 1),
                        Class::CloseBracket => break Step::Token(Token::CloseBracket, 1),
                        Class::Minus => State::Minus,
                        Class::Zero => State::Zero,
                        Class::Digit => State::Integer,
                        Class::Letter => State::Keyword,
                        Class::Blank | Class::Stray => break Step::Stray(1),
                    }
                }
                State::String(quote) => {
                    let run = plain_run(&input[rest..]);
                    rest += run;
                    match input.get(rest) {
                        None => state,
                        Some(&byte) => {
                            rest += 1;
                            if byte == quote {
                                break Step::Token(Token::String, len + run + 1);
                            } else if byte == b'\\' {
                                State::Escape(quote)
                            } else if !(0x20..0xFE).contains(&byte) {
                                break Step::Stray(len + run + 1);
                            } else {
                                state
                            }
                        }
                    }
                }
                State::Escape(quote) => {
                    rest += 1;
                    if !(0x20..0xFE).contains(&byte) {
                        break Step::Stray(len + 1);
                    }
                    State::String(quote)
                }
                State::Keyword if byte.is_ascii_lowercase() => {
                    rest += 1;
                    state
                }
                State::Keyword => break Step::Token(Token::Keyword, len),
                _ => match number(state, byte) {
                    Number::Goes(next) => {
                        rest += 1;
                        next
                    }
                    Number::Ends => break Step::Token(Token::Number, len),
                    Number::Stray => {
                        rest += 1;
                        break Step::Stray(len + 1);
                    }
                },
            };
        };
        match step {
            Step::Hungry => {
                self.carried += rest - start;
                self.state = state;
            }
            Step::Token(..) | Step::TooLong => self.restart(State::Start),
            Step::Stray(_) => self.restart(State::Recovery),
        }
        *at = rest;
        step
    }

    fn restart(&mut self, state: State) {
        self.carried = 0;
        self.state = state;
    }
}

enum Number {
    Goes(State),
    Ends,
    Stray,
}

/// What `byte` does to a number in `state`.
fn number(state: State, byte: u8) -> Number {
    let next = match (state, byte) {
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
            return Number::Stray;
        }
        _ => return Number::Ends,
    };
    Number::Goes(next)
}

/// The number of leading bytes that mean nothing but themselves in a string.
#[inline]
fn plain_run(bytes: &[u8]) -> usize {
    let mut run = 0;
    // Eight bytes a turn: most bytes of a message are such bytes.
    while let Some(chunk) = bytes[run..].first_chunk::<8>() {
        if !all_plain(u64::from_le_bytes(*chunk)) {
            break;
        }
        run += 8;
    }
    while bytes.get(run).is_some_and(|&byte| PLAIN[usize::from(byte)]) {
        run += 1;
    }
    run
}

/// Whether all eight bytes are ASCII, not control characters, and neither quotes nor backslashes.
#[inline]
fn all_plain(word: u64) -> bool {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = ONES << 7;
    // A byte of `differences` is zero where it is the byte looked for, and subtracting one then sets
    // its highest bit. The borrow can only flag bytes above such a byte, so zero means none.
    let equals = |byte: u8| {
        let differences = word ^ (ONES * u64::from(byte));
        differences.wrapping_sub(ONES) & !differences
    };
    let control = word.wrapping_sub(ONES * 0x20) & !word;
    (word | control | equals(b'"') | equals(b'\'') | equals(b'\\')) & HIGHS == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_runs_end_at_the_first_special_byte_wherever_it_stands() {
        for special in (0u8..=255).filter(|&byte| !PLAIN[usize::from(byte)]) {
            for before in 0..20 {
                let mut bytes = vec![b'x'; before];
                bytes.push(special);
                bytes.extend_from_slice(b"tail of plain text");
                assert_eq!(plain_run(&bytes), before, "{special:#04x} after {before}");
            }
        }
    }

    #[test]
    fn plain_runs_go_through_every_plain_byte() {
        let plain: Vec<u8> = (0u8..=255).filter(|&byte| PLAIN[usize::from(byte)]).collect();
        for from in 0..plain.len() {
            assert_eq!(plain_run(&plain[from..]), plain.len() - from);
        }
    }
}
