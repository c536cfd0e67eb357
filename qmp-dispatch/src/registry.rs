// SPDX-License-Identifier: MIT OR Apache-2.0
//! The commands and events of a server.

use std::borrow::Cow;
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use qmp_proto::{Error, Json};
use rustc_hash::FxHashMap;
use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::command::{Command, NEGOTIATION, Protocol};
use crate::handler::{ErasedHandler, InfallibleHandler};
use crate::later::{AsyncHandler, ErasedAsync, Spawn};
use crate::qapi::{
    Introspection, Policy, Problem, SchemaError, arguments_of, check_arguments_of, is_name, type_of,
};
use crate::{
    AsyncContext, Deadlines, DeclaredEvent, DeferredHandler, EventSettings, EventType, Forwarder,
    Handler, Interceptor, Locals, protocol_commands,
};

/// The commands and events of a server.
///
/// A new registry has the commands that belong to the protocol: `qmp_capabilities`,
/// `query-version`, `query-commands` and `query-qmp-schema`.
pub struct Registry {
    protocol: Protocol,
    /// In the order of registration. The index of a command identifies it, also after it has been removed: it is never
    /// given to another one.
    commands: Vec<Slot>,
    /// Or had some: it stays when they are removed.
    has_async_commands: bool,
    command_indices: FxHashMap<Cow<'static, str>, usize>,
    /// In the order of declaration.
    events: Vec<Arc<DeclaredEvent>>,
    event_indices: FxHashMap<Cow<'static, str>, usize>,
    /// The outermost first.
    interceptors: Vec<Arc<dyn Interceptor>>,
    /// Serves commands that are not registered.
    forwarder: Option<Arc<dyn Forwarder>>,
    /// Add values to the locals of each new monitor.
    locals: Vec<MakeLocals>,
    deadlines: FxHashMap<String, Duration>,
    default_deadline: Option<Duration>,
    policy: Policy,
    /// Of the async commands that are registered next.
    executor: Option<Arc<dyn Spawn>>,
    /// The result of `query-qmp-schema`, made when it is first asked for.
    schema: OnceLock<Json>,
}

type MakeLocals = Arc<dyn Fn(Locals) -> Locals + Send + Sync>;

