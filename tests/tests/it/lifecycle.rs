// SPDX-License-Identifier: MIT OR Apache-2.0
//! Start and end of clients, servers and sockets; signals.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpListener;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Stdio;

use tests::endpoint::Endpoint;
use tests::process::{Process, Signal};
use tests::server::{Client, LIMIT, Server, qmp_server};

#[track_caller]
fn check_clean_exit(server: &mut Server) {
    let status = server.wait();
    assert!(status.success(), "{status}: {}", server.process().stderr());
    assert!(!server.socket().exists(), "the socket has been left behind");
    assert!(!server.dir().join("pretty.sock").exists(), "the other socket has been left behind");
}

#[test]
fn quit_ends_the_server_and_removes_its_sockets() {
    let mut server = Server::start();
    let mut client = server.negotiated();
    client.send(r#"{"execute": "quit", "id": "bye"}"#);
    client.expect_event("SHUTDOWN");
    client.expect(r#"{"return": {}, "id": "bye"}"#);
    client.expect_end();
    check_clean_exit(&mut server);
}

#[test]
fn signals_end_the_server_and_remove_its_sockets() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut server = Server::start();
        let mut client = server.negotiated();
        let mut stranger = server.connect();
        stranger.receive();
        server.signal(signal);
        let event = client.receive();
        assert_eq!(event.get("event"), Some(&"SHUTDOWN".into()), "{event}");
        let data = event.get("data").map(ToString::to_string);
        assert_eq!(data.as_deref(), Some(r#"{"guest": false, "reason": "host-signal"}"#));
        client.expect_end();
        stranger.expect_end();
        check_clean_exit(&mut server);
    }
}

#[test]
fn a_stale_socket_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    // A dropped listener leaves its socket file behind.
    drop(UnixListener::bind(dir.path().join("qmp.sock")).unwrap());
    let server = Server::start_in(dir, ["serve", "--name", "confvm", "--listen", "unix:{sock}"]);
    server.negotiated().execute("query-name");
}

#[test]
fn qemus_spelling_of_a_socket_is_understood() {
    let server =
        Server::start_with(["--name", "confvm", "--listen", "unix:{sock},server=on,wait=off"]);
    assert_eq!(server.negotiated().execute("query-name").to_string(), r#"{"name": "confvm"}"#);
    assert_eq!(
        server.negotiated().execute("query-status").to_string(),
        r#"{"status": "running", "running": true}"#,
        "without --paused the machine runs"
    );
}

#[test]
fn name_and_uuid_are_those_of_the_command_line() {
    let uuid = "c0ffee00-1234-5678-9abc-def012345678";
    let server =
        Server::start_with(["serve", "--name", "a b", "--uuid", uuid, "--listen", "unix:{sock}"]);
    let mut client = server.negotiated();
    assert_eq!(client.execute("query-name").to_string(), r#"{"name": "a b"}"#);
    assert_eq!(client.execute("query-uuid").to_string(), format!(r#"{{"UUID": "{uuid}"}}"#));
}

#[test]
fn without_an_address_the_server_says_where_it_listens() {
    let mut server = Server::start_with([]);
    let mut stdout = server.process().child().stdout.take().unwrap();
    server.negotiated().execute("query-status");
    server.process().stop().unwrap();
    let mut said = String::new();
    stdout.read_to_string(&mut said).unwrap();
    said.push_str(&server.process().stderr());
    assert!(said.contains("unix:qmp.sock"), "{said:?} does not name the socket");
    assert!(said.contains("qmp-server"), "{said:?} names no command to try");
}

#[test]
fn tcp_on_loopback_serves_the_same_machine() {
    // Another program may take the port in between, but hardly twice.
    let started = (0..3).find_map(|_| {
        let port = TcpListener::bind("127.0.0.1:0").ok()?.local_addr().ok()?.port();
        let listen = format!("tcp:127.0.0.1:{port}");
        let mut process = Process::start(
            qmp_server(["serve", "--name", "confvm", "--listen", &listen]).stdout(Stdio::null()),
        )
        .unwrap();
        let endpoint: Endpoint = listen.parse().unwrap();
        let connected = endpoint.connect(LIMIT).is_ok()
            && process.wait(std::time::Duration::ZERO).unwrap().is_none();
        connected.then_some((process, endpoint))
    });
    let (_process, endpoint) = started.expect("the server accepts TCP connections");
    let mut clients = [Client::connect(&endpoint), Client::connect(&endpoint)];
    for client in &mut clients {
        client.negotiate("{}");
        assert_eq!(client.execute("query-name").to_string(), r#"{"name": "confvm"}"#);
    }
}

#[test]
fn standard_input_and_output_are_a_monitor() {
    let mut command = qmp_server(["serve", "--name", "confvm", "--listen", "stdio"]);
    let mut process = Process::start(command.stdin(Stdio::piped()).stdout(Stdio::piped())).unwrap();
    let mut stdin = process.child().stdin.take().unwrap();
    let mut stdout = process.child().stdout.take().unwrap();
    stdin
        .write_all(
            br#"{"execute": "qmp_capabilities"}{"execute": "query-name"}{"execute": "quit"}"#,
        )
        .unwrap();
    let status = process.wait(LIMIT).unwrap();
    assert!(status.is_some_and(|status| status.success()), "{status:?}: {}", process.stderr());
    let mut output = String::new();
    stdout.read_to_string(&mut output).unwrap();
    let lines: Vec<_> = output.split_terminator("\r\n").collect();
    assert_eq!(lines[1..3], [r#"{"return": {}}"#, r#"{"return": {"name": "confvm"}}"#], "{output}");
    assert!(lines[3].contains("SHUTDOWN"), "{output}");
    assert_eq!(lines[4..], [r#"{"return": {}}"#], "{output}");
}

#[test]
fn everything_complete_is_answered_before_a_half_closed_connection_ends() {
    let server = Server::start();
    for capabilities in ["{}", r#"{"enable": ["oob"]}"#] {
        let mut client = server.connect();
        client.negotiate(capabilities);
        let commands: String =
            (0..100).map(|id| format!(r#"{{"execute": "query-name", "id": {id}}}"#)).collect();
        client.send(&commands);
        client.send(r#"{"execute": "query-"#);
        client.half_close();
        for id in 0..100 {
            client.expect(&format!(r#"{{"return": {{"name": "confvm"}}, "id": {id}}}"#));
        }
        client.expect_end();
    }
}

#[test]
fn a_client_that_does_not_read_harms_nobody_else() {
    let server = Server::start();
    let mut deaf = UnixStream::connect(server.socket()).unwrap();
    deaf.write_all(br#"{"execute": "qmp_capabilities"}"#).unwrap();
    deaf.set_nonblocking(true).unwrap();
    // Far more replies than any buffer between here and there can take.
    let asked =
        (0..5000).take_while(|_| match deaf.write_all(b"{\"execute\": \"query-qmp-schema\"}\n") {
            Ok(()) => true,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
                false
            }
        });
    assert!(asked.count() > 0);
    let mut client = server.negotiated();
    for _ in 0..100 {
        client.execute("query-name");
    }
    client.send(r#"{"execute": "cont"}"#);
    client.expect_event("RESUME");
    client.expect(r#"{"return": {}}"#);
    drop(deaf);
    client.execute("query-name");
}

#[test]
fn the_server_goes_on_after_its_clients_have_left() {
    let server = Server::start();
    let mut first = server.negotiated();
    first.send(r#"{"execute": "cont"}"#);
    first.expect_event("RESUME");
    first.expect(r#"{"return": {}}"#);
    drop(first);
    assert_eq!(
        server.negotiated().execute("query-status").to_string(),
        r#"{"status": "running", "running": true}"#
    );
}
