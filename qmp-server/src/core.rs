// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the threads of a server share, and what each of them does.
//!
//! All threads wait for readiness together. Whoever is told of it reads, executes what is
//! out-of-band, queues what is in-band, and then takes the role of the dispatcher, if it is free,
//! and executes what is queued. So the usual request is read, executed and answered on one thread,
//! and while one command blocks, the other threads go on reading.

use std::cell::Cell;
use std::collections::HashMap;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use qmp_dispatch::proto::Layout;
use qmp_dispatch::{Dispatcher, Locals};
use qmp_queue::{Mode, Queue};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::admission::{Admission, CHECK_AGAIN, Candidate, Verdict};
use crate::control::Control;
use crate::descriptors::Descriptors;
use crate::outbox::Outbox;
use crate::poller::{Poller, Ready, Token};
use crate::server::Discipline;
use crate::session::{Job, Next, Session, execute};
use crate::{Access, Listener, Peer, Transport};

/// Sessions are numbered from here, listeners below.
const FIRST_SESSION: Token = 1 << 32;

/// What a thread reads at a time.
const SCRATCH_SIZE: usize = 64 << 10;

/// So many commands are executed before the clients are looked at again, so that whoever has just
/// sent one does not wait for all that others keep sending.
const COMMANDS_PER_ROUND: usize = 32;

/// How long a client waits at least that could not be accepted.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// How long a command that is being executed may hold up the end of the server.
pub(crate) const ANSWER_DEADLINE: Duration = Duration::from_secs(5);

/// How long the clients of a server that ends may take to read what is left for them.
const FLUSH_DEADLINE: Duration = Duration::from_secs(1);

pub(crate) struct Core {
    poller: Poller,
    queue: Queue<Job>,
    discipline: Discipline,
    /// Somebody has the [`Turn`].
    dispatching: AtomicBool,
    /// In-band requests that are being executed.
    executing: AtomicUsize,
    dispatcher: Dispatcher,
    listening: Vec<Listening>,
    admission: Admission,
    sessions: Mutex<HashMap<Token, Arc<Session>>>,
    last_token: AtomicU64,
    stopping: AtomicBool,
    /// Notified when the server is stopping, and then when an [`Execution`] ends.
    changed: Condvar,
    change: Mutex<()>,
    /// A client could not be accepted, for want of descriptors.
    accept_again: AtomicBool,
    /// How many threads have returned.
    returned: AtomicUsize,
}

/// A listener, and how its monitors are to be.
pub(crate) struct Listening {
    pub(crate) listener: Box<dyn Listener>,
    pub(crate) layout: Layout,
    cleaned_up: AtomicBool,
}

impl Listening {
    pub(crate) fn new(listener: Box<dyn Listener>, layout: Layout) -> Listening {
        Listening { listener, layout, cleaned_up: AtomicBool::new(false) }
    }

    fn clean_up(&self) {
        if !self.cleaned_up.swap(true, Ordering::AcqRel) {
            self.listener.clean_up();
        }
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.clean_up();
    }
}

impl Core {
    pub(crate) fn new(
        dispatcher: Dispatcher,
        listening: Vec<Listening>,
        connections: Vec<(Box<dyn Transport>, Layout)>,
        access: Access,
        discipline: Discipline,
    ) -> io::Result<Arc<Core>> {
        let core = Arc::new(Core {
            poller: Poller::new()?,
            queue: Queue::new(),
            discipline,
            dispatching: AtomicBool::new(false),
            executing: AtomicUsize::new(0),
            dispatcher,
            listening,
            admission: Admission::new(access),
            sessions: Mutex::default(),
            last_token: AtomicU64::new(FIRST_SESSION),
            stopping: AtomicBool::new(false),
            changed: Condvar::new(),
            change: Mutex::new(()),
            accept_again: AtomicBool::new(false),
            returned: AtomicUsize::new(0),
        });
        for (token, listening) in (0..).zip(&core.listening) {
            core.poller.add(listening.listener.as_fd(), token)?;
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
        for (transport, layout) in connections {
            core.connect(transport, layout, None)?;
        }
        if core.listening.is_empty() && core.sessions().is_empty() {
            core.stop();
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
            self.wait_for_answer(ANSWER_DEADLINE);
            self.finish();
        }
    }

    fn serve(self: &Arc<Self>) {
        SCRATCH.set(Some(vec![0; SCRATCH_SIZE].into()));
        WORKS_FOR.set(Arc::as_ptr(self));
        let mut ready = Vec::new();
        while !self.is_stopping() {
            let nothing_to_do = self.queue.is_idle() || self.dispatching.load(Ordering::Acquire);
            let timeout = self.dispatcher.timeout();
            let mut timeout = if nothing_to_do { timeout } else { Some(Duration::ZERO) };
            if self.accept_again.load(Ordering::Acquire) {
                timeout = Some(timeout.unwrap_or(ACCEPT_AGAIN).min(ACCEPT_AGAIN));
            }
            if !self.admission.nobody_waits() {
                timeout = Some(timeout.unwrap_or(CHECK_AGAIN).min(CHECK_AGAIN));
            }
            if let Err(error) = self.poller.wait(timeout, &mut ready) {
                tracing::error!(%error, "cannot wait for clients");
                self.stop();
            }
            if timeout.is_some() {
                self.dispatcher.handle_timeout();
            }
            if self.accept_again.swap(false, Ordering::AcqRel) {
                (0..).take(self.listening.len()).for_each(|token| self.accept(token));
            }
            for ready in ready.drain(..) {
                self.handle(ready);
            }
            if !self.admission.nobody_waits() {
                self.admission.overdue().into_iter().for_each(|token| self.readmit(token));
            }
            self.dispatch();
        }
    }

    fn handle(self: &Arc<Self>, ready: Ready) {
        if ready.token < FIRST_SESSION {
            return self.accept(ready.token);
        }
        let session = self.sessions().get(&ready.token).cloned();
        if let Some(session) = session {
            session.ready(ready.writable);
            self.read(&session);
        } else if !self.admission.nobody_waits() {
            self.readmit(ready.token);
        }
    }

    /// Reads from a session on this thread, or has another thread do it if this one cannot.
    pub(crate) fn read(&self, session: &Arc<Session>) {
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
            Next::Again => {
                let _ = self.poller.repeat(session.transport.as_fd(), session.token);
            }
            Next::Close => self.close(session),
        }
    }

