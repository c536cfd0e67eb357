// SPDX-License-Identifier: MIT OR Apache-2.0
//! Links: lent out for each input.
//!
//! A server at the other end of a link may send as much unasked as it likes, and to deal with that takes time from all
//! others. So that time is a debt of the link. One with too much of it receives only when its turn comes in a line, until it
//! finds nothing more, and all those in line together have a share of the time: meanwhile their servers wait, and the thread
//! sleeps.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::{Loop, Source, Timer};
use crate::engine::debt::Debt;
use crate::engine::link::{Link, LinkInput, LinkNext, ROOM, ROOM_IN_LINE};
use crate::engine::timers::Key;
use crate::engine::work::Work;
use crate::io::{Event, Interest, Token};

/// A link, or its place while it is lent out.
pub(super) struct LinkSlot {
    /// `None` while it is lent out.
    pub(super) link: Option<Box<dyn Link>>,
    /// What has happened meanwhile.
    noted: LinkInput,
    /// What its socket is registered for.
    interest: Option<Interest>,
    timer: Option<Key>,
    /// The time that what came unasked has taken.
    debt: Debt,
    /// It is in [`FloodedLinks`], once.
    in_line: bool,
    /// It has been lent out for its turn in line.
    in_turn: bool,
}

/// Links that have to wait for their turn to receive.
#[derive(Default)]
pub(super) struct FloodedLinks {
    links: VecDeque<Token>,
    debt: Debt,
}

impl FloodedLinks {
    /// When the first one has its turn; `None` if there is none.
    pub(super) fn due_at(&self, now: Instant) -> Option<Instant> {
        (!self.links.is_empty()).then(|| self.debt.paid_at().unwrap_or(now))
    }

    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.due_at(now).is_some_and(|at| at <= now)
    }
}

impl Loop {
    pub(super) fn add_link(&mut self, link: Box<dyn Link>) {
        let registration = std::sync::Arc::clone(link.registration());
        let slot = LinkSlot {
            link: Some(link),
            noted: LinkInput::default(),
            interest: None,
            timer: None,
            debt: Debt::default(),
            in_line: false,
            in_turn: false,
        };
        let token = self.sources.insert(Source::Link(Box::new(slot)));
        self.tenants += 1;
        registration.set_token(token);
        self.wake_link(token);
    }

    pub(super) fn wake_link(&mut self, token: Token) {
        self.note(token, |noted| noted.woken = true);
    }

    pub(super) fn link_event(&mut self, event: Event) {
        let Some(Source::Link(slot)) = self.sources.get_mut(event.token) else { return };
        if !slot.debt.is_paid(self.pass.now) {
            self.stand_in_line(event.token);
        }
        self.note(event.token, |noted| noted.add_event(event));
    }

    fn stand_in_line(&mut self, token: Token) {
        if let Some(Source::Link(slot)) = self.sources.get_mut(token)
            && !std::mem::replace(&mut slot.in_line, true)
        {
            self.line.links.push_back(token);
        }
    }

    /// Lets the first link in line receive.
    pub(super) fn next_in_line(&mut self) {
        let Some(token) = self.line.links.pop_front() else { return };
        if let Some(Source::Link(slot)) = self.sources.get_mut(token) {
            slot.in_line = false;
            slot.in_turn = true;
        }
        self.note(token, |noted| noted.room = ROOM_IN_LINE);
    }

    pub(super) fn link_timer(&mut self, token: Token) {
        if let Some(Source::Link(slot)) = self.sources.get_mut(token) {
            slot.timer = None;
        }
        self.note(token, |noted| noted.timer = true);
    }

    fn note(&mut self, token: Token, note: impl FnOnce(&mut LinkInput)) {
        let Some(Source::Link(slot)) = self.sources.get_mut(token) else { return };
        note(&mut slot.noted);
        self.lend(token);
    }

