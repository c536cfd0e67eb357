// SPDX-License-Identifier: MIT OR Apache-2.0
//! What clients take of the server, and whether that is too much.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::limits::{Limits, Quota};
use crate::poller::Token;

/// What several clients take together.
struct Account {
    quota: Quota,
    monitors: AtomicUsize,
    bytes: AtomicUsize,
    requests: AtomicUsize,
    /// Who is to be read from when a request has been answered.
    waiting: Mutex<BTreeSet<Token>>,
}

impl Account {
    fn new(quota: Quota) -> Arc<Account> {
        Arc::new(Account {
            quota,
            monitors: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            requests: AtomicUsize::new(0),
            waiting: Mutex::default(),
        })
    }

    fn has_room(&self) -> bool {
        self.requests.load(Ordering::SeqCst) < self.quota.requests
    }

    fn counts_requests(&self) -> bool {
        self.quota.requests != usize::MAX
    }
}

/// The accounts of a server.
pub(crate) struct Usage {
    server: Arc<Account>,
    per_user: Quota,
    users: Mutex<HashMap<String, Weak<Account>>>,
    /// More bytes are kept than may be.
    excess: Arc<AtomicBool>,
}

impl Usage {
    pub(crate) fn new(limits: &Limits) -> Usage {
        Usage {
            server: Account::new(limits.per_server),
            per_user: limits.per_user,
            users: Mutex::default(),
            excess: Arc::default(),
        }
    }

    /// Opens a share for one more client of a user. An error says which limit is in the way.
    pub(crate) fn admit(&self, user: &str) -> Result<Share, String> {
        let account = self.account_of(user);
        let accounts = [Arc::clone(&self.server), account];
        let whose = ["clients", &format!("clients of {user}")];
        for (index, account) in accounts.iter().enumerate() {
            let limit = account.quota.monitors;
            if account.monitors.fetch_add(1, Ordering::SeqCst) >= limit {
                for counted in &accounts[..=index] {
                    counted.monitors.fetch_sub(1, Ordering::SeqCst);
                }
                return Err(format!("there are {limit} {} already", whose[index]));
            }
        }
        Ok(Share { accounts, kept: Mutex::default(), excess: Arc::clone(&self.excess) })
    }

    /// Whether more bytes have been kept than may be since this was last asked.
    pub(crate) fn take_excess(&self) -> bool {
        self.excess.load(Ordering::Acquire) && self.excess.swap(false, Ordering::AcqRel)
    }

    /// How many bytes are kept for all clients.
    pub(crate) fn bytes(&self) -> usize {
        self.server.bytes.load(Ordering::Relaxed)
    }

    fn account_of(&self, user: &str) -> Arc<Account> {
        if self.per_user == Quota::UNLIMITED {
            return Account::new(Quota::UNLIMITED);
        }
        let mut users = lock(&self.users);
        if let Some(account) = users.get(user).and_then(Weak::upgrade) {
            return account;
        }
        // Only here, where one is about to come that was not there.
        users.retain(|_, account| account.strong_count() > 0);
        let account = Account::new(self.per_user);
        users.insert(user.to_owned(), Arc::downgrade(&account));
        account
    }
}

/// What one client takes.
pub(crate) struct Share {
    /// Those of the server and of the user.
    accounts: [Arc<Account>; 2],
    kept: Mutex<Kept>,
    /// That of the server's [`Usage`].
    excess: Arc<AtomicBool>,
}

#[derive(Default)]
struct Kept {
    bytes: usize,
    left: bool,
}

