// SPDX-License-Identifier: MIT OR Apache-2.0
//! Functions that serve commands.

use std::any::Any;

use qmp_proto::{BoxError, Error, Json, Object};
use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::later::ErasedAsync;
use crate::qapi::decode;
use crate::reply::Reply;
use crate::{Context, Responder};

/// A function that serves a command, with state `S` or without (`S = ()`):
///
/// - `Fn(&Context, A) -> Result<T, E>` or `Fn(&S, &Context, A) -> Result<T, E>` with arguments,
/// - `Fn(&Context) -> Result<T, E>` or `Fn(&S, &Context) -> Result<T, E>` without,
///
/// where `A` is deserialized from the arguments, `T` becomes the result (`()` is the empty object),
/// and `E` is any error, or a text. An [`Error`] keeps its class, also as the source of another error; see [its
/// conversion](Error#impl-From<Box<dyn+Error+%2B+Sync+%2B+Send>>-for-Error). `Shape` only tells the forms apart.
///
/// Functions that never fail, and return `T` itself, are registered with
/// [`infallible_command`](crate::Registry::infallible_command).
///
/// Implemented for all such functions.
///
/// ```
/// use std::io;
///
/// use qmp_dispatch::{Context, Registry, proto::Error, qapi_types};
///
/// qapi_types! {
///     struct SetSpeed {
///         speed: u32,
///     }
/// }
///
/// struct Fan;
///
/// impl Fan {
///     fn set_speed(&self, _: &Context, new: SetSpeed) -> io::Result<u32> {
///         Ok(new.speed)
///     }
/// }
///
/// let mut registry = Registry::new();
/// registry.command("beep", |_: &Context| Err::<(), _>("no speaker"))?;
/// registry.infallible_command("x-tick", |_: &Context| 7_u32)?;
/// registry.with(Fan.into()).command("set-speed", Fan::set_speed)?;
/// # Ok::<(), qmp_dispatch::RegisterError>(())
/// ```
#[diagnostic::on_unimplemented(
    message = "this cannot serve a command",
    label = "not of the form `Fn(&Context, A) -> Result<T, E>`, or without `A`",
    note = "functions for `Registry::with(state)` have `&S` as another parameter, before the `&Context`",
    note = "`A` is to implement `serde::de::DeserializeOwned` and `schemars::JsonSchema`",
    note = "`T` is to implement `serde::Serialize` and `schemars::JsonSchema`, `E` is an error or a text: `Into<Box<dyn std::error::Error + Send + Sync>>`",
    note = "functions that return `T` without a `Result` are registered with `infallible_command`",
    note = "the types of a closure's parameters are to be written out: `|_: &Context, new: BlockResize| …`"
)]
pub trait Handler<S: ?Sized, Shape>: Send + Sync + 'static {
    /// What the command takes; `()` if nothing.
    type Arguments: DeserializeOwned + JsonSchema;
    /// What the command returns; `()` if nothing.
    type Result: Serialize + JsonSchema + 'static;

    /// Serves one request.
    ///
    /// # Errors
    ///
    /// What the client is told.
    fn call(
        &self,
        state: &S,
        context: &Context,
        arguments: Self::Arguments,
    ) -> Result<Self::Result, Error>;
}

/// Tells functions without state from those with some.
#[doc(hidden)]
#[derive(Debug)]
pub enum Stateless {}

impl<F, A, T, E> Handler<(), (Stateless, A, T, E)> for F
where
    F: Fn(&Context, A) -> Result<T, E> + Send + Sync + 'static,
    A: DeserializeOwned + JsonSchema,
    T: Serialize + JsonSchema + 'static,
    E: Into<BoxError>,
{
    type Arguments = A;
    type Result = T;

    fn call(&self, (): &(), context: &Context, arguments: A) -> Result<T, Error> {
        self(context, arguments).map_err(|error| error.into().into())
    }
}

