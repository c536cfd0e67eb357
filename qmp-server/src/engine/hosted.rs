// SPDX-License-Identifier: MIT OR Apache-2.0
//! One server, for the threads that execute its requests, look at it or end it.

#[cfg(feature = "metrics")]
use std::any::Any;
use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use qmp_dispatch::proto::Dialect;
use qmp_dispatch::{Dispatcher, Locals, Monitor, MonitorId};
use qmp_queue::Queue;
use tracing::Span;

use super::dispatcher_role::DispatcherRole;
use super::gate::{Gate, GateState};
use super::quick::QuickRuns;
use crate::access::{
    Accounts, Admission, Groups, Ledger, Limits, Notices, Origin, Policy, Refused, Users, Verdict,
    owner_of,
};
use crate::io::{Mailbox, Notice, Registration, STRANGERS, Waker, close_aside};
use crate::observe::{ClientStatus, Counters, Gauges, Refusal, ServerStatus, milliseconds};
use crate::session::{
    Complete, ConnectedClient, Cork, Descriptors, Discipline, EVENTS_MISSED, Large, Missed,
    OWN_NAMES, Outbox, Parts, QueuedRequest, Session,
};
use crate::transport::{Address, Closing, Peer, Renewal, Transport};

/// How long everything may take at the end besides what is executed.
const END_DEADLINE: Duration = Duration::from_secs(2);

/// How a server is to behave.
#[derive(Clone, Copy)]
pub(crate) struct Options {
    pub(crate) discipline: Discipline,
    pub(crate) limits: Limits,
    /// How long what is being executed may hold up the end of the server.
    pub(crate) shutdown_deadline: Duration,
    /// Goes on without clients, even if it listens nowhere.
    pub(crate) stay: bool,
    /// `None` for that of the version in the greeting.
    pub(crate) dialect: Option<Dialect>,
    /// What clients find at first.
    pub(crate) gate: Gate,
    /// Whether only those clients get the server's own events that come in by doors, or have roles, with notices.
    pub(crate) own_events: OwnEvents,
}

/// Who gets the server's own events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OwnEvents {
    /// All clients.
    ForAll,
    /// Those that come in by doors, or have roles, with notices.
    #[cfg_attr(not(feature = "mux"), allow(dead_code, reason = "only a mux has other clients"))]
    WithNotices,
}

/// What every client's monitor is given by the server, besides what the core gives.
pub(crate) type Furnish = Box<dyn Fn(&Arc<Hosted>, Locals) -> Locals + Send + Sync>;

/// Calls something foreign when it is dropped: when the server has ended, or will never run.
pub(crate) struct OnEnd(Option<Box<dyn FnOnce() + Send + Sync>>);

impl OnEnd {
    pub(crate) fn new(hook: impl FnOnce() + Send + Sync + 'static) -> OnEnd {
        OnEnd(Some(Box::new(hook)))
    }
}

impl Drop for OnEnd {
    fn drop(&mut self) {
        if let Some(hook) = self.0.take() {
            hook();
        }
    }
}

