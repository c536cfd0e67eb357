// SPDX-License-Identifier: MIT OR Apache-2.0
//! Machines that operators add and remove while the mux runs.

use std::fs;
use std::path::Path;

use tests::endpoint::Endpoint;
use tests::process::{Signal, run};
use tests::scripted::{Peer, Scripted};
use tests::server::{Client, LIMIT, Server, qmp_server};
use tests::waiting::wait_until;

const DONE: &str = r#"{"return": {}}"#;

fn directory() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("qmp-mux-").tempdir().unwrap()
}

/// A mux whose control socket is that of the tests' servers.
fn start(dir: tempfile::TempDir, options: &[&str]) -> Server {
    let arguments = ["mux", "--control", "unix:{sock}"].into_iter();
    Server::start_in(dir, arguments.chain(options.iter().copied()))
}

fn at(mux: &Server, socket: &str) -> Client {
    let mut client = Client::connect(&Endpoint::Unix(mux.dir().join(socket)));
    client.negotiate("{}");
    client
}

fn add(name: &str, more: &str) -> String {
    format!(
        r#"{{"execute": "__org.qmp-server_machine-add", "arguments": {{"name": "{name}",
        "upstream": "unix:{name}-qemu.sock", "listen": ["unix:{name}.sock"]{more}}}}}"#
    )
}

fn remove(name: &str) -> String {
    format!(
        r#"{{"execute": "__org.qmp-server_machine-remove", "arguments": {{"name": "{name}"}}}}"#
    )
}

fn upstream(dir: &Path, name: &str) -> Scripted {
    Scripted::listen(&dir.join(format!("{name}-qemu.sock")))
}

fn answer_one(client: &mut Client, peer: &mut Peer) {
    client.send_command("query-status");
    let request = peer.expect("query-status");
    peer.answer(&request, "{}");
    client.expect(DONE);
}

#[track_caller]
fn expect_error(operator: &mut Client, request: &str, expected: &str) {
    operator.send(request);
    let said = operator.receive().to_string();
    assert!(said.contains(expected), "{said}");
}

