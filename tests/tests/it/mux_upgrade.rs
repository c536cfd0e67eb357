// SPDX-License-Identifier: MIT OR Apache-2.0
//! Another program goes on with a mux.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use tests::process::{Process, Signal};
use tests::scripted::{Scripted, behind_mux};
use tests::server::{Client, Server, qmp_server};
use tests::upgrades::{Plan, run};

const DONE: &str = r#"{"return": {}}"#;

#[test]
fn nobody_notices_that_the_program_is_executed_anew_or_reads_its_file() {
    let seen = run(Plan { machines: 5, executed: 5, restarted: 0, reloaded: 6 });
    assert!(seen.replies > 100, "{seen:?}");
}

#[test]
fn nobody_notices_a_restart_under_a_service_manager_that_stores_descriptors() {
    let seen = run(Plan { machines: 5, executed: 2, restarted: 5, reloaded: 2 });
    assert!(seen.replies > 100, "{seen:?}");
}

fn goes_on(mux: &mut Server, why: &str) {
    mux.signal(Signal::USR2);
    mux.process().expect_log("SIGUSR2: this program goes on");
    let log = mux.process().stderr();
    assert!(log.contains(why), "{log}");
}

#[test]
fn a_program_that_refuses_its_configuration_is_not_executed() {
    let dir = tempfile::Builder::new().prefix("qmp-mux-").tempdir().unwrap();
    let file = dir.path().join("mux.toml");
    let text = "listen = ['unix:qmp.sock,notices=on']\n[mux]\nupstream = 'unix:upstream.sock'\n";
    fs::write(&file, text).unwrap();
    let scripted = Scripted::listen(&dir.path().join("upstream.sock"));
    let mut mux = Server::start_in(dir, ["mux", "--config", "mux.toml", "--log-filter", "info"]);
    let mut upstream = scripted.accept_and_negotiate("[]");
    let mut client = mux.negotiated();
    fs::write(&file, "listen = 7\n").unwrap();
    goes_on(&mut mux, "refuses");
    client.send_command("stop");
    let stop = upstream.expect("stop");
    upstream.answer(&stop, "{}");
    client.expect(DONE);
}

#[test]
fn a_program_that_knows_nothing_of_the_format_is_not_executed() {
    let mut check = qmp_server([
        "mux",
        "--upstream=unix:x",
        "--listen=unix:y",
        "--check-config",
        "--hand-over-format=999",
    ]);
    let mut refused = Process::start(check.stdout(Stdio::null())).unwrap();
    let status = refused.wait(tests::server::LIMIT).unwrap();
    assert_eq!(status.and_then(|status| status.code()), Some(2));
    assert!(refused.stderr().contains("has the format 999, and not"), "{}", refused.stderr());
}

#[test]
fn a_client_at_standard_input_prevents_it() {
    let dir = tempfile::Builder::new().prefix("qmp-mux-").tempdir().unwrap();
    let scripted = Scripted::listen(&dir.path().join("upstream.sock"));
    let mut command = qmp_server(["mux", "--upstream=unix:upstream.sock", "--listen=stdio"]);
    command.current_dir(dir.path()).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut mux = Process::start(&mut command).unwrap();
    let _upstream = scripted.accept_and_negotiate("[]");
    let mut lines = BufReader::new(mux.child().stdout.take().unwrap()).lines();
    assert!(lines.next().unwrap().unwrap().contains("QMP"));
    mux.signal(Signal::USR2).unwrap();
    mux.expect_log("a client at standard input cannot be handed over");
    let mut stdin = mux.child().stdin.take().unwrap();
    stdin.write_all(b"{'execute': 'qmp_capabilities'}").unwrap();
    assert_eq!(lines.next().unwrap().unwrap(), DONE);
}

#[test]
fn serve_cannot_be_upgraded_and_goes_on() {
    let mut server = Server::start();
    let mut client = server.negotiated();
    server.signal(Signal::USR2);
    server.process().expect_log("only `mux` can be upgraded");
    client.execute("query-status");
}

#[test]
fn a_machine_that_an_operator_has_added_and_the_control_socket_stay() {
    let dir = tempfile::Builder::new().prefix("qmp-mux-").tempdir().unwrap();
    let scripted = Scripted::listen(&dir.path().join("upstream.sock"));
    let mut mux =
        Server::start_in(dir, ["mux", "--control", "unix:{sock}", "--log-filter", "info"]);
    let mut operator = mux.negotiated();
    let listen = mux.dir().join("vm.sock");
    let (upstream, listen) =
        (mux.dir().join("upstream.sock").display().to_string(), listen.display().to_string());
    operator.send(&format!(
        r#"{{"execute": "__org.qmp-server_machine-add", "arguments": {{"name": "vm", "upstream": "unix:{upstream}", "listen": ["unix:{listen}"]}}}}"#
    ));
    let added = operator.receive();
    assert!(added.get("return").is_some(), "{added}");
    let mut upstream = scripted.accept_and_negotiate("[]");
    let endpoint = tests::endpoint::Endpoint::Unix(listen.into());
    mux.process().expect_ready(&endpoint);
    let mut client = Client::connect(&endpoint);
    client.negotiate("{}");
    for upgrade in 1..3 {
        client.send_command("stop");
        let stop = upstream.expect("stop");
        mux.signal(Signal::USR2);
        tests::waiting::wait_for(|| {
            let log = mux.process().stderr();
            let done = log.matches("another program has handed over").count();
            if done >= upgrade { Ok(()) } else { Err(log) }
        });
        upstream.answer(&stop, "{}");
        client.expect(DONE);
        let machines = operator.execute("__org.qmp-server_query-machines");
        assert!(machines.to_string().contains(r#""origin": "control""#), "{machines}");
    }
}

#[test]
fn the_file_of_a_socket_is_removed_at_the_end_by_the_program_that_has_it_then() {
    let (mut mux, scripted) = behind_mux(&["--log-filter", "info"]);
    let _upstream = scripted.accept_and_negotiate("[]");
    fs::set_permissions(mux.socket(), fs::Permissions::from_mode(0o640)).unwrap();
    mux.signal(Signal::USR2);
    mux.process().expect_log("another program has handed over");
    let mode = fs::metadata(mux.socket()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o640, "it is the same file");
    mux.signal(Signal::TERM);
    assert!(mux.wait().success());
    assert!(!mux.socket().exists());
}
