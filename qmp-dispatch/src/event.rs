// SPDX-License-Identifier: MIT OR Apache-2.0
//! Kinds of events.

use std::any::{Any, TypeId};
use std::fmt;
use std::time::Duration;

use qmp_proto::{EncodeError, Error};

use crate::qapi::{EventInfo, Type};

/// A kind of event: its name, and the type of its data. `()` means that it has none.
///
/// Declared with [`Registry::event`](crate::Registry::event), emitted with
/// [`Context::emit`](crate::Context::emit) or [`Dispatcher::emit`](crate::Dispatcher::emit). The rate
/// limit that was declared holds for all events of the name, even if they are emitted by means of
/// another constant.
///
/// ```
/// use std::time::Duration;
///
/// use qmp_dispatch::{EventType, Registry};
///
/// #[derive(serde::Serialize, schemars::JsonSchema)]
/// struct BlockIoError {
///     device: String,
/// }
///
/// const BLOCK_IO_ERROR: EventType<BlockIoError> = EventType::new("BLOCK_IO_ERROR")
///     .at_most_every(Duration::from_secs(1))
///     .similar_by(|error: &BlockIoError| error.device.clone());
///
/// let mut registry = Registry::new();
/// registry.event(&BLOCK_IO_ERROR)?.documented("A device has failed.");
/// assert!(registry.event(&BLOCK_IO_ERROR).is_err(), "once is enough");
/// # Ok::<(), qmp_dispatch::RegisterError>(())
/// ```
pub struct EventType<T> {
    name: &'static str,
    interval: Duration,
    key: fn(&T) -> String,
}

impl<T> EventType<T> {
    /// Creates the kind of events with this name, without a rate limit.
    pub const fn new(name: &'static str) -> EventType<T> {
        EventType { name, interval: Duration::ZERO, key: |_| String::new() }
    }

    /// Limits the rate to one event per interval: the first is sent at once and, of those that follow within the
    /// interval, the last when it ends. Mirrors the limits of QEMU's `monitor/monitor.c`.
    #[must_use]
    pub const fn at_most_every(mut self, interval: Duration) -> EventType<T> {
        self.interval = interval;
        self
    }

    /// Limits events with different keys independently of each other, such as those of different devices.
    /// Without this, all events of the kind share one limit.
    #[must_use]
    pub const fn similar_by(mut self, key: fn(&T) -> String) -> EventType<T> {
        self.key = key;
        self
    }

    /// Returns the name, as clients see it.
    pub fn name(&self) -> &'static str {
        self.name
    }
}

impl<T> Clone for EventType<T> {
    fn clone(&self) -> EventType<T> {
        *self
    }
}

impl<T> Copy for EventType<T> {}

impl<T> fmt::Debug for EventType<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("EventType").field(&self.name).finish()
    }
}

/// A declared kind of event, and its settings.
pub struct DeclaredEvent {
    name: &'static str,
    data: Type,
    data_type: TypeId,
    /// Zero if there is no limit.
    interval: Duration,
    key: Key,
    features: Vec<String>,
    documentation: Option<String>,
}

/// The key of an [`EventType`] whose type is erased.
type Key = Box<dyn Fn(&dyn Any) -> String + Send + Sync>;

impl DeclaredEvent {
    pub(crate) fn new<T: 'static>(event: &EventType<T>, data: Type) -> DeclaredEvent {
        let EventType { name, interval, key } = *event;
        DeclaredEvent {
            name,
            data,
            data_type: TypeId::of::<T>(),
            interval,
            key: Box::new(move |data| data.downcast_ref().map(key).unwrap_or_default()),
            features: Vec::new(),
            documentation: None,
        }
    }

    /// Adds the [feature](DeclaredEvent::feature) `deprecated`: the event is still sent, and will be removed.
    pub fn deprecated(&mut self) -> &mut DeclaredEvent {
        self.feature("deprecated")
    }

    /// Adds the [feature](DeclaredEvent::feature) `unstable`: the event may change or be removed at any time.
    pub fn unstable(&mut self) -> &mut DeclaredEvent {
        self.feature("unstable")
    }

    /// Adds a feature, which introspection shows to clients. Adding it again changes nothing.
    pub fn feature(&mut self, name: impl Into<String>) -> &mut DeclaredEvent {
        let name = name.into();
        if !self.features.contains(&name) {
            self.features.push(name);
        }
        self
    }

    /// Sets the documentation, for people who [introspect](crate::Registry::introspection). It is not sent to
    /// clients.
    pub fn documented(&mut self, text: impl Into<String>) -> &mut DeclaredEvent {
        self.documentation = Some(text.into());
        self
    }

    /// Returns the name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Returns the features, including `deprecated` and `unstable`.
    pub fn features(&self) -> &[String] {
        &self.features
    }

    /// Returns the documentation.
    pub fn documentation(&self) -> Option<&str> {
        self.documentation.as_deref()
    }

    pub(crate) fn info(&self) -> EventInfo<'_> {
        EventInfo {
            name: self.name,
            data: &self.data,
            features: &self.features,
            documentation: self.documentation(),
        }
    }

    pub(crate) fn data(&self) -> &Type {
        &self.data
    }

    pub(crate) fn interval(&self) -> Duration {
        self.interval
    }

    /// The key of data that has the declared type.
    pub(crate) fn key(&self, data: &dyn Any) -> String {
        (self.key)(data)
    }

    /// What [`EventType`]s of this name have for data.
    pub(crate) fn data_type(&self) -> TypeId {
        self.data_type
    }
}

impl fmt::Debug for DeclaredEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeclaredEvent")
            .field("name", &self.name)
            .field("interval", &self.interval)
            .field("features", &self.features)
            .finish_non_exhaustive()
    }
}

/// Why an event could not be emitted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EmitError {
    /// It is not declared in the registry, so introspection would not show it.
    #[error("event {0} is not declared")]
    Undeclared(&'static str),
    /// It is declared with data of another type, which introspection shows.
    #[error("event {0} is declared with data of another type")]
    OtherType(&'static str),
    /// Its data is not of the type that introspection shows. Checked in debug builds and after a
    /// [`LocalClient`](crate::LocalClient) has connected.
    #[error("the data of event {name} is not of its type: {reason}")]
    Mismatch {
        /// The name of the event.
        name: &'static str,
        /// What is wrong with the data.
        reason: Error,
    },
    /// Its data cannot be written as JSON.
    #[error("the data of event {name} cannot be written: {reason}")]
    Data {
        /// The name of the event.
        name: &'static str,
        /// What is wrong with the data.
        reason: EncodeError,
    },
}

impl From<EmitError> for Error {
    fn from(error: EmitError) -> Error {
        Error::generic(error.to_string())
    }
}
