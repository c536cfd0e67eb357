// SPDX-License-Identifier: MIT OR Apache-2.0
//! How other threads reach a source of the loop.

use std::sync::{Arc, OnceLock};

use super::{Mailbox, Notice, Token};

/// Posts notices about one source. A source can be made on any thread: it gets its token when the loop takes it in, and
/// looks at its state then, so that notices which came to nobody before are not missed.
pub(crate) struct Registration {
    mailbox: Arc<Mailbox>,
    token: OnceLock<Token>,
}

impl Registration {
    pub(crate) fn new(mailbox: &Arc<Mailbox>) -> Arc<Registration> {
        Arc::new(Registration { mailbox: Arc::clone(mailbox), token: OnceLock::new() })
    }

    /// Says that the loop has taken the source in. Done once.
    pub(crate) fn set_token(&self, token: Token) {
        let _ = self.token.set(token);
    }

    /// The token, if the loop has taken the source in.
    pub(crate) fn token(&self) -> Option<Token> {
        self.token.get().copied()
    }

    pub(crate) fn post(&self, notice: Notice) {
        if let Some(token) = self.token() {
            self.mailbox.post(token, notice);
        }
    }

    pub(crate) fn mailbox(&self) -> &Arc<Mailbox> {
        &self.mailbox
    }
}
