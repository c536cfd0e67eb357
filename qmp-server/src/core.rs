// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the threads of a server share, and what each of them does.
//!
//! A thread waits for readiness, alone while requests keep coming, and else together with the others.
//! Whoever is told of it reads, executes what is out-of-band, queues what is in-band, and then takes
//! the role of the dispatcher, if it is free, and executes what is queued. So the usual request is
//! read, executed and answered on one thread, and while one command blocks, another thread goes on
//! reading.

mod bounds;
mod clients;
mod ending;
mod negotiation;
mod standby;
mod status;
mod turn;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use qmp_dispatch::{Dispatcher, MonitorId};
use qmp_queue::Queue;

use crate::Limits;
use crate::admission::{Admission, CHECK_AGAIN};
use crate::figures::Figures;
use crate::observed::Observed;
use crate::poller::{Poller, Ready, Reports, Token, Wanted};
use crate::server::{Discipline, Options, Server};
use crate::session::{Job, Next, Session};
use crate::signal::Signal;
use crate::usage::Usage;

pub(crate) use clients::Listening;
use standby::{Standby, Watch};
pub(crate) use turn::Execution;

/// Sessions are numbered from here, listeners below.
const FIRST_SESSION: Token = 1 << 32;

/// What a thread reads at a time.
const SCRATCH_SIZE: usize = 64 << 10;

/// How long a client waits at least that could not be accepted.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

pub(crate) struct Core {
    poller: Arc<Poller>,
    queue: Queue<Job>,
    options: Options,
    /// Readable while something can be popped, if it is not for the threads to do so.
    embedder: Option<Arc<Signal>>,
    /// Somebody has the [`turn::Turn`].
    dispatching: AtomicBool,
    /// Clients that wait to complete negotiation.
    negotiating: Arc<AtomicUsize>,
    /// In-band requests that are being executed.
    executing: AtomicUsize,
    dispatcher: Dispatcher,
    listening: Vec<Listening>,
    admission: Admission,
    sessions: Mutex<BTreeMap<Token, Arc<Session>>>,
    /// Those that are read from again when others have had their turn.
    again: Mutex<Vec<Arc<Session>>>,
    usage: Usage,
    observed: Observed,
    /// How many clients do not read what waits for them.
    blocked: Arc<AtomicUsize>,
    last_token: AtomicU64,
    stopping: AtomicBool,
    /// Whose command has stopped the server, if one has.
    ended_by: OnceLock<MonitorId>,
    /// Notified when the server is stopping, and then when an [`Execution`] ends.
    changed: Condvar,
    change: Mutex<()>,
    /// A client could not be accepted, for want of descriptors.
    accept_again: AtomicBool,
    standby: Standby,
    /// How many threads have returned.
    returned: AtomicUsize,
}

impl Core {
    pub(crate) fn dispatcher(&self) -> &Dispatcher {
        &self.dispatcher
    }

    /// With an `embedder`, what is in-band is left to whoever polls that.
    pub(crate) fn new(server: Server, embedder: Option<Arc<Signal>>) -> io::Result<Arc<Core>> {
        let Server { dispatcher, listening, connections, access, options, observed, doorkeeper } =
            server;
        let queue = match &embedder {
            None => Queue::new(),
            Some(signal) => {
                let signal = Arc::clone(signal);
                Queue::with_wake_hook(move || signal.set())
            }
        };
        let core = Arc::new(Core {
            poller: Arc::new(Poller::new()?),
            queue,
            embedder,
            dispatching: AtomicBool::new(false),
            negotiating: Arc::default(),
            executing: AtomicUsize::new(0),
            dispatcher,
            listening,
            admission: Admission::new(access, Arc::clone(observed.figures()), doorkeeper),
            sessions: Mutex::default(),
            again: Mutex::default(),
            usage: Usage::new(&options.limits),
            observed,
            blocked: Arc::default(),
            last_token: AtomicU64::new(FIRST_SESSION),
            stopping: AtomicBool::new(false),
            ended_by: OnceLock::new(),
            changed: Condvar::new(),
            change: Mutex::new(()),
            accept_again: AtomicBool::new(false),
            standby: Standby::default(),
            returned: AtomicUsize::new(0),
            options,
        });
        core.observed.set_core(&core);
        for (token, listening) in (0..).zip(&core.listening) {
            core.poller.add(listening.listener.as_fd(), token, Wanted::Input)?;
        }
        let waker = Arc::downgrade(&core);
        let wake = move || {
            if let Some(core) = waker.upgrade() {
                core.poller.wake();
            }
        };
        if !core.dispatcher.set_timeout_hook(wake) {
            tracing::warn!("another server keeps the time of this dispatcher");
        }
        for (transport, entrance) in connections {
            core.connect(transport, entrance)?;
        }
        if core.sessions().is_empty() {
            core.stop_if_nobody_can_come();
        }
        Ok(core)
    }

