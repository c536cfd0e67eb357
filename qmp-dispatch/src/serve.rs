// SPDX-License-Identifier: MIT OR Apache-2.0
//! Serving commands that are types.

use std::sync::Arc;

use qmp_proto::{BoxError, CommandType, Error};
use schemars::JsonSchema;

use crate::handler::ErasedHandler;
use crate::{AsyncContext, Command, Context, Group, RegisterError, Registry, Responder};

/// What a function that serves a [`CommandType`] returns: its result `T`, or a `Result` of it and any error, or text.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not what the command returns",
    label = "expected `{T}`, or a `Result` of it and an error or a text"
)]
pub trait Outcome<T> {
    /// Converts it to what the client gets.
    ///
    /// # Errors
    ///
    /// Those of the command.
    fn into_result(self) -> Result<T, Error>;
}

impl<T> Outcome<T> for T {
    fn into_result(self) -> Result<T, Error> {
        Ok(self)
    }
}

impl<T, E: Into<BoxError>> Outcome<T> for Result<T, E> {
    fn into_result(self) -> Result<T, Error> {
        self.map_err(|error| error.into().into())
    }
}

/// A function that serves the command `C`: `Fn(&Context, C::Arguments) -> Result<C::Result, E>`, or without `Result`.
///
/// Implemented for all such functions; see [`Registry::serve`].
#[diagnostic::on_unimplemented(
    message = "this does not serve the command `{C}`",
    label = "not of the form `Fn(&Context, C::Arguments) -> Result<C::Result, E>`",
    note = "a command without arguments is served by a function whose last parameter is `(): ()`",
    note = "the types of a closure's parameters are to be written out: `|_: &Context, new: BlockResize| …`"
)]
pub trait Serves<C: CommandType>: Send + Sync + 'static {
    /// Serves one request.
    ///
    /// # Errors
    ///
    /// The error that the client gets.
    fn serve(&self, context: &Context, arguments: C::Arguments) -> Result<C::Result, Error>;
}

impl<F, C, R> Serves<C> for F
where
    F: Fn(&Context, C::Arguments) -> R + Send + Sync + 'static,
    C: CommandType,
    R: Outcome<C::Result>,
{
    fn serve(&self, context: &Context, arguments: C::Arguments) -> Result<C::Result, Error> {
        self(context, arguments).into_result()
    }
}

/// A function that serves the command `C` with state `S`: `Fn(&S, &Context, C::Arguments) -> Result<C::Result, E>`, or
/// without `Result`.
///
/// Implemented for all such functions; see [`Group::serve`].
#[diagnostic::on_unimplemented(
    message = "this does not serve the command `{C}` with this state",
    label = "not of the form `Fn(&{S}, &Context, C::Arguments) -> Result<C::Result, E>`",
    note = "a command without arguments is served by a function whose last parameter is `(): ()`",
    note = "the types of a closure's parameters are to be written out"
)]
pub trait ServesWith<S: ?Sized, C: CommandType>: Send + Sync + 'static {
    /// Serves one request.
    ///
    /// # Errors
    ///
    /// The error that the client gets.
    fn serve(
        &self,
        state: &S,
        context: &Context,
        arguments: C::Arguments,
    ) -> Result<C::Result, Error>;
}

impl<F, S, C, R> ServesWith<S, C> for F
where
    F: Fn(&S, &Context, C::Arguments) -> R + Send + Sync + 'static,
    S: ?Sized,
    C: CommandType,
    R: Outcome<C::Result>,
{
    fn serve(
        &self,
        state: &S,
        context: &Context,
        arguments: C::Arguments,
    ) -> Result<C::Result, Error> {
        self(state, context, arguments).into_result()
    }
}

/// An async function that serves the command `C`: `Fn(AsyncContext, C::Arguments) -> F`, where `F` is a future of a
/// `Result<C::Result, E>`, or of `C::Result`.
///
/// Implemented for all such functions; see [`Registry::serve_async`]. For one with state, a closure keeps an `Arc` of it.
#[diagnostic::on_unimplemented(
    message = "this does not serve the command `{C}`",
    label = "not of the form `async fn(AsyncContext, C::Arguments) -> Result<C::Result, E>`",
    note = "a command without arguments is served by a function whose last parameter is `(): ()`",
    note = "the types of a closure's parameters are to be written out: `|_: AsyncContext, new: BlockResize| async move {{ … }}`"
)]
pub trait ServesAsync<C: CommandType>: Send + Sync + 'static {
    /// Begins to serve one request.
    fn serve(
        &self,
        context: AsyncContext,
        arguments: C::Arguments,
    ) -> impl Future<Output = Result<C::Result, Error>> + Send + 'static + use<Self, C>;
}

impl<F, C, R> ServesAsync<C> for F
where
    F: Fn(AsyncContext, C::Arguments) -> R + Send + Sync + 'static,
    C: CommandType,
    R: Future<Output: Outcome<C::Result>> + Send + 'static,
{
    fn serve(
        &self,
        context: AsyncContext,
        arguments: C::Arguments,
    ) -> impl Future<Output = Result<C::Result, Error>> + Send + 'static + use<F, C, R> {
        let future = self(context, arguments);
        async { future.await.into_result() }
    }
}

