// SPDX-License-Identifier: MIT OR Apache-2.0
//! Random inputs for a QMP server, which depend only on the seed.
//!
//! An [`Inputs`] makes them in three ways: [`generate`] builds requests, values and runs of tokens from what the grammar
//! and the protocol know, [`seeds`] takes what the conformance cases send, and [`mutate`] changes either a little.
//! Well-formed commands whose [`arguments`] are the point are built from a schema.

pub mod arguments;
mod generate;
mod mutate;
mod random;
pub mod seeds;

pub use random::Random;

#[derive(Debug)]
pub struct Inputs<'s> {
    random: Random,
    seeds: &'s [Vec<u8>],
}

impl<'s> Inputs<'s> {
    /// The inputs that belong to this random source, some of them made from `seeds`.
    pub fn new(random: Random, seeds: &'s [Vec<u8>]) -> Self {
        Self { random, seeds }
    }

    pub fn random(&mut self) -> &mut Random {
        &mut self.random
    }

    pub fn next_input(&mut self) -> Vec<u8> {
        let random = &mut self.random;
        let mut input = match random.below(20) {
            0..11 => generate::request(random),
            11..13 => generate::message(random),
            13..15 => generate::tokens(random),
            15 => random.bytes(12),
            _ if self.seeds.is_empty() => generate::request(random),
            _ => self.seeds[random.below(self.seeds.len())].clone(),
        };
        // Most are not changed: a change often causes a lexical error, which hides the rest of the input.
        if random.one_in(4) {
            for _ in 0..=random.below(3) {
                let other = self.seeds.get(random.below(self.seeds.len().max(1)));
                mutate::mutate(&mut input, other.map_or(&[], Vec::as_slice), random);
            }
        }
        input
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_inputs() {
        let seeds = seeds::from_cases().unwrap();
        let take = |seed| {
            let mut inputs = Inputs::new(Random::new(seed), &seeds);
            (0..1000).map(|_| inputs.next_input()).collect::<Vec<_>>()
        };
        assert_eq!(take(1), take(1));
        assert_ne!(take(1), take(2));
    }
}
