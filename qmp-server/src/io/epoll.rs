// SPDX-License-Identifier: MIT OR Apache-2.0
//! Readiness of descriptors, by epoll.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};

use super::Token;

/// How many events one wait returns at most. Few, so that one pass over them does not take long.
const EVENTS_PER_WAIT: usize = 16;

/// What a source waits for.
///
/// Room for output is asked for only while output is unsent: reading makes room each time, and every response would
/// be followed by an event that nobody needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Interest {
    Readable,
    ReadableWritable,
}

impl Interest {
    fn flags(self) -> EventFlags {
        let readable = EventFlags::IN | EventFlags::RDHUP | EventFlags::ET;
        match self {
            Interest::Readable => readable,
            Interest::ReadableWritable => readable | EventFlags::OUT,
        }
    }
}

/// What a source has become ready for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Event {
    pub(crate) token: Token,
    /// There is room for output, or writing fails.
    pub(crate) writable: bool,
    /// The peer sends nothing more after what there is to read.
    pub(crate) read_closed: bool,
    /// The peer has gone: it neither sends nor reads.
    pub(crate) hung_up: bool,
}

impl From<&epoll::Event> for Event {
    fn from(event: &epoll::Event) -> Event {
        // Copied out of a packed structure.
        let flags = event.flags;
        let gone = EventFlags::ERR | EventFlags::HUP;
        Event {
            token: event.data.u64().into(),
            writable: flags.intersects(gone | EventFlags::OUT),
            read_closed: flags.intersects(gone | EventFlags::RDHUP),
            hung_up: flags.intersects(gone),
        }
    }
}

/// What one [wait](Poll::wait) has returned.
pub(crate) type Events = Vec<Event>;

/// An epoll set. Readiness is reported on edges: once for each change.
pub(crate) struct Poll(OwnedFd);

/// Readable when there are events.
impl AsFd for Poll {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Poll {
    pub(crate) fn new() -> io::Result<Poll> {
        Ok(Poll(epoll::create(CreateFlags::CLOEXEC)?))
    }

    /// Reports events of `fd` from now on, and the one that is due already.
    pub(crate) fn register(
        &self,
        fd: BorrowedFd<'_>,
        token: Token,
        interest: Interest,
    ) -> io::Result<()> {
        Ok(epoll::add(&self.0, fd, EventData::new_u64(token.into()), interest.flags())?)
    }

    /// Changes the interest. What `fd` is ready for already is reported again.
    pub(crate) fn reregister(
        &self,
        fd: BorrowedFd<'_>,
        token: Token,
        interest: Interest,
    ) -> io::Result<()> {
        Ok(epoll::modify(&self.0, fd, EventData::new_u64(token.into()), interest.flags())?)
    }

    pub(crate) fn deregister(&self, fd: BorrowedFd<'_>) {
        let _ = epoll::delete(&self.0, fd);
    }

    /// Waits for events, at most for `timeout`, and replaces what `events` held.
    pub(crate) fn wait(&self, timeout: Option<Duration>, events: &mut Events) -> io::Result<()> {
        events.clear();
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        let mut room = [const { MaybeUninit::uninit() }; EVENTS_PER_WAIT];
        match epoll::wait(&self.0, &mut room[..], timeout.as_ref()) {
            Ok((reported, _)) => {
                events.extend(reported.iter().map(Event::from));
                Ok(())
            }
            Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}
