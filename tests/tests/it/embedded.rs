// SPDX-License-Identifier: MIT OR Apache-2.0
//! The server as a library, with commands that block until the test unblocks them.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use qmp_dispatch::proto::{Error, Version, VersionTriple};
use qmp_dispatch::{Context, Dispatcher, EventType, Registry, Responder};
use qmp_server::{Control, Discipline, Server, ServerHandle, system_time};
use schemars::JsonSchema;
use serde::Serialize;
use tempfile::TempDir;
use tests::endpoint::Endpoint;
use tests::json::Json;
use tests::server::Client;

const NOISE: EventType<Noise> = EventType::new("NOISE");
/// Events with different values of `from` are limited separately.
const SELDOM: EventType<Noise> = EventType::new("SELDOM");

#[derive(Serialize, JsonSchema)]
struct Noise {
    from: usize,
    index: usize,
}

/// Connects `x-block` with the test: each run reports that it has begun, and waits.
struct Blocking {
    began: Sender<()>,
    go_on: Mutex<Receiver<()>>,
}

impl Blocking {
    fn x_block(&self, _: &Context) -> Result<(), Error> {
        self.began.send(()).map_err(|_| Error::generic("the test has ended"))?;
        let go_on = self.go_on.lock().unwrap();
        go_on.recv().map_err(|_| Error::generic("the test has ended"))
    }
}

/// Hands the responders of `x-later` to the test.
struct Later(Sender<Responder<String>>);

impl Later {
    fn x_later(&self, _: &Context, responder: Responder<String>) {
        // If the test has ended, the responder is dropped.
        let _ = self.0.send(responder);
    }
}

/// A running server, and the channels that control its commands.
struct Embedded {
    server: Option<ServerHandle>,
    dispatcher: Dispatcher,
    endpoint: Endpoint,
    began: Receiver<()>,
    go_on: Option<Sender<()>>,
    responders: Receiver<Responder<String>>,
    _dir: TempDir,
}

impl Embedded {
    fn start() -> Embedded {
        Embedded::start_with(Discipline::default())
    }

    fn start_with(discipline: Discipline) -> Embedded {
        let (tell_began, began) = channel();
        let (go_on, wait_for_go_on) = channel();
        let blocking = Blocking { began: tell_began, go_on: Mutex::new(wait_for_go_on) };

        let mut registry = Registry::new();
        registry.event(&NOISE).unwrap();
        registry
            .event(&SELDOM)
            .unwrap()
            .at_most_every(Duration::from_millis(50))
            .similar_by(|noise| noise.from.to_string());
        registry.with(Arc::new(blocking)).command("x-block", Blocking::x_block).unwrap();
        let (hand_over, responders) = channel();
        registry
            .with(Arc::new(Later(hand_over)))
            .deferred_command("x-later", Later::x_later)
            .unwrap();
        registry
            .command("x-quick", |_: &Context| Ok::<_, Error>("quick".to_owned()))
            .unwrap()
            .allow_oob();
        registry
            .command("x-end", |context: &Context| -> Result<(), Error> {
                context.monitor().local::<Control>().expect("a server").shutdown();
                Ok(())
            })
            .unwrap();
        let version = Version {
            qemu: VersionTriple { major: 0, minor: 0, micro: 1 },
            package: "test".into(),
        };
        let dispatcher = Dispatcher::new(registry, version, system_time);

        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("qmp.sock");
        let listen = format!("unix:{}", path.display()).parse().unwrap();
        let server = Server::new(dispatcher.clone()).discipline(discipline);
        let server = server.listen(&listen).unwrap().spawn().unwrap();
        Embedded {
            server: Some(server),
            dispatcher,
            endpoint: Endpoint::Unix(path),
            began,
            go_on: Some(go_on),
            responders,
            _dir: dir,
        }
    }

