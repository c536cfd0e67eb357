// SPDX-License-Identifier: MIT OR Apache-2.0
//! Functions that serve commands.

use std::any::Any;
use std::sync::Arc;

use qmp_proto::{Error, Json, Object};
use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::later::ErasedAsync;
use crate::parts::{
    AnswersLater, CommandArguments, CommandResult, ContextByValue, ContextLast, DecodedArguments,
    HandlerOutput, IsAsync, NeedsState, NoContext, NoResponder, Nothing, ResponderFirst, Right,
    RightForm, SharedHandler, StateByArc, TwoArguments, wrong_forms,
};
use crate::qapi::decode;
use crate::reply::Reply;
use crate::{AsyncContext, Context, Responder};

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
#[diagnostic::on_unimplemented(
    message = "this cannot serve a command",
    label = "not of the form `Fn(&Context, A) -> Result<T, E>`, or without `A`",
    note = "functions for `Registry::with(state)` have `&S` as another parameter, before the `&Context`",
    note = "an `async fn` is registered with `async_command`, and takes an `AsyncContext`",
    note = "it is shared by threads: capture an `Arc`, an atomic or a `Mutex` in place of an `Rc` or a `Cell`",
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
    /// The error that the client gets.
    fn call(
        &self,
        state: &S,
        context: &Context,
        arguments: Self::Arguments,
    ) -> Result<Self::Result, Error>;
}

impl<S, Shape, H> Handler<S, Shape> for H
where
    S: ?Sized,
    H: Form<S, Shape> + SharedHandler + 'static,
    H::Verdict: RightForm,
    H::Arguments: CommandArguments,
    H::Output: HandlerOutput<Value: CommandResult>,
{
    type Arguments = H::Arguments;
    type Result = <H::Output as HandlerOutput>::Value;

    fn call(
        &self,
        state: &S,
        context: &Context,
        arguments: H::Arguments,
    ) -> Result<Self::Result, Error> {
        self.invoke(state, context, arguments).into_result()
    }
}

/// A function that serves a command and never fails: like those that are a [`Handler`], but it returns `T`. Made by
/// [`Registry::infallible_command`](crate::Registry::infallible_command).
///
/// A type of its own, because a `Result` could also be a `T`.
#[derive(Debug)]
pub struct InfallibleHandler<F>(pub(crate) F);

impl<S, Shape, F> Form<S, InfallibleHandler<Shape>> for InfallibleHandler<F>
where
    S: ?Sized,
    F: Form<S, Shape>,
{
    type Verdict = F::Verdict;
    type Arguments = F::Arguments;
    type Output = InfallibleHandler<F::Output>;

    fn invoke(&self, state: &S, context: &Context, arguments: F::Arguments) -> Self::Output {
        InfallibleHandler(self.0.invoke(state, context, arguments))
    }
}

impl<T> HandlerOutput for InfallibleHandler<T> {
    type Value = T;

    fn into_result(self) -> Result<T, Error> {
        Ok(self.0)
    }
}

/// The parameters of a handler. See [`parts`](crate::parts).
#[diagnostic::on_unimplemented(
    message = "this cannot serve a command",
    label = "not of the form `Fn(&Context, A)`, or without `A`",
    note = "functions for `Registry::with(state)` have `&S` as another parameter, before the `&Context`",
    note = "the types of a closure's parameters are to be written out: `|_: &Context, new: BlockResize| …`"
)]
pub trait Form<S: ?Sized, Shape> {
    type Verdict;
    type Arguments;
    type Output;

    fn invoke(&self, state: &S, context: &Context, arguments: Self::Arguments) -> Self::Output;
}

impl<F, A, R> Form<(), fn(&Context, A) -> R> for F
where
    F: Fn(&Context, A) -> R,
{
    type Verdict = Right;
    type Arguments = A;
    type Output = R;

    fn invoke(&self, (): &(), context: &Context, arguments: A) -> R {
        self(context, arguments)
    }
}

impl<F, R> Form<(), fn(&Context) -> R> for F
where
    F: Fn(&Context) -> R,
{
    type Verdict = Right;
    type Arguments = ();
    type Output = R;

    fn invoke(&self, (): &(), context: &Context, (): ()) -> R {
        self(context)
    }
}

impl<F, S, A, R> Form<S, fn(&S, &Context, A) -> R> for F
where
    F: Fn(&S, &Context, A) -> R,
    S: ?Sized,
{
    type Verdict = Right;
    type Arguments = A;
    type Output = R;

    fn invoke(&self, state: &S, context: &Context, arguments: A) -> R {
        self(state, context, arguments)
    }
}

impl<F, S, R> Form<S, fn(&S, &Context) -> R> for F
where
    F: Fn(&S, &Context) -> R,
    S: ?Sized,
{
    type Verdict = Right;
    type Arguments = ();
    type Output = R;

    fn invoke(&self, state: &S, context: &Context, (): ()) -> R {
        self(state, context)
    }
}

