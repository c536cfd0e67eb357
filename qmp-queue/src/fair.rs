// SPDX-License-Identifier: MIT OR Apache-2.0
//! The discipline itself: a plain data structure without locks, hooks or clocks.

use std::collections::{HashMap, VecDeque};
use std::mem;
use std::num::NonZeroU64;
use std::sync::Arc;

use slab::Slab;

use crate::mode::Mode;
use crate::outcome::{ProducerId, PushError, Resume};
use crate::ready::{Place, Ready, Stamp};
use crate::stats::ProducerStats;

pub(crate) type ResumeHook = Arc<dyn Fn(Resume) + Send + Sync>;

/// The capacity of a new buffer, which is what most producers may fill.
const BUFFER: usize = Mode::DEFAULT_LIMIT.get();

/// Number of empty buffers that are kept for reuse. A queue with more busy producers than this
/// allocates when an idle one becomes busy; in return, what a burst has taken is freed after it.
const SPARE_BUFFERS: usize = 64;

/// Number of stale places in `ready` that are not worth a sweep.
const STALE_PLACES: usize = 32;

/// Finds a producer. Slots are reused, ids are not, so both are compared.
#[derive(Clone, Copy)]
pub(crate) struct Key {
    pub(crate) id: ProducerId,
    pub(crate) slot: usize,
}

/// A producer was suspended and no longer is, and has not been notified yet.
#[must_use]
pub(crate) struct Resumed {
    pub(crate) producer: ProducerId,
    pub(crate) hook: Option<ResumeHook>,
}

/// The result of a push.
#[must_use]
pub(crate) struct Accepted {
    pub(crate) suspended: bool,
    /// Nothing could be popped before.
    pub(crate) was_idle: bool,
}

/// The result of a pop.
#[must_use]
pub(crate) struct Taken<T> {
    pub(crate) item: T,
    pub(crate) producer: Key,
    pub(crate) in_progress: bool,
    pub(crate) more: bool,
    pub(crate) resumed: Option<Resumed>,
}

/// The result of a change to one producer.
#[must_use]
#[derive(Default)]
pub(crate) struct Changed {
    pub(crate) resumed: Option<Resumed>,
    /// Nothing could be popped before, and now something can.
    pub(crate) was_idle: bool,
}

/// The contents of a producer. To be dropped after the lock has been released: dropping items and
/// hooks runs the user's code.
#[must_use]
pub(crate) struct Removed<T> {
    pub(crate) items: Vec<T>,
    pub(crate) resumed: Option<Resumed>,
    pub(crate) _hook: Option<ResumeHook>,
}

/// The contents of the whole queue, to be dropped like [`Removed`].
#[must_use]
pub(crate) struct Remains<T> {
    pub(crate) items: Vec<(ProducerId, T)>,
    pub(crate) resumed: Vec<Resumed>,
    pub(crate) _hooks: Vec<ResumeHook>,
}

struct Slot<T> {
    id: ProducerId,
    mode: Mode,
    /// The index of its group.
    group: usize,
    /// The producer's place in the order of service: lower goes first, and no two producers have
    /// the same. Changes only when the producer is served.
    stamp: Stamp,
    /// Whether the `ready` of its group has an entry with this slot and this stamp. True whenever the slot is
    /// ready; may stay true when it no longer is (a stale entry).
    placed: bool,
    /// Without a buffer while it is empty, so that an idle producer needs none.
    items: VecDeque<T>,
    /// Number of this producer's tickets that are open.
    in_progress: u32,
    served: u64,
    hook: Option<ResumeHook>,
}

impl<T> Slot<T> {
    #[inline(always)]
    fn suspended(&self) -> bool {
        self.mode.suspends(self.items.len(), self.in_progress as usize)
    }

    /// Whether an item can be popped.
    #[inline(always)]
    fn is_ready(&self) -> bool {
        !self.items.is_empty() && !self.mode.holds_back(self.in_progress as usize)
    }

    /// To be called after a change, with the value of [`suspended`](Slot::suspended) before it.
    #[inline(always)]
    fn resumed(&self, was_suspended: bool) -> Option<Resumed> {
        (was_suspended && !self.suspended())
            .then(|| Resumed { producer: self.id, hook: self.hook.clone() })
    }

    fn stats(&self) -> ProducerStats {
        ProducerStats {
            producer: self.id,
            mode: self.mode,
            queued: self.items.len(),
            in_progress: self.in_progress as usize,
            suspended: self.suspended(),
            served: self.served,
        }
    }
}

