// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which of several names comes first in a `GHashTable` of GLib.
//!
//! QEMU keeps the members of an object that have not been asked for in such a table, and reports
//! the first one. Its order depends on the hashes, on collisions, and on the table's history of
//! growing and shrinking, all of which is retraced here. Unlike QEMU's table, this one takes a bounded
//! number of steps: a client can choose names that collide.

use crate::steps;

/// What GLib takes for places that have never been used and for removed ones; real hashes are
/// above.
const UNUSED: u32 = 0;
const REMOVED: u32 = 1;

const MIN_SHIFT: u32 = 3;

/// The largest primes below powers of two, as GLib has them.
const PRIMES: [u32; 32] = [
    1,
    2,
    3,
    7,
    13,
    31,
    61,
    127,
    251,
    509,
    1021,
    2039,
    4093,
    8191,
    16381,
    32749,
    65521,
    131_071,
    262_139,
    524_287,
    1_048_573,
    2_097_143,
    4_194_301,
    8_388_593,
    16_777_213,
    33_554_393,
    67_108_859,
    134_217_689,
    268_435_399,
    536_870_909,
    1_073_741_789,
    2_147_483_647,
];

/// Steps that a name may take on average before the table is given up.
///
/// Names that nobody has chosen take about three at the highest load that GLib allows (94 %). Names
/// whose hashes collide take as many as there are names, which would be quadratic.
const STEPS_PER_NAME: usize = 64;

/// The first of `names`, given in the order in which they are inserted, when those of `removed`
/// have been taken out again one by one. `None` if none is left, or if the names collide too often.
///
/// `names` are distinct.
pub(crate) fn first_left<'a>(
    names: impl ExactSizeIterator<Item = &'a str>,
    removed: &[&str],
) -> Option<&'a str> {
    let names: Vec<&str> = names.collect();
    let mut table = Table::new(&names, (names.len() + removed.len()) * STEPS_PER_NAME);
    for number in 0..names.len() {
        table.insert(number)?;
    }
    for name in removed {
        table.remove(name)?;
    }
    table.first()
}

/// A hash table of names with open addressing. Its functions return `None` when the steps are used up.
struct Table<'n, 'a> {
    names: &'n [&'a str],
    places: Vec<Place>,
    shift: u32,
    /// Names in the table.
    len: usize,
    /// Places that are not [`UNUSED`], at least `len`.
    occupied: usize,
    /// Steps left. Bounds the time, whatever the names are.
    steps: usize,
}

/// Small, because a table of very many has to fit into the cache.
#[derive(Clone, Copy)]
struct Place {
    hash: u32,
    /// The index of the name.
    number: u32,
}

const FREE: Place = Place { hash: UNUSED, number: 0 };

impl<'n, 'a> Table<'n, 'a> {
    fn new(names: &'n [&'a str], steps: usize) -> Table<'n, 'a> {
        let places = vec![FREE; 1 << MIN_SHIFT];
        Table { names, places, shift: MIN_SHIFT, len: 0, occupied: 0, steps }
    }

    /// Adds a name that is not in the table.
    fn insert(&mut self, number: usize) -> Option<()> {
        steps::count(1);
        let hash = hash(self.names[number]);
        // A removed place before the first unused one would be used again, but names are only
        // removed when all have been inserted.
        let index = self.find(hash, |place| place.hash == UNUSED)?;
        self.places[index] = Place { hash, number: number as u32 };
        self.len += 1;
        self.occupied += 1;
        self.maybe_resize()
    }

    fn remove(&mut self, name: &str) -> Option<()> {
        let (hash, names) = (hash(name), self.names);
        let is_it = |place: &Place| place.hash == hash && names[place.number as usize] == name;
        let index = self.find(hash, |place| place.hash == UNUSED || is_it(place))?;
        if self.places[index].hash > REMOVED {
            self.places[index].hash = REMOVED;
            self.len -= 1;
            self.maybe_resize()?;
        }
        Some(())
    }

    fn first(&self) -> Option<&'a str> {
        let place = self.places.iter().find(|place| place.hash > REMOVED)?;
        Some(self.names[place.number as usize])
    }

    /// The first place in the sequence of this hash that is wanted.
    fn find(&mut self, hash: u32, wanted: impl Fn(&Place) -> bool) -> Option<usize> {
        let mut index = self.index(hash);
        let mut step = 0;
        while !wanted(&self.places[index]) {
            step += 1;
            self.step()?;
            index = (index + step) & (self.places.len() - 1);
        }
        Some(index)
    }

    fn step(&mut self) -> Option<()> {
        steps::count(1);
        self.steps = self.steps.checked_sub(1)?;
        Some(())
    }

    fn index(&self, hash: u32) -> usize {
        (hash.wrapping_mul(11) % PRIMES[self.shift as usize]) as usize
    }

    fn maybe_resize(&mut self) -> Option<()> {
        let size = self.places.len();
        let sparse = size > self.len * 4 && size > 1 << MIN_SHIFT;
        let full = size <= self.occupied + self.occupied / 16;
        if sparse || full { self.resize() } else { Some(()) }
    }

    /// Moves the names in place, as GLib does: a name goes to where it belongs in the table of the
    /// new size, the one it finds there is moved next.
    fn resize(&mut self) -> Option<()> {
        let old_size = self.places.len();
        let wanted = (self.len as f64 * 1.333) as u32;
        self.shift = (u32::BITS - wanted.leading_zeros()).max(MIN_SHIFT);
        let size = 1 << self.shift;
        self.places.resize(size.max(old_size), FREE);

        let mut settled = vec![false; size];
        for start in 0..old_size {
            if self.places[start].hash <= REMOVED {
                self.places[start] = FREE;
                continue;
            }
            if settled.get(start) == Some(&true) {
                continue;
            }
            let mut moving = std::mem::replace(&mut self.places[start], FREE);
            while moving.hash > REMOVED {
                let mut index = self.index(moving.hash);
                let mut step = 0;
                while settled[index] {
                    step += 1;
                    self.step()?;
                    index = (index + step) & (size - 1);
                }
                settled[index] = true;
                moving = std::mem::replace(&mut self.places[index], moving);
            }
        }
        self.places.truncate(size);
        self.occupied = self.len;
        Some(())
    }
}

