// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which functions can serve a command.

use qmp_proto::{Error, Json, Object, from_object};
use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::Context;

/// A function that serves a command, with the help of some state `S` or without (`S = ()`):
///
/// - `Fn(&Context, A) -> Result<T, E>` or `Fn(&S, &Context, A) -> Result<T, E>` with arguments,
/// - `Fn(&Context) -> Result<T, E>` or `Fn(&S, &Context) -> Result<T, E>` without,
///
/// where `A` is deserialized from the arguments, `T` becomes the result (`()` is the empty object),
/// and `E` can be turned into an [`Error`]. `Shape` only tells the forms apart.
///
/// Implemented for functions; there is no need to implement it by hand.
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
#[derive(Debug)]
pub enum Stateless {}

impl<F, A, T, E> Handler<(), (Stateless, A, T, E)> for F
where
    F: Fn(&Context, A) -> Result<T, E> + Send + Sync + 'static,
    A: DeserializeOwned + JsonSchema,
    T: Serialize + JsonSchema + 'static,
    E: Into<Error>,
{
    type Arguments = A;
    type Result = T;

    fn call(&self, (): &(), context: &Context, arguments: A) -> Result<T, Error> {
        self(context, arguments).map_err(Into::into)
    }
}

impl<F, T, E> Handler<(), (Stateless, T, E)> for F
where
    F: Fn(&Context) -> Result<T, E> + Send + Sync + 'static,
    T: Serialize + JsonSchema + 'static,
    E: Into<Error>,
{
    type Arguments = ();
    type Result = T;

    fn call(&self, (): &(), context: &Context, (): ()) -> Result<T, Error> {
        self(context).map_err(Into::into)
    }
}

impl<F, S, A, T, E> Handler<S, (A, T, E)> for F
where
    F: Fn(&S, &Context, A) -> Result<T, E> + Send + Sync + 'static,
    S: ?Sized,
    A: DeserializeOwned + JsonSchema,
    T: Serialize + JsonSchema + 'static,
    E: Into<Error>,
{
    type Arguments = A;
    type Result = T;

    fn call(&self, state: &S, context: &Context, arguments: A) -> Result<T, Error> {
        self(state, context, arguments).map_err(Into::into)
    }
}

impl<F, S, T, E> Handler<S, (T, E)> for F
where
    F: Fn(&S, &Context) -> Result<T, E> + Send + Sync + 'static,
    S: ?Sized,
    T: Serialize + JsonSchema + 'static,
    E: Into<Error>,
{
    type Arguments = ();
    type Result = T;

    fn call(&self, state: &S, context: &Context, (): ()) -> Result<T, Error> {
        self(state, context).map_err(Into::into)
    }
}

/// A handler whose types have been forgotten: checked arguments in, the text of the result out.
pub(crate) type ErasedHandler =
    Box<dyn Fn(&Context, Object) -> Result<Json, Error> + Send + Sync + 'static>;

/// Forgets the types of a handler, which keeps `state` alive.
pub(crate) fn erase<S, H, Shape>(
    state: impl AsRef<S> + Send + Sync + 'static,
    handler: H,
) -> ErasedHandler
where
    S: ?Sized,
    H: Handler<S, Shape>,
{
    Box::new(move |context, arguments| {
        let arguments =
            from_object(arguments).map_err(|error| Error::generic(error.to_string()))?;
        let result = handler.call(state.as_ref(), context, arguments)?;
        encode_result(&result)
    })
}

/// The text of a result; a unit result is the empty object, as in QEMU.
fn encode_result<T: Serialize + 'static>(result: &T) -> Result<Json, Error> {
    if (result as &dyn std::any::Any).is::<()>() {
        return Ok(Json::EMPTY_OBJECT);
    }
    Json::encode(result).map_err(|error| Error::generic(error.to_string()))
}