    /// Executes what is queued, as long as no other thread is doing so, and until it is time to read
    /// from the others again.
    fn dispatch(self: &Arc<Self>) {
        for _ in 0..COMMANDS_PER_ROUND {
            if self.queue.is_idle() || self.is_stopping() {
                return;
            }
            let Some(turn) = Turn::take(self) else { return };
            let Some(popped) = self.queue.try_pop() else { return };
            // This thread is going to be busy, and may be the only one that knows of it.
            if self.dispatcher.timeout().is_some() {
                self.poller.wake();
            }
            execute(self, popped, turn);
        }
    }

    fn accept(self: &Arc<Self>, token: Token) {
        let Some(index) = usize::try_from(token).ok() else { return };
        let Some(listening) = self.listening.get(index) else { return };
        loop {
            let accepted = listening
                .listener
                .accept()
                .and_then(|transport| self.connect(transport, listening.layout, Some(index)));
            match accepted {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    // Most likely there are no descriptors left, for now.
                    tracing::debug!(%error, "cannot accept a client");
                    self.accept_again.store(true, Ordering::Release);
                    return;
                }
            }
        }
    }

    fn connect(
        self: &Arc<Self>,
        transport: Box<dyn Transport>,
        layout: Layout,
        listener: Option<usize>,
    ) -> io::Result<()> {
        let candidate = Candidate::new(transport, layout, listener);
        match self.admission.judge(&candidate) {
            Verdict::Refused => Ok(()),
            Verdict::Admitted(peer) => self.greet(candidate, peer, None),
            Verdict::Undecided => {
                let token = self.last_token.fetch_add(1, Ordering::Relaxed);
                self.poller.add(candidate.transport.as_fd(), token)?;
                self.admission.put(token, candidate);
                // What was told before it could be found.
                self.readmit(token);
                Ok(())
            }
        }
    }

    /// Looks again at a client that has not been greeted yet.
    fn readmit(self: &Arc<Self>, token: Token) {
        match self.admission.judge_again(token) {
            Some((candidate, Verdict::Admitted(peer))) => {
                let _ = self.greet(candidate, peer, Some(token));
            }
            Some((candidate, _)) => self.poller.remove(candidate.transport.as_fd()),
            None => {}
        }
    }

    /// Makes a client a session. It has a token if it is being polled already.
    fn greet(
        self: &Arc<Self>,
        candidate: Candidate,
        peer: Peer,
        polled: Option<Token>,
    ) -> io::Result<()> {
        let Candidate { transport, layout, listener, .. } = candidate;
        let transport: Arc<dyn Transport> = transport.into();
        let outbox = Arc::new(Outbox::new(Arc::clone(&transport)));
        let control = Control::new(Arc::downgrade(self));
        tracing::debug!(%peer, "client connected");
        let locals = Locals::default().with(Descriptors::default()).with(control).with(peer);
        let monitor = self.dispatcher.connect(outbox.clone(), layout, locals);
        let producer = self.queue.register(Mode::OneInProgress);
        let token = polled.unwrap_or_else(|| self.last_token.fetch_add(1, Ordering::Relaxed));
        let session = Session::new(token, listener, transport, outbox, monitor, producer);
        let session = Arc::new(session);
        self.sessions().insert(token, Arc::clone(&session));
        let fd = session.transport.as_fd();
        let added = match polled {
            None => self.poller.add(fd, token),
            // For what was ready already.
            Some(_) => self.poller.repeat(fd, token),
        };
        if added.is_err() {
            self.close(&session);
        }
        added
    }

    /// Ends a connection and forgets it.
    fn close(&self, session: &Arc<Session>) {
        self.poller.remove(session.transport.as_fd());
        if !session.close() {
            return;
        }
        let mut sessions = self.sessions();
        sessions.remove(&session.token);
        let nobody_left = sessions.is_empty() && self.listening.is_empty();
        drop(sessions);
        if nobody_left {
            self.stop();
        }
    }

    /// The listeners that accept clients, by their index.
    pub(crate) fn listening(&self) -> &[Listening] {
        &self.listening
    }

    /// Ends all connections of a listener at once: nothing more is sent to them.
    pub(crate) fn abort_connections(&self, listener: usize) {
        let sessions: Vec<_> = self.sessions().values().cloned().collect();
        for session in sessions.iter().filter(|session| session.listener == Some(listener)) {
            session.kill_output();
            self.close(session);
        }
    }

    /// Makes the threads return, each when it has done what it is doing.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        self.tell_change();
        self.poller.stop();
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    fn tell_change(&self) {
        // Not between a look at what has changed and the wait that follows.
        drop(lock(&self.change));
        self.changed.notify_all();
    }

    /// Waits until somebody has [stopped](Core::stop) the server.
    pub(crate) fn wait_for_stop(&self) {
        let waited = self.changed.wait_while(lock(&self.change), |()| !self.is_stopping());
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }

    /// Waits until the commands that are being executed have been answered.
    fn wait_for_answer(&self, at_most: Duration) {
        let executing = |(): &mut ()| self.executing.load(Ordering::SeqCst) > 0;
        let waited = self.changed.wait_timeout_while(lock(&self.change), at_most, executing);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }

    /// Lets no more clients find the server, sends the others what is left for them, for a while,
    /// and ends all connections.
    pub(crate) fn finish(&self) {
        // Not left to the end of `self`: a thread that hangs in a command keeps it.
        self.listening.iter().for_each(Listening::clean_up);
        let sessions: Vec<_> = self.sessions().values().cloned().collect();
        let deadline = Instant::now() + FLUSH_DEADLINE;
        loop {
            // All of them at a time: who does not read must not take the time of who does.
            let unsent: Vec<_> = sessions.iter().filter(|session| !session.flush()).collect();
            let left = deadline.saturating_duration_since(Instant::now());
            if unsent.is_empty() || left.is_zero() {
                break;
            }
            let mut fds: Vec<_> = unsent
                .iter()
                .map(|session| PollFd::from_borrowed_fd(session.transport.as_fd(), PollFlags::OUT))
                .collect();
            let timeout = Timespec::try_from(left).unwrap_or_default();
            if poll(&mut fds, Some(&timeout)).is_err() {
                break;
            }
        }
        let mut scratch = vec![0; SCRATCH_SIZE];
        for session in &sessions {
            session.discard_input(&mut scratch);
            self.close(session);
        }
    }

    /// Has a thread look at the queue, if something can be popped.
    pub(crate) fn tell_of_queue(&self) {
        // The server's own threads look at the queue before they wait.
        let own_thread = ptr::eq(WORKS_FOR.get(), ptr::from_ref(self));
        if !own_thread && !self.queue.is_idle() {
            self.poller.wake();
        }
    }

    pub(crate) fn discipline(&self) -> Discipline {
        self.discipline
    }

    fn sessions(&self) -> MutexGuard<'_, HashMap<Token, Arc<Session>>> {
        lock(&self.sessions)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

