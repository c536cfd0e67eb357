// SPDX-License-Identifier: MIT OR Apache-2.0
//! What clients take of the server, charged to each client, to its user and to the whole server.
//!
//! A [`Charge`] is a value that gives back what it has taken when it is dropped. Limits are looked at where a charge is
//! made, and nowhere else.

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::limits::{Limits, Quota};
use crate::io::{Notice, Owner, Registration, Token};

/// What can be charged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Resource {
    /// Bytes that are kept: of incomplete messages, of requests that wait, of output that is unsent.
    Bytes,
    /// In-band requests that wait or are executed.
    Requests,
    /// Descriptors that came with messages and have not been closed or handed out.
    Descriptors,
    /// Clients.
    Monitors,
}

const RESOURCES: usize = 4;

/// Connections of one user's clients that have ended and are still being closed, before more of that user are refused:
/// descriptors that a client has passed and nobody has received are closed with its connection, which may take as long as
/// the client likes. Those of honest clients are closed at once.
const CLOSING_PER_USER: usize = 64;

/// Likewise of those who were never let in at one listener, together, before nobody is accepted there any more.
const CLOSING_OF_STRANGERS: usize = 64;

/// What several clients take together, or one of them.
struct Account {
    quota: Quota,
    used: [AtomicUsize; RESOURCES],
    waiting: Waiting,
}

/// Sessions that wait for a place for a request, in turn.
#[derive(Default)]
struct Waiting {
    /// Whether `line` has anybody, for a look without its lock.
    any: AtomicBool,
    line: Mutex<Line>,
}

/// Nobody is in more than one of them. `members` are exactly those in `order`.
#[derive(Default)]
struct Line {
    order: VecDeque<Token>,
    members: HashSet<Token>,
    /// Each has a place kept for it, and has been told.
    offered: HashSet<Token>,
}

impl Waiting {
    fn any(&self) -> bool {
        self.any.load(Ordering::SeqCst)
    }

    fn change<T>(&self, change: impl FnOnce(&mut Line) -> T) -> T {
        let mut line = lock(&self.line);
        let changed = change(&mut line);
        let any = !line.order.is_empty() || !line.offered.is_empty();
        self.any.store(any, Ordering::SeqCst);
        changed
    }

    fn add(&self, token: Token) {
        self.change(|line| {
            if line.members.insert(token) {
                line.order.push_back(token);
            }
        });
    }

    /// Takes the offer back that was made to this session, if one was.
    fn take_offer(&self, token: Token) -> bool {
        self.any() && self.change(|line| line.offered.remove(&token))
    }

    /// Forgets a session.
    fn withdraw(&self, token: Token) {
        if self.any() {
            self.change(|line| {
                line.offered.remove(&token);
                if line.members.remove(&token) {
                    line.order.retain(|&waiting| waiting != token);
                }
            });
        }
    }

    /// Offers a place to the session that has waited for the longest, if there is one besides those that are `used` or
    /// kept for others.
    fn offer(&self, used: usize, limit: usize) -> Option<Token> {
        self.change(|line| {
            if used.saturating_add(line.offered.len()) >= limit {
                return None;
            }
            let next = line.order.pop_front()?;
            line.members.remove(&next);
            line.offered.insert(next);
            Some(next)
        })
    }
}

impl Account {
    fn new(quota: Quota) -> Arc<Account> {
        Arc::new(Account { quota, used: Default::default(), waiting: Waiting::default() })
    }

    fn limit(&self, what: Resource) -> usize {
        match what {
            Resource::Bytes => self.quota.bytes,
            Resource::Requests => self.quota.requests,
            Resource::Descriptors => self.quota.descriptors,
            Resource::Monitors => self.quota.monitors,
        }
    }

    fn used(&self, what: Resource) -> usize {
        self.used[what as usize].load(Ordering::SeqCst)
    }

    /// Takes `amount` if that is within the limit.
    fn try_take(&self, what: Resource, amount: usize) -> bool {
        let used = &self.used[what as usize];
        let within =
            used.fetch_add(amount, Ordering::SeqCst).saturating_add(amount) <= self.limit(what);
        if !within {
            used.fetch_sub(amount, Ordering::SeqCst);
        }
        within
    }

    fn give_back(&self, what: Resource, amount: usize) {
        self.used[what as usize].fetch_sub(amount, Ordering::SeqCst);
    }
}

