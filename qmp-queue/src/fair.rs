// SPDX-License-Identifier: MIT OR Apache-2.0
//! The discipline itself: a plain data structure that takes no lock but those of the lanes, calls
//! no hook and reads no clock.

use std::collections::VecDeque;
use std::mem;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::lane::{Lane, Loan, Offer, ResumeHook};
use crate::mode::Mode;
use crate::outcome::ProducerId;
use crate::ready::{Place, Ready, Stamp};
use crate::slab::Slab;
use crate::stats::ProducerStats;

const NONE: u32 = u32::MAX;

/// The capacity of a new buffer: what most producers may fill.
const BUFFER: usize = Mode::DEFAULT_LIMIT.get();

/// How many producers without items keep their buffers.
const WARM: usize = 64;

/// Where to find a producer. Its slot may be another one's by the time somebody looks, its id
/// never.
#[derive(Clone, Copy)]
pub(crate) struct Key {
    pub(crate) id: ProducerId,
    pub(crate) slot: u32,
}

/// A producer has gone from suspended to not suspended, and has yet to be told.
#[must_use]
pub(crate) struct Resumed(pub(crate) Option<ResumeHook>);

#[must_use]
pub(crate) struct Accepted {
    pub(crate) suspended: bool,
    /// Nothing could be popped before, and now something can.
    pub(crate) was_idle: bool,
}

pub(crate) enum Refused<T> {
    Full(T),
    Closed(T),
}

#[must_use]
pub(crate) struct Taken<T> {
    pub(crate) item: T,
    pub(crate) producer: Key,
    pub(crate) in_progress: bool,
    pub(crate) more: bool,
    pub(crate) resumed: Option<Resumed>,
}

/// What came of a change that may let a producer's items be popped.
#[must_use]
pub(crate) struct Changed {
    pub(crate) resumed: Option<Resumed>,
    /// Nothing could be popped before, and now something can.
    pub(crate) was_idle: bool,
}

/// What a cleared or removed producer leaves. Whoever gets this drops it after the lock is
/// released: items and hooks (in the lane) are the user's, and so is what their `Drop` does.
#[must_use]
pub(crate) struct Removed<T> {
    pub(crate) items: Vec<T>,
    pub(crate) resumed: Option<Resumed>,
    pub(crate) _lane: Option<Arc<Lane<T>>>,
}

/// What is left when the whole queue closes; to be dropped like [`Removed`].
#[must_use]
pub(crate) struct Remains<T> {
    pub(crate) items: Vec<(ProducerId, T)>,
    pub(crate) resumed: Vec<(ProducerId, Resumed)>,
    pub(crate) _lanes: Vec<Arc<Lane<T>>>,
}

struct Slot<T> {
    id: ProducerId,
    mode: Mode,
    stamp: Stamp,
    /// The slot's place is in `ready`, be something queued or not.
    placed: bool,
    /// The items are in the lane, and none here.
    lent: bool,
    /// The lane has a resume hook. Looking there would cost as much as all the rest of a pop.
    hooked: bool,
    /// Has a buffer only while there is something in it, or while the slot is `warm`.
    items: VecDeque<T>,
    warm: bool,
    in_progress: u32,
    served: u64,
    /// In nanoseconds after the queue's start; 0 for never.
    last_served: u64,
    lane: Arc<Lane<T>>,
}

impl<T> Slot<T> {
    #[inline(always)]
    fn suspended(&self) -> bool {
        self.mode.suspends(self.depth(), self.in_progress as usize)
    }

    fn depth(&self) -> usize {
        if self.lent { self.lane.len() } else { self.items.len() }
    }

    /// There is something to pop, or there may be without the queue having heard of it.
    #[inline(always)]
    fn is_ready(&self) -> bool {
        !self.items.is_empty() && !self.holds_back() || self.lent
    }

    /// What is queued waits for an item in progress.
    #[inline(always)]
    fn holds_back(&self) -> bool {
        self.mode.holds_back(self.in_progress as usize)
    }

    /// To be called after a change, with what [`suspended`](Slot::suspended) said before it.
    #[inline(always)]
    fn resumed(&self, was_suspended: bool) -> Option<Resumed> {
        (was_suspended && !self.suspended()).then(|| self.resume())
    }

