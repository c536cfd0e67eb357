// SPDX-License-Identifier: MIT OR Apache-2.0
//! What clients of a mux see when its server is not there: by default, by `--upstream-lost` and at doors with notices.

use std::fs;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::process::Command;
use std::time::Duration;

use qmp_proto::Dialect;
use tempfile::TempDir;
use tests::certificates::{Authority, Identity};
use tests::json::Json;
use tests::process::{Process, Signal, run};
use tests::scripted::{Peer, Scripted};
use tests::server::{Client, LIMIT, Server, program, qmp_server, refusal};
use tests::stdio;
use tests::upstream::{Muxed, Program, expect_upstream};
use tests::waiting::{wait_for, wait_until};

const DONE: &str = r#"{"return": {}}"#;

fn directory() -> TempDir {
    tempfile::Builder::new().prefix("qmp-mux-").tempdir().unwrap()
}

/// A mux whose own socket is a door with notices, in front of a scripted server, with these doors and options. `{dir}` stands
/// for its directory.
fn start(options: &[&str]) -> (Server, Scripted) {
    let dir = directory();
    let server = Scripted::listen(&dir.path().join("upstream.sock"));
    (start_in(dir, options), server)
}

fn start_in(dir: TempDir, options: &[&str]) -> Server {
    let path = dir.path().display().to_string();
    let options: Vec<_> = options.iter().map(|option| option.replace("{dir}", &path)).collect();
    let arguments = ["mux", "--upstream", "unix:upstream.sock"].into_iter();
    // The second is where helpers of other tests look.
    let doors = ["--listen", "unix:{sock},notices=on", "--listen", "unix:notices.sock,notices=on"];
    Server::start_in(dir, arguments.chain(doors).chain(options.iter().map(String::as_str)))
}

trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

/// Somewhere to connect to.
#[derive(Clone, Debug)]
enum Door {
    Unix(String),
    Abstract(String),
    Tcp(u16),
}

impl Door {
    fn connect(&self) -> io::Result<Box<dyn Stream>> {
        Ok(match self {
            Door::Unix(path) => Box::new(limited(UnixStream::connect(path)?)),
            Door::Abstract(name) => {
                let address = SocketAddr::from_abstract_name(name)?;
                Box::new(limited(UnixStream::connect_addr(&address)?))
            }
            Door::Tcp(port) => {
                let stream = TcpStream::connect(("127.0.0.1", *port))?;
                stream.set_read_timeout(Some(LIMIT))?;
                Box::new(stream)
            }
        })
    }

    #[track_caller]
    fn expect_refusal(&self) {
        let refused = self.connect().map(drop).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused, "{self:?}");
    }

    #[track_caller]
    fn negotiated(&self) -> Box<dyn Stream> {
        let mut stream = wait_for(|| self.connect().map_err(|error| error.to_string()));
        assert!(line(&mut stream).starts_with(r#"{"QMP""#));
        stream.write_all(b"{'execute': 'qmp_capabilities'}").unwrap();
        assert_eq!(line(&mut stream), DONE);
        stream
    }
}

fn limited(stream: UnixStream) -> UnixStream {
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream
}

/// The next line without its end; empty at the end of the file.
fn line(stream: &mut dyn Stream) -> String {
    let mut bytes = Vec::new();
    let mut byte = [0];
    while stream.read(&mut byte).unwrap() == 1 && byte != *b"\n" {
        bytes.extend(byte);
    }
    String::from_utf8(bytes).unwrap().trim_end().to_owned()
}

fn rest(stream: &mut dyn Stream) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

#[track_caller]
fn answer(peer: &mut Peer, command: &str) {
    let request = peer.expect(command);
    peer.answer(&request, "{}");
}

#[test]
fn clients_find_what_the_server_itself_would_leave_them_round_by_round() {
    let doors = [
        "--listen",
        "unix:door.sock,mode=0640",
        "--listen",
        "unix-abstract:{dir}",
        "--listen",
        "tcp:127.0.0.1:0",
    ];
    let (mux, server) = start(&doors);
    let path = mux.dir().join("door.sock").display().to_string();
    let doors = [
        Door::Unix(path.clone()),
        Door::Abstract(mux.dir().display().to_string()),
        Door::Tcp(mux.ports()[0]),
    ];
    let line_of_event = r#"{"timestamp": {"seconds": 1, "microseconds": 2}, "event": "BALLOON"}"#;
    for _ in 0..5 {
        doors.iter().for_each(Door::expect_refusal);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o640);
        let mut peer = server.accept_and_negotiate("[]");
        let mut clients = doors.each_ref().map(Door::negotiated);
        // One command is answered, one is at the server, and others wait.
        clients[0].write_all(b"{'execute': 'done'}").unwrap();
        answer(&mut peer, "done");
        assert_eq!(line(&mut clients[0]), DONE);
        clients[0].write_all(b"{'execute': 'sent'}").unwrap();
        peer.expect("sent");
        for client in &mut clients {
            client.write_all(b"{'execute': 'waits', 'id': 1}{'execute': 'waits'}").unwrap();
        }
        peer.emit("BALLOON");
        drop(peer);
        for (client, door) in clients.iter_mut().zip(&doors) {
            // Nothing but what was queued, and no error.
            assert_eq!(rest(client).trim_end(), line_of_event, "{door:?}");
            door.expect_refusal();
        }
    }
}

