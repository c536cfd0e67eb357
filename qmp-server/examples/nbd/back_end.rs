// SPDX-License-Identifier: MIT OR Apache-2.0
//! What commands, main loop and clients share.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::export::Export;

pub(crate) struct BackEnd {
    exports: Vec<Export>,
    quitting: AtomicBool,
}

impl BackEnd {
    pub(crate) fn new(exports: Vec<Export>) -> BackEnd {
        BackEnd { exports, quitting: AtomicBool::new(false) }
    }

    pub(crate) fn exports(&self) -> &[Export] {
        &self.exports
    }

    pub(crate) fn find(&self, name: &str) -> Option<&Export> {
        self.exports.iter().find(|export| export.name() == name)
    }

    /// Asks the main loop to end.
    pub(crate) fn quit(&self) {
        self.quitting.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_quitting(&self) -> bool {
        self.quitting.load(Ordering::Relaxed)
    }
}