/// A command that is shared by the snapshots of a registry, or the name of one that has been removed.
#[derive(Clone)]
enum Slot {
    Used(Arc<Command>),
    Removed(Cow<'static, str>),
}

impl Slot {
    fn command(&self) -> Option<&Arc<Command>> {
        match self {
            Slot::Used(command) => Some(command),
            Slot::Removed(_) => None,
        }
    }
}

/// Why a command or event could not be registered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RegisterError {
    /// There is a command or event of this name already.
    #[error("'{0}' is registered already")]
    Duplicate(Cow<'static, str>),
    /// QAPI does not allow this name.
    #[error("invalid name '{0}': expected a letter followed by letters, digits, '-' or '_'")]
    InvalidName(Cow<'static, str>),
    /// Its types cannot be expressed in QAPI.
    #[error("'{name}' cannot be described: {reason}")]
    Schema {
        /// The name of the command or event.
        name: Cow<'static, str>,
        /// What cannot be expressed.
        reason: SchemaError,
    },
    /// It is async, and there is no [executor](Registry::set_executor).
    #[error("'{0}' is async: set an executor before it is registered")]
    NoExecutor(Cow<'static, str>),
}

impl Default for Registry {
    fn default() -> Registry {
        Registry::new()
    }
}

impl Registry {
    /// Creates a registry with the commands of the protocol itself.
    pub fn new() -> Registry {
        let mut registry = Registry::empty();
        protocol_commands::register(&mut registry)
            .expect("the commands of the protocol have names and types of their own");
        for index in 0..registry.commands.len() {
            registry.new_command(index).allow_preconfig();
        }
        registry
    }

    /// Creates a registry that forwards unknown commands. Of the commands of the protocol, it has only
    /// `qmp_capabilities`: introspection is answered upstream.
    pub fn forwarding(forwarder: impl Forwarder) -> Registry {
        let mut registry = Registry::empty();
        registry.forwarder = Some(Arc::new(forwarder));
        protocol_commands::register_negotiation(&mut registry)
            .expect("the first command has a name of its own");
        registry
    }

    /// Creates a registry for clients that speak as to QEMU's guest agent (`qemu-ga`), and forwards all their commands that
    /// are not registered. There is no greeting, no negotiation, no out-of-band execution, and there are no events; each
    /// response ends with LF alone. `guest-sync` and `guest-sync-delimited` pass all filters, as negotiation does elsewhere.
    ///
    /// ```
    /// use qmp_dispatch::{Context, Forwarded, LocalClient, Registry, Responder};
    /// use qmp_dispatch::proto::{Error, Json};
    ///
    /// let agent = |_: &Context, request: Forwarded, responder: Responder<Json>| {
    ///     responder.respond_json(Err(Error::command_not_found(&request.command)));
    /// };
    /// let client = LocalClient::new(Registry::for_agent(agent));
    /// client.monitor().add_command_filter(|name| name == "guest-ping");
    /// assert!(client.ask("{'execute': 'guest-ping'}")[0].contains("has not been found"));
    /// assert!(client.ask("{'execute': 'guest-exec'}")[0].contains("has been disabled"));
    /// ```
    pub fn for_agent(forwarder: impl Forwarder) -> Registry {
        let forwarder: Option<Arc<dyn Forwarder>> = Some(Arc::new(forwarder));
        Registry { protocol: Protocol::Agent, forwarder, ..Registry::empty() }
    }

    fn empty() -> Registry {
        Registry {
            protocol: Protocol::Qmp,
            commands: Vec::new(),
            has_async_commands: false,
            command_indices: FxHashMap::default(),
            events: Vec::new(),
            event_indices: FxHashMap::default(),
            interceptors: Vec::new(),
            forwarder: None,
            locals: Vec::new(),
            deadlines: FxHashMap::default(),
            default_deadline: None,
            policy: Policy::default(),
            executor: None,
            schema: OnceLock::new(),
        }
    }

    /// Returns a copy for a dispatcher to change, which has the same commands and events.
    pub(crate) fn snapshot(&self) -> Registry {
        Registry {
            protocol: self.protocol,
            commands: self.commands.clone(),
            has_async_commands: self.has_async_commands,
            command_indices: self.command_indices.clone(),
            events: self.events.clone(),
            event_indices: self.event_indices.clone(),
            interceptors: self.interceptors.clone(),
            forwarder: self.forwarder.clone(),
            locals: self.locals.clone(),
            deadlines: self.deadlines.clone(),
            default_deadline: self.default_deadline,
            policy: self.policy,
            executor: self.executor.clone(),
            schema: OnceLock::new(),
        }
    }

    /// Registers a command that is served by a function; see [`Handler`] for its form.
    ///
    /// # Errors
    ///
    /// [`RegisterError`] if the name is taken or not allowed by QAPI, or if the types of the function cannot be
    /// expressed in QAPI.
    pub fn command<H, Shape>(
        &mut self,
        name: impl Into<Cow<'static, str>>,
        handler: H,
    ) -> Result<&mut Command, RegisterError>
    where
        H: Handler<(), Shape>,
    {
        self.with(Arc::new(())).into_command(name.into(), handler)
    }

    /// Registers a command whose function never fails, and returns the result without a `Result`.
    ///
    /// # Errors
    ///
    /// As [`command`](Registry::command).
    pub fn infallible_command<F, Shape>(
        &mut self,
        name: impl Into<Cow<'static, str>>,
        function: F,
    ) -> Result<&mut Command, RegisterError>
    where
        InfallibleHandler<F>: Handler<(), Shape>,
    {
        self.command(name, InfallibleHandler(function))
    }

    /// Registers a command whose function answers later; see [`DeferredHandler`] for its form.
    ///
    /// # Errors
    ///
    /// As [`command`](Registry::command).
    pub fn deferred_command<H, Shape>(
        &mut self,
        name: impl Into<Cow<'static, str>>,
        handler: H,
    ) -> Result<&mut Command, RegisterError>
    where
        H: DeferredHandler<(), Shape>,
    {
        self.with(Arc::new(())).into_deferred_command(name.into(), handler)
    }

    /// Registers a command that is served by an async function; see [`AsyncHandler`] for its form.
    ///
    /// It answers later. The future is polled by the [executor](Registry::set_executor), and while it waits, commands of
    /// other clients are executed; the next in-band request of the same client waits for its response. While it is
    /// polled, [`current`](crate::current) is its client's monitor. It goes on when the client has disconnected or the
    /// deadline has passed: the handler is [notified](crate::AsyncContext::closed), and only the future of a
    /// [cancellable](Command::cancellable) command is dropped.
    ///
    /// ```
    /// use qmp_dispatch::proto::Error;
    /// use qmp_dispatch::{AsyncContext, LocalClient, Registry, Task};
    ///
    /// async fn measure() -> Result<u64, Error> {
    ///     Ok(6)
    /// }
    ///
    /// let mut registry = Registry::new();
    /// registry.set_executor(|task: Task| _ = std::thread::spawn(|| task.run()));
    /// registry.async_command("x-measure", |_: AsyncContext| async move {
    ///     let measured = measure().await?;
    ///     Ok::<_, Error>(measured * 7)
    /// })?;
    /// let said = LocalClient::new(registry).ask("{'execute': 'x-measure'}");
    /// assert_eq!(said, [r#"{"return": 42}"#]);
    /// # Ok::<(), qmp_dispatch::RegisterError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`command`](Registry::command), and [`RegisterError::NoExecutor`] if there is none.
    pub fn async_command<H, Shape>(
        &mut self,
        name: impl Into<Cow<'static, str>>,
        handler: H,
    ) -> Result<&mut Command, RegisterError>
    where
        H: AsyncHandler<(), Shape>,
    {
        self.with(Arc::new(())).into_async_command(name.into(), handler)
    }

    pub(crate) fn erased_async<A, T, R>(
        &self,
        name: &str,
        call: impl Fn(AsyncContext, A) -> R + Send + Sync + 'static,
    ) -> Result<ErasedHandler, RegisterError>
    where
        A: DeserializeOwned,
        T: Serialize + 'static,
        R: Future<Output = Result<T, Error>> + Send + 'static,
    {
        let executor = self.executor.as_ref().map(Arc::clone);
        let executor = executor.ok_or_else(|| RegisterError::NoExecutor(name.to_owned().into()))?;
        Ok(ErasedHandler::Async(ErasedAsync::new(executor, call)))
    }

    /// Sets the executor of the [async commands](Registry::async_command) that are registered from now on.
    pub fn set_executor(&mut self, executor: impl Spawn) {
        self.executor = Some(Arc::new(executor));
    }

    /// Returns a [`Group`], with which commands that share `state` are registered.
    pub fn with<S: ?Sized + Send + Sync + 'static>(&mut self, state: Arc<S>) -> Group<'_, S> {
        Group { registry: self, state }
    }

    /// Declares a kind of event.
    ///
    /// # Errors
    ///
    /// [`RegisterError`] if the name is taken or not allowed by QAPI, or if the type of the data cannot be expressed
    /// in QAPI or is not an object.
    pub fn event<T: JsonSchema + 'static>(
        &mut self,
        event: &EventType<T>,
    ) -> Result<EventSettings<'_, T>, RegisterError> {
        let name = event.name();
        self.check_name(name)?;
        let schema = |reason| RegisterError::Schema { name: name.clone(), reason };
        let data = type_of::<T>().map_err(schema)?;
        if !data.is_object() {
            let type_name = T::schema_name().into_owned();
            let place = type_name.clone();
            return Err(schema(SchemaError { type_name, place, problem: Problem::NotAnObject }));
        }
        Ok(EventSettings::new(self.add_event(Arc::new(DeclaredEvent::new(event, data)))))
    }

    /// Adds an interceptor, inside of those that have been added before.
    pub fn intercept(&mut self, interceptor: impl Interceptor) {
        self.interceptors.push(Arc::new(interceptor));
    }

    /// Adds all commands and events of another registry, its interceptors, its deadlines of commands that have
    /// none here, and its locals of [each monitor](Registry::each_monitor).
    ///
    /// Settings of the server as a whole are not changed: the policy, the default deadline, the forwarder and the
    /// commands of the protocol itself.
    ///
    /// # Errors
    ///
    /// [`RegisterError::Duplicate`] if both have a command or event of the same name. Then nothing is added.
    pub fn merge(&mut self, other: Registry) -> Result<(), RegisterError> {
        let own = Registry::new();
        let is_others = |slot: Slot| match slot {
            Slot::Used(command) => own.find_command(command.name()).is_none().then_some(command),
            Slot::Removed(_) => None,
        };
        let commands: Vec<_> = other.commands.into_iter().filter_map(is_others).collect();
        let names = commands.iter().map(|command| command.name());
        let mut names = names.chain(other.events.iter().map(|event| event.name()));
        if let Some(name) = names.find(|name| self.is_taken(name)) {
            return Err(RegisterError::Duplicate(name.to_owned().into()));
        }
        for command in commands {
            self.add_command(command);
        }
        for event in other.events {
            self.add_event(event);
        }
        self.interceptors.extend(other.interceptors);
        self.locals.extend(other.locals);
        for (command, after) in other.deadlines {
            self.deadlines.entry(command).or_insert(after);
        }
        Ok(())
    }

    /// Sets the policy for deprecated and unstable commands, arguments, results and events, as QEMU's `-compat`
    /// does. By default, all are accepted and shown.
    pub fn set_policy(&mut self, policy: Policy) {
        self.policy = policy;
    }

    /// Adds values to the locals of each new monitor. The function receives the locals that the embedder and
    /// functions added before have made.
    pub fn each_monitor(&mut self, locals: impl Fn(Locals) -> Locals + Send + Sync + 'static) {
        self.locals.push(Arc::new(locals));
    }

    pub(crate) fn complete(&self, locals: Locals) -> Locals {
        self.locals.iter().fold(locals, |locals, add| add(locals))
    }

    /// Sets the [deadline](Command::deadline) of the command of this name, registered or
    /// [forwarded](Registry::forwarding). It replaces the one set at the command.
    pub fn set_deadline(&mut self, command: impl Into<String>, after: Duration) {
        self.deadlines.insert(command.into(), after);
    }

    /// Sets the [deadline](Command::deadline) of all commands without one. Negotiation never has one.
    pub fn set_default_deadline(&mut self, after: Duration) {
        self.default_deadline = Some(after);
    }

    /// Takes back all that [`set_deadline`](Registry::set_deadline) and
    /// [`set_default_deadline`](Registry::set_default_deadline) have said.
    pub fn clear_deadlines(&mut self) {
        self.deadlines.clear();
        self.default_deadline = None;
    }

    pub(crate) fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Returns the deadline that was set for the command of this name, or else for all commands.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use qmp_dispatch::Registry;
    ///
    /// let mut registry = Registry::new();
    /// registry.set_deadline("guest-fstrim", Duration::from_secs(600));
    /// assert_eq!(registry.deadline("guest-fstrim"), Some(Duration::from_secs(600)));
    /// assert_eq!(registry.deadline("guest-ping"), None);
    /// ```
    pub fn deadline(&self, command: &str) -> Option<Duration> {
        self.deadlines.get(command).copied().or(self.default_deadline)
    }

    /// Returns the deadline of the command; `own` is the one set at the command, `deadlines` are those of the monitor.
    pub(crate) fn deadline_of(
        &self,
        name: &str,
        own: Option<Duration>,
        deadlines: Option<&Deadlines>,
    ) -> Option<Duration> {
        let by_name = match self.deadlines.is_empty() {
            true => None,
            false => self.deadlines.get(name).copied(),
        };
        // Negotiation takes no time, and its response starts the events.
        let by_name = by_name.or(own).or_else(|| deadlines?.of(name));
        by_name.or(self.default_deadline).filter(|_| name != NEGOTIATION)
    }

    /// Removes a command. Its requests that are being executed go on; those that wait get `CommandNotFound`. Returns whether
    /// there was one of this name. `qmp_capabilities` cannot be removed.
    ///
    /// For a dispatcher that is [running](crate::Dispatcher::update).
    pub fn remove_command(&mut self, name: &str) -> bool {
        if name == NEGOTIATION {
            return false;
        }
        let Some((name, index)) = self.command_indices.remove_entry(name) else { return false };
        self.commands[index] = Slot::Removed(name);
        true
    }

    /// Removes a kind of event: it cannot be emitted any more, and one that a rate limit holds back is not sent. Returns
    /// whether there was one of this name.
    pub fn remove_event(&mut self, name: &str) -> bool {
        let Some(index) = self.event_indices.remove(name) else { return false };
        self.events.remove(index);
        self.event_indices.values_mut().for_each(|other| *other -= usize::from(*other > index));
        true
    }

    /// Returns the result of `query-qmp-schema`.
    pub(crate) fn schema(&self) -> &Json {
        self.schema.get_or_init(|| self.introspection().to_json())
    }

    pub(crate) fn forwarder(&self) -> Option<&dyn Forwarder> {
        self.forwarder.as_deref()
    }

    /// Introspects all commands and events, for people and generators: documented, and with the
    /// [names of their types](Introspection::unmasked) if wanted. Clients get its default.
    pub fn introspection(&self) -> Introspection {
        let mut introspection = Introspection::new();
        introspection.policy(self.policy);
        for command in self.commands() {
            introspection.command(&command.info());
        }
        for event in self.events() {
            introspection.event(&event.info());
        }
        introspection
    }

    pub(crate) fn policy(&self) -> &Policy {
        &self.policy
    }

    pub(crate) fn interceptors(&self) -> &[Arc<dyn Interceptor>] {
        &self.interceptors
    }

    /// Returns all commands, in the order of registration.
    pub fn commands(&self) -> impl Iterator<Item = &Command> {
        self.commands.iter().filter_map(Slot::command).map(|command| &**command)
    }

    /// Returns how many commands there have been, those included that have been removed: all
    /// [indices](Command::index) are less.
    pub fn command_slots(&self) -> usize {
        self.commands.len()
    }

    /// Returns all kinds of events, in the order of declaration.
    pub fn events(&self) -> impl ExactSizeIterator<Item = &DeclaredEvent> {
        self.events.iter().map(|event| &**event)
    }

    /// Whether there may be [async commands](Registry::async_command).
    pub(crate) fn has_async_commands(&self) -> bool {
        self.has_async_commands
    }

    /// Returns the command of this name, if it is registered.
    pub fn find_command(&self, name: &str) -> Option<&Command> {
        self.find(name).map(|command| &**command)
    }

    pub(crate) fn find(&self, name: &str) -> Option<&Arc<Command>> {
        self.command_indices.get(name).and_then(|&index| self.commands[index].command())
    }

    /// Returns the kind of events of this name, if it is declared.
    pub fn find_event(&self, name: &str) -> Option<&DeclaredEvent> {
        self.event_indices.get(name).map(|&index| &*self.events[index])
    }

    /// Whether there is a command or event of this name. Introspection tells them apart by their names alone.
    fn is_taken(&self, name: &str) -> bool {
        self.find_command(name).is_some() || self.find_event(name).is_some()
    }

    fn check_name(&self, name: &str) -> Result<(), RegisterError> {
        if !is_name(name) {
            return Err(RegisterError::InvalidName(name.to_owned().into()));
        }
        match self.is_taken(name) {
            true => Err(RegisterError::Duplicate(name.to_owned().into())),
            false => Ok(()),
        }
    }

    /// Returns the name of a command, also if it has been removed.
    pub(crate) fn name_at(&self, index: usize) -> Option<&str> {
        self.commands.get(index).map(|slot| match slot {
            Slot::Used(command) => command.name(),
            Slot::Removed(name) => name,
        })
    }

    /// Registers a handler whose types are erased, and which takes `A` and returns `T`.
    pub(crate) fn erased<A: DeserializeOwned + JsonSchema, T: JsonSchema>(
        &mut self,
        name: Cow<'static, str>,
        handler: ErasedHandler,
    ) -> Result<&mut Command, RegisterError> {
        self.check_name(&name)?;
        let schema = |reason| RegisterError::Schema { name: name.clone(), reason };
        let arguments = match cfg!(debug_assertions) {
            true => check_arguments_of::<A>(),
            false => arguments_of::<A>(),
        };
        let arguments = arguments.map_err(schema)?;
        let result = type_of::<T>().map_err(schema)?;
        Ok(self.add_command(Arc::new(Command::new(name, arguments, result, handler))))
    }

    /// Adds a command whose name is not taken.
    fn add_command(&mut self, command: Arc<Command>) -> &mut Command {
        let index = self.commands.len();
        self.has_async_commands |= command.is_async();
        self.command_indices.insert(command.name_for_ever(), index);
        self.commands.push(Slot::Used(command));
        let command = self.new_command(index);
        command.set_index(index);
        command
    }

    /// Returns a command of a registry that no dispatcher has had yet.
    fn new_command(&mut self, index: usize) -> &mut Command {
        match &mut self.commands[index] {
            Slot::Used(command) => Arc::get_mut(command).expect("it is not shared yet"),
            Slot::Removed(_) => unreachable!("it has just been added"),
        }
    }

    /// Adds an event whose name is not taken.
    fn add_event(&mut self, event: Arc<DeclaredEvent>) -> &mut DeclaredEvent {
        let index = self.events.len();
        self.event_indices.insert(event.name_for_ever(), index);
        self.events.push(event);
        Arc::get_mut(&mut self.events[index]).expect("it is not shared yet")
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let commands = self.commands().map(Command::name);
        let events = self.events().map(DeclaredEvent::name);
        f.debug_struct("Registry")
            .field("commands", &commands.collect::<Vec<_>>())
            .field("events", &events.collect::<Vec<_>>())
            .finish()
    }
}

/// Registers commands that share some state; made by [`Registry::with`].
#[derive(Debug)]
pub struct Group<'r, S: ?Sized> {
    registry: &'r mut Registry,
    state: Arc<S>,
}

