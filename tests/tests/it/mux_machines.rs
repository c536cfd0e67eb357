// SPDX-License-Identifier: MIT OR Apache-2.0
//! Many machines behind one mux.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::chown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tempfile::TempDir;
use tests::endpoint::Endpoint;
use tests::exposition::Exposition;
use tests::process::{Process, Signal, run};
use tests::programs::Oracle;
use tests::qemus;
use tests::scripted::{Crowd, Scripted};
use tests::server::{Client, LIMIT, Server, qmp_server};
use tests::waiting::{retry, wait_for, wait_until};

const DONE: &str = r#"{"return": {}}"#;

/// Machines `vm0`, `vm1` and so on, with sockets `vm0-qemu.sock` and `vm0.sock`; the latter of the first is `qmp.sock`.
fn configuration(machines: usize, more: &str) -> String {
    let mut text = more.to_owned();
    for number in 0..machines {
        let listen = socket_of(number);
        write!(
            text,
            "\n[[machine]]\nname = 'vm{number}'\nupstream = 'unix:vm{number}-qemu.sock'\n\
            listen = ['unix:{listen}']\n"
        )
        .unwrap();
    }
    text
}

fn socket_of(number: usize) -> String {
    if number == 0 { "qmp.sock".to_owned() } else { format!("vm{number}.sock") }
}

fn directory_with(configuration: &str) -> TempDir {
    let dir = tempfile::Builder::new().prefix("qmp-mux-").tempdir().unwrap();
    fs::write(dir.path().join("mux.toml"), configuration).unwrap();
    dir
}

fn upstream(dir: &Path, number: usize) -> Scripted {
    Scripted::listen(&dir.join(format!("vm{number}-qemu.sock")))
}

fn start(dir: TempDir) -> Server {
    Server::start_in(dir, ["mux", "--config", "mux.toml", "--upstream-lost", "keep"])
}

fn client(mux: &Server, number: usize) -> Client {
    Client::connect(&Endpoint::Unix(mux.dir().join(socket_of(number))))
}

fn negotiated(mux: &Server, number: usize) -> Client {
    let mut client = client(mux, number);
    client.negotiate("{}");
    client
}

fn scrape(mux: &Server) -> Exposition {
    let mut stream = UnixStream::connect(mux.dir().join("metrics.sock")).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    Exposition::parse(response.split_once("\r\n\r\n").unwrap().1)
}

#[test]
fn machines_share_a_process_and_nothing_else() {
    let dir = directory_with(&configuration(3, "metrics = 'unix:metrics.sock'"));
    // The one in the middle is not there.
    let servers = [upstream(dir.path(), 0), upstream(dir.path(), 2)];
    let mut mux = start(dir);
    let mut peers = servers.each_ref().map(|server| server.accept_and_negotiate("[]"));
    let mut clients = [negotiated(&mux, 0), negotiated(&mux, 2)];
    let mut waiting = client(&mux, 1);
    for (peer, client) in peers.iter_mut().zip(&mut clients) {
        client.send_command("query-status");
        let request = peer.expect("query-status");
        peer.answer(&request, "{}");
        client.expect(DONE);
    }
    peers[1].emit("STOP");
    clients[1].expect_event("STOP");
    clients[0].send_command("query-name");
    let request = peers[0].expect("query-name");

    let metrics = scrape(&mux);
    for (machine, connected) in [("vm0", 1.0), ("vm1", 0.0), ("vm2", 1.0)] {
        let key = format!("qmp_server_upstream_connected{{machine=\"{machine}\"}}");
        assert_eq!(metrics.value(&key), connected, "{machine}");
    }
    let key = "qmp_server_requests_total{machine=\"vm2\",band=\"in-band\"}";
    assert_eq!(metrics.value(key), 2.0);
    mux.process().expect_log("mux{machine=\"vm1\"}");
    let mut status = qmp_server(["status", "unix:vm2.sock"]);
    let status = run(status.current_dir(mux.dir()), "", LIMIT).unwrap();
    assert!(status.stdout.contains("upstream  vm2 at unix:vm2-qemu.sock, connected"), "{status:?}");

    // It comes late, and its client has waited.
    let late = upstream(mux.dir(), 1);
    let mut peer = late.accept_and_negotiate("[]");
    waiting.negotiate("{}");
    waiting.send_command("query-status");
    let late_request = peer.expect("query-status");
    peer.answer(&late_request, "{}");
    waiting.expect(DONE);

    peers[0].answer(&request, "{}");
    clients[0].expect(DONE);
    mux.signal(Signal::TERM);
    assert!(mux.wait().success());
    for number in 0..3 {
        assert!(!mux.dir().join(socket_of(number)).exists(), "vm{number}");
    }
}

