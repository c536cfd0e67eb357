// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is not registered is handed on, and what comes back reaches who asked.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::support::{Screen, feed};
use qmp_dispatch::proto::{Band, Error, Event, Greeting, Json, Reader, Timestamp, Version};
use qmp_dispatch::{Context, Dispatcher, Forwarded, Monitor, Registry, Responder, Time};

type Held = Arc<Mutex<Vec<(Forwarded, Band, Responder<Json>)>>>;

struct Proxy {
    dispatcher: Dispatcher,
    held: Held,
    clock: Arc<AtomicU64>,
}

fn version() -> Version {
    Version::new(0, 1, 0, "test")
}

fn proxy(set_up: impl FnOnce(&mut Registry)) -> Proxy {
    let held = Held::default();
    let hold = held.clone();
    let mut registry = Registry::forwarding(
        move |context: &Context, request: Forwarded, responder: Responder<Json>| {
            hold.lock().unwrap().push((request, context.band(), responder));
        },
    );
    set_up(&mut registry);
    let clock = Arc::new(AtomicU64::new(0));
    let seconds = clock.clone();
    let now = move || Time {
        monotonic: Duration::from_secs(seconds.load(Ordering::Relaxed)),
        ..Time::default()
    };
    Proxy { dispatcher: Dispatcher::new(registry, version(), now), held, clock }
}

impl Proxy {
    fn connect(&self) -> (Arc<Monitor>, Arc<Screen>) {
        crate::support::connect(&self.dispatcher)
    }

    fn negotiated(&self, arguments: &str) -> (Arc<Monitor>, Arc<Screen>) {
        let (monitor, screen) = self.connect();
        feed(&monitor, &format!("{{'execute': 'qmp_capabilities', 'arguments': {arguments}}}"));
        assert!(screen.text().ends_with("{\"return\": {}}\r\n"));
        (monitor, screen)
    }

    fn take(&self) -> (Forwarded, Band, Responder<Json>) {
        self.held.lock().unwrap().remove(0)
    }
}

