// SPDX-License-Identifier: MIT OR Apache-2.0
//! The discipline itself: a plain data structure without locks, hooks called, or clocks read.

use std::sync::Arc;
use std::time::Instant;

use crate::mode::Mode;
use crate::outcome::{ProducerId, Resume};
use crate::ready::{Place, Ready, Stamp};
use crate::slab::Slab;
use crate::stats::ProducerStats;

pub(crate) type ResumeHook = Arc<dyn Fn(Resume) + Send + Sync>;

const NONE: u32 = u32::MAX;

/// A producer has gone from suspended to not suspended, and has yet to be told.
#[must_use]
pub(crate) struct Resumed {
    pub(crate) producer: ProducerId,
    pub(crate) hook: Option<ResumeHook>,
}

#[must_use]
pub(crate) struct Accepted {
    pub(crate) suspended: bool,
    /// Nothing was queued before.
    pub(crate) was_idle: bool,
}

pub(crate) enum Refused<T> {
    Full(T),
    Closed(T),
}

#[must_use]
pub(crate) struct Taken<T> {
    pub(crate) item: T,
    pub(crate) producer: ProducerId,
    pub(crate) in_progress: bool,
    pub(crate) more: bool,
    pub(crate) resumed: Option<Resumed>,
}

/// What a cleared or removed producer leaves. Whoever gets this drops it after the lock is released: items and hooks
/// are the user's, and so is what their `Drop` does.
#[must_use]
pub(crate) struct Removed<T> {
    pub(crate) items: Vec<T>,
    pub(crate) resumed: Option<Resumed>,
    pub(crate) _hook: Option<ResumeHook>,
}

/// What is left when the whole queue closes; to be dropped like [`Removed`].
#[must_use]
pub(crate) struct Remains<T> {
    pub(crate) items: Vec<(ProducerId, T)>,
    pub(crate) resumed: Vec<Resumed>,
    pub(crate) _hooks: Vec<ResumeHook>,
}

struct Slot {
    id: ProducerId,
    mode: Mode,
    stamp: Stamp,
    /// The slot's place is in `ready`, be something queued or not.
    placed: bool,
    /// Oldest and newest of the linked list of queued items.
    head: u32,
    tail: u32,
    queued: u32,
    in_progress: u32,
    served: u64,
    last_served: Option<Instant>,
    hook: Option<ResumeHook>,
}

struct Node<T> {
    item: T,
    next: u32,
}

impl Slot {
    fn suspended(&self) -> bool {
        self.mode.suspends(self.queued as usize, self.in_progress as usize)
    }

    /// To be called after a change, with what [`suspended`](Slot::suspended) said before it.
    fn resumed(&self, was_suspended: bool) -> Option<Resumed> {
        (was_suspended && !self.suspended()).then(|| self.resume())
    }

    fn resume(&self) -> Resumed {
        Resumed { producer: self.id, hook: self.hook.clone() }
    }

    fn stats(&self) -> ProducerStats {
        ProducerStats {
            producer: self.id,
            mode: self.mode,
            queued: self.queued as usize,
            in_progress: self.in_progress as usize,
            suspended: self.suspended(),
            served: self.served,
            last_served: self.last_served,
        }
    }
}

pub(crate) struct Fair<T> {
    slots: Slab<Slot>,
    items: Slab<Node<T>>,
    ready: Ready,
    /// Places in `ready` whose producer has nothing queued or is gone.
    vain_places: usize,
    queued: usize,
    next_serial: u64,
    next_first: Stamp,
    next_last: Stamp,
    finished: bool,
}