/// What other threads may use of a server.
pub(crate) struct Hosted {
    pub(super) registration: Arc<Registration>,
    ask: Ask,
    pub(crate) dispatcher: Dispatcher,
    pub(super) queue: Queue<QueuedRequest>,
    pub(crate) options: Options,
    pub(super) accounts: Arc<Accounts>,
    pub(crate) observed: Observed,
    pub(crate) counters: Arc<Counters>,
    pub(super) admission: Admission,
    pub(super) gate: GateState,
    furnish: Furnish,
    /// What the log says of the server is said in it.
    pub(super) span: Span,
    on_end: Mutex<Option<OnEnd>>,
    /// Readable while a request can be executed or the server ends, if an embedder executes requests.
    pub(super) embedder: Option<Arc<Waker>>,
    pub(super) role: DispatcherRole,
    pub(super) quick_runs: QuickRuns,
    /// Of the engine.
    pub(super) cork: Arc<Cork>,
    /// In-band requests that are being executed.
    pub(super) executing: AtomicUsize,
    /// Clients that were greeted and have not left.
    clients: Mutex<BTreeMap<MonitorId, Arc<ConnectedClient>>>,
    /// Of its listeners, in their order.
    pub(crate) addresses: Vec<Address>,
    /// Of those listeners that have read files.
    pub(crate) renewals: Vec<(Address, Renewal)>,
    /// For another program that takes over.
    #[cfg(feature = "mux")]
    pub(crate) doors: Doors,
    stopping: AtomicBool,
    /// Whose command has stopped the server, if one has.
    ended_by: OnceLock<MonitorId>,
    end: Mutex<Lifecycle>,
    ended: Condvar,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Lifecycle {
    Running,
    Stopping,
    Ended,
}

/// What a server asks of the loop that hosts it, or is about to.
pub(super) enum Asked {
    /// A client was greeted.
    Connected(Box<Session>),
    /// A client wants to be let in.
    Arrived(Box<dyn Transport>, Origin),
    /// A client has come that may have to wait until the doors are opened.
    Early(Box<dyn Transport>, Origin),
    /// More of a large message of a client was read.
    Read { client: Arc<ConnectedClient>, large: Box<Large>, complete: Option<Complete> },
    /// Clients are to be disconnected.
    Disconnect(Whom),
    /// The gate is to be opened or shut.
    #[cfg_attr(not(feature = "mux"), allow(dead_code, reason = "other servers are open"))]
    Gate(Gate),
    /// What was left of a session has been dropped.
    Forgotten,
}

/// Has the loop of an engine take in what a server asks for.
pub(super) type Ask = Arc<dyn Fn(Arc<Hosted>, Asked) + Send + Sync>;

/// Whom to disconnect.
pub(crate) enum Whom {
    /// All clients.
    All,
    /// Those that get no notices.
    Uninformed,
    These(Vec<Arc<ConnectedClient>>),
}

/// What has become of a connection that was given to the server.
enum NewConnection {
    Session(Box<Session>),
    Arrival(Box<dyn Transport>, Origin),
}

/// What a server is made of.
pub(crate) struct Plan {
    pub(crate) dispatcher: Dispatcher,
    pub(crate) options: Options,
    pub(crate) observed: Observed,
    pub(crate) admission: Admission,
    pub(crate) furnish: Furnish,
    pub(crate) span: Span,
    pub(crate) on_end: Option<OnEnd>,
    pub(crate) embedder: Option<Arc<Waker>>,
    pub(crate) addresses: Vec<Address>,
    /// Of those listeners that have read files.
    pub(crate) renewals: Vec<(Address, Renewal)>,
    #[cfg(feature = "mux")]
    pub(crate) doors: Doors,
}

/// How clients may come in.
#[cfg(feature = "mux")]
#[derive(Debug, Default)]
pub(crate) struct Doors {
    /// What each listener was opened as, and what its clients inherit.
    pub(crate) listeners: Vec<(Option<String>, Origin)>,
    /// What connections were opened as that there will be only once.
    pub(crate) opened: Vec<String>,
}

impl Hosted {
    pub(super) fn new(
        plan: Plan,
        mailbox: &Arc<Mailbox>,
        ask: &Ask,
        cork: &Arc<Cork>,
        users: &Arc<Users>,
    ) -> Arc<Hosted> {
        let registration = Registration::new(mailbox);
        let accounts = Accounts::new(&plan.options.limits, users, Arc::clone(&registration));
        let server = Arc::new(Hosted {
            registration,
            ask: Arc::clone(ask),
            cork: Arc::clone(cork),
            quick_runs: QuickRuns::new(&plan.dispatcher.registry()),
            dispatcher: plan.dispatcher,
            queue: Queue::new(),
            gate: GateState::new(plan.options.gate),
            options: plan.options,
            accounts,
            counters: Arc::clone(plan.observed.counters()),
            observed: plan.observed,
            admission: plan.admission,
            furnish: plan.furnish,
            span: plan.span,
            on_end: Mutex::new(plan.on_end),
            embedder: plan.embedder,
            role: DispatcherRole::default(),
            executing: AtomicUsize::new(0),
            clients: Mutex::default(),
            addresses: plan.addresses,
            renewals: plan.renewals,
            #[cfg(feature = "mux")]
            doors: plan.doors,
            stopping: AtomicBool::new(false),
            ended_by: OnceLock::new(),
            end: Mutex::new(Lifecycle::Running),
            ended: Condvar::new(),
        });
        server.observed.set_server(&server);
        server
    }

