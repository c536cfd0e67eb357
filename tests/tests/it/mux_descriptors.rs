// SPDX-License-Identifier: MIT OR Apache-2.0
//! Descriptors that pass through a mux: each client has its own.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;

use tests::json::Json;
use tests::scripted::{Request, behind_mux};
use tests::server::Client;
use tests::upstream::{self, Muxed, Program};

const DONE: &str = r#"{"return": {}}"#;

fn getfd(name: &str) -> String {
    format!(r#"{{"execute": "getfd", "arguments": {{"fdname": "{name}"}}}}"#)
}

fn closefd(name: &str) -> String {
    format!(r#"{{"execute": "closefd", "arguments": {{"fdname": "{name}"}}}}"#)
}

fn name_of(request: &Request) -> String {
    let name = request.message.get("arguments").and_then(|arguments| arguments.get("fdname"));
    name.and_then(Json::as_str).unwrap().to_owned()
}

/// Creates a file in this folder.
fn file(dir: &Path, name: &str) -> File {
    File::create(dir.join(name)).unwrap()
}

/// Waits until the emulator holds, of the files in the mux's folder, exactly those of these names.
#[track_caller]
fn expect_held(muxed: &mut Muxed, names: &[&str]) {
    upstream::expect_held(&mut muxed.upstream, muxed.mux.dir(), names);
}

fn give(client: &mut Client, text: &str, file: &File) {
    client.send_with(text.as_bytes(), &[file.as_fd()]);
}

#[test]
fn the_same_name_of_two_clients_is_two_names_and_each_sees_its_own() {
    let (mux, server) = behind_mux(&[]);
    let mut peer = server.accept_and_negotiate("[]");
    let mut names = Vec::new();
    for _ in 0..2 {
        let mut client = mux.negotiated();
        client.send(&getfd("tap0"));
        let request = peer.expect("getfd");
        peer.answer(&request, "{}");
        client.expect(DONE);
        names.push(name_of(&request));
        client.send(r#"{"execute": "netdev_add", "arguments": {"type": "tap", "id": "tap0", "fd": "tap0"}}"#);
        let request = peer.expect("netdev_add");
        assert!(request.line.contains(&format!(r#""fd": "{}""#, names.last().unwrap())));
        assert!(request.line.contains(r#""id": "tap0""#), "{}", request.line);
        peer.refuse(&request, &format!("cannot use '{}'", names.last().unwrap()));
        client.expect(r#"{"error": {"class": "GenericError", "desc": "cannot use 'tap0'"}}"#);
        client.send(&closefd("tap0"));
        let request = peer.expect("closefd");
        assert_eq!(Some(&name_of(&request)), names.last());
        peer.answer(&request, "{}");
        client.expect(DONE);
        drop(client);
    }
    assert_ne!(names[0], names[1]);
    assert!(names.iter().all(|name| name != "tap0"), "{names:?}");
}

#[test]
fn names_that_are_left_are_closed_when_their_client_leaves() {
    let (mux, server) = behind_mux(&[]);
    let mut peer = server.accept_and_negotiate("[]");
    let mut client = mux.negotiated();
    client.send(&getfd("left"));
    let request = peer.expect("getfd");
    peer.answer(&request, "{}");
    client.expect(DONE);
    drop(client);
    let close = peer.expect("closefd");
    assert_eq!(name_of(&close), name_of(&request));
    peer.answer(&close, "{}");
}

#[test]
fn an_out_of_band_command_is_sent_though_a_descriptor_is_never_taken() {
    let (mux, server) = behind_mux(&[]);
    let mut peer = server.accept_and_negotiate(r#"["oob"]"#);
    let [mut client, mut helper] = [(); 2].map(|()| {
        let mut client = mux.connect();
        client.negotiate(r#"{"enable": ["oob"]}"#);
        client
    });
    for _ in 0..2 {
        client.send(&getfd("tap0"));
        let request = peer.expect("getfd");
        helper.send(r#"{"exec-oob": "help"}"#);
        // The server hangs: nothing happens until the help is sent.
        let help = peer.expect("help");
        peer.answer(&help, "{}");
        helper.expect(DONE);
        peer.answer(&request, "{}");
        client.expect(DONE);
    }
}

#[test]
fn two_clients_hold_descriptors_of_one_name_and_neither_takes_the_others() {
    let Some(mut muxed) = Muxed::start(Program::Emulator, &[]) else { return };
    let dir = muxed.mux.dir().to_owned();
    let [mut one, mut other] = [muxed.mux.negotiated(), muxed.mux.negotiated()];
    give(&mut one, &getfd("x"), &file(&dir, "file1"));
    one.expect(DONE);
    give(&mut other, &getfd("x"), &file(&dir, "file2"));
    other.expect(DONE);
    expect_held(&mut muxed, &["file1", "file2"]);
    other.send(&closefd("x"));
    other.expect(DONE);
    expect_held(&mut muxed, &["file1"]);
    other.send(&closefd("x"));
    other.expect(
        r#"{"error": {"class": "GenericError", "desc": "File descriptor named 'x' not found"}}"#,
    );
    expect_held(&mut muxed, &["file1"]);
    drop(one);
    expect_held(&mut muxed, &[]);
}

#[test]
fn a_descriptor_can_be_used_by_its_owner_only() {
    let Some(muxed) = Muxed::start(Program::Emulator, &[]) else { return };
    let [mut owner, mut other] = [muxed.mux.negotiated(), muxed.mux.negotiated()];
    let (ours, theirs) = UnixStream::pair().unwrap();
    owner.send_with(getfd("channel").as_bytes(), &[theirs.as_fd()]);
    owner.expect(DONE);
    let add = r#"{"execute": "chardev-add", "arguments": {"id": "c", "backend": {"type": "socket", "data": {"server": false, "addr": {"type": "fd", "data": {"str": "channel"}}}}}}"#;
    other.send(add);
    let refused = other.receive().to_string();
    assert!(refused.contains("File descriptor named 'channel' has not been found"), "{refused}");
    owner.send(add);
    owner.expect(DONE);
    drop(ours);
}

#[test]
fn descriptors_of_many_clients_at_once_reach_their_own_commands() {
    const CLIENTS: usize = 6;
    let Some(mut muxed) = Muxed::start(Program::Emulator, &[]) else { return };
    let dir = muxed.mux.dir().to_owned();
    let pid = muxed.upstream.child().id();
    let mux = &muxed.mux;
    thread::scope(|scope| {
        for number in 0..CLIENTS {
            let dir = &dir;
            scope.spawn(move || {
                let mut client = mux.connect();
                client.negotiate(r#"{"enable": ["oob"]}"#);
                for round in 0..20 {
                    // Its file must be in the set of this number, whatever other clients do.
                    let set = number * 100 + round;
                    let add =
                        format!(r#"{{"execute": "add-fd", "arguments": {{"fdset-id": {set}}}}}"#);
                    give(&mut client, &add, &file(dir, &format!("{set}")));
                    let answer = client.receive();
                    let added = answer.get("return").unwrap_or_else(|| panic!("{answer}"));
                    let fd = added.get("fd").and_then(Json::as_i64).unwrap();
                    let target = std::fs::read_link(format!("/proc/{pid}/fd/{fd}")).unwrap();
                    assert_eq!(target, dir.join(format!("{set}")));
                    client.send(&format!(
                        r#"{{"execute": "remove-fd", "arguments": {{"fdset-id": {set}}}}}"#
                    ));
                    client.expect(DONE);
                    // Without a descriptor, that of another client must not be taken.
                    client.send(&getfd("none"));
                    let refused = client.receive().to_string();
                    assert!(refused.contains("No file descriptor supplied"), "{refused}");
                }
            });
        }
    });
    expect_held(&mut muxed, &[]);
}
