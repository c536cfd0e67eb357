// SPDX-License-Identifier: MIT OR Apache-2.0
//! Commands and events as types and values that clients and servers share.

use std::any::Any;
use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{DecodeError, EncodeError, Event, Json};

/// A command as a type, for both ends of a connection: what it takes, and what it returns.
///
/// [`command_types!`](crate::command_types) declares such types. A client calls them, and a server of `qmp-dispatch`
/// serves them. Only the server needs a schema of the arguments and of the result; a client makes do with serde.
pub trait CommandType {
    /// The name on the wire.
    const NAME: &'static str;
    /// The features that introspection shows, such as `deprecated` and `unstable`.
    const FEATURES: &'static [&'static str] = &[];
    /// What the command does, for people.
    const DOCUMENTATION: Option<&'static str> = None;

    /// What the command takes: `()` if nothing, otherwise a type that becomes an object.
    type Arguments: Serialize + DeserializeOwned;
    /// What the command returns; `()` is the empty object.
    type Result: Serialize + DeserializeOwned + 'static;

    /// Writes arguments. `None` means that the request has none.
    ///
    /// # Errors
    ///
    /// Those of [`Json::encode`].
    fn encode_arguments(arguments: &Self::Arguments) -> Result<Option<Json>, EncodeError> {
        let json = Json::encode(arguments)?;
        Ok(Some(json).filter(|json| !matches!(json.as_str(), "null" | "{}")))
    }

    /// Reads a result. Any result can be read as `()`: a command that returns nothing today may return something in a
    /// later version.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] if the result is not of its type. Members that the type does not know are ignored, unless it
    /// refuses them itself.
    fn decode_result(result: &Json) -> Result<Self::Result, DecodeError> {
        decode(Some(result))
    }
}

/// An event as a value, for both ends of a connection: its name, and the type of its data. `()` means that it has none.
///
/// A server of `qmp-dispatch` declares and emits it; a client reads it from the [`Event`]s that it gets.
///
/// ```
/// use qmp_proto::{Event, EventType, Json, Timestamp};
///
/// #[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
/// struct BlockIoError {
///     device: String,
/// }
///
/// const STOP: EventType<()> = EventType::new("STOP");
/// const BLOCK_IO_ERROR: EventType<BlockIoError> =
///     EventType::new("BLOCK_IO_ERROR").documented("A block device has failed.");
///
/// let data = Json::encode(&BlockIoError { device: "disk0".to_owned() })?;
/// let event = Event::new("BLOCK_IO_ERROR", Some(data), Timestamp::UNKNOWN);
/// assert_eq!(STOP.read(&event), None);
/// let error = BLOCK_IO_ERROR.read(&event).unwrap();
/// assert_eq!(error, Ok(BlockIoError { device: "disk0".to_owned() }));
/// # Ok::<(), qmp_proto::EncodeError>(())
/// ```
pub struct EventType<T> {
    name: Cow<'static, str>,
    features: &'static [&'static str],
    documentation: Option<&'static str>,
    data: PhantomData<fn(T) -> T>,
}

impl<T> EventType<T> {
    /// Creates the kind of events with this name.
    pub const fn new(name: &'static str) -> EventType<T> {
        let name = Cow::Borrowed(name);
        EventType { name, features: &[], documentation: None, data: PhantomData }
    }

    /// Like [`new`](EventType::new), with a name that is known only at run time.
    pub fn named(name: impl Into<Cow<'static, str>>) -> EventType<T> {
        EventType { name: name.into(), ..EventType::new("") }
    }

    /// Sets the features that introspection shows, such as `deprecated` and `unstable`.
    #[must_use]
    pub const fn with_features(mut self, names: &'static [&'static str]) -> EventType<T> {
        self.features = names;
        self
    }

    /// Sets the documentation, for people.
    #[must_use]
    pub const fn documented(mut self, text: &'static str) -> EventType<T> {
        self.documentation = Some(text);
        self
    }

    /// Returns the name on the wire.
    pub fn name(&self) -> &Cow<'static, str> {
        &self.name
    }

    /// Returns the features.
    pub fn features(&self) -> &'static [&'static str] {
        self.features
    }

    /// Returns the documentation.
    pub fn documentation(&self) -> Option<&'static str> {
        self.documentation
    }

    /// Reads the data of an event; `None` if it is another event. Data of type `()` may be anything.
    pub fn read(&self, event: &Event) -> Option<Result<T, DecodeError>>
    where
        T: DeserializeOwned + 'static,
    {
        (event.name == self.name).then(|| decode(event.data.as_ref()))
    }
}

impl<T> Clone for EventType<T> {
    fn clone(&self) -> EventType<T> {
        EventType { name: self.name.clone(), ..*self }
    }
}

impl<T> fmt::Debug for EventType<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("EventType").field(&self.name).finish()
    }
}

/// Reads what a server has sent. Anything can be read as `()`.
fn decode<T: DeserializeOwned + 'static>(json: Option<&Json>) -> Result<T, DecodeError> {
    let mut nothing = Some(());
    if let Some(nothing) = (&mut nothing as &mut dyn Any).downcast_mut::<Option<T>>()
        && let Some(nothing) = nothing.take()
    {
        return Ok(nothing);
    }
    json.unwrap_or(&Json::EMPTY_OBJECT).decode()
}