wrong_forms! {
    Form {
        type Arguments = ();
        type Output = Result<(), Error>;

        fn invoke(&self, _: &S, _: &Context, (): ()) -> Result<(), Error> {
            unreachable!("a wrong form is not a handler")
        }
    }
    ContextLast [A] (A, &Context) [A: DecodedArguments];
    NoContext [] ();
    NoContext [A] (A) [A: DecodedArguments];
    ContextByValue [] (Context);
    ContextByValue [A] (Context, A);
    TwoArguments [A B] (&Context, A, B) [A: DecodedArguments, B: DecodedArguments];
    TwoArguments [A B] (&S, &Context, A, B);
    NeedsState [N A] (&N, &Context, A) [S: Nothing];
    NeedsState [N] (&N, &Context) [S: Nothing];
    StateByArc [A] (Arc<S>, &Context, A);
    StateByArc [] (Arc<S>, &Context);
    AnswersLater [A T] (&Context, A, Responder<T>) [A: DecodedArguments];
    IsAsync [A] (AsyncContext, A);
    IsAsync [] (AsyncContext);
    IsAsync [A] (Arc<S>, AsyncContext, A);
    IsAsync [] (Arc<S>, AsyncContext);
}

/// A function that serves a command and answers later: like a [`Handler`], but with a
/// [`Responder<T>`](Responder) as its last parameter, and without a result.
///
/// Implemented for all such functions.
#[diagnostic::on_unimplemented(
    message = "this cannot serve a command and answer later",
    label = "not of the form `Fn(&Context, A, Responder<T>)`, or without `A`",
    note = "a deferred handler returns nothing: it answers by its `Responder`",
    note = "it is shared by threads: capture an `Arc`, an atomic or a `Mutex` in place of an `Rc` or a `Cell`",
    note = "functions for `Registry::with(state)` have `&S` as another parameter, before the `&Context`",
    note = "the types of a closure's parameters are to be written out: `|_: &Context, responder: Responder<u64>| …`"
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

impl<S, Shape, H> DeferredHandler<S, Shape> for H
where
    S: ?Sized,
    H: DeferredForm<S, Shape> + SharedHandler + 'static,
    H::Verdict: RightForm,
    H::Arguments: CommandArguments,
    H::Value: CommandResult,
{
    type Arguments = H::Arguments;
    type Result = H::Value;

    fn begin(
        &self,
        state: &S,
        context: &Context,
        arguments: H::Arguments,
        responder: Responder<H::Value>,
    ) {
        self.invoke(state, context, arguments, responder);
    }
}

/// The parameters of a deferred handler. See [`parts`](crate::parts).
#[diagnostic::on_unimplemented(
    message = "this cannot serve a command and answer later",
    label = "not of the form `Fn(&Context, A, Responder<T>)`, or without `A`"
)]
pub trait DeferredForm<S: ?Sized, Shape> {
    type Verdict;
    type Arguments;
    type Value;

    fn invoke(
        &self,
        state: &S,
        context: &Context,
        arguments: Self::Arguments,
        responder: Responder<Self::Value>,
    );
}

impl<F, A, T> DeferredForm<(), fn(&Context, A, Responder<T>)> for F
where
    F: Fn(&Context, A, Responder<T>),
{
    type Verdict = Right;
    type Arguments = A;
    type Value = T;

    fn invoke(&self, (): &(), context: &Context, arguments: A, responder: Responder<T>) {
        self(context, arguments, responder);
    }
}

impl<F, T> DeferredForm<(), fn(&Context, Responder<T>)> for F
where
    F: Fn(&Context, Responder<T>),
{
    type Verdict = Right;
    type Arguments = ();
    type Value = T;

    fn invoke(&self, (): &(), context: &Context, (): (), responder: Responder<T>) {
        self(context, responder);
    }
}

impl<F, S, A, T> DeferredForm<S, fn(&S, &Context, A, Responder<T>)> for F
where
    F: Fn(&S, &Context, A, Responder<T>),
    S: ?Sized,
{
    type Verdict = Right;
    type Arguments = A;
    type Value = T;

    fn invoke(&self, state: &S, context: &Context, arguments: A, responder: Responder<T>) {
        self(state, context, arguments, responder);
    }
}

impl<F, S, T> DeferredForm<S, fn(&S, &Context, Responder<T>)> for F
where
    F: Fn(&S, &Context, Responder<T>),
    S: ?Sized,
{
    type Verdict = Right;
    type Arguments = ();
    type Value = T;

    fn invoke(&self, state: &S, context: &Context, (): (), responder: Responder<T>) {
        self(state, context, responder);
    }
}

wrong_forms! {
    DeferredForm {
        type Arguments = ();
        type Value = ();

        fn invoke(&self, _: &S, _: &Context, (): (), _: Responder<()>) {
            unreachable!("a wrong form is not a handler")
        }
    }
    NoResponder [] (&Context);
    NoResponder [A] (&Context, A) [A: DecodedArguments];
    NoResponder [] (&S, &Context);
    NoResponder [A] (&S, &Context, A) [A: DecodedArguments];
    ResponderFirst [A T] (&Context, Responder<T>, A) [A: DecodedArguments];
    NoContext [T] (Responder<T>);
    NoContext [A T] (A, Responder<T>) [A: DecodedArguments];
    ContextByValue [T] (Context, Responder<T>);
    ContextByValue [A T] (Context, A, Responder<T>);
    TwoArguments [A B T] (&Context, A, B, Responder<T>) [A: DecodedArguments];
    NeedsState [N T] (&N, &Context, Responder<T>) [S: Nothing];
    NeedsState [N A T] (&N, &Context, A, Responder<T>) [S: Nothing];
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
