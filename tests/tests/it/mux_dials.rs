// SPDX-License-Identifier: MIT OR Apache-2.0
//! A mux and its upstream server: over every transport, whichever of the two connects.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

use tests::certificates::{Authority, Identity};
use tests::endpoint::Endpoint;
use tests::process::Process;
use tests::scripted::Peer;
use tests::server::{Client, LIMIT, Server, program, qmp_server};

/// The mux behind this endpoint must share the machine of this name.
#[track_caller]
fn check_shared(mux: &Server, name: &str) {
    let mut client = mux.negotiated();
    assert_eq!(client.execute("query-name").to_string(), format!(r#"{{"name": "{name}"}}"#));
}

fn mux(upstream: &str) -> Server {
    Server::start_with(["mux", "--upstream", upstream, "--listen", "unix:{sock}"])
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
    let mut peer = Peer::of(ours);
    peer.greet("[]");
    peer.negotiate();
    let endpoint = Endpoint::Unix(path);
    process.expect_ready(&endpoint);
    let mut client = Client::connect(&endpoint);
    client.negotiate("{}");
    client.send_command("query-status");
    peer.expect("query-status");
    drop(peer);
    client.expect_end();
    let status = process.wait(LIMIT).unwrap();
    assert!(status.is_some_and(|status| status.success()), "{status:?}: {}", process.stderr());
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
    let mut peer = Peer::of(ours);
    peer.greet("[]");
    peer.negotiate();
    let endpoint = Endpoint::Unix(path);
    process.expect_ready(&endpoint);
    Client::connect(&endpoint).negotiate("{}");
    drop(peer);
    let status = process.wait(LIMIT).unwrap();
    assert!(status.is_some_and(|status| status.success()), "{status:?}: {}", process.stderr());
}
