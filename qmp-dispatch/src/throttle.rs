// SPDX-License-Identifier: MIT OR Apache-2.0
//! Rate limits of events. Mirrors QEMU's `monitor_qapi_event_queue`: the first of similar events is
//! sent at once and opens a window; of those that follow within it, the last is sent when the window
//! ends, with its own timestamp, and opens the next one.

use std::collections::HashMap;
use std::time::Duration;

use qmp_proto::Event;

use crate::trace;

/// What tells events apart: those of the same name and key are similar.
type Key = (&'static str, String);

#[derive(Default)]
pub(crate) struct Throttle {
    windows: HashMap<Key, Window>,
}

struct Window {
    ends: Duration,
    interval: Duration,
    held: Option<Event>,
}

impl Throttle {
    /// Takes an event of a limited kind. It is given back if it is to be sent now.
    ///
    /// What is [due](Throttle::due) at `now` must have been taken before.
    pub(crate) fn offer(
        &mut self,
        now: Duration,
        interval: Duration,
        key: Key,
        event: Event,
    ) -> Option<Event> {
        if let Some(window) = self.windows.get_mut(&key) {
            window.held = Some(event);
            return None;
        }
        self.windows
            .insert(key, Window { ends: now.saturating_add(interval), interval, held: None });
        Some(event)
    }

    /// When the next window ends.
    pub(crate) fn next_end(&self) -> Option<Duration> {
        self.windows.values().map(|window| window.ends).min()
    }

    /// The events whose windows have ended, in the order of these ends.
    pub(crate) fn due(&mut self, now: Duration) -> Vec<Event> {
        let mut due = Vec::new();
        self.windows.retain(|key, window| {
            if window.ends > now {
                return true;
            }
            trace::monitor_protocol_event_handler(key.0, window.held.as_ref());
            let Some(event) = window.held.take() else { return false };
            due.push((window.ends, event));
            window.ends = now.saturating_add(window.interval);
            true
        });
        due.sort_by_key(|(ended, event)| (*ended, event.timestamp));
        due.into_iter().map(|(_, event)| event).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use qmp_proto::Timestamp;

    use super::*;

    const INTERVAL: Duration = Duration::from_millis(10);

    /// Emissions at these milliseconds, each numbered; what is sent, and when.
    fn run(emitted: &[u64], until: u64) -> Vec<(u64, i64)> {
        let mut throttle = Throttle::default();
        let mut sent = Vec::new();
        for millisecond in 0..until {
            let now = Duration::from_millis(millisecond);
            for event in throttle.due(now) {
                sent.push((millisecond, event.timestamp.seconds));
            }
            for (number, _) in emitted.iter().enumerate().filter(|(_, at)| **at == millisecond) {
                let timestamp = Timestamp { seconds: number as i64, microseconds: 0 };
                let event = Event { name: "E".into(), data: None, timestamp };
                let key = ("E", String::new());
                if let Some(event) = throttle.offer(now, INTERVAL, key, event) {
                    sent.push((millisecond, event.timestamp.seconds));
                }
            }
        }
        sent
    }

    #[test]
    fn a_burst_sends_its_first_and_its_last() {
        assert_eq!(run(&[0, 0, 1, 2, 3], 100), [(0, 0), (10, 4)]);
    }

    #[test]
    fn a_window_in_which_nothing_was_held_back_ends_the_matter() {
        assert_eq!(run(&[0, 5, 25, 35], 100), [(0, 0), (10, 1), (25, 2), (35, 3)]);
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
            prop_assert_eq!(run(&emitted, 300), expected);
        }
    }

    #[test]
    fn events_of_another_key_have_a_window_of_their_own() {
        let mut throttle = Throttle::default();
        let event = |name: &'static str| Event {
            name: name.into(),
            data: None,
            timestamp: Timestamp::default(),
        };
        for key in ["a", "b"] {
            let key = ("E", key.to_owned());
            assert!(throttle.offer(Duration::ZERO, INTERVAL, key.clone(), event("E")).is_some());
            assert!(throttle.offer(Duration::ZERO, INTERVAL, key, event("E")).is_none());
        }
        assert_eq!(throttle.next_end(), Some(INTERVAL));
        assert_eq!(throttle.due(INTERVAL).len(), 2);
    }
}
