// SPDX-License-Identifier: MIT OR Apache-2.0
//! Async commands of a server with sockets: who waits for them, and who does not.

use std::io::{BufRead, BufReader, Lines, Write};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};
use std::thread;

use qmp_dispatch::proto::{Error, Layout};
use qmp_dispatch::{AsyncContext, Dispatcher, Registry, Task};
use qmp_server::{Discipline, Server, ServerHandle, system_time, version};

/// A door that handlers wait at.
#[derive(Default)]
struct Gate(Mutex<(bool, Vec<Waker>)>);

impl Gate {
    fn open(&self) {
        let mut gate = self.0.lock().unwrap();
        gate.0 = true;
        gate.1.drain(..).for_each(Waker::wake);
    }

    async fn pass(self: Arc<Self>, _: AsyncContext) -> Result<(), Error> {
        std::future::poll_fn(|polled| {
            let mut gate = self.0.lock().unwrap();
            if gate.0 {
                return Poll::Ready(());
            }
            gate.1.push(polled.waker().clone());
            Poll::Pending
        })
        .await;
        Ok(())
    }
}

struct Client {
    stream: UnixStream,
    lines: Lines<BufReader<UnixStream>>,
}

impl Client {
    fn connect(server: &ServerHandle, capabilities: &str) -> Client {
        let (near, far) = UnixStream::pair().unwrap();
        server.control().serve(Box::new(far), Layout::Compact).unwrap();
        let lines = BufReader::new(near.try_clone().unwrap()).lines();
        let mut client = Client { stream: near, lines };
        client.send(capabilities);
        assert!(client.line().starts_with("{\"QMP\""));
        assert_eq!(client.line(), "{\"return\": {}}");
        client
    }

    fn send(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).unwrap();
    }

    fn line(&mut self) -> String {
        self.lines.next().unwrap().unwrap()
    }
}

const PLAIN: &str = "{'execute': 'qmp_capabilities'}";
const OOB: &str = "{'execute': 'qmp_capabilities', 'arguments': {'enable': ['oob']}}";

fn start(discipline: Discipline, more: impl FnOnce(&mut Registry)) -> (ServerHandle, Arc<Gate>) {
    let gate = Arc::new(Gate::default());
    let mut registry = Registry::new();
    registry.set_executor(|task: Task| {
        if let Some(task) = task.poll_now() {
            thread::spawn(|| task.run());
        }
    });
    registry.with(Arc::clone(&gate)).async_command("x-pass", Gate::pass).unwrap();
    more(&mut registry);
    let dispatcher = Dispatcher::new(registry, version(), system_time);
    let server = Server::new(dispatcher).discipline(discipline).stay().spawn().unwrap();
    (server, gate)
}

#[test]
fn only_its_own_client_waits_for_it() {
    for discipline in [Discipline::OneAtATime, Discipline::OnePerMonitor] {
        for capabilities in [PLAIN, OOB] {
            let (server, gate) = start(discipline, |_| ());
            let mut waiting = Client::connect(&server, capabilities);
            let mut other = Client::connect(&server, capabilities);
            waiting.send(
                "{'execute': 'x-pass', 'id': 1} {'execute': 'x-pass', 'id': 2} \
                 {'execute': 'query-version', 'id': 3}",
            );
            // Twice: the second is executed when the first of the others has begun for certain.
            for id in 0..2 {
                other.send(&format!("{{'execute': 'query-version', 'id': {id}}}"));
                assert!(other.line().ends_with(&format!("\"id\": {id}}}")));
            }
            gate.open();
            for id in 1..=3 {
                let line = waiting.line();
                assert!(line.ends_with(&format!("\"id\": {id}}}")), "{line}");
            }
            server.control().shutdown();
            server.wait();
        }
    }
}

#[test]
fn it_is_notified_when_its_client_hangs_up() {
    let (began, begins): (Sender<()>, Receiver<()>) = channel();
    let (told, is_told) = channel();
    let (server, _gate) = start(Discipline::OneAtATime, |registry| {
        let handler = move |context: AsyncContext| {
            let (began, told) = (began.clone(), told.clone());
            async move {
                began.send(()).unwrap();
                context.closed().await;
                told.send(context.is_awaited()).unwrap();
                Ok::<(), Error>(())
            }
        };
        registry.async_command("x-close", handler).unwrap();
    });
    let mut client = Client::connect(&server, PLAIN);
    client.send("{'execute': 'x-close'}");
    begins.recv().unwrap();
    drop(client);
    assert!(!is_told.recv().unwrap());
    server.control().shutdown();
    server.wait();
}

/// Else one client after the other could leave a command behind.
#[test]
fn who_leaves_many_commands_that_are_executed_is_refused_until_they_are_answered() {
    let (began, begins) = channel();
    let open = Arc::new(Gate::default());
    let (server, _gate) = start(Discipline::OneAtATime, |registry| {
        let open = Arc::clone(&open);
        let handler = move |context: AsyncContext| {
            began.send(()).unwrap();
            Arc::clone(&open).pass(context)
        };
        registry.async_command("x-stay", handler).unwrap();
    });
    let connect = || {
        let (near, far) = UnixStream::pair().unwrap();
        server.control().serve(Box::new(far), Layout::Compact).map(|()| near)
    };
    let left = (0..1000).find(|_| {
        let Ok(mut stream) = connect() else { return true };
        stream.write_all(format!("{PLAIN} {{'execute': 'x-stay'}}").as_bytes()).unwrap();
        begins.recv().unwrap();
        false
    });
    assert!(left.is_some(), "a client was never refused");
    open.open();
    while connect().is_err() {
        thread::yield_now();
    }
    server.control().shutdown();
    server.wait();
}

#[test]
fn a_client_that_only_sends_nothing_more_gets_its_answer() {
    let (server, gate) = start(Discipline::OneAtATime, |_| ());
    let mut client = Client::connect(&server, PLAIN);
    client.send("{'execute': 'x-pass', 'id': 1}");
    client.stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut other = Client::connect(&server, PLAIN);
    other.send("{'execute': 'query-version'}");
    other.line();
    gate.open();
    assert_eq!(client.line(), "{\"return\": {}, \"id\": 1}");
    server.control().shutdown();
    server.wait();
}

#[test]
fn a_server_that_ends_waits_for_it() {
    let (server, gate) = start(Discipline::OneAtATime, |_| ());
    let mut client = Client::connect(&server, PLAIN);
    client.send("{'execute': 'x-pass', 'id': 1}");
    let mut other = Client::connect(&server, PLAIN);
    other.send("{'execute': 'query-version'}");
    other.line();
    server.control().shutdown();
    gate.open();
    assert_eq!(client.line(), "{\"return\": {}, \"id\": 1}");
    server.wait();
}
