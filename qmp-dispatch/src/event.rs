// SPDX-License-Identifier: MIT OR Apache-2.0
//! Kinds of events.

use std::any::{Any, TypeId};
use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use qmp_proto::{EncodeError, Error, EventType};

use crate::qapi::{EventInfo, Type};

/// A declared kind of event.
pub struct DeclaredEvent {
    name: Cow<'static, str>,
    data: Type,
    data_type: TypeId,
    /// Zero if there is no limit.
    interval: Duration,
    key: Key,
    features: Vec<String>,
    documentation: Option<String>,
}

/// Makes a key of data whose type is erased.
type Key = Box<dyn Fn(&dyn Any) -> String + Send + Sync>;

impl DeclaredEvent {
    pub(crate) fn new<T: 'static>(event: &EventType<T>, data: Type) -> DeclaredEvent {
        DeclaredEvent {
            name: event.name().clone(),
            data,
            data_type: TypeId::of::<T>(),
            interval: Duration::ZERO,
            key: Box::new(|_| String::new()),
            features: event.features().iter().copied().map(str::to_owned).collect(),
            documentation: event.documentation().map(str::to_owned),
        }
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

    pub(crate) fn info(&self) -> EventInfo<'_> {
        EventInfo {
            name: &self.name,
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

    /// The type of data that [`EventType`]s of this name have.
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

/// The settings of a kind of event that has just been declared with
/// [`Registry::event`](crate::Registry::event).
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
/// const BLOCK_IO_ERROR: EventType<BlockIoError> = EventType::new("BLOCK_IO_ERROR");
///
/// let mut registry = Registry::new();
/// registry
///     .event(&BLOCK_IO_ERROR)?
///     .documented("A device has failed.")
///     .at_most_every(Duration::from_secs(1))
///     .similar_by(|error| error.device.clone());
/// assert!(registry.event(&BLOCK_IO_ERROR).is_err(), "once is enough");
/// # Ok::<(), qmp_dispatch::RegisterError>(())
/// ```
#[derive(Debug)]
pub struct EventSettings<'r, T> {
    event: &'r mut DeclaredEvent,
    data: PhantomData<fn(&T)>,
}

impl<'r, T: 'static> EventSettings<'r, T> {
    /// The event has been declared with data of type `T`.
    pub(crate) fn new(event: &'r mut DeclaredEvent) -> EventSettings<'r, T> {
        EventSettings { event, data: PhantomData }
    }

    /// Limits the rate to one event per interval: the first is sent at once and, of those that follow within the
    /// interval, the last when it ends. Mirrors the limits of QEMU's `monitor/monitor.c`. No limit by default.
    pub fn at_most_every(&mut self, interval: Duration) -> &mut EventSettings<'r, T> {
        self.event.interval = interval;
        self
    }

    /// Limits events with different keys independently of each other, such as those of different devices.
    /// Without this, all events of the kind share one limit.
    pub fn similar_by(
        &mut self,
        key: impl Fn(&T) -> String + Send + Sync + 'static,
    ) -> &mut EventSettings<'r, T> {
        self.event.key = Box::new(move |data| data.downcast_ref().map(&key).unwrap_or_default());
        self
    }

    /// Adds the [feature](EventSettings::feature) `deprecated`: the event is still sent, and will be removed.
    pub fn deprecated(&mut self) -> &mut EventSettings<'r, T> {
        self.feature("deprecated")
    }

    /// Adds the [feature](EventSettings::feature) `unstable`: the event may change or be removed at any time.
    pub fn unstable(&mut self) -> &mut EventSettings<'r, T> {
        self.feature("unstable")
    }

    /// Adds a feature, which introspection shows to clients. Adding it again changes nothing.
    pub fn feature(&mut self, name: impl Into<String>) -> &mut EventSettings<'r, T> {
        let name = name.into();
        if !self.event.features.contains(&name) {
            self.event.features.push(name);
        }
        self
    }

    /// Sets the documentation, for people who [introspect](crate::Registry::introspection). It is not sent to
    /// clients.
    pub fn documented(&mut self, text: impl Into<String>) -> &mut EventSettings<'r, T> {
        self.event.documentation = Some(text.into());
        self
    }
}

/// Why an event could not be emitted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EmitError {
    /// It is not declared in the registry, so introspection would not show it.
    #[error("event {0} is not declared")]
    Undeclared(Cow<'static, str>),
    /// It is declared with data of another type, which introspection shows.
    #[error("event {0} is declared with data of another type")]
    OtherType(Cow<'static, str>),
    /// Its data is not of the type that introspection shows. Checked in debug builds and after a
    /// [`LocalClient`](crate::LocalClient) has connected.
    #[error("the data of event {name} is not of its type: {reason}")]
    Mismatch {
        /// The name of the event.
        name: Cow<'static, str>,
        /// What is wrong with the data.
        reason: Error,
    },
    /// Its data cannot be written as JSON.
    #[error("the data of event {name} cannot be written: {reason}")]
    Data {
        /// The name of the event.
        name: Cow<'static, str>,
        /// What is wrong with the data.
        reason: EncodeError,
    },
}

impl From<EmitError> for Error {
    fn from(error: EmitError) -> Error {
        Error::generic(error.to_string())
    }
}