    fn resume(&self) -> Resumed {
        Resumed(if self.hooked { self.lane.hook() } else { None })
    }

    fn stats(&self, start: Instant) -> ProducerStats {
        ProducerStats {
            producer: self.id,
            mode: self.mode,
            queued: self.depth(),
            in_progress: self.in_progress as usize,
            suspended: self.suspended(),
            served: self.served,
            last_served: (self.last_served > 0)
                .then(|| start + Duration::from_nanos(self.last_served)),
        }
    }
}

pub(crate) struct Fair<T> {
    slots: Slab<Slot<T>>,
    /// Buffers that no producer has items in, so that an idle producer needs none and a busy one
    /// allocates none.
    spare: Vec<VecDeque<T>>,
    /// The slots that have run empty last, which are likely to be pushed to next.
    warm: VecDeque<u32>,
    ready: Ready,
    /// Places in `ready` whose producer has nothing to pop or is gone.
    vain_places: usize,
    /// How many items are here, how many of them are held back, and how many producers have theirs
    /// in their lanes.
    queued: usize,
    held: usize,
    lent: usize,
    start: Instant,
    next_id: NonZeroU64,
    next_first: Stamp,
    next_last: Stamp,
    finished: bool,
}

impl<T> Fair<T> {
    pub(crate) fn new() -> Self {
        Self {
            slots: Slab::new(),
            spare: Vec::new(),
            warm: VecDeque::new(),
            ready: Ready::default(),
            vain_places: 0,
            queued: 0,
            held: 0,
            lent: 0,
            start: Instant::now(),
            next_id: NonZeroU64::MIN,
            next_first: -1,
            next_last: 0,
            finished: false,
        }
    }

    /// There is nothing to pop, and nothing can be without the queue hearing of it.
    #[inline(always)]
    pub(crate) fn is_idle(&self) -> bool {
        self.queued == self.held && self.lent == 0
    }

    /// Unlike [`is_idle`](Fair::is_idle), this looks at what is lent.
    pub(crate) fn nothing_to_pop(&self) -> bool {
        self.len() == self.held
    }

    /// There will never be anything to pop.
    pub(crate) fn is_exhausted(&self) -> bool {
        self.finished && self.queued == 0 && self.lent == 0
    }

    pub(crate) fn len(&self) -> usize {
        if self.lent == 0 {
            return self.queued;
        }
        // What is lent is ready.
        let lent = self.ready.iter().filter_map(|place| {
            let slot = self.slots.get(place.slot)?;
            (slot.stamp == place.stamp && slot.lent).then(|| slot.lane.len())
        });
        self.queued + lent.sum::<usize>()
    }

    pub(crate) fn finished(&self) -> bool {
        self.finished
    }

    /// A finished queue hands out the id of a producer that is closed already.
    pub(crate) fn register(&mut self, mode: Mode, lane: Arc<Lane<T>>) -> Key {
        let id = ProducerId(self.next_id);
        self.next_id = self.next_id.saturating_add(1);
        if self.finished {
            return Key { id, slot: NONE };
        }
        let stamp = self.next_first;
        self.next_first -= 1;
        let slot = self.slots.insert(Slot {
            id,
            mode,
            stamp,
            placed: false,
            lent: false,
            hooked: lane.hook().is_some(),
            items: VecDeque::new(),
            warm: false,
            in_progress: 0,
            served: 0,
            last_served: 0,
            lane,
        });
        Key { id, slot }
    }

