// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whether a server that has QEMU's limits will read a request.

use crate::lexer::{Kind, Lexer, Step};
use crate::{Dialect, Limits, SyntaxError, SyntaxErrorKind};

/// A request is larger than a server with QEMU's [`Limits`] accepts; it has not been sent.
///
/// Such a server would answer without an id, and to parts of the request more than once.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the request is too large for the server: {limit}")]
pub struct RequestTooLarge<T> {
    /// What was to be kept with the request.
    pub request: T,
    /// The error that the server would report.
    pub limit: SyntaxError,
}

/// Checks a well-formed message, as it would be sent. Allocates nothing.
pub(super) fn check(text: &str, limits: &Limits) -> Result<(), SyntaxError> {
    // A token has at least one byte, and nesting needs two of them for each level.
    if text.len() / 2 < limits.nesting {
        return Ok(());
    }
    // The words are the same in all dialects.
    let passed = |kind| SyntaxError { kind, dialect: Dialect::default(), location: None };
    let text = text.as_bytes();
    let mut lexer = Lexer::new(limits.token_bytes);
    let (mut at, mut bytes, mut tokens, mut nesting) = (0, 0, 0, 0usize);
    loop {
        let (kind, len) = match lexer.step(text, &mut at) {
            Step::Token(kind, len) => (kind, len),
            Step::TooLong => return Err(passed(SyntaxErrorKind::TokenSizeLimit)),
            Step::Hungry | Step::Stray(..) => return Ok(()),
        };
        bytes += len;
        tokens += 1;
        match kind {
            Kind::OpenBrace | Kind::OpenBracket => nesting += 1,
            Kind::CloseBrace | Kind::CloseBracket => nesting = nesting.saturating_sub(1),
            _ => {}
        }
        if bytes >= limits.token_bytes {
            return Err(passed(SyntaxErrorKind::TokenSizeLimit));
        }
        if tokens > limits.tokens {
            return Err(passed(SyntaxErrorKind::TokenCountLimit));
        }
        if nesting > limits.nesting {
            return Err(passed(SyntaxErrorKind::NestingLimit));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Reader;

    #[test]
    fn what_fits_is_what_a_reader_reads() {
        let list = |len: usize| format!("[{}0]", "0,".repeat(len - 1));
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        let text = |len: usize| format!("[\"{}\"]", "x".repeat(len));
        let limits = Limits { token_bytes: 1000, tokens: 101, nesting: 20 };
        for (message, fits) in [
            (list(50), true),
            (list(51), false),
            (nested(20), true),
            (nested(21), false),
            (text(995), true),
            (text(996), false),
            (text(1001), false),
        ] {
            let mut reader = Reader::new(Dialect::Qemu10_0, limits);
            let read = reader.read(&mut message.as_bytes()).unwrap();
            let kind = |error: SyntaxError| error.kind;
            assert_eq!(check(&message, &limits).map_err(kind), read.map(drop).map_err(kind));
            assert_eq!(check(&message, &limits).is_ok(), fits, "{message}");
        }
    }
}
