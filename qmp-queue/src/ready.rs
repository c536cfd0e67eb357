// SPDX-License-Identifier: MIT OR Apache-2.0
//! The producers that have something to pop, in the order in which they will be served.
//!
//! The lowest stamp goes first. Serving a producer gives it a stamp above all others, and
//! registering one a stamp below all others, so nearly every insertion is at one of the two ends of
//! a line. The exception, a producer that was idle while others were served, goes into a heap. The
//! next producer is the lower of the two heads.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

/// A producer's position in the order of service, or that of a group. No two producers have the same, and no two groups.
pub(crate) type Stamp = i64;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) stamp: Stamp,
    pub(crate) slot: usize,
}

#[derive(Debug, Default)]
pub(crate) struct Ready {
    /// Strictly ascending by stamp.
    line: VecDeque<Place>,
    /// Places that were inserted between the ends of `line`.
    aside: BinaryHeap<Reverse<Place>>,
}

impl Ready {
    #[inline(always)]
    pub(crate) fn insert(&mut self, place: Place) {
        if self.line.back().is_none_or(|last| last.stamp < place.stamp) {
            self.line.push_back(place);
        } else if self.line.front().is_some_and(|first| place.stamp < first.stamp) {
            self.line.push_front(place);
        } else {
            self.aside.push(Reverse(place));
        }
    }

    #[inline(always)]
    pub(crate) fn pop_first(&mut self) -> Option<Place> {
        match (self.line.front(), self.aside.peek()) {
            (Some(first), Some(Reverse(other))) if other < first => {
                self.aside.pop().map(|Reverse(place)| place)
            }
            (None, Some(_)) => self.aside.pop().map(|Reverse(place)| place),
            _ => self.line.pop_front(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.line.len() + self.aside.len()
    }

    pub(crate) fn retain(&mut self, mut keep: impl FnMut(&Place) -> bool) {
        self.line.retain(&mut keep);
        self.aside.retain(|Reverse(place)| keep(place));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_stamp_comes_first_wherever_it_was_inserted() {
        let mut ready = Ready::default();
        for stamp in [3, 7, -2, 5, 4, 9, -1, 6] {
            ready.insert(Place { stamp, slot: 0 });
        }
        ready.retain(|place| place.stamp != 5 && place.stamp != 9);
        assert_eq!(ready.len(), 6);
        let order: Vec<_> =
            std::iter::from_fn(|| ready.pop_first()).map(|place| place.stamp).collect();
        assert_eq!(order, [-2, -1, 3, 4, 6, 7]);
    }
}