    /// What each of `threads` threads does until the server is stopped. The last one to return waits
    /// for what is being executed and ends all connections.
    pub(crate) fn work(self: &Arc<Self>, threads: usize) {
        // Handlers have their own net; this one is for the code of embedders around them.
        while catch_unwind(AssertUnwindSafe(|| self.serve())).is_err() {
            tracing::error!("a thread of the server has panicked, and goes on");
        }
        if self.returned.fetch_add(1, Ordering::AcqRel) + 1 == threads {
            self.wait_for_answer();
            self.finish();
        }
    }

    fn serve(self: &Arc<Self>) {
        lend_buffer();
        WORKS_FOR.set(Arc::as_ptr(self));
        let mut watch = Watch::new(self);
        let mut reports = Reports::new();
        while !self.is_stopping() {
            if self.has_nothing_to_do() {
                self.stand_by(&mut watch);
            }
            let mut timeout = match self.has_nothing_to_do() {
                true => self.dispatcher.timeout(),
                false => Some(Duration::ZERO),
            };
            if self.accept_again.load(Ordering::Acquire) {
                timeout = Some(timeout.unwrap_or(ACCEPT_AGAIN).min(ACCEPT_AGAIN));
            }
            if !self.admission.nobody_waits() {
                timeout = Some(timeout.unwrap_or(CHECK_AGAIN).min(CHECK_AGAIN));
            }
            if let Some(again) = self.negotiation_timeout() {
                timeout = Some(timeout.unwrap_or(again).min(again));
            }
            if let Some(again) = self.bounds_timeout() {
                timeout = Some(timeout.unwrap_or(again).min(again));
            }
            if let Err(error) = watch.wait(|| self.poller.wait(timeout, &mut reports)) {
                tracing::error!(%error, "cannot wait for clients");
                self.stop();
            }
            if timeout.is_some() {
                self.dispatcher.handle_timeout();
            }
            if self.accept_again.load(Ordering::Acquire)
                && self.accept_again.swap(false, Ordering::AcqRel)
            {
                (0..).take(self.listening.len()).for_each(|token| self.accept(token));
            }
            for ready in reports.iter() {
                self.handle(ready);
            }
            let again = std::mem::take(&mut *lock(&self.again));
            again.iter().for_each(|session| self.read(session));
            if !self.admission.nobody_waits() {
                self.admission.overdue().into_iter().for_each(|token| self.readmit(token));
            }
            self.dispatch();
            self.negotiate();
            self.keep_bounds();
        }
    }

    /// Whether nothing is queued that this thread may execute.
    fn has_nothing_to_do(&self) -> bool {
        self.embedder.is_some() || self.queue.is_idle() || self.dispatching.load(Ordering::Acquire)
    }

    fn handle(self: &Arc<Self>, ready: Ready) {
        if ready.token < FIRST_SESSION {
            return self.accept(ready.token);
        }
        let session = self.sessions().get(&ready.token).cloned();
        if let Some(session) = session {
            session.ready(ready);
            self.read(&session);
        } else if !self.admission.nobody_waits() {
            self.readmit(ready.token);
        }
    }

    /// Reads from a session on this thread, or has another thread do it if this one cannot.
    pub(crate) fn read(&self, session: &Arc<Session>) {
        if self.is_stopping() {
            return;
        }
        let next = match SCRATCH.take() {
            Some(mut scratch) => {
                let next = session.read(&mut scratch);
                SCRATCH.set(Some(scratch));
                next
            }
            None => Next::Again,
        };
        match next {
            Next::Wait => {}
            Next::Again => self.read_later(session),
            Next::Close => self.close(session),
        }
    }

    /// Reads from a session whose monitor has been resumed, if there may be anything.
    pub(crate) fn read_on(&self, session: &Arc<Session>) {
        if session.has_input() {
            self.read(session);
        }
    }

    pub(crate) fn observed(&self) -> &Observed {
        &self.observed
    }

    pub(crate) fn figures(&self) -> &Arc<Figures> {
        self.observed.figures()
    }

    /// Has a thread read from a session when it has looked after others, whether the transport has
    /// anything to tell or not: what there is to read may have been received already.
    pub(crate) fn read_later(&self, session: &Arc<Session>) {
        lock(&self.again).push(Arc::clone(session));
        self.poller.wake();
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.options.limits
    }

    pub(crate) fn discipline(&self) -> Discipline {
        self.options.discipline
    }

    pub(crate) fn shutdown_deadline(&self) -> Duration {
        self.options.shutdown_deadline
    }

    fn sessions(&self) -> MutexGuard<'_, BTreeMap<Token, Arc<Session>>> {
        lock(&self.sessions)
    }
}

/// Lets this thread read from clients that it has answered, instead of waking one of the server's to do so.
pub(crate) fn lend_buffer() {
    SCRATCH.set(Some(vec![0; SCRATCH_SIZE].into()));
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

thread_local! {
    /// What a thread reads into; `None` while it is being used, and on threads that have not [lent](lend_buffer) any.
    static SCRATCH: Cell<Option<Box<[u8]>>> = const { Cell::new(None) };
    /// Whose thread this is; null on other threads.
    static WORKS_FOR: Cell<*const Core> = const { Cell::new(ptr::null()) };
}
