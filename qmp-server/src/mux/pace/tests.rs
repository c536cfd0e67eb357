// SPDX-License-Identifier: MIT OR Apache-2.0
use super::*;

const LONG: usize = 2000;
/// How long reading as many bytes takes.
const READ: Duration = Duration::from_millis(20);

const ONE: Owner = 1;
const OTHER: Owner = 2;

impl Pace<u64> {
    /// Returns a request if it may be sent, and holds it otherwise.
    fn admit(&mut self, user: Owner, number: u64, bytes: usize, now: Instant) -> Option<u64> {
        if !self.is_too_soon(user, bytes, now) {
            return Some(number);
        }
        self.hold(user, number, number, now);
        None
    }
}

/// A pace at which a user has sent so much that its next long request waits, and another user something short.
fn with_a_debt(now: Instant) -> Pace<u64> {
    let mut pace = Pace::of_qemu();
    pace.sent(OTHER, 10, now);
    while let Some(number) = pace.admit(ONE, 0, LONG, now) {
        assert_eq!(number, 0);
        pace.sent(ONE, LONG, now);
    }
    assert_eq!(pace.take(ONE, 0), Some(0));
    pace
}

#[test]
fn a_request_is_held_until_the_debt_of_its_user_is_small() {
    let now = Instant::now();
    let mut pace = with_a_debt(now);
    assert_eq!(pace.admit(ONE, 1, LONG, now), None);
    assert_eq!(pace.admit(ONE, 2, FREE_BYTES, now), Some(2), "a short one is never held");
    assert_eq!(pace.admit(OTHER, 3, LONG, now), Some(3), "others have no debt");
    let at = pace.timer(now).unwrap();
    assert!(at > now && at < now + READ * PARTS, "{:?}", at - now);
    assert_eq!(pace.next(at - Duration::from_nanos(1)), None);
    // In its turn, though the debt would let it go before.
    assert_eq!(pace.admit(ONE, 4, LONG, at), None);
    assert_eq!((pace.next(at), pace.timer(at)), (Some(1), None));
    pace.sent(ONE, LONG, at);
    let next_at = pace.timer(at).unwrap();
    assert!(next_at - at < READ * PARTS && next_at - at > READ * (PARTS - 2));
    assert_eq!(pace.len(), 1);
    assert_eq!((pace.next(next_at), pace.len()), (Some(4), 0));
}

#[test]
fn nobody_is_held_on_account_of_nobody() {
    let now = Instant::now();
    let mut alone = Pace::of_qemu();
    for number in 0..1000 {
        assert_eq!(alone.admit(ONE, number, 1 << 20, now), Some(number));
        alone.sent(ONE, 1 << 20, now);
    }
    // What it has sent while it was alone is no debt to those who come.
    alone.sent(OTHER, 10, now);
    assert_eq!(alone.admit(ONE, 1000, LONG, now), Some(1000));

    let mut pace = with_a_debt(now);
    pace.sent(ONE, 1 << 20, now);
    assert_eq!(pace.admit(ONE, 1, LONG, now), None);
    assert_eq!(pace.timer(now), Some(now + PRESENT), "a debt of many seconds");
    assert_eq!(pace.next(now + PRESENT), Some(1));
    // The other user is there again.
    let later = now + PRESENT + PRESENT;
    pace.sent(OTHER, 10, later);
    assert_eq!(pace.admit(ONE, 2, LONG, later), None);
    assert_eq!(pace.next(later), None);
}

#[test]
fn what_is_taken_back_is_not_sent_and_users_without_a_debt_are_forgotten() {
    let mut now = Instant::now();
    let mut pace = with_a_debt(now);
    for number in 1..100 {
        assert_eq!(pace.admit(ONE, number, LONG, now), None);
    }
    (2..100).for_each(|number| assert_eq!(pace.take(ONE, number), Some(number)));
    assert_eq!((pace.take(ONE, 5), pace.take(OTHER, 1), pace.len()), (None, None, 1));
    assert_eq!(pace.iter().collect::<Vec<_>>(), [&1]);
    // An attacker with very many names.
    for user in 10..10_010 {
        pace.sent(user, LONG, now);
    }
    assert_eq!(pace.users.len(), 10_001);
    assert_eq!(pace.take_all().collect::<Vec<_>>(), [1]);
    assert_eq!((pace.users.len(), pace.len(), pace.timer(now)), (0, 0, None));
    for user in 10..10_010 {
        now += READ;
        pace.sent(user, LONG, now);
    }
    assert!(pace.users.len() <= PARTS as usize, "{} users", pace.users.len());
    assert_eq!(pace.paying.len(), pace.users.len());
    assert!(pace.waiting.is_empty());
}

