// SPDX-License-Identifier: MIT OR Apache-2.0
//! Requests and names that clients of a mux leave behind, while the server behind it does not answer.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::net::sockopt::{set_socket_linger, socket_linger};
use tests::bench::machine::resident_kib;
use tests::json::Json;
use tests::scripted::{Peer, behind_mux};
use tests::server::{Client, Server};
use tests::upstream::open_files;
use tests::waiting::{wait_for, wait_until};

const DONE: &str = r#"{"return": {}}"#;

/// Returns how many requests wait in the mux, and how many in flight have a client that waits for the answer.
fn waiting(operator: &mut Client) -> (i64, usize) {
    operator.send(r#"{"execute": "__org.qmp-server_query-upstream"}"#);
    let answer = operator.receive();
    let status = answer.get("return").unwrap_or_else(|| panic!("{answer}"));
    let queued = status.get("queued").and_then(Json::as_i64).unwrap();
    (queued, status.to_string().matches(r#""monitor": "#).count())
}

#[track_caller]
fn expect_waiting(operator: &mut Client, expected: (i64, usize)) {
    wait_for(|| {
        let actual = waiting(operator);
        if actual == expected { Ok(()) } else { Err(format!("{actual:?}, not {expected:?}")) }
    });
}

/// Passes a descriptor to the server under this name.
fn name(mux: &Server, client: &mut Client, peer: &mut Peer, name: &str) {
    let file = File::create(mux.dir().join("file")).unwrap();
    let getfd = format!(r#"{{"execute": "getfd", "arguments": {{"fdname": "{name}"}}}}"#);
    client.send_with(getfd.as_bytes(), &[file.as_fd()]);
    let request = peer.expect("getfd");
    peer.answer(&request, "{}");
    client.expect(DONE);
}

#[test]
fn what_waits_is_not_sent_when_its_client_has_left() {
    let (mux, server) = behind_mux(&[]);
    let mut peer = server.accept_and_negotiate("[]");
    let [mut operator, mut busy, mut leaving] =
        [mux.negotiated(), mux.negotiated(), mux.negotiated()];
    busy.send_command("slow");
    let slow = peer.expect("slow");
    leaving.send_command("system_reset");
    expect_waiting(&mut operator, (1, 1));
    drop(leaving);
    expect_waiting(&mut operator, (0, 1));
    peer.answer(&slow, "{}");
    busy.expect(DONE);
    busy.send_command("next");
    peer.expect("next");
}

#[test]
fn nobody_waits_for_what_is_in_flight_when_its_client_has_left() {
    let (mux, server) = behind_mux(&[]);
    let mut peer = server.accept_and_negotiate(r#"["oob"]"#);
    let mut operator = mux.negotiated();
    let mut leaving = mux.connect();
    leaving.negotiate(r#"{"enable": ["oob"]}"#);
    leaving.send_command("in-band");
    let first = peer.expect("in-band");
    leaving.send(r#"{"exec-oob": "out-of-band"}"#);
    let second = peer.expect("out-of-band");
    expect_waiting(&mut operator, (0, 2));
    drop(leaving);
    expect_waiting(&mut operator, (0, 0));
    for request in [second, first] {
        peer.answer(&request, "\"nobody's\"");
    }
    operator.send_command("next");
    let next = peer.expect("next");
    peer.answer(&next, "{}");
    operator.expect(DONE);
}

#[test]
fn clients_that_left_keep_no_memory() {
    const VISITS: usize = 40;
    const LENGTH: usize = 4 << 20;
    let (mut mux, server) = behind_mux(&[]);
    let mut peer = server.accept_and_negotiate("[]");
    let [mut operator, mut busy] = [mux.negotiated(), mux.negotiated()];
    busy.send_command("slow");
    let _slow = peer.expect("slow");
    let padding = "x".repeat(LENGTH);
    let memory = |mux: &mut Server| resident_kib(mux.process().child().id()).unwrap();
    let before = memory(&mut mux);
    for _ in 0..VISITS {
        let mut leaving = mux.negotiated();
        leaving.send(&format!(r#"{{"execute": "x", "arguments": {{"padding": "{padding}"}}}}"#));
        expect_waiting(&mut operator, (1, 1));
        drop(leaving);
        expect_waiting(&mut operator, (0, 1));
    }
    let grown = memory(&mut mux).saturating_sub(before);
    let all = (VISITS * LENGTH) as u64 >> 10;
    assert!(grown < all / 3, "{grown} KiB are kept of {all}");
}

#[test]
fn names_that_are_left_are_closed_between_the_commands_of_others() {
    let (mux, server) = behind_mux(&[]);
    let mut peer = server.accept_and_negotiate("[]");
    let [mut leaving, mut other] = [mux.negotiated(), mux.negotiated()];
    for number in 0..10 {
        name(&mux, &mut leaving, &mut peer, &format!("tap{number}"));
    }
    drop(leaving);
    let mut close = peer.expect("closefd");
    for number in 0..9 {
        let command = format!("other-{number}");
        other.send_command(&command);
        // The one that was not asked has been sent already.
        other.send(r#"{"execute": "__org.qmp-server_query-upstream"}"#);
        peer.answer(&close, "{}");
        let mut requests = Vec::new();
        while requests.len() < 2 {
            let request = peer.request();
            let is_close = request.command == "closefd";
            peer.answer(&request, "{}");
            requests.push(is_close);
            if !is_close {
                break;
            }
        }
        assert!(requests.contains(&false), "{command} waits for all of them");
        other.expect(DONE);
        other.receive();
        if requests.contains(&true) {
            return;
        }
        close = peer.expect("closefd");
    }
}

#[test]
fn a_socket_that_the_server_has_been_given_is_left_as_it_was() {
    let (mut mux, server) = behind_mux(&[]);
    let mut peer = server.accept_and_negotiate("[]");
    let mut client = mux.negotiated();
    let (socket, _far) = UnixStream::pair().unwrap();
    let linger = Some(Duration::from_secs(7));
    set_socket_linger(&socket, linger).unwrap();
    let getfd = r#"{"execute": "getfd", "arguments": {"fdname": "migration"}}"#;
    client.send_with(getfd.as_bytes(), &[socket.as_fd()]);
    let request = peer.expect("getfd");
    peer.answer(&request, "{}");
    client.expect(DONE);
    let ours = std::fs::read_link(format!("/proc/self/fd/{}", socket.as_raw_fd())).unwrap();
    wait_until(|| open_files(mux.process()).iter().all(|open| *open != *ours));
    assert_eq!(socket_linger(&socket).unwrap(), linger);
}

#[test]
fn a_name_is_forgotten_when_a_command_has_taken_its_descriptor() {
    let (mux, server) = behind_mux(&[]);
    let mut peer = server.accept_and_negotiate("[]");
    let [mut leaving, mut other] = [mux.negotiated(), mux.negotiated()];
    for tap in ["taken", "kept"] {
        name(&mux, &mut leaving, &mut peer, tap);
        leaving.send(&format!(r#"{{"execute": "netdev_add", "arguments": {{"fd": "{tap}"}}}}"#));
        let request = peer.expect("netdev_add");
        match tap {
            "taken" => peer.answer(&request, "{}"),
            _ => peer.refuse(&request, "no"),
        }
        leaving.receive();
    }
    drop(leaving);
    let close = peer.expect("closefd");
    assert!(close.line.contains("-kept\""), "{}", close.line);
    peer.answer(&close, "{}");
    other.send_command("other");
    peer.expect("other");
}

#[test]
fn a_name_can_be_the_value_of_a_property() {
    let (mux, server) = behind_mux(&[]);
    let mut peer = server.accept_and_negotiate("[]");
    let mut client = mux.negotiated();
    name(&mux, &mut client, &mut peer, "x");
    client.send(
        r#"{"execute": "qom-set", "arguments": {"path": "/objects/i", "property": "fd", "value": "x"}}"#,
    );
    let request = peer.expect("qom-set");
    assert!(request.line.contains("-x\"") && request.line.contains(r#""property": "fd""#));
}
