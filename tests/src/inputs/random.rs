// SPDX-License-Identifier: MIT OR Apache-2.0
//! Random numbers that are the same for the same seed, on every machine and in every version.

/// A source of random numbers (SplitMix64).
#[derive(Clone, Debug)]
pub struct Random {
    state: u64,
}

impl Random {
    /// The numbers that belong to `seed`.
    pub fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// Another source, number `index` of those that belong to this one.
    pub fn fork(&self, index: u64) -> Self {
        let mut mixed = Self::new(self.state ^ index.wrapping_mul(0xD134_2543_DE82_EF95));
        Self::new(mixed.number())
    }

    pub fn number(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number from 0 to below `end`; 0 if `end` is 0.
    pub fn below(&mut self, end: usize) -> usize {
        match end as u64 {
            0 => 0,
            end => (self.number() % end) as usize,
        }
    }

    /// True in one of `chances` cases.
    pub fn one_in(&mut self, chances: usize) -> bool {
        self.below(chances) == 0
    }

    /// A number from 0 to `limit`, small ones more often than large ones.
    pub fn few(&mut self, limit: usize) -> usize {
        let mut count = 0;
        while count < limit && !self.one_in(3) {
            count += 1;
        }
        count
    }

    pub fn byte(&mut self) -> u8 {
        self.number().to_le_bytes()[0]
    }

    /// Any bytes, `longest` at most.
    pub fn bytes(&mut self, longest: usize) -> Vec<u8> {
        (0..self.below(longest + 1)).map(|_| self.byte()).collect()
    }

    pub fn pick<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.below(items.len())]
    }
}