    /// Opens the ledger of a client, unless a limit does not allow it.
    pub(super) fn admit(&self, peer: Peer) -> Result<(Peer, Arc<Ledger>), Refused> {
        match self.accounts.admit(&peer.user()) {
            Ok(ledger) => Ok((peer, ledger)),
            Err(reason) => Err(Refused { peer: Some(peer), why: Refusal::Limit, reason }),
        }
    }

    /// Makes a client a session, and greets it. Calls foreign code.
    pub(super) fn connect(
        self: &Arc<Self>,
        transport: Box<dyn Transport>,
        origin: Origin,
        (peer, ledger): (Peer, Arc<Ledger>),
        groups: Option<Groups>,
    ) -> Session {
        tracing::debug!(%peer, "client connected");
        self.counters.greeted.count();
        let layout = origin.layout;
        self.make_session(transport, origin, (peer, ledger), groups, |outbox, locals| {
            self.dispatcher.connect(outbox, layout, locals)
        })
    }

    /// Makes a session of a client whose monitor is made by `connect`.
    pub(super) fn make_session(
        self: &Arc<Self>,
        transport: Box<dyn Transport>,
        origin: Origin,
        (peer, ledger): (Peer, Arc<Ledger>),
        groups: Option<Groups>,
        connect: impl FnOnce(Arc<Outbox>, Locals) -> Arc<Monitor>,
    ) -> Session {
        let transport: Arc<dyn Transport> = transport.into();
        let registration = Registration::new(self.registration.mailbox());
        let outbox = Outbox::new(
            Arc::clone(&registration),
            Arc::clone(&transport),
            origin.layout,
            self.options.limits.unread,
            &ledger,
            Arc::clone(&self.counters),
            &self.cork,
        );
        let notices = Notices::new(origin.notices);
        let mut locals = Locals::default()
            .with(Descriptors::default())
            .with(peer)
            .with(Arc::clone(&ledger))
            .with(notices.clone());
        if let Some(role) = &origin.role {
            locals = locals.with(role.clone());
        }
        if let Some(profile) = origin.deadlines {
            locals = profile.given_to(locals);
        }
        if let Some(groups) = groups {
            locals = locals.with(groups);
        }
        let locals = (self.furnish)(self, locals);
        let monitor = connect(Arc::clone(&outbox), locals);
        let by_notices = self.options.own_events == OwnEvents::WithNotices;
        if by_notices && !notices.are_on() {
            monitor.add_event_filter(|name| !name.starts_with(OWN_NAMES));
        }
        // Asked here, where foreign filters may be called.
        let is_told = monitor.accepts_event(EVENTS_MISSED.name());
        outbox.set_missed(match (is_told, by_notices) {
            (true, _) => Missed::Told,
            (false, true) => Missed::Never,
            (false, false) => Missed::Untold,
        });
        // That of the greeting, which may be another one by now.
        let of_greeting = || Dialect::of_version(monitor.greeted_as());
        let dialect = self.options.dialect.unwrap_or_else(of_greeting);
        let parts = Parts {
            registration,
            origin,
            transport,
            monitor,
            outbox,
            ledger,
            counters: Arc::clone(&self.counters),
            dialect,
            limits: self.options.limits.message,
        };
        let session = Session::new(parts, &self.queue);
        let client = session.client();
        self.clients().insert(client.monitor.id(), Arc::clone(client));
        session
    }

