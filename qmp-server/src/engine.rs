// SPDX-License-Identifier: MIT OR Apache-2.0
//! The engine: one loop and its threads, which host any number of servers.

mod alarm;
mod builder;
mod debt;
mod dispatcher_role;
mod event_loop;
#[cfg(feature = "mux")]
mod frozen;
mod gate;
#[cfg(feature = "mux")]
mod handover;
mod hosted;
mod leader;
mod link;
mod listening;
mod quick;
mod slab;
mod timers;
mod work;

use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, PoisonError};
use std::thread;
use std::time::Duration;

use self::alarm::StepIn;
pub use self::builder::EngineBuilder;
use self::builder::OnThreadStart;
use self::event_loop::{AllPosted, Loop, Posted};
#[cfg(feature = "mux")]
pub(crate) use self::frozen::{ArrivalState, Freezing, ListenerState, ServerState};
pub(crate) use self::gate::Gate;
#[cfg(feature = "mux")]
pub(crate) use self::handover::{Paused, Returning};
use self::hosted::Ask;
#[cfg(feature = "mux")]
pub(crate) use self::hosted::Doors;
pub(crate) use self::hosted::{Hosted, Observed, OnEnd, Options, OwnEvents, Plan, Whom};
use self::leader::{Lead, Leadership};
#[cfg(feature = "mux")]
pub(crate) use self::link::{Link, LinkInput, LinkNext};
pub(crate) use self::listening::Listening;
use crate::access::{Origin, Users};
use crate::io::Mailbox;
#[cfg(feature = "mux")]
use crate::io::Registration;
use crate::session::Cork;
use crate::transport::Transport;

/// Threads of an engine as long as nothing blocks: one that leads, and one that stands by.
const THREADS: usize = 2;

/// How long a thread that is not needed stays: longer than commands that block come one after the other, and no longer, because
/// one is started whenever the system lets a thread wait for a few milliseconds.
const PATIENCE: Duration = Duration::from_secs(1);

/// The threads that serve: any number of servers can share one engine.
///
/// Two threads are enough as long as nothing blocks. When a command does, the thread that stands by steps in after two
/// to four milliseconds and serves everybody else, and another one is started to stand by, up to a maximum. An engine
/// ends when it hosts nothing any more and all its handles are dropped.
///
/// [`Server::spawn`](crate::Server::spawn) makes an engine for one server. To have several share one:
///
/// ```
/// use qmp_dispatch::{Dispatcher, Registry};
/// use qmp_server::{Engine, Server, system_time, version};
///
/// let engine = Engine::new()?;
/// let server = || {
///     let dispatcher = Dispatcher::new(Registry::new(), version(), system_time);
///     Server::new(dispatcher).stay().spawn_on(&engine)
/// };
/// let (first, second) = (server()?, server()?);
/// # for server in [first, second] {
/// #     server.control().shutdown();
/// #     server.wait();
/// # }
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone)]
pub struct Engine {
    handle: Arc<Handle>,
}

/// What the clones of an [`Engine`] share. Dropped with the last one.
struct Handle(Arc<EngineShared>);

/// What a new thread does first.
#[derive(Clone, Copy)]
enum Start {
    Leading,
    StandingBy,
}

struct EngineShared {
    leadership: Leadership<Loop, StepIn>,
    mailbox: Arc<Mailbox>,
    posted: Arc<AllPosted>,
    ask: Ask,
    cork: Arc<Cork>,
    threads: AtomicUsize,
    most_threads: usize,
    thread_name: String,
    on_thread_start: OnThreadStart,
    /// What users take of all servers.
    users: Arc<Users>,
    /// Whether there are handles, through which more may be hosted.
    is_needed: AtomicBool,
    /// The log has told that all threads are blocked, and they still are.
    told_of_block: AtomicBool,
}

impl Engine {
    /// Starts an engine with the default settings, which hosts nothing yet.
    ///
    /// # Errors
    ///
    /// If the system has no descriptors or threads left.
    pub fn new() -> io::Result<Engine> {
        Engine::builder().start()
    }

