// SPDX-License-Identifier: MIT OR Apache-2.0
//! A mux in front of a server that works: which requests reach it, in which order and spelling.

use std::time::Duration;

use tests::scripted::behind_mux;
use tests::server::{Client, Server, refusal};

/// How long nothing may come. A message that must not come would come within this time.
const A_WHILE: Duration = Duration::from_millis(100);

/// Sends a command, which the test lets the scripted server answer.
fn ask(client: &mut Client, command: &str, id: u32) {
    client.send(&format!(r#"{{"execute": "{command}", "id": {id}}}"#));
}

fn with_oob(mux: &Server) -> Client {
    let mut client = mux.connect();
    client.negotiate(r#"{"enable": ["oob"]}"#);
    client
}

#[test]
fn clients_are_greeted_in_the_name_of_the_server() {
    let (mux, server) = behind_mux(&[]);
    let _peer = server.accept_and_negotiate("[]");
    let mut client = mux.connect();
    client.expect(
        r#"{"QMP": {"version": {"qemu": {"micro": 0, "minor": 0, "major": 1}, "package": "scripted"}, "capabilities": []}}"#,
    );
    client.send(r#"{"execute": "qmp_capabilities", "arguments": {"enable": ["oob"]}}"#);
    client
        .expect(r#"{"error": {"class": "GenericError", "desc": "Capability oob not available"}}"#);
}

#[test]
fn out_of_band_execution_is_enabled_where_it_is_offered() {
    for (capabilities, enabled) in [("[]", None), (r#"["oob"]"#, Some(r#"{"enable": ["oob"]}"#))] {
        let (_mux, server) = behind_mux(&[]);
        let mut peer = server.accept();
        peer.greet(capabilities);
        let request = peer.negotiate();
        let arguments = request.message.get("arguments").map(ToString::to_string);
        assert_eq!(arguments.as_deref(), enabled);
    }
}

#[test]
fn what_does_not_change_is_passed_on_as_it_is_spelt() {
    let (mux, server) = behind_mux(&[]);
    let mut peer = server.accept_and_negotiate("[]");
    let mut client = mux.negotiated();
    let arguments = r#"{"b":1.50,  "a": [ 1 ,2e0], "\u0041": "\/"}"#;
    client
        .send(&format!(r#"{{"id": {{"x": [ ]}}, "arguments": {arguments}, "execute": "do-it"}}"#));
    let request = peer.expect("do-it");
    assert!(request.line.contains(arguments), "{}", request.line);
    peer.answer(&request, r#"{"z": 1.50, "a": "\u00E9"}"#);
    client.expect(r#"{"return": {"z": 1.50, "a": "\u00E9"}, "id": {"x": []}}"#);
}

#[test]
fn a_server_without_out_of_band_execution_has_one_request_at_a_time() {
    let (mux, server) = behind_mux(&[]);
    let mut peer = server.accept_and_negotiate("[]");
    let mut clients: Vec<_> = (0..3).map(|_| mux.negotiated()).collect();
    let mut first = clients.remove(0);
    ask(&mut first, "first", 0);
    let in_flight = peer.expect("first");
    for (number, client) in clients.iter_mut().enumerate() {
        ask(client, &format!("next-{number}"), 7);
    }
    peer.expect_silence(A_WHILE);
    peer.answer(&in_flight, "0");
    first.expect(r#"{"return": 0, "id": 0}"#);
    for _ in 0..2 {
        let request = peer.request();
        peer.expect_silence(Duration::ZERO);
        peer.answer(&request, &format!("\"{}\"", request.command));
    }
    for (number, client) in clients.iter_mut().enumerate() {
        client.expect(&format!(r#"{{"return": "next-{number}", "id": 7}}"#));
    }
}

#[test]
fn with_it_several_are_in_flight_and_answers_may_come_in_any_order() {
    let (mux, server) = behind_mux(&[]);
    let mut peer = server.accept_and_negotiate(r#"["oob"]"#);
    let mut clients: Vec<_> = (0..5).map(|_| mux.negotiated()).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        ask(client, &format!("command-{number}"), 7);
    }
    let mut requests: Vec<_> = clients.iter().map(|_| peer.request()).collect();
    requests.reverse();
    for request in &requests {
        peer.answer(request, &format!("\"{}\"", request.command));
    }
    for (number, client) in clients.iter_mut().enumerate() {
        client.expect(&format!(r#"{{"return": "command-{number}", "id": 7}}"#));
    }
}

#[test]
fn a_clients_own_requests_stay_in_order() {
    let (mux, server) = behind_mux(&[]);
    let mut peer = server.accept_and_negotiate(r#"["oob"]"#);
    let mut client = with_oob(&mux);
    (0..3).for_each(|id| ask(&mut client, &format!("command-{id}"), id));
    for id in 0..3 {
        let request = peer.expect(&format!("command-{id}"));
        peer.expect_silence(Duration::ZERO);
        peer.answer(&request, "{}");
        client.expect(&format!(r#"{{"return": {{}}, "id": {id}}}"#));
    }
}

#[test]
fn out_of_band_requests_overtake() {
    let (mux, server) = behind_mux(&[]);
    let mut peer = server.accept_and_negotiate(r#"["oob"]"#);
    let mut slow = mux.negotiated();
    ask(&mut slow, "slow", 1);
    let in_flight = peer.expect("slow");
    let mut quick = with_oob(&mux);
    ask(&mut quick, "waits", 2);
    let waits = peer.expect("waits");
    quick.send(r#"{"exec-oob": "quick", "id": 3}"#);
    let request = peer.expect("quick");
    assert!(request.message.get("exec-oob").is_some(), "{}", request.message);
    peer.answer(&request, "{}");
    quick.expect(r#"{"return": {}, "id": 3}"#);
    peer.answer(&waits, "{}");
    quick.expect(r#"{"return": {}, "id": 2}"#);
    peer.answer(&in_flight, "{}");
    slow.expect(r#"{"return": {}, "id": 1}"#);
}

#[test]
fn an_event_keeps_its_place_among_answers() {
    let (mux, server) = behind_mux(&[]);
    let mut peer = server.accept_and_negotiate(r#"["oob"]"#);
    let [mut one, mut other] = [mux.negotiated(), mux.negotiated()];
    ask(&mut one, "one", 1);
    ask(&mut other, "other", 2);
    let mut requests = [peer.request(), peer.request()];
    requests.sort_by(|a, b| a.command.cmp(&b.command));
    peer.emit("A");
    peer.answer(&requests[0], "{}");
    peer.emit("B");
    peer.answer(&requests[1], "{}");
    peer.emit("C");
    let event = |name: &str| {
        format!(r#"{{"timestamp": {{"seconds": 1, "microseconds": 2}}, "event": "{name}"}}"#)
    };
    one.expect(&event("A"));
    one.expect(r#"{"return": {}, "id": 1}"#);
    one.expect(&event("B"));
    one.expect(&event("C"));
    other.expect(&event("A"));
    other.expect(&event("B"));
    other.expect(r#"{"return": {}, "id": 2}"#);
    other.expect(&event("C"));
}

#[test]
fn what_is_not_answered_in_time_is_answered_with_an_error_and_the_late_answer_is_dropped() {
    let (mut mux, server) = behind_mux(&["--deadline", "never-answered=0.05"]);
    let mut peer = server.accept_and_negotiate(r#"["oob"]"#);
    let [mut client, mut other] = [mux.negotiated(), mux.negotiated()];
    ask(&mut client, "never-answered", 1);
    let late = peer.expect("never-answered");
    client.expect(
        r#"{"id": 1, "error": {"class": "GenericError", "desc": "The command never-answered was not answered within 0.05 seconds"}}"#,
    );
    ask(&mut other, "another", 1);
    let another = peer.expect("another");
    ask(&mut client, "next", 2);
    let next = peer.expect("next");
    peer.answer(&late, "\"late\"");
    peer.answer(&next, "\"next\"");
    peer.answer(&another, "\"another\"");
    client.expect(r#"{"return": "next", "id": 2}"#);
    other.expect(r#"{"return": "another", "id": 1}"#);
    mux.process().expect_log("an answer came too late");
}

#[test]
fn a_name_cannot_forge_a_line_of_the_log() {
    let (mut mux, server) = behind_mux(&["--deadline", "0.05"]);
    let mut peer = server.accept_and_negotiate("[]");
    let mut client = mux.negotiated();
    client.send(r#"{"execute": "query-\nERROR forged"}"#);
    peer.request();
    assert!(client.receive().to_string().contains("within 0.05 seconds"));
    mux.process().expect_log(r#"command="query-\nERROR forged""#);
}

#[test]
fn a_deadline_for_all_commands_leaves_those_alone_that_have_their_own() {
    let (mux, server) = behind_mux(&["--deadline", "0.05", "--deadline", "patient=1000"]);
    let mut peer = server.accept_and_negotiate(r#"["oob"]"#);
    let [mut client, mut patient] = [mux.negotiated(), mux.negotiated()];
    ask(&mut patient, "patient", 1);
    let request = peer.expect("patient");
    ask(&mut client, "other", 2);
    peer.expect("other");
    assert!(client.receive().to_string().contains("within 0.05 seconds"));
    peer.answer(&request, "{}");
    patient.expect(r#"{"return": {}, "id": 1}"#);
}

#[test]
fn a_request_whose_deadline_has_passed_while_it_waited_is_not_sent() {
    let (mux, server) = behind_mux(&["--deadline", "waits=0.05"]);
    let mut peer = server.accept_and_negotiate("[]");
    let [mut first, mut second] = [mux.negotiated(), mux.negotiated()];
    ask(&mut first, "first", 1);
    let in_flight = peer.expect("first");
    ask(&mut second, "waits", 2);
    assert!(second.receive().to_string().contains("within 0.05 seconds"));
    ask(&mut second, "next", 3);
    peer.answer(&in_flight, "{}");
    let next = peer.expect("next");
    peer.answer(&next, "{}");
    second.expect(r#"{"return": {}, "id": 3}"#);
}

#[test]
fn servers_that_cannot_be_connected_to_are_refused_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let listen = format!("unix:{}", dir.path().join("qmp.sock").display());
    for (address, expected) in [
        ("stdio", "only a server that listens elsewhere can be connected to"),
        ("systemd", "systemd: systemd has passed no such socket"),
        ("fd:77", "fd:77: there is no such descriptor"),
        ("fd:0", "fd:0: is not a stream socket"),
        ("tls:localhost:1", "TLS needs ca=FILE"),
        ("tcp:localhost:1,ipv4=off,ipv6=off", "without IPv4 and IPv6 there is no address left"),
    ] {
        let line = refusal(&["mux", "--upstream", address, "--listen", &listen]);
        assert!(line.contains(expected), "{line}");
    }
}
