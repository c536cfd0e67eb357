// SPDX-License-Identifier: MIT OR Apache-2.0
//! In-band commands are executed when and where another program's poll loop executes them, and nothing else waits for that.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::{self, ThreadId};

use qmp_dispatch::proto::Error;
use qmp_dispatch::{Context, Dispatcher, Registry, Responder};
use qmp_server::{Control, Discipline, Embedded, Server, system_time, version};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tempfile::TempDir;
use tests::endpoint::Endpoint;
use tests::server::Client;

const QUICK: &str = r#"{"exec-oob": "x-quick", "id": "oob"}"#;
const QUICK_RETURNS: &str = r#"{"return": "quick", "id": "oob"}"#;

/// A server whose commands note the thread that executes them.
struct Host {
    qmp: Embedded,
    executed_on: Arc<Mutex<Vec<ThreadId>>>,
    responders: Receiver<Responder<()>>,
    /// Lets `x-wait` go on.
    go_on: Option<Sender<()>>,
    endpoint: Endpoint,
    _dir: TempDir,
}

impl Host {
    fn start(discipline: Discipline) -> Host {
        let executed_on = Arc::new(Mutex::new(Vec::new()));
        let (hand_over, responders) = channel();
        let mut registry = Registry::new();
        let noted = Arc::clone(&executed_on);
        registry
            .command("x-quick", move |_: &Context| {
                noted.lock().unwrap().push(thread::current().id());
                Ok::<_, Error>("quick".to_owned())
            })
            .unwrap()
            .allow_oob();
        let hand_over = Mutex::new(hand_over);
        registry
            .deferred_command("x-later", move |_: &Context, responder: Responder<()>| {
                let _ = hand_over.lock().unwrap().send(responder);
            })
            .unwrap();
        let (go_on, wait_for_go_on) = channel();
        let wait_for_go_on = Mutex::new(wait_for_go_on);
        registry
            .command("x-wait", move |_: &Context| {
                wait_for_go_on
                    .lock()
                    .unwrap()
                    .recv()
                    .map_err(|_| Error::generic("the test has ended"))
            })
            .unwrap();
        registry
            .command("x-end", |context: &Context| {
                context.monitor().local::<Control>().unwrap().shutdown();
                Ok::<_, Error>(())
            })
            .unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("qmp.sock");
        let listen = format!("unix:{}", path.display()).parse().unwrap();
        let server = Server::new(Dispatcher::new(registry, version(), system_time));
        let qmp = server.discipline(discipline).listen(&listen).unwrap().embed().unwrap();
        Host {
            qmp,
            executed_on,
            responders,
            go_on: Some(go_on),
            endpoint: Endpoint::Unix(path),
            _dir: dir,
        }
    }

