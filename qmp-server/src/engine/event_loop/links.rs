// SPDX-License-Identifier: MIT OR Apache-2.0
//! Links: lent out for each input.

use super::{Loop, Source, Timer};
use crate::engine::link::{Link, LinkInput, LinkNext};
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
}

impl Loop {
    pub(super) fn add_link(&mut self, link: Box<dyn Link>) {
        let registration = std::sync::Arc::clone(link.registration());
        let slot =
            LinkSlot { link: Some(link), noted: LinkInput::default(), interest: None, timer: None };
        let token = self.sources.insert(Source::Link(Box::new(slot)));
        self.tenants += 1;
        registration.set_token(token);
        self.wake_link(token);
    }

    pub(super) fn wake_link(&mut self, token: Token) {
        self.note(token, |noted| noted.woken = true);
    }

    pub(super) fn link_event(&mut self, event: Event) {
        self.note(event.token, |noted| noted.add_event(event));
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
        if slot.noted.is_nothing() {
            return;
        }
        if let Some(link) = slot.link.take() {
            let input = std::mem::take(&mut slot.noted);
            self.work.push_back(Work::Lend { token, link, input });
        }
    }

    pub(super) fn returned(&mut self, token: Token, link: Box<dyn Link>, next: LinkNext) {
        let Some(Source::Link(slot)) = self.sources.get_mut(token) else { return };
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
        if next.again {
            self.again.push_back(token);
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
