// SPDX-License-Identifier: MIT OR Apache-2.0
//! The state machine of one connection.

use std::fmt;
use std::mem::take;
use std::sync::Arc;

use qmp_proto::{
    Band, Bands, Capability, Error, ErrorClass, Greeting, Json, Layout, Message, Request,
    RequestError, Response, SyntaxError, Value, VersionTriple,
};

use serde::{Deserialize, Serialize};

use crate::closing::OpenRequests;
use crate::command::{NEGOTIATION, Protocol, is_protocol};
use crate::context::with_current;
use crate::filters::Filters;
use crate::handler::ErasedHandler;
use crate::handover::{MonitorState, RequestState, Resumed};
use crate::intercept::{self, Entered};
use crate::last_command::LastCommand;
use crate::panics::{Panic, caught};
use crate::qapi::{Checked, Policy};
use crate::reply::{Answer, Deadline, Reply, Served, panicked};
use crate::state::{AtomicState, State};
use crate::{
    AsyncContext, Command, Context, Deadlines, Dispatcher, Forwarded, Locals, Registry, Responder,
    Task, trace,
};

/// Where a monitor's output goes.
///
/// Transmitting takes whole messages, in their order, from any thread, and in part while the dispatcher is locked: it only
/// appends, and must not block nor call the monitor or its dispatcher. Writing to the client can be left to
/// [`flush`](Output::flush), which follows without any lock held. What the client does not take at once is kept by the
/// implementation.
///
/// ```
/// use std::sync::{Arc, mpsc};
///
/// use qmp_dispatch::Output;
///
/// /// A thread takes the other end, and writes to a socket.
/// struct Bounded(mpsc::SyncSender<String>);
///
/// impl Output for Bounded {
///     fn transmit(&self, text: &str) {
///         if self.0.try_send(text.to_owned()).is_err() {
///             eprintln!("here, the client is disconnected");
///         }
///     }
///
///     fn transmit_event(&self, text: &Arc<str>) {
///         let _ = self.0.try_send(text.to_string());
///     }
/// }
///
/// let (send, receive) = mpsc::sync_channel(1);
/// let output = Bounded(send);
/// output.transmit("kept\r\n");
/// output.transmit_event(&"dropped\r\n".into());
/// assert_eq!(receive.try_iter().collect::<String>(), "kept\r\n");
/// ```
pub trait Output: Send + Sync {
    /// Sends the text of one message, line end included.
    fn transmit(&self, text: &str);

    /// Sends the text of an event. Unlike other messages, it may be dropped if the client does not read. All monitors of
    /// one layout get the same text, which need not be copied to be kept.
    fn transmit_event(&self, text: &Arc<str>) {
        self.transmit(text);
    }

    /// Sends the text of a response, and writes it as [`flush`](Output::flush) does. Unlike events, responses may wait
    /// for what follows, if the embedder sees to it that they do not wait for long.
    fn respond(&self, text: &str) {
        self.transmit(text);
        self.flush();
    }

    /// Sends the text of a response like [`respond`](Output::respond), with the byte 0xFF before it, which is part of no text:
    /// for clients of a [guest agent](Registry::for_agent). By default, the byte is left out.
    fn respond_delimited(&self, text: &str) {
        self.respond(text);
    }

    /// Writes what has been transmitted, if that was not done at once. Called after one or more messages, before the
    /// operation that transmitted them returns.
    fn flush(&self) {}
}

/// Names a monitor; unique within its [`Dispatcher`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MonitorId(u64);

impl MonitorId {
    pub(crate) fn new(id: u64) -> MonitorId {
        MonitorId(id)
    }
}

impl From<MonitorId> for u64 {
    fn from(id: MonitorId) -> u64 {
        id.0
    }
}

impl fmt::Display for MonitorId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// One connection: greeting, capabilities negotiation, then commands. Mirrors QEMU's `MonitorQMP`
/// (`monitor/qmp.c`). That of a client that speaks as to a [guest agent](Registry::for_agent) has commands alone.
///
/// Its owner passes messages to [`receive`](Monitor::receive), queues the result if it is in-band, and executes it
/// with [`execute`](Monitor::execute).
pub struct Monitor {
    id: MonitorId,
    dispatcher: Dispatcher,
    output: Arc<dyn Output>,
    layout: Layout,
    locals: Locals,
    state: AtomicState,
    greeted: Greeted,
    command_filters: Filters,
    event_filters: Filters,
    last_command: LastCommand,
    open_requests: OpenRequests,
    /// Those among `locals`, which are looked at for each request.
    deadlines: Option<Deadlines>,
}

