// SPDX-License-Identifier: MIT OR Apache-2.0
//! Names for sources of events.

/// Names a source of events. The generation tells a source from an earlier one in the same slot, so that an event or a
/// notice that comes late finds nobody instead of somebody else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Token {
    pub(crate) index: u32,
    pub(crate) generation: u32,
}

impl From<Token> for u64 {
    fn from(token: Token) -> u64 {
        u64::from(token.generation) << 32 | u64::from(token.index)
    }
}

impl From<u64> for Token {
    fn from(token: u64) -> Token {
        Token { index: token as u32, generation: (token >> 32) as u32 }
    }
}
