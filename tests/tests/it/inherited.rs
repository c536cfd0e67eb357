// SPDX-License-Identifier: MIT OR Apache-2.0
//! Sockets that another process has opened, systemd or a parent.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, Stdio};

use tests::endpoint::Endpoint;
use tests::process::{Process, run};
use tests::server::{Client, LIMIT, program, qmp_server};

fn check_served(endpoint: &Endpoint) {
    let mut client = Client::connect(endpoint);
    client.negotiate("{}");
    assert_eq!(client.execute("query-name").to_string(), r#"{"name": "inherited"}"#);
}

/// With this standard input the program must give up with one line.
#[track_caller]
fn check_refusal(arguments: &[&str], stdin: impl Into<Stdio>, expected: &str) {
    let mut command = Command::new(program());
    let process = Process::start(command.args(arguments).stdin(stdin).stdout(Stdio::null()));
    let mut process = process.unwrap();
    let status = process.wait(LIMIT).unwrap();
    assert_eq!(status.and_then(|status| status.code()), Some(2), "{}", process.stderr());
    assert_eq!(process.stderr().trim_end(), expected);
}

#[test]
fn a_socket_that_listens_is_served() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("qmp.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let mut command = qmp_server(["--name", "inherited", "--listen", "fd:0"]);
    let _process = Process::start(command.stdin(OwnedFd::from(listener))).unwrap();
    check_served(&Endpoint::Unix(path.clone()));
    check_served(&Endpoint::Unix(path));
}

#[test]
fn a_tcp_port_is_served() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut command = qmp_server(["--name", "inherited", "--listen", "fd:0"]);
    let _process = Process::start(command.stdin(OwnedFd::from(listener))).unwrap();
    check_served(&Endpoint::Tcp { host: "127.0.0.1".into(), port });
}

#[test]
fn a_tcp_port_that_others_can_reach_is_not() {
    let listener = TcpListener::bind("0.0.0.0:0").unwrap();
    let expected = "qmp-server: cannot listen at fd:0: \
                    0.0.0.0 is not a loopback address; use tls:, or insecure=on";
    check_refusal(&["--listen", "fd:0"], OwnedFd::from(listener), expected);
}

/// The server serves this connection and ends with it.
fn check_connection(mut ours: impl std::io::Read + Write, theirs: OwnedFd) {
    let mut command = qmp_server(["--name", "inherited", "--listen", "fd:0"]);
    let mut process = Process::start(command.stdin(theirs)).unwrap();
    // The command holds the other end as well, and would keep it open.
    drop(command);
    let input = br#"{"execute": "qmp_capabilities"} {"execute": "query-name"}"#;
    ours.write_all(input).unwrap();
    let mut lines = BufReader::new(ours).lines().map(Result::unwrap);
    assert!(lines.next().unwrap().starts_with(r#"{"QMP": "#));
    assert_eq!(lines.next().unwrap(), r#"{"return": {}}"#);
    assert_eq!(lines.next().unwrap(), r#"{"return": {"name": "inherited"}}"#);
    drop(lines);
    let status = process.wait(LIMIT).unwrap();
    assert!(status.is_some_and(|status| status.success()), "{status:?}: {}", process.stderr());
}

#[test]
fn a_connection_is_served_and_the_server_ends_with_it() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    check_connection(ours, theirs.into());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let theirs = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (ours, _) = listener.accept().unwrap();
    check_connection(ours, theirs.into());
}

#[test]
fn what_is_no_stream_socket_is_refused() {
    let file = File::open("/dev/null").unwrap();
    let expected = "qmp-server: cannot listen at fd:0: is not a stream socket that can be served";
    check_refusal(&["--listen", "fd:0"], file, expected);
    let datagrams = std::os::unix::net::UnixDatagram::unbound().unwrap();
    check_refusal(&["--listen", "fd:0"], OwnedFd::from(datagrams), expected);
    let closed = "qmp-server: cannot listen at fd:77: there is no such descriptor";
    check_refusal(&["--listen", "fd:77"], Stdio::null(), closed);
}

/// Starts the program as systemd would, with sockets as descriptors 3 and 4 and these variables.
fn activated(sockets: [UnixListener; 2], variables: &str, arguments: &str) -> Process {
    let script = format!(
        "exec 3<&0 4<&1 </dev/null >/dev/null; export LISTEN_FDS=2 {variables}; \
         exec {} --name inherited {arguments}",
        program().display()
    );
    let [first, second] = sockets.map(OwnedFd::from);
    let mut command = Command::new("sh");
    Process::start(command.args(["-c", &script]).stdin(first).stdout(second)).unwrap()
}

fn two_sockets(dir: &Path) -> ([UnixListener; 2], [Endpoint; 2]) {
    let paths = ["first.sock", "second.sock"].map(|name| dir.join(name));
    (paths.each_ref().map(|path| UnixListener::bind(path).unwrap()), paths.map(Endpoint::Unix))
}

#[test]
fn all_sockets_of_systemd_are_served() {
    let dir = tempfile::tempdir().unwrap();
    let (sockets, endpoints) = two_sockets(dir.path());
    let _process = activated(sockets, "LISTEN_PID=$$", "--listen systemd");
    endpoints.iter().for_each(check_served);
}

#[test]
fn sockets_of_systemd_may_be_called_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let (sockets, endpoints) = two_sockets(dir.path());
    let variables = "LISTEN_PID=$$ LISTEN_FDNAMES=other:qmp";
    let _process = activated(sockets, variables, "--listen systemd:qmp");
    check_served(&endpoints[1]);
}

#[test]
fn sockets_that_are_not_there_or_not_for_us_are_refused() {
    for variables in [
        "LISTEN_PID=1",
        "LISTEN_PID=",
        "LISTEN_PID=$$ LISTEN_FDNAMES=a:b",
        "LISTEN_PID=$$ LISTEN_FDS=",
    ] {
        let dir = tempfile::tempdir().unwrap();
        let (sockets, _) = two_sockets(dir.path());
        let mut process = activated(sockets, variables, "--listen systemd:qmp");
        let status = process.wait(LIMIT).unwrap();
        assert_eq!(status.and_then(|status| status.code()), Some(2), "{}", process.stderr());
        let expected =
            "qmp-server: cannot listen at systemd:qmp: systemd has passed no such socket\n";
        assert_eq!(process.stderr(), expected);
    }
    let finished = run(&mut qmp_server(["--listen", "systemd"]), "", LIMIT).unwrap();
    assert_eq!(finished.status.code(), Some(2));
}
