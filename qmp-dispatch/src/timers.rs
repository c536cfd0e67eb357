// SPDX-License-Identifier: MIT OR Apache-2.0
//! What waits for time to pass: deadlines of commands and rate limits of events, in one ordered queue.
//!
//! Rate limits mirror QEMU's `monitor_qapi_event_queue`: the first of similar events is sent at once and
//! opens a window. Of those that follow within the window, the last is sent when it ends, with its own
//! timestamp, and opens the next one.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering as Memory};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use qmp_proto::Event;

use crate::reply::WeakReply;
use crate::steps;

/// Events of the same name and key are similar.
pub(crate) type Similar = (Cow<'static, str>, String);

/// In [`Timers::next`]: no timer is set.
const NEVER: u64 = u64::MAX;

pub(crate) struct Timers {
    queue: Mutex<Queue>,
    /// When the first timer of `queue` is due, in nanoseconds, or [`NEVER`]. Written while `queue` is
    /// locked, read without.
    next: AtomicU64,
    /// Called with nothing locked when `next` has become earlier.
    hook: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

#[derive(Default)]
struct Queue {
    timers: BTreeMap<TimerKey, Timer>,
    /// Each has one timer in `timers`, and each timer of a window has its window here.
    windows: HashMap<Similar, Window>,
    last_number: u64,
}

/// Identifies a timer: when it is due, and a number that tells it from others due then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TimerKey {
    at: Duration,
    number: u64,
}

impl TimerKey {
    /// How long it is until then.
    pub(crate) fn left(&self, now: Duration) -> Duration {
        self.at.saturating_sub(now)
    }
}

enum Timer {
    Deadline(WeakReply),
    WindowEnd(Similar),
}

struct Window {
    ends: TimerKey,
    interval: Duration,
    held: Option<Event>,
}

/// A timer that was due.
pub(crate) enum Expired {
    /// A command has passed its deadline.
    Deadline(WeakReply),
    /// A window has ended. The last event that it held back is to be sent.
    Window { event: Cow<'static, str>, held: Option<Event> },
}

/// What becomes of an event of a limited kind.
pub(crate) struct Offered {
    /// The event to send now: the one offered, or the one held by a window that is overdue.
    pub(crate) send: Option<Event>,
    /// Whether the event offered is held back.
    pub(crate) held_back: bool,
}

impl Timers {
    pub(crate) fn new() -> Timers {
        Timers { queue: Mutex::default(), next: AtomicU64::new(NEVER), hook: OnceLock::new() }
    }

    /// Takes an event of a limited kind.
    pub(crate) fn offer(
        &self,
        now: Duration,
        interval: Duration,
        similar: Similar,
        event: Event,
    ) -> Offered {
        self.change(|queue| {
            let window = queue.windows.get_mut(&similar);
            let overdue = match window {
                Some(window) if window.ends.at > now => {
                    window.held = Some(event);
                    return Offered { send: None, held_back: true };
                }
                Some(window) => {
                    let ends = window.ends;
                    let held = window.held.take();
                    queue.timers.remove(&ends);
                    held
                }
                None => None,
            };
            let held_back = overdue.is_some();
            let (send, held) = if held_back { (overdue, Some(event)) } else { (Some(event), None) };
            queue.open_window(now, interval, similar, held);
            Offered { send, held_back }
        })
    }

    /// Makes `reply` expire at this time, unless it is cancelled before.
    pub(crate) fn add_deadline(&self, at: Duration, reply: WeakReply) -> TimerKey {
        self.change(|queue| queue.add(at, Timer::Deadline(reply)))
    }

    /// Forgets a deadline.
    pub(crate) fn cancel(&self, deadline: TimerKey) {
        self.change(|queue| queue.timers.remove(&deadline));
    }

    /// Takes out what is due, in the order in which it became so. A window that has held back an event
    /// is followed by another.
    pub(crate) fn expire(&self, now: Duration) -> Vec<Expired> {
        self.change(|queue| {
            let mut expired = Vec::new();
            while let Some(first) = queue.timers.first_entry()
                && first.key().at <= now
            {
                let similar = match first.remove() {
                    Timer::WindowEnd(similar) => similar,
                    Timer::Deadline(reply) => {
                        expired.push(Expired::Deadline(reply));
                        continue;
                    }
                };
                let event = similar.0.clone();
                let window = queue.windows.remove(&similar);
                let (interval, held) =
                    window.map_or_else(Default::default, |window| (window.interval, window.held));
                if held.is_some() {
                    queue.open_window(now, interval, similar, None);
                }
                expired.push(Expired::Window { event, held });
            }
            expired
        })
    }

    /// When the next timer is due. Takes no lock.
    pub(crate) fn next(&self) -> Option<Duration> {
        match self.next.load(Memory::Acquire) {
            NEVER => None,
            nanos => Some(Duration::from_nanos(nanos)),
        }
    }

    /// Only the first hook is kept. Returns whether this one was.
    pub(crate) fn set_hook(&self, hook: Box<dyn Fn() + Send + Sync>) -> bool {
        self.hook.set(hook).is_ok()
    }

    fn change<T>(&self, change: impl FnOnce(&mut Queue) -> T) -> T {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = change(&mut queue);
        let next = queue.timers.first_key_value().map_or(NEVER, |(key, _)| {
            // Later than can be told is 584 years from now.
            u64::try_from(key.at.as_nanos()).unwrap_or(NEVER).min(NEVER - 1)
        });
        let before = self.next.swap(next, Memory::AcqRel);
        drop(queue);
        if next < before
            && let Some(hook) = self.hook.get()
        {
            hook();
        }
        changed
    }
}

impl Queue {
    fn add(&mut self, at: Duration, timer: Timer) -> TimerKey {
        self.last_number += 1;
        let key = TimerKey { at, number: self.last_number };
        self.timers.insert(key, timer);
        key
    }

    fn open_window(
        &mut self,
        now: Duration,
        interval: Duration,
        similar: Similar,
        held: Option<Event>,
    ) {
        let ends = self.add(now.saturating_add(interval), Timer::WindowEnd(similar.clone()));
        self.windows.insert(similar, Window { ends, interval, held });
    }
}

impl Ord for TimerKey {
    fn cmp(&self, other: &TimerKey) -> Ordering {
        steps::count(1);
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

impl PartialOrd for TimerKey {
    fn partial_cmp(&self, other: &TimerKey) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use qmp_proto::Timestamp;

    use super::*;
    use crate::steps::{assert_linear, steps_of};

    const INTERVAL: Duration = Duration::from_millis(10);

    fn event(number: usize) -> Event {
        let timestamp = Timestamp { seconds: number as i64, microseconds: 0 };
        Event::new("E", None, timestamp)
    }

    fn similar(key: &str) -> Similar {
        ("E".into(), key.to_owned())
    }

    fn number(event: &Event) -> i64 {
        event.timestamp.seconds
    }

    fn events(expired: Vec<Expired>) -> Vec<Event> {
        let held = |expired| match expired {
            Expired::Window { held, .. } => held,
            Expired::Deadline(_) => None,
        };
        expired.into_iter().filter_map(held).collect()
    }

    /// Emissions at these milliseconds, each numbered; what is sent, and when. Time is looked at every
    /// `tick` milliseconds.
    fn run(emitted: &[u64], until: u64, tick: u64) -> Vec<(u64, i64)> {
        let timers = Timers::new();
        let mut sent = Vec::new();
        for millisecond in 0..until {
            let now = Duration::from_millis(millisecond);
            if millisecond % tick == 0 {
                let held = events(timers.expire(now));
                sent.extend(held.iter().map(|event| (millisecond, number(event))));
            }
            for (emission, _) in emitted.iter().enumerate().filter(|(_, at)| **at == millisecond) {
                let offered = timers.offer(now, INTERVAL, similar(""), event(emission));
                sent.extend(offered.send.map(|event| (millisecond, number(&event))));
            }
        }
        sent
    }

    #[test]
    fn a_burst_sends_its_first_and_its_last() {
        assert_eq!(run(&[0, 0, 1, 2, 3], 100, 1), [(0, 0), (10, 4)]);
    }

    #[test]
    fn a_window_in_which_nothing_was_held_back_ends_the_matter() {
        assert_eq!(run(&[0, 5, 25, 35], 100, 1), [(0, 0), (10, 1), (25, 2), (35, 3)]);
    }

    #[test]
    fn an_overdue_window_sends_what_it_holds_before_what_is_new() {
        assert_eq!(run(&[0, 5, 25, 26], 100, 30), [(0, 0), (25, 1), (60, 3)]);
        assert_eq!(run(&[0, 25], 100, 30), [(0, 0), (25, 1)]);
    }

    proptest! {
        /// The model: time is cut into windows, the first emission opens one, and each window that
        /// holds something back is followed by another.
        #[test]
        fn what_is_sent_equals_the_model(mut emitted in prop::collection::vec(0u64..200, 0..40)) {
            emitted.sort_unstable();
            let mut expected = Vec::new();
            let mut next = 0;
            while next < emitted.len() {
                let mut opened = emitted[next];
                expected.push((opened, next as i64));
                next += 1;
                loop {
                    // An emission at the very end of a window comes after it.
                    let ends = opened + 10;
                    let within = emitted[next..].iter().take_while(|at| **at < ends).count();
                    if within == 0 {
                        break;
                    }
                    next += within;
                    expected.push((ends, next as i64 - 1));
                    opened = ends;
                }
            }
            prop_assert_eq!(run(&emitted, 300, 1), expected);
        }
    }

    #[test]
    fn events_of_another_key_have_a_window_of_their_own() {
        let timers = Timers::new();
        for key in ["a", "b"] {
            for held_back in [false, true] {
                let offered = timers.offer(Duration::ZERO, INTERVAL, similar(key), event(0));
                assert_eq!((offered.send.is_none(), offered.held_back), (held_back, held_back));
            }
        }
        assert_eq!(timers.next(), Some(INTERVAL));
        assert_eq!(events(timers.expire(INTERVAL)).len(), 2);
    }

    /// The steps of this many timers that come and go.
    fn steps(count: usize) -> usize {
        let timers = Timers::new();
        steps_of(|| {
            for number in 0..2 * count {
                let now = Duration::from_nanos(number as u64);
                let key = (number % count).to_string();
                timers.offer(now, INTERVAL, similar(&key), event(number));
                let deadline = timers.add_deadline(now + INTERVAL, WeakReply::default());
                if number % 2 == 0 {
                    timers.cancel(deadline);
                }
                assert!(timers.next().is_some() && timers.expire(now).is_empty());
            }
            assert_eq!(timers.expire(Duration::from_secs(1)).len(), 2 * count);
        })
    }

    #[test]
    fn no_timer_is_looked_at_because_of_another() {
        assert_linear(4_000, steps);
    }
}