/// The accounts of users: of those of one server, or of all servers of an engine.
pub(crate) struct Users {
    quota: Quota,
    accounts: Mutex<HashMap<String, Weak<Account>>>,
}

impl Users {
    pub(crate) fn new(quota: Quota) -> Users {
        Users { quota, accounts: Mutex::default() }
    }

    /// `None` if there is no limit.
    fn account_of(&self, user: &str) -> Option<Arc<Account>> {
        if self.quota == Quota::UNLIMITED {
            return None;
        }
        let mut accounts = lock(&self.accounts);
        if let Some(account) = accounts.get(user).and_then(Weak::upgrade) {
            return Some(account);
        }
        // Only when the table would grow: each user is looked at once for each time the table doubles.
        if accounts.len() == accounts.capacity() {
            accounts.retain(|_, account| account.strong_count() > 0);
        }
        let account = Account::new(self.quota);
        accounts.insert(user.to_owned(), Arc::downgrade(&account));
        Some(account)
    }
}

/// The accounts of a server.
pub(crate) struct Accounts {
    server: Arc<Account>,
    limits: Limits,
    users: Users,
    /// Of all servers of the engine.
    users_of_all: Arc<Users>,
    /// Connections that are still being closed; nowhere zero.
    closing: Mutex<HashMap<Closer, usize>>,
    /// Texts that are kept for several clients at a time, by where they are, and for how many.
    shared: Mutex<HashMap<usize, usize>>,
    /// Of the server.
    registration: Arc<Registration>,
    /// The loop has been told that there is too much, and has not dealt with it yet.
    excess: AtomicBool,
}

impl Accounts {
    pub(crate) fn new(
        limits: &Limits,
        users_of_all: &Arc<Users>,
        registration: Arc<Registration>,
    ) -> Arc<Accounts> {
        Arc::new(Accounts {
            server: Account::new(limits.per_server),
            limits: *limits,
            users: Users::new(limits.per_user),
            users_of_all: Arc::clone(users_of_all),
            closing: Mutex::default(),
            shared: Mutex::default(),
            registration,
            excess: AtomicBool::new(false),
        })
    }

    /// Opens the ledger of one more client of a user. An error names the limit that does not allow it.
    pub(crate) fn admit(self: &Arc<Self>, user: &str) -> Result<Arc<Ledger>, String> {
        let owner = owner_of(user);
        let closing = self.closing(Closer::User(owner));
        if closing >= CLOSING_PER_USER {
            return Err(format!("{closing} connections of {user} are still being closed"));
        }
        let account = self.users.account_of(user);
        let of_all = self.users_of_all.account_of(user);
        let upper = [Some(&self.server), account.as_ref(), of_all.as_ref()];
        for (index, account) in upper.into_iter().enumerate() {
            let is_full = |account: &&Arc<Account>| !account.try_take(Resource::Monitors, 1);
            let Some(full) = account.filter(is_full) else { continue };
            let taken = upper[..index].iter().flatten();
            taken.for_each(|account| account.give_back(Resource::Monitors, 1));
            let most = full.quota.monitors;
            return Err(match index {
                0 => format!("there are {most} clients already"),
                1 => format!("there are {most} clients of {user} already"),
                _ => format!("there are {most} clients of {user} already, at all servers together"),
            });
        }
        Ok(Arc::new(Ledger {
            accounts: Arc::clone(self),
            user: account,
            user_of_all: of_all,
            owner,
            descriptors: AtomicUsize::new(0),
            shared: AtomicUsize::new(0),
            held: Mutex::default(),
        }))
    }

    /// The loop deals with too many bytes now: it is told again if there are more.
    pub(crate) fn take_excess(&self) {
        self.excess.store(false, Ordering::SeqCst);
    }

    /// Charges a connection of a client that was not let in, until it is closed: to its user if that may connect, and else, or
    /// if the user has no room, to the listener that it came from, at which nobody is accepted when it has too many.
    pub(crate) fn close_refused(
        self: &Arc<Self>,
        user: Option<Owner>,
        listener: Option<usize>,
    ) -> BeingClosed {
        let user = user.map(Closer::User).filter(|&user| self.closing(user) < CLOSING_PER_USER);
        self.close(user.unwrap_or(Closer::Strangers(listener)))
    }

