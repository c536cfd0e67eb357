// SPDX-License-Identifier: MIT OR Apache-2.0
//! Servers behind a mux that do not answer: which deadlines commands have, and who is told.

use tests::json::Json;
use tests::scripted::behind_mux;
use tests::server::{Client, Server, refusal};
use tests::waiting::wait_for;

const QUERY: &str = "__org.qmp-server_query-upstream";

/// The status of the upstream server, when it says this of whether it hangs.
fn status(client: &mut Client, hangs: bool) -> Json {
    wait_for(|| {
        let status = client.execute(QUERY);
        match status.get("hangs").map(ToString::to_string) {
            Some(text) if text == hangs.to_string() => Ok(status),
            other => Err(format!("hangs: {other:?}, expected {hangs}")),
        }
    })
}

fn lines(mux: &mut Server, text: &str) -> usize {
    mux.process().stderr().lines().filter(|line| line.contains(text)).count()
}

#[test]
fn a_server_that_hangs_is_named_once_and_again_when_it_answers() {
    let (mut mux, server) = behind_mux(&["--hang-after", "0.05"]);
    let mut peer = server.accept_and_negotiate(r#"["oob"]"#);
    let [mut slow, mut other, mut operator] = [(); 3].map(|()| mux.negotiated());
    let idle = status(&mut operator, false);
    assert!(idle.get("oldest-ms").is_none(), "{idle}");
    for round in 1..3 {
        slow.send(r#"{"execute": "stop", "id": 1}"#);
        let first = peer.expect("stop");
        other.send(r#"{"execute": "query-status", "id": 2}"#);
        let second = peer.expect("query-status");
        let hanging = status(&mut operator, true);
        let age = hanging.get("oldest-ms").and_then(Json::as_i64);
        assert!(age.is_some_and(|age| age >= 50), "{hanging}");
        mux.process().expect_log("hangs: a command is unanswered");
        // What was sent first is what it hangs in.
        peer.answer(&second, "{}");
        other.expect(r#"{"return": {}, "id": 2}"#);
        status(&mut operator, true);
        peer.answer(&first, "{}");
        slow.expect(r#"{"return": {}, "id": 1}"#);
        status(&mut operator, false);
        mux.process().expect_log("answers again");
        assert_eq!(lines(&mut mux, "hangs: a command is unanswered"), round);
        assert_eq!(lines(&mut mux, r#"command="stop""#), round);
    }
    // A server that has gone does not hang.
    slow.send(r#"{"execute": "stop", "id": 1}"#);
    peer.expect("stop");
    status(&mut operator, true);
}

#[test]
fn a_command_that_is_named_has_its_own_deadline_beside_a_profile() {
    let door = "unix:door.sock,deadline-profile=qemu";
    let deadlines = ["--deadline", "query-status=0.05", "--deadline-profile", "qemu"];
    let (mux, server) = behind_mux(&[&deadlines[..], &["--listen", door]].concat());
    let mut peer = server.accept_and_negotiate(r#"["oob"]"#);
    let door = tests::endpoint::Endpoint::Unix(mux.dir().join("door.sock"));
    let [mut one, mut other] = [mux.connect(), Client::connect(&door)];
    for client in [&mut one, &mut other] {
        client.negotiate("{}");
        client.send(r#"{"execute": "query-status", "id": 1}"#);
        peer.expect("query-status");
        client.expect(
            r#"{"id": 1, "error": {"class": "GenericError", "desc": "The command query-status was not answered within 0.05 seconds"}}"#,
        );
    }
}

#[test]
fn profiles_that_are_not_there_are_named() {
    let listen = ["mux", "--upstream", "unix:a", "--listen"];
    let unknown = "'fast' is no deadline profile, only qemu and off";
    for rest in [&["unix:b,deadline-profile=fast"][..], &["unix:b", "--deadline-profile", "fast"]] {
        let line = refusal(&[&listen[..], rest].concat());
        assert!(line.contains(unknown), "{line}");
    }
    let line = refusal(&[&listen[..], &["unix:b", "--hang-after", "0"]].concat());
    assert!(line.contains("expected a number of seconds above zero"), "{line}");
}