/// A request of a client that is about to be disconnected must not reach the next server: it might be `quit`.
#[test]
fn the_next_server_gets_nothing_of_the_clients_of_the_last_one_and_they_nothing_of_it() {
    let (mux, server) = start(&["--upstream-lost", "disconnect", "--listen", "unix:door.sock"]);
    let door = Door::Unix(mux.dir().join("door.sock").display().to_string());
    let mut peer = server.accept_and_negotiate("[]");
    // This one does not read what it is sent, so its connection cannot end at once.
    let mut lazy = door.negotiated();
    lazy.write_all(b"{'execute': 'large'}").unwrap();
    let request = peer.expect("large");
    let large = format!("\"{}\"", "x".repeat(3 << 20));
    peer.answer(&request, &large);
    let mut others: Vec<_> = (0..8).map(|_| door.negotiated()).collect();
    for other in &mut others {
        let requests = "{'execute': 'quit'}".repeat(50);
        other.write_all(requests.as_bytes()).unwrap();
    }
    peer.expect("quit");
    drop(peer);
    let mut peer = server.accept_and_negotiate("[]");
    peer.emit("BALLOON");
    let mut new = door.negotiated();
    new.write_all(b"{'execute': 'first'}").unwrap();
    answer(&mut peer, "first");
    assert_eq!(line(&mut new), DONE);
    for other in &mut others {
        assert_eq!(rest(other), "");
    }
    let said = rest(&mut lazy);
    assert!(!said.contains("BALLOON") && !said.contains("error"), "{} bytes", said.len());
    peer.expect_silence(Duration::ZERO);
}

/// Otherwise its clients would be refused for seconds after it listens.
#[test]
fn a_server_is_connected_to_as_soon_as_its_socket_appears_with_its_folder() {
    let dir = directory();
    let folder = dir.path().join("run/vm1");
    let upstream = format!("unix:{}", folder.join("qemu.sock").display());
    let mux = ["mux", "--upstream", &upstream, "--log-filter", "debug"];
    let listen = ["--listen", "unix:door.sock", "--listen", "unix:{sock},notices=on"];
    let mut mux = Server::start_in(dir, mux.into_iter().chain(listen));
    let door = Door::Unix(mux.dir().join("door.sock").display().to_string());
    let told = "the socket of the upstream server has appeared";
    // It may have been connected to before, when the next try was due, but not each time.
    let mut rounds = 0;
    while mux.process().stderr().matches(told).count() < 2 {
        rounds += 1;
        assert!(rounds <= 20, "{}", mux.process().stderr());
        fs::create_dir_all(&folder).unwrap();
        let server = Scripted::listen(&folder.join("qemu.sock"));
        let _peer = server.accept_and_negotiate("[]");
        drop(door.negotiated());
        drop(server);
        fs::remove_dir_all(mux.dir().join("run")).unwrap();
    }
}

