// SPDX-License-Identifier: MIT OR Apache-2.0
//! Time that somebody has used, and has to leave to others.

use std::time::{Duration, Instant};

/// So much may have been used at once by who has used nothing for a while.
const BURST: Duration = Duration::from_millis(1);

/// More than this is not charged at a time: the thread was interrupted.
const MOST_AT_A_TIME: Duration = Duration::from_micros(200);

/// A debt is paid after this at the latest.
const MOST: Duration = Duration::from_secs(1);

/// One part in so many of the time may be used.
pub(super) const SHARE: u32 = 8;

/// What was used, as time in which the rest of the time is left to others.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Debt {
    /// When as much time will have passed as what was used stands for; `None` if nothing was.
    paid: Option<Instant>,
}

impl Debt {
    /// Charges what was used just now.
    pub(super) fn charge(&mut self, used: Duration, now: Instant) {
        let used = used.min(MOST_AT_A_TIME) * SHARE;
        let paid = self.paid.map_or(now, |paid| paid.max(now)) + used;
        self.paid = Some(paid.min(now + MOST));
    }

    /// When it will have been paid so far that more may be used; `None` if it may be at any time.
    pub(super) fn paid_at(&self) -> Option<Instant> {
        self.paid.map(|paid| paid.checked_sub(BURST * SHARE).unwrap_or(paid))
    }

    /// Whether more may be used.
    pub(super) fn is_paid(&self, now: Instant) -> bool {
        self.paid_at().is_none_or(|at| at <= now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: Duration = Duration::from_micros(100);

    /// How much is used until some time has passed, by who uses whatever it may.
    fn used_in(debt: &mut Debt, mut now: Instant, time: Duration) -> Duration {
        let (end, mut used) = (now + time, Duration::ZERO);
        while now < end {
            match debt.paid_at() {
                Some(at) if at > now => now = at,
                _ => {
                    now += STEP;
                    used += STEP;
                    debt.charge(STEP, now);
                }
            }
        }
        used
    }

    #[test]
    fn a_share_of_the_time_is_used_after_a_burst() {
        let now = Instant::now();
        let mut debt = Debt::default();
        let second = Duration::from_secs(1);
        let first = used_in(&mut debt, now, second);
        let next = used_in(&mut debt, now + second, second);
        let share = second / SHARE;
        assert!(first >= share + BURST / 2 && first <= share + 2 * BURST, "{first:?}");
        assert!(next >= share - 2 * STEP && next <= share + 2 * STEP, "{next:?}");
    }

    #[test]
    fn what_was_not_used_is_no_credit_beyond_a_burst() {
        let now = Instant::now();
        let mut debt = Debt::default();
        debt.charge(STEP, now);
        let hour = Duration::from_secs(3600);
        let used = used_in(&mut debt, now + hour, 4 * BURST);
        assert!(used <= 3 * BURST, "{used:?}");
    }

    #[test]
    fn an_interruption_is_charged_as_a_little() {
        let now = Instant::now();
        let mut debt = Debt::default();
        debt.charge(Duration::from_secs(1), now);
        assert!(debt.is_paid(now));
    }
}