    /// Returns a builder, for other settings than the default ones.
    pub fn builder() -> EngineBuilder {
        EngineBuilder::new()
    }

    fn start(settings: EngineBuilder) -> io::Result<Engine> {
        let EngineBuilder { most_threads, thread_name, on_thread_start, per_user } = settings;
        let mailbox = Arc::new(Mailbox::new()?);
        let posted = Arc::new(AllPosted::default());
        let ask: Ask = {
            let (posted, mailbox) = (Arc::clone(&posted), Arc::clone(&mailbox));
            Arc::new(move |server, asked| post(&posted, &mailbox, Posted::Asked(server, asked)))
        };
        let cork = Arc::new(Cork::new(&mailbox));
        let event_loop = Loop::new(Arc::clone(&mailbox), Arc::clone(&posted), Arc::clone(&cork))?;
        let shared = Arc::new(EngineShared {
            leadership: Leadership::new(event_loop, StepIn::new()?),
            mailbox,
            posted,
            ask,
            cork,
            threads: AtomicUsize::new(0),
            most_threads,
            thread_name,
            on_thread_start,
            users: Arc::new(Users::new(per_user)),
            is_needed: AtomicBool::new(true),
            told_of_block: AtomicBool::new(false),
        });
        let engine = Engine { handle: Arc::new(Handle(Arc::clone(&shared))) };
        for number in 0..THREADS {
            let start = if number == 0 { Start::Leading } else { Start::StandingBy };
            let panicked = |_| io::Error::other("`on_thread_start` has panicked");
            shared.start_thread(start)?.recv().map_err(panicked)?;
        }
        Ok(engine)
    }

    /// Returns the number of threads: two, and more only while commands block.
    pub fn threads(&self) -> usize {
        self.handle.0.threads.load(Ordering::SeqCst)
    }

    /// Hosts a server. Its connections are greeted when this returns.
    pub(crate) fn host(
        &self,
        plan: Plan,
        listeners: Vec<Listening>,
        connections: Vec<(Box<dyn Transport>, Origin)>,
    ) -> io::Result<Arc<Hosted>> {
        let (reply, replied) = sync_channel(1);
        let server = self.begin_to_host(plan, listeners, connections, Some(reply));
        let ended = |_| io::Error::new(io::ErrorKind::BrokenPipe, "the engine has ended");
        replied.recv().map_err(ended)??;
        Ok(server)
    }

    /// Hosts a server without waiting for the loop, so that a thread of the engine may call this. What goes wrong is
    /// logged, and ends the server.
    #[cfg(feature = "mux")]
    pub(crate) fn host_later(
        &self,
        plan: Plan,
        listeners: Vec<Listening>,
        connections: Vec<(Box<dyn Transport>, Origin)>,
    ) -> Arc<Hosted> {
        self.begin_to_host(plan, listeners, connections, None)
    }

    fn begin_to_host(
        &self,
        plan: Plan,
        listeners: Vec<Listening>,
        connections: Vec<(Box<dyn Transport>, Origin)>,
        reply: Option<SyncSender<io::Result<()>>>,
    ) -> Arc<Hosted> {
        let shared = &self.handle.0;
        let stays = plan.options.stay || !listeners.is_empty();
        let server = Hosted::new(plan, &shared.mailbox, &shared.ask, &shared.cork, &shared.users);
        // Before what is posted for its connections: the loop takes this in that order.
        shared.post(Posted::Host { server: Arc::clone(&server), listeners, reply });
        let mut any = false;
        for (transport, origin) in connections {
            any |= server.serve(transport, origin).is_ok();
        }
        if !any && !stays {
            server.stop();
        }
        server
    }

    /// The registration of a source that is to be added.
    #[cfg(feature = "mux")]
    pub(crate) fn register(&self) -> Arc<Registration> {
        Registration::new(&self.handle.0.mailbox)
    }

