// SPDX-License-Identifier: MIT OR Apache-2.0
//! The attribute macro of [qmp-dispatch](https://docs.rs/qmp-dispatch), where it is the feature `macros`.
//!
//! It generates nothing that could not be written by hand: an argument struct where the parameters of a method are listed,
//! and one call of the public API for each command.

mod command;
mod expand;
mod options;
mod parameters;

use proc_macro::TokenStream;
use syn::{ItemImpl, parse_macro_input};

use crate::options::BlockOptions;

/// Makes commands of the methods of an impl block that have the attribute `#[qmp]`, and generates the function that
/// registers them:
///
/// ```text
/// pub fn register(self: Arc<Self>, registry: &mut Registry) -> Result<(), RegisterError>
/// ```
///
/// Methods without `#[qmp]` stay as they are.
///
/// A command's method takes `&self`, then the context if it needs it, and then its arguments: one parameter of a type that is
/// the whole of the arguments, or one parameter for each of them, of which the macro makes a struct. A single parameter is
/// taken for the whole, unless its type is a number, `bool`, `char`, `String`, `Option` or `Vec`.
///
/// - A method that is not async takes its context as `&Context`.
/// - An `async fn` takes it as `AsyncContext` or `&AsyncContext`, and itself as `&self` or `self: Arc<Self>`. The
///   registry needs an executor.
/// - A method returns a `Result`, or its result itself if it never fails.
///
/// The documentation of the method becomes that of the command.
///
/// # Options
///
/// Of a method, in `#[qmp(…)]`:
///
/// - `name = "…"`: the name of the command. By default, that of the method, with `-` in place of `_`;
/// - `oob`, `preconfig`, `no_success_response`, `deprecated`, `unstable`, `feature = "…"`, `cancellable`: the settings of
///   `Command` of the same name.
///
/// Of a parameter, in `#[qmp(…)]`: `name = "…"`, by default that of the parameter with `-` in place of `_`; `member` or
/// `arguments`, for a single parameter that is a member, or the whole, of the arguments. Attributes of serde and schemars
/// are passed on to the struct that is made.
///
/// Of the block, in `#[qmp_commands(…)]`:
///
/// - `register = name`: the name of the generated function, for a type with more than one such block;
/// - `crate = path`: where `qmp_dispatch` is, such as `qmp_server::dispatch`.
#[proc_macro_attribute]
pub fn qmp_commands(options: TokenStream, block: TokenStream) -> TokenStream {
    let options = parse_macro_input!(options as BlockOptions);
    let block = parse_macro_input!(block as ItemImpl);
    expand::block(&options, block).into()
}
