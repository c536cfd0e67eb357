// SPDX-License-Identifier: MIT OR Apache-2.0
//! `attach`: a monitor that is added to a QEMU that runs.

use std::path::Path;
use std::process::{Command, Stdio};

use qmp_proto::Dialect;
use rustix::process::Signal;
use tests::endpoint::Endpoint;
use tests::json::Json;
use tests::process::Process;
use tests::server::{Client, LIMIT, Server, qmp_server};
use tests::upstream::{Program, SOCKET};
use tests::waiting::wait_until;

/// Starts QEMU in a directory, with one monitor; `None` if the calling test is to be skipped.
fn qemu(dialect: Dialect, dir: &Path) -> Option<Process> {
    let words = Program::Emulator.command_of(dialect, SOCKET)?;
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).current_dir(dir).stdin(Stdio::null()).stdout(Stdio::null());
    let mut qemu = Process::start(&mut command).unwrap();
    qemu.expect_ready(&Endpoint::Unix(dir.join(SOCKET)));
    Some(qemu)
}

/// Starts QEMU 11.1 and attaches to it.
fn attached() -> Option<(Server, Process)> {
    let dir = tempfile::tempdir().unwrap();
    let qemu = qemu(Dialect::Qemu11_1, dir.path())?;
    let options = ["attach", "--through", "unix:upstream.sock", "--listen", "unix:{sock}"];
    Some((Server::start_in(dir, options), qemu))
}

/// What QEMU has that may be ours: objects and character devices.
fn ours(client: &mut Client) -> Vec<String> {
    client.send(r#"{"execute": "qom-list", "arguments": {"path": "/objects"}, "id": "o"}"#);
    let objects = client.receive();
    let devices = client.execute("query-chardev");
    let names = |list: &Json, member: &str| -> Vec<String> {
        let all = list.as_array().unwrap_or_default().iter();
        let named = all.filter_map(|one| Some(one.get(member)?.as_str()?.to_owned()));
        named.filter(|name| name.starts_with("qmp-server-")).collect()
    };
    [names(objects.get("return").unwrap(), "name"), names(&devices, "label")].concat()
}

fn attach(dir: &Path, through: &str) -> std::process::Output {
    let listen = format!("unix:{}", dir.join("attached.sock").display());
    let through = dir.join(through).display().to_string();
    qmp_server(["attach", "--through", &through, "--listen", &listen]).output().unwrap()
}

#[test]
fn a_monitor_is_added_shared_and_taken_away_again() {
    let Some((mut mux, _qemu)) = attached() else { return };
    let [mut one, mut other] = [mux.negotiated(), mux.negotiated()];
    assert_eq!(one.execute("query-name").get("name").and_then(Json::as_str), Some("confvm"));
    assert_eq!(ours(&mut other).len(), 2);
    // Events come through it, and do not pile up where it came through.
    for (command, event) in [("cont", "RESUME"), ("stop", "STOP"), ("cont", "RESUME")] {
        one.send_command(command);
        one.expect_event(event);
        assert!(one.receive().get("return").is_some());
        other.expect_event(event);
    }
    mux.signal(Signal::TERM);
    assert!(mux.wait().success());
    one.expect_end();
    let mut client = Client::connect(&Endpoint::Unix(mux.dir().join(SOCKET)));
    client.negotiate("{}");
    assert_eq!(ours(&mut client), Vec::<String>::new());
    drop(client);
    // And again.
    let options = ["attach", "--through", "unix:upstream.sock", "--listen", "unix:again.sock"];
    let mut again = qmp_server(options);
    again.current_dir(mux.dir()).stderr(Stdio::null());
    let mut again = Process::start(&mut again).unwrap();
    let endpoint = Endpoint::Unix(mux.dir().join("again.sock"));
    again.expect_ready(&endpoint);
    let mut client = Client::connect(&endpoint);
    client.negotiate("{}");
    client.execute("query-status");
}

#[test]
fn it_ends_with_qemu() {
    let Some((mut mux, qemu)) = attached() else { return };
    let mut client = mux.negotiated();
    client.execute("query-status");
    qemu.signal(Signal::KILL).unwrap();
    client.expect_end();
    assert!(mux.wait().success());
    assert!(!mux.socket().exists());
}

#[test]
fn what_qemu_or_a_role_does_not_allow_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let Some(_qemu) = qemu(Dialect::Qemu10_0, dir.path()) else { return };
    let output = attach(dir.path(), SOCKET);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{said}");
    let expected = "QEMU 10.0 has no monitors that can be added: QEMU 11.1 has";
    assert!(said.trim_end().ends_with(expected) && said.lines().count() == 1, "{said}");

    let dir = tempfile::tempdir().unwrap();
    let Some(_qemu) = qemu(Dialect::Qemu11_1, dir.path()) else { return };
    let mut mux = ["mux", "--upstream", "unix:upstream.sock", "--listen", "unix:{sock}"].to_vec();
    mux.extend(["--listen", "unix:operator.sock,role=operator"]);
    let mux = Server::start_in(dir, mux);
    let output = attach(mux.dir(), "operator.sock");
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("The command getfd has been disabled"), "{said}");
    assert_eq!(ours(&mut mux.negotiated()), Vec::<String>::new());
    let output = attach(mux.dir(), "absent.sock");
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn through_a_mux_the_monitor_is_added_and_removed_too() {
    let dir = tempfile::tempdir().unwrap();
    let Some(_qemu) = qemu(Dialect::Qemu11_1, dir.path()) else { return };
    let mux = ["mux", "--upstream", "unix:upstream.sock", "--listen", "unix:{sock}"];
    let mux = Server::start_in(dir, mux);
    let through = mux.socket().display().to_string();
    let listen = format!("unix:{}", mux.dir().join("attached.sock").display());
    let mut command = qmp_server(["attach", "--through", &through, "--listen", &listen]);
    command.stderr(Stdio::null());
    let mut attached = Process::start(&mut command).unwrap();
    let endpoint = Endpoint::Unix(mux.dir().join("attached.sock"));
    attached.expect_ready(&endpoint);
    let mut operator = mux.negotiated();
    assert_eq!(ours(&mut operator).len(), 2);
    attached.signal(Signal::TERM).unwrap();
    assert!(attached.wait(LIMIT).unwrap().is_some_and(|status| status.success()));
    wait_until(|| ours(&mut operator).is_empty());
}
