// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the mux answers itself, because it cannot change while the server is connected: `query-commands` and
//! `query-qmp-schema`.

use std::time::Duration;

use tests::endpoint::Endpoint;
use tests::scripted::{Peer, behind_mux};
use tests::server::Client;

/// How long nothing may come. A message that must not come would come within this time.
const A_WHILE: Duration = Duration::from_millis(50);

const COMMANDS: &str = r#"[{"name": "query-status"}, {"name": "quit"}]"#;

fn ask(client: &mut Client, command: &str, id: u32) {
    client.send(&format!(r#"{{"execute": "{command}", "arguments": {{}}, "id": {id}}}"#));
}

/// Lets the server answer a command once, so that the mux knows the result.
fn fill(client: &mut Client, peer: &mut Peer, command: &str, result: &str) {
    ask(client, command, 0);
    let request = peer.expect(command);
    peer.answer(&request, result);
    client.expect(&format!(r#"{{"return": {result}, "id": 0}}"#));
}

#[test]
fn introspection_is_asked_for_once_in_a_connection() {
    let (mux, server) = behind_mux(&[]);
    let mut peer = server.accept_and_negotiate("[]");
    let [mut one, mut other] = [mux.negotiated(), mux.negotiated()];
    for command in ["query-commands", "query-qmp-schema"] {
        fill(&mut one, &mut peer, command, COMMANDS);
        for client in [&mut one, &mut other] {
            ask(client, command, 7);
            client.expect(&format!(r#"{{"return": {COMMANDS}, "id": 7}}"#));
        }
    }
    peer.expect_silence(A_WHILE);
}

#[test]
fn the_answer_comes_after_those_to_earlier_commands() {
    let (mux, server) = behind_mux(&[]);
    let mut peer = server.accept_and_negotiate(r#"["oob"]"#);
    let mut client = mux.connect();
    client.negotiate(r#"{"enable": ["oob"]}"#);
    fill(&mut client, &mut peer, "query-commands", COMMANDS);
    ask(&mut client, "stop", 1);
    ask(&mut client, "query-commands", 2);
    ask(&mut client, "cont", 3);
    let request = peer.expect("stop");
    // Others do not wait for it.
    let mut other = mux.negotiated();
    ask(&mut other, "query-commands", 7);
    other.expect(&format!(r#"{{"return": {COMMANDS}, "id": 7}}"#));
    peer.expect_silence(A_WHILE);
    peer.answer(&request, "{}");
    client.expect(r#"{"return": {}, "id": 1}"#);
    client.expect(&format!(r#"{{"return": {COMMANDS}, "id": 2}}"#));
    let request = peer.expect("cont");
    peer.answer(&request, "{}");
    client.expect(r#"{"return": {}, "id": 3}"#);
}

#[test]
fn another_server_is_asked_anew() {
    let (mux, server) = behind_mux(&[]);
    let mut peer = server.accept_and_negotiate("[]");
    fill(&mut mux.negotiated(), &mut peer, "query-commands", COMMANDS);
    drop(peer);
    let mut peer = server.accept_and_negotiate("[]");
    let mut client = mux.negotiated();
    for _ in 0..2 {
        ask(&mut client, "query-version", 1);
        let request = peer.expect("query-version");
        peer.answer(&request, "{}");
        client.expect(r#"{"return": {}, "id": 1}"#);
    }
    fill(&mut client, &mut peer, "query-commands", "[]");
}

#[test]
fn what_is_wrong_with_a_request_the_server_says() {
    let (mux, server) = behind_mux(&[]);
    let mut peer = server.accept_and_negotiate(r#"["oob"]"#);
    let mut client = mux.connect();
    client.negotiate(r#"{"enable": ["oob"]}"#);
    fill(&mut client, &mut peer, "query-commands", COMMANDS);
    for request in [
        r#"{"execute": "query-commands", "arguments": {"a": 1}, "id": 1}"#,
        r#"{"exec-oob": "query-commands", "id": 1}"#,
    ] {
        client.send(request);
        let request = peer.expect("query-commands");
        peer.refuse(&request, "no");
        client.expect(r#"{"id": 1, "error": {"class": "GenericError", "desc": "no"}}"#);
    }
    // An error is not a result.
    ask(&mut client, "query-qmp-schema", 2);
    let request = peer.expect("query-qmp-schema");
    peer.refuse(&request, "not now");
    client.expect(r#"{"id": 2, "error": {"class": "GenericError", "desc": "not now"}}"#);
    fill(&mut client, &mut peer, "query-qmp-schema", "[]");
}

#[test]
fn roles_leave_out_what_they_do_not_allow() {
    let observer = "unix:observer.sock,role=observer";
    let (mux, server) = behind_mux(&["--listen", observer]);
    let mut peer = server.accept_and_negotiate("[]");
    fill(&mut mux.negotiated(), &mut peer, "query-commands", COMMANDS);
    let mut observer = Client::connect(&Endpoint::Unix(mux.dir().join("observer.sock")));
    observer.negotiate("{}");
    ask(&mut observer, "query-commands", 1);
    observer.expect(r#"{"return": [{"name": "query-status"}], "id": 1}"#);
    peer.expect_silence(A_WHILE);
}

#[test]
fn a_server_that_answers_without_measure_is_not_remembered() {
    let (mux, server) = behind_mux(&[]);
    let mut peer = server.accept_and_negotiate("[]");
    let mut client = mux.negotiated();
    let large = format!("\"{}\"", "x".repeat(5 << 20));
    for _ in 0..2 {
        ask(&mut client, "query-qmp-schema", 1);
        let request = peer.expect("query-qmp-schema");
        peer.answer(&request, &large);
        assert_eq!(client.receive().get("id").and_then(tests::json::Json::as_i64), Some(1));
    }
}

#[test]
fn what_is_known_is_not_piled_up_for_a_client_that_does_not_read() {
    let (mux, server) = behind_mux(&[]);
    let mut peer = server.accept_and_negotiate(r#"["oob"]"#);
    let [mut lazy, mut other] = [mux.connect(), mux.connect()];
    for client in [&mut lazy, &mut other] {
        client.negotiate(r#"{"enable": ["oob"]}"#);
    }
    let large = format!("\"{}\"", "x".repeat(1 << 20));
    ask(&mut other, "query-qmp-schema", 0);
    let request = peer.expect("query-qmp-schema");
    peer.answer(&request, &large);
    assert!(other.receive().get("return").is_some());
    (0..8).for_each(|id| ask(&mut lazy, "query-qmp-schema", id));
    // It has what is unread, after this number of turns of another client.
    (1..50).for_each(|id| {
        ask(&mut other, "query-commands", id);
        if id == 1 {
            let request = peer.expect("query-commands");
            peer.answer(&request, "[]");
        }
        other.expect(&format!(r#"{{"return": [], "id": {id}}}"#));
    });
    let clients = other.execute("__org.qmp-server_query-clients");
    let unread = clients.as_array().unwrap_or_default().iter();
    let unread: i64 = unread.filter_map(|client| client.get("unread-bytes")?.as_i64()).sum();
    assert!((1..3 << 20).contains(&unread), "{unread} bytes");
    for id in 0..8 {
        assert_eq!(lazy.receive().get("id").and_then(tests::json::Json::as_i64), Some(id));
    }
    peer.expect_silence(A_WHILE);
}
