// SPDX-License-Identifier: MIT OR Apache-2.0
//! `qmp-server call` with servers that misbehave, and with signals.

use std::path::Path;
use std::process::Stdio;
use std::thread;

use tempfile::TempDir;
use tests::process::{Finished, Process, run};
use tests::scripted::{Peer, Scripted};
use tests::server::{LIMIT, Server, qmp_server};

/// A scripted server, and calls to it.
struct Played {
    dir: TempDir,
    scripted: Scripted,
}

impl Played {
    fn listen() -> Played {
        let dir = tempfile::tempdir().unwrap();
        let scripted = Scripted::listen(&dir.path().join("qmp.sock"));
        Played { dir, scripted }
    }

    fn path(&self) -> String {
        let path: &Path = &self.dir.path().join("qmp.sock");
        path.to_str().unwrap().to_owned()
    }

    /// Calls the server while it plays its part.
    fn call(&self, arguments: &[&str], play: impl FnOnce(&Scripted) + Send) -> Finished {
        let path = self.path();
        let arguments = [&["call", &path], arguments].concat();
        thread::scope(|scope| {
            let playing = scope.spawn(|| play(&self.scripted));
            let finished = run(&mut qmp_server(&arguments), "", LIMIT).unwrap();
            playing.join().unwrap();
            finished
        })
    }
}

/// The call must fail without a result, and with this message.
#[track_caller]
fn check_failure(finished: &Finished, expected: &str) {
    assert_eq!(finished.status.code(), Some(2), "{finished:?}");
    assert_eq!(finished.stdout, "", "{finished:?}");
    assert!(finished.stderr.contains(expected), "{finished:?}");
    assert_eq!(finished.stderr.lines().count(), 1, "{finished:?}");
}

fn greeted(scripted: &Scripted) -> Peer {
    scripted.accept_and_negotiate("[]")
}

