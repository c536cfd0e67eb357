// SPDX-License-Identifier: MIT OR Apache-2.0
//! Sharing the inputs out among workers.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread::ScopedJoinHandle;

/// Inputs between two reports of progress.
const PER_REPORT: u64 = 25_000;

#[derive(Clone, Debug)]
pub struct Options {
    pub count: u64,
    pub seed: u64,
    /// How many on each connection.
    pub stream: u64,
    /// How many comparisons at a time; no matter for which inputs they are.
    pub jobs: u64,
}

impl Options {
    /// These many inputs, one comparison at a time.
    pub fn new(count: u64) -> Self {
        Self { count, seed: 1, stream: 250, jobs: 1 }
    }
}

#[derive(Debug)]
pub enum Outcome {
    /// All servers gave the same answers; the numbers of inputs and of answers.
    Same {
        inputs: u64,
        /// How many answers of each peer.
        answers: u64,
    },
    /// Inputs that are not answered as they should be, as few and small as they could be made, and the answers.
    Different(String),
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Batch {
    pub(super) index: u64,
    /// How many.
    pub(super) len: u64,
}

/// Compares batch after batch until the inputs are used up or a difference is found. Every worker has an equipment of
/// its own.
pub(super) fn share_out<E>(
    options: &Options,
    equip: impl Fn() -> Result<E, String> + Sync,
    compare: impl Fn(&E, Batch) -> Result<Outcome, String> + Sync,
) -> Result<Outcome, String> {
    let shared = Shared::default();
    let work = || {
        let result =
            equip().and_then(|equipment| shared.work(options, |batch| compare(&equipment, batch)));
        if result.is_err() {
            shared.stop.store(true, Ordering::Relaxed);
        }
        result
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..options.jobs.max(1)).map(|_| scope.spawn(work)).collect();
        let results: Vec<_> = workers.into_iter().map(ScopedJoinHandle::join).collect();
        results
            .into_iter()
            .try_for_each(|result| result.map_err(|_| "a worker has panicked".to_owned())?)
    })?;
    let difference = shared.difference.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok(match difference {
        Some(difference) => Outcome::Different(difference),
        None => Outcome::Same { inputs: options.count, answers: shared.answers.into_inner() },
    })
}

/// The state that the workers share.
#[derive(Default)]
struct Shared {
    next: AtomicU64,
    answers: AtomicU64,
    stop: AtomicBool,
    difference: Mutex<Option<String>>,
}

impl Shared {
    fn work(
        &self,
        options: &Options,
        compare: impl Fn(Batch) -> Result<Outcome, String>,
    ) -> Result<(), String> {
        while !self.stop.load(Ordering::Relaxed) {
            let index = self.next.fetch_add(1, Ordering::Relaxed);
            let start = index * options.stream;
            let Some(left) = options.count.checked_sub(start).filter(|&left| left > 0) else {
                break;
            };
            let end = start + options.stream.min(left);
            match compare(Batch { index, len: end - start })? {
                Outcome::Same { answers, .. } => {
                    self.answers.fetch_add(answers, Ordering::Relaxed);
                }
                Outcome::Different(difference) => {
                    self.stop.store(true, Ordering::Relaxed);
                    *self.difference.lock().unwrap_or_else(PoisonError::into_inner) =
                        Some(difference);
                }
            }
            if start / PER_REPORT != end / PER_REPORT {
                eprintln!("{end} of {} inputs", options.count);
            }
        }
        Ok(())
    }
}