    #[inline(always)]
    pub(crate) fn push(&mut self, key: Key, item: T) -> Result<Accepted, Refused<T>> {
        if self.finished {
            return Err(Refused::Closed(item));
        }
        let Some(slot) = self.slots.get_mut(key.slot).filter(|slot| slot.id == key.id) else {
            return Err(Refused::Closed(item));
        };
        let mut item = item;
        if slot.lent {
            // Since this push was told otherwise, and waited for the queue.
            item = match slot.lane.offer(item) {
                Offer::NotLent(item) => item,
                Offer::Full(item) => return Err(Refused::Full(item)),
                Offer::Accepted { suspended } => {
                    return Ok(Accepted { suspended, was_idle: false });
                }
            };
        } else if slot.mode.suspends(slot.items.len(), slot.in_progress as usize) {
            return Err(Refused::Full(item));
        }
        let held = slot.holds_back();
        if held {
            self.held += 1;
        } else if !slot.placed {
            slot.placed = true;
            self.ready.insert(Place { stamp: slot.stamp, slot: key.slot });
        } else if slot.items.is_empty() {
            self.vain_places -= 1;
        }
        if slot.items.capacity() == 0 {
            slot.items = self.spare.pop().unwrap_or_else(|| VecDeque::with_capacity(BUFFER));
        }
        slot.items.push_back(item);
        let suspended = slot.mode.suspends(slot.items.len(), slot.in_progress as usize);
        self.queued += 1;
        let was_idle = !held && self.queued - self.held == 1 && self.lent == 0;
        Ok(Accepted { suspended, was_idle })
    }

    /// Lends a producer's items to its lane, if it has any and if there may be more of them.
    pub(crate) fn lend(&mut self, key: Key) {
        if self.finished {
            return;
        }
        let Some(slot) = self.slots.get_mut(key.slot).filter(|slot| slot.id == key.id) else {
            return;
        };
        let Mode::UpTo(limit) = slot.mode else {
            return;
        };
        if slot.lent || slot.items.is_empty() {
            return;
        }
        let items = mem::take(&mut slot.items);
        self.queued -= items.len();
        slot.lane.lend(Loan { items, limit });
        slot.lent = true;
        self.lent += 1;
    }

    /// Ends a loan, if there is one. The producer's place may be in vain from now on.
    fn take_back(&mut self, key: Key) {
        let Some(slot) = self.slots.get_mut(key.slot).filter(|slot| slot.id == key.id && slot.lent)
        else {
            return;
        };
        slot.lent = false;
        self.lent -= 1;
        let items = slot.lane.take_back().map(|loan| loan.items).unwrap_or_default();
        self.vain_places += usize::from(items.is_empty());
        self.queued += items.len();
        slot.items = items;
        if slot.items.is_empty() {
            spare(&mut self.spare, &mut slot.items, self.ready.len());
        }
    }

    fn take_all_back(&mut self) {
        for index in 0..self.slots.end() {
            if self.lent == 0 {
                return;
            }
            if let Some(slot) = self.slots.get(index) {
                self.take_back(Key { id: slot.id, slot: index });
            }
        }
    }

    /// `now` is what the producer's `last_served` will say.
    #[inline(always)]
    pub(crate) fn pop(&mut self, now: Option<Instant>) -> Option<Taken<T>> {
        if self.is_idle() {
            return None;
        }
        if self.warm.len() > WARM {
            self.cool();
        }
        loop {
            let place = self.ready.pop_first()?;
            let slot = match self.slots.get_mut(place.slot) {
                Some(slot) if slot.stamp == place.stamp && slot.is_ready() => slot,
                gone_or_idle => {
                    self.vain_places -= 1;
                    if let Some(idle) = gone_or_idle.filter(|slot| slot.stamp == place.stamp) {
                        idle.placed = false;
                    }
                    continue;
                }
            };
            let (item, resumed);
            if slot.lent {
                match slot.lane.pop() {
                    Ok(from_lane) => {
                        item = from_lane.item;
                        resumed = from_lane.resumed;
                    }
                    Err(ended) => {
                        slot.lent = false;
                        slot.placed = false;
                        self.lent -= 1;
                        if let Some(mut loan) = ended {
                            spare(&mut self.spare, &mut loan.items, self.ready.len());
                        }
                        continue;
                    }
                }
            } else {
                // An item that is popped in mode `OneInProgress` is in progress, and its producer as
                // suspended as before.
                resumed = match slot.mode {
                    Mode::UpTo(limit) | Mode::Serial(limit) => slot.items.len() == limit.get(),
                    Mode::OneInProgress => false,
                };
                item = slot.items.pop_front()?;
                self.queued -= 1;
                if slot.items.is_empty() && !slot.warm {
                    slot.warm = true;
                    self.warm.push_back(place.slot);
                }
            }
            let in_progress = slot.mode.counts_progress();
            slot.in_progress += u32::from(in_progress);
            if slot.holds_back() {
                self.held += slot.items.len();
            }
            slot.served += 1;
            if let Some(now) = now {
                slot.last_served =
                    now.saturating_duration_since(self.start).as_nanos().max(1) as u64;
            }
            slot.stamp = self.next_last;
            self.next_last += 1;
            slot.placed = slot.is_ready();
            if slot.placed {
                self.ready.insert(Place { stamp: slot.stamp, slot: place.slot });
            }
            return Some(Taken {
                item,
                producer: Key { id: slot.id, slot: place.slot },
                in_progress,
                resumed: resumed.then(|| slot.resume()),
                more: !self.is_idle(),
            });
        }
    }

