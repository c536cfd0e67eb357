// SPDX-License-Identifier: MIT OR Apache-2.0
//! What interceptors see of a client, from before its greeting to after its end.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::support::{Screen, feed, negotiated};
use qmp_dispatch::proto::{Error, Json, Layout, RequestError, Version};
use qmp_dispatch::{
    Call, Context, Dispatcher, EventType, Forwarded, Interceptor, Locals, Monitor, Registry,
    Responder, Time,
};

const LOUD: EventType<()> = EventType::new("LOUD");
const QUIET: EventType<()> = EventType::new("QUIET");

fn badge(monitor: &Monitor) -> String {
    format!("badge {}", monitor.id())
}

/// Writes down who comes and goes, and changes outcomes.
#[derive(Clone, Default)]
struct Usher(Arc<Mutex<Vec<String>>>);

impl Usher {
    fn note(&self, line: String) {
        self.0.lock().unwrap().push(line);
    }

    #[track_caller]
    fn expect(&self, expected: &[&str]) {
        assert_eq!(std::mem::take(&mut *self.0.lock().unwrap()), expected);
    }
}

impl Interceptor for Usher {
    fn connected(&self, monitor: &Monitor) {
        self.note(format!("{} comes in", badge(monitor)));
        monitor.add_event_filter(|name| name == "LOUD");
    }

    fn disconnected(&self, monitor: &Monitor) {
        self.note(format!("{} goes", badge(monitor)));
    }

    fn after(&self, call: &Call<'_>, outcome: &mut Result<Json, Error>, _: Duration) {
        match call.request.command.as_str() {
            "x-badge" => *outcome = Ok(Json::encode("nothing to be seen").unwrap()),
            "x-fail" => *outcome = Err(Error::generic("it is in the way")),
            _ => {}
        }
    }

    fn abandoned(&self, call: &Call<'_>, _: Duration) {
        self.note(format!("{} is left waiting for {}", badge(call.monitor), call.request.command));
    }

    fn refused(&self, monitor: &Arc<Monitor>, refused: &RequestError) {
        self.note(format!("{} says rubbish: {}", badge(monitor), refused.error.desc));
    }
}

/// Panics whenever it can.
struct Clumsy;

impl Interceptor for Clumsy {
    fn connected(&self, _: &Monitor) {
        panic!("on purpose");
    }

    fn disconnected(&self, _: &Monitor) {
        panic!("on purpose");
    }

    fn refused(&self, _: &Arc<Monitor>, _: &RequestError) {
        panic!("on purpose");
    }

    fn after(&self, _: &Call<'_>, _: &mut Result<Json, Error>, _: Duration) {
        panic!("on purpose");
    }
}

fn dispatcher(register: impl FnOnce(&mut Registry)) -> Dispatcher {
    let mut registry = Registry::new();
    registry.event(&LOUD).unwrap();
    registry.event(&QUIET).unwrap();
    let number = |_: &Context| Ok::<_, Error>(42);
    registry.command("x-badge", number).unwrap();
    registry.command("x-fail", number).unwrap();
    register(&mut registry);
    Dispatcher::new(registry, Version::new(1, 2, 3, ""), Time::default)
}

#[test]
fn a_client_is_seen_coming_and_going() {
    let usher = Usher::default();
    let dispatcher = dispatcher(|registry| registry.intercept(usher.clone()));
    let (first, first_screen) = negotiated(&dispatcher);
    let (second, _) = negotiated(&dispatcher);
    usher.expect(&["badge 1 comes in", "badge 2 comes in"]);

    dispatcher.emit(&QUIET, &()).unwrap();
    dispatcher.emit(&LOUD, &()).unwrap();
    assert_eq!(first_screen.take().len(), 1, "one of the events is filtered");

    drop(first);
    usher.expect(&["badge 1 goes"]);
    drop(second);
    usher.expect(&["badge 2 goes"]);
}

#[test]
fn the_client_gets_what_interceptors_make_of_an_outcome() {
    let dispatcher = dispatcher(|registry| registry.intercept(Usher::default()));
    let (monitor, screen) = negotiated(&dispatcher);
    feed(&monitor, "{'execute': 'x-badge', 'id': 1} {'execute': 'x-fail', 'id': 2}");
    assert_eq!(
        screen.take(),
        [
            r#"{"return": "nothing to be seen", "id": 1}"#,
            r#"{"id": 2, "error": {"class": "GenericError", "desc": "it is in the way"}}"#,
        ]
    );
}

