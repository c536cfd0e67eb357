// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the parts of a handler must be, one trait each, so that the compiler names the part that is wrong.
//!
//! A handler's traits are implemented in two steps. A form only looks at the parameters. That selects one implementation,
//! and what the parts lack is then an error of its own. Wrong forms that are easy to write are implemented as well, with a
//! [verdict](Right) that lacks one trait. `do_not_recommend` keeps the compiler from looking below our traits.

use qmp_proto::{BoxError, Error};
use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Arguments of a command.
pub trait CommandArguments: DecodedArguments + DescribedArguments {}

impl<T: DecodedArguments + DescribedArguments> CommandArguments for T {}

#[diagnostic::on_unimplemented(
    message = "the arguments `{Self}` of this handler cannot be read from JSON",
    label = "its arguments do not implement `serde::Deserialize`",
    note = "declare the type with `qapi_types!`, or derive `Deserialize` and `JsonSchema`",
    note = "arguments are one struct that owns its data, and are taken by value",
    note = "a handler with a `Responder` is registered with `deferred_command`"
)]
pub trait DecodedArguments: DeserializeOwned {}

#[diagnostic::do_not_recommend]
impl<T: DeserializeOwned> DecodedArguments for T {}

#[diagnostic::on_unimplemented(
    message = "the arguments `{Self}` of this handler cannot be described in the schema",
    label = "its arguments do not implement `schemars::JsonSchema`",
    note = "declare the type with `qapi_types!`, or derive `Deserialize` and `JsonSchema`"
)]
pub trait DescribedArguments: JsonSchema {}

#[diagnostic::do_not_recommend]
impl<T: JsonSchema> DescribedArguments for T {}

/// The result of a command.
pub trait CommandResult: EncodedResult + DescribedResult + 'static {}

impl<T: EncodedResult + DescribedResult + 'static> CommandResult for T {}

#[diagnostic::on_unimplemented(
    message = "the result `{Self}` of this handler cannot be written as JSON",
    label = "its result does not implement `serde::Serialize`",
    note = "declare the type with `qapi_types!`, or derive `Serialize` and `JsonSchema`"
)]
pub trait EncodedResult: Serialize {}

#[diagnostic::do_not_recommend]
impl<T: Serialize> EncodedResult for T {}

#[diagnostic::on_unimplemented(
    message = "the result `{Self}` of this handler cannot be described in the schema",
    label = "its result does not implement `schemars::JsonSchema`",
    note = "declare the type with `qapi_types!`, or derive `Serialize` and `JsonSchema`"
)]
pub trait DescribedResult: JsonSchema {}

#[diagnostic::do_not_recommend]
impl<T: JsonSchema> DescribedResult for T {}

/// What a handler returns: a result, or an error for the client.
#[diagnostic::on_unimplemented(
    message = "this handler returns `{Self}`, and not a `Result<T, E>`",
    label = "its return type is not a `Result`",
    note = "a function that never fails is registered with `infallible_command`, or returns `Ok::<_, Error>(value)`",
    note = "an `async fn` is registered with `async_command`"
)]
pub trait HandlerOutput {
    type Value;

    fn into_result(self) -> Result<Self::Value, Error>;
}

impl<T, E: HandlerError> HandlerOutput for Result<T, E> {
    type Value = T;

    #[inline]
    fn into_result(self) -> Result<T, Error> {
        self.map_err(HandlerError::into_error)
    }
}

#[diagnostic::on_unimplemented(
    message = "the error `{Self}` of this handler cannot be told to a client",
    label = "its error does not implement `Into<Box<dyn std::error::Error + Send + Sync>>`",
    note = "implement `std::error::Error`, or return a `qmp_dispatch::proto::Error`, a `String`, or any other error"
)]
pub trait HandlerError {
    fn into_error(self) -> Error;
}

#[diagnostic::do_not_recommend]
impl<E: Into<BoxError>> HandlerError for E {
    #[inline]
    fn into_error(self) -> Error {
        self.into().into()
    }
}

/// The unit type: the state of handlers without state.
pub trait Nothing {}

impl Nothing for () {}

/// What an async handler returns.
#[diagnostic::on_unimplemented(
    message = "this handler returns `{Self}`, and not a future",
    label = "its return type is not a future",
    note = "write it as `async fn`, or as a closure with `async move {{ … }}`",
    note = "a function that is not async is registered with `command`"
)]
pub trait HandlerFuture: Future<Output = Self::Ready> {
    type Ready;
}

#[diagnostic::do_not_recommend]
impl<F: Future> HandlerFuture for F {
    type Ready = F::Output;
}

#[diagnostic::on_unimplemented(
    message = "this handler cannot be shared by threads",
    label = "what it captures is not `Send` and `Sync`",
    note = "capture an `Arc`, an atomic or a `Mutex` in place of an `Rc` or a `Cell`"
)]
pub trait SharedHandler: Send + Sync {}

#[diagnostic::do_not_recommend]
impl<F: Send + Sync> SharedHandler for F {}