    /// Hosts a link, with a registration of this engine.
    #[cfg(feature = "mux")]
    pub(crate) fn add_link(&self, link: Box<dyn Link>) {
        self.handle.0.post(Posted::AddLink(link));
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("threads", &self.threads()).finish_non_exhaustive()
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.is_needed.store(false, Ordering::SeqCst);
        self.0.mailbox.wake();
    }
}

impl EngineShared {
    fn post(&self, posted: Posted) {
        post(&self.posted, &self.mailbox, posted);
    }

    /// Starts a thread. The receiver gets a message when the thread has been set up, and an error if that has panicked.
    fn start_thread(self: &Arc<Self>, start: Start) -> io::Result<Receiver<()>> {
        let number = self.threads.fetch_add(1, Ordering::SeqCst);
        let shared = Arc::clone(self);
        let (set_up, is_set_up) = sync_channel(1);
        let work = move || {
            if catch_unwind(AssertUnwindSafe(|| (shared.on_thread_start)())).is_ok() {
                // Fails if nothing waits for it.
                let _ = set_up.send(());
                shared.work(start);
            } else {
                tracing::error!("a thread ends: `on_thread_start` has panicked");
            }
            shared.threads.fetch_sub(1, Ordering::SeqCst);
        };
        let name = format!("{}-{number}", self.thread_name);
        let spawned = thread::Builder::new().name(name).spawn(work);
        if spawned.is_err() {
            self.threads.fetch_sub(1, Ordering::SeqCst);
        }
        spawned.map(|_| is_set_up)
    }

    /// What each thread does: it leads, or stands by until it does.
    fn work(self: &Arc<Self>, start: Start) {
        let mut lead = match start {
            Start::Leading => self.leadership.try_lead(),
            // The leadership may be free because a command runs: who takes it then must leave somebody standing by.
            Start::StandingBy => None,
        };
        loop {
            if lead.is_none() {
                lead = self.leadership.stand_by(PATIENCE);
                // Who was to write these is held up.
                self.cork.flush();
                self.have_follower();
            }
            match lead {
                Some(leading) => lead = self.lead(leading),
                None => return,
            }
        }
    }

    /// Leads until another thread does, and returns `None` then.
    fn lead<'a>(&'a self, mut leading: Lead<'a, Loop>) -> Option<Lead<'a, Loop>> {
        leading.look_at_clock();
        loop {
            let is_needed = || self.is_needed.load(Ordering::SeqCst);
            let Some(work) = leading.next_work(is_needed) else {
                self.leadership.end();
                return None;
            };
            if !work.is_quick() {
                self.cork.flush();
            }
            leading.work_begins();
            self.leadership.let_go(leading);
            let done = work.run(&self.cork);
            match self.leadership.try_lead() {
                Some(again) => leading = again,
                None => {
                    // Who leads is woken by this, and writes what this has corked.
                    self.post(Posted::Ran(done));
                    return None;
                }
            }
            leading.work_ended(done);
        }
    }

    /// Whoever has stepped in leaves nobody standing by: another thread does, unless there are too many.
    fn have_follower(self: &Arc<Self>) {
        if self.leadership.has_ended() || self.leadership.has_follower() {
            return;
        }
        if self.threads.load(Ordering::SeqCst) >= self.most_threads {
            if !self.told_of_block.swap(true, Ordering::SeqCst) {
                let most = self.most_threads;
                tracing::warn!(
                    "{most} threads are busy with commands: nobody will step in for one more that blocks"
                );
            }
            return;
        }
        self.told_of_block.store(false, Ordering::SeqCst);
        if let Err(error) = self.start_thread(Start::StandingBy) {
            tracing::error!(%error, "cannot start a thread to stand by");
        }
    }
}

fn post(all: &AllPosted, mailbox: &Mailbox, posted: Posted) {
    all.lock().unwrap_or_else(PoisonError::into_inner).push(posted);
    mailbox.wake();
}