#[test]
fn the_end_of_one_machine_is_not_that_of_others() {
    let dir = directory_with(&configuration(2, ""));
    let servers = [upstream(dir.path(), 0), upstream(dir.path(), 1)];
    let mux = start(dir);
    let mut first = servers[0].accept_and_negotiate("[]");
    let mut second = servers[1].accept_and_negotiate("[]");
    let (mut leaving, mut staying) = (negotiated(&mux, 0), negotiated(&mux, 1));
    leaving.send_command("quit");
    let quit = first.expect("quit");
    first.answer(&quit, "{}");
    drop(first);
    leaving.expect(DONE);
    leaving.expect_end();
    staying.send_command("query-status");
    let request = second.expect("query-status");
    second.answer(&request, "{}");
    staying.expect(DONE);
    // Its mux waits for the next one, as it does when it is alone.
    let mut again = servers[0].accept_and_negotiate("[]");
    let mut client = negotiated(&mux, 0);
    client.send_command("query-name");
    let request = again.expect("query-name");
    again.answer(&request, "{}");
    client.expect(DONE);
}

/// The one at standard input ends with it.
#[test]
fn a_machine_that_nobody_can_reach_any_more_ends_and_takes_its_metrics_along() {
    let text = configuration(2, "metrics = 'unix:metrics.sock'");
    let dir = directory_with(&text.replace("'unix:vm1.sock'", "'stdio'"));
    let servers = [upstream(dir.path(), 0), upstream(dir.path(), 1)];
    let mut program = qmp_server(["mux", "--config", "mux.toml", "--upstream-lost", "keep"]);
    program.current_dir(dir.path()).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut process = Process::start(&mut program).unwrap();
    let _first = servers[0].accept_and_negotiate("[]");
    let mut second = servers[1].accept_and_negotiate("[]");
    let mut greeting = String::new();
    let stdout = process.child().stdout.take().unwrap();
    BufReader::new(stdout).read_line(&mut greeting).unwrap();
    assert!(greeting.contains("QMP"), "{greeting}");
    drop(process.child().stdin.take());
    second.expect_end();
    let scrape = || {
        let mut stream = UnixStream::connect(dir.path().join("metrics.sock")).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).unwrap();
        response
    };
    wait_until(|| !scrape().contains("vm1"));
    assert!(scrape().contains("qmp_server_upstream_connected{machine=\"vm0\"} 1\n"));
    let mut client = Client::connect(&Endpoint::Unix(dir.path().join("qmp.sock")));
    client.negotiate("{}");
    process.signal(Signal::TERM).unwrap();
    assert!(process.wait(LIMIT).unwrap().unwrap().success());
}