    /// Identifies a client, and connects it unless its handshake goes on.
    fn receive(
        self: &Arc<Self>,
        transport: Box<dyn Transport>,
        origin: Origin,
    ) -> io::Result<NewConnection> {
        let refuse = |transport, refused: Refused| {
            self.refuse(transport, origin.listener, &refused);
            io::Error::new(io::ErrorKind::PermissionDenied, refused.reason)
        };
        let verdict = match self.admission.judge(&*transport) {
            Verdict::LookUp(peer, uid) => {
                self.admission.judge_member(peer, &Groups(crate::access::groups_of(uid)))
            }
            verdict => verdict,
        };
        let admitted = match verdict {
            Verdict::Admitted(peer) => match self.admit(peer) {
                Ok(admitted) => admitted,
                Err(refused) => return Err(refuse(transport, refused)),
            },
            Verdict::Refused(refused) => return Err(refuse(transport, refused)),
            Verdict::Gone => {
                self.end(transport, origin.listener, None);
                return Err(io::Error::new(io::ErrorKind::NotConnected, "the client has left"));
            }
            Verdict::NotReady | Verdict::LookUp(..) => {
                return Ok(NewConnection::Arrival(transport, origin));
            }
        };
        Ok(NewConnection::Session(Box::new(self.connect(transport, origin, admitted, None))))
    }

    /// Serves one more connection. It is identified, charged and greeted here, and then served by the engine.
    ///
    /// # Errors
    ///
    /// If the server ends, does not let the client in, or has as many as it may.
    pub(crate) fn serve(
        self: &Arc<Self>,
        transport: Box<dyn Transport>,
        mut origin: Origin,
    ) -> io::Result<()> {
        // An embedder may have left it blocking, and then reading would hold up everybody.
        rustix::io::ioctl_fionbio(transport.as_fd(), true)?;
        if self.has_ended() || self.is_stopping() {
            self.end(transport, origin.listener, None);
            return Err(io::Error::new(io::ErrorKind::NotConnected, "the server has ended"));
        }
        self.ask(match self.gate.find(&mut origin) {
            Gate::Open => match self.receive(transport, origin)? {
                NewConnection::Session(session) => Asked::Connected(session),
                NewConnection::Arrival(transport, origin) => Asked::Arrived(transport, origin),
            },
            Gate::Waiting | Gate::Early => Asked::Early(transport, origin),
            Gate::Shut => {
                self.end(transport, origin.listener, None);
                let reason = "what the server stands for is not there";
                return Err(io::Error::new(io::ErrorKind::NotConnected, reason));
            }
        });
        Ok(())
    }

    /// Tells of a client that is not let in, and ends its connection. Calls foreign code.
    pub(super) fn refuse(
        &self,
        transport: Box<dyn Transport>,
        listener: Option<usize>,
        refused: &Refused,
    ) {
        self.admission.tell(refused);
        self.end(transport, listener, Some(refused));
    }

    /// Ends the connection of a client that is no session. It may have passed descriptors already.
    pub(super) fn end(
        &self,
        transport: Box<dyn Transport>,
        listener: Option<usize>,
        refused: Option<&Refused>,
    ) {
        transport.shutdown();
        if transport.closing() != Closing::AtOnce {
            let peer = refused.and_then(|refused| refused.peer.as_ref());
            let owner = peer.map(|peer| owner_of(&peer.user()));
            let may_connect = refused.is_some_and(|refused| refused.why == Refusal::Limit);
            let charged = owner.filter(|_| may_connect);
            let being_closed = self.accounts.close_refused(charged, listener);
            let owner = owner.unwrap_or(STRANGERS);
            close_aside(owner, move || {
                transport.discard();
                drop(transport);
                drop(being_closed);
            });
        }
    }

    /// Has the loop take something in.
    pub(super) fn ask(self: &Arc<Self>, asked: Asked) {
        (self.ask)(Arc::clone(self), asked);
    }

    /// A client has left.
    pub(super) fn forget(&self, client: &ConnectedClient) {
        self.clients().remove(&client.monitor.id());
    }

