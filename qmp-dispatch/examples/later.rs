// SPDX-License-Identifier: MIT OR Apache-2.0
//! Answers that are given later: by another thread, by a future, by nobody.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, Wake, Waker};
use std::thread::{self, Thread};

use qmp_dispatch::proto::Error;
use qmp_dispatch::{Context, LocalClient, RegisterError, Registry, Responder};

fn on_a_thread(_: &Context, responder: Responder<u64>) {
    thread::spawn(move || responder.respond(Ok::<_, Error>(6 * 7)));
}

fn in_a_future(_: &Context, responder: Responder<u64>) {
    let answer = async move { responder.respond(measure().await) };
    thread::spawn(move || block_on(answer));
}

/// Its client is told that there is no answer.
fn never(_: &Context, responder: Responder<u64>) {
    drop(responder);
}

async fn measure() -> Result<u64, Error> {
    Ok(std::future::ready(6).await * 7)
}

/// The least of an executor; a program has a better one.
fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut TaskContext::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}

fn registry() -> Result<Registry, RegisterError> {
    let mut registry = Registry::new();
    registry.deferred_command("x-thread", on_a_thread)?;
    registry.deferred_command("x-future", in_a_future)?;
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
