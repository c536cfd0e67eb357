// SPDX-License-Identifier: MIT OR Apache-2.0
//! How far a client has come.
//!
//! ```text
//!               qmp_capabilities              its response
//! Negotiating ------------------> Negotiated --------------> Listening
//!                  succeeds                    is sent
//! ```

use std::sync::atomic::{AtomicU8, Ordering};

/// The state of a monitor. It only ever moves on to the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Only `qmp_capabilities` is executed.
    Negotiating,
    /// All commands are executed. Events are not sent yet: the client takes the next in-band message for the
    /// response to its negotiation.
    Negotiated { oob: bool },
    /// The response has been sent. The client gets every event emitted after that.
    Listening { oob: bool },
}

/// A [`State`] that several threads look at.
pub(crate) struct AtomicState(AtomicU8);

impl AtomicState {
    pub(crate) const fn new() -> AtomicState {
        AtomicState(AtomicU8::new(0))
    }

    /// That of a client of which no negotiation is expected.
    pub(crate) fn without_negotiation() -> AtomicState {
        let state = AtomicState::new();
        state.set(State::Listening { oob: false });
        state
    }

    pub(crate) fn get(&self) -> State {
        let code = self.0.load(Ordering::Acquire);
        let oob = code & 1 == 1;
        match code >> 1 {
            0 => State::Negotiating,
            1 => State::Negotiated { oob },
            _ => State::Listening { oob },
        }
    }

    pub(crate) fn set(&self, state: State) {
        let code = match state {
            State::Negotiating => 0,
            State::Negotiated { oob } => 0b10 | u8::from(oob),
            State::Listening { oob } => 0b100 | u8::from(oob),
        };
        self.0.store(code, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_read_as_it_was_written() {
        let state = AtomicState::new();
        assert_eq!(state.get(), State::Negotiating);
        for oob in [false, true] {
            for written in [State::Negotiated { oob }, State::Listening { oob }] {
                state.set(written);
                assert_eq!(state.get(), written);
            }
        }
    }
}
