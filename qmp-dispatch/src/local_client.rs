// SPDX-License-Identifier: MIT OR Apache-2.0
//! A client in the same process.

use std::fmt;
use std::mem::take;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use qmp_proto::{
    Band, Capability, CommandType, DecodeError, EncodeError, Error, Event, Json, Layout, Message,
    Reader, RequestText, ServerMessage, SyntaxError, Timestamp, Value, Version,
};

use crate::{Dispatcher, Locals, Monitor, Output, Registry, Time};

/// How long a client waits for a response by default, in real time.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Ids of the client's own calls begin here, so that they differ from those in the texts of tests.
const FIRST_ID: u64 = 1 << 48;

/// A client in the same process that has completed negotiation, for tests of commands without a socket.
///
/// After one has connected, and in debug builds always, results and data of events are checked against the types
/// that introspection shows. A result that is not of its type becomes an error.
///
/// It enables out-of-band execution if that is offered. It never waits for ever: if no response comes within ten
/// [seconds](LocalClient::set_timeout) of real time, it tells which command has not been answered.
pub struct LocalClient {
    monitor: Arc<Monitor>,
    said: Arc<Said>,
    timeout: Duration,
    last_id: AtomicU64,
    /// The clock of a server that the client has made.
    clock: Option<VirtualClock>,
}

/// Why a [`LocalClient`] has no result of a command.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// The command has failed.
    #[error(transparent)]
    Command(#[from] Error),
    /// There is no response.
    #[error("the command {command} was not answered within {} seconds", timeout.as_secs_f64())]
    NoAnswer {
        /// The name of the command.
        command: String,
        /// How long the client has waited.
        timeout: Duration,
    },
    /// The arguments cannot be written as JSON.
    #[error("the arguments of {command} cannot be written: {reason}")]
    Arguments {
        /// The name of the command.
        command: String,
        /// What is wrong with the arguments.
        reason: EncodeError,
    },
    /// The result is not of its type.
    #[error("the result of {command} cannot be read: {reason}")]
    Result {
        /// The name of the command.
        command: String,
        /// What is wrong with the result.
        reason: DecodeError,
    },
}

/// A clock that stands still until a test [advances](VirtualClock::advance) it. Cloning gives another handle.
///
/// ```
/// use std::time::Duration;
///
/// use qmp_dispatch::proto::Version;
/// use qmp_dispatch::{Dispatcher, Registry, VirtualClock};
///
/// let clock = VirtualClock::default();
/// let now = clock.clone();
/// let dispatcher = Dispatcher::new(Registry::new(), Version::new(0, 0, 0, ""), move || now.now());
/// clock.advance(Duration::from_secs(1), &dispatcher);
/// assert_eq!(clock.now().monotonic, Duration::from_secs(1));
/// assert_eq!(clock.now().wall.seconds, 1);
/// ```
#[derive(Clone, Debug, Default)]
pub struct VirtualClock(Arc<Mutex<Duration>>);

impl VirtualClock {
    /// Returns the current time. It starts at 0; the wall clock starts in 1970.
    pub fn now(&self) -> Time {
        let monotonic = *self.elapsed();
        Time { wall: Timestamp::from_unix(monotonic), monotonic }
    }

    /// Advances the clock. What becomes due in the dispatcher is done at its time: deadlines pass, and events that rate
    /// limits have held back are sent.
    pub fn advance(&self, by: Duration, dispatcher: &Dispatcher) {
        let end = self.elapsed().saturating_add(by);
        while let Some(next) = dispatcher.timeout() {
            let at = self.elapsed().saturating_add(next);
            if at > end {
                break;
            }
            *self.elapsed() = at;
            dispatcher.handle_timeout();
        }
        *self.elapsed() = end;
    }

    fn elapsed(&self) -> MutexGuard<'_, Duration> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Messages of the server that have not been returned yet.
#[derive(Default)]
struct Said(Mutex<Vec<String>>);

impl Said {
    fn messages(&self) -> MutexGuard<'_, Vec<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Output for Said {
    fn transmit(&self, text: &str) {
        self.messages().push(text.trim_end().to_owned());
    }
}

/// A request that has been sent.
struct Sent {
    command: String,
    answered: Receiver<()>,
}

impl LocalClient {
    /// Creates a server of version 0.0.0 with these commands and events, whose time the client
    /// [advances](LocalClient::advance), and its only client.
    pub fn new(registry: Registry) -> LocalClient {
        LocalClient::new_with(registry, Locals::default())
    }

    /// Like [`new`](LocalClient::new), with the locals of the client's monitor: what handlers and interceptors ask the
    /// monitor for.
    pub fn new_with(registry: Registry, locals: Locals) -> LocalClient {
        let clock = VirtualClock::default();
        let now = clock.clone();
        let version = Version::new(0, 0, 0, "");
        let dispatcher = Dispatcher::new(registry, version, move || now.now());
        LocalClient { clock: Some(clock), ..LocalClient::connect_with(&dispatcher, locals) }
    }