#[test]
fn a_client_that_is_not_identified_yet_is_disconnected_with_the_others() {
    let dir = directory();
    let authority = Authority::new(dir.path(), "authority").unwrap();
    let Identity { cert, key } = authority.issue("server", &["localhost"]).unwrap();
    let door = format!("tls:127.0.0.1:0,cert={},key={}", cert.display(), key.display());
    let server = Scripted::listen(&dir.path().join("upstream.sock"));
    let mux = start_in(dir, &["--upstream-lost", "disconnect", "--listen", &door]);
    let door = Door::Tcp(mux.ports()[0]);
    door.expect_refusal();
    for _ in 0..2 {
        let peer = server.accept_and_negotiate("[]");
        // Says nothing, and so is in its handshake.
        let mut silent = wait_for(|| door.connect().map_err(|error| error.to_string()));
        expect_upstream(&mux, true);
        drop(peer);
        // Nothing but the farewell of TLS.
        let mut said = Vec::new();
        silent.read_to_end(&mut said).unwrap();
        assert!(said.len() < 16, "{said:?}");
        door.expect_refusal();
    }
}

#[test]
fn a_socket_that_was_inherited_lets_clients_wait_at_first_and_turns_them_away_later() {
    let dir = directory();
    let server = Scripted::listen(&dir.path().join("upstream.sock"));
    let path = dir.path().join("given.sock").display().to_string();
    let given = UnixListener::bind(&path).unwrap();
    let mut command = qmp_server(["mux", "--upstream", "unix:upstream.sock", "--listen", "fd:0"]);
    command.args(["--upstream-lost", "disconnect"]).current_dir(dir.path());
    let _mux = Process::start(command.stdin(OwnedFd::from(given))).unwrap();
    let door = Door::Unix(path);
    let mut early = door.connect().unwrap();
    let mut peer = server.accept_and_negotiate("[]");
    assert!(line(&mut early).starts_with(r#"{"QMP""#));
    early.write_all(b"{'execute': 'qmp_capabilities'}{'execute': 'first'}").unwrap();
    answer(&mut peer, "first");
    assert_eq!([line(&mut early), line(&mut early)], [DONE, DONE]);
    drop(peer);
    assert_eq!(rest(&mut early), "");
    for _ in 0..3 {
        assert_eq!(rest(&mut door.connect().unwrap()), "", "it is accepted and disconnected");
    }
    let _peer = server.accept_and_negotiate("[]");
    wait_until(|| {
        let mut client = door.connect().unwrap();
        let mut byte = [0];
        client.read(&mut byte).unwrap() == 1
    });
}

#[test]
fn who_waits_for_the_first_greeting_where_nobody_can_be_refused_waits_five_seconds() {
    let dir = directory();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut ours = limited(ours);
    let mut command = qmp_server(["mux", "--upstream", "unix:missing.sock", "--listen", "fd:0"]);
    command.args(["--upstream-lost", "disconnect"]).current_dir(dir.path());
    let mut mux = Process::start(command.stdin(OwnedFd::from(theirs))).unwrap();
    drop(command);
    assert_eq!(rest(&mut ours), "");
    // Nobody can come any more.
    assert!(mux.wait(LIMIT).unwrap().unwrap().success(), "{}", mux.stderr());
}

#[test]
fn a_mux_that_is_to_end_with_its_server_says_how_that_has_ended() {
    for (quits, status) in [(true, 0), (false, 3)] {
        let (mut mux, server) = start(&["--upstream-lost", "exit", "--listen", "unix:door.sock"]);
        let door = Door::Unix(mux.dir().join("door.sock").display().to_string());
        // Not before there was one.
        drop(server.accept());
        door.expect_refusal();
        let mut peer = server.accept_and_negotiate("[]");
        let mut client = door.negotiated();
        expect_upstream(&mux, true);
        let mut watcher = mux.negotiated();
        if quits {
            client.write_all(b"{'execute': 'quit'}").unwrap();
            answer(&mut peer, "quit");
            assert_eq!(line(&mut client), DONE);
        }
        drop(peer);
        assert_eq!(rest(&mut client), "");
        watcher.expect_event("__org.qmp-server_UPSTREAM_DISCONNECTED");
        watcher.expect_end();
        assert_eq!(mux.wait().code(), Some(status), "{}", mux.process().stderr());
        assert!(!mux.dir().join("door.sock").exists());
    }
}

fn error_of(client: &mut Client, command: &str) -> String {
    client.send_command(command);
    client.receive().to_string()
}

#[test]
fn a_door_with_notices_is_open_before_there_is_a_server_and_tells_of_it() {
    let (mux, server) = start(&["--upstream-lost", "disconnect"]);
    let mut early = mux.connect();
    let greeting = early.receive().to_string();
    let own = r#"{"QMP": {"version": {"qemu": {"micro": 3, "minor": 1, "major": 11}, "package": "qmp-server"}, "capabilities": ["oob"]}}"#;
    assert_eq!(greeting, own);
    early.send(r#"{"execute": "qmp_capabilities", "arguments": {"enable": ["oob"]}}"#);
    early.expect(DONE);
    let error = error_of(&mut early, "query-version");
    assert!(error.contains("The command query-version cannot be sent to the server"), "{error}");
    let status = run(qmp_server(["status", "unix:qmp.sock"]).current_dir(mux.dir()), "", LIMIT);
    let status = status.unwrap();
    assert!(status.stdout.contains("not connected"), "{status:?}");

    // The server speaks QEMU 10.0's dialect, and has no out-of-band execution.
    let mut peer = server.accept_and_negotiate("[]");
    early.expect_event("__org.qmp-server_UPSTREAM_CONNECTED");
    early.send_command("ask");
    answer(&mut peer, "ask");
    early.expect(DONE);
    let mut late = mux.negotiated();
    // 11.1 alone says where a mistake is.
    for (client, has_place) in [(&mut early, true), (&mut late, false)] {
        client.send("]");
        let error = client.receive().to_string();
        assert!(error.contains("JSON parse error"), "{error}");
        assert_eq!(error.contains(": JSON parse error"), has_place, "{error}");
    }
    // What the client has enabled is still understood, by the mux itself.
    early.send(r#"{"exec-oob": "__org.qmp-server_query-server", "id": 1}"#);
    assert!(early.receive().to_string().ends_with(r#""id": 1}"#));

    early.send_command("sent");
    peer.expect("sent");
    drop(peer);
    let error = early.receive().to_string();
    assert!(error.contains("The command sent was sent and not answered"), "{error}");
    for client in [&mut early, &mut late] {
        client.expect_event("__org.qmp-server_UPSTREAM_DISCONNECTED");
    }
    let _peer = server.accept_and_negotiate("[]");
    for client in [&mut early, &mut late] {
        client.expect_event("__org.qmp-server_UPSTREAM_CONNECTED");
    }
}

#[test]
fn clients_of_a_role_with_notices_are_informed_and_stay_at_whatever_door() {
    let dir = directory();
    let server = Scripted::listen(&dir.path().join("upstream.sock"));
    let text = "default-role = 'watcher'
        listen = ['unix:qmp.sock,role=watcher', 'unix:plain.sock', 'unix:admin.sock,role=admin']
        [mux]
        upstream = 'unix:upstream.sock'
        upstream-lost = 'disconnect'
        [roles.watcher]
        base = 'observer'
        notices = true";
    fs::write(dir.path().join("mux.toml"), text).unwrap();
    let mux = Server::start_in(dir, ["mux", "--config", "mux.toml"]);
    let door = |name: &str| Door::Unix(mux.dir().join(name).display().to_string());
    // The door of such a role is open, and that of others is not, whoever comes.
    let mut watcher = mux.negotiated();
    ["plain.sock", "admin.sock"].iter().for_each(|name| door(name).expect_refusal());
    let peer = server.accept_and_negotiate("[]");
    watcher.expect_event("__org.qmp-server_UPSTREAM_CONNECTED");
    let [mut plain, mut admin] = ["plain.sock", "admin.sock"].map(|name| door(name).negotiated());
    drop(peer);
    watcher.expect_event("__org.qmp-server_UPSTREAM_DISCONNECTED");
    assert!(line(&mut plain).contains("__org.qmp-server_UPSTREAM_DISCONNECTED"));
    assert_eq!(rest(&mut admin), "");
    door("plain.sock").expect_refusal();
    let _peer = server.accept_and_negotiate("[]");
    watcher.expect_event("__org.qmp-server_UPSTREAM_CONNECTED");
    assert!(line(&mut plain).contains("__org.qmp-server_UPSTREAM_CONNECTED"));
}

/// Without notices, a client cannot be told that it has missed events: so it misses none, or is disconnected.
#[test]
fn a_client_that_does_not_read_loses_no_event_without_learning_of_it() {
    let options =
        ["--upstream-lost", "keep", "--listen", "unix:door.sock", "--limit", "unread=64000"];
    let (mut mux, server) = start(&options);
    let door = Door::Unix(mux.dir().join("door.sock").display().to_string());
    let mut peer = server.accept_and_negotiate("[]");
    let [mut lazy, mut reads] = [(); 2].map(|()| door.negotiated());
    expect_upstream(&mux, true);
    let mut informed = mux.negotiated();
    // A long answer that is not read counts for nothing.
    reads.write_all(b"{'execute': 'large'}").unwrap();
    let request = peer.expect("large");
    peer.answer(&request, &format!("\"{}\"", "x".repeat(2 << 20)));
    peer.emit("AFTER_LARGE");
    assert!(line(&mut reads).len() > 2 << 20);
    assert!(line(&mut reads).contains("AFTER_LARGE"));
    let mut emitted = 0;
    while !mux.process().stderr().contains("a client is disconnected: it does not read") {
        for _ in 0..100 {
            peer.emit(&format!("EVENT_{emitted}"));
            assert!(line(&mut reads).contains(&format!("\"EVENT_{emitted}\"")));
            emitted += 1;
        }
        assert!(emitted < 100_000, "it is kept for ever");
    }
    // It gets events without a gap, up to the end.
    let mut said = String::new();
    // The end may be a reset.
    let _ = lazy.read_to_string(&mut said);
    let events = said.split_inclusive('\n').filter(|line| line.ends_with('\n'));
    let events: Vec<_> = events.skip_while(|line| line.contains("AFTER_LARGE")).collect();
    assert!(!events.is_empty());
    for (number, event) in events.iter().enumerate() {
        assert!(event.contains(&format!("\"EVENT_{number}\"")), "{event}");
    }
    // The one with notices misses some, and is told how many.
    let mut missed = None;
    while missed.is_none() {
        let event = informed.receive();
        let name = event.get("event").and_then(Json::as_str).unwrap_or_default();
        if name == "__org.qmp-server_EVENTS_MISSED" {
            missed = event.get("data").and_then(|data| data.get("count")).and_then(Json::as_i64);
        }
    }
    assert!(missed > Some(0));
}

#[test]
fn another_mux_does_not_take_a_socket_that_refuses_clients_for_one_that_was_left_over() {
    let options = ["--upstream-lost", "disconnect", "--listen", "unix:door.sock"];
    let (mux, server) = start(&options);
    let path = mux.dir().join("door.sock").display().to_string();
    let door = Door::Unix(path.clone());
    let other = ["mux", "--upstream", "unix:/nowhere", "--listen", &format!("unix:{path}")];
    let is_taken = || assert!(refusal(&other).contains("another server listens there"));
    is_taken();
    for _ in 0..2 {
        let peer = server.accept_and_negotiate("[]");
        drop(door.negotiated());
        is_taken();
        expect_upstream(&mux, true);
        drop(peer);
        expect_upstream(&mux, false);
        door.expect_refusal();
        is_taken();
    }
    // What somebody else has put there is left alone.
    let _peer = server.accept_and_negotiate("[]");
    let mut client = door.negotiated();
    fs::remove_file(&path).unwrap();
    let theirs = UnixListener::bind(&path).unwrap();
    drop(_peer);
    assert_eq!(rest(&mut client), "");
    drop(door.connect().unwrap());
    theirs.accept().unwrap();
    mux.signal(Signal::TERM);
}

#[test]
fn a_socket_that_was_left_over_while_it_refused_clients_is_replaced() {
    let options = ["--upstream-lost", "disconnect", "--listen", "unix:door.sock"];
    let (mut mux, server) = start(&options);
    let path = mux.dir().join("door.sock");
    drop(server.accept_and_negotiate("[]"));
    wait_until(|| path.exists() && mux.dir().join("door.sock.lock").exists());
    mux.signal(Signal::KILL);
    mux.wait();
    assert!(path.exists());
    let mut again = Command::new(program());
    again.args(["mux", "--upstream", "unix:upstream.sock", "--listen", "unix:door.sock"]);
    again.args(["--upstream-lost", "disconnect"]).current_dir(mux.dir());
    let _again = Process::start(&mut again).unwrap();
    let _peer = server.accept_and_negotiate("[]");
    drop(Door::Unix(path.display().to_string()).negotiated());
    wait_until(|| !mux.dir().join("door.sock.lock").exists());
}

/// What happens with the server itself happens through the mux, five times.
#[test]
fn a_storage_daemon_that_is_killed_looks_killed_through_the_mux() {
    let Some(mut muxed) = Muxed::start(Program::StorageDaemon, &["--upstream-lost", "disconnect"])
    else {
        return;
    };
    let door = Door::Unix(muxed.mux.socket().display().to_string());
    for round in 0..5 {
        let mut clients: Vec<_> = (0..4).map(|_| door.negotiated()).collect();
        std::thread::scope(|scope| {
            let threads: Vec<_> = clients
                .iter_mut()
                .enumerate()
                .map(|(number, client)| scope.spawn(move || ask_until_the_end(client, number)))
                .collect();
            wait_until(|| threads.iter().all(|thread| !thread.is_finished()));
            std::thread::yield_now();
            muxed.upstream.signal(Signal::KILL).unwrap();
            for thread in threads {
                assert!(thread.join().unwrap() > 0, "round {round}");
            }
        });
        door.expect_refusal();
        muxed.restart();
    }
}

/// Sends one command after the other, each with a name of its own, until the end. Each answer must be to the command, and
/// the last one may have none.
fn ask_until_the_end(client: &mut dyn Stream, number: usize) -> usize {
    for asked in 0.. {
        let command = format!("no-{number}-{asked}");
        if client.write_all(format!("{{'execute': '{command}'}}").as_bytes()).is_err() {
            return asked.max(1);
        }
        match line(client) {
            end if end.is_empty() => return asked.max(1),
            answer => assert!(
                answer.contains(&format!("The command {command} has not been found")),
                "{answer}"
            ),
        }
    }
    unreachable!()
}

#[test]
fn nothing_is_lost_at_standard_output() {
    for dialect in Dialect::ALL {
        let _ = stdio::converse(dialect, 12);
    }
}

#[test]
fn mistakes_are_named() {
    let line =
        refusal(&["mux", "--upstream", "unix:a", "--listen", "unix:b", "--upstream-lost", "x"]);
    assert!(line.contains("'x' is not disconnect, keep or exit"), "{line}");
    let line = refusal(&["mux", "--upstream", "unix:a", "--listen", "unix:b,notices=maybe"]);
    assert!(line.contains("notices is on or off, not 'maybe'"), "{line}");
    let options = ["--listen", "unix:b", "--metrics", "unix:c,notices=on"];
    assert!(refusal(&options).contains("metrics have no notices"));
}