    /// Why nobody can be accepted at a listener at the moment, if so: who is refused then could not be got rid of.
    pub(crate) fn cannot_refuse(&self, listener: Option<usize>) -> Option<String> {
        let closing = self.closing(Closer::Strangers(listener));
        (closing >= CLOSING_OF_STRANGERS)
            .then(|| format!("{closing} connections that were refused are still being closed"))
    }

    fn close(self: &Arc<Self>, closer: Closer) -> BeingClosed {
        *lock(&self.closing).entry(closer).or_default() += 1;
        BeingClosed { accounts: Arc::clone(self), closer }
    }

    fn closing(&self, closer: Closer) -> usize {
        lock(&self.closing).get(&closer).copied().unwrap_or(0)
    }

    /// Bytes that are kept for all clients.
    pub(crate) fn bytes(&self) -> usize {
        self.server.used(Resource::Bytes)
    }

    fn keep_shared(&self, text: &Arc<str>) {
        let mut shared = lock(&self.shared);
        let holders = shared.entry(Arc::as_ptr(text).addr()).or_default();
        *holders += 1;
        if *holders == 1 {
            self.take_bytes(&self.server, text.len());
        }
    }

    fn drop_shared(&self, text: &Arc<str>) {
        let mut shared = lock(&self.shared);
        let address = Arc::as_ptr(text).addr();
        let Some(holders) = shared.get_mut(&address) else { return };
        *holders -= 1;
        if *holders == 0 {
            shared.remove(&address);
            self.server.give_back(Resource::Bytes, text.len());
        }
    }

    fn take_bytes(&self, account: &Account, bytes: usize) {
        let before = account.used[Resource::Bytes as usize].fetch_add(bytes, Ordering::SeqCst);
        let is_too_much = before.saturating_add(bytes) > account.quota.bytes;
        if is_too_much && !self.excess.swap(true, Ordering::SeqCst) {
            self.registration.post(Notice::Excess);
        }
    }
}

/// What one client takes.
pub(crate) struct Ledger {
    accounts: Arc<Accounts>,
    /// `None` if there is no limit for users.
    user: Option<Arc<Account>>,
    /// The same for all servers of the engine.
    user_of_all: Option<Arc<Account>>,
    /// Tells the user from others.
    owner: Owner,
    /// Charged until they are closed, also when the client has left.
    descriptors: AtomicUsize,
    /// Bytes of texts that others may keep, too.
    shared: AtomicUsize,
    held: Mutex<Charged>,
}

/// What the accounts of the user and the server have been charged for this client. All zero once `left`: from then on
/// nothing of this is charged or given back.
#[derive(Default)]
struct Charged {
    bytes: usize,
    requests: usize,
    left: bool,
}

impl Ledger {
    fn upper(&self) -> impl Iterator<Item = &Arc<Account>> {
        self.users().chain([&self.accounts.server])
    }

    fn users(&self) -> impl Iterator<Item = &Arc<Account>> {
        self.user.iter().chain(&self.user_of_all)
    }

    /// Those whose bytes count: for what all take, operators are told whether it is limited or not.
    fn upper_of_bytes(&self) -> impl Iterator<Item = &Arc<Account>> {
        let users = self.users().filter(|account| account.quota.bytes != usize::MAX);
        users.chain([&self.accounts.server])
    }

    /// Charges bytes, which never fails: whoever makes an account exceed its limit is dealt with by the loop.
    pub(crate) fn charge_bytes(self: &Arc<Self>, bytes: usize) -> Charge {
        let mut charge = Charge { ledger: Arc::clone(self), what: Resource::Bytes, amount: 0 };
        charge.set_bytes(bytes);
        charge
    }

    fn change_bytes(&self, before: usize, after: usize) {
        if before == after {
            return;
        }
        let mut held = lock(&self.held);
        if held.left {
            return;
        }
        held.bytes = held.bytes - before + after;
        for account in self.upper_of_bytes() {
            match after.checked_sub(before) {
                Some(more) => self.accounts.take_bytes(account, more),
                None => account.give_back(Resource::Bytes, before - after),
            }
        }
    }