    /// Connects a client to a server.
    pub fn connect(dispatcher: &Dispatcher) -> LocalClient {
        LocalClient::connect_with(dispatcher, Locals::default())
    }

    /// Connects a client to a server, with the locals of its monitor.
    pub fn connect_with(dispatcher: &Dispatcher, locals: Locals) -> LocalClient {
        dispatcher.check_output();
        let said = Arc::new(Said::default());
        let monitor = dispatcher.connect(said.clone(), Layout::Compact, locals);
        let last_id = AtomicU64::new(FIRST_ID);
        let client = LocalClient { monitor, said, timeout: TIMEOUT, last_id, clock: None };
        if dispatcher.is_for_agent() {
            return client;
        }
        let has_oob = dispatcher.greeting().capabilities.contains(&Capability::OOB);
        client.ask(match has_oob {
            true => "{'execute': 'qmp_capabilities', 'arguments': {'enable': ['oob']}}",
            false => "{'execute': 'qmp_capabilities'}",
        });
        client
    }

    /// Sets how long to wait for a response, in real time: only commands that are answered on other threads take any.
    pub fn set_timeout(&mut self, timeout: Duration) {
        self.timeout = timeout;
    }

    /// Sends requests one after the other, and blocks until each has been answered. Returns the lines that the server
    /// has sent since the last call, events included.
    ///
    /// # Panics
    ///
    /// If a command is not answered in time.
    pub fn ask(&self, requests: &str) -> Vec<String> {
        for_each_message(requests, |message| {
            if let Err(error) = self.wait(self.submit(message)) {
                panic!("{error}");
            }
        });
        self.received()
    }

    /// Sends requests one after the other, and does not wait for those that are answered later.
    pub fn send(&self, requests: &str) {
        for_each_message(requests, |message| _ = self.submit(message));
    }

    /// Returns the lines that the server has sent since they were last asked for.
    pub fn received(&self) -> Vec<String> {
        take(&mut *self.said.messages())
    }

    /// Returns the events that the server has sent since they were last asked for. What else it has sent is kept.
    pub fn events(&self) -> Vec<Event> {
        let is_event = |text: &mut String| matches!(parse(text), Some(ServerMessage::Event(_)));
        let texts: Vec<String> = self.said.messages().extract_if(.., is_event).collect();
        let events = texts.iter().filter_map(|text| match parse(text) {
            Some(ServerMessage::Event(event)) => Some(event),
            _ => None,
        });
        events.collect()
    }

    /// Executes a command in-band, and returns its result. Events and other responses that have come are kept.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn call<C: CommandType>(&self, arguments: &C::Arguments) -> Result<C::Result, CallError> {
        self.typed::<C>(arguments, Band::InBand)
    }

    /// Executes a command out-of-band, like [`call`](LocalClient::call).
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn call_oob<C: CommandType>(
        &self,
        arguments: &C::Arguments,
    ) -> Result<C::Result, CallError> {
        self.typed::<C>(arguments, Band::OutOfBand)
    }

    /// Executes a command by its name. `arguments` is an object. A command that sends no response when it succeeds has
    /// the empty object as its result.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn execute(
        &self,
        command: &str,
        arguments: Option<&Json>,
        band: Band,
    ) -> Result<Json, CallError> {
        let id = self.last_id.fetch_add(1, Ordering::Relaxed);
        let mut text = String::new();
        RequestText { command, arguments, id, band }.write(&mut text);
        let mut waited = Ok(());
        for_each_message(&text, |message| waited = self.wait(self.submit(message)));
        waited?;
        let id = Value::from(id);
        let mut messages = self.said.messages();
        let response = messages.iter().enumerate().find_map(|(at, text)| match parse(text) {
            Some(ServerMessage::Response(response)) if response.id.as_ref() == Some(&id) => {
                Some((at, response.result))
            }
            _ => None,
        });
        let Some((at, result)) = response else { return Ok(Json::EMPTY_OBJECT) };
        messages.remove(at);
        Ok(result?)
    }

    /// Advances the time of the server; see [`VirtualClock::advance`].
    ///
    /// # Panics
    ///
    /// If the client has [connected](LocalClient::connect) to a server with a clock of its own.
    pub fn advance(&self, by: Duration) {
        let clock = self.clock.as_ref().expect("the server has a clock of its own");
        clock.advance(by, self.monitor.dispatcher());
    }

    /// Returns the server's side of the connection.
    pub fn monitor(&self) -> &Arc<Monitor> {
        &self.monitor
    }

    fn typed<C: CommandType>(
        &self,
        arguments: &C::Arguments,
        band: Band,
    ) -> Result<C::Result, CallError> {
        let command = || C::NAME.to_owned();
        let arguments = C::encode_arguments(arguments)
            .map_err(|reason| CallError::Arguments { command: command(), reason })?;
        let result = self.execute(C::NAME, arguments.as_ref(), band)?;
        C::decode_result(&result).map_err(|reason| CallError::Result { command: command(), reason })
    }

    fn submit(&self, message: Result<Message<'_>, SyntaxError>) -> Sent {
        let (tell, answered) = channel();
        let pending = self.monitor.receive(message);
        let command = pending.command().unwrap_or("(no request)").to_owned();
        self.monitor.execute(pending, move || {
            // The client does not wait if it has panicked, or only sends.
            let _ = tell.send(());
        });
        Sent { command, answered }
    }

    fn wait(&self, sent: Sent) -> Result<(), CallError> {
        let Sent { command, answered } = sent;
        let timeout = self.timeout;
        answered.recv_timeout(timeout).map_err(|_| CallError::NoAnswer { command, timeout })
    }
}

