// SPDX-License-Identifier: MIT OR Apache-2.0
//! Kinds of events.

use std::fmt;
use std::marker::PhantomData;

use qmp_proto::{EncodeError, Error};

/// A kind of event: its name, and the type of its data. `()` means that it has none.
///
/// Declared with [`Registry::event`](crate::Registry::event), emitted with
/// [`Context::emit`](crate::Context::emit) or [`Dispatcher::emit`](crate::Dispatcher::emit).
///
/// ```
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
/// registry.event(&BLOCK_IO_ERROR)?;
/// assert!(registry.event(&BLOCK_IO_ERROR).is_err(), "once is enough");
/// # Ok::<(), qmp_dispatch::RegisterError>(())
/// ```
pub struct EventType<T> {
    name: &'static str,
    data: PhantomData<fn(&T)>,
}

impl<T> EventType<T> {
    /// The kind of events with this name.
    pub const fn new(name: &'static str) -> EventType<T> {
        EventType { name, data: PhantomData }
    }

    /// The name, as clients see it.
    pub fn name(&self) -> &'static str {
        self.name
    }
}

impl<T> fmt::Debug for EventType<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("EventType").field(&self.name).finish()
    }
}

/// An event could not be emitted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EmitError {
    /// It is not declared in the registry, so introspection would not show it.
    #[error("event {0} is not declared")]
    Undeclared(&'static str),
    /// Its data cannot be written as JSON.
    #[error("the data of event {name} cannot be written: {source}")]
    Data {
        /// The name of the event.
        name: &'static str,
        /// What is wrong with the data.
        source: EncodeError,
    },
}

impl From<EmitError> for Error {
    fn from(error: EmitError) -> Error {
        Error::generic(error.to_string())
    }
}