    /// Lends a link out that has an input, unless it is out already.
    fn lend(&mut self, token: Token) {
        let Some(Source::Link(slot)) = self.sources.get_mut(token) else { return };
        let waits = slot.in_line && !slot.noted.is_urgent();
        if waits || slot.noted.is_nothing() {
            return;
        }
        if let Some(link) = slot.link.take() {
            let mut input = std::mem::take(&mut slot.noted);
            input.room = match input.room {
                _ if slot.in_line => 0,
                0 => ROOM,
                room => room,
            };
            self.work.push_back(Work::Lend { token, link, input });
        }
    }

    /// A link is back, which has taken so long.
    pub(super) fn returned(
        &mut self,
        token: Token,
        link: Box<dyn Link>,
        next: LinkNext,
        took: Duration,
    ) {
        let Some(Source::Link(slot)) = self.sources.get_mut(token) else { return };
        let now = self.pass.now;
        let in_turn = std::mem::take(&mut slot.in_turn);
        if next.unasked {
            slot.debt.charge(took, now);
        }
        if in_turn {
            self.line.debt.charge(took, now);
        }
        // Most inputs change nothing about it.
        if let Some(timer) = slot.timer.take_if(|(at, _)| next.ended || next.timer != Some(*at)) {
            self.timers.cancel(timer);
        }
        if next.ended {
            self.lost(token);
            return self.work.push_back(Work::Drop(Box::new(link)));
        }
        if next.new_socket {
            // The old one, which is closed, has left the epoll set by that.
            slot.interest = None;
        }
        if let Some(socket) = link.socket()
            && slot.interest != Some(next.interest)
        {
            let registered = match slot.interest {
                None => self.poll.register(socket, token, next.interest),
                Some(_) => self.poll.reregister(socket, token, next.interest),
            };
            if let Err(error) = registered {
                tracing::error!(%error, "cannot watch the connection to an upstream server");
            }
            slot.interest = Some(next.interest);
        }
        if slot.timer.is_none() {
            slot.timer = next.timer.map(|at| self.timers.set(at, Timer::Link(token)));
        }
        slot.link = Some(link);
        // One that is in line already has its turn there.
        if next.again && !slot.in_line {
            match in_turn || !slot.debt.is_paid(now) {
                true => self.stand_in_line(token),
                false => self.again.push_back(token),
            }
        }
        self.lend(token);
    }

