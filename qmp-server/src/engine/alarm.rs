// SPDX-License-Identifier: MIT OR Apache-2.0
//! The alarm of the followers: a timerfd.

use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime,
};

use super::leader::{Alarm, Waited};

/// How long a run may go on without the leadership before a follower steps in. If the alarm was armed for another run, it
/// is armed again first: then it takes up to two periods.
pub(super) const PERIOD: Duration = Duration::from_millis(2);

/// A timerfd: arming it is one system call in each period of activity, and none while the engine is idle.
pub(super) struct StepIn {
    timer: OwnedFd,
}

impl StepIn {
    pub(super) fn new() -> io::Result<StepIn> {
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        Ok(StepIn { timer: timerfd_create(TimerfdClockId::Monotonic, flags)? })
    }

    fn set(&self, interval: Duration, first: Duration) {
        let spec = |time: Duration| Timespec::try_from(time).unwrap_or_default();
        let timer = Itimerspec { it_interval: spec(interval), it_value: spec(first) };
        if let Err(error) = timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &timer) {
            tracing::error!(%error, "cannot set the timer of the followers");
        }
    }
}

impl Alarm for StepIn {
    fn arm(&self) {
        self.set(Duration::ZERO, PERIOD);
    }

    fn wait(&self, until: Option<Instant>) -> Waited {
        loop {
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            let timeout = left.and_then(|left| Timespec::try_from(left).ok());
            let timer = PollFd::new(&self.timer, PollFlags::IN);
            if poll(&mut [timer], timeout.as_ref()) == Ok(0) {
                return Waited::Gave;
            }
            // Of several followers that wait, one gets it.
            if rustix::io::read(&self.timer, &mut [0u8; 8]).is_ok() {
                return Waited::Expired;
            }
        }
    }

    fn release(&self) {
        // Expires so often that every follower gets one.
        self.set(Duration::from_millis(1), Duration::from_nanos(1));
    }
}