/// Producers that are served in turn with other groups, however many they are.
struct Group {
    /// What it was registered under.
    name: Option<u64>,
    /// Number of its slots. It is removed with the last one.
    slots: usize,
    /// Has exactly one entry for each ready slot. Its other entries are stale: their producer has
    /// nothing to pop, or is gone. They number `ready.len() - busy`, and never more than
    /// `busy + STALE_PLACES` after an operation.
    ready: Ready,
    /// Number of ready slots.
    busy: usize,
    /// The group's place in the order of service, as that of a slot among those of its group.
    stamp: Stamp,
    /// Whether `Fair::groups_ready` has an entry with this group and this stamp. True whenever `busy > 0`.
    placed: bool,
}

impl Group {
    /// Adds a slot that has become ready.
    #[inline(always)]
    fn add<T>(&mut self, slot: &mut Slot<T>, index: usize) {
        self.busy += 1;
        if !slot.placed {
            slot.placed = true;
            self.ready.insert(Place { stamp: slot.stamp, slot: index });
        }
    }

    /// Removes stale places if they are more than half of all. Without this, producers that push
    /// and go away while nobody pops would make `ready` grow; with it, each stale place is paid for
    /// by the operation that made it so.
    fn sweep<T>(&mut self, slots: &mut Slab<Slot<T>>) {
        if self.ready.len() <= 2 * self.busy + STALE_PLACES {
            return;
        }
        self.ready.retain(|place| match slots.get_mut(place.slot) {
            Some(slot) if slot.stamp == place.stamp => {
                slot.placed = slot.is_ready();
                slot.placed
            }
            _ => false,
        });
    }
}

pub(crate) struct Fair<T> {
    slots: Slab<Slot<T>>,
    /// Empty buffers of capacity `BUFFER`, at most `SPARE_BUFFERS`.
    spare: Vec<VecDeque<T>>,
    groups: Slab<Group>,
    /// The indices of the groups that have slots.
    names: HashMap<Option<u64>, usize>,
    /// Has exactly one entry for each group with ready slots. Its other entries are stale, as in [`Group::ready`]; at most
    /// one for each group, and one for each that was removed since the last sweep.
    groups_ready: Ready,
    /// Number of ready slots in all groups.
    busy: usize,
    /// Number of items in all slots, held back or not. 0 only if `busy` is 0.
    queued: usize,
    next_id: NonZeroU64,
    /// Stamps of the next producer to be registered and of the next one to be served:
    /// `next_first < every stamp < next_last`. One counts down and the other up.
    next_first: Stamp,
    next_last: Stamp,
    /// Set once: no more pushes and registrations.
    finished: bool,
}

impl<T> Fair<T> {
    pub(crate) fn new() -> Self {
        Self {
            slots: Slab::new(),
            spare: Vec::new(),
            groups: Slab::new(),
            names: HashMap::new(),
            groups_ready: Ready::default(),
            busy: 0,
            queued: 0,
            next_id: NonZeroU64::MIN,
            next_first: -1,
            next_last: 0,
            finished: false,
        }
    }

    /// Whether nothing can be popped.
    #[inline(always)]
    pub(crate) fn is_idle(&self) -> bool {
        self.busy == 0
    }

    /// Whether there will never be anything to pop.
    #[inline(always)]
    pub(crate) fn is_exhausted(&self) -> bool {
        self.finished && self.queued == 0
    }

    pub(crate) fn len(&self) -> usize {
        self.queued
    }

    pub(crate) fn finished(&self) -> bool {
        self.finished
    }

    /// Adds a producer ahead of all others of its group. If the queue is finished, the producer is closed from
    /// the start.
    pub(crate) fn register(
        &mut self,
        name: Option<u64>,
        mode: Mode,
        hook: Option<ResumeHook>,
    ) -> Key {
        let id = ProducerId(self.next_id);
        self.next_id = self.next_id.saturating_add(1);
        if self.finished {
            return Key { id, slot: usize::MAX };
        }
        let stamp = self.next_first;
        self.next_first -= 1;
        let group = *self.names.entry(name).or_insert_with(|| {
            let ready = Ready::default();
            self.groups.insert(Group { name, slots: 0, ready, busy: 0, stamp, placed: false })
        });
        self.groups[group].slots += 1;
        let slot = self.slots.insert(Slot {
            id,
            mode,
            group,
            stamp,
            placed: false,
            items: VecDeque::new(),
            in_progress: 0,
            served: 0,
            hook,
        });
        Key { id, slot }
    }