    /// A link is not there any more.
    pub(super) fn lost(&mut self, token: Token) {
        if let Some(Source::Link(slot)) = self.sources.remove(token) {
            self.tenants -= 1;
            if let Some(timer) = slot.timer {
                self.timers.cancel(timer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::os::fd::BorrowedFd;
    use std::sync::Arc;

    use super::*;
    use crate::engine::debt::SHARE;
    use crate::io::{Mailbox, Registration};
    use crate::session::Cork;

    /// How long dealing with what has come takes each time.
    const TOOK: Duration = Duration::from_micros(100);

    struct Idle(Arc<Registration>);

    impl Link for Idle {
        fn registration(&self) -> &Arc<Registration> {
            &self.0
        }

        fn socket(&self) -> Option<BorrowedFd<'_>> {
            None
        }

        fn handle(&mut self, _: LinkInput) -> LinkNext {
            unreachable!("the tests handle what it is lent for")
        }

        #[cfg(feature = "mux")]
        fn freeze(&self, _: &mut crate::engine::frozen::Freezing) -> io::Result<()> {
            Ok(())
        }
    }

    /// A loop with links. Its time stands still.
    struct Bench {
        event_loop: Loop,
        mailbox: Arc<Mailbox>,
    }

    impl Bench {
        fn new() -> Bench {
            let mailbox = Arc::new(Mailbox::new().unwrap());
            let cork = Arc::new(Cork::new(&mailbox));
            let event_loop = Loop::new(Arc::clone(&mailbox), Arc::default(), cork).unwrap();
            Bench { event_loop, mailbox }
        }

        fn add_link(&mut self) -> Token {
            self.event_loop.add_link(Box::new(Idle(Registration::new(&self.mailbox))));
            let (token, link, _) = self.lent().unwrap();
            self.give_back(token, link, false, false);
            token
        }

        fn lent(&mut self) -> Option<(Token, Box<dyn Link>, LinkInput)> {
            match self.event_loop.work.pop_front()? {
                Work::Lend { token, link, input } => Some((token, link, input)),
                _ => None,
            }
        }

        fn give_back(&mut self, token: Token, link: Box<dyn Link>, unasked: bool, again: bool) {
            let interest = Interest::Readable;
            let next =
                LinkNext { new_socket: false, interest, timer: None, again, unasked, ended: false };
            self.event_loop.returned(token, link, next, TOOK);
        }

        /// Lets a link receive, which finds that there is more, until it has no turn at once or has had a thousand. How many
        /// it had.
        fn receive(&mut self, token: Token, unasked: bool) -> usize {
            self.event_loop.link_event(readable(token));
            for turns in 0..1000 {
                let Some((_, link, input)) = self.lent() else { return turns };
                assert_eq!(input.room, ROOM);
                self.give_back(token, link, unasked, true);
                if let Some(token) = self.event_loop.again.pop_front() {
                    self.event_loop.next_turn(token);
                }
            }
            1000
        }
    }

    fn readable(token: Token) -> Event {
        Event { token, writable: false, read_closed: false, hung_up: false }
    }

    #[test]
    fn who_is_sent_much_unasked_stands_in_line() {
        let mut bench = Bench::new();
        let (flooded, other) = (bench.add_link(), bench.add_link());
        let turns = bench.receive(flooded, true);
        assert!(turns < 20, "{turns}");

        // What comes now waits for its turn, and what there is to send does not.
        bench.event_loop.link_event(readable(flooded));
        assert!(bench.lent().is_none());
        bench.event_loop.wake_link(flooded);
        let (_, link, input) = bench.lent().unwrap();
        assert!(input.woken && !input.is_turn(), "{input:?}");
        // Even if it owes nothing any more, it does not spin until then.
        bench.event_loop.pass.now += Duration::from_secs(2);
        bench.give_back(flooded, link, false, true);
        assert!(bench.lent().is_none() && bench.event_loop.again.is_empty());

        bench.event_loop.link_event(readable(other));
        let (token, link, input) = bench.lent().unwrap();
        assert_eq!((token, input.room), (other, ROOM));
        bench.give_back(other, link, false, false);

        let now = bench.event_loop.pass.now;
        assert!(bench.event_loop.line.is_due(now));
        bench.event_loop.next_in_line();
        let (token, link, input) = bench.lent().unwrap();
        assert_eq!((token, input.room), (flooded, ROOM_IN_LINE));
        bench.give_back(flooded, link, true, true);
        // Once in it, though it was put there several times.
        bench.event_loop.next_in_line();
        assert!(bench.lent().is_some());
        assert!(!bench.event_loop.line.is_due(now));
    }

    #[test]
    fn those_in_line_have_a_share_of_the_time_together() {
        let mut bench = Bench::new();
        let flooded: Vec<_> = (0..10).map(|_| bench.add_link()).collect();
        flooded.iter().for_each(|&token| assert!(bench.receive(token, true) < 20));
        let (began, mut turns) = (bench.event_loop.pass.now, 0);
        let second = Duration::from_secs(1);
        while bench.event_loop.pass.now < began + second {
            let now = bench.event_loop.pass.now;
            if bench.event_loop.line.is_due(now) {
                bench.event_loop.next_in_line();
                let (token, link, input) = bench.lent().unwrap();
                assert_eq!(token, flooded[turns % flooded.len()], "in turn");
                assert_eq!(input.room, ROOM_IN_LINE);
                turns += 1;
                bench.event_loop.pass.now += TOOK;
                bench.give_back(token, link, true, true);
            } else {
                bench.event_loop.pass.now = bench.event_loop.line.due_at(now).unwrap();
            }
        }
        let used = TOOK * u32::try_from(turns).unwrap();
        let share = second / SHARE;
        assert!(used > share / 2 && used < share + share / 10, "{used:?}");
    }

    #[test]
    fn answers_are_received_as_they_come() {
        let mut bench = Bench::new();
        let busy = bench.add_link();
        assert_eq!(bench.receive(busy, false), 1000);
    }
}