    /// A client that has negotiated, which takes two turns of the loop.
    fn client(&self) -> Client {
        let endpoint = self.endpoint.clone();
        let negotiating = thread::spawn(move || {
            let mut client = Client::connect(&endpoint);
            client.negotiate(r#"{"enable": ["oob"]}"#);
            client
        });
        self.wait();
        assert!(!self.qmp.dispatch_one(), "there is but one request");
        negotiating.join().unwrap()
    }

    /// Waits until there is something to dispatch.
    fn wait(&self) {
        poll(&mut [PollFd::new(&self.qmp, PollFlags::IN)], None).unwrap();
    }

    fn is_readable(&self) -> bool {
        let at_once = Timespec::default();
        poll(&mut [PollFd::new(&self.qmp, PollFlags::IN)], Some(&at_once)).unwrap() > 0
    }

    fn end(self) {
        self.qmp.control().shutdown();
        self.qmp.wait();
    }
}

#[test]
fn commands_are_executed_on_the_loops_thread_one_per_call() {
    let host = Host::start(Discipline::OneAtATime);
    let mut client = host.client();
    client.send(r#"{"execute": "x-quick", "id": 1}{"execute": "x-quick", "id": 2}"#);
    // Out-of-band commands do not wait for the loop, and this one was sent last.
    client.send(QUICK);
    client.expect(QUICK_RETURNS);
    assert_eq!(host.executed_on.lock().unwrap().len(), 1);
    assert!(host.is_readable());

    assert!(host.qmp.dispatch_one(), "one more waits");
    assert!(host.is_readable(), "and a loop is told so again");
    client.expect(r#"{"return": "quick", "id": 1}"#);
    assert!(!host.qmp.dispatch_one());
    assert!(!host.is_readable());
    client.expect(r#"{"return": "quick", "id": 2}"#);
    assert!(!host.qmp.dispatch_one(), "nothing happens");

    let own = thread::current().id();
    let executed_on = host.executed_on.lock().unwrap().clone();
    assert_ne!(executed_on[0], own, "out-of-band");
    assert_eq!(executed_on[1..], [own, own]);
    host.end();
}

#[test]
fn the_loop_is_told_when_an_answer_that_comes_later_lets_the_next_command_go() {
    let host = Host::start(Discipline::OneAtATime);
    let mut waiting = host.client();
    let mut other = host.client();
    waiting.send(r#"{"execute": "x-later", "id": 1}"#);
    host.wait();
    assert!(!host.qmp.dispatch_one());
    other.send(r#"{"execute": "x-quick", "id": 2}"#);
    other.send(QUICK);
    other.expect(QUICK_RETURNS);
    assert!(!host.qmp.dispatch_one(), "one in-band command at a time");
    assert!(!host.is_readable(), "so there is nothing to do, though something waits");

    let responder = host.responders.recv().unwrap();
    thread::spawn(move || responder.respond(Ok::<_, Error>(()))).join().unwrap();
    waiting.expect(r#"{"return": {}, "id": 1}"#);
    host.wait();
    assert!(!host.qmp.dispatch_one());
    other.expect(r#"{"return": "quick", "id": 2}"#);
    host.end();
}

#[test]
fn with_one_command_per_monitor_others_go_on_meanwhile() {
    let host = Host::start(Discipline::OnePerMonitor);
    let mut waiting = host.client();
    let mut other = host.client();
    waiting.send(r#"{"execute": "x-later", "id": 1}{"execute": "x-quick", "id": 2}"#);
    waiting.send(QUICK);
    waiting.expect(QUICK_RETURNS);
    assert!(!host.qmp.dispatch_one());
    other.send(r#"{"execute": "x-quick", "id": 3}"#);
    host.wait();
    assert!(!host.qmp.dispatch_one());
    other.expect(r#"{"return": "quick", "id": 3}"#);
    host.responders.recv().unwrap().respond(Ok::<_, Error>(()));
    waiting.expect(r#"{"return": {}, "id": 1}"#);
    host.wait();
    assert!(!host.qmp.dispatch_one());
    waiting.expect(r#"{"return": "quick", "id": 2}"#);
    host.end();
}

#[test]
fn the_loop_is_told_of_the_end() {
    let host = Host::start(Discipline::OneAtATime);
    let mut client = host.client();
    let mut other = host.client();
    client.send(r#"{"execute": "x-end", "id": 1}{"execute": "x-quick", "id": 2}"#);
    client.send(QUICK);
    client.expect(QUICK_RETURNS);
    other.send(r#"{"execute": "x-quick", "id": 3}"#);
    other.send(QUICK);
    other.expect(QUICK_RETURNS);
    while !host.qmp.is_stopping() {
        host.wait();
        host.qmp.dispatch_one();
    }
    assert!(host.is_readable(), "for whoever has not looked yet");
    assert!(!host.qmp.dispatch_one(), "nothing is executed any more");
    assert!(host.is_readable());
    host.qmp.wait();
    client.expect(r#"{"return": {}, "id": 1}"#);
    client.expect_end();
    let error = r#"{"class": "GenericError", "desc": "The server is shutting down"}"#;
    other.expect(&format!(r#"{{"id": 3, "error": {error}}}"#));
    other.expect_end();
}

#[test]
fn whoever_negotiates_behind_a_command_that_blocks_the_loop_waits_a_moment() {
    let mut host = Host::start(Discipline::OneAtATime);
    let mut blocking = host.client();
    let mut coming = Client::connect(&host.endpoint);
    coming.receive();
    // Had its turn after the other one, and so comes behind it.
    coming.send(r#"{"execute": "x-quick"}"#);
    host.wait();
    assert!(!host.qmp.dispatch_one());
    coming.receive();
    blocking.send(r#"{"execute": "x-wait", "id": 1}"#);
    host.wait();
    coming.send(r#"{"execute": "qmp_capabilities"}"#);
    // It has been read when the request after it has been read.
    blocking.send(QUICK);
    blocking.expect(QUICK_RETURNS);
    let go_on = host.go_on.take().unwrap();
    let negotiated = thread::spawn(move || {
        coming.expect(r#"{"return": {}}"#);
        go_on.send(()).unwrap();
    });
    host.qmp.dispatch_one();
    negotiated.join().unwrap();
    blocking.expect(r#"{"return": {}, "id": 1}"#);
    host.end();
}
