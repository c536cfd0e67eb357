// SPDX-License-Identifier: MIT OR Apache-2.0
//! Responses that are written together.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use qmp_dispatch::proto::{Error, Layout};
use qmp_dispatch::schemars::JsonSchema;
use qmp_dispatch::{Context, Dispatcher, EventType, Registry, Responder};
use qmp_server::{
    Discipline, Engine, Peer, Received, Server, ServerHandle, Transport, system_time, version,
};
use serde::Serialize;
use tests::json::Json;

#[derive(JsonSchema, Serialize)]
struct Turn {
    turn: u64,
}

const TURN: EventType<Turn> = EventType::new("X_TURN");

/// What was written, to which client, in the order of the writes.
type Log = Arc<Mutex<Vec<(usize, Vec<u8>)>>>;

/// A transport that records its writes.
struct Logged {
    socket: UnixStream,
    number: usize,
    log: Log,
}

impl AsFd for Logged {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Transport for Logged {
    fn peer(&self) -> io::Result<Peer> {
        Ok(Peer::Starter)
    }

    fn receive(&self, buffer: &mut [u8], descriptors: &mut Vec<OwnedFd>) -> io::Result<Received> {
        self.socket.receive(buffer, descriptors)
    }

    fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        // Recorded before it is sent: the client may go on as soon as it has received it.
        let mut log = self.log.lock().unwrap();
        log.push((self.number, bytes.to_vec()));
        let sent = Transport::send(&self.socket, bytes)?;
        assert_eq!(sent, bytes.len(), "it is little enough to be sent at once");
        Ok(sent)
    }

    fn shutdown(&self) {
        Transport::shutdown(&self.socket);
    }
}

/// A server whose commands number themselves in the order in which they are executed.
struct Site {
    server: ServerHandle,
    log: Log,
    /// The number of the next commands that report that they run, and wait for the test.
    blocks_in: Arc<AtomicI64>,
    began: Receiver<()>,
    go_on: Sender<()>,
}

impl Site {
    fn new() -> Site {
        let turns = Arc::new(AtomicU64::new(0));
        let blocks_in = Arc::new(AtomicI64::new(0));
        let ((tell, began), (go_on, word)) = (channel(), channel());
        let mut registry = Registry::new();
        registry.event(&TURN).unwrap();
        let (next, countdown, word) =
            (Arc::clone(&turns), Arc::clone(&blocks_in), Mutex::new(word));
        let turn = Arc::new(move || {
            if countdown.fetch_sub(1, Ordering::SeqCst) == 1 {
                tell.send(()).unwrap();
                word.lock().unwrap().recv().unwrap();
            }
            next.fetch_add(1, Ordering::SeqCst)
        });
        for name in ["x-turn", "x-new"] {
            let turn = Arc::clone(&turn);
            registry.command(name, move |_: &Context| Ok::<_, Error>(turn())).unwrap();
        }
        let emit = move |context: &Context| {
            let turn = turns.fetch_add(1, Ordering::SeqCst);
            let dispatcher = context.monitor().dispatcher();
            dispatcher.emit(&TURN, &Turn { turn }).unwrap();
            Ok::<_, Error>(turn)
        };
        registry.command("x-emit", emit).unwrap();
        let dispatcher = Dispatcher::new(registry, version(), system_time);
        let engine = Engine::new().unwrap();
        let server = Server::new(dispatcher).stay().spawn_on(&engine).unwrap();
        Site { server, log: Log::default(), blocks_in, began, go_on }
    }

    /// A client that has negotiated, with out-of-band execution or without.
    fn client(&self, number: usize, oob: bool) -> UnixStream {
        let (near, far) = UnixStream::pair().unwrap();
        let transport = Logged { socket: near, number, log: Arc::clone(&self.log) };
        self.server.control().serve(Box::new(transport), Layout::Compact).unwrap();
        let enable = if oob { "'oob'" } else { "" };
        let negotiation =
            format!("{{'execute': 'qmp_capabilities', 'arguments': {{'enable': [{enable}]}}}}");
        (&far).write_all(negotiation.as_bytes()).unwrap();
        lines(&far, 2);
        far
    }

