// SPDX-License-Identifier: MIT OR Apache-2.0
//! The producers that have something to pop, in the order in which they are to be served.
//!
//! A producer's place is its stamp: the lowest goes first. Serving gives a stamp above all others
//! and registering one below all others, so nearly every insertion is at one of the two ends; the
//! exception, a producer that was idle while others were served, is kept aside in a heap. The next
//! one is the lower of the two heads.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

/// A producer's place in the order of service. No two producers ever have the same.
pub(crate) type Stamp = i64;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) stamp: Stamp,
    pub(crate) slot: u32,
}

#[derive(Debug, Default)]
pub(crate) struct Ready {
    /// Ascending by stamp.
    line: VecDeque<Place>,
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

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Place> {
        self.line.iter().chain(self.aside.iter().map(|Reverse(place)| place))
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
    fn lowest_stamp_first_wherever_it_was_inserted() {
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