impl<F, T, E> Handler<(), (Stateless, T, E)> for F
where
    F: Fn(&Context) -> Result<T, E> + Send + Sync + 'static,
    T: Serialize + JsonSchema + 'static,
    E: Into<BoxError>,
{
    type Arguments = ();
    type Result = T;

    fn call(&self, (): &(), context: &Context, (): ()) -> Result<T, Error> {
        self(context).map_err(|error| error.into().into())
    }
}

impl<F, S, A, T, E> Handler<S, (A, T, E)> for F
where
    F: Fn(&S, &Context, A) -> Result<T, E> + Send + Sync + 'static,
    S: ?Sized,
    A: DeserializeOwned + JsonSchema,
    T: Serialize + JsonSchema + 'static,
    E: Into<BoxError>,
{
    type Arguments = A;
    type Result = T;

    fn call(&self, state: &S, context: &Context, arguments: A) -> Result<T, Error> {
        self(state, context, arguments).map_err(|error| error.into().into())
    }
}

impl<F, S, T, E> Handler<S, (T, E)> for F
where
    F: Fn(&S, &Context) -> Result<T, E> + Send + Sync + 'static,
    S: ?Sized,
    T: Serialize + JsonSchema + 'static,
    E: Into<BoxError>,
{
    type Arguments = ();
    type Result = T;

    fn call(&self, state: &S, context: &Context, (): ()) -> Result<T, Error> {
        self(state, context).map_err(|error| error.into().into())
    }
}

/// A function that serves a command and never fails: like those that are a [`Handler`], but it returns `T`. Made by
/// [`Registry::infallible_command`](crate::Registry::infallible_command).
///
/// A type of its own, because a `Result` could also be a `T`.
#[derive(Debug)]
pub struct Infallible<F>(pub(crate) F);

impl<F, A, T> Handler<(), (Stateless, A, T)> for Infallible<F>
where
    F: Fn(&Context, A) -> T + Send + Sync + 'static,
    A: DeserializeOwned + JsonSchema,
    T: Serialize + JsonSchema + 'static,
{
    type Arguments = A;
    type Result = T;

    fn call(&self, (): &(), context: &Context, arguments: A) -> Result<T, Error> {
        Ok((self.0)(context, arguments))
    }
}

impl<F, T> Handler<(), (Stateless, T)> for Infallible<F>
where
    F: Fn(&Context) -> T + Send + Sync + 'static,
    T: Serialize + JsonSchema + 'static,
{
    type Arguments = ();
    type Result = T;

    fn call(&self, (): &(), context: &Context, (): ()) -> Result<T, Error> {
        Ok((self.0)(context))
    }
}

impl<F, S, A, T> Handler<S, (A, T)> for Infallible<F>
where
    F: Fn(&S, &Context, A) -> T + Send + Sync + 'static,
    S: ?Sized,
    A: DeserializeOwned + JsonSchema,
    T: Serialize + JsonSchema + 'static,
{
    type Arguments = A;
    type Result = T;

    fn call(&self, state: &S, context: &Context, arguments: A) -> Result<T, Error> {
        Ok((self.0)(state, context, arguments))
    }
}

impl<F, S, T> Handler<S, (T,)> for Infallible<F>
where
    F: Fn(&S, &Context) -> T + Send + Sync + 'static,
    S: ?Sized,
    T: Serialize + JsonSchema + 'static,
{
    type Arguments = ();
    type Result = T;

    fn call(&self, state: &S, context: &Context, (): ()) -> Result<T, Error> {
        Ok((self.0)(state, context))
    }
}

/// A function that serves a command and answers later: like a [`Handler`], but with a
/// [`Responder<T>`](Responder) as its last parameter, and without a result.
///
/// Implemented for all such functions.
#[diagnostic::on_unimplemented(
    message = "this cannot serve a command and answer later",
    label = "not of the form `Fn(&Context, A, Responder<T>)`, or without `A`",
    note = "functions for `Registry::with(state)` have `&S` as another parameter, before the `&Context`",
    note = "`A` is to implement `serde::de::DeserializeOwned` and `schemars::JsonSchema`",
    note = "`T` is to implement `serde::Serialize` and `schemars::JsonSchema`"
)]
pub trait DeferredHandler<S: ?Sized, Shape>: Send + Sync + 'static {
    /// What the command takes; `()` if nothing.
    type Arguments: DeserializeOwned + JsonSchema;
    /// What the command returns; `()` if nothing.
    type Result: Serialize + JsonSchema + 'static;

    /// Begins to serve one request.
    fn begin(
        &self,
        state: &S,
        context: &Context,
        arguments: Self::Arguments,
        responder: Responder<Self::Result>,
    );
}

