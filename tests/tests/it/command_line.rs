// SPDX-License-Identifier: MIT OR Apache-2.0
//! Messages and exit status of a program that cannot start.

use std::fs;
use std::net::TcpListener;

use tests::process::run;
use tests::server::{LIMIT, Server, qmp_server, refusal};

#[test]
fn a_second_instance_leaves_the_first_alone() {
    let server = Server::start();
    let address = server.endpoint().to_string();
    let line = refusal(&["serve", "--listen", &address]);
    assert!(line.contains(&server.socket().display().to_string()), "{line}");
    server.negotiated().execute("query-name");
}

#[test]
fn a_path_that_cannot_be_bound_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("missing/qmp.sock").display().to_string();
    let line = refusal(&["serve", "--listen", &format!("unix:{path}")]);
    assert!(line.contains(&path), "{line}");
    let too_long = dir.path().join("x".repeat(200)).display().to_string();
    refusal(&["serve", "--listen", &format!("unix:{too_long}")]);
}

#[test]
fn a_file_that_is_no_socket_is_not_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("precious");
    fs::write(&path, "text").unwrap();
    refusal(&["serve", "--listen", &format!("unix:{}", path.display())]);
    assert_eq!(fs::read_to_string(&path).unwrap(), "text");
}

#[test]
fn when_one_address_fails_the_others_leave_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let good = dir.path().join("qmp.sock");
    let bad = dir.path().join("missing/qmp.sock");
    let [good_address, bad_address] = [&good, &bad].map(|path| format!("unix:{}", path.display()));
    refusal(&["serve", "--listen", &good_address, "--listen", &bad_address]);
    assert!(!good.exists());
}

#[test]
fn a_busy_port_is_an_error() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let line = refusal(&["serve", "--listen", &format!("tcp:127.0.0.1:{port}")]);
    assert!(line.contains(&port.to_string()), "{line}");
}

#[test]
fn help_and_version_go_to_standard_output() {
    for option in ["--help", "--version"] {
        let finished = run(&mut qmp_server([option]), "", LIMIT).unwrap();
        assert!(finished.status.success(), "{finished:#?}");
        assert!(finished.stdout.contains("qmp-server"), "{finished:#?}");
        assert_eq!(finished.stderr, "");
    }
}