/// What a client has been greeted with: later clients may get another greeting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Greeted {
    version: VersionTriple,
    offers_oob: bool,
}

impl Greeted {
    pub(crate) fn with(greeting: &Greeting) -> Greeted {
        Greeted {
            version: greeting.version.qemu,
            offers_oob: greeting.capabilities.contains(&Capability::OOB),
        }
    }
}

/// The index of the command whose arguments have been checked before their turn, the policy then, and the outcome.
type EarlyCheck = (usize, Policy, Result<Checked, Error>);

/// A request that has been received and not executed, or the error that is to be answered in its place.
#[must_use = "a client waits for the answer"]
#[derive(Debug)]
pub struct Pending(Box<Parsed>);

/// In a box, because it is large and goes through queues.
#[derive(Debug)]
struct Parsed {
    request: Result<Request, RequestError>,
    /// The text of its arguments, if there is a forwarder.
    text: Option<Json>,
    /// Whether the arguments are what the command takes, if that has been [found out](Monitor::check_arguments) already.
    checked: Option<EarlyCheck>,
    /// Set if another program has received it.
    resumed: Option<Box<Resumed>>,
}

/// What is left of a request that was executed. To drop it takes long if the request is large, so that can be left to
/// another thread.
#[derive(Debug)]
pub struct Spent(#[expect(dead_code, reason = "kept to be dropped")] Box<Parsed>);

impl Pending {
    /// Returns whether it is to be queued, or executed at once.
    pub fn band(&self) -> Band {
        match &self.0.request {
            Ok(request) => request.band,
            Err(refused) => refused.band,
        }
    }

    /// The name of the command, if this is a request and not what came in its place.
    pub fn command(&self) -> Option<&str> {
        self.0.request.as_ref().ok().map(|request| &*request.command)
    }

    pub(crate) fn request(&self) -> Result<&Request, &RequestError> {
        self.0.request.as_ref()
    }

    pub(crate) fn text(&self) -> Option<&Json> {
        self.0.text.as_ref()
    }

    pub(crate) fn resumed(&self) -> Option<&Resumed> {
        self.0.resumed.as_deref()
    }

    /// Bytes that the request has allocated, about: what it takes while it waits.
    pub fn heap_size(&self) -> usize {
        let text = self.0.text.as_ref().map_or(0, |text| text.as_str().len());
        let id = |id: &Option<Value>| id.as_ref().map_or(0, Value::heap_size);
        text + match &self.0.request {
            Ok(request) => request.arguments.heap_size() + id(&request.id),
            Err(refused) => refused.error.desc.len() + id(&refused.id),
        }
    }
}

impl Monitor {
    pub(crate) fn new(
        id: MonitorId,
        dispatcher: Dispatcher,
        output: Arc<dyn Output>,
        layout: Layout,
        locals: Locals,
        greeted: Greeted,
    ) -> Monitor {
        let deadlines = locals.get::<Deadlines>().cloned();
        let (state, layout) = match dispatcher.protocol() {
            Protocol::Qmp => (AtomicState::new(), layout),
            Protocol::Agent => (AtomicState::without_negotiation(), Layout::LineFeed),
        };
        Monitor {
            id,
            dispatcher,
            output,
            layout,
            locals,
            state,
            greeted,
            command_filters: Filters::default(),
            event_filters: Filters::default(),
            last_command: LastCommand::none(),
            open_requests: OpenRequests::default(),
            deadlines,
        }
    }

    /// Returns the identifier of this monitor within its dispatcher.
    pub fn id(&self) -> MonitorId {
        self.id
    }

    /// Returns the dispatcher that the monitor belongs to.
    pub fn dispatcher(&self) -> &Dispatcher {
        &self.dispatcher
    }

    /// Returns the version in the greeting that the client got. That of the [dispatcher](Dispatcher::version) may have
    /// [changed](Dispatcher::set_greeting) since then.
    pub fn greeted_as(&self) -> VersionTriple {
        self.greeted.version
    }

    /// Returns the value of this type that the embedder keeps for this monitor; see [`Locals`].
    pub fn local<T: Send + Sync + 'static>(&self) -> Option<&T> {
        self.locals.get()
    }

    /// Whether the client has completed negotiation.
    pub fn is_negotiated(&self) -> bool {
        self.state.get() != State::Negotiating
    }

    /// Whether the client has enabled out-of-band execution.
    pub fn is_oob_enabled(&self) -> bool {
        matches!(self.state.get(), State::Negotiated { oob: true } | State::Listening { oob: true })
    }

    /// Returns the in-band command whose execution has begun last, for operators who want to know what holds a
    /// client up; `None` if there was none yet. Requests that are refused do not count.
    pub fn last_command(&self) -> Option<String> {
        self.last_command.name(&self.dispatcher.registry())
    }

    /// Notifies the handlers of the client's requests that the client has disconnected: responses are not
    /// [awaited](Responder::is_awaited) any more, and [cancellable](Command::cancellable) commands end. Everything else goes
    /// on: a handler that has begun may be half way. To be called by the owner of the connection, when nothing more can
    /// be sent; a client that only sends nothing more still waits for its responses.
    ///
    /// Wakes tasks and calls [callbacks](Responder::on_closed), on this thread. Calling it again changes nothing.
    pub fn close(&self) {
        self.open_requests.close();
    }

    /// Whether the client has [disconnected](Monitor::close).
    pub fn is_closed(&self) -> bool {
        self.open_requests.is_closed()
    }

    pub(crate) fn open_requests(&self) -> &OpenRequests {
        &self.open_requests
    }

    /// Refuses the client's requests for commands whose names the filter does not accept, as if they
    /// had been [disabled](Dispatcher::set_enabled): after negotiation, in-band and out-of-band alike,
    /// [forwarded](crate::Forwarder) commands included, and before arguments are looked at. Only
    /// `qmp_capabilities` is never refused.
    ///
    /// Filters combine: a command has to pass all of them. None can be taken away.
    pub fn add_command_filter(&self, filter: impl Fn(&str) -> bool + Send + Sync + 'static) {
        self.command_filters.add(Box::new(filter));
    }

    /// Sends only those events to the client whose names the filter accepts. Filters combine: an event
    /// has to pass all of them.
    ///
    /// The filter is called on each thread that emits an event, which waits for it.
    pub fn add_event_filter(&self, filter: impl Fn(&str) -> bool + Send + Sync + 'static) {
        self.event_filters.add(Box::new(filter));
    }

    /// Whether the [event filters](Monitor::add_event_filter) accept events of this name: for events
    /// that do not come from the dispatcher, but from the embedder alone.
    pub fn accepts_event(&self, name: &str) -> bool {
        self.event_filters.accept(name)
    }

    /// Receives a message of the client, or the error that the reader returned in its place.
    ///
    /// If the result is [in-band](Pending::band), it is to be queued and executed in its turn. If it is
    /// out-of-band, it is to be executed at once.
    pub fn receive(&self, message: Result<Message<'_>, SyntaxError>) -> Pending {
        let bands = if self.is_oob_enabled() { Bands::Both } else { Bands::InBand };
        let forwards = self.dispatcher.forwards();
        let parsed = match &message {
            Ok(message) if forwards => Request::parse_with_text(message, bands),
            Ok(message) => Request::parse(message, bands).map(|request| (request, None)),
            Err(error) => Err(error.clone().into()),
        };
        if let Ok(message) = message
            && !parsed.as_ref().is_err_and(|refused| refused.unreadable)
        {
            trace::handle_qmp_command(self.id, message.as_bytes());
        }
        let (request, text) = match parsed {
            Ok((request, text)) => (Ok(request), text),
            Err(refused) => (Err(refused), None),
        };
        Pending(Box::new(Parsed { request, text, checked: None, resumed: None }))
    }

    /// Receives a request that another program has received and handed over.
    pub fn receive_again(&self, state: RequestState) -> Pending {
        let (request, text, resumed) = state.into_parts(self.dispatcher.forwards());
        Pending(Box::new(Parsed { request, text, checked: None, resumed: Some(resumed.into()) }))
    }

    /// Returns what another program needs to [go on](Dispatcher::reconnect) with the connection.
    pub fn state(&self) -> MonitorState {
        let oob = match self.state.get() {
            State::Negotiating => None,
            State::Negotiated { oob } | State::Listening { oob } => Some(oob),
        };
        MonitorState { id: self.id.0, oob, greeted: self.greeted }
    }

    /// Goes on with the connection of a monitor that was in this state.
    pub(crate) fn resume(self: &Arc<Self>, state: &MonitorState) {
        if let Some(oob) = state.oob
            && self.dispatcher.protocol() == Protocol::Qmp
        {
            self.dispatcher.audience().join(self, || self.state.set(State::Listening { oob }));
        }
    }

    /// Checks the arguments of a request before its turn, which takes long if there are very many: on any thread, while
    /// others' requests are executed. [Executing](Monitor::execute) it answers in the same way, and takes less time.
    pub fn check_arguments(&self, pending: &mut Pending) {
        let registry = self.dispatcher.registry();
        if let Ok(request) = &pending.0.request
            && let Some(command) = registry.find_command(&request.command)
        {
            let checked = command.arguments().checked(registry.policy(), &request.arguments);
            pending.0.checked = Some((command.index(), *registry.policy(), checked));
        }
    }

    /// Executes a request, and sends the response to the client.
    ///
    /// The handler runs on this thread. If it panics, the response is a `GenericError`. `done` is called when the
    /// response has been transmitted: before this returns, or later and on another thread if the command
    /// [answers later](crate::Registry::deferred_command). Until then, no other in-band request of this monitor
    /// may be executed.
    pub fn execute(
        self: &Arc<Self>,
        mut pending: Pending,
        done: impl FnOnce() + Send + 'static,
    ) -> Spent {
        let Parsed { request, text, checked, resumed } = &mut *pending.0;
        match request {
            Ok(request) => {
                let resumed = resumed.take();
                self.serve(request, text.take(), checked.take(), resumed, done);
            }
            Err(refused) => {
                intercept::refused(self, refused);
                trace::refused(self.id, refused);
                let RequestError { error, id, .. } = refused.clone();
                self.respond(Answer { id, intercepted: None }, None, Err(error));
                done();
            }
        }
        Spent(pending.0)
    }

    /// Answers a request with an error instead of executing it, for requests that are still queued when the server
    /// ends. Interceptors see it as they see those that are executed.
    pub fn refuse(self: &Arc<Self>, pending: Pending, error: Error) {
        match pending.0.request {
            Ok(mut request) => {
                let mut entered = Entered::new(self, &self.dispatcher.registry(), &request);
                let answered = entered.as_mut().and_then(|entered| entered.answer.take());
                self.answer(&mut request, entered, answered.unwrap_or(Err(error)));
            }
            Err(RequestError { error, id, .. }) => {
                self.respond(Answer { id, intercepted: None }, None, Err(error));
            }
        }
    }

    /// Answers a request that is not executed. The interceptors see it where it is: a copy of very many arguments would
    /// take longer than all the rest.
    fn answer(
        self: &Arc<Self>,
        request: &mut Request,
        entered: Option<Entered>,
        mut result: Result<Json, Error>,
    ) {
        if let Some(entered) = entered {
            entered.leave(self, request, &mut result);
        }
        self.respond(Answer { id: request.id.take(), intercepted: None }, None, result);
    }

    /// Executes a request. Moves fields out of it, which is cheaper than moving it whole.
    fn serve(
        self: &Arc<Self>,
        request: &mut Request,
        text: Option<Json>,
        checked: Option<EarlyCheck>,
        resumed: Option<Box<Resumed>>,
        done: impl FnOnce() + Send + 'static,
    ) {
        trace::command(self.id, request);
        // It keeps the command, also if that is removed in the meantime.
        let registry = self.dispatcher.registry();
        let mut entered = Entered::new(self, &registry, request);
        let checked = match entered.as_mut().and_then(|entered| entered.answer.take()) {
            Some(answer) => Err(answer),
            None => self.check(&registry, request, checked).map_err(Err),
        };
        let checked = match checked {
            Ok(checked) => checked,
            Err(result) => {
                self.answer(request, entered, result);
                return done();
            }
        };
        // Interceptors see the request as it came, and the handler consumes it.
        let intercepted = entered.map(|entered| entered.keep(request.clone()));
        let answer = Answer { id: request.id.take(), intercepted };
        let Some((command, checked)) = checked else {
            return self.forward(&registry, request, text, resumed, answer, done);
        };
        command.arguments().convert(checked, &mut request.arguments);
        if request.band == Band::InBand {
            self.last_command.set(command);
        }
        let context = Context::new(self, request.band);
        let arguments = &mut request.arguments;
        let name = command.name();
        let deadline = registry
            .deadline_of(name, command.deadline_after(), self.deadlines.as_ref())
            .map(Deadline::new);
        let reply = |answer, done| {
            Reply::new(self, Served::Registered(Arc::clone(command)), deadline, answer, done)
        };
        match command.handler() {
            ErasedHandler::AtOnce(handler) if deadline.is_none() => {
                let result = self.run(name, || handler(&context, take(arguments)));
                let finish = |json| self.dispatcher.finish_result(&registry, command, json);
                let result = result.and_then(|result| result).and_then(finish);
                self.respond(answer, Some(command), result);
                done();
            }
            ErasedHandler::AtOnce(handler) => {
                // The deadline answers in its place, but the handler runs on.
                let reply = reply(answer, Box::new(|| ()));
                let result = self.run(name, || handler(&context, take(arguments)));
                reply.send(result.and_then(|result| result));
                done();
            }
            ErasedHandler::Deferred(handler) => {
                let reply = reply(answer, Box::new(done));
                let panicked = reply.if_it_panics();
                if self.run(name, || handler(&context, take(arguments), reply)).is_err() {
                    panicked.send();
                }
            }
            ErasedHandler::Async(handler) => {
                let reply = reply(answer, Box::new(done));
                let context = AsyncContext::new(self, request.band, reply.request());
                match self.run(name, || handler.call(context, take(arguments))) {
                    Ok(Ok(handling)) => {
                        handler.start(Task::new(self, handling, reply, command.is_cancellable()));
                    }
                    Ok(Err(error)) | Err(error) => reply.send(Err(error)),
                }
            }
        }
    }

    /// Hands a request to the forwarder.
    fn forward(
        self: &Arc<Self>,
        registry: &Registry,
        request: &mut Request,
        text: Option<Json>,
        resumed: Option<Box<Resumed>>,
        answer: Answer,
        done: impl FnOnce() + Send + 'static,
    ) {
        let Some(forwarder) = registry.forwarder() else { return };
        let context = Context::new(self, request.band);
        let command = take(&mut request.command);
        if request.band == Band::InBand {
            self.last_command.set_forwarded(&command);
        }
        let (mark, earlier) =
            resumed.map_or((None, None), |resumed| (resumed.mark, resumed.deadline));
        let deadline = earlier.or_else(|| {
            registry.deadline_of(&command, None, self.deadlines.as_ref()).map(Deadline::new)
        });
        let served = Served::Forwarded(command.clone());
        let reply = Reply::new(self, served, deadline, answer, Box::new(done));
        let forwarded = Forwarded::new(command.clone(), take(&mut request.arguments), text, mark);
        let panicked = reply.if_it_panics();
        let forward = || forwarder.forward(&context, forwarded, Responder::new(reply));
        if self.run(&command, forward).is_err() {
            panicked.send();
        }
    }

    /// Finds the command and checks in QEMU's order that it may be executed with these arguments, unless these have been
    /// checked already. Returns `None` if the request is for the forwarder.
    fn check<'r>(
        &self,
        registry: &'r Registry,
        request: &Request,
        checked: Option<EarlyCheck>,
    ) -> Result<Option<(&'r Arc<Command>, Checked)>, Error> {
        let Request { command: name, arguments, band, .. } = request;
        let not_found = |desc: String| Error::new(ErrorClass::CommandNotFound, desc);
        if !self.is_negotiated() && name != NEGOTIATION {
            return Err(not_found(
                "Expecting capabilities negotiation with 'qmp_capabilities'".to_owned(),
            ));
        }
        let disabled =
            || not_found(format!("The command {name} has been disabled for this instance"));
        let Some(command) = registry.find(name) else {
            return match registry.forwarder() {
                Some(_) if self.permits(name) => Ok(None),
                Some(_) => Err(disabled()),
                None => Err(Error::command_not_found(name)),
            };
        };
        registry.policy().check_command(name, command.features())?;
        if !command.is_enabled() || !self.permits(name) {
            return Err(disabled());
        }
        if *band == Band::OutOfBand && !command.allows_oob() {
            return Err(Error::generic(format!("The command {name} does not support OOB")));
        }
        if self.dispatcher.is_preconfig() && !command.allows_preconfig() {
            return Err(Error::generic(format!(
                "The command '{name}' is permitted only after machine initialization has completed"
            )));
        }
        let check = || command.arguments().checked(registry.policy(), arguments);
        // Another command may have got the name since then, or the policy may have changed.
        let checked = checked
            .filter(|(index, policy, _)| *index == command.index() && policy == registry.policy());
        Ok(Some((command, checked.map_or_else(check, |(.., checked)| checked)?)))
    }

    /// Whether the command filters let the command through.
    fn permits(&self, name: &str) -> bool {
        is_protocol(name, self.dispatcher.protocol()) || self.command_filters.accept(name)
    }

    /// Runs a handler with this as the current monitor. Returns an error if it panics.
    pub(crate) fn run<T>(
        self: &Arc<Self>,
        command: &str,
        handler: impl FnOnce() -> T,
    ) -> Result<T, Error> {
        caught(|| with_current(self, handler)).map_err(|Panic { reason, place }| {
            tracing::error!(monitor = %self.id, command, reason, place, "handler panicked");
            panicked(command)
        })
    }

    /// Sends the response to a request, unless it has succeeded and its command has no success response. A result of a
    /// registered command has been [finished](Dispatcher::finish_result).
    /// `command` is `None` if no registered command has been executed.
    pub(crate) fn respond(
        self: &Arc<Self>,
        answer: Answer,
        command: Option<&Command>,
        mut result: Result<Json, Error>,
    ) {
        let Answer { id, intercepted } = answer;
        if let Some(intercepted) = intercepted {
            intercepted.leave(self, &mut result);
        }
        self.dispatcher.counters().answered(&result);
        let negotiated = match self.state.get() {
            State::Negotiated { oob } if command.is_some_and(Command::is_negotiation) => Some(oob),
            _ => None,
        };
        if result.is_ok() && command.is_some_and(|command| !command.has_success_response()) {
            return;
        }
        let is_delimited = result.is_ok() && command.is_some_and(Command::is_delimited);
        let text = Response::new(id, result).into_text(self.layout);
        trace::monitor_qmp_respond(self.id, &text);
        if is_delimited {
            return self.output.respond_delimited(&text);
        }
        let Some(oob) = negotiated else { return self.output.respond(&text) };
        self.dispatcher.audience().join(self, || {
            self.output.transmit(&text);
            self.state.set(State::Listening { oob });
        });
        self.output.flush();
    }

    /// Completes negotiation, with or without out-of-band execution. Fails if it has been completed before.
    pub(crate) fn negotiate(&self, oob: bool) -> Result<(), Error> {
        if self.is_negotiated() {
            return Err(Error::new(
                ErrorClass::CommandNotFound,
                "Capabilities negotiation is already complete, command ignored",
            ));
        }
        if oob && !self.greeted.offers_oob {
            return Err(Error::generic("Capability oob not available"));
        }
        self.state.set(State::Negotiated { oob });
        Ok(())
    }

    pub(crate) fn greet(&self, greeting: &Greeting) {
        let mut text = String::new();
        greeting.write(self.layout, &mut text);
        trace::monitor_qmp_respond(self.id, &text);
        self.output.transmit(&text);
        self.output.flush();
    }

    pub(crate) fn layout(&self) -> Layout {
        self.layout
    }

    pub(crate) fn output(&self) -> &dyn Output {
        &*self.output
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        if self.is_negotiated() {
            self.dispatcher.audience().leave(self.id);
        }
        intercept::disconnected(self);
    }
}

impl fmt::Debug for Monitor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Monitor")
            .field("id", &self.id)
            .field("state", &self.state.get())
            .field("layout", &self.layout)
            .finish_non_exhaustive()
    }
}