#[test]
fn arguments_go_as_they_came_and_answers_come_as_they_are() {
    let proxy = proxy(|_| ());
    let (monitor, screen) = proxy.negotiated("{}");
    feed(&monitor, r#"{"execute": "x", "arguments": {"b":1e0, "a":[]}, "id": [1, null]}"#);
    let (request, band, responder) = proxy.take();
    assert_eq!(request.command, "x");
    assert_eq!(request.text.unwrap().as_str(), r#"{"b":1e0, "a":[]}"#);
    assert_eq!(request.arguments.get("a").map(ToString::to_string).as_deref(), Some("[]"));
    assert_eq!(band, Band::InBand);
    responder.respond_json(Json::encode(&7).map_err(|_| unreachable!()));
    assert_eq!(screen.text(), "{\"return\": 7, \"id\": [1, null]}\r\n");

    feed(&monitor, "{'execute': 'y'}");
    let (request, _, responder) = proxy.take();
    assert_eq!(request.text, None);
    responder.respond_json(Err(Error::command_not_found("y")));
    assert!(screen.text().contains("The command y has not been found"));
}

#[test]
fn nothing_is_forwarded_before_negotiation() {
    let proxy = proxy(|_| ());
    let (monitor, screen) = proxy.connect();
    feed(&monitor, "{'execute': 'query-version'}");
    assert!(screen.text().contains("Expecting capabilities negotiation"));
    assert!(proxy.held.lock().unwrap().is_empty());
}

#[test]
fn out_of_band_requests_say_so() {
    let proxy = proxy(|_| ());
    let (monitor, _) = proxy.negotiated("{'enable': ['oob']}");
    feed(&monitor, "{'exec-oob': 'yank'}");
    assert_eq!(proxy.take().1, Band::OutOfBand);
}

#[test]
fn own_commands_are_served_here() {
    let proxy = proxy(|registry| {
        registry.command("__com.example_own", |_: &Context| Ok::<_, Error>(1)).unwrap();
    });
    let (monitor, screen) = proxy.negotiated("{}");
    feed(&monitor, "{'execute': '__com.example_own'}");
    assert_eq!(screen.text(), "{\"return\": 1}\r\n");
}

#[test]
fn deadlines_are_found_by_name_and_by_default() {
    let proxy = proxy(|registry| {
        registry.set_deadline("slow", Duration::from_secs(9));
        registry.set_default_deadline(Duration::from_secs(1));
    });
    let (monitor, screen) = proxy.negotiated("{}");
    for command in ["quick", "slow"] {
        feed(&monitor, &format!("{{'execute': '{command}', 'id': 1}}"));
        assert!(proxy.held.lock().unwrap()[0].2.is_awaited());
    }
    for (seconds, command) in [(1, "quick"), (9, "slow")] {
        proxy.clock.store(seconds, Ordering::Relaxed);
        proxy.dispatcher.handle_timeout();
        let expected = format!("The command {command} was not answered within {seconds} seconds");
        let said = screen.text();
        assert!(said.contains(&expected), "{said}");
        assert_eq!(said.lines().count(), 1);
        let (_, _, responder) = proxy.take();
        assert!(!responder.is_awaited());
        responder.respond_json(Ok(Json::EMPTY_OBJECT));
    }
    assert_eq!(screen.text(), "", "late answers are dropped");
}

#[test]
fn a_request_that_is_abandoned_is_done_without_an_answer() {
    let proxy = proxy(|_| ());
    let (monitor, screen) = proxy.negotiated("{}");
    let done = Arc::new(AtomicU64::new(0));
    let mut reader = Reader::default();
    let pending = monitor.receive(reader.read(&mut &b"{'execute': 'x'}"[..]).unwrap());
    let count = done.clone();
    monitor.execute(pending, move || {
        count.fetch_add(1, Ordering::Relaxed);
    });
    proxy.take().2.abandon();
    assert_eq!(done.load(Ordering::Relaxed), 1);
    assert_eq!(screen.text(), "");
}

#[test]
fn clients_are_greeted_as_was_last_set() {
    let proxy = proxy(|_| ());
    assert!(proxy.connect().1.text().contains("\"capabilities\": [\"oob\"]"));
    let mut greeting = Greeting::new(version(), Vec::new());
    greeting.version.qemu.major = 10;
    proxy.dispatcher.set_greeting(greeting);
    let (monitor, screen) = proxy.connect();
    let greeting = screen.text();
    assert!(greeting.contains("\"major\": 10"), "{greeting}");
    assert!(greeting.contains("\"capabilities\": []"), "{greeting}");
    feed(&monitor, "{'execute': 'qmp_capabilities', 'arguments': {'enable': ['oob']}}");
    assert!(screen.text().contains("Capability oob not available"));
    assert!(!monitor.is_negotiated());
}

#[test]
fn events_are_relayed_as_they_are_to_who_has_negotiated() {
    let proxy = proxy(|_| ());
    let (_first, first) = proxy.negotiated("{}");
    let (_second, second) = proxy.connect();
    second.text();
    let event = Event::new("STOP", None, Timestamp { seconds: 1, microseconds: 2 });
    proxy.dispatcher.relay(&event);
    proxy.dispatcher.relay(&event);
    let line = "{\"timestamp\": {\"seconds\": 1, \"microseconds\": 2}, \"event\": \"STOP\"}\r\n";
    assert_eq!(first.text(), line.repeat(2));
    assert_eq!(second.text(), "");
}

#[test]
fn each_monitor_gets_its_own_locals() {
    struct Number(u64);
    let count = AtomicU64::new(0);
    let proxy = proxy(|registry| {
        registry
            .each_monitor(move |locals| locals.with(Number(count.fetch_add(1, Ordering::Relaxed))));
        registry.each_monitor(|locals| {
            let number = locals.get::<Number>().unwrap().0;
            locals.with(number + 10)
        });
    });
    for number in 0..2 {
        let (monitor, _) = proxy.connect();
        assert_eq!(monitor.local::<Number>().unwrap().0, number);
        assert_eq!(monitor.local::<u64>(), Some(&(number + 10)));
    }
}

#[test]
fn of_a_name_without_end_only_the_beginning_is_kept() {
    let proxy = proxy(|_| ());
    let (monitor, _) = proxy.negotiated("{}");
    feed(&monitor, &format!("{{'execute': '{}'}}", "é".repeat(100_000)));
    assert_eq!(monitor.last_command(), Some("é".repeat(256)));
}
