// SPDX-License-Identifier: MIT OR Apache-2.0
//! A command and its settings.

use std::borrow::Cow;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::handler::ErasedHandler;
use crate::qapi::{Arguments, CommandInfo, Type};

/// The name of the command that leaves negotiation.
pub(crate) const NEGOTIATION: &str = "qmp_capabilities";

/// The commands by which the client of a guest agent tells what is an answer to itself.
const SYNCHRONISATION: [&str; 2] = ["guest-sync", "guest-sync-delimited"];

/// Whether a command is the protocol's own, which no filter keeps from a client.
pub(crate) fn is_protocol(name: &str, protocol: Protocol) -> bool {
    match protocol {
        Protocol::Qmp => name == NEGOTIATION,
        Protocol::Agent => SYNCHRONISATION.contains(&name),
    }
}

/// What clients speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Qmp,
    /// That of QEMU's guest agent: QMP without greeting, negotiation and events.
    Agent,
}

/// A registered command and its settings, which mirror the flags of a command in a QAPI schema.
pub struct Command {
    name: Cow<'static, str>,
    /// The index in its registry.
    index: usize,
    arguments: Arguments,
    result: Type,
    handler: ErasedHandler,
    allow_oob: bool,
    allow_preconfig: bool,
    success_response: bool,
    delimited: bool,
    features: Vec<String>,
    documentation: Option<String>,
    deadline: Option<Duration>,
    cancellable: bool,
    enabled: AtomicBool,
}

impl Command {
    pub(crate) fn new(
        name: Cow<'static, str>,
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
            delimited: false,
            features: Vec::new(),
            documentation: None,
            deadline: None,
            cancellable: false,
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

    /// Sends no response when the command succeeds. Off by default.
    pub fn no_success_response(&mut self) -> &mut Command {
        self.success_response = false;
        self
    }

    /// Sends the response with the byte 0xFF before it when the command succeeds, as a guest agent does with that of
    /// `guest-sync-delimited`; see [`Output::respond_delimited`](crate::Output::respond_delimited). Off by default.
    pub fn delimited(&mut self) -> &mut Command {
        self.delimited = true;
        self
    }

    /// Allows the command to be executed before the machine is initialized; see
    /// [`Dispatcher::set_preconfig`](crate::Dispatcher::set_preconfig). Off by default.
    pub fn allow_preconfig(&mut self) -> &mut Command {
        self.allow_preconfig = true;
        self
    }

    /// Adds the [feature](Command::feature) `deprecated`: the command still works, and will be removed.
    pub fn deprecated(&mut self) -> &mut Command {
        self.feature("deprecated")
    }

    /// Adds the [feature](Command::feature) `unstable`: the command may change or be removed at any time.
    pub fn unstable(&mut self) -> &mut Command {
        self.feature("unstable")
    }

    /// Adds a feature, which introspection shows to clients. Adding it again changes nothing.
    pub fn feature(&mut self, name: impl Into<String>) -> &mut Command {
        let name = name.into();
        if !self.features.contains(&name) {
            self.features.push(name);
        }
        self
    }

    /// Sets the documentation, for people who [introspect](crate::Registry::introspection). It is not sent to
    /// clients.
    pub fn documented(&mut self, text: impl Into<String>) -> &mut Command {
        self.documentation = Some(text.into());
        self
    }

    /// Answers with an error if there is no answer after this long. A later answer is dropped and logged. The
    /// handler is not interrupted: if it blocks its thread, it goes on holding up other commands. Enforced only
    /// when [`Dispatcher::handle_timeout`](crate::Dispatcher::handle_timeout) is called. No deadline by default.
    pub fn deadline(&mut self, after: Duration) -> &mut Command {
        self.deadline = Some(after);
        self
    }

    /// Drops the future of an [async](crate::Registry::async_command) handler, at its next wait, when its response is not
    /// [awaited](crate::AsyncContext::is_awaited) any more: for commands that only read, or that can be stopped at each of
    /// their waits without leaving anything half done. By default, handlers are notified and go on. Changes nothing for
    /// other commands.
    pub fn cancellable(&mut self) -> &mut Command {
        self.cancellable = true;
        self
    }

    /// Returns the name.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn name_for_ever(&self) -> Cow<'static, str> {
        self.name.clone()
    }

    /// Returns the features, including `deprecated` and `unstable`.
    pub fn features(&self) -> &[String] {
        &self.features
    }

    /// Returns the documentation.
    pub fn documentation(&self) -> Option<&str> {
        self.documentation.as_deref()
    }

    /// Whether the command may be executed before the machine is initialized.
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

    /// Which command of its registry it is, counted from 0 in the order of registration.
    pub fn index(&self) -> usize {
        self.index
    }

    /// Called when it is added to a registry.
    pub(crate) fn set_index(&mut self, index: usize) {
        self.index = index;
    }

    pub(crate) fn deadline_after(&self) -> Option<Duration> {
        self.deadline
    }

    /// Whether the command is served by an [async](crate::Registry::async_command) handler, so that others can be executed
    /// while it waits.
    pub fn is_async(&self) -> bool {
        matches!(self.handler, ErasedHandler::Async(_))
    }

    pub(crate) fn is_cancellable(&self) -> bool {
        self.cancellable
    }

    /// Whether the command may be executed out-of-band.
    pub fn allows_oob(&self) -> bool {
        self.allow_oob
    }

    /// Whether a response is sent when the command succeeds.
    pub fn has_success_response(&self) -> bool {
        self.success_response
    }

    pub(crate) fn is_delimited(&self) -> bool {
        self.delimited
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
            name: &self.name,
            arguments: &self.arguments,
            result: &self.result,
            allow_oob: self.allow_oob,
            allow_preconfig: self.allow_preconfig,
            success_response: self.success_response,
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