    #[inline(always)]
    pub(crate) fn push(&mut self, key: Key, item: T) -> Result<Accepted, PushError<T>> {
        if self.finished {
            return Err(PushError::Closed(item));
        }
        let Some(slot) = self.slots.get_mut(key.slot).filter(|slot| slot.id == key.id) else {
            return Err(PushError::Closed(item));
        };
        if slot.suspended() {
            return Err(PushError::Full(item));
        }
        let was_ready = slot.is_ready();
        if slot.items.capacity() == 0 {
            slot.items = self.spare.pop().unwrap_or_else(|| VecDeque::with_capacity(BUFFER));
        }
        slot.items.push_back(item);
        self.queued += 1;
        let suspended = slot.suspended();
        let mut was_idle = false;
        if !was_ready && slot.is_ready() {
            was_idle = self.busy == 0;
            self.busy += 1;
            let group = &mut self.groups[slot.group];
            group.add(slot, key.slot);
            place(&mut self.groups_ready, group, slot.group);
        }
        Ok(Accepted { suspended, was_idle })
    }

    #[inline(always)]
    pub(crate) fn pop(&mut self) -> Option<Taken<T>> {
        if self.is_idle() {
            return None;
        }
        let (of, group) = loop {
            let Place { stamp, slot: index } = self.groups_ready.pop_first()?;
            let Some(group) = self.groups.get_mut(index).filter(|group| group.stamp == stamp)
            else {
                continue;
            };
            group.placed = false;
            if group.busy > 0 {
                break (index, group);
            }
        };
        loop {
            let Place { stamp, slot: index } = group.ready.pop_first()?;
            // A stale entry may name a slot that is vacant, or has been given to another producer.
            let Some(slot) = self.slots.get_mut(index).filter(|slot| slot.stamp == stamp) else {
                continue;
            };
            slot.placed = false;
            if !slot.is_ready() {
                continue;
            }
            let was_suspended = slot.suspended();
            let item = slot.items.pop_front()?;
            let in_progress = slot.mode.counts_progress();
            slot.in_progress += u32::from(in_progress);
            slot.served += 1;
            slot.stamp = self.next_last;
            group.stamp = self.next_last;
            self.next_last += 1;
            self.queued -= 1;
            group.busy -= 1;
            if slot.is_ready() {
                group.add(slot, index);
            } else {
                self.busy -= 1;
            }
            if group.busy > 0 {
                place(&mut self.groups_ready, group, of);
            }
            let resumed = slot.resumed(was_suspended);
            let producer = Key { id: slot.id, slot: index };
            if slot.items.is_empty() {
                let buffer = mem::take(&mut slot.items);
                if buffer.capacity() == BUFFER && self.spare.len() < SPARE_BUFFERS {
                    self.spare.push(buffer);
                }
            }
            return Some(Taken { item, producer, in_progress, resumed, more: !self.is_idle() });
        }
    }

    /// Marks one item that was popped as `in_progress` as done.
    #[inline(always)]
    pub(crate) fn done(&mut self, key: Key) -> Changed {
        self.change(key, |slot| slot.in_progress -= 1)
    }

    pub(crate) fn set_mode(&mut self, key: Key, mode: Mode) -> Changed {
        self.change(key, |slot| slot.mode = mode)
    }

    /// Takes the queued items of a producer, which keeps its place in the order of service.
    pub(crate) fn clear(&mut self, key: Key) -> Removed<T> {
        self.empty(key, |_| {})
    }

    /// Removes a producer and its queued items.
    pub(crate) fn remove(&mut self, key: Key) -> Removed<T> {
        // Forgetting what is in progress resumes the producer, whatever its mode.
        let mut removed = self.empty(key, |slot| slot.in_progress = 0);
        if self.contains(key) {
            let Slot { group: index, hook, .. } = self.slots.remove(key.slot);
            removed._hook = hook;
            let group = &mut self.groups[index];
            group.slots -= 1;
            if group.slots == 0 {
                self.names.remove(&group.name);
                self.groups.remove(index);
                self.sweep_groups();
            }
        }
        removed
    }

    fn empty(&mut self, key: Key, also: impl FnOnce(&mut Slot<T>)) -> Removed<T> {
        let mut items = VecDeque::new();
        let Changed { resumed, .. } = self.change(key, |slot| {
            items = mem::take(&mut slot.items);
            also(slot);
        });
        self.queued -= items.len();
        Removed { items: items.into(), resumed, _hook: None }
    }

