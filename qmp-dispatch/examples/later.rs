// SPDX-License-Identifier: MIT OR Apache-2.0
//! Answers that are given later: by another thread, by an async function, by nobody.

use std::thread;

use qmp_dispatch::proto::Error;
use qmp_dispatch::{AsyncContext, Context, LocalClient, RegisterError, Registry, Responder, Task};

fn on_a_thread(_: &Context, responder: Responder<u64>) {
    thread::spawn(move || responder.respond(Ok::<_, Error>(6 * 7)));
}

async fn in_a_future(_: AsyncContext) -> Result<u64, Error> {
    Ok(measure().await? * 7)
}

/// A program with an async runtime spawns the task there.
fn execute(task: Task) {
    if let Some(task) = task.poll_now() {
        thread::spawn(|| task.run());
    }
}

/// Its client is told that there is no answer.
fn never(_: &Context, responder: Responder<u64>) {
    drop(responder);
}

async fn measure() -> Result<u64, Error> {
    Ok(std::future::ready(6).await)
}

fn registry() -> Result<Registry, RegisterError> {
    let mut registry = Registry::new();
    registry.deferred_command("x-thread", on_a_thread)?;
    registry.set_executor(execute);
    registry.async_command("x-future", in_a_future)?;
    registry.deferred_command("x-never", never)?;
    Ok(registry)
}

const SESSION: &str = "{'execute': 'x-thread'} {'execute': 'x-future'} {'execute': 'x-never'}";

fn main() -> Result<(), RegisterError> {
    let client = LocalClient::new(registry()?);
    client.ask(SESSION).iter().for_each(|line| println!("{line}"));
    Ok(())
}

#[test]
fn each_is_answered() {
    let said = LocalClient::new(registry().unwrap()).ask(SESSION);
    assert_eq!(said[..2], [r#"{"return": 42}"#, r#"{"return": 42}"#]);
    assert!(said[2].contains("The command x-never was not answered"), "{}", said[2]);
}