fn for_each_message(text: &str, mut act: impl FnMut(Result<Message<'_>, SyntaxError>)) {
    let mut reader = Reader::default();
    let mut input = text.as_bytes();
    while let Some(message) = reader.read(&mut input) {
        act(message);
    }
}

/// Parses a message of the server.
fn parse(text: &str) -> Option<ServerMessage> {
    let message = Reader::default().read(&mut text.as_bytes())?.ok().map(|message| {
        // Only what is written by this crate is read here.
        ServerMessage::parse(&message).ok()
    });
    message.flatten()
}

impl fmt::Debug for LocalClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalClient").field("monitor", &self.monitor).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Context, EventType, Responder, command_types};

    const TICK: EventType<()> = EventType::new("TICK");

    command_types! {
        Double = "x-double" { value: u64 } -> u64;
        Silent = "x-silent"() -> ();
        Never = "x-never"() -> ();
        Yank = "yank"() -> String;
    }

    fn client() -> LocalClient {
        let mut registry = Registry::new();
        registry.event(&TICK).unwrap().at_most_every(Duration::from_secs(1));
        registry
            .serve::<Double>(|_: &Context, Double { value }| {
                value.checked_mul(2).ok_or("too large")
            })
            .unwrap();
        registry.serve::<Silent>(|_: &Context, ()| ()).unwrap().no_success_response();
        registry
            .serve::<Yank>(|context: &Context, ()| format!("{:?}", context.band()))
            .unwrap()
            .allow_oob();
        let kept = Mutex::new(Vec::<Responder<()>>::new());
        let keep = move |_: &Context, (), responder| kept.lock().unwrap().push(responder);
        registry.serve_deferred::<Never>(keep).unwrap();
        LocalClient::new(registry)
    }

    #[test]
    fn calls_find_their_responses_among_other_messages() {
        let client = client();
        let dispatcher = client.monitor().dispatcher();
        client.send("{'execute': 'x-double', 'arguments': {'value': 1}}");
        dispatcher.emit(&TICK, &()).unwrap();
        assert_eq!(client.call::<Double>(&Double { value: 21 }), Ok(42));
        let too_large = Err(CallError::Command(Error::generic("too large")));
        assert_eq!(client.call::<Double>(&Double { value: u64::MAX }), too_large);
        assert_eq!(client.call::<Silent>(&()), Ok(()));
        assert_eq!(client.events().len(), 1);
        assert_eq!(client.received(), [r#"{"return": 2}"#]);
    }

    #[test]
    fn what_is_out_of_band_is_executed_so() {
        let client = client();
        assert_eq!(client.call::<Yank>(&()).as_deref(), Ok("InBand"));
        assert_eq!(client.call_oob::<Yank>(&()).as_deref(), Ok("OutOfBand"));
        let error = client.call_oob::<Double>(&Double { value: 1 }).unwrap_err();
        assert!(error.to_string().contains("does not support OOB"));
    }

    #[test]
    fn an_answer_that_does_not_come_is_named() {
        let mut client = client();
        client.set_timeout(Duration::ZERO);
        let error = client.call::<Never>(&()).unwrap_err();
        assert_eq!(error.to_string(), "the command x-never was not answered within 0 seconds");
    }

    #[test]
    fn time_passes_in_steps() {
        let client = client();
        for _ in 0..3 {
            client.monitor().dispatcher().emit(&TICK, &()).unwrap();
        }
        client.advance(Duration::from_millis(500));
        client.monitor().dispatcher().emit(&TICK, &()).unwrap();
        client.advance(Duration::from_secs(60));
        let seconds =
            client.events().iter().map(|event| event.timestamp.microseconds).collect::<Vec<_>>();
        assert_eq!(seconds, [0, 500_000], "the first, and the last of its interval");
        assert_eq!(client.monitor().dispatcher().timeout(), None);
    }
}
