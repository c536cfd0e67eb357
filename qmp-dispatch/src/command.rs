// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is known of one command.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::handler::ErasedHandler;
use crate::qapi::{Arguments, CommandInfo, Type};

/// The name of the command that leaves negotiation.
pub(crate) const NEGOTIATION: &str = "qmp_capabilities";

/// A registered command, and what can be set of it.
///
/// Mirrors the flags that a command has in a QAPI schema.
///
/// ```
/// use std::time::Duration;
///
/// use qmp_dispatch::{Context, Registry, proto::Error};
///
/// let mut registry = Registry::new();
/// let command = registry.command("yank", |_: &Context| Ok::<(), Error>(()))?;
/// command.allow_oob().unstable().documented("Cuts connections.").deadline(Duration::from_secs(5));
/// assert!(command.allows_oob());
/// assert_eq!(command.features(), ["unstable"]);
/// # Ok::<(), qmp_dispatch::RegisterError>(())
/// ```
pub struct Command {
    name: &'static str,
    /// Where it is in its registry.
    index: usize,
    arguments: Arguments,
    result: Type,
    handler: ErasedHandler,
    allow_oob: bool,
    allow_preconfig: bool,
    success_response: bool,
    features: Vec<String>,
    documentation: Option<String>,
    deadline: Option<Duration>,
    enabled: AtomicBool,
}

impl Command {
    pub(crate) fn new(
        name: &'static str,
        arguments: Arguments,
        result: Type,
        handler: ErasedHandler,
    ) -> Command {
        Command {
            name,
            index: 0,
            arguments,
            result,
            handler,
            allow_oob: false,
            allow_preconfig: false,
            success_response: true,
            features: Vec::new(),
            documentation: None,
            deadline: None,
            enabled: AtomicBool::new(true),
        }
    }

    /// Allows the command to be executed out-of-band: at once, by the thread that read it, while
    /// in-band commands may be running. Its handler must be quick and must not block. Off by
    /// default.
    pub fn allow_oob(&mut self) -> &mut Command {
        self.allow_oob = true;
        self
    }

    /// Makes the command answer nothing when it succeeds. Off by default.
    ///
    /// ```
    /// use qmp_dispatch::{Context, LocalClient, Registry, proto::Error};
    ///
    /// let mut registry = Registry::new();
    /// registry.command("ping", |_: &Context| Ok::<(), Error>(()))?.no_success_response();
    /// let client = LocalClient::new(registry);
    /// assert!(client.ask("{'execute': 'ping'}").is_empty());
    /// assert_eq!(client.ask("{'execute': 'ping', 'arguments': {'x': 1}}").len(), 1, "errors are answered");
    /// # Ok::<(), qmp_dispatch::RegisterError>(())
    /// ```
    pub fn no_success_response(&mut self) -> &mut Command {
        self.success_response = false;
        self
    }

    /// Allows the command to be executed while the machine is yet to be initialized; see
    /// [`Dispatcher::set_preconfig`](crate::Dispatcher::set_preconfig). Off by default.
    ///
    /// ```
    /// use qmp_dispatch::{Context, LocalClient, Registry, proto::Error};
    ///
    /// let mut registry = Registry::new();
    /// registry.command("set-numa-node", |_: &Context| Ok::<(), Error>(()))?.allow_preconfig();
    /// let client = LocalClient::new(registry);
    /// client.monitor().dispatcher().set_preconfig(true);
    /// assert_eq!(client.ask("{'execute': 'set-numa-node'}"), [r#"{"return": {}}"#]);
    /// # Ok::<(), qmp_dispatch::RegisterError>(())
    /// ```
    pub fn allow_preconfig(&mut self) -> &mut Command {
        self.allow_preconfig = true;
        self
    }

    /// Marks the command as deprecated: it is still there, and will go. The same as a
    /// [feature](Command::feature) of that name.
    pub fn deprecated(&mut self) -> &mut Command {
        self.feature("deprecated")
    }

    /// Marks the command as unstable: it may change or go at any time. The same as a
    /// [feature](Command::feature) of that name.
    pub fn unstable(&mut self) -> &mut Command {
        self.feature("unstable")
    }

