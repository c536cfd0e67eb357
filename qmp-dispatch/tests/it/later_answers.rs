// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whenever and however commands are answered, a monitor's clients see the answers in the order of
//! their requests, one each.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::support::{Screen, connect};
use proptest::prelude::*;
use qmp_dispatch::proto::{Error, Reader, Value, Version, VersionTriple};
use qmp_dispatch::{Context, Dispatcher, Monitor, MonitorId, Registry, Responder, Time};

/// The commands, and what their answers say.
const COMMANDS: [(&str, &str); 6] = [
    ("x-at-once", "\"return\": 1"),
    ("x-panic", "internal error"),
    ("x-later", "\"return\": 2"),
    ("x-drop", "was not answered\""),
    ("x-late", "was not answered within 1 seconds"),
    ("x-unknown", "CommandNotFound"),
];

/// What waits for an answer, and on whose behalf.
type Held = Arc<Mutex<Vec<(MonitorId, &'static str, Responder<u64>)>>>;

struct Client {
    monitor: Arc<Monitor>,
    screen: Arc<Screen>,
    waiting: VecDeque<(usize, &'static str)>,
    idle: Arc<AtomicBool>,
}

impl Client {
    fn execute(&mut self, command: &str, id: usize) {
        let text = format!("{{'execute': '{command}', 'id': {id}}}");
        let mut reader = Reader::default();
        let pending = self.monitor.receive(reader.read(&mut text.as_bytes()).unwrap());
        assert!(self.idle.swap(false, Ordering::Relaxed));
        let idle = self.idle.clone();
        self.monitor.execute(pending, move || assert!(!idle.swap(true, Ordering::Relaxed)));
    }
}

fn registry(held: &Held) -> Registry {
    let mut registry = Registry::new();
    registry.command("x-at-once", |_: &Context| Ok::<u64, Error>(1)).unwrap();
    registry
        .command("x-panic", |_: &Context| -> Result<(), Error> { panic!("on purpose") })
        .unwrap();
    for name in ["x-later", "x-drop", "x-late"] {
        let held = held.clone();
        let hold = move |context: &Context, responder: Responder<u64>| {
            held.lock().unwrap().push((context.monitor().id(), name, responder));
        };
        let command = registry.deferred_command(name, hold).unwrap();
        if name == "x-late" {
            command.deadline(Duration::from_secs(1));
        }
    }
    registry
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn answers_keep_the_order_of_requests(
        requests in prop::collection::vec((0usize..2, 0usize..COMMANDS.len()), 0..24),
        turns in prop::collection::vec(0usize..2, 0..48),
    ) {
        let held = Held::default();
        let clock = Arc::new(AtomicU64::new(0));
        let seconds = clock.clone();
        let now = move || {
            let monotonic = Duration::from_secs(seconds.load(Ordering::Relaxed));
            Time { monotonic, ..Time::default() }
        };
        let qemu = VersionTriple { major: 0, minor: 1, micro: 0 };
        let version = Version { qemu, package: "test".into() };
        let dispatcher = Dispatcher::new(registry(&held), version, now);
        let mut clients: Vec<Client> = (0..2).map(|_| {
            let (monitor, screen) = connect(&dispatcher);
            let idle = Arc::new(AtomicBool::new(true));
            let mut client = Client { monitor, screen, waiting: VecDeque::new(), idle };
            client.execute("qmp_capabilities", 0);
            client.screen.text();
            client
        }).collect();
        let mut expected = [Vec::new(), Vec::new()];
        for (id, (client, command)) in requests.into_iter().enumerate() {
            let (name, says) = COMMANDS[command];
            clients[client].waiting.push_back((id, name));
            expected[client].push((id, says));
        }
        // Enough further turns for everything to end.
        for turn in turns.into_iter().chain((0..120).map(|turn| turn % 2)) {
            let client = &mut clients[turn];
            if client.idle.load(Ordering::Relaxed) {
                if let Some((id, name)) = client.waiting.pop_front() {
                    client.execute(name, id);
                }
                continue;
            }
            let mut all = held.lock().unwrap();
            let id = client.monitor.id();
            // The last one: an earlier one has passed its deadline.
            let at = all.iter().rposition(|(monitor, ..)| *monitor == id).unwrap();
            let (_, name, responder) = all.remove(at);
            drop(all);
            match name {
                "x-later" => responder.respond(Ok::<_, Error>(2)),
                "x-drop" => drop(responder),
                _ => {
                    clock.fetch_add(1, Ordering::Relaxed);
                    dispatcher.handle_timeout();
                    responder.respond(Ok::<_, Error>(3));
                }
            }
        }
        for (client, expected) in clients.iter().zip(expected) {
            let said = client.screen.text();
            let lines: Vec<&str> = said.lines().collect();
            prop_assert_eq!(lines.len(), expected.len());
            for (line, (id, says)) in lines.into_iter().zip(expected) {
                let mut reader = Reader::default();
                let message = reader.read(&mut line.as_bytes()).unwrap().unwrap();
                let answered = message.to_value().unwrap().get("id").and_then(Value::as_u64);
                prop_assert_eq!(answered, Some(id as u64));
                prop_assert!(line.contains(says), "{}", line);
            }
        }
    }
}
