// SPDX-License-Identifier: MIT OR Apache-2.0
//! Commands and events that come and go while the server runs.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Weak};
use std::thread;
use std::time::Duration;

use proptest::prelude::*;
use qmp_dispatch::proto::{Error, Reader};
use qmp_dispatch::qapi::{InputPolicy, Policy};
use qmp_dispatch::{
    Context, Dispatcher, EmitError, EventType, LocalClient, RegisterError, Registry, Responder,
    command_types,
};

const PLUGGED: EventType<()> = EventType::new("X_PLUGGED");

fn add(dispatcher: &Dispatcher, name: &'static str, result: u64) -> Result<usize, RegisterError> {
    dispatcher.update(|registry| {
        Ok(registry.infallible_command(name, move |_: &Context| result)?.index())
    })
}

fn remove(dispatcher: &Dispatcher, name: &str) -> bool {
    dispatcher.update(|registry| Ok::<_, RegisterError>(registry.remove_command(name))).unwrap()
}

fn names(client: &LocalClient, command: &str) -> String {
    client.ask(&format!("{{'execute': '{command}'}}")).remove(0)
}

#[test]
fn a_request_that_waits_when_its_command_is_removed_is_not_executed() {
    let client = LocalClient::new(Registry::new());
    let monitor = client.monitor();
    let dispatcher = monitor.dispatcher();
    add(dispatcher, "x-lamp", 7).unwrap();
    let mut reader = Reader::default();
    let waiting = monitor.receive(reader.read(&mut &b"{'execute': 'x-lamp'}"[..]).unwrap());
    assert!(remove(dispatcher, "x-lamp") && !remove(dispatcher, "x-lamp"));
    monitor.execute(waiting, || ());
    let error = r#"{"error": {"class": "CommandNotFound", "desc": "The command x-lamp has not been found"}}"#;
    assert_eq!(client.received(), [error]);
    assert!(!remove(dispatcher, "qmp_capabilities"));
}

#[test]
fn a_request_that_is_executed_keeps_its_command() {
    command_types! { Later = "x-later"() -> u64; }
    struct State;
    let (hand_over, responders) = channel();
    let mut registry = Registry::new();
    let state = Arc::new(State);
    let weak: Weak<State> = Arc::downgrade(&state);
    registry
        .serve_deferred::<Later>(move |_: &Context, (), responder: Responder<u64>| {
            let _ = &state;
            hand_over.send(responder).unwrap();
        })
        .unwrap()
        .no_success_response();
    let client = LocalClient::new(registry);
    client.send("{'execute': 'x-later'}");
    assert!(remove(client.monitor().dispatcher(), "x-later"));
    assert!(weak.upgrade().is_some(), "it is still needed");
    assert_eq!(client.monitor().last_command().as_deref(), Some("x-later"));
    responders.recv().unwrap().respond(Ok::<_, Error>(7));
    assert!(client.received().is_empty(), "it has no success response");
    assert!(weak.upgrade().is_none(), "what the handler holds is dropped with it");
}

