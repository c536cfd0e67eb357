// SPDX-License-Identifier: MIT OR Apache-2.0
//! The files and names of sockets, and vsock.

use std::fs;
use std::mem::MaybeUninit;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::process::{Command, Stdio};

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use tests::endpoint::Endpoint;
use tests::process::{Process, run};
use tests::server::{LIMIT, Server, program, qmp_server, refusal};

#[test]
fn a_socket_gets_the_mode_that_is_asked_for() {
    for (mode, bits) in [("0600", 0o600), ("660", 0o660), ("0777", 0o777)] {
        let server = Server::start_with(["--listen", &format!("unix:{{sock}},mode={mode}")]);
        assert_eq!(fs::metadata(server.socket()).unwrap().mode() & 0o777, bits);
    }
}

#[test]
fn a_socket_is_never_wider_than_its_mode() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("qmp.sock");
    let inotify = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).unwrap();
    inotify::add_watch(&inotify, dir.path(), WatchFlags::CREATE | WatchFlags::ATTRIB).unwrap();
    let mut command = Command::new("sh");
    command.args(["-c", "umask 0 && exec \"$@\"", "sh"]).arg(program());
    command.arg("--listen").arg(format!("unix:{},mode=0600", path.display()));
    let _server = Process::start(command.stdin(Stdio::null())).unwrap();
    drop(Endpoint::Unix(path.clone()).connect(LIMIT).unwrap());
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    let mut space = [MaybeUninit::uninit(); 4096];
    let mut events = inotify::Reader::new(&inotify, &mut space);
    let mut seen = Vec::new();
    while let Ok(event) = events.next() {
        // There is a lock, too, while nobody can connect yet.
        if event.file_name() == Some(c"qmp.sock") {
            seen.push(event.events());
        }
    }
    // The mode was set when it was created, and not changed afterwards.
    assert_eq!(seen, [ReadFlags::CREATE]);
}

#[test]
fn a_socket_gets_the_owner_and_group_that_are_asked_for() {
    if !rustix::process::geteuid().is_root() {
        let line = refusal(&["--listen", "unix:qmp.sock,owner=0"]);
        return assert!(line.contains("Operation not permitted"), "{line}");
    }
    let server = Server::start_with(["--listen", "unix:{sock},owner=4711,group=4712,mode=0640"]);
    let metadata = fs::metadata(server.socket()).unwrap();
    assert_eq!((metadata.uid(), metadata.gid()), (4711, 4712));
    assert_eq!(metadata.mode() & 0o777, 0o640);
    let server = Server::start_with(["--listen", "unix:{sock},owner=root,group=root"]);
    let metadata = fs::metadata(server.socket()).unwrap();
    assert_eq!((metadata.uid(), metadata.gid()), (0, 0));
}

#[test]
fn an_owner_that_does_not_exist_leaves_no_socket_behind() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("qmp.sock");
    for (option, what) in [("owner", "user"), ("group", "group")] {
        let line = refusal(&["--listen", &format!("unix:{},{option}=no-such", path.display())]);
        let expected = format!(
            "qmp-server: cannot listen at unix:{}: there is no {what} 'no-such'",
            path.display()
        );
        assert_eq!(line, expected);
        assert!(!path.exists());
    }
}

#[test]
fn a_name_in_no_file_system_is_served() {
    for (scheme, option) in [("unix-abstract:", ""), ("unix:@", ""), ("unix:", ",abstract=on")] {
        // A unique name: the directory exists only once.
        let dir = tempfile::tempdir().unwrap();
        let name = dir.path().display().to_string();
        let address = format!("{scheme}{name}{option}");
        let _server = Server::start_with(["--listen", &address, "--listen", "unix:{sock}"]);
        UnixStream::connect_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        let line = refusal(&["--listen", &address]);
        assert!(line.contains(&name), "{line}");
    }
}

#[test]
fn vsock_is_served_where_there_is_any() {
    // The context of this machine; the system chooses the port.
    let command = &mut qmp_server(["--name", "vsock", "--listen", "vsock:1:4294967295"]);
    let mut process = Process::start(command).unwrap();
    let prefix = "listening at vsock:1:";
    let port = loop {
        let log = process.stderr();
        let mut whole_lines = log.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n'));
        if let Some((_, port)) = whole_lines.find_map(|line| line.split_once(prefix)) {
            break port.to_owned();
        }
        if let Some(status) = process.wait(std::time::Duration::from_millis(10)).unwrap() {
            // The system has no vsock, and the program says so.
            assert_eq!(status.code(), Some(2), "{log}");
            let log = process.stderr();
            assert!(log.starts_with("qmp-server: cannot listen at vsock:1:"), "{log}");
            assert_eq!(log.lines().count(), 1, "{log}");
            return;
        }
    };
    let address = format!("vsock:1:{port}");
    let finished = run(&mut qmp_server(["call", &address, "query-name"]), "", LIMIT).unwrap();
    assert_eq!(finished.stdout, "{\"name\": \"vsock\"}\n", "{finished:?}");
    let mux = Server::start_with(["mux", "--upstream", &address, "--listen", "unix:{sock}"]);
    let name = mux.negotiated().execute("query-name").to_string();
    assert_eq!(name, r#"{"name": "vsock"}"#);
}

#[test]
fn vsock_that_other_machines_can_reach_is_refused() {
    let line = refusal(&["--listen", "vsock:any:4294967295"]);
    let expected = "qmp-server: cannot listen at vsock:any:4294967295: \
                    other machines can connect there without TLS; use insecure=on if they may";
    assert_eq!(line, expected);
}

#[test]
fn several_sockets_are_served_at_once() {
    let server = Server::start_with([
        "--listen",
        "unix:{sock}",
        "--listen",
        "unix:{pretty},pretty=on",
        "--listen",
        "tcp:127.0.0.1:0",
        "--listen",
        "tcp:127.0.0.1:0",
    ]);
    let ports = server.ports();
    assert_eq!(ports.len(), 2);
    for port in ports {
        let address = format!("tcp:127.0.0.1:{port}");
        let finished = run(&mut qmp_server(["call", &address, "query-status"]), "", LIMIT).unwrap();
        assert!(finished.status.success(), "{finished:?}");
    }
    server.negotiated().execute("query-status");
}
