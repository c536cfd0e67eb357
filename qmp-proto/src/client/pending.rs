// SPDX-License-Identifier: MIT OR Apache-2.0
//! Requests that have no response yet, by their ids.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::Band;

/// How the requests of a connection get their ids: numbers that differ from those of earlier
/// connections to the same server, which may still send responses to them.
///
/// An id is used again only after its response has come, and others have been used in between. QEMU
/// reads requests byte by byte, so ids are as short as that allows.
///
/// ```
/// use qmp_proto::client::Ids;
///
/// // For a program that runs once and does not know what ran before it.
/// let ids = Ids::random(0x5EED_1234);
/// // For a proxy that connects again and again: ids of two digits as long as few requests are pending.
/// let ids = Ids::nth_connection(12, 0x5EED_1234);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Ids {
    pub(super) negotiation: u64,
    first: u64,
    stride: u64,
}

impl Ids {
    /// Consecutive connections whose ids differ.
    const KINDS: u64 = 10;

    /// Ids of which nobody else's can be expected to be the same; about ten digits.
    pub const fn random(random: u32) -> Ids {
        let negotiation = random as u64;
        Ids { negotiation, first: negotiation + (1 << 32), stride: 1 << 32 }
    }

    /// Ids for the connection with this number: they differ from those of the nine connections before.
    ///
    /// Only the id of the negotiation is random. QEMU executes the commands left over from another
    /// client before the negotiation, so that responses to them, whatever their ids, come before ours.
    pub const fn nth_connection(number: u64, random: u32) -> Ids {
        // Beyond all ids of requests, unless there are hundreds of millions of them.
        let negotiation = random as u64 | 1 << 32;
        Ids { negotiation, first: number % Ids::KINDS, stride: Ids::KINDS }
    }

    fn id(self, slot: usize) -> u64 {
        self.first.wrapping_add(self.stride.wrapping_mul(slot as u64))
    }

    fn slot(self, id: u64) -> Option<usize> {
        let distance = id.checked_sub(self.first)?;
        if distance % self.stride != 0 {
            return None;
        }
        usize::try_from(distance / self.stride).ok()
    }
}

/// A slot is used again only if at least this many others are free, and then the one that has been
/// free for longest: a response that a server sends twice does not match the next request. With ten
/// slots, the ids of [`Ids::nth_connection`] have two digits.
const RESERVE: usize = 9;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Pending<T> {
    ids: Ids,
    /// `None` in exactly the slots that are in `free`.
    slots: Vec<Option<(Band, T)>>,
    free: VecDeque<usize>,
    in_band: usize,
}

impl<T> Pending<T> {
    pub(super) fn new(ids: Ids) -> Pending<T> {
        Pending { ids, slots: Vec::new(), free: VecDeque::new(), in_band: 0 }
    }

    pub(super) fn ids(&self) -> Ids {
        self.ids
    }

    /// Whether what is said at the fields is true of them.
    pub(super) fn is_sound(&self) -> bool {
        let empty = self.slots.iter().filter(|slot| slot.is_none()).count();
        let is_empty = |&slot: &usize| self.slots.get(slot).is_some_and(Option::is_none);
        let in_band = |slot: &&Option<(Band, T)>| matches!(slot, Some((Band::InBand, _)));
        self.ids.stride > 0
            && empty == self.free.len()
            && self.free.iter().all(is_empty)
            && self.in_band == self.slots.iter().filter(in_band).count()
    }

    /// The id of the next request.
    pub(super) fn next_id(&self) -> u64 {
        self.ids.id(self.next_slot())
    }

    fn next_slot(&self) -> usize {
        match self.free.front() {
            Some(&slot) if self.free.len() > RESERVE => slot,
            _ => self.slots.len(),
        }
    }

    /// Adds a request under [`next_id`](Pending::next_id).
    pub(super) fn insert(&mut self, band: Band, request: T) {
        let slot = self.next_slot();
        if slot == self.slots.len() {
            self.slots.push(Some((band, request)));
        } else {
            self.free.pop_front();
            self.slots[slot] = Some((band, request));
        }
        self.in_band += usize::from(band == Band::InBand);
    }

    /// Takes out the request that has this id.
    pub(super) fn take(&mut self, id: u64) -> Option<T> {
        let slot = self.ids.slot(id)?;
        let (band, request) = self.slots.get_mut(slot)?.take()?;
        self.free.push_back(slot);
        self.in_band -= usize::from(band == Band::InBand);
        Some(request)
    }

    pub(super) fn take_all(&mut self) -> Vec<T> {
        let slots = std::mem::replace(self, Pending::new(self.ids)).slots;
        slots.into_iter().flatten().map(|(_, request)| request).collect()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.slots.iter().flatten().map(|(_, request)| request)
    }

    pub(super) fn count(&self, band: Band) -> usize {
        match band {
            Band::InBand => self.in_band,
            Band::OutOfBand => self.slots.len() - self.free.len() - self.in_band,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn insert<T>(pending: &mut Pending<T>, band: Band, request: T) -> u64 {
        let id = pending.next_id();
        pending.insert(band, request);
        id
    }

    #[test]
    fn an_id_is_used_again_after_its_response_and_nine_others() {
        let mut pending = Pending::new(Ids::nth_connection(47, 0));
        assert_eq!(insert(&mut pending, Band::InBand, 'a'), 7);
        assert_eq!(insert(&mut pending, Band::OutOfBand, 'b'), 17);
        assert_eq!([Band::InBand, Band::OutOfBand].map(|band| pending.count(band)), [1, 1]);
        assert_eq!(pending.take(7), Some('a'));
        assert_eq!([0, 1, 7, 8, 27, u64::MAX].map(|id| pending.take(id)), [None; 6]);
        assert_eq!([Band::InBand, Band::OutOfBand].map(|band| pending.count(band)), [0, 1]);
        for expected in [27, 37, 47, 57, 67, 77, 87, 97, 107, 7, 27, 37] {
            let id = insert(&mut pending, Band::InBand, 'c');
            assert_eq!((id, pending.take(id)), (expected, Some('c')));
        }
        assert_eq!(insert(&mut pending, Band::InBand, 'd'), 47);
        assert_eq!(pending.iter().collect::<String>(), "bd");
        assert_eq!(pending.take_all(), ['b', 'd']);
        assert_eq!([Band::InBand, Band::OutOfBand].map(|band| pending.count(band)), [0, 0]);
    }

    #[test]
    fn ids_of_connections_differ() {
        let of = |ids: Ids| {
            let requests = (0..100).map(move |slot| ids.id(slot));
            requests.chain([ids.negotiation]).collect::<Vec<u64>>()
        };
        let mut seen = std::collections::HashSet::new();
        for number in 90..100 {
            seen.extend(of(Ids::nth_connection(number, number as u32)));
        }
        for random in [0x8000_0000, 0x8000_0001, u32::MAX] {
            seen.extend(of(Ids::random(random)));
        }
        assert_eq!(seen.len(), 13 * 101);
    }

    #[test]
    fn a_slot_is_found_by_its_id_alone() {
        for ids in [Ids::random(u32::MAX), Ids::random(0), Ids::nth_connection(9, 3)] {
            for slot in [0, 1, 9, 1_000_000] {
                assert_eq!(ids.slot(ids.id(slot)), Some(slot));
                assert_eq!(ids.slot(ids.id(slot) + 1), None);
            }
        }
    }
}
