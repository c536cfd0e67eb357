// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a monitor promises, on a screen instead of a socket.

use std::cell::{Cell, RefCell};
use std::io;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use crate::support::{Screen, connect, feed, negotiated};
use proptest::prelude::*;
use qmp_dispatch::proto::{
    BoxError, Error, ErrorClass, Json, Layout, Reader, Timestamp, Value, Version, VersionTriple,
};
use qmp_dispatch::qapi::{InputPolicy, OutputPolicy, Policy};
use qmp_dispatch::{
    Call, Context, Dispatcher, EmitError, EventType, Interceptor, Locals, Monitor, MonitorId,
    Output, Registry, Responder, Time, current,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tracing_subscriber::layer::{self, Layer, SubscriberExt};

const HAPPENED: EventType<Happened> = EventType::new("HAPPENED");
const OLD: EventType<()> = EventType::new("OLD");
const NEW: EventType<()> = EventType::new("NEW");
const UNDECLARED: EventType<()> = EventType::new("UNDECLARED");

#[derive(Serialize, JsonSchema)]
struct Happened {
    what: &'static str,
}

fn dispatcher(register: impl FnOnce(&mut Registry)) -> Dispatcher {
    let mut registry = Registry::new();
    registry.event(&HAPPENED).unwrap();
    register(&mut registry);
    let version = Version::new(1, 2, 3, "test");
    let wall = Timestamp { seconds: 1, microseconds: 2 };
    Dispatcher::new(registry, version, move || Time { wall, monotonic: Duration::ZERO })
}

#[track_caller]
fn check(screen: &Screen, expected: &[&str]) {
    assert_eq!(screen.take(), expected);
}

const NOTHING: fn(&Context) -> Result<(), Error> = |_| Ok(());

#[test]
fn only_negotiation_is_possible_before_negotiation() {
    let dispatcher = dispatcher(|_| {});
    let (monitor, screen) = connect(&dispatcher);
    check(
        &screen,
        &[
            r#"{"QMP": {"version": {"qemu": {"micro": 3, "minor": 2, "major": 1}, "package": "test"}, "capabilities": ["oob"]}}"#,
        ],
    );
    feed(&monitor, "{'execute': 'query-version', 'id': 1}");
    check(
        &screen,
        &[
            r#"{"id": 1, "error": {"class": "CommandNotFound", "desc": "Expecting capabilities negotiation with 'qmp_capabilities'"}}"#,
        ],
    );
    feed(&monitor, "{'execute': 'qmp_capabilities', 'arguments': {'enable': ['no']}}");
    assert!(!monitor.is_negotiated(), "a failure leaves the monitor as it was");
    screen.take();
    feed(&monitor, "{'execute': 'qmp_capabilities', 'arguments': {'enable': ['oob']}}");
    check(&screen, &[r#"{"return": {}}"#]);
    assert!(monitor.is_negotiated() && monitor.is_oob_enabled());
}

#[test]
fn events_go_to_those_who_have_completed_negotiation_and_precede_the_response() {
    let dispatcher = dispatcher(|registry| {
        registry
            .command("x-emit", |context: &Context| {
                context.emit(&HAPPENED, &Happened { what: "it" })
            })
            .unwrap();
    });
    let (_stranger, stranger) = connect(&dispatcher);
    stranger.take();
    let (_listener, listener) = negotiated(&dispatcher);
    let (monitor, screen) = negotiated(&dispatcher);
    feed(&monitor, "{'execute': 'x-emit', 'id': 'a'}");
    let event = r#"{"timestamp": {"seconds": 1, "microseconds": 2}, "event": "HAPPENED", "data": {"what": "it"}}"#;
    check(&screen, &[event, r#"{"return": {}, "id": "a"}"#]);
    check(&listener, &[event]);
    check(&stranger, &[]);
}

#[test]
fn a_failed_negotiation_lets_no_event_through() {
    let dispatcher = dispatcher(|_| {});
    let (monitor, screen) = connect(&dispatcher);
    screen.take();
    feed(&monitor, "{'execute': 'qmp_capabilities', 'arguments': {'enable': [1]}}");
    dispatcher.emit(&HAPPENED, &Happened { what: "early" }).unwrap();
    assert_eq!(screen.take().len(), 1, "only the error");
}

#[test]
fn only_the_response_to_negotiation_starts_events() {
    /// Executes an out-of-band command and emits an event when the negotiation has succeeded, but has not
    /// been answered.
    struct Early;
    impl Interceptor for Early {
        fn after(&self, call: &Call<'_>, _: &mut Result<Json, Error>, _: Duration) {
            if call.request.command == "qmp_capabilities" {
                feed(call.monitor, "{'exec-oob': 'x-quick', 'id': 1}");
                let early = Happened { what: "early" };
                call.monitor.dispatcher().emit(&HAPPENED, &early).unwrap();
            }
        }
    }
    let dispatcher = dispatcher(|registry| {
        registry.command("x-quick", NOTHING).unwrap().allow_oob();
        registry.intercept(Early);
    });
    let (monitor, screen) = connect(&dispatcher);
    screen.take();
    feed(&monitor, "{'execute': 'qmp_capabilities', 'arguments': {'enable': ['oob']}}");
    check(&screen, &[r#"{"return": {}, "id": 1}"#, r#"{"return": {}}"#]);
    dispatcher.emit(&HAPPENED, &Happened { what: "now" }).unwrap();
    assert!(screen.take().concat().contains("now"));
}

#[test]
fn negotiation_has_no_deadline() {
    let dispatcher = dispatcher(|registry| registry.set_default_deadline(Duration::ZERO));
    let (monitor, _screen) = connect(&dispatcher);
    feed(&monitor, "{'execute': 'qmp_capabilities'}");
    assert_eq!(dispatcher.timeout(), None);
}

#[test]
fn a_filter_that_blocks_holds_up_only_the_thread_that_emits() {
    let dispatcher = dispatcher(|registry| {
        registry.command("x-nothing", NOTHING).unwrap();
    });
    let (slow, slow_screen) = negotiated(&dispatcher);
    let (asked, is_asked) = mpsc::channel();
    let (permit, permitted) = mpsc::channel();
    let permitted = Mutex::new(permitted);
    slow.add_event_filter(move |_| {
        asked.send(()).unwrap();
        permitted.lock().unwrap().recv().unwrap()
    });
    let emitter = dispatcher.clone();
    let emitting = thread::spawn(move || emitter.emit(&HAPPENED, &Happened { what: "it" }));
    is_asked.recv().unwrap();
    let (monitor, screen) = negotiated(&dispatcher);
    feed(&monitor, "{'execute': 'x-nothing'}");
    check(&screen, &[r#"{"return": {}}"#]);
    drop(monitor);
    permit.send(true).unwrap();
    emitting.join().unwrap().unwrap();
    assert_eq!(slow_screen.take().len(), 1);
}

#[test]
fn filters_and_subscribers_may_emit_events() {
    /// Emits an event for each message that goes to a client, but not for those that it causes itself.
    struct Echo(Dispatcher);
    thread_local! {
        static ECHOES: Cell<bool> = const { Cell::new(false) };
    }
    impl Echo {
        fn emit(&self, what: &'static str) {
            if !ECHOES.replace(true) {
                self.0.emit(&HAPPENED, &Happened { what }).unwrap();
                ECHOES.set(false);
            }
        }
    }
    impl<S: tracing::Subscriber> Layer<S> for Echo {
        fn on_event(&self, _: &tracing::Event<'_>, _: layer::Context<'_, S>) {
            self.emit("traced");
        }
    }
    let dispatcher = dispatcher(|registry| {
        registry.event(&NEW).unwrap();
    });
    let (_listener, heard) = negotiated(&dispatcher);
    let (filtered, _screen) = negotiated(&dispatcher);
    let echo = Echo(dispatcher.clone());
    filtered.add_event_filter(move |_| {
        echo.emit("filtered");
        true
    });
    dispatcher.emit(&NEW, &()).unwrap();
    assert!(heard.take().concat().contains("filtered"));
    // Otherwise tracing may take it that nobody listens, when the subscriber of another test has just ended.
    let _ = tracing::subscriber::set_global_default(tracing_subscriber::registry());
    let subscriber = tracing_subscriber::registry().with(Echo(dispatcher.clone()));
    tracing::subscriber::with_default(subscriber, || negotiated(&dispatcher));
    assert!(heard.take().concat().contains("traced"));
}

#[test]
fn the_declared_limit_holds_for_all_values_of_the_name() {
    const LIMITED: EventType<Happened> = EventType::new("LIMITED");
    let named: EventType<Happened> = EventType::named("LIMITED".to_owned());
    let dispatcher = dispatcher(|registry| {
        registry
            .event(&LIMITED)
            .unwrap()
            .at_most_every(Duration::from_secs(1))
            .similar_by(|happened| happened.what.to_owned());
    });
    let (_monitor, screen) = negotiated(&dispatcher);
    for what in ["a", "a", "b"] {
        dispatcher.emit(&named, &Happened { what }).unwrap();
    }
    let said = screen.take();
    assert_eq!(said.len(), 2, "{said:?}");
    assert_eq!(dispatcher.timeout(), Some(Duration::from_secs(1)));
}

#[test]
fn the_data_of_an_event_is_an_object() {
    dispatcher(|registry| {
        assert!(registry.event(&EventType::<i32>::new("NUMBER")).is_err());
        assert!(registry.event(&EventType::<()>::new("NOTHING")).is_ok());
    });
}

#[test]
fn what_goes_with_a_monitor_may_emit_events() {
    struct Farewell(Dispatcher);
    impl Drop for Farewell {
        fn drop(&mut self) {
            self.0.emit(&HAPPENED, &Happened { what: "farewell" }).unwrap();
        }
    }
    /// Lets go of the monitor that it is told of, as a server may at any time.
    struct LetGo(Mutex<Option<Arc<Monitor>>>);
    impl Output for LetGo {
        fn transmit(&self, _: &str) {}

        fn transmit_event(&self, _: &std::sync::Arc<str>) {
            drop(self.0.lock().unwrap().take());
        }
    }
    let dispatcher = dispatcher(|_| {});
    let output = Arc::new(LetGo(Mutex::new(None)));
    let locals = Locals::default().with(Farewell(dispatcher.clone()));
    let monitor = dispatcher.connect(output.clone(), Layout::Compact, locals);
    feed(&monitor, "{'execute': 'qmp_capabilities'}");
    *output.0.lock().unwrap() = Some(monitor);
    let (_listener, screen) = negotiated(&dispatcher);
    dispatcher.emit(&HAPPENED, &Happened { what: "it" }).unwrap();
    let heard = screen.take().concat();
    assert!(heard.contains("it") && heard.contains("farewell"), "{heard}");
}

#[test]
fn what_is_not_declared_cannot_be_emitted() {
    let dispatcher = dispatcher(|_| {});
    assert_eq!(dispatcher.emit(&UNDECLARED, &()), Err(EmitError::Undeclared("UNDECLARED".into())));
}

#[test]
fn what_is_declared_with_other_data_cannot_be_emitted() {
    let dispatcher = dispatcher(|_| {});
    let other: EventType<()> = EventType::named(HAPPENED.name().clone());
    assert_eq!(dispatcher.emit(&other, &()), Err(EmitError::OtherType("HAPPENED".into())));
}

#[test]
fn names_are_registered_once() {
    dispatcher(|registry| {
        registry.command("x-once", NOTHING).unwrap();
        let refused = registry.command("x-once", NOTHING).unwrap_err();
        assert_eq!(refused.to_string(), "'x-once' is registered already");
        assert!(registry.command("query-version", NOTHING).is_err());
        assert!(registry.command("HAPPENED", NOTHING).is_err(), "introspection has one name space");
        assert!(registry.event(&EventType::<()>::new("x-once")).is_err());
    });
}

#[test]
fn a_command_without_success_response_answers_only_failures() {
    let dispatcher = dispatcher(|registry| {
        registry.command("x-quiet", NOTHING).unwrap().no_success_response();
    });
    let (monitor, screen) = negotiated(&dispatcher);
    feed(&monitor, "{'execute': 'x-quiet'} {'execute': 'x-quiet', 'arguments': {'a': 1}}");
    check(
        &screen,
        &[r#"{"error": {"class": "GenericError", "desc": "Parameter 'a' is unexpected"}}"#],
    );
}

#[test]
fn a_panic_is_an_error_response() {
    let dispatcher = dispatcher(|registry| {
        registry
            .command("x-panic", |_: &Context| -> Result<(), Error> { panic!("on purpose") })
            .unwrap();
    });
    let (monitor, screen) = negotiated(&dispatcher);
    feed(&monitor, "{'execute': 'x-panic', 'id': 1} {'execute': 'query-commands', 'id': 2}");
    let said = screen.take();
    assert_eq!(
        said[0],
        r#"{"id": 1, "error": {"class": "GenericError", "desc": "The command x-panic failed: internal error"}}"#
    );
    assert!(said[1].ends_with(r#""id": 2}"#));
}

#[test]
fn out_of_band_is_for_commands_that_allow_it() {
    let dispatcher = dispatcher(|registry| {
        registry.command("x-quick", NOTHING).unwrap().allow_oob();
    });
    let (monitor, screen) = connect(&dispatcher);
    feed(&monitor, "{'execute': 'qmp_capabilities', 'arguments': {'enable': ['oob']}}");
    screen.take();
    feed(&monitor, "{'exec-oob': 'x-quick', 'id': 1} {'exec-oob': 'query-version', 'id': 2}");
    check(
        &screen,
        &[
            r#"{"return": {}, "id": 1}"#,
            r#"{"id": 2, "error": {"class": "GenericError", "desc": "The command query-version does not support OOB"}}"#,
        ],
    );
}

#[test]
fn what_still_waits_when_the_server_ends_is_refused() {
    let dispatcher = dispatcher(|_| {});
    let (monitor, screen) = negotiated(&dispatcher);
    let mut reader = Reader::default();
    let mut input: &[u8] = b"{'execute': 'query-version', 'id': 1} @";
    while let Some(message) = reader.read(&mut input) {
        monitor.refuse(monitor.receive(message), Error::generic("the server ends"));
    }
    let said = screen.take();
    assert_eq!(
        said[0],
        r#"{"id": 1, "error": {"class": "GenericError", "desc": "the server ends"}}"#
    );
    assert!(said.len() == 2 && said[1].contains("JSON parse error"));
}

#[test]
fn errors_of_the_embedder_become_error_responses() {
    /// An error of the embedder with a class.
    struct NoSuchDisk(String);
    impl From<NoSuchDisk> for BoxError {
        fn from(disk: NoSuchDisk) -> BoxError {
            let desc = format!("Device '{}' not found", disk.0);
            Error::new(ErrorClass::DeviceNotFound, desc).into()
        }
    }
    #[derive(Deserialize, JsonSchema)]
    struct Eject {
        device: String,
    }
    fn reset(_: &Context) -> Result<(), BoxError> {
        let level: u8 = "300".parse()?;
        Err(Error::generic(level.to_string()).into())
    }
    let dispatcher = dispatcher(|registry| {
        registry
            .command("eject", |_: &Context, arguments: Eject| -> Result<(), NoSuchDisk> {
                Err(NoSuchDisk(arguments.device))
            })
            .unwrap();
        registry.command("reset", reset).unwrap();
        let busy = || io::Error::other(Error::new(ErrorClass::DeviceNotActive, "no medium"));
        registry.command("x-io", move |_: &Context| Err::<(), _>(busy())).unwrap();
        registry.command("x-text", |_: &Context| Err::<(), _>("no medium")).unwrap();
        registry
            .deferred_command("x-later", |_: &Context, responder: Responder<()>| {
                responder.respond(Err("no medium".to_owned()));
            })
            .unwrap();
        let state = registry.with(Arc::new(7));
        { state }.infallible_command("x-state", |state: &u8, _: &Context| *state).unwrap();
        registry.infallible_command("x-device", |_: &Context, eject: Eject| eject.device).unwrap();
    });
    let (monitor, screen) = negotiated(&dispatcher);
    feed(&monitor, "{'execute': 'eject', 'arguments': {'device': 'cd'}}");
    check(&screen, &[r#"{"error": {"class": "DeviceNotFound", "desc": "Device 'cd' not found"}}"#]);
    feed(&monitor, "{'execute': 'reset'} {'execute': 'x-io'}");
    check(
        &screen,
        &[
            r#"{"error": {"class": "GenericError", "desc": "number too large to fit in target type"}}"#,
            r#"{"error": {"class": "DeviceNotActive", "desc": "no medium"}}"#,
        ],
    );
    feed(&monitor, "{'execute': 'x-text'} {'execute': 'x-later'}");
    check(&screen, &[r#"{"error": {"class": "GenericError", "desc": "no medium"}}"#; 2]);
    feed(&monitor, "{'execute': 'x-state'} {'execute': 'x-device', 'arguments': {'device': 'cd'}}");
    check(&screen, &[r#"{"return": 7}"#, r#"{"return": "cd"}"#]);
}

#[test]
fn a_pretty_monitor_is_told_the_same() {
    let dispatcher = dispatcher(|_| {});
    let screen = Arc::new(Screen::default());
    let monitor = dispatcher.connect(screen.clone(), Layout::Pretty, Locals::default());
    screen.take();
    feed(&monitor, "{'execute': 'qmp_capabilities'}");
    dispatcher.emit(&HAPPENED, &Happened { what: "it" }).unwrap();
    let said = screen.take();
    assert_eq!(said[..4], ["{", "    \"return\": {", "    }", "}"]);
    assert_eq!(said.last().map(String::as_str), Some("}"));
    assert!(said.contains(&"    \"event\": \"HAPPENED\",".to_owned()));
}

#[test]
fn limited_events_are_held_back_until_time_has_passed() {
    const LIMITED: EventType<Happened> = EventType::new("LIMITED");
    let now = Arc::new(Mutex::new(0));
    let mut registry = Registry::new();
    registry.event(&LIMITED).unwrap().at_most_every(Duration::from_secs(1));
    let version =
        Version { qemu: VersionTriple { major: 1, minor: 2, micro: 3 }, package: "".into() };
    let clock = now.clone();
    let dispatcher = Dispatcher::new(registry, version, move || {
        let seconds = *clock.lock().unwrap();
        let wall = Timestamp { seconds, microseconds: 0 };
        Time { wall, monotonic: Duration::from_secs(seconds.unsigned_abs()) }
    });
    let earlier = Arc::new(Mutex::new(0));
    let hook = earlier.clone();
    assert!(dispatcher.set_timeout_hook(move || *hook.lock().unwrap() += 1));
    let (monitor, screen) = negotiated(&dispatcher);
    let (filtered, nothing) = negotiated(&dispatcher);
    filtered.add_event_filter(|name| name != "LIMITED");

    assert_eq!(dispatcher.timeout(), None);
    for what in ["first", "second", "third"] {
        dispatcher.emit(&LIMITED, &Happened { what }).unwrap();
    }
    let event = |seconds: i64, data: &str| {
        format!(
            r#"{{"timestamp": {{"seconds": {seconds}, "microseconds": 0}}, "event": "LIMITED", "data": {{"what": "{data}"}}}}"#
        )
    };
    check(&screen, &[&event(0, "first")]);
    assert_eq!(dispatcher.timeout(), Some(Duration::from_secs(1)));
    assert_eq!(*earlier.lock().unwrap(), 1, "told once that there is something to wait for");

    *now.lock().unwrap() = 1;
    assert_eq!(dispatcher.timeout(), Some(Duration::ZERO));
    dispatcher.handle_timeout();
    check(&screen, &[&event(0, "third")]);
    *now.lock().unwrap() = 2;
    dispatcher.handle_timeout();
    assert_eq!(dispatcher.timeout(), None);
    check(&screen, &[]);
    check(&nothing, &[]);
    drop(monitor);
}

#[test]
fn an_interval_may_last_for_ever_and_a_key_may_look_around() {
    thread_local! {
        static AROUND: RefCell<Option<Dispatcher>> = const { RefCell::new(None) };
    }
    const ONCE: EventType<()> = EventType::new("ONCE");
    let mut registry = Registry::new();
    registry.event(&HAPPENED).unwrap();
    registry.event(&ONCE).unwrap().at_most_every(Duration::MAX).similar_by(|()| {
        AROUND.with_borrow(|around| {
            let dispatcher = around.as_ref().unwrap();
            dispatcher.emit(&HAPPENED, &Happened { what: "asked" }).unwrap();
        });
        String::new()
    });
    let clock = || Time { monotonic: Duration::from_secs(1), ..Time::default() };
    let dispatcher = Dispatcher::new(registry, Version::new(1, 2, 3, ""), clock);
    let (_monitor, screen) = negotiated(&dispatcher);
    AROUND.set(Some(dispatcher.clone()));
    for _ in 0..2 {
        dispatcher.emit(&ONCE, &()).unwrap();
    }
    let said = screen.take();
    let events = ["HAPPENED", "ONCE", "HAPPENED"];
    assert_eq!(said.len(), events.len());
    assert!(said.iter().zip(events).all(|(line, event)| line.contains(event)), "{said:?}");
}

#[test]
fn commands_can_be_disabled_and_wait_for_initialization() {
    let dispatcher = dispatcher(|registry| {
        registry.command("x-late", NOTHING).unwrap();
        registry.command("x-early", NOTHING).unwrap().allow_preconfig();
    });
    let (monitor, screen) = negotiated(&dispatcher);
    dispatcher.set_preconfig(true);
    feed(&monitor, "{'execute': 'x-early'} {'execute': 'x-late'}");
    check(
        &screen,
        &[
            r#"{"return": {}}"#,
            r#"{"error": {"class": "GenericError", "desc": "The command 'x-late' is permitted only after machine initialization has completed"}}"#,
        ],
    );
    dispatcher.set_preconfig(false);
    assert!(dispatcher.set_enabled("x-early", false));
    assert!(!dispatcher.set_enabled("x-unknown", false));
    feed(&monitor, "{'execute': 'x-early'} {'execute': 'x-late'}");
    check(
        &screen,
        &[
            r#"{"error": {"class": "CommandNotFound", "desc": "The command x-early has been disabled for this instance"}}"#,
            r#"{"return": {}}"#,
        ],
    );
    dispatcher.set_enabled("x-early", true);
    feed(&monitor, "{'execute': 'x-early'}");
    check(&screen, &[r#"{"return": {}}"#]);
}

#[test]
fn features_are_shown_to_clients() {
    let dispatcher = dispatcher(|registry| {
        registry.command("x-old", NOTHING).unwrap().deprecated().feature("slow");
    });
    let (monitor, screen) = negotiated(&dispatcher);
    feed(&monitor, "{'execute': 'query-qmp-schema'}");
    let schema = screen.take().concat();
    assert!(schema.contains(r#""features": ["deprecated", "slow"]"#), "{schema}");
}

#[test]
fn a_policy_decides_about_deprecated_and_unstable_commands_and_members() {
    #[derive(Serialize, JsonSchema)]
    struct Info {
        name: &'static str,
        #[schemars(extend("x-qapi-features" = ["deprecated"]))]
        alias: &'static str,
    }
    let dispatcher = dispatcher(|registry| {
        registry.command("x-trial", NOTHING).unwrap().unstable();
        registry
            .command("query-info", |_: &Context| Ok::<_, Error>(Info { name: "n", alias: "a" }))
            .unwrap();
        registry.set_policy(Policy {
            unstable_input: InputPolicy::Reject,
            deprecated_output: OutputPolicy::Hide,
            ..Policy::default()
        });
    });
    let (monitor, screen) = negotiated(&dispatcher);
    feed(&monitor, "{'execute': 'x-trial'} {'execute': 'query-info'}");
    check(
        &screen,
        &[
            r#"{"error": {"class": "CommandNotFound", "desc": "Unstable command x-trial disabled by policy"}}"#,
            r#"{"return": {"name": "n"}}"#,
        ],
    );
}

#[test]
fn registries_are_merged_whole_or_not_at_all() {
    let mut registry = Registry::new();
    registry.command("x-mine", NOTHING).unwrap();
    let mut group = Registry::new();
    group.command("x-yours", NOTHING).unwrap();
    group.event(&HAPPENED).unwrap();
    registry.merge(group).unwrap();
    assert!(registry.find_command("x-yours").is_some());
    assert!(registry.event(&HAPPENED).is_err(), "its events have come, too");

    let mut clashing = Registry::new();
    clashing.command("x-third", NOTHING).unwrap();
    clashing.command("x-mine", NOTHING).unwrap();
    assert!(registry.merge(clashing).is_err());
    assert!(registry.find_command("x-third").is_none());
}

#[test]
fn deadlines_of_commands_come_with_the_registry_that_is_merged() {
    let seconds = Duration::from_secs;
    let deadline_of = |name: &'static str| {
        let mut group = Registry::new();
        let never = |_: &Context, responder: Responder<()>| std::mem::forget(responder);
        group.deferred_command(name, never).unwrap();
        group.set_deadline("x-both", seconds(1));
        group.set_deadline("x-theirs", seconds(2));
        group.set_default_deadline(seconds(3));
        let dispatcher = dispatcher(|registry| {
            registry.set_deadline("x-both", seconds(4));
            registry.merge(group).unwrap();
        });
        let (monitor, _screen) = negotiated(&dispatcher);
        feed(&monitor, &format!("{{'execute': '{name}'}}"));
        dispatcher.timeout()
    };
    assert_eq!(deadline_of("x-both"), Some(seconds(4)));
    assert_eq!(deadline_of("x-theirs"), Some(seconds(2)));
    assert_eq!(deadline_of("x-none"), None);
}

/// Writes down what it sees, and answers one command itself.
struct Witness(&'static str, Arc<Mutex<Vec<String>>>);

impl Interceptor for Witness {
    fn before(&self, call: &Call<'_>) -> ControlFlow<Result<Json, Error>> {
        let Witness(name, seen) = self;
        seen.lock().unwrap().push(format!("{name} before {}", call.request.command));
        assert!(call.request.command != "x-panic", "on purpose");
        if *name == "inner" && call.request.command == "x-forbidden" {
            return ControlFlow::Break(Err(Error::generic("not for you")));
        }
        ControlFlow::Continue(())
    }

    fn after(&self, call: &Call<'_>, outcome: &mut Result<Json, Error>, duration: Duration) {
        let Witness(name, seen) = self;
        let Call { request, monitor, .. } = call;
        assert!(monitor.is_negotiated() && duration.is_zero());
        let outcome = if outcome.is_ok() { "success" } else { "failure" };
        seen.lock().unwrap().push(format!("{name} after {} {outcome}", request.command));
    }
}

#[test]
fn interceptors_see_every_command_from_outside_in_and_inside_out() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let responders = Arc::new(Mutex::new(Vec::new()));
    let dispatcher = dispatcher(|registry| {
        registry.intercept(Witness("outer", seen.clone()));
        registry.intercept(Witness("inner", seen.clone()));
        let responders = responders.clone();
        registry
            .deferred_command("x-later", move |_: &Context, responder: Responder<()>| {
                responders.lock().unwrap().push(responder);
            })
            .unwrap();
    });
    let (monitor, screen) = negotiated(&dispatcher);
    let expect =
        |expected: &[&str]| assert_eq!(std::mem::take(&mut *seen.lock().unwrap()), expected);
    expect(&[
        "outer before qmp_capabilities",
        "inner before qmp_capabilities",
        "inner after qmp_capabilities success",
        "outer after qmp_capabilities success",
    ]);
    feed(&monitor, "{'execute': 'x-forbidden', 'id': 1}");
    expect(&[
        "outer before x-forbidden",
        "inner before x-forbidden",
        "outer after x-forbidden failure",
    ]);
    check(&screen, &[r#"{"id": 1, "error": {"class": "GenericError", "desc": "not for you"}}"#]);
    feed(&monitor, "{'execute': 'x-panic', 'id': 2}");
    let failed = r#"{"id": 2, "error": {"class": "GenericError", "desc": "The command x-panic failed: internal error"}}"#;
    check(&screen, &[failed]);
    seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clear();
    feed(&monitor, "{'execute': 'x-unknown'}");
    assert_eq!(seen.lock().unwrap().len(), 4);
    seen.lock().unwrap().clear();

    feed(&monitor, "{'execute': 'x-later'}");
    expect(&["outer before x-later", "inner before x-later"]);
    responders.lock().unwrap().pop().unwrap().respond(Ok::<_, Error>(()));
    expect(&["inner after x-later success", "outer after x-later success"]);
}

#[test]
fn after_its_deadline_a_command_is_answered_with_an_error_and_its_own_answer_is_dropped() {
    let now = Arc::new(Mutex::new(Duration::ZERO));
    let responders = Arc::new(Mutex::new(Vec::new()));
    let mut registry = Registry::new();
    let handed = responders.clone();
    registry
        .deferred_command("x-later", move |_: &Context, responder: Responder<()>| {
            handed.lock().unwrap().push(responder);
        })
        .unwrap()
        .deadline(Duration::from_millis(1500));
    let handler_time = now.clone();
    registry
        .command("x-slow", move |context: &Context| -> Result<(), Error> {
            *handler_time.lock().unwrap() += Duration::from_secs(10);
            // What another thread would do meanwhile.
            context.dispatcher().handle_timeout();
            Ok(())
        })
        .unwrap()
        .deadline(Duration::from_secs(9));
    let version =
        Version { qemu: VersionTriple { major: 1, minor: 2, micro: 3 }, package: "".into() };
    let clock = now.clone();
    let dispatcher = Dispatcher::new(registry, version, move || Time {
        wall: Timestamp::default(),
        monotonic: *clock.lock().unwrap(),
    });
    let (monitor, screen) = negotiated(&dispatcher);
    let execute = |command: &str| {
        let done = Arc::new(AtomicUsize::new(0));
        let counter = done.clone();
        let mut reader = Reader::default();
        let mut bytes = command.as_bytes();
        let pending = monitor.receive(reader.read(&mut bytes).unwrap());
        monitor.execute(pending, move || {
            counter.fetch_add(1, Ordering::Relaxed);
        });
        done
    };

    // In time.
    let done = execute("{'execute': 'x-later', 'id': 1}");
    assert_eq!(dispatcher.timeout(), Some(Duration::from_millis(1500)));
    responders.lock().unwrap().pop().unwrap().respond(Ok::<_, Error>(()));
    check(&screen, &[r#"{"return": {}, "id": 1}"#]);
    assert_eq!((done.load(Ordering::Relaxed), dispatcher.timeout()), (1, None));

    // Late: what waits behind it goes on at the deadline.
    let done = execute("{'execute': 'x-later', 'id': 2}");
    *now.lock().unwrap() += Duration::from_millis(1500);
    dispatcher.handle_timeout();
    check(
        &screen,
        &[
            r#"{"id": 2, "error": {"class": "GenericError", "desc": "The command x-later was not answered within 1.5 seconds"}}"#,
        ],
    );
    assert_eq!(done.load(Ordering::Relaxed), 1);
    responders.lock().unwrap().pop().unwrap().respond(Ok::<_, Error>(()));
    check(&screen, &[]);
    assert_eq!(done.load(Ordering::Relaxed), 1);

    // A handler that blocks is not done before it returns.
    let done = execute("{'execute': 'x-slow', 'id': 3}");
    check(
        &screen,
        &[
            r#"{"id": 3, "error": {"class": "GenericError", "desc": "The command x-slow was not answered within 9 seconds"}}"#,
        ],
    );
    assert_eq!(done.load(Ordering::Relaxed), 1);
}

/// What a handler does, itself dispatching on other monitors.
#[derive(Clone, Debug)]
struct Visit {
    monitor: usize,
    inner: Vec<Visit>,
    panics: bool,
}

fn visits() -> impl Strategy<Value = Vec<Visit>> {
    let leaf = (0..3usize, any::<bool>()).prop_map(|(monitor, panics)| Visit {
        monitor,
        inner: Vec::new(),
        panics,
    });
    let visit = leaf.prop_recursive(4, 24, 4, |inner| {
        (0..3usize, prop::collection::vec(inner, 0..4), any::<bool>())
            .prop_map(|(monitor, inner, panics)| Visit { monitor, inner, panics })
    });
    prop::collection::vec(visit, 1..4)
}

fn current_id() -> Option<MonitorId> {
    current().map(|monitor| monitor.id())
}

/// Hands the visits to the handlers, which find theirs by its place in the list.
#[derive(Default)]
struct Plan {
    monitors: Mutex<Vec<Arc<Monitor>>>,
    next: Mutex<Vec<Visit>>,
    wrong: Mutex<Vec<String>>,
}

impl Plan {
    fn visit(&self, visit: Visit) {
        let before = current_id();
        let monitor = self.monitors.lock().unwrap()[visit.monitor].clone();
        self.next.lock().unwrap().push(visit);
        feed(&monitor, "{'execute': 'x-visit'}");
        self.expect(before, "after an inner dispatch");
    }

    fn expect(&self, expected: Option<MonitorId>, when: &str) {
        let got = current_id();
        if got != expected {
            let wrong = format!("{when}: {got:?} instead of {expected:?}");
            self.wrong.lock().unwrap().push(wrong);
        }
    }

    fn x_visit(&self, context: &Context) -> Result<(), Error> {
        let visit = self.next.lock().unwrap().pop().expect("a visit is planned");
        self.expect(Some(context.monitor().id()), "in the handler");
        for inner in visit.inner {
            self.visit(inner);
        }
        assert!(!visit.panics, "a planned panic");
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_current_monitor_is_restored_however_handlers_nest_and_end(visits in visits()) {
        let plan = Arc::new(Plan::default());
        let dispatcher = dispatcher(|registry| {
            registry.with(plan.clone()).command("x-visit", Plan::x_visit).unwrap();
        });
        let monitors = (0..3).map(|_| negotiated(&dispatcher).0);
        plan.monitors.lock().unwrap().extend(monitors);
        for visit in visits {
            plan.visit(visit);
        }
        prop_assert_eq!(current_id(), None);
        let wrong = plan.wrong.lock().unwrap().clone();
        prop_assert!(wrong.is_empty(), "{:?}", wrong);
        plan.monitors.lock().unwrap().clear();
    }
}

#[test]
fn the_current_monitor_is_not_that_of_other_threads() {
    let seen = Arc::new(Mutex::new(None));
    let dispatcher = dispatcher(|registry| {
        let seen = seen.clone();
        registry
            .command("x-look", move |context: &Context| -> Result<(), Error> {
                let elsewhere = std::thread::spawn(current_id).join().unwrap();
                let here = current_id() == Some(context.monitor().id());
                *seen.lock().unwrap() = Some((here, elsewhere));
                Ok(())
            })
            .unwrap();
    });
    let (monitor, _screen) = negotiated(&dispatcher);
    feed(&monitor, "{'execute': 'x-look'}");
    assert_eq!(*seen.lock().unwrap(), Some((true, None)));
}

#[test]
fn introspection_and_dispatch_know_the_same_commands() {
    let dispatcher = dispatcher(|registry| {
        registry.command("x-known", NOTHING).unwrap().allow_oob();
    });
    let (monitor, screen) = negotiated(&dispatcher);
    feed(&monitor, "{'execute': 'query-commands'} {'execute': 'query-qmp-schema'}");
    let said = screen.take();
    let result = |line: &str| -> Vec<Value> {
        let message: Value = line.parse().unwrap();
        message.get("return").unwrap().as_array().unwrap().to_vec()
    };
    let mut listed: Vec<_> =
        result(&said[0]).iter().map(|command| command.get("name").cloned()).collect();
    let mut described: Vec<_> = result(&said[1])
        .iter()
        .filter(|entry| entry.get("meta-type").and_then(Value::as_str) == Some("command"))
        .map(|entry| entry.get("name").cloned())
        .collect();
    listed.sort_by_key(|name| format!("{name:?}"));
    described.sort_by_key(|name| format!("{name:?}"));
    assert_eq!(listed, described);
    assert!(listed.contains(&Some("x-known".into())));
}

#[test]
fn events_that_the_policy_hides_reach_nobody() {
    let hide = OutputPolicy::Hide;
    for (policy, expected) in [
        (Policy::default(), vec!["HAPPENED", "OLD", "NEW"]),
        (Policy { deprecated_output: hide, ..Policy::default() }, vec!["HAPPENED", "NEW"]),
        (Policy { unstable_output: hide, ..Policy::default() }, vec!["HAPPENED", "OLD"]),
    ] {
        let dispatcher = dispatcher(|registry| {
            registry.event(&OLD).unwrap().deprecated();
            registry.event(&NEW).unwrap().unstable().feature("x-free-form");
            registry.set_policy(policy);
        });
        let (monitor, screen) = connect(&dispatcher);
        feed(&monitor, "{'execute': 'qmp_capabilities'} {'execute': 'query-qmp-schema'}");
        let described = screen.take().pop().unwrap();
        // As in QEMU, introspection hides what is deprecated only.
        let hides_old = policy.deprecated_output == hide;
        assert_eq!(described.contains(r#""name": "OLD""#), !hides_old);
        assert!(described.contains(r#""features": ["unstable", "x-free-form"]"#));

        dispatcher.emit(&HAPPENED, &Happened { what: "x" }).unwrap();
        dispatcher.emit(&OLD, &()).unwrap();
        dispatcher.emit(&NEW, &()).unwrap();
        let seen = screen.take();
        let names = seen.iter().map(|line| {
            let (_, name) = line.split_once(r#""event": ""#).unwrap();
            name.split('"').next().unwrap()
        });
        assert_eq!(names.collect::<Vec<_>>(), expected);
    }
}

#[test]
fn what_serde_refuses_is_found_out_at_registration_in_debug_builds() {
    #[derive(Deserialize, JsonSchema)]
    struct Level {
        #[schemars(rename = "number")]
        _level: u8,
    }
    let mut registry = Registry::new();
    let registered = registry.command("x", |_: &Context, _: Level| Ok::<(), Error>(()));
    assert_eq!(registered.is_err(), cfg!(debug_assertions));
}

#[test]
fn names_that_qapi_does_not_allow_are_refused() {
    const SPACED: EventType<()> = EventType::new("TWO WORDS");
    let mut registry = Registry::new();
    let refused = registry.command("block resize", |_: &Context| Ok::<(), Error>(())).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "invalid name 'block resize': expected a letter followed by letters, digits, '-' or '_'"
    );
    assert!(registry.event(&SPACED).is_err());
    assert!(registry.find_command("block resize").is_none());
}
