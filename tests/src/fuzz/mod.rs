// SPDX-License-Identifier: MIT OR Apache-2.0
//! Looking for input that `qmp-proto` or `qmp-server` cannot cope with.
//!
//! A [`Target`] is a function that takes any bytes and panics if something is not as promised; [`check`] also watches how long
//! it takes and how much memory. `cargo xtask fuzz` lets libFuzzer search, which prefers inputs that reach code that no other
//! has reached: it starts from [`seeds`](Target::seeds) and often takes an input that was [made](Target::make_input).

mod server;
mod targets;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use crate::certificates;
use crate::inputs::{self, Inputs, Random};

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
    pub input: Vec<u8>,
    pub reason: String,
}

impl Target {
    /// Inputs to begin with: what the conformance cases send, certificates, and the target's words.
    pub fn seeds(&self) -> Result<Vec<Vec<u8>>, String> {
        if self.takes_certificates {
            return certificates::chains().map_err(|error| error.to_string());
        }
        let words = self.words.iter().map(|word| word.as_bytes().to_vec());
        Ok(inputs::seeds::from_cases()?.into_iter().chain(words).collect())
    }

    /// Makes an input from the grammar, the target's words and some of `seeds`. It depends only on `random` and these.
    pub fn make_input(&self, random: Random, seeds: &[Vec<u8>]) -> Vec<u8> {
        let mut inputs = Inputs::new(random, seeds);
        match !self.words.is_empty() && !inputs.random().one_in(4) {
            true => words(self.words, inputs.random()),
            false => stream(&mut inputs),
        }
    }

    /// The dictionary for libFuzzer: words, and tokens of JSON.
    pub fn dictionary(&self) -> String {
        const TOKENS: [&str; 8] = ["{", "}", "[", "]", ",", ":", "\"", "\\u0000"];
        let words = self.words.iter().chain(&TOKENS).map(|word| {
            let bytes = word.bytes().map(|byte| format!("\\x{byte:02x}"));
            format!("\"{}\"\n", bytes.collect::<String>())
        });
        words.collect()
    }
}

/// Feeds `target` once.
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

    #[test]
    fn every_target_takes_seeds_and_made_inputs() {
        for target in TARGETS {
            let seeds = target.seeds().unwrap();
            let random = Random::new(1);
            let made = (0..100).map(|number| target.make_input(random.fork(number), &seeds));
            for input in seeds.iter().cloned().chain(made) {
                if let Err(Failure { input, reason }) =
                    check(target, &input).map_err(|failure| *failure)
                {
                    panic!("{}: {reason} on \"{}\"", target.name, input.escape_ascii());
                }
            }
        }
    }

    #[test]
    fn a_target_that_fails_is_found_out() {
        let wasteful: fn(&[u8]) = |_| drop(std::hint::black_box(vec![0u8; 2 << 20]));
        let target = |run| Target { name: "x", words: &[], takes_certificates: false, run };
        assert!(check(&target(wasteful), b"").is_err());
        assert!(check(&target(|_| {}), b"").is_ok());
    }
}
