// SPDX-License-Identifier: MIT OR Apache-2.0
//! Comparing how the peers read messages.

use qmp_proto::Dialect;

use super::answers::{every_time, mismatch};
use super::batches::{Batch, Options, Outcome, share_out};
use super::model::{Answer, Mode, Model, RESYNC, is_comparable};
use super::peer::{Peer, Subject};
use super::shrink::shrink;
use crate::inputs::{Inputs, Random, seeds};

/// Some inputs on one connection, each brought to its end by [`RESYNC`].
#[derive(Clone, Debug)]
struct Trial {
    dialect: Dialect,
    mode: Mode,
    /// Number of bytes that the model receives at a time.
    piece: usize,
    inputs: Vec<Vec<u8>>,
}

impl Trial {
    /// One of those that belong to `random`.
    fn generate(
        dialect: Dialect,
        random: &Random,
        batch: Batch,
        seeds: &[Vec<u8>],
        commands: &[String],
    ) -> Self {
        let mut inputs = Inputs::new(random.fork(batch.index), seeds);
        let mode = inputs.random().pick(&Mode::ALL);
        let piece = inputs.random().pick(&[1, 2, 3, 7, 30, 1000, usize::MAX]);
        let mut trial = Self { dialect, mode, piece, inputs: Vec::new() };
        while (trial.inputs.len() as u64) < batch.len {
            let input = inputs.next_input();
            if is_comparable(dialect, &input, mode, commands) {
                trial.inputs.push(input);
            }
        }
        trial
    }

    fn bytes(&self) -> Vec<u8> {
        self.inputs.iter().flat_map(|input| [input.as_slice(), RESYNC]).flatten().copied().collect()
    }

    fn expected(&self) -> Vec<Answer> {
        let mut model = Model::new(self.dialect);
        model.feed(self.mode.negotiation());
        self.bytes().chunks(self.piece).flat_map(|piece| model.feed(piece)).collect()
    }

    /// Returns how `peer` differs from the prediction, if it does every time.
    fn mismatch(&self, peer: &Peer) -> Result<Option<String>, String> {
        let (expected, bytes) = (self.expected(), self.bytes());
        every_time(|| Ok(mismatch(&expected, &peer.answers(self.mode, &bytes)?)))
    }

    /// Returns the smallest part of it with which `peer` still differs from the prediction.
    fn shrink(&self, peer: &Peer) -> Self {
        let with = |inputs: &[Vec<u8>]| Self { inputs: inputs.to_vec(), ..self.clone() };
        let inputs = shrink(self.inputs.clone(), |inputs| {
            matches!(with(inputs).mismatch(peer), Ok(Some(_)))
        });
        with(&inputs)
    }

    fn compare(&self, peers: &[Peer]) -> Result<Outcome, String> {
        for peer in peers {
            if self.mismatch(peer)?.is_some() {
                let trial = self.shrink(peer);
                let mismatch = trial.mismatch(peer)?.unwrap_or_else(|| "not always".to_owned());
                return Ok(Outcome::Different(trial.report(peer, &mismatch)));
            }
        }
        let (inputs, answers) = (self.inputs.len() as u64, self.expected().len() as u64);
        Ok(Outcome::Same { inputs, answers })
    }

    fn report(&self, peer: &Peer, mismatch: &str) -> String {
        let Self { dialect, mode, piece, inputs } = self;
        let sent: String = inputs
            .iter()
            .map(|input| format!("  sent     \"{}\"\n", input.escape_ascii()))
            .collect();
        format!(
            "{} differs, dialect {dialect}, connection {mode:?}, model fed {piece} bytes at a time\n{sent}{mismatch}",
            peer.name()
        )
    }
}

/// Compares until the inputs are used up or a difference is found; without a subject, it is `qmp-proto` alone that is
/// compared.
pub fn run(
    dialect: Dialect,
    options: &Options,
    subject: Option<Subject>,
) -> Result<Outcome, String> {
    let random = Random::new(options.seed);
    let seeds = seeds::from_cases()?;
    let equip = || {
        let mut peers = vec![Peer::storage_daemon(dialect)?];
        if let Some(subject) = subject {
            peers.push(subject.start(dialect, Peer::storage_daemon)?);
        }
        let mut commands = Vec::new();
        for peer in &peers {
            commands.extend(peer.commands()?);
        }
        Ok((peers, commands))
    };
    share_out(options, equip, |(peers, commands), batch| {
        Trial::generate(dialect, &random, batch, &seeds, commands).compare(peers)
    })
}
