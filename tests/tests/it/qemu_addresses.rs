// SPDX-License-Identifier: MIT OR Apache-2.0
//! Addresses and options in QEMU's form, and contradictory ones.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tempfile::TempDir;
use tests::certificates::Authority;
use tests::process::{Finished, run};
use tests::server::{LIMIT, Server, qmp_server};

fn run_in(dir: &Path, arguments: &[&str]) -> Finished {
    run(qmp_server(arguments).current_dir(dir), "", LIMIT).unwrap()
}

/// The program must refuse to start, in one line that says this; whether it is only to check, or not.
#[track_caller]
fn check_refused(arguments: &[&str], expected: &str) {
    let dir = tempfile::tempdir().unwrap();
    for more in [&["--check-config"][..], &[]] {
        let Finished { status, stderr, .. } = run_in(dir.path(), &[arguments, more].concat());
        assert_eq!(status.code(), Some(2), "{arguments:?}: {stderr}");
        assert!(stderr.contains(expected), "{arguments:?}: {stderr}");
        assert_eq!(stderr.lines().count(), 1, "{arguments:?}: {stderr}");
    }
}

#[test]
fn options_of_qemu_change_nothing_that_they_need_not() {
    for options in
        ["server=on,wait=off", "server,nowait", "server=yes,wait=no", "server=on,nodelay=on"]
    {
        let dir = tempfile::tempdir().unwrap();
        let listen = format!("unix:path=a.sock,{options}");
        let arguments = ["--listen", &listen, "--listen", "unix:{sock}"];
        let server = Server::start_in(dir, arguments);
        let address = format!("{},{options}", server.dir().join("a.sock").display());
        let finished = run(&mut qmp_server(["call", &address, "query-name"]), "", LIMIT).unwrap();
        assert!(finished.status.success(), "{options}: {finished:?}");
    }
}

#[test]
fn without_a_host_it_is_all_addresses() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    check_refused(&["serve", "--listen", &format!("tcp::{port}")], "not only loopback");
    let listen = format!("tcp::{port},server=on,wait=off,insecure=on");
    let _server = Server::start_with(["--listen", &listen, "--listen", "unix:{sock}"]);
    let address = format!("tcp::{port}");
    let finished = run(&mut qmp_server(["call", &address, "query-name"]), "", LIMIT).unwrap();
    assert!(finished.status.success(), "{finished:?}");
}

#[test]
fn what_is_not_understood_is_named() {
    let mux = |upstream: &'static str| ["mux", "--upstream", upstream, "--listen", "unix:b.sock"];
    check_refused(&mux("unix:a.sock,server=off"), "server=off is not supported");
    check_refused(&mux("unix:a.sock,reconnect-ms=1"), "option 'reconnect-ms=1' is unknown");
    check_refused(&mux("unix:a.sock,wait=perhaps"), "wait is on or off, not 'perhaps'");
    check_refused(&mux("tls:h:1"), "TLS needs ca=FILE");
    check_refused(&["serve", "--listen", "unix:server=on"], "options come after the path");
    check_refused(&["serve", "--listen", "tcp:h:1,nodelay=off"], "nodelay=off is not supported");
    let wait = ["mux", "--upstream", "unix:a.sock", "--listen", "unix:b.sock,server=on,wait=on"];
    check_refused(&wait, "clients may come at any time, use wait=off");
}

#[test]
fn paths_that_are_too_long_are_refused_alike_with_their_length() {
    let path = |len: usize| format!("unix:./{}", "x".repeat(len - 2));
    let expected = "the path has 108 bytes, and that of a socket at most 107";
    check_refused(&["serve", "--listen", &path(108)], expected);
    check_refused(&["serve", "--metrics", &path(108)], expected);
    check_refused(&["mux", "--upstream", &path(108), "--listen", "unix:b.sock"], expected);
    let dir = tempfile::tempdir().unwrap();
    for subcommand in [&["call", &path(108), "query-name"][..], &["status", &path(108)]] {
        let finished = run_in(dir.path(), subcommand);
        assert_eq!(finished.status.code(), Some(2));
        assert!(finished.stderr.contains(expected), "{finished:?}");
    }
    // The longest path that a server can listen at can also be called.
    let server = Server::start_in(dir, ["--listen", &path(107), "--listen", "unix:{sock}"]);
    let finished = run_in(server.dir(), &["call", &path(107), "query-name"]);
    assert!(finished.status.success(), "{finished:?}");
}

#[test]
fn places_that_are_listened_at_twice_are_found() {
    let serve = |one: &'static str, two: &'static str| ["serve", "--listen", one, "--listen", two];
    check_refused(&serve("unix:a.sock", "unix:./a.sock"), "is listened at twice");
    check_refused(&serve("tcp:localhost:4711", "tcp:127.0.0.1:4711"), "is listened at twice");
    check_refused(&serve("unix-abstract:qmp", "unix:qmp,abstract=on"), "is listened at twice");
    let metrics = ["serve", "--listen", "unix:a.sock", "--metrics", "unix:a.sock"];
    check_refused(&metrics, "is listened at twice");
    let own = |upstream: &'static str, listen| ["mux", "--upstream", upstream, "--listen", listen];
    check_refused(&own("unix:a.sock", "unix:./a.sock"), "the mux itself listens at");
    check_refused(&own("tcp::4711", "tcp:localhost:4711"), "the mux itself listens at");
    let dir = tempfile::tempdir().unwrap();
    let good = [&serve("unix:a.sock", "unix:b.sock")[..], &["--check-config"]].concat();
    assert!(run_in(dir.path(), &good).status.success());
}

#[test]
fn places_in_a_file_are_named_with_their_line() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("mux.toml"), "listen = ['unix:a']\n[mux]\nupstream = 'unix:a'\n")
        .unwrap();
    let finished = run_in(dir.path(), &["mux", "--config", "mux.toml", "--check-config"]);
    assert_eq!(finished.status.code(), Some(2));
    assert!(finished.stderr.contains("mux.toml:3: upstream: the mux itself"), "{finished:?}");
}

#[test]
fn keys_and_doors_that_are_open_to_all_are_found() {
    let dir: TempDir = tempfile::tempdir().unwrap();
    let authority = Authority::new(dir.path(), "authority").unwrap();
    let server = authority.issue("server", &["localhost"]).unwrap();
    let [cert, key] = [&server.cert, &server.key].map(|path| path.display().to_string());
    let ca = authority.certificate().display().to_string();
    let check = |listen: &str, mode: u32| {
        fs::set_permissions(&server.key, fs::Permissions::from_mode(mode)).unwrap();
        let listen = format!("{listen},cert={cert},key={key}");
        let finished = run_in(dir.path(), &["serve", "--listen", &listen, "--check-config"]);
        (finished.status.code(), finished.stderr)
    };
    let (status, said) = check("tls:localhost:0", 0o644);
    assert_eq!(status, Some(2));
    assert!(said.contains("everybody may read this key"), "{said}");
    let (status, said) = check("tls:0.0.0.0:0", 0o600);
    assert_eq!(status, Some(2));
    assert!(said.contains("anybody may connect"), "{said}");
    let asking = format!("tls:0.0.0.0:0,client-ca={ca}");
    for good in ["tls:localhost:0", &asking, "tls:0.0.0.0:0,insecure=on"] {
        assert_eq!(check(good, 0o600), (Some(0), String::new()), "{good}");
    }
}
