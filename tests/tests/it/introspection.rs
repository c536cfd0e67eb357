// SPDX-License-Identifier: MIT OR Apache-2.0
//! `query-qmp-schema`, compared with QEMU's and read as clients read it.

use std::path::Path;
use std::process::{Command, Stdio};

use qmp_proto::Dialect;
use tests::endpoint::Endpoint;
use tests::json::Json;
use tests::process::{Process, run};
use tests::programs::{Oracle, find_python};
use tests::schema::{Schema, is_downstream};
use tests::server::{Client, LIMIT, Server};

/// The introspection of QEMU 10.0 and 11.1 for the commands and events of the reference machine. `UPDATE_EXPECT=1` records it
/// again from the programs that `cargo xtask oracles` unpacks.
const RECORDED: [(Dialect, &str); 2] = [
    (Dialect::Qemu10_0, include_str!("../../schema/qemu-10.0.jsonl")),
    (Dialect::Qemu11_1, include_str!("../../schema/qemu-11.1.jsonl")),
];

fn our_schema(dialect: Dialect) -> Schema {
    let listen = ["--paused", "--listen", "unix:{sock}", "--listen", "unix:{pretty},pretty=on"];
    let server =
        Server::start_with(["serve", "--dialect", dialect.name()].into_iter().chain(listen));
    Schema::new(&server.negotiated().execute("query-qmp-schema"))
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
    for (dialect, recorded) in RECORDED {
        let ours = our_schema(dialect);
        let theirs = Schema::parse(recorded);
        let (own, entities): (Vec<_>, Vec<_>) =
            ours.entities().into_iter().partition(|name| is_downstream(name));
        // The commands for operators, which QEMU does not have.
        let query = |what| format!("__org.qmp-server_query-{what}");
        assert_eq!(own, ["clients", "metrics", "server"].map(query));
        assert!(entities.len() > 30, "{entities:?}");
        assert_eq!(theirs.entities(), entities, "to be recorded anew");
        check_same(&ours.excerpt(&entities), &theirs.excerpt(&entities));
    }
}

/// QEMU with a monitor at this socket; `None` if the calling test is to be skipped.
fn start_qemu(dialect: Dialect, socket: &Path) -> Option<Process> {
    let chardev = format!("unix:{},server=on,wait=off", socket.display());
    let mut command = Command::new(Oracle::of(dialect).program("qemu-system-x86_64")?);
    command.args(["-machine", "none", "-nodefaults", "-nographic", "-S", "-qmp", &chardev]);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    Some(Process::start(&mut command).expect("the program starts"))
}

#[test]
fn the_recorded_schema_is_that_of_qemu() {
    for (dialect, recorded) in RECORDED {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("qmp.sock");
        let Some(_qemu) = start_qemu(dialect, &socket) else { continue };
        let mut client = Client::connect(&Endpoint::Unix(socket));
        client.negotiate("{}");
        let theirs = Schema::new(&client.execute("query-qmp-schema"));
        let ours = our_schema(dialect);
        let entities: Vec<_> =
            ours.entities().into_iter().filter(|name| !is_downstream(name)).collect();
        let excerpt = theirs.excerpt(&entities);
        if std::env::var_os("UPDATE_EXPECT").is_some() {
            let file = format!("schema/qemu-{dialect}.jsonl");
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
            std::fs::write(path, excerpt.join("\n") + "\n").unwrap();
            continue;
        }
        assert_eq!(excerpt, recorded.lines().collect::<Vec<_>>());
        check_same(&ours.excerpt(&entities), &excerpt);
    }
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
    for (dialect, recorded) in RECORDED {
        for schema in [Schema::parse(recorded), our_schema(dialect)] {
            for path in present {
                assert!(schema.has(path), "{path}");
            }
            for path in absent {
                assert!(!schema.has(path), "{path}");
            }
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
    let schema = our_schema(Dialect::default());
    assert_eq!(completed, schema.commands().collect::<Vec<_>>());
}
