// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a dispatcher and its monitors tell of what they have done.

use std::sync::Mutex;
use std::sync::mpsc::channel;
use std::time::Duration;

use qmp_dispatch::proto::{Error, ErrorClass, Event, Json, Version};
use qmp_dispatch::{
    Context, Dispatcher, EventType, Forwarded, LocalClient, Registry, Responder, Time,
};

fn fail(_: &Context) -> Result<(), Error> {
    Err(Error::new(ErrorClass::DeviceNotFound, "Device 'd' not found"))
}

#[test]
fn outcomes_are_counted_by_class() {
    let mut registry = Registry::new();
    registry.command("x-fail", fail).unwrap();
    let client = LocalClient::new(registry);
    let dispatcher = client.monitor().dispatcher();
    let before = dispatcher.stats();
    client.ask("{'execute': 'x-fail'} {'execute': 'x-fail'} {'execute': 'none'} {'execute': 1} ] ");
    let after = dispatcher.stats();
    assert_eq!(after.succeeded, before.succeeded);
    assert_eq!(after.failed_with(ErrorClass::DeviceNotFound), 2);
    assert_eq!(after.failed_with(ErrorClass::CommandNotFound), 1);
    assert_eq!(after.failed_with(ErrorClass::GenericError), 2);
    assert_eq!(after.failed_with(ErrorClass::KvmMissingCap), 0);
    assert_eq!(after.failed(), 5);
}

#[test]
fn events_are_counted_and_so_are_those_that_are_held_back() {
    const AT_ONCE: EventType<()> = EventType::new("X_AT_ONCE");
    const LIMITED: EventType<()> = EventType::new("X_LIMITED");
    let mut registry = Registry::new();
    registry.event(&AT_ONCE).unwrap();
    registry.event(&LIMITED).unwrap().at_most_every(Duration::from_secs(1));
    let dispatcher = Dispatcher::new(registry, Version::new(0, 0, 0, ""), Time::default);
    for _ in 0..3 {
        dispatcher.emit(&AT_ONCE, &()).unwrap();
        dispatcher.emit(&LIMITED, &()).unwrap();
    }
    dispatcher.relay(&Event::new("RELAYED", None, Default::default()));
    let stats = dispatcher.stats();
    assert_eq!((stats.events, stats.events_held_back), (7, 2));
}

#[test]
fn deadlines_are_counted_and_so_are_answers_behind_them() {
    let (kept, responders) = channel();
    let kept = Mutex::new(kept);
    let mut registry = Registry::new();
    let later = move |_: &Context, responder: Responder<()>| {
        kept.lock().unwrap().send(responder).unwrap();
    };
    registry.deferred_command("x-later", later).unwrap().deadline(Duration::ZERO);
    let dispatcher = Dispatcher::new(registry, Version::new(0, 0, 0, ""), Time::default);
    let client = LocalClient::connect(&dispatcher);
    std::thread::scope(|scope| {
        let asked = scope.spawn(|| client.ask("{'execute': 'x-later'}"));
        let responder = responders.recv().unwrap();
        while dispatcher.stats().deadlines_passed == 0 {
            dispatcher.handle_timeout();
        }
        assert!(asked.join().unwrap()[0].contains("was not answered within"));
        assert_eq!(dispatcher.stats().late_answers, 0);
        responder.respond(Ok::<_, Error>(()));
    });
    let stats = dispatcher.stats();
    assert_eq!((stats.deadlines_passed, stats.late_answers), (1, 1));
}

#[test]
fn a_monitor_tells_what_it_has_executed_last() {
    let mut registry = Registry::new();
    registry.command("x-oob", |_: &Context| Ok::<(), Error>(())).unwrap().allow_oob();
    let mut merged = Registry::new();
    merged.merge(registry).unwrap();
    let told = |context: &Context| Ok::<_, Error>(context.monitor().last_command().unwrap());
    merged.command("x-told", told).unwrap();
    let client = LocalClient::new(merged);
    let last = || client.monitor().last_command().unwrap();
    assert_eq!(last(), "qmp_capabilities");
    client.ask("{'execute': 'x-oob'}");
    assert_eq!(last(), "x-oob");
    assert_eq!(client.ask("{'execute': 'x-told'}"), [r#"{"return": "x-told"}"#]);
    client.ask("{'execute': 'unknown'}");
    assert_eq!(last(), "x-told");
}

#[test]
fn so_it_does_of_what_is_forwarded() {
    let registry =
        Registry::forwarding(|_: &Context, request: Forwarded, responder: Responder<Json>| {
            responder.respond_json(Err(Error::command_not_found(&request.command)));
        });
    let client = LocalClient::new(registry);
    for command in ["block_resize", "stop"] {
        client.ask(&format!("{{'execute': '{command}'}}"));
        assert_eq!(client.monitor().last_command().unwrap(), command);
    }
}
