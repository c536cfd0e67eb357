// SPDX-License-Identifier: MIT OR Apache-2.0
//! A mux and its upstream server: over every transport, whichever of the two connects.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use qmp_proto::Dialect;
use tests::certificates::{Authority, Identity};
use tests::endpoint::Endpoint;
use tests::process::Process;
use tests::programs::Oracle;
use tests::scripted::Peer;
use tests::server::{Client, LIMIT, Server, program, qmp_server, refusal};
use tests::waiting::wait_for;

/// The mux behind this endpoint must share the machine of this name.
#[track_caller]
fn check_shared(mux: &Server, name: &str) {
    let mut client = mux.negotiated();
    assert_eq!(client.execute("query-name").to_string(), format!(r#"{{"name": "{name}"}}"#));
}

fn mux(upstream: &str) -> Server {
    let arguments = ["mux", "--upstream", upstream, "--upstream-lost", "keep"];
    Server::start_with(arguments.into_iter().chain(["--listen", "unix:{sock}"]))
}

#[test]
fn a_server_at_a_tcp_port_is_shared() {
    let upstream = Server::start_with([
        "--name",
        "by-tcp",
        "--listen",
        "tcp:127.0.0.1:0",
        "--listen",
        "{sock}",
    ]);
    let port = upstream.ports()[0];
    check_shared(
        &mux(&format!("tcp:localhost:{port},server=on,nodelay,keep-alive-idle=5")),
        "by-tcp",
    );
    check_shared(&mux(&format!("tcp:127.0.0.1:{port},ipv6=off,keep-alive=off")), "by-tcp");
}

#[test]
fn a_server_that_wants_a_certificate_is_shared_with_one() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new(dir.path(), "authority").unwrap();
    let ca = authority.certificate();
    let Identity { cert, key } = authority.issue("server", &["localhost"]).unwrap();
    let (ca, cert, key) = (ca.display(), cert.display(), key.display());
    let listen = format!("tls:127.0.0.1:0,cert={cert},key={key},client-ca={ca},allow-name=mux");
    let upstream =
        Server::start_with(["--name", "by-tls", "--listen", &listen, "--listen", "unix:{sock}"]);
    let address = format!("tls:localhost:{},ca={ca}", upstream.ports()[0]);

    let Identity { cert, key } = authority.issue("mux", &["mux"]).unwrap();
    let with_certificate = mux(&format!("{address},cert={},key={}", cert.display(), key.display()));
    check_shared(&with_certificate, "by-tls");
    // A large answer, and one after it.
    let mut client = with_certificate.negotiated();
    assert!(client.execute("query-qmp-schema").to_string().len() > 10_000);
    client.execute("query-status");

    let mut without = mux(&address);
    without.process().expect_log("the server wants a certificate (cert and key)");
    let mut other_name = mux(&format!("{address},server-name=example.org"));
    other_name.process().expect_log("the server's certificate is not accepted");
}

/// Is the server at the other end of the connection that a mux has inherited, until clients are served there.
fn shared(process: &mut Process, ours: UnixStream, path: PathBuf) -> (Peer, Endpoint) {
    let mut peer = Peer::of(ours);
    peer.greet("[]");
    peer.negotiate();
    let endpoint = Endpoint::Unix(path);
    process.expect_ready(&endpoint);
    (peer, endpoint)
}

#[track_caller]
fn expect_success(process: &mut Process) {
    let status = process.wait(LIMIT).unwrap();
    assert!(status.is_some_and(|status| status.success()), "{status:?}: {}", process.stderr());
}

/// The mux of a connection that it has inherited ends with it, and clients see that as an end, not as an event.
#[test]
fn an_inherited_connection_is_shared_and_the_mux_ends_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("qmp.sock");
    let (ours, theirs) = UnixStream::pair().unwrap();
    let listen = format!("unix:{}", path.display());
    let mut command = qmp_server(["mux", "--upstream", "fd:0", "--listen", &listen]);
    let mut process = Process::start(command.stdin(OwnedFd::from(theirs))).unwrap();
    drop(command);
    let (mut peer, endpoint) = shared(&mut process, ours, path);
    let mut client = Client::connect(&endpoint);
    client.negotiate("{}");
    client.send_command("query-status");
    peer.expect("query-status");
    drop(peer);
    client.expect_end();
    expect_success(&mut process);
}

