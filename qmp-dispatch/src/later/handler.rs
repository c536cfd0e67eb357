// SPDX-License-Identifier: MIT OR Apache-2.0
//! Async functions that serve commands.

use std::future::Ready;
use std::sync::Arc;

use qmp_proto::{Error, Object};
use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::task::Handling;
use super::{AsyncContext, Spawn, Task};
use crate::Context;
use crate::handler::encode_result;
use crate::panics::{Panic, caught};
use crate::parts::{
    CommandArguments, CommandResult, ContextBorrowed, ContextLast, DecodedArguments, HandlerFuture,
    HandlerOutput, NeedsState, NoContext, Nothing, Right, RightForm, SharedHandler, StateBorrowed,
    TwoArguments, wrong_forms,
};
use crate::qapi::decode;

/// An async function that serves a command: like a [`Handler`](crate::Handler), but its context is an [`AsyncContext`], its
/// state an [`Arc`], and it returns a future that can be sent to another thread:
///
/// - `Fn(AsyncContext, A) -> F` or `Fn(Arc<S>, AsyncContext, A) -> F` with arguments,
/// - `Fn(AsyncContext) -> F` or `Fn(Arc<S>, AsyncContext) -> F` without,
///
/// where `F: Future<Output = Result<T, E>>`. Implemented for all such functions.
#[diagnostic::on_unimplemented(
    message = "this cannot serve an async command",
    label = "not of the form `async fn(AsyncContext, A) -> Result<T, E>`, or without `A`",
    note = "functions for `Registry::with(state)` have `Arc<S>` as another parameter, before the `AsyncContext`",
    note = "functions that are not async are registered with `command`",
    note = "it is shared by threads: capture an `Arc`, an atomic or a `Mutex` in place of an `Rc` or a `Cell`",
    note = "the types of a closure's parameters are to be written out: `|_: AsyncContext, new: Balloon| async move {{ … }}`"
)]
pub trait AsyncHandler<S: ?Sized, Shape>: Send + Sync + 'static {
    /// What the command takes; `()` if nothing.
    type Arguments: DeserializeOwned + JsonSchema;
    /// What the command returns; `()` if nothing.
    type Result: Serialize + JsonSchema + 'static;

    /// Begins to serve one request.
    fn call(
        &self,
        state: Arc<S>,
        context: AsyncContext,
        arguments: Self::Arguments,
    ) -> impl Future<Output = Result<Self::Result, Error>> + Send + 'static + use<Self, S, Shape>;
}

impl<S, Shape, H> AsyncHandler<S, Shape> for H
where
    S: ?Sized,
    H: AsyncForm<S, Shape> + SharedHandler + 'static,
    H::Verdict: RightForm,
    H::Arguments: CommandArguments,
    H::Future: HandlerFuture<Ready: HandlerOutput<Value: CommandResult>> + Send + 'static,
{
    type Arguments = H::Arguments;
    type Result = <<H::Future as HandlerFuture>::Ready as HandlerOutput>::Value;

    fn call(
        &self,
        state: Arc<S>,
        context: AsyncContext,
        arguments: H::Arguments,
    ) -> impl Future<Output = Result<Self::Result, Error>> + Send + 'static + use<S, Shape, H> {
        let future = self.invoke(state, context, arguments);
        async { future.await.into_result() }
    }
}

/// The parameters of an async handler. See [`parts`](crate::parts).
#[diagnostic::on_unimplemented(
    message = "this cannot serve an async command",
    label = "not of the form `async fn(AsyncContext, A) -> Result<T, E>`, or without `A`"
)]
pub trait AsyncForm<S: ?Sized, Shape> {
    type Verdict;
    type Arguments;
    type Future;

    fn invoke(
        &self,
        state: Arc<S>,
        context: AsyncContext,
        arguments: Self::Arguments,
    ) -> Self::Future;
}

impl<F, A, R> AsyncForm<(), fn(AsyncContext, A) -> R> for F
where
    F: Fn(AsyncContext, A) -> R,
{
    type Verdict = Right;
    type Arguments = A;
    type Future = R;

    fn invoke(&self, _: Arc<()>, context: AsyncContext, arguments: A) -> R {
        self(context, arguments)
    }
}