    /// Takes the buffer from the producer that has been empty for longest, if it still is.
    fn cool(&mut self) {
        // Those that were spared when more producers were busy than are now.
        self.spare.truncate(WARM + self.ready.len());
        if self.spare.capacity() > 4 * (WARM + self.ready.len()) {
            self.spare.shrink_to(2 * (WARM + self.ready.len()));
        }
        let coldest = self.warm.pop_front().and_then(|index| self.slots.get_mut(index));
        if let Some(slot) = coldest {
            slot.warm = false;
            if slot.items.is_empty() {
                spare(&mut self.spare, &mut slot.items, self.ready.len());
            }
        }
    }

    /// An item that was popped as `in_progress` is finished.
    #[inline(always)]
    pub(crate) fn done(&mut self, key: Key) -> Changed {
        match self.slot_mut(key) {
            Some(slot) if slot.holds_back() => self.change(key, |slot| slot.in_progress -= 1),
            Some(slot) => {
                let was_suspended = slot.suspended();
                slot.in_progress -= 1;
                Changed { resumed: slot.resumed(was_suspended), was_idle: false }
            }
            None => Changed { resumed: None, was_idle: false },
        }
    }

    pub(crate) fn set_mode(&mut self, key: Key, mode: Mode) -> Changed {
        self.take_back(key);
        self.change(key, |slot| slot.mode = mode)
    }

    /// Makes a change that may begin or end that a producer's items are held back. They are not
    /// lent.
    fn change(&mut self, key: Key, change: impl FnOnce(&mut Slot<T>)) -> Changed {
        let was_idle = self.is_idle();
        let Some(slot) = self.slots.get_mut(key.slot).filter(|slot| slot.id == key.id) else {
            return Changed { resumed: None, was_idle: false };
        };
        let was_suspended = slot.suspended();
        let was_ready = slot.is_ready();
        let was_held = slot.holds_back();
        change(slot);
        let resumed = slot.resumed(was_suspended);
        if was_held {
            self.held -= slot.items.len();
        }
        if slot.holds_back() {
            self.held += slot.items.len();
        }
        match (was_ready, slot.is_ready()) {
            (false, true) if slot.placed => self.vain_places -= 1,
            (false, true) => {
                slot.placed = true;
                self.ready.insert(Place { stamp: slot.stamp, slot: key.slot });
            }
            (true, false) => self.vain_places += 1,
            _ => {}
        }
        Changed { resumed, was_idle: was_idle && !self.is_idle() }
    }

    /// Takes the queued items of one producer, which keeps its place in the order.
    pub(crate) fn clear(&mut self, key: Key) -> Removed<T> {
        self.take_back(key);
        let Some(slot) = self.slots.get_mut(key.slot).filter(|slot| slot.id == key.id) else {
            return Removed { items: Vec::new(), resumed: None, _lane: None };
        };
        let was_suspended = slot.suspended();
        self.vain_places += usize::from(slot.placed && slot.is_ready());
        let items: Vec<_> = mem::take(&mut slot.items).into();
        self.queued -= items.len();
        if slot.holds_back() {
            self.held -= items.len();
        }
        let resumed = slot.resumed(was_suspended);
        self.forget_vain_places();
        Removed { items, resumed, _lane: None }
    }

    /// Takes a producer out, and its queued items with it.
    pub(crate) fn remove(&mut self, key: Key) -> Removed<T> {
        self.take_back(key);
        let was_suspended = self.suspended(key);
        let mut removed = self.clear(key);
        if self.slot_mut(key).is_some()
            && let Some(slot) = self.slots.remove(key.slot)
        {
            if was_suspended && removed.resumed.is_none() {
                removed.resumed = Some(slot.resume());
            }
            removed._lane = Some(slot.lane);
        }
        removed
    }

