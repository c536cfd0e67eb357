// SPDX-License-Identifier: MIT OR Apache-2.0
//! Looking for input that `qmp-proto` or `qmp-server` cannot cope with.
//!
//! A [`Target`] is a function that takes any bytes and panics if something is not as promised. [`run`] feeds it with
//! [inputs](crate::inputs) until the time is up, and watches how long it takes and how much memory.

mod server;
mod targets;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

use crate::inputs::{Inputs, Random};

pub(crate) use server::AUDIT_WORDS;
pub use targets::{TARGETS, Target};

/// More time on a processor than anything takes that does not hang. (The clock on the wall goes on while others run.)
const SLOW: Duration = Duration::from_secs(2);
/// Bytes that a target may allocate for each byte of its input, including copies for comparisons.
const BYTES_PER_BYTE: u64 = 600;
const BYTES_AT_LEAST: u64 = 1 << 20;

/// An input that a target does not take as it should.
#[derive(Debug)]
pub struct Failure {
    /// The input.
    pub input: Vec<u8>,
    /// The error.
    pub reason: String,
}

/// Feeds `target` for this long. How many inputs it took.
///
/// # Errors
///
/// Fails with the first input that the target does not take.
pub fn run(
    target: &Target,
    time: Duration,
    seed: u64,
    seeds: &[Vec<u8>],
) -> Result<u64, Box<Failure>> {
    let started = Instant::now();
    let random = Random::new(seed);
    let mut count = 0;
    while started.elapsed() < time {
        let mut inputs = Inputs::new(random.fork(count), seeds);
        let has_words = !target.words.is_empty() && !inputs.random().one_in(4);
        let input = match has_words {
            true => words(target.words, inputs.random()),
            false => stream(&mut inputs),
        };
        check(target, &input)?;
        count += 1;
    }
    Ok(count)
}

/// Feeds `target` once.
///
/// # Errors
///
/// Fails if the target does not take this input.
pub fn check(target: &Target, input: &[u8]) -> Result<(), Box<Failure>> {
    let started = processor_time();
    let mut outcome = Ok(());
    let allocated = allocation_counter::measure(|| {
        outcome = catch_unwind(AssertUnwindSafe(|| (target.run)(input)));
    });
    let most = BYTES_AT_LEAST + BYTES_PER_BYTE * input.len() as u64;
    let took = processor_time().saturating_sub(started);
    let reason = if outcome.is_err() {
        "it panicked".to_owned()
    } else if took > SLOW {
        format!("it took {took:?}")
    } else if allocated.bytes_max > most {
        format!("it had {} bytes allocated", allocated.bytes_max)
    } else {
        return Ok(());
    };
    Err(Box::new(Failure { input: input.to_vec(), reason }))
}

/// Returns the processor time that this thread has used.
fn processor_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
}

/// Some inputs in a row, one of them perhaps many times over.
fn stream(inputs: &mut Inputs<'_>) -> Vec<u8> {
    let mut stream = Vec::new();
    for _ in 0..=inputs.random().few(5) {
        let input = inputs.next_input();
        let times = if inputs.random().one_in(20) { inputs.random().below(300) } else { 1 };
        stream.extend(input.repeat(times));
    }
    stream
}

/// Some words in a row, some runs of them many times over.
fn words(words: &[&str], random: &mut Random) -> Vec<u8> {
    let mut text = Vec::new();
    for _ in 0..=random.few(6) {
        let run: String = (0..=random.few(6)).map(|_| random.pick(words)).collect();
        let times = if random.one_in(10) { random.below(500) } else { 1 };
        text.extend_from_slice(run.repeat(times).as_bytes());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inputs::seeds;

    #[test]
    fn every_target_takes_everything_for_a_while() {
        let seeds = seeds::from_cases().unwrap();
        for target in TARGETS {
            for seed in &seeds {
                check(target, seed).unwrap();
            }
            run(target, Duration::from_millis(500), 1, &seeds).unwrap();
        }
    }

    #[test]
    fn a_target_that_fails_is_found_out() {
        let wasteful: fn(&[u8]) = |_| drop(std::hint::black_box(vec![0u8; 2 << 20]));
        assert!(check(&Target { name: "wasteful", words: &[], run: wasteful }, b"").is_err());
        assert!(check(&Target { name: "ok", words: &[], run: |_| {} }, b"").is_ok());
    }
}