    fn writes(&self) -> Vec<(usize, Vec<u8>)> {
        std::mem::take(&mut *self.log.lock().unwrap())
    }

    fn end(self) {
        self.server.control().shutdown();
        self.server.wait();
    }
}

fn lines(mut client: &UnixStream, mut count: usize) {
    let mut bytes = [0; 4096];
    while count > 0 {
        let received = client.read(&mut bytes).unwrap();
        assert_ne!(received, 0, "the connection has ended");
        count -= bytes[..received].iter().filter(|&&byte| byte == b'\n').count();
    }
}

fn ask(mut client: &UnixStream, command: &str, times: usize) {
    client.write_all(format!("{{'execute': '{command}'}}").repeat(times).as_bytes()).unwrap();
}

/// Repeats requests in one write until their answers come in this many writes. This may take several tries, because a
/// command that the scheduler interrupts is no longer known to be quick. Fails after very many tries.
fn until_corked(site: &Site, client: &UnixStream, requests: usize, writes: usize) {
    let few = (0..10_000).any(|_| {
        site.writes();
        ask(client, "x-turn", requests);
        lines(client, requests);
        site.writes().len() <= writes
    });
    assert!(few, "{requests} requests were never answered in {writes} writes");
}

#[test]
fn what_came_in_one_write_is_answered_in_one() {
    let site = Site::new();
    for oob in [false, true] {
        until_corked(&site, &site.client(0, oob), 8, 1);
    }
    site.end();
}

#[test]
fn a_long_pipeline_is_answered_in_few_writes() {
    let site = Site::new();
    until_corked(&site, &site.client(0, false), 64, 8);
    site.end();
}

#[test]
fn a_client_that_sends_all_and_closes_its_half_gets_all() {
    let site = Site::new();
    until_corked(&site, &site.client(0, false), 8, 1);
    for _ in 0..100 {
        let client = site.client(0, false);
        ask(&client, "x-turn", 8);
        client.shutdown(std::net::Shutdown::Write).unwrap();
        let mut rest = String::new();
        (&client).read_to_string(&mut rest).unwrap();
        assert_eq!(rest.lines().count(), 8);
    }
    site.end();
}

#[test]
fn what_is_known_to_be_quick_and_blocks_once_keeps_nothing_back() {
    let site = Site::new();
    let client = site.client(0, false);
    until_corked(&site, &client, 8, 1);
    site.blocks_in.store(4, Ordering::SeqCst);
    ask(&client, "x-turn", 4);
    site.began.recv().unwrap();
    // The follower that becomes the leader writes them.
    lines(&client, 3);
    site.go_on.send(()).unwrap();
    lines(&client, 1);
    site.end();
}