    /// Adds a feature, which introspection shows to clients.
    ///
    /// ```
    /// use qmp_dispatch::{Context, LocalClient, Registry, proto::Error};
    ///
    /// let mut registry = Registry::new();
    /// registry.command("ping", |_: &Context| Ok::<(), Error>(()))?.feature("x-quick").deprecated();
    /// let schema = LocalClient::new(registry).ask("{'execute': 'query-qmp-schema'}");
    /// assert!(schema[0].contains(r#""features": ["x-quick", "deprecated"]"#));
    /// # Ok::<(), qmp_dispatch::RegisterError>(())
    /// ```
    pub fn feature(&mut self, name: impl Into<String>) -> &mut Command {
        let name = name.into();
        if !self.features.contains(&name) {
            self.features.push(name);
        }
        self
    }

    /// Says what it is for, to people who [introspect](crate::Registry::introspection). The protocol does
    /// not carry it.
    pub fn documented(&mut self, text: impl Into<String>) -> &mut Command {
        self.documentation = Some(text.into());
        self
    }

    /// Answers with an error if there is no answer after so long; one that comes later is dropped and
    /// logged. A handler is not interrupted, and one that blocks its thread goes on holding up
    /// others. Works as well as somebody calls
    /// [`Dispatcher::handle_timeout`](crate::Dispatcher::handle_timeout). No deadline by default.
    ///
    /// ```
    /// use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
    /// use std::time::Duration;
    ///
    /// use qmp_dispatch::proto::{Error, Version};
    /// use qmp_dispatch::{Context, Dispatcher, LocalClient, Registry, Time};
    ///
    /// static SECONDS: AtomicU64 = AtomicU64::new(0);
    ///
    /// let mut registry = Registry::new();
    /// let command = registry.command("crawl", |context: &Context| {
    ///     SECONDS.store(7, Relaxed);
    ///     // What a timer of the embedder does meanwhile.
    ///     context.dispatcher().handle_timeout();
    ///     Ok::<(), Error>(())
    /// })?;
    /// command.deadline(Duration::from_secs(5));
    ///
    /// let clock = || Time { monotonic: Duration::from_secs(SECONDS.load(Relaxed)), ..Time::default() };
    /// let dispatcher = Dispatcher::new(registry, Version::new(0, 1, 0, ""), clock);
    /// let said = LocalClient::connect(&dispatcher).ask("{'execute': 'crawl'}");
    /// assert!(said[0].contains("The command crawl was not answered within 5 seconds"));
    /// # Ok::<(), qmp_dispatch::RegisterError>(())
    /// ```
    pub fn deadline(&mut self, after: Duration) -> &mut Command {
        self.deadline = Some(after);
        self
    }

    /// The name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The features, `deprecated` and `unstable` included.
    pub fn features(&self) -> &[String] {
        &self.features
    }

    /// What it is for.
    pub fn documentation(&self) -> Option<&str> {
        self.documentation.as_deref()
    }

    /// Whether the command may be executed while the machine is yet to be initialized.
    pub fn allows_preconfig(&self) -> bool {
        self.allow_preconfig
    }

    /// Whether the command is [enabled](crate::Dispatcher::set_enabled).
    pub fn is_enabled(&self) -> bool {
        self.enabled.load(Ordering::Relaxed)
    }

    pub(crate) fn set_enabled(&self, enabled: bool) {
        self.enabled.store(enabled, Ordering::Relaxed);
    }

    pub(crate) fn index(&self) -> usize {
        self.index
    }

    /// Called when it is added to a registry.
    pub(crate) fn set_index(&mut self, index: usize) {
        self.index = index;
    }

    pub(crate) fn deadline_after(&self) -> Option<Duration> {
        self.deadline
    }

    /// Whether the command may be executed out-of-band.
    pub fn allows_oob(&self) -> bool {
        self.allow_oob
    }

    /// Whether the command answers when it succeeds.
    pub fn has_success_response(&self) -> bool {
        self.success_response
    }

    /// Whether this is the command that leaves negotiation.
    pub(crate) fn is_negotiation(&self) -> bool {
        self.name == NEGOTIATION
    }

    pub(crate) fn arguments(&self) -> &Arguments {
        &self.arguments
    }

    pub(crate) fn result(&self) -> &Type {
        &self.result
    }

    pub(crate) fn info(&self) -> CommandInfo<'_> {
        CommandInfo {
            name: self.name,
            arguments: &self.arguments,
            result: &self.result,
            allow_oob: self.allow_oob,
            features: &self.features,
            documentation: self.documentation(),
        }
    }

    pub(crate) fn handler(&self) -> &ErasedHandler {
        &self.handler
    }
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Command")
            .field("name", &self.name)
            .field("allow_oob", &self.allow_oob)
            .field("success_response", &self.success_response)
            .finish_non_exhaustive()
    }
}