#[test]
fn a_connection_that_systemd_has_passed_is_shared() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("qmp.sock");
    let (ours, theirs) = UnixStream::pair().unwrap();
    let script = format!(
        "exec 3<&0 </dev/null; export LISTEN_FDS=1 LISTEN_PID=$$ LISTEN_FDNAMES=qemu; \
         exec {} mux --upstream systemd:qemu --listen unix:{}",
        program().display(),
        path.display()
    );
    let mut command = Command::new("sh");
    command.args(["-c", &script]).stdin(OwnedFd::from(theirs)).stdout(Stdio::null());
    let mut process = Process::start(&mut command).unwrap();
    drop(command);
    let (peer, endpoint) = shared(&mut process, ours, path);
    Client::connect(&endpoint).negotiate("{}");
    drop(peer);
    expect_success(&mut process);
}

/// A mux at which servers connect, and the path for that.
fn dialled_in(options: &str) -> (Server, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("upstream.sock");
    let upstream = format!("unix:{},dial-in=on{options}", path.display());
    let arguments = ["mux", "--upstream", &upstream, "--upstream-lost", "keep"];
    let listen = ["--listen", "unix:{sock},notices=on"];
    (Server::start_in(dir, arguments.into_iter().chain(listen)), path)
}

#[test]
fn a_server_that_connects_is_shared_and_another_one_when_it_has_gone() {
    let (mut mux, path) = dialled_in("");
    let connect = || Peer::of(UnixStream::connect(&path).unwrap());
    let mut first = connect();
    first.greet("[]");
    first.negotiate();
    let mut client = mux.negotiated();
    client.send_command("one");
    let request = first.expect("one");
    connect().expect_end();
    mux.process().expect_log("has connected, and is refused: the machine has a server");
    first.answer(&request, "{}");
    client.expect(r#"{"return": {}}"#);
    drop(first);
    client.expect_event("__org.qmp-server_UPSTREAM_DISCONNECTED");
    let mut second = connect();
    second.greet("[]");
    second.negotiate();
    client.expect_event("__org.qmp-server_UPSTREAM_CONNECTED");
    client.send_command("two");
    second.expect("two");
}

fn expect_connected(mux: &Server, connected: bool) {
    let expected = format!(r#""connected": {connected}"#);
    let mut client = mux.negotiated();
    wait_for(|| {
        client.send_command("__org.qmp-server_query-upstream");
        // Events may come first.
        let upstream = loop {
            if let Some(upstream) = client.receive().get("return") {
                break upstream.to_string();
            }
        };
        if upstream.contains(&expected) { Ok(()) } else { Err(upstream) }
    });
}

#[test]
fn qemu_connects_to_its_mux() {
    for dialect in Dialect::ALL {
        let Some(qemu) = Oracle::of(dialect).program("qemu-system-x86_64") else { return };
        let (mux, path) = dialled_in(",server=off,mode=0600");
        let qmp = format!("unix:{},server=off,reconnect-ms=20", path.display());
        let mut command = Command::new(qemu);
        command.args(["-machine", "none", "-nodefaults", "-display", "none", "-S", "-qmp", &qmp]);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        for _ in 0..2 {
            let process = Process::start(&mut command).unwrap();
            expect_connected(&mux, true);
            mux.negotiated().execute("query-status");
            drop(process);
            expect_connected(&mux, false);
        }
    }
}

#[test]
fn a_server_of_another_user_is_not_spoken_to() {
    let (mut mux, path) = dialled_in(",user=65534");
    let mut stranger = Peer::of(UnixStream::connect(&path).unwrap());
    stranger.expect_end();
    mux.process().expect_log("has connected, and is refused: it may not");
}

#[test]
fn the_socket_for_a_server_is_removed_and_cannot_be_shared() {
    let (mut mux, path) = dialled_in("");
    assert!(path.exists());
    let listen = format!("unix:{}", path.with_extension("other").display());
    let upstream = format!("unix:{},dial-in=on", path.display());
    let line = refusal(&["mux", "--upstream", &upstream, "--listen", &listen]);
    assert!(line.contains("another server listens there"), "{line}");
    mux.process().stop().unwrap();
    assert!(!path.exists());
}