#[test]
fn what_the_server_owes_another_call_is_passed_over() {
    let played = Played::listen();
    let mut first = String::new();
    let finished = played.call(&["--timeout", "0.2", "query-slow"], |scripted| {
        let mut peer = greeted(scripted);
        first = peer.expect("query-slow").id;
        peer.expect_end();
    });
    check_failure(&finished, "no response within 0.2 s");
    let finished = played.call(&["query-quick"], |scripted| {
        let mut peer = scripted.accept();
        // QEMU sends answers to an earlier client before the one to negotiation, but a server may do so at any time.
        peer.send(r#"{"error": {"class": "GenericError", "desc": "for the first"}}"#);
        peer.greet("[]");
        peer.send(&format!(r#"{{"return": {{"of": "another"}}, "id": {first}}}"#));
        peer.negotiate();
        let request = peer.expect("query-quick");
        assert_ne!(request.id, first);
        peer.send(&format!(r#"{{"return": {{"of": "another"}}, "id": {first}}}"#));
        peer.send(r#"{"return": {"of": "nobody"}}"#);
        peer.send(r#"{"return": {}, "id": "qmp-server"}"#);
        peer.answer(&request, r#"{"of": "us"}"#);
    });
    assert!(finished.status.success(), "{finished:?}");
    assert_eq!(finished.stdout, "{\"of\": \"us\"}\n");
}

#[test]
fn an_error_without_an_id_is_about_our_request() {
    let played = Played::listen();
    let finished = played.call(&["query-quick"], |scripted| {
        let mut peer = greeted(scripted);
        peer.expect("query-quick");
        peer.send(r#"{"error": {"class": "GenericError", "desc": "JSON parse error"}}"#);
        peer.expect_end();
    });
    assert_eq!(finished.status.code(), Some(1), "{finished:?}");
    assert_eq!(finished.stderr, "GenericError: JSON parse error\n");
}

#[test]
fn the_timeout_is_for_the_whole_call() {
    let played = Played::listen();
    let silent = |_: &Scripted| {};
    let finished = played.call(&["--timeout", "0.2", "query-name"], silent);
    check_failure(&finished, "no greeting; is another client connected?");
    drop(played.scripted.accept());
    let finished = played.call(&["--timeout", "0.2", "query-name"], |scripted| {
        let mut peer = scripted.accept();
        peer.greet("[]");
        peer.expect("qmp_capabilities");
        peer.expect_end();
    });
    check_failure(&finished, "does not respond to the negotiation");
    // Endless events do not extend the deadline.
    let finished = played.call(&["--timeout", "0.2", "query-name"], |scripted| {
        let peer = greeted(scripted);
        let mut stream = peer.into_stream();
        let event = b"{\"event\": \"X\", \"timestamp\": {\"seconds\": 1, \"microseconds\": 2}}\r\n";
        while std::io::Write::write_all(&mut stream, event).is_ok() {}
    });
    check_failure(&finished, "no response within 0.2 s");
}

#[test]
fn a_server_that_closes_the_connection_is_told_of() {
    let played = Played::listen();
    let finished = played.call(&["query-name"], |scripted| drop(scripted.accept()));
    check_failure(&finished, "the server has closed the connection without a greeting");
    let finished = played.call(&["query-name"], |scripted| {
        let mut peer = scripted.accept();
        peer.greet("[]");
        peer.expect("qmp_capabilities");
    });
    check_failure(&finished, "without a response to the negotiation");
    let finished = played.call(&["query-name"], |scripted| {
        greeted(scripted).expect("query-name");
    });
    check_failure(&finished, "the server has closed the connection without a response");
}

#[test]
fn a_server_that_dies_while_events_are_awaited_is_told_of() {
    let events = |command: &'static str, last: Option<&'static str>| {
        let played = Played::listen();
        played.call(&[command, "--events", "60"], move |scripted| {
            let mut peer = greeted(scripted);
            let request = peer.expect(command);
            peer.answer(&request, "{}");
            last.into_iter().for_each(|event| peer.emit(event));
        })
    };
    let finished = events("query-name", Some("RESUME"));
    assert_eq!(finished.status.code(), Some(2), "{finished:?}");
    assert!(finished.stdout.contains("RESUME"), "{finished:?}");
    assert!(finished.stderr.contains("the server has closed the connection"), "{finished:?}");
    // The end of the connection is expected if the command ends the server, or after the event that the machine has ended.
    assert!(events("quit", None).status.success());
    assert!(events("system_powerdown", Some("SHUTDOWN")).status.success());
}

#[test]
fn servers_of_other_protocols_are_called_what_they_are() {
    let played = Played::listen();
    let finished = played.call(&["query-name"], |scripted| {
        let mut peer = scripted.accept();
        peer.send("HTTP/1.1 400 Bad Request");
        peer.expect_end();
    });
    check_failure(&finished, "not a QMP server: it speaks HTTP");
}

#[test]
fn a_greeting_needs_no_package() {
    let played = Played::listen();
    let finished = played.call(&["query-name"], |scripted| {
        let mut peer = scripted.accept();
        peer.send(r#"{"QMP": {"version": {"qemu": {"micro": 0, "minor": 2, "major": 9}}, "capabilities": []}}"#);
        peer.negotiate();
        let request = peer.expect("query-name");
        peer.answer(&request, "{}");
    });
    assert!(finished.status.success(), "{finished:?}");
}

#[test]
fn a_trace_that_nobody_reads_holds_up_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("qmp.sock");
    let (reader, writer) = std::io::pipe().unwrap();
    let listen = format!("unix:{}", path.display());
    let mut command = qmp_server(["serve", "--listen", &listen, "--trace", "*"]);
    let mut server = command.stdout(Stdio::null()).stderr(writer).spawn().unwrap();
    drop(command);
    let endpoint = tests::endpoint::Endpoint::Unix(path);
    let mut client = tests::server::Client::connect(&endpoint);
    client.receive();
    // Eight times the capacity of the log and the pipe.
    let long = "x".repeat(1 << 20);
    for _ in 0..4 {
        client.send(&format!(r#"{{"execute": "qmp_capabilities", "arguments": {{"{long}": 1}}}}"#));
        client.receive();
    }
    drop(reader);
    server.kill().unwrap();
    server.wait().unwrap();
}

#[test]
fn sighup_ends_neither_a_server_nor_a_mux() {
    let server = Server::start();
    let mux_dir = tempfile::tempdir().unwrap();
    let socket = mux_dir.path().join("mux.sock");
    let listen = format!("unix:{}", socket.display());
    let upstream = server.endpoint().to_string();
    let mut mux = qmp_server(["mux", "--upstream", &upstream, "--listen", &listen]);
    let mux = Process::start(&mut mux).unwrap();
    let endpoint = tests::endpoint::Endpoint::Unix(socket);
    let mut client = tests::server::Client::connect(&endpoint);
    client.receive();
    for _ in 0..2 {
        mux.signal(tests::process::Signal::HUP).unwrap();
        server.signal(tests::process::Signal::HUP);
        client.send(r#"{"execute": "qmp_capabilities"}"#);
        client.receive();
    }
}