impl<T> Fair<T> {
    pub(crate) fn new() -> Self {
        Self {
            slots: Slab::new(),
            items: Slab::new(),
            ready: Ready::default(),
            vain_places: 0,
            queued: 0,
            next_serial: 0,
            next_first: -1,
            next_last: 0,
            finished: false,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.queued
    }

    pub(crate) fn finished(&self) -> bool {
        self.finished
    }

    /// A finished queue hands out the id of a producer that is closed already.
    pub(crate) fn register(&mut self, mode: Mode, hook: Option<ResumeHook>) -> ProducerId {
        let serial = self.next_serial;
        self.next_serial += 1;
        if self.finished {
            return ProducerId { serial, slot: NONE };
        }
        let stamp = self.next_first;
        self.next_first -= 1;
        let slot = self.slots.insert(Slot {
            id: ProducerId { serial, slot: NONE },
            mode,
            stamp,
            placed: false,
            head: NONE,
            tail: NONE,
            queued: 0,
            in_progress: 0,
            served: 0,
            last_served: None,
            hook,
        });
        let id = ProducerId { serial, slot };
        if let Some(new) = self.slots.get_mut(slot) {
            new.id = id;
        }
        id
    }

    pub(crate) fn push(&mut self, id: ProducerId, item: T) -> Result<Accepted, Refused<T>> {
        if self.finished {
            return Err(Refused::Closed(item));
        }
        let Some(slot) = self.slots.get_mut(id.slot).filter(|slot| slot.id == id) else {
            return Err(Refused::Closed(item));
        };
        if slot.suspended() {
            return Err(Refused::Full(item));
        }
        let node = self.items.insert(Node { item, next: NONE });
        if slot.queued == 0 {
            slot.head = node;
            if slot.placed {
                self.vain_places -= 1;
            } else {
                slot.placed = true;
                self.ready.insert(Place { stamp: slot.stamp, slot: id.slot });
            }
        } else if let Some(last) = self.items.get_mut(slot.tail) {
            last.next = node;
        }
        slot.tail = node;
        slot.queued += 1;
        let was_idle = self.queued == 0;
        self.queued += 1;
        Ok(Accepted { suspended: slot.suspended(), was_idle })
    }

    /// `now` is what the producer's `last_served` will say.
    pub(crate) fn pop(&mut self, now: Option<Instant>) -> Option<Taken<T>> {
        if self.queued == 0 {
            return None;
        }
        loop {
            let place = self.ready.pop_first()?;
            let slot = match self.slots.get_mut(place.slot) {
                Some(slot) if slot.stamp == place.stamp && slot.queued > 0 => slot,
                gone_or_idle => {
                    self.vain_places -= 1;
                    if let Some(idle) = gone_or_idle.filter(|slot| slot.stamp == place.stamp) {
                        idle.placed = false;
                    }
                    continue;
                }
            };
            let was_suspended = slot.suspended();
            let Node { item, next } = self.items.remove(slot.head)?;
            slot.head = next;
            slot.queued -= 1;
            let in_progress = slot.mode == Mode::OneInProgress;
            slot.in_progress += u32::from(in_progress);
            slot.served += 1;
            slot.last_served = now;
            slot.stamp = self.next_last;
            self.next_last += 1;
            slot.placed = slot.queued > 0;
            if slot.placed {
                self.ready.insert(Place { stamp: slot.stamp, slot: place.slot });
            }
            self.queued -= 1;
            return Some(Taken {
                item,
                producer: slot.id,
                in_progress,
                more: self.queued > 0,
                resumed: slot.resumed(was_suspended),
            });
        }
    }

    /// An item that was popped as `in_progress` is finished.
    pub(crate) fn done(&mut self, id: ProducerId) -> Option<Resumed> {
        let slot = self.slot_mut(id)?;
        let was_suspended = slot.suspended();
        slot.in_progress -= 1;
        slot.resumed(was_suspended)
    }

    pub(crate) fn set_mode(&mut self, id: ProducerId, mode: Mode) -> Option<Resumed> {
        let slot = self.slot_mut(id)?;
        let was_suspended = slot.suspended();
        slot.mode = mode;
        slot.resumed(was_suspended)
    }

    /// Takes the queued items of one producer, which keeps its place in the order.
    pub(crate) fn clear(&mut self, id: ProducerId) -> Removed<T> {
        let Some(slot) = self.slots.get_mut(id.slot).filter(|slot| slot.id == id) else {
            return Removed { items: Vec::new(), resumed: None, _hook: None };
        };
        let was_suspended = slot.suspended();
        let mut items = Vec::with_capacity(slot.queued as usize);
        while let Some(node) = self.items.remove(slot.head) {
            slot.head = node.next;
            items.push(node.item);
        }
        self.queued -= items.len();
        slot.queued = 0;
        self.vain_places += usize::from(slot.placed && !items.is_empty());
        let resumed = slot.resumed(was_suspended);
        self.forget_vain_places();
        Removed { items, resumed, _hook: None }
    }

    /// Takes a producer out, and its queued items with it.
    pub(crate) fn remove(&mut self, id: ProducerId) -> Removed<T> {
        let was_suspended = self.suspended(id);
        let mut removed = self.clear(id);
        if self.slot_mut(id).is_some()
            && let Some(slot) = self.slots.remove(id.slot)
        {
            if was_suspended && removed.resumed.is_none() {
                removed.resumed = Some(slot.resume());
            }
            removed._hook = slot.hook;
        }
        removed
    }

    /// No more pushes and registrations; what is queued can still be popped.
    pub(crate) fn finish(&mut self) {
        self.finished = true;
    }

    /// Takes every producer and every item out, the items in the order in which they would have been popped.
    pub(crate) fn close(&mut self) -> Remains<T> {
        self.finished = true;
        let mut remains = Remains {
            items: Vec::with_capacity(self.queued),
            resumed: Vec::new(),
            _hooks: Vec::new(),
        };
        for index in 0..self.slots.end() {
            if let Some(slot) = self.slots.get(index).filter(|slot| slot.suspended()) {
                remains.resumed.push(slot.resume());
            }
        }
        while let Some(taken) = self.pop(None) {
            remains.items.push((taken.producer, taken.item));
        }
        for index in 0..self.slots.end() {
            if let Some(slot) = self.slots.remove(index) {
                remains._hooks.extend(slot.hook);
            }
        }
        self.slots = Slab::new();
        self.items = Slab::new();
        self.ready = Ready::default();
        self.vain_places = 0;
        remains
    }

    pub(crate) fn suspended(&self, id: ProducerId) -> bool {
        self.slots.get(id.slot).is_some_and(|slot| slot.id == id && slot.suspended())
    }

    pub(crate) fn contains(&self, id: ProducerId) -> bool {
        self.slots.get(id.slot).is_some_and(|slot| slot.id == id)
    }

    pub(crate) fn stats(&self, id: ProducerId) -> Option<ProducerStats> {
        self.slots.get(id.slot).filter(|slot| slot.id == id).map(Slot::stats)
    }

    /// The producers in some slots from `start` on, and where to go on; `None` at the end.
    pub(crate) fn stats_from(&self, start: u32, into: &mut Vec<ProducerStats>) -> Option<u32> {
        const SLOTS_AT_A_TIME: u32 = 64;
        let end = self.slots.end().min(start.saturating_add(SLOTS_AT_A_TIME));
        into.extend((start..end).filter_map(|index| self.slots.get(index)).map(Slot::stats));
        (end < self.slots.end()).then_some(end)
    }

    fn slot_mut(&mut self, id: ProducerId) -> Option<&mut Slot> {
        self.slots.get_mut(id.slot).filter(|slot| slot.id == id)
    }

    /// Producers that push and go away while nobody pops must not grow `ready`. Waiting until half of it is in vain
    /// makes the sweep's cost per operation constant.
    fn forget_vain_places(&mut self) {
        const NOT_WORTH_IT: usize = 32;
        if self.vain_places < NOT_WORTH_IT || self.vain_places < self.ready.len() / 2 {
            return;
        }
        let slots = &mut self.slots;
        self.ready.retain(|place| match slots.get_mut(place.slot) {
            Some(slot) if slot.stamp == place.stamp => {
                slot.placed = slot.queued > 0;
                slot.placed
            }
            _ => false,
        });
        self.vain_places = 0;
    }
}
