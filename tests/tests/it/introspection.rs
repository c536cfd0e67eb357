// SPDX-License-Identifier: MIT OR Apache-2.0

use std::path::Path;
use std::process::{Command, Stdio};

use tests::endpoint::Endpoint;
use tests::json::Json;
use tests::process::{Process, run};
use tests::programs::find_python;
use tests::schema::{Schema, is_downstream};
use tests::server::{Client, LIMIT, Server};

/// What QEMU 10.0 says of the commands and events of the reference machine. `UPDATE_EXPECT=1` has it recorded anew from
/// the one that is installed.
const RECORDED: &str = include_str!("../../schema/qemu-10.0.jsonl");

fn our_schema() -> Schema {
    Schema::new(&Server::start().negotiated().execute("query-qmp-schema"))
}

/// Compares entry by entry, with types named by first use on both sides. There are no exceptions.
#[track_caller]
fn check_same(ours: &[String], theirs: &[String]) {
    for (ours, theirs) in ours.iter().zip(theirs) {
        assert_eq!(ours, theirs);
    }
    assert_eq!(ours.len(), theirs.len());
}

#[test]
fn every_command_and_event_is_described_as_by_qemu() {
    let ours = our_schema();
    let theirs = Schema::parse(RECORDED);
    let (own, entities): (Vec<_>, Vec<_>) =
        ours.entities().into_iter().partition(|name| is_downstream(name));
    // What operators ask, of which QEMU knows nothing.
    let query = |what| format!("__org.qmp-server_query-{what}");
    assert_eq!(own, ["clients", "metrics", "server"].map(query));
    assert!(entities.len() > 30, "{entities:?}");
    assert_eq!(theirs.entities(), entities, "to be recorded anew");
    check_same(&ours.excerpt(&entities), &theirs.excerpt(&entities));
}

/// QEMU with a monitor at this socket, if it is installed.
fn start_qemu(socket: &Path) -> Option<Process> {
    let chardev = format!("unix:{},server=on,wait=off", socket.display());
    let mut command = Command::new("qemu-system-x86_64");
    command.args(["-machine", "none", "-nodefaults", "-nographic", "-S", "-qmp", &chardev]);
    Process::start(command.stdin(Stdio::null()).stdout(Stdio::null())).ok()
}

#[test]
fn the_recorded_schema_is_that_of_an_installed_qemu() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("qmp.sock");
    let Some(_qemu) = start_qemu(&socket) else {
        // Not a failure, ever: what was recorded is compared all the same.
        return eprintln!("skipped, qemu-system-x86_64 is absent");
    };
    let mut client = Client::connect(&Endpoint::Unix(socket));
    client.negotiate("{}");
    let version = client.execute("query-version").to_string();
    if !version.contains(r#""minor": 0, "major": 10"#) {
        return eprintln!("skipped, this is another QEMU: {version}");
    }
    let theirs = Schema::new(&client.execute("query-qmp-schema"));
    let ours = our_schema();
    let entities: Vec<_> =
        ours.entities().into_iter().filter(|name| !is_downstream(name)).collect();
    let excerpt = theirs.excerpt(&entities);
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/schema/qemu-10.0.jsonl");
        return std::fs::write(path, excerpt.join("\n") + "\n").unwrap();
    }
    assert_eq!(excerpt, RECORDED.lines().collect::<Vec<_>>());
    check_same(&ours.excerpt(&entities), &excerpt);
}

#[test]
fn libvirt_finds_what_it_looks_for() {
    let present = [
        "set-action/arg-type/*panic/^exit-failure",
        "set-action/arg-type/*shutdown/^poweroff",
        "watchdog-set-action/arg-type/action/^inject-nmi",
        "query-status/ret-type/running/!boolean",
        "query-status/ret-type/status/^guest-panicked",
        "query-target/ret-type/arch/^x86_64",
        "query-name/ret-type/*name/!string",
        "query-version/ret-type/qemu/major/!int",
        "query-fdsets/ret-type/fds/*opaque",
        "add-fd/arg-type/*fdset-id/!int",
        "trace-event-get-state/ret-type/state/^unavailable",
        "query-yank/ret-type/+block-node/node-name",
        "yank/arg-type/instances/type/^chardev",
        "yank/arg-type/instances/+migration",
        "qmp_capabilities/arg-type/*enable/^oob",
        "human-monitor-command/ret-type/!string",
        "human-monitor-command/$savevm-monitor-nodes",
        "query-qmp-schema/ret-type/+enum/values/$deprecated",
        "query-qmp-schema/ret-type/+object/members/*default/!value",
        "SHUTDOWN/arg-type/reason/^host-qmp-quit",
        "RESET/arg-type/guest/!boolean",
        "STOP/arg-type",
    ];
    let absent = [
        "blockdev-add",
        "query-status/ret-type/singlestep",
        "query-target/ret-type/arch/^z80",
        "query-name/arg-type/name",
        "watchdog-set-action/arg-type/*action",
        "yank/arg-type/instances/id",
        "yank/arg-type/instances/+migration/id",
        "SHUTDOWN/arg-type/*guest",
    ];
    let recorded = Schema::parse(RECORDED);
    let ours = our_schema();
    for schema in [&recorded, &ours] {
        for path in present {
            assert!(schema.has(path), "{path}");
        }
        for path in absent {
            assert!(!schema.has(path), "{path}");
        }
    }
}

#[test]
fn what_is_listed_is_what_is_described() {
    let server = Server::start();
    let mut client = server.negotiated();
    let schema = Schema::new(&client.execute("query-qmp-schema"));
    let listed = client.execute("query-commands");
    let listed = listed.as_array().unwrap().iter();
    let listed: Vec<_> = listed.map(|command| command.get("name").and_then(Json::as_str)).collect();
    assert_eq!(listed, schema.commands().map(Some).collect::<Vec<_>>());
}

#[test]
fn qmp_shell_completes_the_names_of_commands() {
    let Some(python) = find_python("python") else { return };
    let server = Server::start();
    let script = "import itertools, sys\n\
        from qemu.qmp.qmp_shell import QMPShell\n\
        with QMPShell(sys.argv[1]) as shell:\n    \
            shell.connect(negotiate=True)\n    \
            names = (shell._completer.complete('', n) for n in itertools.count())\n    \
            print(*itertools.takewhile(bool, names))\n";
    let mut command = Command::new(python);
    // The shell writes a history file into the home directory.
    command.args(["-c", script]).arg(server.socket()).env("HOME", server.dir());
    let finished = run(&mut command, "", LIMIT).unwrap();
    assert!(finished.status.success(), "{finished:#?}");
    let completed: Vec<_> = finished.stdout.split_whitespace().collect();
    let schema = our_schema();
    assert_eq!(completed, schema.commands().collect::<Vec<_>>());
}
