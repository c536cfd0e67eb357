// SPDX-License-Identifier: MIT OR Apache-2.0
//! Wrong handlers, and what the compiler says about each: it names the part that is wrong, and the way out.
//!
//! Each is a program of a package that this test writes, and all are checked by one call of Cargo. Of what the compiler
//! prints, only our own words are expected, apart from what it words well by itself (lifetimes, and futures that are not
//! `Send`).

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// A wrong program: its name, what the compiler is to say, items, and statements that use them.
struct Case(&'static str, &'static str, &'static str, &'static str);

const HANDLERS: [Case; 47] = [
    Case(
        "arguments_before_context",
        "the context is to come before the arguments",
        "fn handler(_: New, _: &Context) -> Result<(), Error> { Ok(()) }",
        "registry.command(\"x\", handler)?;",
    ),
    Case(
        "no_context",
        "a parameter for the context is missing",
        "fn handler(_: New) -> Result<(), Error> { Ok(()) }",
        "registry.command(\"x\", handler)?;",
    ),
    Case(
        "no_parameters",
        "a parameter for the context is missing",
        "",
        "registry.command(\"x\", || Ok::<(), Error>(()))?;",
    ),
    Case(
        "context_by_value",
        "the context is to be borrowed: `&Context`",
        "fn handler(_: Context, _: New) -> Result<(), Error> { Ok(()) }",
        "registry.command(\"x\", handler)?;",
    ),
    Case(
        "only_context_by_value",
        "the context is to be borrowed: `&Context`",
        "fn handler(_: Context) -> Result<(), Error> { Ok(()) }",
        "registry.command(\"x\", handler)?;",
    ),
    Case(
        "untyped_closure",
        "the types of a closure's parameters are to be written out",
        "",
        "registry.command(\"x\", |_, new: New| Ok::<(), Error>(()))?;",
    ),
    Case(
        "arguments_by_reference",
        "arguments are one struct that owns its data, and are taken by value",
        "fn handler(_: &Context, _: &New) -> Result<(), Error> { Ok(()) }",
        "registry.command(\"x\", handler)?;",
    ),
    Case(
        "arguments_not_decoded",
        "its arguments do not implement `serde::Deserialize`",
        "fn handler(_: &Context, _: Plain) -> Result<(), Error> { Ok(()) }",
        "registry.command(\"x\", handler)?;",
    ),
    Case(
        "arguments_not_described",
        "its arguments do not implement `schemars::JsonSchema`",
        "fn handler(_: &Context, _: Decoded) -> Result<(), Error> { Ok(()) }",
        "registry.command(\"x\", handler)?;",
    ),
    Case(
        "responder_for_arguments",
        "a handler with a `Responder` is registered with `deferred_command`",
        "fn handler(_: &Context, _: Responder<()>) -> Result<(), Error> { Ok(()) }",
        "registry.command(\"x\", handler)?;",
    ),
    Case(
        "two_arguments",
        "this handler takes more than one parameter for its arguments",
        "fn handler(_: &Context, _: New, _: New) -> Result<(), Error> { Ok(()) }",
        "registry.command(\"x\", handler)?;",
    ),
    Case(
        "result_not_encoded",
        "its result does not implement `serde::Serialize`",
        "fn handler(_: &Context, _: New) -> Result<Plain, Error> { Ok(Plain) }",
        "registry.command(\"x\", handler)?;",
    ),
    Case(
        "result_not_described",
        "its result does not implement `schemars::JsonSchema`",
        "fn handler(_: &Context) -> Result<Encoded, Error> { Ok(Encoded) }",
        "registry.command(\"x\", handler)?;",
    ),
    Case(
        "error_not_convertible",
        "the error `Plain` of this handler cannot be told to a client",
        "fn handler(_: &Context) -> Result<(), Plain> { Ok(()) }",
        "registry.command(\"x\", handler)?;",
    ),
    Case(
        "no_result",
        "this handler returns `u32`, and not a `Result<T, E>`",
        "fn handler(_: &Context) -> u32 { 1 }",
        "registry.command(\"x\", handler)?;",
    ),
    Case(
        "returns_nothing",
        "a function that never fails is registered with `infallible_command`",
        "fn handler(_: &Context, _: New) {}",
        "registry.command(\"x\", handler)?;",
    ),
    Case(
        "returns_an_option",
        "Option<u32>`, and not a `Result<T, E>`",
        "fn handler(_: &Context) -> Option<u32> { None }",
        "registry.command(\"x\", handler)?;",
    ),
    Case(
        "infallible_result_not_encoded",
        "its result does not implement `serde::Serialize`",
        "fn handler(_: &Context) -> Plain { Plain }",
        "registry.infallible_command(\"x\", handler)?;",
    ),
    Case(
        "async_as_sync",
        "register it with `async_command`, or take `&Context`",
        "async fn handler(_: AsyncContext, _: New) -> Result<(), Error> { Ok(()) }",
        "registry.command(\"x\", handler)?;",
    ),
    Case(
        "async_that_borrows_as_sync",
        "an `async fn` is registered with `async_command`, and takes an `AsyncContext`",
        "async fn handler(_: &Context<'_>) -> Result<(), Error> { Ok(()) }",
        "registry.command(\"x\", handler)?;",
    ),
    Case(
        "deferred_as_sync",
        "register it with `deferred_command`, or return the result",
        "fn handler(_: &Context, _: New, _: Responder<()>) {}",
        "registry.command(\"x\", handler)?;",
    ),
    Case(
        "state_missing",
        "register it with the state: `registry.with(state).command(name, handler)`",
        "impl Disk { fn resize(&self, _: &Context, _: New) -> Result<(), Error> { Ok(()) } }",
        "registry.command(\"x\", Disk::resize)?;",
    ),
    Case(
        "state_by_arc",
        "the state is to be borrowed: `&S`, or `&self` of a method",
        "impl Disk { fn size(self: Arc<Self>, _: &Context) -> Result<u64, Error> { Ok(1) } }",
        "registry.with(Arc::new(Disk)).command(\"x\", Disk::size)?;",
    ),
    Case(
        "other_state",
        "this cannot serve a command",
        "impl Disk { fn size(&self, _: &Context) -> Result<u64, Error> { Ok(1) } }",
        "registry.with(Arc::new(Plain)).command(\"x\", Disk::size)?;",
    ),
    Case(
        "without_state_in_a_group",
        "functions for `Registry::with(state)` have `&S` as another parameter, before the `&Context`",
        "fn handler(_: &Context, _: New) -> Result<(), Error> { Ok(()) }",
        "registry.with(Arc::new(Disk)).command(\"x\", handler)?;",
    ),
    Case(
        "two_arguments_in_a_group",
        "declare a struct with a member for each of them",
        "impl Disk { fn resize(&self, _: &Context, _: New, _: bool) -> Result<(), Error> { Ok(()) } }",
        "registry.with(Arc::new(Disk)).command(\"x\", Disk::resize)?;",
    ),
    Case(
        "not_sync",
        "capture an `Arc`, an atomic or a `Mutex` in place of an `Rc` or a `Cell`",
        "",
        "let cell = Cell::new(1);
        registry.command(\"x\", move |_: &Context| Ok::<i32, Error>(cell.replace(2)))?;",
    ),
    Case(
        "not_static",
        "use the `move` keyword",
        "",
        "let number = 1;
        registry.command(\"x\", |_: &Context| Ok::<i32, Error>(*&number))?;",
    ),
    Case(
        "changes_what_it_captures",
        "Fn",
        "",
        "let mut count = 1;
        registry.command(\"x\", move |_: &Context| { count += 1; Ok::<i32, Error>(count) })?;",
    ),
    Case(
        "deferred_without_responder",
        "the last parameter is to be a `Responder<T>`, by which it answers",
        "fn handler(_: &Context, _: New) {}",
        "registry.deferred_command(\"x\", handler)?;",
    ),
    Case(
        "deferred_that_returns",
        "a deferred handler returns nothing: it answers by its `Responder`",
        "fn handler(_: &Context, _: Responder<()>) -> Result<(), Error> { Ok(()) }",
        "registry.deferred_command(\"x\", handler)?;",
    ),
    Case(
        "responder_before_arguments",
        "the `Responder` is to be the last parameter",
        "fn handler(_: &Context, _: Responder<()>, _: New) {}",
        "registry.deferred_command(\"x\", handler)?;",
    ),
    Case(
        "deferred_result_not_encoded",
        "its result does not implement `serde::Serialize`",
        "fn handler(_: &Context, _: New, _: Responder<Plain>) {}",
        "registry.deferred_command(\"x\", handler)?;",
    ),
    Case(
        "deferred_state_missing",
        "its state is missing",
        "impl Disk { fn copy(&self, _: &Context, _: Responder<()>) {} }",
        "registry.deferred_command(\"x\", Disk::copy)?;",
    ),
    Case(
        "deferred_context_by_value",
        "the context is to be borrowed: `&Context`",
        "fn handler(_: Context, _: New, _: Responder<()>) {}",
        "registry.deferred_command(\"x\", handler)?;",
    ),
    Case(
        "sync_as_async",
        "a function that is not async is registered with `command`",
        "fn handler(_: AsyncContext) -> Result<(), Error> { Ok(()) }",
        "registry.async_command(\"x\", handler)?;",
    ),
    Case(
        "async_with_the_context_of_others",
        "the context of an async handler is owned: `AsyncContext`",
        "",
        "registry.async_command(\"x\", |_: &Context, _: New| async { Ok::<(), Error>(()) })?;",
    ),
    Case(
        "async_that_borrows_its_context",
        "not of the form `async fn(AsyncContext, A) -> Result<T, E>`, or without `A`",
        "async fn handler(_: &AsyncContext) -> Result<(), Error> { Ok(()) }",
        "registry.async_command(\"x\", handler)?;",
    ),
    Case(
        "async_state_borrowed",
        "functions for `Registry::with(state)` have `Arc<S>` as another parameter",
        "impl Disk { async fn sync(&self, _: AsyncContext) -> Result<(), Error> { Ok(()) } }",
        "registry.with(Arc::new(Disk)).async_command(\"x\", Disk::sync)?;",
    ),
    Case(
        "async_state_missing",
        "its state is missing",
        "impl Disk { async fn sync(self: Arc<Self>, _: AsyncContext) -> Result<(), Error> { Ok(()) } }",
        "registry.async_command(\"x\", Disk::sync)?;",
    ),
    Case(
        "async_without_context",
        "a parameter for the context is missing",
        "async fn handler(_: New) -> Result<(), Error> { Ok(()) }",
        "registry.async_command(\"x\", handler)?;",
    ),
    Case(
        "async_arguments_before_context",
        "the context is to come before the arguments",
        "async fn handler(_: New, _: AsyncContext) -> Result<(), Error> { Ok(()) }",
        "registry.async_command(\"x\", handler)?;",
    ),
    Case(
        "async_two_arguments",
        "the arguments are one parameter",
        "async fn handler(_: AsyncContext, _: New, _: bool) -> Result<(), Error> { Ok(()) }",
        "registry.async_command(\"x\", handler)?;",
    ),
    Case(
        "async_arguments_not_decoded",
        "the arguments `Plain` of this handler cannot be read from JSON",
        "async fn handler(_: AsyncContext, _: Plain) -> Result<(), Error> { Ok(()) }",
        "registry.async_command(\"x\", handler)?;",
    ),
    Case(
        "async_result_not_encoded",
        "the result `Plain` of this handler cannot be written as JSON",
        "async fn handler(_: AsyncContext) -> Result<Plain, Error> { Ok(Plain) }",
        "registry.async_command(\"x\", handler)?;",
    ),
    Case(
        "async_no_result",
        "this handler returns `u32`, and not a `Result<T, E>`",
        "async fn handler(_: AsyncContext) -> u32 { 1 }",
        "registry.async_command(\"x\", handler)?;",
    ),
    Case(
        "future_not_send",
        "future cannot be sent between threads safely",
        "async fn handler(_: AsyncContext) -> Result<(), Error> {
            let shared = Rc::new(1);
            std::future::ready(()).await;
            drop(shared);
            Ok(())
        }",
        "registry.async_command(\"x\", handler)?;",
    ),
];

/// Methods of a block with the attribute, and what is underlined, or part of it.
struct Method(&'static str, &'static str, &'static str, &'static str);

const METHODS: [Method; 25] = [
    Method(
        "unknown_option",
        "unknown option of a command: expected `name = \"…\"`",
        "#[qmp(out_of_band)] fn x(&self) {}",
        "out_of_band",
    ),
    Method(
        "cancellable_sync",
        "leave `cancellable` out, or make it async",
        "#[qmp(cancellable)] fn x(&self) {}",
        "cancellable",
    ),
    Method(
        "mutable_self",
        "what changes is in a `Mutex` or an atomic",
        "#[qmp] fn x(&mut self) {}",
        "&mut self",
    ),
    Method("owned_self", "take `&self`, or `self: Arc<Self>`", "#[qmp] fn x(self) {}", "self"),
    Method(
        "state_by_arc_in_sync",
        "only an `async fn` takes `self: Arc<Self>`",
        "#[qmp] fn x(self: Arc<Self>) {}",
        "self: Arc<Self>",
    ),
    Method(
        "without_self",
        "a function without state is registered with `Registry::command`",
        "#[qmp] fn x(_: &Context) {}",
        "x",
    ),
    Method(
        "context_last",
        "it is to be the first parameter after `self`",
        "#[qmp] fn x(&self, size: i64, _: &Context) {}",
        "_: &Context",
    ),
    Method(
        "value_context",
        "this command takes its context by value: take `&Context`",
        "#[qmp] fn x(&self, _: Context, size: i64) {}",
        "Context",
    ),
    Method(
        "async_context_in_sync",
        "only an `async fn` takes an `AsyncContext`",
        "#[qmp] fn x(&self, _: &AsyncContext) {}",
        "&AsyncContext",
    ),
    Method(
        "context_in_async",
        "the context of an async command is an `AsyncContext`",
        "#[qmp] async fn x(&self, _: &Context<'_>) {}",
        "&Context<'_>",
    ),
    Method(
        "reference_member",
        "take it by value, for example a `String` in place of a `&str`",
        "#[qmp] fn x(&self, name: &str) {}",
        "&str",
    ),
    Method(
        "impl_member",
        "the type of an argument is to be written out",
        "#[qmp] fn x(&self, name: impl ToString) {}",
        "impl ToString",
    ),
    Method(
        "member_not_decoded",
        "the arguments `Plain` of this handler cannot be read from JSON",
        "#[qmp] fn x(&self, size: i64, plain: Plain) {}",
        "Plain",
    ),
    Method(
        "whole_not_described",
        "its arguments do not implement `schemars::JsonSchema`",
        "#[qmp] fn x(&self, new: Decoded) {}",
        "Decoded",
    ),
    Method(
        "output_not_encoded",
        "its result does not implement `serde::Serialize`",
        "#[qmp] fn x(&self) -> Result<Plain, Error> { Ok(Plain) }",
        "Result<Plain, Error>",
    ),
    Method(
        "plain_output_not_described",
        "its result does not implement `schemars::JsonSchema`",
        "#[qmp] fn x(&self) -> Encoded { Encoded }",
        "Encoded",
    ),
    Method(
        "output_error",
        "the error `Plain` of this handler cannot be told to a client",
        "#[qmp] async fn x(&self) -> Result<(), Plain> { Ok(()) }",
        "Result<(), Plain>",
    ),
    Method(
        "same_name",
        "there are two commands 'x-y'",
        "#[qmp] fn x_y(&self) {} #[qmp(name = \"x-y\")] fn y(&self) {}",
        "\"x-y\"",
    ),
    Method("no_command", "mark those that are with `#[qmp]`", "fn x(&self) {}", "Disk"),
    Method("generic", "this command is generic", "#[qmp] fn x<T>(&self) {}", "<T>"),
    Method(
        "pattern",
        "a member of the arguments is named by its parameter",
        "#[qmp] fn x(&self, size: i64, (a, b): (i64, i64)) {}",
        "(a, b)",
    ),
    Method(
        "bad_name",
        "invalid name '1 x' of a command",
        "#[qmp(name = \"1 x\")] fn x(&self) {}",
        "\"1 x\"",
    ),
    Method(
        "unknown_parameter_option",
        "unknown option of a parameter: expected `name = \"…\"`, `member` or `arguments`",
        "#[qmp] fn x(&self, #[qmp(rename = \"y\")] size: i64) {}",
        "rename",
    ),
    Method(
        "arguments_among_members",
        "`arguments` is for the only parameter of a command",
        "#[qmp] fn x(&self, size: i64, #[qmp(arguments)] new: New) {}",
        "new: New",
    ),
    Method(
        "unsafe_command",
        "this command is unsafe: clients can send anything",
        "#[qmp] unsafe fn x(&self) {}",
        "unsafe fn x(&self)",
    ),
];

/// Other uses of the attribute.
const BLOCKS: [Case; 2] = [
    Case(
        "trait_block",
        "commands are methods of a type, in an impl block of its own",
        "#[qmp_commands] impl Clone for Disk { #[qmp] fn clone(&self) -> Disk { Disk } }",
        "",
    ),
    Case(
        "unknown_block_option",
        "unknown option `name`: expected `register = name` or `crate = path`",
        "#[qmp_commands(name = x)] impl Disk { #[qmp] fn x(&self) {} }",
        "",
    ),
];

/// What must compile, so that the others fail for the reason that is given.
const RIGHT: &str = "right";

fn program(items: &str, statements: &str) -> String {
    format!(
        "#![allow(warnings)]
use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use qmp_dispatch::proto::Error;
use qmp_dispatch::{{
    AsyncContext, Context, RegisterError, Registry, Responder, Task, qapi_types, qmp_commands,
}};

qapi_types! {{
    struct New {{
        size: i64,
    }}
}}

struct Disk;

struct Plain;

#[derive(qmp_dispatch::serde::Deserialize)]
#[serde(crate = \"qmp_dispatch::serde\")]
struct Decoded;

#[derive(qmp_dispatch::serde::Serialize)]
#[serde(crate = \"qmp_dispatch::serde\")]
struct Encoded;

{items}

fn main() -> Result<(), RegisterError> {{
    let mut registry = Registry::new();
    registry.set_executor(|task: Task| task.run());
    {statements}
    Ok(())
}}
"
    )
}

/// Writes the package.
fn write_package(directory: &Path) {
    let bins = directory.join("src/bin");
    let _ = fs::remove_dir_all(&bins);
    fs::create_dir_all(&bins).unwrap();
    let own = env!("CARGO_MANIFEST_DIR");
    // The profile is the workspace's, so that Cargo takes dependencies that have been checked for it.
    let manifest = format!(
        "[package]\nname = \"wrong\"\nedition = \"2024\"\n\n[workspace]\n\n[dependencies]\n\
         qmp-dispatch = {{ path = {own:?}, features = [\"macros\"] }}\n\n\
         [profile.dev]\ndebug = \"line-tables-only\"\n\n[profile.dev.package.\"*\"]\ndebug = false\n"
    );
    fs::write(directory.join("Cargo.toml"), manifest).unwrap();
    // The versions of the workspace, which are there already.
    let lock = Path::new(own).join("../Cargo.lock");
    if lock.exists() {
        fs::copy(lock, directory.join("Cargo.lock")).unwrap();
    }
    let write =
        |name: &str, text: String| fs::write(bins.join(format!("{name}.rs")), text).unwrap();
    for Case(name, _, items, statements) in HANDLERS.iter().chain(&BLOCKS) {
        write(name, program(items, statements));
    }
    for Method(name, _, methods, _) in &METHODS {
        write(name, program(&format!("#[qmp_commands]\nimpl Disk {{\n    {methods}\n}}"), ""));
    }
    let right = "#[qmp_commands] impl Disk { #[qmp(oob)] fn x(&self, size: i64) {} }";
    write(RIGHT, program(right, "Arc::new(Disk).register(&mut registry)?;"));
}

/// Checks all programs in the target directory of whoever runs this test. Returns the errors of each.
fn errors(directory: &Path) -> BTreeMap<String, Vec<Value>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut check = Command::new(cargo);
    check.args(["check", "--offline", "--bins", "--keep-going", "--message-format", "json"]);
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    check.current_dir(directory).env("CARGO_TARGET_DIR", target);
    // Of whoever runs this test.
    check.env_remove("RUSTFLAGS").env_remove("CARGO_ENCODED_RUSTFLAGS");
    let output = check.output().unwrap();
    let mut errors = BTreeMap::<String, Vec<Value>>::new();
    let mut checked = 0;
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let Ok(message) = serde_json::from_str::<Value>(line) else { continue };
        let name = message["target"]["name"].as_str().unwrap_or_default().to_owned();
        checked += usize::from(message["reason"] == "compiler-artifact" && name == RIGHT);
        if message["reason"] == "compiler-message" && message["message"]["level"] == "error" {
            errors.entry(name).or_default().push(message["message"].clone());
        }
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let right: String = errors.get(RIGHT).into_iter().flatten().map(rendered).collect();
    assert_eq!(checked, 1, "{RIGHT} does not compile: {right}\n{said}");
    errors
}

/// What the compiler prints.
fn rendered(error: &Value) -> &str {
    error["rendered"].as_str().unwrap_or_default()
}

/// What is underlined.
fn underlined(error: &Value) -> Vec<String> {
    let spans = error["spans"].as_array().into_iter().flatten();
    let primary = spans.filter(|span| span["is_primary"] == true);
    let text = |span: &Value| {
        let line = &span["text"][0];
        let column = |name: &str| line[name].as_u64().unwrap_or(1) as usize - 1;
        let (start, end) = (column("highlight_start"), column("highlight_end"));
        let text = line["text"].as_str().unwrap_or_default();
        text.chars().skip(start).take(end - start).collect()
    };
    primary.map(text).collect()
}

#[test]
fn the_compiler_names_what_is_wrong_and_the_way_out() {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("wrong");
    write_package(&directory);
    let errors = errors(&directory);
    let mut failures = String::new();
    let handlers = HANDLERS.iter().chain(&BLOCKS).map(|Case(name, says, ..)| (name, says, None));
    let methods = METHODS.iter().map(|Method(name, says, _, at)| (name, says, Some(*at)));
    for (name, says, at) in handlers.chain(methods) {
        let errors = errors.get(*name).map_or(&[][..], Vec::as_slice);
        let is_right = |error: &&Value| {
            let is_there = |at: &str| {
                underlined(error).iter().any(|text| !text.is_empty() && at.contains(text.as_str()))
            };
            rendered(error).contains(says) && at.is_none_or(is_there)
        };
        if errors.iter().find(is_right).is_none() {
            let said: String = errors.iter().map(rendered).collect();
            let at = at.map(|at| format!(" at {at}")).unwrap_or_default();
            failures += &format!("==== {name}: expected '{says}'{at}\n{said}\n");
        }
    }
    assert!(failures.is_empty(), "{failures}");
}
