// SPDX-License-Identifier: MIT OR Apache-2.0
//! Comparing the peers on very many inputs.

use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::answers::mismatch;
use super::model::{Answer, Mode, Model, RESYNC, is_comparable};
use super::peer::Peer;
use super::shrink::shrink;
use crate::inputs::{Inputs, Random, seeds};

/// Inputs on one connection.
const BATCH: u64 = 250;
const TRIES: usize = 3;
const BATCHES_PER_REPORT: u64 = 100;

/// What to compare.
#[derive(Clone, Debug)]
pub struct Options {
    /// How many inputs.
    pub count: u64,
    /// Which ones.
    pub seed: u64,
    /// How many comparisons at a time; no matter for which inputs they are.
    pub jobs: u64,
    /// Whether our own server takes part; otherwise it is `qmp-proto` alone.
    pub with_server: bool,
}

/// What came of it.
#[derive(Debug)]
pub enum Outcome {
    /// All have answered the same to so many inputs, with so many answers.
    Same {
        /// How many inputs.
        inputs: u64,
        /// How many answers of each peer.
        answers: u64,
    },
    /// A difference, as small as it could be made.
    Different(Difference),
}

/// Inputs that are not answered as foretold.
#[derive(Debug)]
pub struct Difference {
    peer: &'static str,
    trial: Trial,
    mismatch: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Trial { mode, piece, inputs } = &self.trial;
        writeln!(
            f,
            "{} differs, connection {mode:?}, model fed {piece} bytes at a time",
            self.peer
        )?;
        for input in inputs {
            writeln!(f, "  sent     \"{}\"", input.escape_ascii())?;
        }
        write!(f, "{}", self.mismatch)
    }
}

/// Some inputs on one connection, each brought to its end by [`RESYNC`].
#[derive(Clone, Debug)]
struct Trial {
    mode: Mode,
    /// The model is given so many bytes at a time.
    piece: usize,
    inputs: Vec<Vec<u8>>,
}

impl Trial {
    /// Number `index` of those that belong to `random`.
    fn generate(
        random: &Random,
        index: u64,
        len: u64,
        seeds: &[Vec<u8>],
        commands: &[String],
    ) -> Self {
        let mut inputs = Inputs::new(random.fork(index), seeds);
        let mode = inputs.random().pick(&Mode::ALL);
        let piece = inputs.random().pick(&[1, 2, 3, 7, 30, 1000, usize::MAX]);
        let mut trial = Self { mode, piece, inputs: Vec::new() };
        while (trial.inputs.len() as u64) < len {
            let input = inputs.next_input();
            if is_comparable(&input, mode, commands) {
                trial.inputs.push(input);
            }
        }
        trial
    }

    fn bytes(&self) -> Vec<u8> {
        self.inputs.iter().flat_map(|input| [input.as_slice(), RESYNC]).flatten().copied().collect()
    }

    fn expected(&self) -> Vec<Answer> {
        let mut model = Model::default();
        model.feed(self.mode.negotiation());
        self.bytes().chunks(self.piece).flat_map(|piece| model.feed(piece)).collect()
    }

    /// What `peer` does otherwise than foretold, every time.
    ///
    /// QEMU may close a connection that is made right after another has ended, or send it what was meant for that one.
    fn mismatch(&self, peer: &Peer) -> Result<Option<String>, String> {
        let (expected, bytes) = (self.expected(), self.bytes());
        let once = || Ok(mismatch(&expected, &peer.answers(self.mode, &bytes)?));
        let mut found = once();
        for _ in 1..TRIES {
            if matches!(found, Ok(None)) {
                break;
            }
            found = once();
        }
        found
    }

    /// The least of it that still makes `peer` answer otherwise than foretold.
    fn shrink(&self, peer: &Peer) -> Self {
        let with = |inputs: &[Vec<u8>]| Self { inputs: inputs.to_vec(), ..self.clone() };
        let inputs = shrink(self.inputs.clone(), |inputs| {
            matches!(with(inputs).mismatch(peer), Ok(Some(_)))
        });
        with(&inputs)
    }
}

/// Compares until the inputs are used up or a difference is found.
///
/// # Errors
///
/// Fails if a peer cannot be started or gives up answering.
pub fn run(options: &Options) -> Result<Outcome, String> {
    let shared = Shared {
        random: Random::new(options.seed),
        seeds: seeds::from_cases()?,
        batches: options.count.div_ceil(BATCH),
        next: AtomicU64::new(0),
        answers: AtomicU64::new(0),
        stop: AtomicBool::new(false),
        difference: Mutex::new(None),
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> =
            (0..options.jobs.max(1)).map(|_| scope.spawn(|| shared.work(options))).collect();
        let results: Vec<_> =
            workers.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
        results
            .into_iter()
            .try_for_each(|result| result.map_err(|_| "a worker has panicked".to_owned())?)
    })?;
    let difference = shared.difference.into_inner().map_err(|error| error.to_string())?;
    Ok(match difference {
        Some(difference) => Outcome::Different(difference),
        None => Outcome::Same { inputs: options.count, answers: shared.answers.into_inner() },
    })
}

/// What the workers share.
struct Shared {
    random: Random,
    seeds: Vec<Vec<u8>>,
    batches: u64,
    next: AtomicU64,
    answers: AtomicU64,
    stop: AtomicBool,
    difference: Mutex<Option<Difference>>,
}

impl Shared {
    fn work(&self, options: &Options) -> Result<(), String> {
        let result = self.compare(options);
        if result.is_err() {
            self.stop.store(true, Ordering::Relaxed);
        }
        result
    }

    fn compare(&self, options: &Options) -> Result<(), String> {
        let mut peers = vec![Peer::storage_daemon()?];
        if options.with_server {
            peers.push(Peer::our_server()?);
        }
        let mut commands = Vec::new();
        for peer in &peers {
            commands.extend(peer.commands()?);
        }
        while !self.stop.load(Ordering::Relaxed) {
            let index = self.next.fetch_add(1, Ordering::Relaxed);
            if index >= self.batches {
                break;
            }
            let len = BATCH.min(options.count - index * BATCH);
            let trial = Trial::generate(&self.random, index, len, &self.seeds, &commands);
            for peer in &peers {
                if trial.mismatch(peer)?.is_some() {
                    self.stop.store(true, Ordering::Relaxed);
                    let trial = trial.shrink(peer);
                    let mismatch = trial.mismatch(peer)?.unwrap_or_else(|| "not always".to_owned());
                    let difference = Difference { peer: peer.name(), trial, mismatch };
                    *self.difference.lock().map_err(|error| error.to_string())? = Some(difference);
                    return Ok(());
                }
            }
            self.answers.fetch_add(trial.expected().len() as u64, Ordering::Relaxed);
            if (index + 1).is_multiple_of(BATCHES_PER_REPORT) {
                eprintln!("{} of {} inputs", (index + 1) * BATCH, options.count);
            }
        }
        Ok(())
    }
}
