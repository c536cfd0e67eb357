// SPDX-License-Identifier: MIT OR Apache-2.0
//! The pace of long requests: those of one user are spread over time, so that others find the server listening.
//!
//! QEMU reads its monitor byte by byte, and answers nobody meanwhile. No order among the requests that wait helps against
//! that: a request that comes while a long one is read waits for its end. So a long request leaves its user a debt of time, in
//! proportion to its bytes, which time alone pays. While the debt is above a bound, the next long request of that user is
//! held here, and all others go on. One that is out-of-band cannot be held among in-band ones: it is refused.
//!
//! A short request makes no debt and is never held: any user may send short ones in turn with others, and one with a debt
//! takes no more from others by them. Nor is a request held on account of nobody: while no other user has sent
//! anything for a while, no debt is made, and nothing is held.
//!
//! A client has at most one request here, which is charged to it like any that waits. A user is forgotten when its debt is paid.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use crate::io::Owner;

/// Bytes of a request that make no debt. Most commands have fewer, and reading so many takes a few milliseconds at most.
const FREE_BYTES: usize = 256;

/// How long QEMU takes to read a byte while its main loop is busy. It takes a third of that when it is not.
const READING: Duration = Duration::from_micros(10);

/// How many times as long as reading a request its debt lasts: a user's long requests take a tenth of the time, and in the
/// rest of it nobody meets one.
const PARTS: u32 = 10;

/// The debt with which a user's next long request is sent all the same. It is that of some 10 KB, and so of all that a manager
/// sends to start a machine.
const MOST_DEBT: Duration = Duration::from_secs(1);

/// How long after its last request a user counts as one that others are held for: what monitors a machine asks every few
/// seconds.
const PRESENT: Duration = Duration::from_secs(5);

/// Debts of users, and their requests of type `R` that are held.
pub(super) struct Pace<R> {
    /// What a byte adds to a debt.
    per_byte: Duration,
    users: HashMap<Owner, User<R>>,
    /// The users of which nothing is held, by when their debts are paid: then they are forgotten.
    paying: BTreeSet<(Instant, Owner)>,
    /// The other ones of `users`, by the same.
    waiting: BTreeSet<(Instant, Owner)>,
    /// How many requests are held.
    held: usize,
    /// The user that has sent something last, and when.
    latest: Option<(Owner, Instant)>,
    /// The same for the last one that was another user.
    other: Option<(Owner, Instant)>,
}

struct User<R> {
    /// When its debt is paid.
    paid_at: Instant,
    /// By their numbers, which are in the order in which they came.
    held: BTreeMap<u64, R>,
}

impl<R> User<R> {
    /// One without a debt.
    fn new(now: Instant) -> User<R> {
        User { paid_at: now, held: BTreeMap::new() }
    }
}

impl<R> Pace<R> {
    /// For a server that reads as QEMU does.
    pub(super) fn of_qemu() -> Pace<R> {
        Pace::new(READING * PARTS)
    }

    /// For a server that need not be spared: nothing is ever held.
    pub(super) fn unbounded() -> Pace<R> {
        Pace::new(Duration::ZERO)
    }

    fn new(per_byte: Duration) -> Pace<R> {
        Pace {
            per_byte,
            users: HashMap::new(),
            paying: BTreeSet::new(),
            waiting: BTreeSet::new(),
            held: 0,
            latest: None,
            other: None,
        }
    }

    /// Whether a request of this length may not be sent now.
    pub(super) fn is_too_soon(&self, user: Owner, bytes: usize, now: Instant) -> bool {
        // Nor is it to overtake those that are held.
        let waits = |of: &User<R>| !of.held.is_empty() || self.due(user, of.paid_at) > Some(now);
        !self.debt_for(bytes).is_zero() && self.users.get(&user).is_some_and(waits)
    }

    /// Holds a request that may not be sent now, under this number.
    pub(super) fn hold(&mut self, user: Owner, number: u64, request: R, now: Instant) {
        let of = self.users.entry(user).or_insert_with(|| User::new(now));
        if of.held.is_empty() {
            self.paying.remove(&(of.paid_at, user));
            self.waiting.insert((of.paid_at, user));
        }
        self.held += 1;
        of.held.insert(number, request);
    }

