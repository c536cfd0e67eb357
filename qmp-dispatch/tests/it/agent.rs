// SPDX-License-Identifier: MIT OR Apache-2.0
//! Monitors of clients that speak as to a guest agent.

use std::sync::{Arc, Mutex};

use qmp_dispatch::proto::{Error, Json, Layout, Version};
use qmp_dispatch::{Context, Dispatcher, Forwarded, Locals, Output, Registry, Responder, Time};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::support::feed;

/// What a client has received, byte for byte.
#[derive(Default)]
struct Bytes(Mutex<Vec<u8>>);

impl Bytes {
    fn take(&self) -> Vec<u8> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

impl Output for Bytes {
    fn transmit(&self, text: &str) {
        self.0.lock().unwrap().extend_from_slice(text.as_bytes());
    }

    fn respond_delimited(&self, text: &str) {
        self.0.lock().unwrap().push(0xFF);
        self.transmit(text);
    }
}

#[derive(Deserialize, JsonSchema)]
struct Synchronisation {
    id: i64,
}

fn registry() -> Registry {
    let forward = |_: &Context, request: Forwarded, responder: Responder<Json>| {
        responder.respond_json(match request.command.as_str() {
            "guest-ping" => Ok(Json::EMPTY_OBJECT),
            command => Err(Error::command_not_found(command)),
        });
    };
    let mut registry = Registry::for_agent(forward);
    registry
        .infallible_command("guest-sync-delimited", |_: &Context, sync: Synchronisation| sync.id)
        .unwrap()
        .delimited();
    registry
}

#[test]
fn nobody_is_greeted_and_nobody_negotiates() {
    let dispatcher = Dispatcher::new(registry(), Version::new(0, 0, 0, ""), Time::default);
    assert!(dispatcher.is_for_agent());
    let bytes = Arc::new(Bytes::default());
    // Whatever else is asked for, an agent has one layout.
    let monitor = dispatcher.connect(bytes.clone(), Layout::Pretty, Locals::default());
    assert_eq!(bytes.take(), b"");
    assert!(monitor.is_negotiated() && !monitor.is_oob_enabled());
    for (request, expected) in [
        ("{'execute': 'guest-ping', 'id': [1]}", &b"{\"return\": {}, \"id\": [1]}\n"[..]),
        (
            "{'execute': 'guest-sync-delimited', 'arguments': {'id': -1}, 'id': 1}",
            b"\xFF{\"return\": -1, \"id\": 1}\n",
        ),
        (
            "{'execute': 'qmp_capabilities'}",
            b"{\"error\": {\"class\": \"CommandNotFound\", \"desc\": \"The command qmp_capabilities has not been found\"}}\n",
        ),
        (
            "{'execute': 'guest-sync-delimited'}",
            b"{\"error\": {\"class\": \"GenericError\", \"desc\": \"Parameter 'id' is missing\"}}\n",
        ),
        (
            "{'exec-oob': 'guest-ping'}",
            b"{\"error\": {\"class\": \"GenericError\", \"desc\": \"QMP input member 'exec-oob' is unexpected\"}}\n",
        ),
    ] {
        feed(&monitor, request);
        let said = bytes.take();
        assert_eq!(said, expected, "{}", String::from_utf8_lossy(&said));
    }
    // Goes on elsewhere without a greeting, too.
    let state = monitor.state();
    let again = dispatcher.reconnect(bytes.clone(), Layout::Compact, Locals::default(), &state);
    feed(&again, "{'execute': 'guest-ping'}");
    assert_eq!(bytes.take(), b"{\"return\": {}}\n");
}

#[test]
fn filters_keep_nobody_from_synchronising() {
    let dispatcher = Dispatcher::new(registry(), Version::new(0, 0, 0, ""), Time::default);
    let bytes = Arc::new(Bytes::default());
    let monitor = dispatcher.connect(bytes.clone(), Layout::Compact, Locals::default());
    monitor.add_command_filter(|name| name == "guest-info");
    feed(&monitor, "{'execute': 'guest-ping'} {'execute': 'qmp_capabilities'}");
    let said = String::from_utf8(bytes.take()).unwrap();
    assert_eq!(said.matches("has been disabled for this instance").count(), 2, "{said}");
    feed(&monitor, "{'execute': 'guest-sync-delimited', 'arguments': {'id': 7}}");
    assert_eq!(bytes.take(), b"\xFF{\"return\": 7}\n");
}
