// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is unsent, as data for another program.

use std::collections::HashMap;
use std::mem;
use std::sync::Arc;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::{Kind, Outbox, Piece};

/// An [`Outbox`] as data.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct OutboxState {
    pieces: Vec<PieceState>,
    missed_events: u64,
    missing_logged: bool,
    missed_in_all: u64,
    bytes_sent: u64,
}

#[derive(Serialize, Deserialize)]
enum PieceState {
    Own {
        #[serde(with = "qmp_dispatch::proto::bytes_as_text")]
        bytes: Vec<u8>,
        is_event: bool,
    },
    /// The number of the text, and what of it has been written.
    Shared(usize, usize),
}

/// Texts that several outboxes keep, each once.
#[derive(Default)]
pub(crate) struct SharedTexts {
    texts: Vec<Arc<str>>,
    numbers: HashMap<usize, usize>,
}

impl SharedTexts {
    fn number_of(&mut self, text: &Arc<str>) -> usize {
        *self.numbers.entry(Arc::as_ptr(text).addr()).or_insert_with(|| {
            self.texts.push(Arc::clone(text));
            self.texts.len() - 1
        })
    }

    pub(crate) fn into_texts(self) -> Vec<Arc<str>> {
        self.texts
    }
}

/// The same in the other program.
#[derive(Default)]
pub(crate) struct TextsTaken(Vec<Arc<str>>);

impl From<Vec<String>> for TextsTaken {
    fn from(texts: Vec<String>) -> TextsTaken {
        TextsTaken(texts.into_iter().map(Into::into).collect())
    }
}

impl Outbox {
    pub(in crate::session) fn state(&self, shared: &mut SharedTexts) -> OutboxState {
        let state = self.lock();
        let mut written = state.written;
        let pieces = state.pieces.iter().map(|piece| {
            let from = mem::take(&mut written);
            match piece {
                Piece::Own { bytes, kind } => PieceState::Own {
                    bytes: bytes[from..].to_vec(),
                    is_event: *kind == Kind::Event,
                },
                Piece::Shared(piece) => PieceState::Shared(shared.number_of(&piece.text), from),
            }
        });
        OutboxState {
            pieces: pieces.collect(),
            missed_events: state.missed_events,
            missing_logged: state.missing_logged,
            missed_in_all: state.missed_in_all,
            bytes_sent: state.bytes_sent,
        }
    }

    /// Puts an outbox to which nothing was added yet into this state. The loop looks whether there is room when it takes
    /// the session in.
    pub(crate) fn resume(&self, outbox: OutboxState, texts: &TextsTaken) {
        let mut state = self.lock();
        for piece in outbox.pieces {
            match piece {
                PieceState::Own { bytes, is_event } => {
                    state.append(&bytes, if is_event { Kind::Event } else { Kind::Response });
                }
                PieceState::Shared(number, from) => {
                    let Some(text) = texts.0.get(number) else { continue };
                    if from == 0 {
                        state.append_shared(text);
                    } else {
                        // Only the first piece is written in part.
                        let rest = text.as_bytes().get(from..).unwrap_or_default();
                        state.append(rest, Kind::Event);
                    }
                }
            }
        }
        state.missed_events = outbox.missed_events;
        state.missing_logged = outbox.missing_logged;
        state.missed_in_all = outbox.missed_in_all;
        state.bytes_sent = outbox.bytes_sent;
        state.blocked_since = (state.unsent > 0 || state.missed_events > 0).then(Instant::now);
        self.account(&mut state);
    }
}
