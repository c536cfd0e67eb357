// SPDX-License-Identifier: MIT OR Apache-2.0
//! How large one message may get.

/// What one message may hold before it is refused. The defaults are QEMU's
/// (`qobject/json-streamer.c`, `qobject/json-lexer.c`).
///
/// Passing a limit is an error response like any other: what was read of the message is dropped, and
/// reading goes on with the next byte (in 11.1, the rest of the message is skipped first). White space
/// counts towards no limit; no more than one byte of it is kept between two tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Limits {
    /// The size of all tokens of a message together must stay *below* this number of bytes, and no
    /// single token may grow beyond it. Default 64 MiB.
    pub token_bytes: usize,
    /// The number of tokens. Default 2 Mi.
    pub tokens: usize,
    /// Open brackets and braces together. Default 1,024, which is also the largest value that has
    /// an effect, for the parser recurses.
    pub nesting: usize,
}

impl Limits {
    pub(crate) const MAX_NESTING: usize = 1024;
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { token_bytes: 64 << 20, tokens: 2 << 20, nesting: Limits::MAX_NESTING }
    }
}
