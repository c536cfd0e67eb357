// SPDX-License-Identifier: MIT OR Apache-2.0
//! Clients that do what no client should, beside others that check every byte they get.
//!
//! A [`run`] is made of rounds. In each, [`unruly`] clients come and go over every transport while [`polite`] ones
//! compare each answer with what it must be. When the unruly ones are gone, the [`site`] must hold what it held before.
//! The seed decides what the clients do, but not the order in which the server sees it.

mod polite;
mod site;
mod unruly;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::inputs::Random;

use polite::Polite;
use site::Site;
use unruly::Unruly;

#[derive(Clone, Debug)]
pub struct Scale {
    pub seed: u64,
    /// Unruly clients that are there at a time.
    pub unruly: usize,
    /// How often each of them comes in a round.
    pub visits: usize,
    /// Rounds go on for this long; there is one in any case.
    pub time: Duration,
}

#[derive(Debug)]
pub struct Round {
    /// Counted from zero.
    pub number: u64,
    /// How often unruly clients have come.
    pub visits: usize,
    pub answers: u64,
    /// How many answers others got at most while one was waited for.
    pub longest_wait: u64,
    /// The server's resident memory before the first round, at the end of this one, and when it was most, in KiB.
    pub memory: [u64; 3],
    /// The server's descriptors, which are as many as before.
    pub descriptors: usize,
    pub took: Duration,
}

impl fmt::Display for Round {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Round { number, visits, answers, longest_wait, memory, descriptors, took } = self;
        let [before, after, most] = memory;
        write!(
            f,
            "round {number}: {visits} visits, {answers} answers, others got {longest_wait} at most meanwhile; \
             {before} KiB before, {after} after, {most} at most; {descriptors} descriptors; {:.1} s",
            took.as_secs_f64()
        )
    }
}

/// Starts a server and runs the rounds. Calls a function with the results of each.
pub fn run(scale: &Scale, mut tell: impl FnMut(&Round)) -> Result<(), String> {
    let with_seed = |reason| format!("seed {}: {reason}", scale.seed);
    let started = Instant::now();
    let random = Random::new(scale.seed);
    let mut site = Site::open().map_err(with_seed)?;
    for number in 0.. {
        let round = round(&mut site, scale, number, &random.fork(number));
        tell(&round.map_err(|reason| with_seed(format!("round {number}: {reason}")))?);
        if started.elapsed() >= scale.time {
            break;
        }
    }
    site.close().map_err(with_seed)
}

fn round(site: &mut Site, scale: &Scale, number: u64, random: &Random) -> Result<Round, String> {
    let started = Instant::now();
    let polite = Polite::connect(site, random.fork(0))?;
    let over = AtomicBool::new(false);
    let checked = thread::scope(|scope| {
        let unruly: Vec<_> = (1..=scale.unruly as u64)
            .map(|index| {
                let mut client = Unruly::new(Arc::clone(site.doors()), random.fork(index));
                scope.spawn(move || (0..scale.visits).try_for_each(|_| client.visit()))
            })
            .collect();
        let polite = scope.spawn(|| polite.talk(&over));
        let visited: Result<Vec<()>, String> = unruly
            .into_iter()
            .map(|client| client.join().unwrap_or_else(|_| Err("a client has panicked".to_owned())))
            .collect();
        over.store(true, Ordering::Relaxed);
        let checked = polite.join().unwrap_or_else(|_| Err("a client has panicked".to_owned()));
        visited.and(checked)
    })?;
    let (memory, descriptors) = site.expect_as_before()?;
    Ok(Round {
        number,
        visits: scale.unruly * scale.visits,
        answers: checked.answers,
        longest_wait: checked.longest_wait,
        memory,
        descriptors,
        took: started.elapsed(),
    })
}