#[test]
fn a_handler_may_remove_its_own_command() {
    let client = LocalClient::new(Registry::new());
    let once = |context: &Context| remove(context.dispatcher(), "x-once");
    let dispatcher = client.monitor().dispatcher();
    dispatcher.update(|registry| registry.infallible_command("x-once", once).map(drop)).unwrap();
    assert_eq!(names(&client, "x-once"), r#"{"return": true}"#);
    assert!(names(&client, "x-once").contains("CommandNotFound"));
}

#[test]
fn arguments_that_were_checked_for_another_command_are_checked_again() {
    command_types! {
        Before = "x-set" { level: i64 };
        After = "x-set" { level: String } -> String;
    }
    let mut registry = Registry::new();
    registry.serve::<Before>(|_: &Context, _: Before| ()).unwrap();
    let client = LocalClient::new(registry);
    let (monitor, dispatcher) = (client.monitor(), client.monitor().dispatcher());
    let text = b"{'execute': 'x-set', 'arguments': {'level': 7}}";
    let mut waiting = monitor.receive(Reader::default().read(&mut &text[..]).unwrap());
    monitor.check_arguments(&mut waiting);
    dispatcher
        .update(|registry| {
            registry.remove_command("x-set");
            registry.serve::<After>(|_: &Context, new: After| new.level).map(drop)
        })
        .unwrap();
    monitor.execute(waiting, || ());
    assert!(client.received()[0].contains("Invalid parameter type for 'level', expected: string"));
}

#[test]
fn arguments_that_were_checked_under_another_policy_are_checked_again() {
    command_types! {
        Eject = "x-eject" {
            #[deprecated]
            device: Option<String>,
        };
    }
    let mut registry = Registry::new();
    registry.serve::<Eject>(|_: &Context, _: Eject| ()).unwrap();
    let client = LocalClient::new(registry);
    let (monitor, dispatcher) = (client.monitor(), client.monitor().dispatcher());
    let text = b"{'execute': 'x-eject', 'arguments': {'device': 'd'}}";
    let mut waiting = monitor.receive(Reader::default().read(&mut &text[..]).unwrap());
    monitor.check_arguments(&mut waiting);
    let policy = Policy { deprecated_input: InputPolicy::Reject, ..Policy::default() };
    dispatcher
        .update(|registry| {
            registry.set_policy(policy);
            Ok::<_, RegisterError>(())
        })
        .unwrap();
    monitor.execute(waiting, || ());
    assert!(client.received()[0].contains("Deprecated parameter device disabled by policy"));
}

#[test]
fn introspection_follows_and_a_change_that_fails_changes_nothing() {
    let client = LocalClient::new(Registry::new());
    let dispatcher = client.monitor().dispatcher();
    let before = (names(&client, "query-commands"), names(&client, "query-qmp-schema"));
    let failed = dispatcher.update(|registry| {
        registry.infallible_command("x-lamp", |_: &Context| 7)?;
        registry.event(&PLUGGED)?;
        registry.infallible_command("x-lamp", |_: &Context| 8).map(drop)
    });
    assert_eq!(failed, Err(RegisterError::Duplicate("x-lamp".into())));
    let now = || (names(&client, "query-commands"), names(&client, "query-qmp-schema"));
    assert_eq!(now(), before);
    let first = add(dispatcher, "x-lamp", 7).unwrap();
    assert!(now().0.contains("x-lamp") && now().1.contains("x-lamp"));
    assert!(remove(dispatcher, "x-lamp"));
    assert_eq!(now(), before);
    assert!(add(dispatcher, "x-lamp", 8).unwrap() > first, "an index is used once");
}

#[test]
fn events_come_and_go_and_a_removed_one_is_not_held_back() {
    let client = LocalClient::new(Registry::new());
    let dispatcher = client.monitor().dispatcher();
    assert_eq!(dispatcher.emit(&PLUGGED, &()), Err(EmitError::Undeclared("X_PLUGGED".into())));
    let declare = |registry: &mut Registry| {
        registry.event(&EventType::<()>::new("X_FIRST"))?;
        registry.event(&PLUGGED)?.at_most_every(Duration::from_secs(1));
        registry.event(&EventType::<()>::new("X_LAST")).map(drop)
    };
    dispatcher.update(declare).unwrap();
    dispatcher.emit(&PLUGGED, &()).unwrap();
    dispatcher.emit(&PLUGGED, &()).unwrap();
    assert_eq!(client.events().len(), 1);
    let removed =
        dispatcher.update(|registry| Ok::<_, RegisterError>(registry.remove_event("X_PLUGGED")));
    assert_eq!(removed, Ok(true));
    client.advance(Duration::from_secs(2));
    assert!(client.received().is_empty());
    assert!(dispatcher.registry().find_event("X_PLUGGED").is_none());
    dispatcher.emit(&EventType::<()>::new("X_LAST"), &()).unwrap();
    assert_eq!(client.events()[0].name, "X_LAST");
}

#[test]
fn no_update_of_several_threads_is_lost() {
    let client = LocalClient::new(Registry::new());
    let dispatcher = client.monitor().dispatcher();
    let failed = AtomicUsize::new(0);
    thread::scope(|scope| {
        for bay in 0..4 {
            let failed = &failed;
            scope.spawn(move || {
                for slot in 0..25 {
                    let name = format!("x-bay-{bay}-{slot}");
                    let added = dispatcher.update(|registry| {
                        registry.infallible_command(name, move |_: &Context| slot).map(drop)
                    });
                    failed.fetch_add(usize::from(added.is_err()), Ordering::Relaxed);
                }
            });
        }
        for _ in 0..50 {
            names(&client, "query-version");
        }
    });
    assert_eq!(failed.into_inner(), 0);
    let added = |name: &str| dispatcher.registry().find_command(name).is_some();
    assert!((0..4).all(|bay| (0..25).all(|slot| added(&format!("x-bay-{bay}-{slot}")))));
}

proptest! {
    #[test]
    fn any_sequence_of_changes_is_like_a_set(changes in prop::collection::vec((0..5_usize, any::<bool>()), 0..40)) {
        const NAMES: [&str; 5] = ["x-a", "x-b", "x-c", "x-d", "x-e"];
        let client = LocalClient::new(Registry::new());
        let dispatcher = client.monitor().dispatcher();
        let mut model = BTreeSet::new();
        let mut last = dispatcher.registry().command_slots();
        for (number, is_added) in changes {
            let name = NAMES[number];
            if is_added {
                let added = add(dispatcher, name, number as u64);
                prop_assert_eq!(added.is_ok(), model.insert(number));
                if let Ok(index) = added {
                    prop_assert_eq!(index, last);
                    last += 1;
                }
            } else {
                prop_assert_eq!(remove(dispatcher, name), model.remove(&number));
            }
            for (number, name) in NAMES.iter().enumerate() {
                let said = names(&client, name);
                match model.contains(&number) {
                    true => prop_assert_eq!(said, format!("{{\"return\": {number}}}")),
                    false => prop_assert!(said.contains("CommandNotFound")),
                }
            }
        }
    }
}