#[test]
fn what_is_said_for_all_holds_unless_a_machine_says_otherwise() {
    let mut text = configuration(2, "audit = 'audit.jsonl'\ndefault-role = 'observer'");
    text.push_str("default-role = 'admin'\naudit-secret = ['colour']\n");
    let dir = directory_with(&text);
    let servers = [upstream(dir.path(), 0), upstream(dir.path(), 1)];
    let mut mux = start(dir);
    let _first = servers[0].accept_and_negotiate("[]");
    let mut second = servers[1].accept_and_negotiate("[]");
    let mut observer = negotiated(&mux, 0);
    observer.send(r#"{"execute": "x-unlock", "arguments": {"colour": 1}}"#);
    assert!(observer.receive().get("error").is_some());
    let mut admin = negotiated(&mux, 1);
    admin.send(r#"{"execute": "x-unlock", "arguments": {"colour": 2}}"#);
    let request = second.expect("x-unlock");
    second.answer(&request, "{}");
    admin.expect(DONE);
    mux.signal(Signal::TERM);
    mux.wait();
    let audit = fs::read_to_string(mux.dir().join("audit.jsonl")).unwrap();
    let of = |machine: &str| {
        let machine = format!("\"machine\": \"{machine}\"");
        let lines = audit.lines().filter(|line| line.contains("x-unlock"));
        lines.filter(|line| line.contains(&machine)).map(str::to_owned).collect::<String>()
    };
    assert!(of("vm0").contains(r#""arguments": {"colour": 1}"#), "{audit}");
    assert!(of("vm1").contains(r#""arguments": {"colour": "***"}"#), "{audit}");
}

/// One machine that is named, and those whose sockets match.
fn with_pattern(upstream: &str, listen: &str) -> String {
    configuration(1, "metrics = 'unix:metrics.sock'\nlog-filter = 'info'")
        + &format!(
            "[[machine]]\nname = '{{1}}'\nupstream = 'unix:{upstream}'\nlisten = ['unix:{listen}']\n"
        )
}

#[test]
fn machines_are_found_as_they_come_and_go() {
    let dir = directory_with(&with_pattern("vms/*/qemu.sock", "{1}.sock"));
    let mut mux = start(dir);
    let folder = mux.dir().join("vms/a");
    let socket = mux.dir().join("a.sock");
    for _ in 0..2 {
        fs::create_dir_all(&folder).unwrap();
        let server = Scripted::listen(&folder.join("qemu.sock"));
        let mut peer = server.accept_and_negotiate("[]");
        let mut client = Client::connect(&Endpoint::Unix(socket.clone()));
        client.negotiate("{}");
        assert_eq!(scrape(&mux).value("qmp_server_upstream_connected{machine=\"a\"}"), 1.0);
        // Its file has gone, and it is served for as long as it is there.
        drop(server);
        fs::remove_dir_all(&folder).unwrap();
        client.send_command("query-status");
        let request = peer.expect("query-status");
        peer.answer(&request, "{}");
        client.expect(DONE);
        drop(peer);
        client.expect_end();
        wait_until(|| !socket.exists());
        wait_until(|| {
            !scrape(&mux).keys().any(|key| key == "qmp_server_upstream_connected{machine=\"a\"}")
        });
    }
    mux.signal(Signal::TERM);
    assert!(mux.wait().success());
}

#[test]
fn a_mux_finds_neither_its_own_sockets_nor_those_of_others_in_a_users_folder() {
    let dir = directory_with(&with_pattern("*.sock", "{1}-mux.sock"));
    let server = Scripted::listen(&dir.path().join("a.sock"));
    let strange = dir.path().join("strange.sock");
    let mut mux = start(dir);
    let _peer = server.accept_and_negotiate("[]");
    let mut client = Client::connect(&Endpoint::Unix(mux.dir().join("a-mux.sock")));
    client.negotiate("{}");
    // What is found next has been looked at after all that was made before.
    let next = Scripted::listen(&mux.dir().join("b.sock"));
    let _other = next.accept_and_negotiate("[]");
    let metrics = scrape(&mux);
    for (machine, there) in [("a", true), ("b", true), ("a-mux", false), ("metrics", false)] {
        let key = format!("qmp_server_upstream_connected{{machine=\"{machine}\"}}");
        assert_eq!(metrics.keys().any(|there| there == key), there, "{machine}");
    }
    // Only root can give a folder away.
    if chown(mux.dir(), Some(12345), None).is_ok() {
        let server = Scripted::listen(&strange);
        mux.process().expect_log("user 0 listens there, and not 12345, whose folder it is");
        server.accept().expect_end();
    }
    mux.signal(Signal::TERM);
    assert!(mux.wait().success());
}

#[test]
fn mistakes_name_the_machine_and_the_key() {
    let check = |text: &str, expected: &str| {
        let dir = directory_with(text);
        let mut program = qmp_server(["mux", "--config", "mux.toml", "--check-config"]);
        let finished = run(program.current_dir(dir.path()), "", LIMIT).unwrap();
        assert_eq!(finished.stderr.trim_end(), expected);
        assert_eq!(finished.status.success(), expected.is_empty());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing was started");
    };
    let two = configuration(2, "");
    check(&two, "");
    let at = |line: usize, what: &str| format!("qmp-server: mux.toml:{line}: {what}");
    let said = |text: &str, line, what: &str| check(text, &at(line, what));
    said(
        &two.replace("vm1.sock", "./qmp.sock"),
        10,
        "machine 'vm1': listen: unix:./qmp.sock is listened at twice",
    );
    said(
        &two.replace("vm0-qemu.sock", "vm1.sock"),
        4,
        "machine 'vm0': upstream: the mux itself listens at unix:vm1.sock",
    );
    said(&two.replace("'vm1'", "'vm0'"), 7, "machine 'vm0': name: another machine has this name");
    said(
        &two.replace("name = 'vm1'", ""),
        7,
        "machine '': name: the name of the machine is missing",
    );
    said(
        &two.replace("upstream = 'unix:vm1-qemu.sock'", ""),
        7,
        "machine 'vm1': upstream: the server to share is missing",
    );
    said(
        &two.replace("listen = ['unix:vm1.sock']", ""),
        7,
        "machine 'vm1': listen: there is no address to serve it at",
    );
    said(&two.replace("'vm1'", "''"), 8, "machine[1].name: the name of the machine is empty");
    said(
        &two.replace("'unix:vm1.sock'", "'unix:vm1.sock,role=nobody'"),
        10,
        "machine 'vm1': listen: there is no role 'nobody', only observer, operator, admin",
    );
    said(
        &format!("{two}listne = ['x']"),
        11,
        "machine[1].listne: unknown field `listne`, expected one of `name`, `upstream`, `dialect`, `upstream-lost`, `listen`, `agent`, `agent-listen`, `agent-timeout`, \
        `allow-user`, `allow-group`, `role`, `default-role`, `insecure`, `deadline`, `deadline-profile`, `hang-after`, `limit`, `audit`, `audit-secret`",
    );
    let found = with_pattern("*/qemu.sock", "{1}.sock");
    check(&found, "");
    said(
        &found.replace("'{1}'", "'x'"),
        7,
        "machine 'x': name: {1} is missing, which tells the machines apart",
    );
    said(
        &found.replace("{1}.sock", "x.sock"),
        10,
        "machine '{1}': listen: {1} is missing, which tells the machines apart",
    );
    said(
        &found.replace("unix:{1}.sock", "tcp:localhost:0"),
        10,
        "machine '{1}': listen: machines that are found are served at unix: or unix-abstract:",
    );
    said(
        &found.replace("*/qemu.sock", "**/qemu.sock"),
        9,
        "machine '{1}': upstream: '**' has more than one '*' between two slashes",
    );
    said(&configuration(2, "listen = ['unix:a']"), 1, "listen: each [[machine]] has its own");
}

/// Sets it when it is dropped.
struct AtEnd<'a>(&'a AtomicBool);

impl Drop for AtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// One that stands still with a command of a client, one that sends events without end to a client that does not read, and one that
/// ends again and again.
#[test]
fn machines_that_misbehave_hold_up_no_other() {
    let dir = directory_with(&configuration(4, "[mux]\ncontrol = ['unix:control.sock']"));
    let servers: Vec<_> = (0..4).map(|number| upstream(dir.path(), number)).collect();
    let mut mux = start(dir);
    let mut well = servers[0].accept_and_negotiate("[]");
    let mut still = servers[1].accept_and_negotiate("[]");
    let mut flood = servers[2].accept_and_negotiate("[]");
    let mut waiting = negotiated(&mux, 1);
    waiting.send_command("query-status");
    let request = still.expect("query-status");
    let unread = negotiated(&mux, 2);
    let mut client = negotiated(&mux, 0);
    let over = AtomicBool::new(false);
    let is_over = || over.load(Ordering::SeqCst);
    thread::scope(|scope| {
        // Also if something below fails.
        let _end = AtEnd(&over);
        scope.spawn(|| {
            while !is_over() {
                flood.emit("X_FLOOD");
            }
        });
        let restarting = &servers[3];
        scope.spawn(|| {
            while !is_over() {
                if restarting.is_called_within(Duration::from_millis(10)) {
                    drop(restarting.accept_and_negotiate("[]"));
                }
            }
        });
        for _ in 0..300 {
            client.send_command("query-status");
            let request = well.expect("query-status");
            well.answer(&request, "{}");
            client.expect(DONE);
        }
        let mut operator = Client::connect(&Endpoint::Unix(mux.dir().join("control.sock")));
        operator.negotiate("{}");
        let status = operator.execute("__org.qmp-server_query-machines").to_string();
        assert!(status.contains(r#""in-flight": [{"command": "query-status""#), "{status}");
    });
    still.answer(&request, "{}");
    waiting.expect(DONE);
    drop(unread);
    mux.signal(Signal::TERM);
    assert!(mux.wait().success());
}

/// Bytes of memory that are the process's own.
fn private_bytes(pid: u32) -> u64 {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    // Not `Private_Dirty`: that counts pages of a program that has just been built and is not on the disk yet.
    let line = rollup.lines().find_map(|line| line.strip_prefix("Anonymous:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

/// What so many idle machines take, each with a client that has negotiated, and the threads they need.
fn cost_of(machines: usize) -> (u64, BTreeSet<String>) {
    let dir = directory_with(&configuration(machines, ""));
    let paths: Vec<PathBuf> =
        (0..machines).map(|number| dir.path().join(format!("vm{number}-qemu.sock"))).collect();
    let _crowd = Crowd::listen(&paths);
    let mut mux = start(dir);
    // They are listened at one after the other.
    let last = Endpoint::Unix(mux.dir().join(socket_of(machines - 1)));
    retry(3 * LIMIT, || last.try_connect().map(drop)).unwrap();
    let clients: Vec<Client> = (0..machines).map(|number| negotiated(&mux, number)).collect();
    let pid = mux.process().child().id();
    let name = |path: PathBuf| fs::read_to_string(path.join("comm")).unwrap_or_default();
    // A thread that has stepped in for another one goes again.
    let threads = wait_for(|| {
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
        let threads: BTreeSet<_> = tasks.map(|task| name(task.unwrap().path())).collect();
        if threads.len() <= 4 { Ok(threads) } else { Err(format!("{threads:?}")) }
    });
    let bytes = private_bytes(pid);
    drop(clients);
    (bytes, threads)
}

#[test]
fn a_machine_costs_little_memory_and_no_thread() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
    // A program without optimizations needs some milliseconds to set each up.
    const MACHINES: usize = if cfg!(debug_assertions) { 125 } else { 500 };
    let (few, _) = cost_of(MACHINES);
    let (many, threads) = cost_of(2 * MACHINES);
    let each = many.saturating_sub(few) / MACHINES as u64;
    println!("{each} bytes for a machine, {many} for {}, threads {threads:?}", 2 * MACHINES);
    assert!(each <= 64 << 10, "{each} bytes for a machine");
    let (one, _) = cost_of(1);
    println!("{one} bytes for one machine");
    // Without optimizations, the program itself has more that is written to when it is loaded.
    let most = if cfg!(debug_assertions) { 2 << 20 } else { 1 << 20 };
    assert!(one <= most, "{one} bytes for one machine");
}

#[test]
fn real_machines_answer_beside_one_that_stands_still_and_one_that_ends() {
    let Some(qemu) = Oracle::V10_0.program("qemu-system-x86_64") else { return };
    let seen = qemus::run(&qemu, 4, 2);
    assert_eq!(seen.answers, 2 * 6);
}