    /// The clients that are connected, in the order in which they have come.
    pub(crate) fn list(&self) -> Vec<Arc<ConnectedClient>> {
        self.clients().values().cloned().collect()
    }

    pub(super) fn clients(&self) -> MutexGuard<'_, BTreeMap<MonitorId, Arc<ConnectedClient>>> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends all connections of a listener: nothing more is sent to them.
    pub(crate) fn abort_connections(&self, listener: usize) {
        for client in self.list().iter().filter(|client| client.origin.listener == Some(listener)) {
            client.abort();
        }
    }
}

/// The end.
impl Hosted {
    pub(crate) fn executing(&self) -> usize {
        self.executing.load(Ordering::SeqCst)
    }

    pub(super) fn can_execute(&self) -> bool {
        !self.queue.is_idle() && self.role.is_free() && !self.is_stopping()
    }

    /// Makes the embedder call, if a request can be executed or the server ends.
    pub(super) fn wake_embedder(&self) {
        if let Some(embedder) = &self.embedder
            && (self.can_execute() || self.is_stopping())
        {
            embedder.wake();
        }
    }

    /// Ends the server in order.
    pub(crate) fn stop(&self) {
        if let Some(monitor) = qmp_dispatch::current() {
            let _ = self.ended_by.set(monitor.id());
        }
        self.stopping.store(true, Ordering::SeqCst);
        self.advance(Lifecycle::Stopping);
        self.registration.post(Notice::Stop);
        self.wake_embedder();
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    /// Whose command has stopped the server: in QEMU, what comes after `quit` is ignored.
    pub(super) fn was_ended_by(&self, client: &ConnectedClient) -> bool {
        self.ended_by.get() == Some(&client.monitor.id())
    }

    /// Sends clients what is left for them, for a while, and ends their connections; others may come.
    pub(crate) fn disconnect_clients(self: &Arc<Self>, whom: Whom) {
        self.ask(Asked::Disconnect(whom));
    }

    /// Opens or shuts the gate. When it is shut, clients that get no notices are disconnected as by
    /// [`disconnect_clients`](Hosted::disconnect_clients).
    #[cfg(feature = "mux")]
    pub(crate) fn set_gate(self: &Arc<Self>, gate: Gate) {
        self.ask(Asked::Gate(gate));
    }

    /// Says who may connect from now on, and disconnects those who may not any more like
    /// [`disconnect_clients`](Hosted::disconnect_clients). May look up groups.
    pub(crate) fn set_policy(self: &Arc<Self>, policy: Policy) {
        self.admission.set_policy(policy);
        let mut gone = self.list();
        gone.retain(|client| {
            let peer = client.monitor.local::<Peer>();
            let groups = client.monitor.local::<Groups>();
            peer.is_some_and(|peer| !self.admission.still_admits(peer, groups))
        });
        if !gone.is_empty() {
            self.ask(Asked::Disconnect(Whom::These(gone)));
        }
    }

    /// The server has ended. What is returned is to be dropped, without the leadership.
    pub(super) fn set_ended(&self) -> Option<OnEnd> {
        self.advance(Lifecycle::Ended);
        self.on_end.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    pub(crate) fn has_ended(&self) -> bool {
        *self.end.lock().unwrap_or_else(PoisonError::into_inner) == Lifecycle::Ended
    }

    fn advance(&self, to: Lifecycle) {
        let mut end = self.end.lock().unwrap_or_else(PoisonError::into_inner);
        if *end != Lifecycle::Ended {
            *end = to;
        }
        self.ended.notify_all();
    }

    /// Waits until the server has been stopped, and then until it has ended. A command that never ends is left alone.
    pub(crate) fn wait_until_ended(&self) {
        let at_most = self.options.shutdown_deadline.saturating_add(END_DEADLINE);
        if !self.wait(at_most) {
            self.span.in_scope(|| tracing::warn!("the server does not end, and is left alone"));
        }
    }

    /// Waits until the server has been stopped, and then until it has ended, at most for `at_most`. Whether it has.
    fn wait(&self, at_most: Duration) -> bool {
        let lock = self.end.lock().unwrap_or_else(PoisonError::into_inner);
        let end = self.ended.wait_while(lock, |end| *end == Lifecycle::Running);
        let end = end.unwrap_or_else(PoisonError::into_inner);
        let running = |end: &mut Lifecycle| *end != Lifecycle::Ended;
        let waited = self.ended.wait_timeout_while(end, at_most, running);
        let (end, _) = waited.unwrap_or_else(PoisonError::into_inner);
        *end == Lifecycle::Ended
    }
}

/// What operators see.
impl Hosted {
    pub(crate) fn gauges(&self) -> Gauges {
        Gauges {
            clients: self.clients().len(),
            suspended: self.queue.stats().filter(|producer| producer.suspended).count(),
            queued: self.queue.len(),
            executing: self.executing(),
            kept_bytes: self.accounts.bytes(),
        }
    }

    pub(crate) fn status(&self) -> ServerStatus {
        let (now, counters, stats) = (self.gauges(), &self.counters, self.dispatcher.stats());
        ServerStatus {
            version: crate::observe::version().to_string(),
            uptime_ms: milliseconds(counters.now()),
            clients: now.clients as u64,
            suspended: now.suspended as u64,
            queued: now.queued as u64,
            executing: now.executing as u64,
            greeted: counters.greeted.get(),
            refused: Refusal::ALL.into_iter().map(|why| counters.refused(why).get()).sum(),
            in_band: counters.in_band.get(),
            out_of_band: counters.out_of_band.get(),
            failed: stats.failed(),
            deadlines_passed: stats.deadlines_passed,
            late_answers: stats.late_answers,
            events: stats.events,
            events_held_back: stats.events_held_back,
            events_sent: counters.events_sent.get(),
            events_dropped: counters.events_dropped.get(),
        }
    }

    /// The status of each client, in the order in which they have come.
    pub(crate) fn client_statuses(&self) -> Vec<ClientStatus> {
        let status = |client: &Arc<ConnectedClient>| {
            let address = client.origin.listener.and_then(|index| self.addresses.get(index));
            ClientStatus { listener: address.map(Address::to_string), ..client.status() }
        };
        self.list().iter().map(status).collect()
    }

    /// When the dispatcher has its next timeout.
    pub(super) fn next_timeout(&self) -> Option<Instant> {
        Instant::now().checked_add(self.dispatcher.timeout()?)
    }
}

/// The counters of a server, and where its current state is read.
#[derive(Clone)]
pub(crate) struct Observed(Arc<Observation>);

struct Observation {
    counters: Arc<Counters>,
    /// Set when the server runs.
    server: OnceLock<Weak<Hosted>>,
    #[cfg(feature = "metrics")]
    extension: OnceLock<Arc<dyn Any + Send + Sync>>,
}

impl Observed {
    pub(crate) fn new() -> Observed {
        Observed(Arc::new(Observation {
            counters: Arc::new(Counters::new()),
            server: OnceLock::new(),
            #[cfg(feature = "metrics")]
            extension: OnceLock::new(),
        }))
    }

    pub(crate) fn counters(&self) -> &Arc<Counters> {
        &self.0.counters
    }

    /// The server runs now.
    fn set_server(&self, server: &Arc<Hosted>) {
        let _ = self.0.server.set(Arc::downgrade(server));
    }
}

#[cfg(feature = "metrics")]
impl Observed {
    /// The running server.
    pub(crate) fn server(&self) -> Option<Arc<Hosted>> {
        self.0.server.get()?.upgrade()
    }

    /// A value that is kept with the server, created by the first call. All callers name the same type.
    pub(crate) fn extension<T: Any + Default + Send + Sync>(&self) -> Arc<T> {
        let kept = self.0.extension.get_or_init(|| Arc::new(T::default()));
        Arc::clone(kept).downcast().unwrap_or_default()
    }
}