/// What a command answers late is written even if somebody has stepped in for it, and has nothing to do.
#[test]
fn an_answer_to_another_request_does_not_wait_for_a_command_that_blocks() {
    let (tell, began) = channel();
    let (go_on, word) = channel::<()>();
    let blocks = Arc::new(AtomicBool::new(false));
    let (later, waiting) = channel::<Responder<()>>();
    let mut registry = Registry::new();
    registry
        .deferred_command("x-later", move |_: &Context, responder| later.send(responder).unwrap())
        .unwrap();
    let (blocking, word, waiting) = (Arc::clone(&blocks), Mutex::new(word), Mutex::new(waiting));
    let turn = move |_: &Context| {
        if blocking.load(Ordering::SeqCst) {
            tell.send(()).unwrap();
            word.lock().unwrap().recv().unwrap();
            waiting.lock().unwrap().recv().unwrap().respond(Ok::<_, Error>(()));
            word.lock().unwrap().recv().unwrap();
        }
        Ok::<_, Error>(0_u64)
    };
    registry.command("x-turn", turn).unwrap();
    registry.command("x-urgent", |_: &Context| Ok::<_, Error>(0_u64)).unwrap().allow_oob();
    let dispatcher = Dispatcher::new(registry, version(), system_time);
    let engine = Engine::new().unwrap();
    let server = Server::new(dispatcher)
        .stay()
        .discipline(Discipline::OnePerMonitor)
        .spawn_on(&engine)
        .unwrap();
    let (log, blocks_in) = (Log::default(), Arc::default());
    let site = Site { server, log, blocks_in, began, go_on };
    let [waits, blocked, urgent] = [0, 1, 2].map(|number| site.client(number, number > 0));
    until_corked(&site, &blocked, 8, 1);
    ask(&waits, "x-later", 1);
    blocks.store(true, Ordering::SeqCst);
    // Two, so that the first one is among others.
    ask(&blocked, "x-turn", 2);
    site.began.recv().unwrap();
    blocks.store(false, Ordering::SeqCst);
    (&urgent).write_all(b"{'exec-oob': 'x-urgent'}").unwrap();
    // Somebody has stepped in.
    lines(&urgent, 1);
    site.go_on.send(()).unwrap();
    lines(&waits, 1);
    site.go_on.send(()).unwrap();
    lines(&blocked, 2);
    site.end();
}

#[test]
fn nothing_waits_for_a_command_that_is_not_known_to_be_quick() {
    let site = Site::new();
    let client = site.client(0, false);
    until_corked(&site, &client, 8, 1);
    site.writes();
    site.blocks_in.store(4, Ordering::SeqCst);
    (&client)
        .write_all(
            b"{'execute': 'x-turn'}{'execute': 'x-turn'}{'execute': 'x-turn'}{'execute': 'x-new'}",
        )
        .unwrap();
    site.began.recv().unwrap();
    let written: Vec<u8> = site.writes().into_iter().flat_map(|(_, bytes)| bytes).collect();
    assert_eq!(String::from_utf8(written).unwrap().lines().count(), 3, "before it began");
    site.go_on.send(()).unwrap();
    lines(&client, 4);
    site.end();
}

/// The output of all clients is written in the order in which it was made: responses in the order of execution, and an event
/// before the response to its command and before all later responses.
#[test]
fn nothing_overtakes_anything_of_another_client() {
    let site = Site::new();
    let clients = [0, 1, 2].map(|number| site.client(number, number == 1));
    until_corked(&site, &clients[0], 8, 1);
    site.writes();
    const ROUNDS: usize = 200;
    std::thread::scope(|scope| {
        for (number, client) in clients.iter().enumerate() {
            scope.spawn(move || {
                for round in 0..ROUNDS {
                    let command = if (round + number) % 5 == 0 { "x-emit" } else { "x-turn" };
                    ask(client, command, 4);
                }
            });
            scope.spawn(move || {
                let emitted = 3 * ROUNDS * 4 / 5;
                lines(client, ROUNDS * 4 + emitted);
            });
        }
    });
    let mut last_response = None;
    let mut last_event = None;
    for (_, bytes) in site.writes() {
        for line in String::from_utf8(bytes).unwrap().lines() {
            let message = Json::parse(line).unwrap();
            let turn = |value: Option<&Json>| value.and_then(Json::as_i64).unwrap();
            match message.get("event") {
                Some(_) => {
                    let turn = turn(message.get("data").and_then(|data| data.get("turn")));
                    assert!(last_response < Some(turn), "an event after its response");
                    assert!(last_event <= Some(turn));
                    last_event = Some(turn);
                }
                None => {
                    let turn = turn(message.get("return"));
                    assert!(last_response < Some(turn), "a response before an earlier one");
                    assert!(last_event <= Some(turn), "a response before an earlier event");
                    last_response = Some(turn);
                }
            }
        }
    }
    site.end();
}
