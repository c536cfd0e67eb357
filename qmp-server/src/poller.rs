// SPDX-License-Identifier: MIT OR Apache-2.0
//! Readiness: which connections have something to read, or room to write.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};

use crate::signal::Signal;

/// Any number of threads may [`wait`](Poller::wait) at a time; each change of readiness is told to
/// one of them. It is told once: what is not read or written to the end is not told again.
pub(crate) struct Poller {
    epoll: OwnedFd,
    /// Reported to all, for ever, once it is set.
    stop: Signal,
    /// Reported to one each time it is set.
    wake: Signal,
}

/// Names what has become ready.
pub(crate) type Token = u64;

/// What to wait for. Room is made by whoever reads, each time it does: to be told of it when it is not
/// needed would wake a thread for each response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    Input,
    InputAndRoom,
}

impl Wanted {
    fn flags(self) -> EventFlags {
        let input = EventFlags::IN | EventFlags::RDHUP | EventFlags::ET;
        match self {
            Wanted::Input => input,
            Wanted::InputAndRoom => input | EventFlags::OUT,
        }
    }
}

/// Where a descriptor's readiness is told, and under which name.
pub(crate) struct Place {
    pub(crate) poller: Arc<Poller>,
    pub(crate) token: Token,
}

const STOP: Token = u64::MAX;
const WAKE: Token = u64::MAX - 1;

/// What a token's descriptor has become ready for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ready {
    pub(crate) token: Token,
    pub(crate) writable: bool,
    /// The other end sends no more, once what is there has been read.
    pub(crate) ended: bool,
}

/// Room for what one [wait](Poller::wait) reports. For few at a time, so that other threads get some, too.
pub(crate) struct Reports(Vec<Event>);

impl Reports {
    pub(crate) fn new() -> Reports {
        Reports(Vec::with_capacity(64))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Ready> {
        self.0.iter().filter(|event| event.data.u64() != STOP).map(Ready::of)
    }
}

impl Ready {
    fn of(event: &Event) -> Ready {
        // Copied out of a packed structure.
        let flags = event.flags;
        // What is broken is found out by writing, too.
        let writable = EventFlags::OUT | EventFlags::ERR | EventFlags::HUP;
        let ended = EventFlags::RDHUP | EventFlags::ERR | EventFlags::HUP;
        Ready {
            token: event.data.u64(),
            writable: flags.intersects(writable),
            ended: flags.intersects(ended),
        }
    }
}

impl Poller {
    pub(crate) fn new() -> io::Result<Poller> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let stop = Signal::new()?;
        epoll::add(&epoll, stop.as_fd(), EventData::new_u64(STOP), EventFlags::IN)?;
        let wake = Signal::new()?;
        epoll::add(
            &epoll,
            wake.as_fd(),
            EventData::new_u64(WAKE),
            EventFlags::IN | EventFlags::ET,
        )?;
        Ok(Poller { epoll, stop, wake })
    }

    /// Reports for `token` when `fd` becomes ready for what is wanted, and whether it is so already.
    pub(crate) fn add(&self, fd: BorrowedFd<'_>, token: Token, wanted: Wanted) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, fd, EventData::new_u64(token), wanted.flags())?)
    }

    /// Reports for what is wanted now, and whether `fd` is ready for that already.
    pub(crate) fn change(
        &self,
        fd: BorrowedFd<'_>,
        token: Token,
        wanted: Wanted,
    ) -> io::Result<()> {
        Ok(epoll::modify(&self.epoll, fd, EventData::new_u64(token), wanted.flags())?)
    }

    pub(crate) fn remove(&self, fd: BorrowedFd<'_>) {
        let _ = epoll::delete(&self.epoll, fd);
    }

    /// Waits for reports, at most for `timeout` if there is one. What `reports` held is forgotten.
    pub(crate) fn wait(&self, timeout: Option<Duration>, reports: &mut Reports) -> io::Result<()> {
        reports.0.clear();
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        match epoll::wait(&self.epoll, spare_capacity(&mut reports.0), timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Wakes all threads that wait, now and from now on.
    pub(crate) fn stop(&self) {
        self.stop.set();
    }

    /// Wakes a thread that waits, if one does, or the next one that would.
    pub(crate) fn wake(&self) {
        self.wake.set();
    }
}
