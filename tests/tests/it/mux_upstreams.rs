// SPDX-License-Identifier: MIT OR Apache-2.0
//! A mux in front of a server that behaves unusually.

use tests::scripted::behind_mux;
use tests::upstream::{expect_upstream, watcher};

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
    expect_upstream(&mux, true);
    let mut client = watcher(&mux);
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
    mux.process().expect_log("the upstream server does not answer qmp_capabilities");
}

#[test]
fn a_server_that_does_not_greet_is_logged() {
    let (mut mux, server) = behind_mux(&[]);
    let _peer = server.accept();
    mux.process().expect_log("no greeting from the upstream server");
}

#[test]
fn a_server_of_another_protocol_is_called_what_it_is() {
    let (mut mux, server) = behind_mux(&[]);
    let mut peer = server.accept();
    peer.send_bytes(b"QEMU 10.0.2 monitor - type 'help' for more information\r\n(qemu) ");
    mux.process().expect_log("not a QMP server: it speaks QEMU's human monitor (HMP)");
    peer.expect_end();
}

#[test]
fn members_keep_their_order_when_the_server_prints_several_lines() {
    let (mux, server) = behind_mux(&[]);
    let mut peer = server.accept_and_negotiate("[]");
    let mut client = mux.negotiated();
    client.send_command("ask");
    let request = peer.expect("ask");
    let result =
        "{\r\n    \"zeta\": 1,\r\n    \"alpha\": [\r\n        {\r\n        }\r\n    ]\r\n}";
    peer.answer(&request, result);
    client.expect(r#"{"return": {"zeta": 1, "alpha": [{}]}}"#);
}

/// With the id that the mux adds, the request would exceed the limits of the server, whose error then has no id.
#[test]
fn a_request_just_within_the_limits_is_refused_and_harms_nobody() {
    let (mux, server) = behind_mux(&[]);
    let mut peer = server.accept_and_negotiate("[]");
    let [mut client, mut other] = [mux.negotiated(), mux.negotiated()];
    // The rest has 13 tokens, and each element one or two.
    let list = "1,".repeat((2 << 20) / 2 - 8) + "1";
    client.send(&format!(r#"{{"execute": "query-x", "arguments": {{"x": [{list}]}}}}"#));
    let refused = client.receive().to_string();
    assert!(refused.contains("JSON token count limit exceeded"), "{refused}");
    other.send_command("next");
    peer.expect("next");
}

#[test]
fn who_comes_when_the_server_has_ended_in_order_is_answered() {
    let (mux, server) = behind_mux(&[]);
    let mut peer = server.accept_and_negotiate("[]");
    let [mut lazy, mut asker] = [mux.negotiated(), mux.negotiated()];
    // This client has so much unread output that its connection cannot end.
    lazy.send_command("large");
    let request = peer.expect("large");
    peer.answer(&request, &format!("\"{}\"", "x".repeat(3 << 20)));
    asker.send_command("quit");
    let request = peer.expect("quit");
    peer.answer(&request, "{}");
    drop(peer);
    drop(server);
    asker.expect(r#"{"return": {}}"#);
    asker.expect_end();
    let mut late = mux.negotiated();
    late.send_command("query-status");
    let answer = late.receive().to_string();
    assert!(answer.contains("The command query-status cannot be sent to the server"), "{answer}");
}