/// `g_str_hash` of the name as QEMU keeps it.
fn hash(name: &str) -> u32 {
    let mut hash = 5381u32;
    let mut add = |byte: u8| {
        hash = hash.wrapping_mul(33).wrapping_add(i32::from(byte.cast_signed()).cast_unsigned());
    };
    for &byte in name.as_bytes() {
        // A NUL is kept as two bytes, so that it does not end the string.
        if byte == 0 {
            add(0xC0);
            add(0x80);
        } else {
            add(byte);
        }
    }
    if hash <= REMOVED { 2 } else { hash }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first<'a>(names: &[&'a str]) -> Option<&'a str> {
        first_left(names.iter().copied(), &[])
    }

    #[test]
    fn hashes_take_bytes_as_signed() {
        assert_eq!(hash(""), 5381);
        assert_eq!(hash("a"), 5381 * 33 + 97);
        assert_eq!(hash("é"), ((5381 * 33 - 61) * 33) - 87);
        assert_eq!(hash("\0"), ((5381 * 33 - 64) * 33) - 128);
    }

    #[test]
    fn the_first_of_a_few() {
        assert_eq!(first(&[]), None);
        assert_eq!(first(&["extra", "other"]), Some("other"));
        assert_eq!(first(&["a", "b", "c", "d"]), Some("b"));
    }

    #[test]
    fn removed_names_are_not_reported() {
        assert_eq!(first_left(["a", "b", "c"].into_iter(), &["b", "x"]), Some("a"));
        assert_eq!(first_left(["a"].into_iter(), &["a"]), None);
    }

    /// The steps that were taken, and whether they sufficed.
    fn steps(names: &[String]) -> (usize, bool) {
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut table = Table::new(&names, names.len() * STEPS_PER_NAME);
        let finished = (0..names.len()).try_for_each(|number| table.insert(number)).is_some();
        (names.len() * STEPS_PER_NAME - table.steps, finished)
    }

    #[test]
    fn names_that_nobody_has_chosen_take_few_steps() {
        for count in [1, 7, 1000, 30_000] {
            let names: Vec<String> = (0..count).map(|n| format!("name{n}")).collect();
            let (steps, finished) = steps(&names);
            assert!(finished && steps <= 8 * count, "{steps} steps for {count} names");
        }
    }

    #[test]
    fn names_that_collide_are_given_up_after_a_bounded_number_of_steps() {
        // In base 33, "aB" and "b!" are the same number.
        let colliding = |bits: usize| -> Vec<String> {
            let pairs = |n: usize| (0..bits).map(move |bit| ["aB", "b!"][n >> bit & 1]);
            (0..1usize << bits).map(|n| pairs(n).collect()).collect()
        };
        let names = colliding(11);
        assert!(names.iter().all(|name| hash(name) == hash(&names[0])));
        let (few, _) = steps(&names);
        let (many, finished) = steps(&colliding(12));
        assert!(!finished && many <= 2 * few + STEPS_PER_NAME, "{many} steps after {few}");
        assert_eq!(first_left(names.iter().map(String::as_str), &[]), None);
    }

    #[test]
    fn every_name_is_kept_while_growing_and_shrinking() {
        let names: Vec<String> = (0..1000).map(|n| format!("name{n}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        for left in [0, 1, 2, 5, 100, 999] {
            let mut table = Table::new(&names, names.len() * STEPS_PER_NAME);
            for number in 0..names.len() {
                table.insert(number).unwrap();
            }
            assert_eq!(table.len, 1000);
            for name in &names[left..] {
                table.remove(name).unwrap();
            }
            let kept = table.places.iter().filter(|place| place.hash > REMOVED);
            let mut kept: Vec<_> = kept.map(|place| names[place.number as usize]).collect();
            let mut expected = names[..left].to_vec();
            kept.sort_unstable();
            expected.sort_unstable();
            assert_eq!(kept, expected);
        }
    }
}