#[test]
fn machines_are_added_and_removed_and_leave_others_alone() {
    let dir = directory();
    let servers = ["a", "b"].map(|name| upstream(dir.path(), name));
    let mut mux = start(dir, &["--metrics", "unix:metrics.sock"]);
    let mut operator = mux.negotiated();
    for name in ["a", "b"] {
        operator.send(&add(name, ""));
        let added = operator.receive().to_string();
        assert!(added.contains(r#""origin": "control", "listen": ["unix:"#), "{added}");
    }
    let mut peers = servers.each_ref().map(|server| server.accept_and_negotiate("[]"));
    let (mut leaving, mut staying) = (at(&mux, "a.sock"), at(&mux, "b.sock"));
    answer_one(&mut leaving, &mut peers[0]);
    let metrics =
        |operator: &mut Client| operator.execute("__org.qmp-server_query-metrics").to_string();
    assert!(metrics(&mut operator).contains("machine=\\\"a\\\""));

    // What has been sent is answered first, and then it ends.
    leaving.send_command("query-name");
    let request = peers[0].expect("query-name");
    operator.send(&remove("a"));
    peers[0].answer(&request, "{}");
    leaving.expect(DONE);
    leaving.expect_end();
    peers[0].expect_end();
    operator.expect(DONE);
    assert!(!mux.dir().join("a.sock").exists());
    let left = metrics(&mut operator);
    assert!(!left.contains("machine=\\\"a\\\"") && left.contains("machine=\\\"b\\\""));
    let machines = operator.execute("__org.qmp-server_query-machines").to_string();
    assert_eq!(machines.matches(r#""name""#).count(), 1, "{machines}");

    // Its name and its addresses are free again, and the other one has noticed nothing.
    operator.send(&add("a", ""));
    operator.receive();
    let mut again = servers[0].accept_and_negotiate("[]");
    answer_one(&mut at(&mux, "a.sock"), &mut again);
    answer_one(&mut staying, &mut peers[1]);
    mux.signal(Signal::TERM);
    assert!(mux.wait().success());
    assert!(!mux.dir().join("a.sock").exists() && !mux.socket().exists());
}

#[test]
fn what_is_added_is_checked_as_the_file_is() {
    let dir = directory();
    let _server = upstream(dir.path(), "a");
    let mux = start(dir, &["--limit", "machines=2"]);
    let mut operator = mux.negotiated();
    operator.send(&add("a", ""));
    operator.receive();
    expect_error(&mut operator, &add("a", ""), "another machine has the name 'a'");
    expect_error(&mut operator, &remove("b"), "there is no machine 'b'");
    for (more, expected) in [
        (r#", "role": ["user:root=nobody"]"#, "role: there is no role 'nobody'"),
        (r#", "deadline": ["soon"]"#, "deadline[0]: expected a number of seconds"),
        (r#", "limit": ["machines=9"]"#, "limit: 'machines' is a limit of the whole mux"),
        (r#", "audit": "no/such/folder""#, "audit: no/such/folder: "),
        (r#", "default-role": "\u00e4\"\\\n""#, r#"default-role: there is no role '\u00E4\"\\\n'"#),
        (r#", "colour": "red""#, "Parameter 'colour' is unexpected"),
    ] {
        expect_error(&mut operator, &add("b", more), expected);
    }
    let with = |from: &str, to: &str| add("b", "").replace(from, to);
    for (request, expected) in [
        (with("\"b\"", "\"\""), "name: the name of the machine is empty"),
        (with("b-qemu", "a"), "upstream: the mux itself listens at unix:a.sock"),
        (with("b-qemu", "*"), "upstream: patterns are for the file alone"),
        (with("b.sock", "a.sock"), "listen: unix:a.sock is listened at twice"),
        (with("b.sock", "a-qemu.sock"), "unix:a-qemu.sock is the upstream server of a machine"),
        (with("b.sock", "b.sock,mode=rw"), "listen[0]: 'unix:b.sock,mode=rw': 'rw' is not a mode"),
        (with("unix:b.sock", "tcp:0.0.0.0:0"), "listen: "),
        // These descriptors are the mux's own.
        (with("unix:b.sock", "fd:5"), "listen: what the program has inherited"),
        (with("unix:b-qemu.sock", "fd:5"), "upstream: what the program has inherited"),
    ] {
        expect_error(&mut operator, &request, expected);
    }
    // None of these has left anything behind.
    assert!(!mux.dir().join("b.sock").exists());
    operator.send(&add("b", ""));
    assert!(operator.receive().to_string().contains("return"));
    expect_error(&mut operator, &add("c", ""), "there are 2 machines already");
}

#[test]
fn who_may_only_look_adds_nothing_and_sees_all_before_there_is_any_server() {
    let dir = directory();
    let text = "[mux]\ncontrol = ['unix:qmp.sock', 'unix:look.sock,role=observer']\n\
        [[machine]]\nname = 'absent'\nupstream = 'unix:absent-qemu.sock'\nlisten = ['unix:absent.sock']\n";
    fs::write(dir.path().join("mux.toml"), text).unwrap();
    let mux = Server::start_in(dir, ["mux", "--config", "mux.toml"]);
    let mut observer = at(&mux, "look.sock");
    let disabled = "has been disabled for this instance";
    expect_error(&mut observer, &add("a", ""), disabled);
    expect_error(&mut observer, &remove("absent"), disabled);
    let machines = observer.execute("__org.qmp-server_query-machines").to_string();
    assert!(machines.contains(r#""name": "absent", "origin": "options""#), "{machines}");
    let mut status = qmp_server(["status", "unix:look.sock"]);
    let status = run(status.current_dir(mux.dir()), "", LIMIT).unwrap();
    let row = status.stdout.lines().find(|line| line.starts_with("absent ")).unwrap_or_default();
    assert_eq!(row.split_whitespace().nth(1), Some("absent"), "{status:?}");
    let mut status = qmp_server(["status", "unix:look.sock", "--json"]);
    let status = run(status.current_dir(mux.dir()), "", LIMIT).unwrap();
    assert!(status.stdout.contains(r#""machines": [{"name": "absent""#), "{status:?}");
    // It may have never been greeted.
    let mut operator = mux.negotiated();
    operator.send(&remove("absent"));
    operator.expect(DONE);
    assert!(!mux.dir().join("absent.sock").exists());
}

#[test]
fn a_machine_that_was_found_and_removed_stays_away_until_its_socket_comes_anew() {
    let dir = directory();
    let text = "log-filter = 'info'\n[mux]\ncontrol = ['unix:qmp.sock']\n[[machine]]\nname = '{1}'\n\
        upstream = 'unix:*-qemu.sock'\nlisten = ['unix:{1}.sock']\n";
    fs::write(dir.path().join("mux.toml"), text).unwrap();
    let server = upstream(dir.path(), "a");
    let mux = Server::start_in(dir, ["mux", "--config", "mux.toml"]);
    let mut peer = server.accept_and_negotiate("[]");
    let mut operator = mux.negotiated();
    operator.send(&remove("a"));
    operator.expect(DONE);
    peer.expect_end();
    // What is found next has been looked at after that.
    let other = upstream(mux.dir(), "b");
    let _other = other.accept_and_negotiate("[]");
    assert!(!mux.dir().join("a.sock").exists());
    drop(server);
    let server = upstream(mux.dir(), "a");
    let _peer = server.accept_and_negotiate("[]");
    wait_until(|| mux.dir().join("a.sock").exists());
}

/// What operators want is done by one thread. Who leaves before that is not waited for, and who sends too much is read no
/// further.
#[test]
fn operators_that_flood_and_leave_hold_up_nobody() {
    let mut mux = start(directory(), &[]);
    for _ in 0..20 {
        let mut leaving = mux.negotiated();
        leaving.send(&remove("a").repeat(100));
    }
    let mut staying = mux.negotiated();
    staying.send(&add("a", "").repeat(2));
    assert!(staying.receive().get("return").is_some());
    assert!(staying.receive().get("error").is_some());
    mux.signal(Signal::TERM);
    assert!(mux.wait().success());
}