thread_local! {
    /// What a thread of a server reads into; `None` on other threads, and while it is being used.
    static SCRATCH: Cell<Option<Box<[u8]>>> = const { Cell::new(None) };
    /// Whose thread this is; null on other threads.
    static WORKS_FOR: Cell<*const Core> = const { Cell::new(ptr::null()) };
}

/// The role of the dispatcher: whoever has it executes one in-band request, and has it until that
/// has been answered.
pub(crate) struct Turn {
    core: Arc<Core>,
}

impl Turn {
    /// `None` if somebody has it.
    fn take(core: &Arc<Core>) -> Option<Turn> {
        // Made only when the role was free: dropping it frees the role.
        let free = !core.dispatching.swap(true, Ordering::SeqCst);
        free.then(|| Turn { core: Arc::clone(core) })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        // Not just a store: whoever failed to take the turn has queued something, which is seen below.
        self.core.dispatching.swap(false, Ordering::SeqCst);
        self.core.tell_of_queue();
    }
}

/// One in-band request that is being executed, until it has been answered.
pub(crate) struct Execution {
    core: Arc<Core>,
}

impl Execution {
    pub(crate) fn begin(core: &Arc<Core>) -> Execution {
        core.executing.fetch_add(1, Ordering::SeqCst);
        Execution { core: Arc::clone(core) }
    }

    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.core
    }
}

impl Drop for Execution {
    fn drop(&mut self) {
        self.core.executing.fetch_sub(1, Ordering::SeqCst);
        if self.core.is_stopping() {
            self.core.tell_change();
        }
    }
}
