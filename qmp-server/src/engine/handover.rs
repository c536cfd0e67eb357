// SPDX-License-Identifier: MIT OR Apache-2.0
//! An engine that is paused, so that what it hosts can be handed over to another program.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use super::Engine;
use super::event_loop::{Loop, Pause, Posted};
use super::frozen::Freezing;
use super::hosted::{Asked, Hosted};
use crate::access::{Groups, Origin, Verdict, groups_of};
use crate::session::{CameBy, SessionState, SharedTexts, TextsTaken};
use crate::transport::{Luggage, Packing, inherited};

/// An engine whose loop stands still, until this is dropped.
pub(crate) struct Paused(Sender<Sender<()>>);

impl Paused {
    /// Ends the connections that cannot be handed over.
    pub(crate) fn end_left_behind(&self) {
        let (done, is_done) = channel();
        if self.0.send(done).is_ok() {
            // Until the other end is dropped.
            let _ = is_done.recv();
        }
    }
}

impl Engine {
    /// Stops the loop at a point where nothing runs, and collects what it has.
    ///
    /// # Errors
    ///
    /// If something runs for longer than `at_most`, or cannot be handed over; then the engine goes on.
    pub(crate) fn freeze(&self, at_most: Duration) -> io::Result<(Freezing, Paused)> {
        let mut freezing = Freezing {
            packing: Packing::new()?,
            shared: SharedTexts::default(),
            servers: Vec::new(),
            links: Vec::new(),
            left_behind: Vec::new(),
        };
        let (sender, frozen) = channel();
        let (resume, resumed) = channel();
        let with = move |event_loop: &mut Loop| {
            let collect = AssertUnwindSafe(|| event_loop.freeze(&mut freezing));
            let collected = catch_unwind(collect);
            let collected = collected.unwrap_or_else(|_| Err(io::Error::other("internal error")));
            if sender.send(collected.map(|()| freezing)).is_ok() {
                // Until the other end is dropped.
                while let Ok(done) = resumed.recv() {
                    event_loop.end_left_behind();
                    drop::<Sender<()>>(done);
                }
            }
        };
        let until = Instant::now() + at_most;
        self.handle.0.post(Posted::Pause(Pause { until, with: Box::new(with) }));
        let busy = |_| {
            let error = format!("commands have been running for {at_most:?}");
            io::Error::new(io::ErrorKind::TimedOut, error)
        };
        let freezing = frozen.recv().map_err(busy)??;
        Ok((freezing, Paused(resume)))
    }
}

impl Hosted {
    /// Goes on with a client that another program had. It is decided anew whether it may connect.
    ///
    /// # Errors
    ///
    /// If it may not, or if its state is not sound. Its connection ends.
    pub(crate) fn resume(
        self: &Arc<Self>,
        state: SessionState,
        luggage: &mut Luggage,
        texts: &TextsTaken,
    ) -> io::Result<()> {
        let transport = inherited::connection(luggage.take(state.socket)?, state.given)?;
        let mut origin = self.origin(&state.came);
        self.gate.find(&mut origin);
        let refused = |reason: String| io::Error::new(io::ErrorKind::PermissionDenied, reason);
        let (peer, groups) = match self.admission.judge(&*transport) {
            Verdict::Admitted(peer) => (peer, None),
            Verdict::LookUp(peer, uid) => {
                let groups = Groups(groups_of(uid));
                match self.admission.judge_member(peer, &groups) {
                    Verdict::Admitted(peer) => (peer, Some(groups)),
                    _ => return Err(refused("its user and groups are not allowed".to_owned())),
                }
            }
            Verdict::Refused(why) => return Err(refused(why.reason)),
            Verdict::Gone | Verdict::NotReady => return Err(io::ErrorKind::NotConnected.into()),
        };
        let admitted = self.admit(peer).map_err(|why| refused(why.reason))?;
        let layout = origin.layout;
        let mut state = state;
        let outbox_state = std::mem::take(&mut state.outbox);
        let monitor = state.monitor.clone();
        let mut session =
            self.make_session(transport, origin, admitted, groups, |outbox, locals| {
                outbox.resume(outbox_state, texts);
                let locals = locals.with(Returning(monitor.id));
                self.dispatcher.reconnect(outbox, layout, locals, &monitor)
            });
        let resumed = session.resume(state, luggage, self.options.limits.message);
        // It is taken in however that ended, so that it ends in order.
        let client = Arc::clone(session.client());
        self.ask(Asked::Connected(Box::new(session)));
        if resumed.is_err() {
            client.abort();
        }
        resumed
    }

    fn origin(&self, came: &CameBy) -> Origin {
        let opened_as = came.listener.as_ref();
        let is_it = |(of, _): &&(Option<String>, _)| of.is_some() && of.as_ref() == opened_as;
        match self.doors.listeners.iter().find(is_it) {
            Some((_, origin)) => Origin { layout: came.layout(), ..origin.clone() },
            None => came.clone().into_origin(),
        }
    }
}

/// The number of a monitor that goes on. A [local](qmp_dispatch::Monitor::local) of it.
pub(crate) struct Returning(pub(crate) u64);