impl<S: ?Sized> Group<'_, S> {
    pub(crate) fn parts(&mut self) -> (&mut Registry, &Arc<S>) {
        (self.registry, &self.state)
    }
}

impl<'r, S: ?Sized + Send + Sync + 'static> Group<'r, S> {
    /// Registers a command that is served by a function of the state; see [`Handler`] for its form.
    ///
    /// # Errors
    ///
    /// As [`Registry::command`].
    pub fn command<H, Shape>(
        &mut self,
        name: impl Into<Cow<'static, str>>,
        handler: H,
    ) -> Result<&mut Command, RegisterError>
    where
        H: Handler<S, Shape>,
    {
        self.reborrow().into_command(name.into(), handler)
    }

    /// Registers a command whose function of the state never fails, and returns the result without a `Result`.
    ///
    /// # Errors
    ///
    /// As [`Registry::command`].
    pub fn infallible_command<F, Shape>(
        &mut self,
        name: impl Into<Cow<'static, str>>,
        function: F,
    ) -> Result<&mut Command, RegisterError>
    where
        InfallibleHandler<F>: Handler<S, Shape>,
    {
        self.command(name, InfallibleHandler(function))
    }

    /// Registers a command whose function of the state answers later; see [`DeferredHandler`] for
    /// its form.
    ///
    /// # Errors
    ///
    /// As [`Registry::command`].
    pub fn deferred_command<H, Shape>(
        &mut self,
        name: impl Into<Cow<'static, str>>,
        handler: H,
    ) -> Result<&mut Command, RegisterError>
    where
        H: DeferredHandler<S, Shape>,
    {
        self.reborrow().into_deferred_command(name.into(), handler)
    }

    /// Registers a command that is served by an async function of the state; see [`AsyncHandler`] for its form.
    ///
    /// # Errors
    ///
    /// As [`Registry::async_command`].
    pub fn async_command<H, Shape>(
        &mut self,
        name: impl Into<Cow<'static, str>>,
        handler: H,
    ) -> Result<&mut Command, RegisterError>
    where
        H: AsyncHandler<S, Shape>,
    {
        self.reborrow().into_async_command(name.into(), handler)
    }

    fn reborrow(&mut self) -> Group<'_, S> {
        Group { registry: self.registry, state: Arc::clone(&self.state) }
    }

    fn into_command<H: Handler<S, Shape>, Shape>(
        self,
        name: Cow<'static, str>,
        handler: H,
    ) -> Result<&'r mut Command, RegisterError> {
        let Group { registry, state } = self;
        let handler = ErasedHandler::at_once(move |context, arguments| {
            handler.call(&state, context, arguments)
        });
        registry.erased::<H::Arguments, H::Result>(name, handler)
    }

    fn into_deferred_command<H: DeferredHandler<S, Shape>, Shape>(
        self,
        name: Cow<'static, str>,
        handler: H,
    ) -> Result<&'r mut Command, RegisterError> {
        let Group { registry, state } = self;
        let handler = ErasedHandler::deferred(move |context, arguments, responder| {
            handler.begin(&state, context, arguments, responder);
        });
        registry.erased::<H::Arguments, H::Result>(name, handler)
    }

    fn into_async_command<H: AsyncHandler<S, Shape>, Shape>(
        self,
        name: Cow<'static, str>,
        handler: H,
    ) -> Result<&'r mut Command, RegisterError> {
        let Group { registry, state } = self;
        let handler = registry.erased_async(&name, move |context, arguments| {
            handler.call(Arc::clone(&state), context, arguments)
        })?;
        registry.erased::<H::Arguments, H::Result>(name, handler)
    }
}