#[test]
fn a_server_that_need_not_be_spared_is_sent_everything() {
    let now = Instant::now();
    let mut pace = Pace::unbounded();
    for number in 0..1000 {
        let user = number % 2;
        assert_eq!(pace.admit(user, number, 1 << 20, now), Some(number));
        pace.sent(user, 1 << 20, now);
    }
    assert_eq!(pace.users.len(), 0);
}

/// The same by looking through everything that ever was.
#[derive(Default)]
struct Naive {
    sent: Vec<(Owner, Instant)>,
    paid_at: HashMap<Owner, Instant>,
    held: Vec<(Owner, u64)>,
}

impl Naive {
    fn due(&self, user: Owner) -> Option<Instant> {
        let other = self.sent.iter().rev().find(|(of, _)| *of != user)?;
        let paid_at = self.paid_at.get(&user).copied().unwrap_or(other.1);
        Some((other.1 + PRESENT).min(paid_at - MOST_DEBT))
    }

    fn admits(&self, user: Owner, bytes: usize, now: Instant) -> bool {
        let waits = self.held.iter().any(|(of, _)| *of == user) || self.due(user) > Some(now);
        bytes <= FREE_BYTES || !waits
    }

    fn sent(&mut self, user: Owner, bytes: usize, now: Instant) {
        let other = self.sent.iter().rev().find(|(of, _)| *of != user);
        if bytes > FREE_BYTES && other.is_some_and(|&(_, at)| now < at + PRESENT) {
            let debt = READING * PARTS * u32::try_from(bytes - FREE_BYTES).unwrap();
            let paid_at = self.paid_at.entry(user).or_insert(now);
            *paid_at = now.max(*paid_at) + debt;
        }
        self.sent.push((user, now));
    }
}

#[test]
fn it_decides_as_one_that_remembers_everything() {
    let mut now = Instant::now();
    let (mut pace, mut naive) = (Pace::of_qemu(), Naive::default());
    let mut random = 1_u64;
    let mut below = |most: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (random >> 33) % most
    };
    let (mut held, mut released) = (0, 0);
    for number in 0..20_000 {
        let user = below(4).min(below(4));
        let bytes = usize::try_from(below(8) * 400).unwrap();
        let admitted = pace.admit(user, number, bytes, now).is_some();
        assert_eq!(admitted, naive.admits(user, bytes, now));
        if admitted {
            pace.sent(user, bytes, now);
            naive.sent(user, bytes, now);
        } else {
            held += 1;
            naive.held.push((user, number));
        }
        let first = naive.held.iter().map(|&(user, _)| naive.due(user)).min();
        assert_eq!(pace.timer(now), first.flatten().filter(|&at| at > now));
        let next = pace.next(now);
        assert_eq!(next.is_some(), first.is_some_and(|first| first <= Some(now)));
        if let Some(number) = next {
            let user = naive.held.iter().find(|(_, held)| *held == number).unwrap().0;
            assert_eq!(Some(naive.due(user)), first);
            let first_of_user = naive.held.iter().position(|(of, _)| *of == user).unwrap();
            assert_eq!(naive.held.remove(first_of_user).1, number);
            released += 1;
            pace.sent(user, 400, now);
            naive.sent(user, 400, now);
        }
        let step = if below(500) == 0 { 2 * PRESENT } else { Duration::from_millis(below(60)) };
        now += step;
    }
    assert!(held > 1000 && released > 1000, "{held} held, {released} released");
    assert_eq!(pace.len(), naive.held.len());
}