    /// Makes a change to a producer, and updates what depends on whether it is ready.
    #[inline(always)]
    fn change(&mut self, key: Key, change: impl FnOnce(&mut Slot<T>)) -> Changed {
        let Some(slot) = self.slots.get_mut(key.slot).filter(|slot| slot.id == key.id) else {
            return Changed::default();
        };
        let (was_suspended, was_ready) = (slot.suspended(), slot.is_ready());
        change(slot);
        let resumed = slot.resumed(was_suspended);
        let mut was_idle = false;
        match (was_ready, slot.is_ready()) {
            (false, true) => {
                was_idle = self.busy == 0;
                self.busy += 1;
                let group = &mut self.groups[slot.group];
                group.add(slot, key.slot);
                place(&mut self.groups_ready, group, slot.group);
            }
            (true, false) => {
                self.busy -= 1;
                let group = &mut self.groups[slot.group];
                group.busy -= 1;
                group.sweep(&mut self.slots);
            }
            _ => {}
        }
        Changed { resumed, was_idle }
    }

    /// As [`Group::sweep`], when groups have been removed.
    fn sweep_groups(&mut self) {
        if self.groups_ready.len() <= 2 * self.groups.len() + STALE_PLACES {
            return;
        }
        let groups = &mut self.groups;
        self.groups_ready.retain(|place| match groups.get_mut(place.slot) {
            Some(group) if group.stamp == place.stamp => {
                group.placed = group.busy > 0;
                group.placed
            }
            _ => false,
        });
    }

    /// Refuses pushes and registrations from now on. What is queued can still be popped.
    pub(crate) fn finish(&mut self) {
        self.finished = true;
    }

    /// Removes all producers and items, the items in the order in which they would be popped if
    /// nothing held them back and all were of one group.
    pub(crate) fn close(&mut self) -> Remains<T> {
        let mut items = Vec::with_capacity(self.queued);
        let mut resumed = Vec::new();
        let mut hooks = Vec::new();
        let mut slots: Vec<_> =
            mem::take(&mut self.slots).into_iter().map(|(_, slot)| slot).collect();
        slots.sort_unstable_by_key(|slot| slot.stamp);
        for slot in &mut slots {
            if slot.suspended() {
                resumed.push(Resumed { producer: slot.id, hook: slot.hook.clone() });
            }
            hooks.extend(slot.hook.take());
        }
        // The producer that is served goes behind all others, so every round has the same order.
        while !slots.is_empty() {
            slots.retain_mut(|slot| {
                items.extend(slot.items.pop_front().map(|item| (slot.id, item)));
                !slot.items.is_empty()
            });
        }
        self.spare = Vec::new();
        (self.groups, self.names) = (Slab::new(), HashMap::new());
        self.groups_ready = Ready::default();
        (self.busy, self.queued) = (0, 0);
        self.finished = true;
        Remains { items, resumed, _hooks: hooks }
    }

    #[inline(always)]
    pub(crate) fn suspended(&self, key: Key) -> bool {
        self.slot(key).is_some_and(Slot::suspended)
    }

    pub(crate) fn contains(&self, key: Key) -> bool {
        self.slot(key).is_some()
    }

    pub(crate) fn stats(&self, key: Key) -> Option<ProducerStats> {
        self.slot(key).map(Slot::stats)
    }

    /// Returns all queued items: those of a producer together, the next one first.
    pub(crate) fn items(&self) -> impl Iterator<Item = &T> {
        self.slots.iter().flat_map(|(_, slot)| &slot.items)
    }

    /// Appends the statistics of the producers in some slots from `start` on. Returns where to
    /// continue, or `None` at the end.
    pub(crate) fn stats_from(&self, start: usize, into: &mut Vec<ProducerStats>) -> Option<usize> {
        const SLOTS_AT_A_TIME: usize = 64;
        let end = self.slots.capacity().min(start.saturating_add(SLOTS_AT_A_TIME));
        into.extend((start..end).filter_map(|index| self.slots.get(index)).map(Slot::stats));
        (end < self.slots.capacity()).then_some(end)
    }

    #[inline(always)]
    fn slot(&self, key: Key) -> Option<&Slot<T>> {
        self.slots.get(key.slot).filter(|slot| slot.id == key.id)
    }
}

/// Makes sure that a group with ready slots has its entry.
#[inline(always)]
fn place(ready: &mut Ready, group: &mut Group, index: usize) {
    if !group.placed {
        group.placed = true;
        ready.insert(Place { stamp: group.stamp, slot: index });
    }
}
