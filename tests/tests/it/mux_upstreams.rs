// SPDX-License-Identifier: MIT OR Apache-2.0
//! Servers behind a mux that do what a mux has to bear with.

use std::time::{Duration, Instant};

use tests::scripted::behind_mux;
use tests::server::{Client, LIMIT, Server};

fn ask(client: &mut Client, command: &str) {
    client.send(&format!(r#"{{"execute": "{command}"}}"#));
}

/// The program must log this, some time soon.
#[track_caller]
fn expect_log(mux: &mut Server, text: &str) {
    let deadline = Instant::now() + LIMIT;
    while !mux.process().stderr().contains(text) {
        assert!(Instant::now() < deadline, "no '{text}' in: {}", mux.process().stderr());
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_greeting_needs_neither_a_package_nor_a_version() {
    for version in [r#"{"qemu": {"micro": 0, "minor": 2, "major": 9}}"#, "{}"] {
        let (mux, server) = behind_mux(&[]);
        let mut peer = server.accept();
        peer.send(&format!(r#"{{"QMP": {{"version": {version}, "capabilities": []}}}}"#));
        peer.negotiate();
        mux.connect().negotiate("{}");
    }
}

#[test]
fn an_event_that_comes_with_the_response_to_negotiation_is_relayed() {
    let (mux, server) = behind_mux(&[]);
    let peer = server.accept_and_negotiate("[]");
    let mut client = mux.negotiated();
    drop(peer);
    client.expect_event("__org.qmp-server_UPSTREAM_DISCONNECTED");
    let mut peer = server.accept();
    peer.greet("[]");
    let request = peer.expect("qmp_capabilities");
    let event = r#"{"event": "DEVICE_DELETED", "timestamp": {"seconds": 1, "microseconds": 2}}"#;
    peer.send(&format!("{{\"return\": {{}}, \"id\": {}}}\r\n{event}", request.id));
    client.expect_event("__org.qmp-server_UPSTREAM_CONNECTED");
    client.expect_event("DEVICE_DELETED");
}

#[test]
fn a_server_that_does_not_answer_negotiation_is_logged() {
    let (mut mux, server) = behind_mux(&[]);
    let mut peer = server.accept();
    peer.greet("[]");
    peer.expect("qmp_capabilities");
    expect_log(&mut mux, "the upstream server does not answer qmp_capabilities");
}

#[test]
fn a_server_that_does_not_greet_is_logged() {
    let (mut mux, server) = behind_mux(&[]);
    let _peer = server.accept();
    expect_log(&mut mux, "no greeting from the upstream server");
}

#[test]
fn a_server_of_another_protocol_is_called_what_it_is() {
    let (mut mux, server) = behind_mux(&[]);
    let mut peer = server.accept();
    peer.send_bytes(b"QEMU 10.0.2 monitor - type 'help' for more information\r\n(qemu) ");
    expect_log(&mut mux, "not a QMP server: it speaks QEMU's human monitor (HMP)");
    peer.expect_end();
}

#[test]
fn members_keep_their_order_when_the_server_prints_several_lines() {
    let (mux, server) = behind_mux(&[]);
    let mut peer = server.accept_and_negotiate("[]");
    let mut client = mux.negotiated();
    ask(&mut client, "ask");
    let request = peer.expect("ask");
    let result =
        "{\r\n    \"zeta\": 1,\r\n    \"alpha\": [\r\n        {\r\n        }\r\n    ]\r\n}";
    peer.answer(&request, result);
    client.expect(r#"{"return": {"zeta": 1, "alpha": [{}]}}"#);
}

/// With the id that is added, it would be beyond them, and the server could not say whose request that was.
#[test]
fn a_request_just_within_the_limits_is_refused_and_harms_nobody() {
    let (mux, server) = behind_mux(&[]);
    let mut peer = server.accept_and_negotiate("[]");
    let [mut client, mut other] = [mux.negotiated(), mux.negotiated()];
    // 13 tokens besides, and one or two for each element.
    let list = "1,".repeat((2 << 20) / 2 - 8) + "1";
    client.send(&format!(r#"{{"execute": "query-x", "arguments": {{"x": [{list}]}}}}"#));
    let refused = client.receive().to_string();
    assert!(refused.contains("JSON token count limit exceeded"), "{refused}");
    ask(&mut other, "next");
    peer.expect("next");
}

#[test]
fn who_comes_when_the_server_has_ended_in_order_is_answered() {
    let (mux, server) = behind_mux(&[]);
    let mut peer = server.accept_and_negotiate("[]");
    let [mut lazy, mut asker] = [mux.negotiated(), mux.negotiated()];
    // As much waits for this one as holds up the end of its connection.
    ask(&mut lazy, "large");
    let request = peer.expect("large");
    peer.answer(&request, &format!("\"{}\"", "x".repeat(3 << 20)));
    ask(&mut asker, "quit");
    let request = peer.expect("quit");
    peer.answer(&request, "{}");
    drop(peer);
    drop(server);
    asker.expect(r#"{"return": {}}"#);
    asker.expect_end();
    let mut late = mux.negotiated();
    ask(&mut late, "query-status");
    let answer = late.receive().to_string();
    assert!(answer.contains("The command query-status cannot be sent to the server"), "{answer}");
}