/// For the attribute macro, which calls these with the types that a method names, at their places.
pub fn check_arguments<A: DecodedArguments + DescribedArguments>() {}

/// See [`check_arguments`].
pub fn check_output<R: HandlerOutput<Value: EncodedResult + DescribedResult>>() {}

/// See [`check_arguments`].
pub fn check_result<T: EncodedResult + DescribedResult>() {}

/// The verdict about a form that is right.
#[derive(Debug)]
pub enum Right {}

/// Declares verdicts about wrong forms, each with the trait that it alone lacks.
macro_rules! verdicts {
    ($($wrong:ident lacks $trait:ident: $message:literal, $label:literal, $note:literal;)*) => {
        $(
            #[derive(Debug)]
            pub enum $wrong {}

            #[diagnostic::on_unimplemented(message = $message, label = $label, note = $note)]
            pub trait $trait {}

            impl $trait for Right {}
        )*

        /// A form that is right in all respects.
        pub trait RightForm: $($trait +)* {}

        impl<V: $($trait +)*> RightForm for V {}

        verdicts! { @each [] $($wrong $trait,)* }
    };
    (@each [$($before:ident)*]) => {};
    (@each [$($before:ident)*] $wrong:ident $trait:ident, $($next:ident $after:ident,)*) => {
        $(impl $before for $wrong {})*
        $(impl $after for $wrong {})*
        verdicts! { @each [$($before)* $trait] $($next $after,)* }
    };
}

verdicts! {
    ContextLast lacks ContextFirst:
        "the context of this handler comes after its arguments",
        "the context is to come before the arguments",
        "the order is: the state, the context, the arguments; a deferred handler's responder is last";
    NoContext lacks TakesContext:
        "this handler does not take its context",
        "a parameter for the context is missing",
        "the first parameter, or the one after the state, is `&Context`, or `AsyncContext` if the handler is async; it may be named `_`";
    ContextByValue lacks ContextByReference:
        "this handler takes its context by value",
        "the context is to be borrowed: `&Context`",
        "the types of a closure's parameters are to be written out: `|_: &Context, new: BlockResize| …`";
    ContextBorrowed lacks ContextOwned:
        "this async handler borrows its context",
        "the context of an async handler is owned: `AsyncContext`",
        "a function that is not async is registered with `command`";
    TwoArguments lacks OneArgument:
        "this handler takes more than one parameter for its arguments",
        "the arguments are one parameter",
        "declare a struct with a member for each of them, for example with `qapi_types!`";
    NeedsState lacks NoState:
        "this handler takes state, and the registry has none for it",
        "its state is missing",
        "register it with the state: `registry.with(state).command(name, handler)`, where the state is an `Arc`";
    StateByArc lacks StateByReference:
        "this handler takes its state by `Arc`",
        "the state is to be borrowed: `&S`, or `&self` of a method",
        "only an async handler takes an `Arc` of its state";
    StateBorrowed lacks StateOwned:
        "this async handler borrows its state",
        "the state of an async handler is an `Arc<S>`, or `self: Arc<Self>` of a method",
        "it lives as long as the handler, which may wait";
    IsAsync lacks NotAsync:
        "this async handler is registered as one that is not",
        "a handler with an `AsyncContext` is async",
        "register it with `async_command`, or take `&Context`; the types of a closure's parameters are to be written out: `|_: &Context, …|`";
    AnswersLater lacks AnswersAtOnce:
        "this handler takes a `Responder`",
        "a handler with a `Responder` answers later",
        "register it with `deferred_command`, or return the result";
    NoResponder lacks TakesResponder:
        "this deferred handler does not take a `Responder`",
        "the last parameter is to be a `Responder<T>`, by which it answers",
        "a handler that returns its result is registered with `command`";
    ResponderFirst lacks ResponderLast:
        "the `Responder` of this handler comes before its arguments",
        "the `Responder` is to be the last parameter",
        "the order is: the state, the context, the arguments, the responder";
}

/// Implements a trait for functions of wrong forms. Each has its verdict, its type parameters, its parameters, and bounds
/// that keep it from being taken for a form that is right.
macro_rules! wrong_forms {
    ($trait:ident $body:tt $($verdict:ident [$($generic:ident)*] ($($parameter:ty),*) $([$($bounds:tt)*])?;)*) => {
        $(wrong_forms! { @one $trait $body $verdict [$($generic)*] ($($parameter),*) [$($($bounds)*)?] })*
    };
    (@one $trait:ident { $($body:tt)* } $verdict:ident [$($generic:ident)*] ($($parameter:ty),*) [$($bounds:tt)*]) => {
        impl<F, S: ?Sized, R, $($generic),*> $trait<S, ($verdict, fn($($parameter),*) -> R)> for F
        where
            F: Fn($($parameter),*) -> R,
            $($bounds)*
        {
            type Verdict = $verdict;

            $($body)*
        }
    };
}

pub(crate) use wrong_forms;