impl<F, R> AsyncForm<(), fn(AsyncContext) -> R> for F
where
    F: Fn(AsyncContext) -> R,
{
    type Verdict = Right;
    type Arguments = ();
    type Future = R;

    fn invoke(&self, _: Arc<()>, context: AsyncContext, (): ()) -> R {
        self(context)
    }
}

impl<F, S, A, R> AsyncForm<S, fn(Arc<S>, AsyncContext, A) -> R> for F
where
    F: Fn(Arc<S>, AsyncContext, A) -> R,
    S: ?Sized,
{
    type Verdict = Right;
    type Arguments = A;
    type Future = R;

    fn invoke(&self, state: Arc<S>, context: AsyncContext, arguments: A) -> R {
        self(state, context, arguments)
    }
}

impl<F, S, R> AsyncForm<S, fn(Arc<S>, AsyncContext) -> R> for F
where
    F: Fn(Arc<S>, AsyncContext) -> R,
    S: ?Sized,
{
    type Verdict = Right;
    type Arguments = ();
    type Future = R;

    fn invoke(&self, state: Arc<S>, context: AsyncContext, (): ()) -> R {
        self(state, context)
    }
}

wrong_forms! {
    AsyncForm {
        type Arguments = ();
        type Future = Ready<Result<(), Error>>;

        fn invoke(&self, _: Arc<S>, _: AsyncContext, (): ()) -> Self::Future {
            unreachable!("a wrong form is not a handler")
        }
    }
    ContextLast [A] (A, AsyncContext) [A: DecodedArguments];
    NoContext [] ();
    NoContext [A] (A) [A: DecodedArguments];
    ContextBorrowed [] (&Context);
    ContextBorrowed [A] (&Context, A);
    ContextBorrowed [] (&AsyncContext);
    ContextBorrowed [A] (&AsyncContext, A);
    TwoArguments [A B] (AsyncContext, A, B) [A: DecodedArguments];
    TwoArguments [A B] (Arc<S>, AsyncContext, A, B);
    NeedsState [N A] (Arc<N>, AsyncContext, A) [S: Nothing];
    NeedsState [N] (Arc<N>, AsyncContext) [S: Nothing];
    StateBorrowed [A] (&S, AsyncContext, A);
    StateBorrowed [] (&S, AsyncContext);
    StateBorrowed [A] (&S, &Context, A);
    StateBorrowed [] (&S, &Context);
}

/// An async handler whose types are erased. Its arguments have been checked.
pub(crate) struct ErasedAsync {
    executor: Arc<dyn Spawn>,
    handler: Box<dyn Fn(AsyncContext, Object) -> Result<Handling, Error> + Send + Sync>,
}

impl ErasedAsync {
    /// Erases the types of a function that serves a command.
    pub(crate) fn new<A, T, R>(
        executor: Arc<dyn Spawn>,
        call: impl Fn(AsyncContext, A) -> R + Send + Sync + 'static,
    ) -> ErasedAsync
    where
        A: DeserializeOwned,
        T: Serialize + 'static,
        R: Future<Output = Result<T, Error>> + Send + 'static,
    {
        let handler = move |context: AsyncContext, arguments| {
            let result = call(context, decode(arguments)?);
            let handling: Handling = Box::pin(async { encode_result(&result.await?) });
            Ok(handling)
        };
        ErasedAsync { executor, handler: Box::new(handler) }
    }

    /// Begins to serve one request.
    pub(crate) fn call(&self, context: AsyncContext, arguments: Object) -> Result<Handling, Error> {
        (self.handler)(context, arguments)
    }

    /// Passes a task to the executor. If that panics, it has dropped the task, which has answered.
    pub(crate) fn start(&self, task: Task) {
        if let Err(Panic { reason, place }) = caught(|| self.executor.spawn(task)) {
            tracing::error!(reason, place, "an executor panicked");
        }
    }
}