/// Two servers that know the command `x-badge`: one serves it, the other hands it on.
fn both_kinds() -> [Dispatcher; 2] {
    let forwarding =
        Registry::forwarding(|_: &Context, _: Forwarded, responder: Responder<Json>| {
            responder.respond_json(Ok(Json::encode(&42).unwrap()));
        });
    let version = Version::new(1, 2, 3, "");
    [dispatcher(|_| ()), Dispatcher::new(forwarding, version, Time::default)]
}

#[test]
fn filtered_commands_are_refused_like_disabled_ones() {
    for dispatcher in both_kinds() {
        let screen = Arc::new(Screen::default());
        let monitor = dispatcher.connect(screen.clone(), Layout::Compact, Locals::default());
        monitor.add_command_filter(|_| true);
        monitor.add_command_filter(|name| name == "x-fail");
        feed(&monitor, "{'execute': 'x-badge'}");
        let enable = "{'execute': 'qmp_capabilities', 'arguments': {'enable': ['oob']}}";
        feed(&monitor, enable);
        feed(&monitor, "{'execute': 'x-badge', 'arguments': {'a': 1}} {'exec-oob': 'x-badge'}");
        feed(&monitor, "{'execute': 'x-fail'}");
        let refused = |desc: &str| {
            format!(r#"{{"error": {{"class": "CommandNotFound", "desc": "{desc}"}}}}"#)
        };
        let disabled = refused("The command x-badge has been disabled for this instance");
        assert_eq!(
            screen.take()[1..],
            [
                refused("Expecting capabilities negotiation with 'qmp_capabilities'"),
                r#"{"return": {}}"#.to_owned(),
                disabled.clone(),
                disabled,
                r#"{"return": 42}"#.to_owned(),
            ]
        );
    }
    let [dispatcher, _] = both_kinds();
    let (monitor, screen) = negotiated(&dispatcher);
    monitor.add_command_filter(|_| false);
    feed(&monitor, "{'execute': 'x-nothing'}");
    let said = screen.take().concat();
    assert!(said.contains("The command x-nothing has not been found"), "{said}");
}

#[test]
fn requests_that_are_never_answered_are_seen_too() {
    let usher = Usher::default();
    let mut registry =
        Registry::forwarding(|_: &Context, _: Forwarded, responder: Responder<Json>| {
            responder.abandon();
        });
    registry.intercept(usher.clone());
    let dispatcher = Dispatcher::new(registry, Version::new(1, 2, 3, ""), Time::default);
    let (monitor, screen) = negotiated(&dispatcher);
    feed(&monitor, "{'execute': 'quit'}");
    assert_eq!(screen.take(), [""; 0]);
    usher.expect(&["badge 1 comes in", "badge 1 is left waiting for quit"]);
}

#[test]
fn what_is_no_request_is_seen_too() {
    let usher = Usher::default();
    let dispatcher = dispatcher(|registry| registry.intercept(usher.clone()));
    let (monitor, screen) = negotiated(&dispatcher);
    usher.expect(&["badge 1 comes in"]);
    feed(&monitor, "{'id': 1} []");
    usher.expect(&[
        "badge 1 says rubbish: QMP input lacks member 'execute'",
        "badge 1 says rubbish: QMP input must be a JSON object",
    ]);
    assert_eq!(screen.take().len(), 2);
}

#[test]
fn a_panic_of_one_interceptor_harms_nobody_else() {
    let usher = Usher::default();
    let dispatcher = dispatcher(|registry| {
        registry.intercept(Clumsy);
        registry.intercept(usher.clone());
    });
    let (monitor, screen) = negotiated(&dispatcher);
    feed(&monitor, "{'execute': 'x-badge'} []");
    assert_eq!(screen.take().len(), 2);
    drop(monitor);
    usher.expect(&[
        "badge 1 comes in",
        "badge 1 says rubbish: QMP input must be a JSON object",
        "badge 1 goes",
    ]);
}