    fn client(&self, capabilities: &str) -> Client {
        let mut client = Client::connect(&self.endpoint);
        client.negotiate(&format!(r#"{{"enable": [{capabilities}]}}"#));
        client
    }

    fn wait_until_blocked(&self) {
        self.began.recv().unwrap();
    }

    fn unblock(&self) {
        self.go_on.as_ref().unwrap().send(()).unwrap();
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        // What still blocks fails now.
        drop(self.go_on.take());
        if let Some(server) = self.server.take() {
            server.control().shutdown();
            server.wait();
        }
    }
}

fn block(id: usize) -> String {
    format!(r#"{{"execute": "x-block", "id": {id}}}"#)
}

fn blocked_returns(id: usize) -> String {
    format!(r#"{{"return": {{}}, "id": {id}}}"#)
}

const QUICK: &str = r#"{"exec-oob": "x-quick", "id": "oob"}"#;
const QUICK_RETURNS: &str = r#"{"return": "quick", "id": "oob"}"#;

#[test]
fn out_of_band_commands_are_answered_while_an_in_band_command_blocks() {
    let embedded = Embedded::start();
    let mut blocked = embedded.client(r#""oob""#);
    let mut other = embedded.client(r#""oob""#);

    // In the same write, by the same client, and by another one.
    blocked.send(&format!("{}{QUICK}", block(1)));
    blocked.expect(QUICK_RETURNS);
    embedded.wait_until_blocked();
    blocked.send(QUICK);
    blocked.expect(QUICK_RETURNS);
    other.send(QUICK);
    other.expect(QUICK_RETURNS);

    embedded.unblock();
    blocked.expect(&blocked_returns(1));
}

#[test]
fn a_command_that_blocks_in_the_midst_of_many_holds_up_only_what_is_in_band() {
    let embedded = Embedded::start();
    let mut busy = embedded.client("");
    let mut other = embedded.client(r#""oob""#);
    for round in 1..=3 {
        // One after the other: one thread of the server answers all of them.
        for _ in 0..200 {
            busy.send(r#"{"execute": "x-quick"}"#);
            busy.expect(r#"{"return": "quick"}"#);
        }
        busy.send(&block(round));
        for _ in 0..200 {
            other.send(QUICK);
            other.expect(QUICK_RETURNS);
        }
        embedded.unblock();
        busy.expect(&blocked_returns(round));
    }
}

#[test]
fn in_band_commands_of_others_wait_for_the_one_that_blocks() {
    let embedded = Embedded::start();
    let mut blocked = embedded.client("");
    let mut other = embedded.client(r#""oob""#);
    blocked.send(&block(1));
    embedded.wait_until_blocked();
    other.send(&format!(r#"{{"execute": "x-quick", "id": "in"}}{QUICK}"#));
    other.expect(QUICK_RETURNS);
    embedded.unblock();
    blocked.expect(&blocked_returns(1));
    other.expect(r#"{"return": "quick", "id": "in"}"#);
}

/// QEMU's rule: behind `n` slow in-band commands, the reply to an out-of-band one comes first if `n` is at most
/// eight, and after `n - 8` in-band replies otherwise.
#[test]
fn an_out_of_band_command_waits_for_room_in_the_queue() {
    for slow in [1, 8, 9, 12] {
        let embedded = Embedded::start();
        let mut client = embedded.client(r#""oob""#);
        let commands: String = (0..slow).map(block).collect();
        client.send(&format!("{commands}{QUICK}"));
        let before = usize::saturating_sub(slow, 8);
        for id in 0..before {
            embedded.unblock();
            client.expect(&blocked_returns(id));
        }
        client.expect(QUICK_RETURNS);
        for id in before..slow {
            embedded.unblock();
            client.expect(&blocked_returns(id));
        }
    }
}

#[test]
fn without_oob_one_command_is_read_at_a_time() {
    let embedded = Embedded::start();
    let mut client = embedded.client("");
    client.send(&format!(r#"{}{{"exec-oob": "x-quick", "id": 2}}{}"#, block(1), block(3)));
    embedded.wait_until_blocked();
    assert!(embedded.began.try_recv().is_err(), "the second waits for the first");
    embedded.unblock();
    client.expect(&blocked_returns(1));
    assert_eq!(client.receive().get("id").map(ToString::to_string).as_deref(), Some("2"));
    embedded.wait_until_blocked();
    embedded.unblock();
    client.expect(&blocked_returns(3));
}

#[test]
fn a_busy_client_is_served_no_more_often_than_a_polite_one() {
    let embedded = Embedded::start();
    let mut gate = embedded.client("");
    let mut greedy = embedded.client(r#""oob""#);
    let mut polite = embedded.client(r#""oob""#);
    gate.send(&block(0));
    embedded.wait_until_blocked();
    // All of these wait behind the one that blocks: the answer to the last request shows that they have been read.
    greedy.send(&format!("{}{QUICK}", (1..=7).map(block).collect::<String>().as_str()));
    greedy.expect(QUICK_RETURNS);
    polite.send(&format!("{}{QUICK}", block(100)));
    polite.expect(QUICK_RETURNS);
    embedded.unblock();
    gate.expect(&blocked_returns(0));

    // Served least recently: the greedy one negotiated before the polite one.
    embedded.wait_until_blocked();
    embedded.unblock();
    greedy.expect(&blocked_returns(1));
    embedded.wait_until_blocked();
    embedded.unblock();
    polite.expect(&blocked_returns(100));
    for id in 2..=7 {
        embedded.wait_until_blocked();
        embedded.unblock();
        greedy.expect(&blocked_returns(id));
    }
}

#[test]
fn a_command_that_answers_later_blocks_other_in_band_commands_and_no_thread() {
    let embedded = Embedded::start();
    let mut client = embedded.client(r#""oob""#);
    let mut other = embedded.client("");
    client.send(r#"{"execute": "x-later", "id": 1}{"execute": "x-later", "id": 2}"#);
    let first = embedded.responders.recv().unwrap();
    other.send(r#"{"execute": "x-quick", "id": 3}"#);
    // More of them than the server has threads.
    for _ in 0..4 {
        client.send(QUICK);
        client.expect(QUICK_RETURNS);
    }
    assert!(embedded.responders.try_recv().is_err(), "one in-band command at a time");

    first.respond(Ok::<_, Error>("from the test's thread".to_owned()));
    client.expect(r#"{"return": "from the test's thread", "id": 1}"#);
    other.expect(r#"{"return": "quick", "id": 3}"#);
    let second = embedded.responders.recv().unwrap();
    drop(second);
    client.expect(
        r#"{"id": 2, "error": {"class": "GenericError", "desc": "The command x-later was not answered"}}"#,
    );
}

#[test]
fn with_one_command_per_monitor_an_answer_to_come_holds_up_its_own_monitor_only() {
    let embedded = Embedded::start_with(Discipline::OnePerMonitor);
    let mut waiting = embedded.client(r#""oob""#);
    let mut other = embedded.client("");
    waiting.send(
        r#"{"execute": "x-later", "id": 1}{"execute": "x-later", "id": 2}{"execute": "x-quick", "id": 3}"#,
    );
    let first = embedded.responders.recv().unwrap();
    for _ in 0..4 {
        assert_eq!(other.execute("x-quick").as_str(), Some("quick"));
        waiting.send(QUICK);
        waiting.expect(QUICK_RETURNS);
    }
    other.send(r#"{"execute": "x-later", "id": 4}"#);
    let others = embedded.responders.recv().unwrap();
    assert!(embedded.responders.try_recv().is_err(), "one in-band command of each monitor");

    others.respond(Ok::<_, Error>("sooner".to_owned()));
    other.expect(r#"{"return": "sooner", "id": 4}"#);
    first.respond(Ok::<_, Error>("later".to_owned()));
    waiting.expect(r#"{"return": "later", "id": 1}"#);
    let second = embedded.responders.recv().unwrap();
    second.respond(Ok::<_, Error>("last".to_owned()));
    waiting.expect(r#"{"return": "last", "id": 2}"#);
    waiting.expect(r#"{"return": "quick", "id": 3}"#);
}

#[test]
fn with_one_command_per_monitor_eight_wait_behind_the_one_that_is_executed() {
    let embedded = Embedded::start_with(Discipline::OnePerMonitor);
    let mut client = embedded.client(r#""oob""#);
    let commands: String =
        (0..10).map(|id| format!(r#"{{"execute": "x-later", "id": {id}}}"#)).collect();
    client.send(&format!("{commands}{QUICK}"));
    for id in 0..10 {
        let responder = embedded.responders.recv().unwrap();
        responder.respond(Ok::<_, Error>("done".to_owned()));
        client.expect(&format!(r#"{{"return": "done", "id": {id}}}"#));
        // Ten in-band commands, of which eight may wait.
        if id == 1 {
            client.expect(QUICK_RETURNS);
        }
    }
}

#[test]
fn with_one_command_per_monitor_the_end_of_the_server_waits_for_all_answers() {
    let mut embedded = Embedded::start_with(Discipline::OnePerMonitor);
    let mut clients = [embedded.client(""), embedded.client("")];
    let responders = clients.each_mut().map(|client| {
        client.send(r#"{"execute": "x-later", "id": 1}"#);
        embedded.responders.recv().unwrap()
    });
    let server = embedded.server.take().unwrap();
    server.control().shutdown();
    for responder in responders {
        responder.respond(Ok::<_, Error>("at last".to_owned()));
    }
    for client in &mut clients {
        client.expect(r#"{"return": "at last", "id": 1}"#);
        client.expect_end();
    }
    server.wait();
}

#[test]
fn an_answer_to_a_client_that_has_left_goes_nowhere() {
    let embedded = Embedded::start();
    let mut leaving = embedded.client("");
    let mut staying = embedded.client(r#""oob""#);
    leaving.send(r#"{"execute": "x-later"}"#);
    let responder = embedded.responders.recv().unwrap();
    drop(leaving);
    staying.send(QUICK);
    staying.expect(QUICK_RETURNS);
    responder.respond(Ok::<_, Error>("nobody hears this".to_owned()));
    assert_eq!(staying.execute("x-quick").as_str(), Some("quick"));
}

#[test]
fn a_client_that_leaves_while_its_command_runs_harms_nobody() {
    let embedded = Embedded::start();
    let mut leaving = embedded.client("");
    let mut staying = embedded.client("");
    leaving.send(&block(1));
    embedded.wait_until_blocked();
    drop(leaving);
    staying.send(&block(2));
    embedded.unblock();
    embedded.wait_until_blocked();
    embedded.unblock();
    staying.expect(&blocked_returns(2));
}

#[test]
fn an_event_that_was_held_back_is_sent_while_a_command_blocks() {
    let embedded = Embedded::start();
    let mut client = embedded.client("");
    let mut listener = embedded.client("");
    // Usually one thread is woken for the event and the command together, and none for the event alone.
    for id in 0..10 {
        for index in 0..2 {
            embedded.dispatcher.emit(&SELDOM, &Noise { from: id, index }).unwrap();
        }
        client.send(&block(id));
        embedded.wait_until_blocked();
        listener.expect_event("SELDOM");
        listener.expect_event("SELDOM");
        embedded.unblock();
        client.expect_event("SELDOM");
        client.expect_event("SELDOM");
        client.expect(&blocked_returns(id));
    }
}

#[test]
fn who_waits_behind_a_command_with_a_deadline_keeps_no_thread_busy() {
    let (tell_began, began) = channel();
    let (go_on, wait_for_go_on) = channel();
    let blocking = Blocking { began: tell_began, go_on: Mutex::new(wait_for_go_on) };
    let mut registry = Registry::new();
    registry
        .with(Arc::new(blocking))
        .command("x-block", Blocking::x_block)
        .unwrap()
        .deadline(Duration::from_secs(3600));
    let looks_at_the_clock = Arc::new(AtomicUsize::new(0));
    let looks = Arc::clone(&looks_at_the_clock);
    let clock = move || {
        looks.fetch_add(1, Ordering::Relaxed);
        system_time()
    };
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("qmp.sock");
    let listen = format!("unix:{}", path.display()).parse().unwrap();
    let server = Server::new(Dispatcher::new(registry, qmp_server::version(), clock));
    let server = server.listen(&listen).unwrap().spawn().unwrap();
    let mut clients = [(); 2].map(|()| Client::connect(&Endpoint::Unix(path.clone())));
    clients.iter_mut().for_each(|client| client.negotiate("{}"));
    clients[0].send(&block(0));
    began.recv().unwrap();
    clients[1].send(&block(1));
    // While it waits, no thread has anything to do. How long that lasts does not matter.
    clients[1].expect_silence(Duration::from_millis(100));
    let looks = looks_at_the_clock.load(Ordering::Relaxed);
    drop(go_on);
    server.control().shutdown();
    server.wait();
    assert!(looks < 100, "{looks} looks at the clock while all clients wait");
}

#[test]
fn the_end_of_the_server_waits_for_an_answer_that_comes_later() {
    let mut embedded = Embedded::start();
    let mut client = embedded.client("");
    client.send(r#"{"execute": "x-later", "id": 1}{"execute": "x-quick", "id": 2}"#);
    let responder = embedded.responders.recv().unwrap();
    let server = embedded.server.take().unwrap();
    server.control().shutdown();
    responder.respond(Ok::<_, Error>("at last".to_owned()));
    client.expect(r#"{"return": "at last", "id": 1}"#);
    client.expect_end();
    server.wait();
}

#[test]
fn the_end_of_the_server_refuses_what_is_queued() {
    let mut embedded = Embedded::start();
    let mut client = embedded.client("");
    let mut waiting = embedded.client(r#""oob""#);
    client.send(r#"{"execute": "x-later", "id": 1}"#);
    let responder = embedded.responders.recv().unwrap();
    // The answer to the last request shows that all of them have been read.
    let unheard = r#"{"execute": "x-quick", "id": 2}{"execute": "x-unknown", "id": 3}"#;
    waiting.send(&format!("{unheard}{QUICK}"));
    waiting.expect(QUICK_RETURNS);
    let server = embedded.server.take().unwrap();
    server.control().shutdown();
    responder.respond(Ok::<_, Error>("at last".to_owned()));
    client.expect(r#"{"return": "at last", "id": 1}"#);
    for id in [2, 3] {
        let error = r#"{"class": "GenericError", "desc": "The server is shutting down"}"#;
        waiting.expect(&format!(r#"{{"id": {id}, "error": {error}}}"#));
    }
    waiting.expect_end();
    server.wait();
}

#[test]
fn the_end_of_the_server_does_not_wait_for_an_answer_for_ever() {
    let mut registry = Registry::new();
    let (hand_over, responders) = channel();
    let later = Arc::new(Later(hand_over));
    registry.with(later).deferred_command("x-later", Later::x_later).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("qmp.sock");
    let listen = format!("unix:{}", path.display()).parse().unwrap();
    let server = Server::new(Dispatcher::new(registry, qmp_server::version(), system_time))
        .shutdown_deadline(Duration::from_millis(10))
        .listen(&listen)
        .unwrap()
        .spawn()
        .unwrap();
    let mut client = Client::connect(&Endpoint::Unix(path));
    client.negotiate("{}");
    client.send(r#"{"execute": "x-later", "id": 1}{"execute": "x-later", "id": 2}"#);
    let _kept = responders.recv().unwrap();
    server.control().shutdown();
    client.expect_end();
    server.wait();
}

#[test]
fn a_client_that_only_listens_gets_events_of_all_threads_in_one_order() {
    const THREADS: usize = 4;
    const EACH: usize = 50;
    let embedded = Embedded::start();
    let mut listeners = [embedded.client(""), embedded.client("")];
    thread::scope(|scope| {
        for from in 0..THREADS {
            let dispatcher = &embedded.dispatcher;
            scope.spawn(move || {
                for index in 0..EACH {
                    dispatcher.emit(&NOISE, &Noise { from, index }).unwrap();
                }
            });
        }
    });
    let heard = listeners.each_mut().map(|listener| {
        let data = |event: Json| event.get("data").unwrap().to_string();
        (0..THREADS * EACH).map(|_| data(listener.receive())).collect::<Vec<_>>()
    });
    assert_eq!(heard[0], heard[1]);
}

#[test]
fn a_client_that_does_not_read_holds_up_nobody_and_loses_no_response() {
    const COMMANDS: usize = 2000;
    let embedded = Embedded::start();
    let mut lazy = embedded.client("");
    let mut other = embedded.client("");
    let commands = r#"{"execute": "query-qmp-schema"}"#.repeat(COMMANDS);
    thread::scope(|scope| {
        let (lazy, commands) = (&mut lazy, &commands);
        let sending = scope.spawn(move || {
            lazy.send(commands);
            lazy
        });
        for _ in 0..100 {
            assert_eq!(other.execute("x-quick").as_str(), Some("quick"));
        }
        let lazy = sending.join().unwrap();
        for _ in 0..COMMANDS {
            assert!(lazy.receive().get("return").is_some());
        }
        assert_eq!(lazy.execute("x-quick").as_str(), Some("quick"));
    });
}

#[test]
fn the_end_of_the_server_answers_what_is_being_executed_and_nothing_else() {
    let mut embedded = Embedded::start();
    let mut client = embedded.client("");
    let mut idle = embedded.client("");
    client.send(r#"{"execute": "x-end", "id": 1}{"execute": "x-quick", "id": 2}"#);
    client.expect(r#"{"return": {}, "id": 1}"#);
    client.expect_end();
    idle.expect_end();
    embedded.server.take().unwrap().wait();
    let Endpoint::Unix(path) = &embedded.endpoint else { panic!("a Unix socket") };
    assert!(!path.exists(), "the socket is removed");
}