    /// Charges one request, if there is a place for it that is not kept for somebody who has waited for longer. Otherwise
    /// `token` is among those that wait, and gets [`Notice::Room`] when a place is kept for it.
    pub(crate) fn charge_request(self: &Arc<Self>, token: Token) -> Option<Charge> {
        let mut held = lock(&self.held);
        if held.left {
            return None;
        }
        let mut taken: Vec<&Account> = Vec::new();
        for account in self.upper().filter(|account| account.quota.requests != usize::MAX) {
            let may = account.waiting.take_offer(token) || !account.waiting.any();
            if may && account.try_take(Resource::Requests, 1) {
                taken.push(account);
                continue;
            }
            account.waiting.add(token);
            for account in taken {
                account.give_back(Resource::Requests, 1);
                self.offer_room(account);
            }
            // A place that was given back before the token could be found.
            self.offer_room(account);
            return None;
        }
        held.requests += 1;
        drop(held);
        Some(Charge { ledger: Arc::clone(self), what: Resource::Requests, amount: 1 })
    }

    /// Whether there is a limit on requests at all.
    pub(crate) fn limits_requests(&self) -> bool {
        self.upper().any(|account| account.quota.requests != usize::MAX)
    }

    /// Keeps a text that other clients may keep, too. Its bytes are charged to the server once, however many keep it.
    pub(crate) fn keep_shared(&self, text: &Arc<str>) {
        self.shared.fetch_add(text.len(), Ordering::Relaxed);
        self.accounts.keep_shared(text);
    }

    /// Says that this client does not keep the text any more.
    pub(crate) fn drop_shared(&self, text: &Arc<str>) {
        self.shared.fetch_sub(text.len(), Ordering::Relaxed);
        self.accounts.drop_shared(text);
    }

    /// Whether so many descriptors would be within the limits. Only the loop receives any, so there is still room when
    /// it has received them.
    pub(crate) fn has_room_for_descriptors(&self, amount: usize) -> bool {
        let what = Resource::Descriptors;
        let own = self.descriptors.load(Ordering::SeqCst);
        own.saturating_add(amount) <= self.accounts.limits.descriptors
            && self
                .upper()
                .all(|account| account.used(what).saturating_add(amount) <= account.limit(what))
    }

    /// Charges descriptors that have come.
    pub(crate) fn charge_descriptors(self: &Arc<Self>, amount: usize) -> Charge {
        self.descriptors.fetch_add(amount, Ordering::SeqCst);
        for account in self.upper() {
            account.used[Resource::Descriptors as usize].fetch_add(amount, Ordering::SeqCst);
        }
        Charge { ledger: Arc::clone(self), what: Resource::Descriptors, amount }
    }

    /// The client has left: what is still kept for it will soon not be, and counts no more.
    pub(crate) fn leave(&self) {
        let mut held = lock(&self.held);
        if held.left {
            return;
        }
        held.left = true;
        let (bytes, requests) = (held.bytes, held.requests);
        (held.bytes, held.requests) = (0, 0);
        drop(held);
        for account in self.upper_of_bytes() {
            account.give_back(Resource::Bytes, bytes);
        }
        for account in self.upper() {
            account.give_back(Resource::Monitors, 1);
            self.give_back_requests(account, requests);
        }
    }

    fn give_back_requests(&self, account: &Account, requests: usize) {
        if account.quota.requests != usize::MAX && requests > 0 {
            account.give_back(Resource::Requests, requests);
            (0..requests).for_each(|_| self.offer_room(account));
        }
    }

    fn offer_room(&self, account: &Account) {
        if account.waiting.any()
            && let Some(token) =
                account.waiting.offer(account.used(Resource::Requests), account.quota.requests)
        {
            self.accounts.registration.mailbox().post(token, Notice::Room);
        }
    }

    /// Waits for no place any more, and leaves the one that may be kept to the next.
    pub(crate) fn withdraw(&self, token: Token) {
        for account in self.upper() {
            account.waiting.withdraw(token);
            self.offer_room(account);
        }
    }

    /// Bytes that are kept for this client.
    pub(crate) fn bytes(&self) -> usize {
        lock(&self.held).bytes + self.shared.load(Ordering::Relaxed)
    }

    /// Whether this client and those it shares a limit with take more bytes than they may.
    pub(crate) fn is_exceeded(&self) -> bool {
        self.upper().any(|account| account.used(Resource::Bytes) > account.quota.bytes)
    }

    /// Whose jobs those of this client are that run [aside](crate::io::close_aside).
    pub(crate) fn owner(&self) -> Owner {
        self.owner
    }