    /// No more pushes and registrations; what is queued can still be popped.
    pub(crate) fn finish(&mut self) {
        self.take_all_back();
        self.finished = true;
    }

    /// Takes every producer and every item out, the items in the order in which they would have
    /// been popped.
    pub(crate) fn close(&mut self) -> Remains<T> {
        self.take_all_back();
        self.finished = true;
        let mut remains = Remains {
            items: Vec::with_capacity(self.queued),
            resumed: Vec::new(),
            _lanes: Vec::new(),
        };
        for index in 0..self.slots.end() {
            if let Some(slot) = self.slots.get(index).filter(|slot| slot.suspended()) {
                remains.resumed.push((slot.id, slot.resume()));
            }
        }
        self.hold_nothing_back();
        while let Some(taken) = self.pop(None) {
            remains.items.push((taken.producer.id, taken.item));
        }
        for index in 0..self.slots.end() {
            if let Some(slot) = self.slots.remove(index) {
                remains._lanes.push(slot.lane);
            }
        }
        self.slots = Slab::new();
        self.spare = Vec::new();
        self.warm = VecDeque::new();
        self.ready = Ready::default();
        self.vain_places = 0;
        remains
    }

    fn hold_nothing_back(&mut self) {
        for index in 0..self.slots.end() {
            let Some(Slot { id, mode: Mode::Serial(limit), .. }) = self.slots.get(index) else {
                continue;
            };
            let (key, mode) = (Key { id: *id, slot: index }, Mode::UpTo(*limit));
            let _ = self.change(key, |slot| slot.mode = mode);
        }
    }

    #[inline(always)]
    pub(crate) fn suspended(&self, key: Key) -> bool {
        self.slots.get(key.slot).is_some_and(|slot| slot.id == key.id && slot.suspended())
    }

    pub(crate) fn contains(&self, key: Key) -> bool {
        self.slots.get(key.slot).is_some_and(|slot| slot.id == key.id)
    }

    pub(crate) fn stats(&self, key: Key) -> Option<ProducerStats> {
        self.slots.get(key.slot).filter(|slot| slot.id == key.id).map(|slot| slot.stats(self.start))
    }

    /// The producers in some slots from `start` on, and where to go on; `None` at the end.
    pub(crate) fn stats_from(&self, start: u32, into: &mut Vec<ProducerStats>) -> Option<u32> {
        const SLOTS_AT_A_TIME: u32 = 64;
        let end = self.slots.end().min(start.saturating_add(SLOTS_AT_A_TIME));
        into.extend(
            (start..end)
                .filter_map(|index| self.slots.get(index))
                .map(|slot| slot.stats(self.start)),
        );
        (end < self.slots.end()).then_some(end)
    }

    #[inline(always)]
    fn slot_mut(&mut self, key: Key) -> Option<&mut Slot<T>> {
        self.slots.get_mut(key.slot).filter(|slot| slot.id == key.id)
    }

    /// Producers that push and go away while nobody pops must not grow `ready`. Waiting until half
    /// of it is in vain makes the sweep's cost per operation constant.
    fn forget_vain_places(&mut self) {
        const NOT_WORTH_IT: usize = 32;
        if self.vain_places < NOT_WORTH_IT || self.vain_places < self.ready.len() / 2 {
            return;
        }
        let slots = &mut self.slots;
        self.ready.retain(|place| match slots.get_mut(place.slot) {
            Some(slot) if slot.stamp == place.stamp => {
                slot.placed = slot.is_ready();
                slot.placed
            }
            _ => false,
        });
        self.vain_places = 0;
    }
}

/// Keeps the buffer of a producer that has nothing queued, unless it is an unusually large one or
/// there are enough for those that are `ready` now: memory is to follow the load down again.
#[inline(always)]
fn spare<T>(spare: &mut Vec<VecDeque<T>>, items: &mut VecDeque<T>, ready: usize) {
    let items = mem::take(items);
    if (1..=BUFFER).contains(&items.capacity()) && spare.len() < WARM + ready {
        spare.push(items);
    }
}