impl<F, A, T> DeferredHandler<(), (Stateless, A, T)> for F
where
    F: Fn(&Context, A, Responder<T>) + Send + Sync + 'static,
    A: DeserializeOwned + JsonSchema,
    T: Serialize + JsonSchema + 'static,
{
    type Arguments = A;
    type Result = T;

    fn begin(&self, (): &(), context: &Context, arguments: A, responder: Responder<T>) {
        self(context, arguments, responder);
    }
}

impl<F, T> DeferredHandler<(), (Stateless, T)> for F
where
    F: Fn(&Context, Responder<T>) + Send + Sync + 'static,
    T: Serialize + JsonSchema + 'static,
{
    type Arguments = ();
    type Result = T;

    fn begin(&self, (): &(), context: &Context, (): (), responder: Responder<T>) {
        self(context, responder);
    }
}

impl<F, S, A, T> DeferredHandler<S, (A, T)> for F
where
    F: Fn(&S, &Context, A, Responder<T>) + Send + Sync + 'static,
    S: ?Sized,
    A: DeserializeOwned + JsonSchema,
    T: Serialize + JsonSchema + 'static,
{
    type Arguments = A;
    type Result = T;

    fn begin(&self, state: &S, context: &Context, arguments: A, responder: Responder<T>) {
        self(state, context, arguments, responder);
    }
}

impl<F, S, T> DeferredHandler<S, (T,)> for F
where
    F: Fn(&S, &Context, Responder<T>) + Send + Sync + 'static,
    S: ?Sized,
    T: Serialize + JsonSchema + 'static,
{
    type Arguments = ();
    type Result = T;

    fn begin(&self, state: &S, context: &Context, (): (), responder: Responder<T>) {
        self(state, context, responder);
    }
}

/// A handler whose types are erased. Its arguments have been checked.
pub(crate) enum ErasedHandler {
    /// Returns the text of the result.
    AtOnce(AtOnce),
    /// Sends it later.
    Deferred(Deferred),
    /// Returns a future of the text of the result.
    Async(ErasedAsync),
}

type AtOnce = Box<dyn Fn(&Context, Object) -> Result<Json, Error> + Send + Sync>;
type Deferred = Box<dyn Fn(&Context, Object, Reply) + Send + Sync>;

impl ErasedHandler {
    /// Erases the types of a function that serves a command.
    pub(crate) fn at_once<A: DeserializeOwned, T: Serialize + 'static>(
        call: impl Fn(&Context, A) -> Result<T, Error> + Send + Sync + 'static,
    ) -> ErasedHandler {
        ErasedHandler::AtOnce(Box::new(move |context, arguments| {
            encode_result(&call(context, decode(arguments)?)?)
        }))
    }

    /// Erases the types of a function that answers later.
    pub(crate) fn deferred<A: DeserializeOwned, T>(
        begin: impl Fn(&Context, A, Responder<T>) + Send + Sync + 'static,
    ) -> ErasedHandler {
        ErasedHandler::Deferred(Box::new(move |context, arguments, reply| {
            match decode(arguments) {
                Ok(arguments) => begin(context, arguments, Responder::new(reply)),
                Err(error) => reply.send(Err(error)),
            }
        }))
    }
}

/// Encodes a result. A unit result is the empty object, as in QEMU.
pub(crate) fn encode_result<T: Serialize + 'static>(result: &T) -> Result<Json, Error> {
    if (result as &dyn Any).is::<()>() {
        return Ok(Json::EMPTY_OBJECT);
    }
    Json::encode(result).map_err(|error| Error::generic(error.to_string()))
}