    /// Notes that a user has sent a request of this length.
    pub(super) fn sent(&mut self, user: Owner, bytes: usize, now: Instant) {
        self.forget(now);
        let is_alone = self.others_until(user).is_none_or(|until| until <= now);
        if self.latest.is_some_and(|(latest, _)| latest != user) {
            self.other = self.latest;
        }
        self.latest = Some((user, now));
        let debt = self.debt_for(bytes);
        if debt.is_zero() || is_alone {
            return;
        }
        let of = self.users.entry(user).or_insert_with(|| User::new(now));
        let place = match of.held.is_empty() {
            true => &mut self.paying,
            false => &mut self.waiting,
        };
        place.remove(&(of.paid_at, user));
        of.paid_at = of.paid_at.max(now) + debt;
        place.insert((of.paid_at, user));
    }

    /// Takes a request that was held and whose turn may come now.
    pub(super) fn next(&mut self, now: Instant) -> Option<R> {
        let (due, user) = self.first_due()?;
        if due > Some(now) {
            return None;
        }
        let (&number, _) = self.users.get(&user)?.held.first_key_value()?;
        self.take(user, number)
    }

    /// When [`next`](Pace::next) is to be called again, if it returns nothing before.
    pub(super) fn timer(&self, now: Instant) -> Option<Instant> {
        let (due, _) = self.first_due()?;
        due.filter(|&at| now < at)
    }

    /// Takes the request that is held under this number.
    pub(super) fn take(&mut self, user: Owner, number: u64) -> Option<R> {
        let of = self.users.get_mut(&user)?;
        let taken = of.held.remove(&number)?;
        self.held -= 1;
        if of.held.is_empty() {
            self.waiting.remove(&(of.paid_at, user));
            self.paying.insert((of.paid_at, user));
        }
        Some(taken)
    }

    /// Takes all that is held, and forgets all debts.
    pub(super) fn take_all(&mut self) -> impl Iterator<Item = R> + use<R> {
        let all = std::mem::replace(self, Pace::new(self.per_byte));
        all.users.into_values().flat_map(|of| of.held.into_values())
    }

    /// How many requests are held.
    pub(super) fn len(&self) -> usize {
        self.held
    }

    /// What is held, the requests of each user in their order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &R> {
        self.users.values().flat_map(|of| of.held.values())
    }

    /// The debt that a request of this length makes.
    fn debt_for(&self, bytes: usize) -> Duration {
        let bytes = u32::try_from(bytes.saturating_sub(FREE_BYTES)).unwrap_or(u32::MAX);
        self.per_byte * bytes
    }

    /// Until when there are other users for which this one is held; `None` if there have not been any.
    fn others_until(&self, user: Owner) -> Option<Instant> {
        let other = self.latest.filter(|&(latest, _)| latest != user).or(self.other);
        other.map(|(_, at)| at + PRESENT)
    }

    /// When the next long request of a user may be sent whose debt is paid then; `None` if it may be at any time.
    fn due(&self, user: Owner, paid_at: Instant) -> Option<Instant> {
        let few = paid_at.checked_sub(MOST_DEBT).unwrap_or(paid_at);
        self.others_until(user).map(|until| until.min(few))
    }

    /// The user whose request that is held is due first, and when.
    fn first_due(&self) -> Option<(Option<Instant>, Owner)> {
        // For all users but the latest one, the same other user counts: so the smallest debt decides among them.
        let of_latest = self.latest.and_then(|(user, _)| {
            let of = self.users.get(&user)?;
            (!of.held.is_empty()).then_some((of.paid_at, user))
        });
        let candidates = self.waiting.iter().take(2).copied().chain(of_latest);
        candidates.map(|(paid_at, user)| (self.due(user, paid_at), user)).min()
    }

    /// Forgets the users that have no debt any more.
    fn forget(&mut self, now: Instant) {
        while let Some(&(paid_at, user)) = self.paying.first()
            && paid_at <= now
        {
            self.paying.pop_first();
            self.users.remove(&user);
        }
    }
}

#[cfg(test)]
mod tests;