    /// Charges the connection of this client to its user until it is closed, though the client has left.
    pub(crate) fn close(&self) -> BeingClosed {
        self.accounts.close(Closer::User(self.owner))
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        self.leave();
    }
}

/// Whose jobs those of a user are that run [aside](crate::io::close_aside).
pub(crate) fn owner_of(user: &str) -> Owner {
    let mut hasher = DefaultHasher::new();
    user.hash(&mut hasher);
    hasher.finish()
}

/// Whom a connection is charged to while it is being closed.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Closer {
    /// The user of a client.
    User(Owner),
    /// Those who were not let in at a listener.
    Strangers(Option<usize>),
}

/// A connection that is being closed; dropped when that is done.
pub(crate) struct BeingClosed {
    accounts: Arc<Accounts>,
    closer: Closer,
}

impl Drop for BeingClosed {
    fn drop(&mut self) {
        let mut closing = lock(&self.accounts.closing);
        if let Some(connections) = closing.get_mut(&self.closer) {
            *connections -= 1;
            if *connections == 0 {
                closing.remove(&self.closer);
            }
        }
    }
}

/// Something that a client has taken, given back when this is dropped.
pub(crate) struct Charge {
    ledger: Arc<Ledger>,
    what: Resource,
    amount: usize,
}

impl Charge {
    /// Changes a charge of bytes.
    pub(crate) fn set_bytes(&mut self, bytes: usize) {
        debug_assert_eq!(self.what, Resource::Bytes);
        self.ledger.change_bytes(self.amount, bytes);
        self.amount = bytes;
    }

    pub(crate) fn amount(&self) -> usize {
        self.amount
    }

    pub(crate) fn ledger(&self) -> &Arc<Ledger> {
        &self.ledger
    }