impl Registry {
    /// Registers a command that is a type, and is served by a function; see [`Serves`] for its form. The command gets the
    /// features and the documentation of its type.
    ///
    /// ```
    /// use qmp_dispatch::{Context, LocalClient, Registry, command_types};
    ///
    /// command_types! {
    ///     /// Changes the size of a block device.
    ///     BlockResize = "block_resize" {
    ///         node_name: String,
    ///         size: u64,
    ///     };
    ///     QueryTicks = "x-query-ticks"() -> u64;
    /// }
    ///
    /// fn block_resize(_: &Context, new: BlockResize) -> Result<(), String> {
    ///     Err(format!("'{}' is read-only", new.node_name))
    /// }
    ///
    /// let mut registry = Registry::new();
    /// registry.serve::<BlockResize>(block_resize)?;
    /// registry.serve::<QueryTicks>(|_: &Context, ()| 7)?.allow_oob();
    ///
    /// let client = LocalClient::new(registry);
    /// assert_eq!(client.call::<QueryTicks>(&())?, 7);
    /// let new = BlockResize { node_name: "disk0".to_owned(), size: 512 };
    /// let error = client.call::<BlockResize>(&new).unwrap_err();
    /// assert_eq!(error.to_string(), "GenericError: 'disk0' is read-only");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`command`](Registry::command).
    pub fn serve<C>(&mut self, function: impl Serves<C>) -> Result<&mut Command, RegisterError>
    where
        C: CommandType<Arguments: JsonSchema, Result: JsonSchema>,
    {
        self.typed::<C>(ErasedHandler::at_once(move |context, arguments| {
            function.serve(context, arguments)
        }))
    }

    /// Registers a command that is a type, and whose function answers later.
    ///
    /// # Errors
    ///
    /// As [`command`](Registry::command).
    pub fn serve_deferred<C>(
        &mut self,
        function: impl Fn(&Context, C::Arguments, Responder<C::Result>) + Send + Sync + 'static,
    ) -> Result<&mut Command, RegisterError>
    where
        C: CommandType<Arguments: JsonSchema, Result: JsonSchema>,
    {
        self.typed::<C>(ErasedHandler::deferred(function))
    }

    /// Registers a command that is a type, and is served by an async function, as
    /// [`async_command`](Registry::async_command) does.
    ///
    /// # Errors
    ///
    /// As [`async_command`](Registry::async_command).
    pub fn serve_async<C>(
        &mut self,
        function: impl ServesAsync<C>,
    ) -> Result<&mut Command, RegisterError>
    where
        C: CommandType<Arguments: JsonSchema, Result: JsonSchema>,
    {
        let call = move |context, arguments| function.serve(context, arguments);
        let handler = self.erased_async(C::NAME, call)?;
        self.typed::<C>(handler)
    }

    fn typed<C>(&mut self, handler: ErasedHandler) -> Result<&mut Command, RegisterError>
    where
        C: CommandType<Arguments: JsonSchema, Result: JsonSchema>,
    {
        let command = self.erased::<C::Arguments, C::Result>(C::NAME.into(), handler)?;
        for feature in C::FEATURES {
            command.feature(*feature);
        }
        if let Some(text) = C::DOCUMENTATION {
            command.documented(text);
        }
        Ok(command)
    }
}

impl<S: ?Sized + Send + Sync + 'static> Group<'_, S> {
    /// Registers a command that is a type, and is served by a function of the state; see [`ServesWith`] for its form.
    ///
    /// # Errors
    ///
    /// As [`Registry::command`].
    pub fn serve<C>(
        &mut self,
        function: impl ServesWith<S, C>,
    ) -> Result<&mut Command, RegisterError>
    where
        C: CommandType<Arguments: JsonSchema, Result: JsonSchema>,
    {
        let (registry, state) = self.parts();
        let state = Arc::clone(state);
        registry.typed::<C>(ErasedHandler::at_once(move |context, arguments| {
            function.serve(&state, context, arguments)
        }))
    }

    /// Registers a command that is a type, and whose function of the state answers later.
    ///
    /// # Errors
    ///
    /// As [`Registry::command`].
    pub fn serve_deferred<C>(
        &mut self,
        function: impl Fn(&S, &Context, C::Arguments, Responder<C::Result>) + Send + Sync + 'static,
    ) -> Result<&mut Command, RegisterError>
    where
        C: CommandType<Arguments: JsonSchema, Result: JsonSchema>,
    {
        let (registry, state) = self.parts();
        let state = Arc::clone(state);
        registry.serve_deferred::<C>(move |context, arguments, responder| {
            function(&state, context, arguments, responder);
        })
    }
}

/// Declares commands as types, like the [macro of this name](qmp_proto::command_types!) in `qmp-proto`, with structs that
/// derive [`JsonSchema`], too, so that they can be served: those of [`qapi_types!`](crate::qapi_types).
///
/// Types that clients share are declared by the macro in `qmp-proto`. A crate of such types derives `JsonSchema` where it
/// is built for a server.
#[macro_export]
macro_rules! command_types {
    ($($commands:tt)*) => {
        $crate::proto::__command_types! { [$crate::qapi_types] $($commands)* }
    };
}