impl Share {
    /// Counts one more request, until it is [answered](Share::answered).
    pub(crate) fn requested(&self) {
        for account in self.accounts.iter().filter(|account| account.counts_requests()) {
            account.requests.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Who is to be read from again, now that one request has been answered.
    pub(crate) fn answered(&self) -> Vec<Token> {
        let mut waiting = Vec::new();
        for account in self.accounts.iter().filter(|account| account.counts_requests()) {
            account.requests.fetch_sub(1, Ordering::SeqCst);
            waiting.extend(std::mem::take(&mut *lock(&account.waiting)));
        }
        waiting
    }

    /// Whether one more request may be read. If not, `token` is among those that are told when one
    /// has been answered.
    pub(crate) fn has_room(&self, token: Token) -> bool {
        self.accounts.iter().all(|account| {
            account.has_room() || {
                lock(&account.waiting).insert(token);
                // One may have been answered before it could be told.
                account.has_room()
            }
        })
    }

    /// Says that `after` bytes are kept for the client in place of `before`.
    pub(crate) fn replace(&self, before: usize, after: usize) {
        if before != after {
            let mut kept = lock(&self.kept);
            let more = after.wrapping_sub(before);
            kept.bytes = kept.bytes.wrapping_add(more);
            if !kept.left {
                self.add_bytes(more);
            }
        }
    }

    /// The client has left: what is still kept for it will soon not be, and counts no more.
    pub(crate) fn leave(&self) {
        let mut kept = lock(&self.kept);
        if !kept.left {
            kept.left = true;
            self.add_bytes(kept.bytes.wrapping_neg());
            for account in &self.accounts {
                account.monitors.fetch_sub(1, Ordering::SeqCst);
            }
        }
    }

    fn add_bytes(&self, more: usize) {
        for account in &self.accounts {
            let before = account.bytes.fetch_add(more, Ordering::AcqRel);
            if before.wrapping_add(more) > account.quota.bytes {
                self.excess.store(true, Ordering::Release);
            }
        }
    }

    pub(crate) fn bytes(&self) -> usize {
        lock(&self.kept).bytes
    }

    /// Whether too many bytes are kept for this client and those with whom it shares a quota.
    pub(crate) fn is_exceeded(&self) -> bool {
        let mut accounts = self.accounts.iter();
        accounts.any(|account| account.bytes.load(Ordering::Acquire) > account.quota.bytes)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.leave();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(per_user: Quota, per_server: Quota) -> Usage {
        Usage::new(&Limits { per_user, per_server, ..Limits::default() })
    }

    #[test]
    fn one_client_too_many_is_refused_until_another_leaves() {
        let two = Quota { monitors: 2, ..Quota::UNLIMITED };
        let three = Quota { monitors: 3, ..Quota::UNLIMITED };
        let usage = usage(two, three);
        let first = usage.admit("a").unwrap();
        let _second = usage.admit("a").unwrap();
        assert_eq!(usage.admit("a").err().unwrap(), "there are 2 clients of a already");
        let _third = usage.admit("b").unwrap();
        assert_eq!(usage.admit("b").err().unwrap(), "there are 3 clients already");
        drop(first);
        let _fourth = usage.admit("b").unwrap();
    }

    #[test]
    fn whoever_finds_no_room_for_a_request_is_told_when_there_is() {
        let usage = usage(
            Quota { requests: 1, ..Quota::UNLIMITED },
            Quota { requests: 2, ..Quota::UNLIMITED },
        );
        let (a, b, c) = (usage.admit("a"), usage.admit("b"), usage.admit("c"));
        let (a, b, c) = (a.unwrap(), b.unwrap(), c.unwrap());
        a.requested();
        assert!(!a.has_room(1));
        assert!(b.has_room(2));
        b.requested();
        assert!(!c.has_room(3), "for those of the server are as many as may be");
        assert_eq!(b.answered(), [3]);
        assert!(c.has_room(3));
        assert_eq!(a.answered(), [1]);
        assert!(a.has_room(1));
    }

    #[test]
    fn bytes_are_too_many_for_a_user_or_for_all() {
        let usage =
            usage(Quota { bytes: 10, ..Quota::UNLIMITED }, Quota { bytes: 15, ..Quota::UNLIMITED });
        let (a, b) = (usage.admit("a").unwrap(), usage.admit("b").unwrap());
        a.replace(0, 10);
        assert!(!a.is_exceeded() && !usage.take_excess());
        a.replace(10, 11);
        assert!(a.is_exceeded() && usage.take_excess() && !usage.take_excess());
        assert!(!b.is_exceeded(), "b is another user");
        a.replace(11, 9);
        b.replace(0, 7);
        assert!(a.is_exceeded() && b.is_exceeded() && usage.take_excess(), "together");
        drop(b);
        assert!(!a.is_exceeded());
        assert_eq!(a.bytes(), 9);
    }
}