    /// Splits off a part.
    pub(crate) fn split(&mut self, amount: usize) -> Charge {
        let amount = amount.min(self.amount);
        self.amount -= amount;
        Charge { ledger: Arc::clone(&self.ledger), what: self.what, amount }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        let ledger = &self.ledger;
        match self.what {
            Resource::Bytes => ledger.change_bytes(self.amount, 0),
            Resource::Requests => {
                let mut held = lock(&ledger.held);
                if !held.left {
                    held.requests -= self.amount;
                    drop(held);
                    let give_back = |account| ledger.give_back_requests(account, self.amount);
                    ledger.upper().map(|account| &**account).for_each(give_back);
                }
            }
            Resource::Descriptors => {
                ledger.descriptors.fetch_sub(self.amount, Ordering::SeqCst);
                for account in ledger.upper() {
                    account.give_back(Resource::Descriptors, self.amount);
                }
            }
            Resource::Monitors => {}
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::Mailbox;

    struct Site {
        mailbox: Arc<Mailbox>,
        accounts: Arc<Accounts>,
    }

    fn token(index: u32) -> Token {
        Token { index, generation: 0 }
    }

    impl Site {
        fn new(per_user: Quota, per_server: Quota) -> Site {
            Site::of_engine(per_user, per_server, &Arc::new(Users::new(Quota::UNLIMITED)))
        }

        fn of_engine(per_user: Quota, per_server: Quota, users_of_all: &Arc<Users>) -> Site {
            let mailbox = Arc::new(Mailbox::new().unwrap());
            let limits = Limits { per_user, per_server, ..Limits::default() };
            let registration = Registration::new(&mailbox);
            registration.set_token(token(0));
            let accounts = Accounts::new(&limits, users_of_all, registration);
            Site { mailbox, accounts }
        }

        fn admit(&self, user: &str) -> Arc<Ledger> {
            self.accounts.admit(user).unwrap()
        }

        fn notices(&self) -> Vec<(Token, Notice)> {
            let mut notices = Vec::new();
            self.mailbox.take(&mut notices);
            notices
        }
    }

    #[test]
    fn one_client_too_many_is_refused_until_another_leaves() {
        let two = Quota { monitors: 2, ..Quota::UNLIMITED };
        let three = Quota { monitors: 3, ..Quota::UNLIMITED };
        let site = Site::new(two, three);
        let first = site.admit("a");
        let _second = site.admit("a");
        let refused = |user| site.accounts.admit(user).err().unwrap();
        assert_eq!(refused("a"), "there are 2 clients of a already");
        let _third = site.admit("b");
        assert_eq!(refused("b"), "there are 3 clients already");
        drop(first);
        let _fourth = site.admit("b");
    }

    #[test]
    fn what_a_user_takes_of_one_server_it_cannot_take_of_another() {
        let two = Quota { monitors: 2, descriptors: 300, ..Quota::UNLIMITED };
        let users_of_all = Arc::new(Users::new(two));
        let site = || Site::of_engine(Quota::UNLIMITED, Quota::UNLIMITED, &users_of_all);
        let (one, other) = (site(), site());
        let (first, second) = (one.admit("a"), other.admit("a"));
        let refused = one.accounts.admit("a").err().unwrap();
        assert_eq!(refused, "there are 2 clients of a already, at all servers together");
        assert!(one.accounts.admit("b").is_ok(), "nothing is kept of who was refused");
        let all = first.charge_descriptors(253);
        assert!(!second.has_room_for_descriptors(253));
        assert!(other.admit("b").has_room_for_descriptors(253));
        drop(all);
        assert!(second.has_room_for_descriptors(253));
        drop(second);
        assert!(one.accounts.admit("a").is_ok());
        drop(first);
        drop(one);
        assert!(other.accounts.admit("a").is_ok());
    }

    #[test]
    fn who_leaves_connections_that_cannot_be_closed_is_refused_and_nobody_else() {
        let site = Site::new(Quota::UNLIMITED, Quota::UNLIMITED);
        let mut closing: Vec<_> = (0..CLOSING_PER_USER).map(|_| site.admit("a").close()).collect();
        let refused = site.accounts.admit("a").err().unwrap();
        assert_eq!(refused, "64 connections of a are still being closed");
        assert!(site.accounts.admit("b").is_ok());
        assert_eq!(site.accounts.cannot_refuse(None), None);
        closing.pop();
        assert!(site.accounts.admit("a").is_ok());
        drop(closing);
        assert!(lock(&site.accounts.closing).is_empty());
    }

    #[test]
    fn nobody_is_accepted_while_too_many_strangers_cannot_be_got_rid_of() {
        let site = Site::new(Quota::UNLIMITED, Quota::UNLIMITED);
        let accounts = &site.accounts;
        let mut closing: Vec<_> =
            (1..CLOSING_OF_STRANGERS).map(|_| accounts.close_refused(None, Some(0))).collect();
        assert_eq!(accounts.cannot_refuse(Some(0)), None);
        closing.push(accounts.close_refused(None, Some(0)));
        let why = "64 connections that were refused are still being closed";
        assert_eq!(accounts.cannot_refuse(Some(0)).as_deref(), Some(why));
        assert_eq!(accounts.cannot_refuse(Some(1)), None, "another listener");
        closing.pop();
        assert_eq!(accounts.cannot_refuse(Some(0)), None);
    }

    #[test]
    fn a_known_user_that_is_refused_is_charged_before_its_listener() {
        let site = Site::new(Quota::UNLIMITED, Quota::UNLIMITED);
        let accounts = &site.accounts;
        let close = |owner| accounts.close_refused(Some(owner), Some(0));
        let of_user: Vec<_> = (0..CLOSING_PER_USER).map(|_| close(7)).collect();
        assert_eq!(accounts.closing(Closer::Strangers(Some(0))), 0);
        let _beyond = close(7);
        assert_eq!(accounts.closing(Closer::Strangers(Some(0))), 1);
        let _other = close(8);
        drop(of_user);
        let of_users = [7, 8].map(|owner| accounts.closing(Closer::User(owner)));
        assert_eq!((of_users, accounts.closing(Closer::Strangers(Some(0)))), ([0, 1], 1));
    }

    #[test]
    fn room_for_requests_is_given_in_turn() {
        let site = Site::new(Quota::UNLIMITED, Quota { requests: 1, ..Quota::UNLIMITED });
        let (a, b, c) = (site.admit("a"), site.admit("b"), site.admit("c"));
        let charge = a.charge_request(token(1)).unwrap();
        assert!(b.charge_request(token(2)).is_none());
        assert!(c.charge_request(token(3)).is_none());
        assert_eq!(site.notices(), []);
        drop(charge);
        assert_eq!(site.notices(), [(token(2), Notice::Room)]);
        assert!(a.charge_request(token(1)).is_none(), "c has waited for longer");
        let charge = b.charge_request(token(2)).unwrap();
        drop(charge);
        assert_eq!(site.notices(), [(token(3), Notice::Room)]);
        c.leave();
        c.withdraw(token(3));
        assert_eq!(site.notices(), [(token(1), Notice::Room)]);
        assert!(a.charge_request(token(1)).is_some());
    }

    #[test]
    fn a_client_that_leaves_gives_room_to_others() {
        let site = Site::new(Quota::UNLIMITED, Quota { requests: 2, ..Quota::UNLIMITED });
        let (a, b) = (site.admit("a"), site.admit("b"));
        let charges: Vec<_> = (0..2).map(|_| a.charge_request(token(1)).unwrap()).collect();
        assert!(b.charge_request(token(2)).is_none());
        a.leave();
        assert_eq!(site.notices(), [(token(2), Notice::Room)]);
        let _two = [(); 2].map(|()| b.charge_request(token(2)).unwrap());
        drop(charges);
        assert!(b.charge_request(token(2)).is_none(), "nothing is given back twice");
    }

    #[test]
    fn bytes_are_too_many_for_a_user_or_for_all() {
        let site = Site::new(
            Quota { bytes: 10, ..Quota::UNLIMITED },
            Quota { bytes: 15, ..Quota::UNLIMITED },
        );
        let (a, b) = (site.admit("a"), site.admit("b"));
        let mut bytes = a.charge_bytes(10);
        assert!(!a.is_exceeded() && site.notices().is_empty());
        bytes.set_bytes(11);
        assert!(a.is_exceeded() && !b.is_exceeded());
        assert_eq!(site.notices(), [(token(0), Notice::Excess)]);
        bytes.set_bytes(12);
        assert_eq!(site.notices(), [], "once is enough");
        site.accounts.take_excess();
        bytes.set_bytes(9);
        let more = b.charge_bytes(7);
        assert!(a.is_exceeded() && b.is_exceeded() && !site.notices().is_empty(), "together");
        drop(more);
        assert!(!a.is_exceeded());
        assert_eq!(a.bytes(), 9);
        a.leave();
        assert_eq!(site.accounts.bytes(), 0);
        drop(bytes);
        assert_eq!(site.accounts.bytes(), 0);
    }

    #[test]
    fn a_shared_text_is_charged_once() {
        let site = Site::new(Quota::UNLIMITED, Quota { bytes: 15, ..Quota::UNLIMITED });
        let text: Arc<str> = "0123456789".into();
        let (a, b) = (site.admit("a"), site.admit("b"));
        a.keep_shared(&text);
        b.keep_shared(&text);
        assert_eq!((a.bytes(), b.bytes(), site.accounts.bytes()), (10, 10, 10));
        a.drop_shared(&text);
        assert_eq!((a.bytes(), b.bytes(), site.accounts.bytes()), (0, 10, 10));
        b.drop_shared(&text);
        assert_eq!(site.accounts.bytes(), 0);
    }

    #[test]
    fn a_client_and_its_user_pass_no_more_descriptors_than_they_may() {
        let site = Site::new(Quota { descriptors: 900, ..Quota::UNLIMITED }, Quota::UNLIMITED);
        let (a, also_a) = (site.admit("a"), site.admit("a"));
        let most = Limits::default().descriptors;
        assert!(a.has_room_for_descriptors(most) && !a.has_room_for_descriptors(most + 1));
        let _held = a.charge_descriptors(most);
        assert!(!a.has_room_for_descriptors(1), "it has as many as one client may");
        let left = 900 - most;
        assert!(also_a.has_room_for_descriptors(left));
        assert!(!also_a.has_room_for_descriptors(left + 1), "they are of the same user");
        assert!(site.admit("b").has_room_for_descriptors(most));
    }

    #[test]
    fn descriptors_are_charged_until_they_are_closed() {
        let site = Site::new(Quota::UNLIMITED, Quota { descriptors: 300, ..Quota::UNLIMITED });
        let (a, b) = (site.admit("a"), site.admit("b"));
        let mut all = a.charge_descriptors(253);
        assert!(!b.has_room_for_descriptors(253));
        let one = all.split(1);
        drop(all);
        a.leave();
        assert!(b.has_room_for_descriptors(253));
        let _more = b.charge_descriptors(253);
        assert!(!site.admit("c").has_room_for_descriptors(47));
        drop(one);
        assert!(site.admit("c").has_room_for_descriptors(47));
    }
}
