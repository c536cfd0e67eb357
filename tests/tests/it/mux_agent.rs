// SPDX-License-Identifier: MIT OR Apache-2.0
//! A machine's guest agent, shared by a mux: the real one, killed and started again, and what is said of it.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::{fs, io, thread};

use tests::json::Json;
use tests::process::{Process, Signal};
use tests::programs::guest_agent;
use tests::scripted::Scripted;
use tests::server::{LIMIT, Server, refusal};
use tests::waiting::{retry, wait_for, wait_until};

/// Clients of one agent.
const CLIENTS: usize = 5;

/// What an agent may do that the tests start: nothing to the machine that they run on.
const HARMLESS: &str = "guest-sync,guest-sync-delimited,guest-ping,guest-info,guest-file-open,guest-file-read,guest-file-close";

fn directory() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("qmp-agent-").tempdir().unwrap()
}

/// A mux that shares the agent at `channel.sock`, with a control socket.
fn start(dir: tempfile::TempDir, options: &[&str]) -> Server {
    let arguments = ["mux", "--upstream", "unix:qemu.sock", "--listen", "unix:vm.sock"]
        .into_iter()
        .chain(["--agent", "unix:channel.sock", "--agent-listen", "unix:shared.sock"])
        .chain(["--control", "unix:{sock}"])
        .chain(options.iter().copied());
    Server::start_in(dir, arguments)
}

/// The real agent, at `path`.
fn start_agent(program: &Path, path: &Path) -> Process {
    drop(fs::remove_file(path));
    let state = path.with_extension("state");
    fs::create_dir_all(&state).unwrap();
    let mut command = Command::new(program);
    command.args(["--method", "unix-listen", "--allow-rpcs", HARMLESS]);
    command.arg("--path").arg(path).arg("--statedir").arg(&state);
    command.arg("--pidfile").arg(state.join("pid"));
    let mut agent = Process::start(command.stdin(Stdio::null()).stdout(Stdio::null())).unwrap();
    wait_for(|| match (path.exists(), agent.child().try_wait().unwrap()) {
        (true, _) => Ok(()),
        (false, exited) => {
            assert!(exited.is_none(), "the agent has exited: {}", agent.stderr());
            Err("the agent does not listen".to_owned())
        }
    });
    agent
}

fn kill(agent: &mut Process) {
    agent.signal(Signal::KILL).unwrap();
    agent.wait(LIMIT).unwrap();
}

/// A client that speaks as to the agent itself.
struct AgentClient {
    stream: BufReader<UnixStream>,
    /// How many requests it has sent.
    sent: usize,
    number: usize,
}

impl AgentClient {
    /// Connects, when that is possible.
    fn connect(path: &Path, number: usize) -> AgentClient {
        let stream = retry(LIMIT, || UnixStream::connect(path)).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        AgentClient { stream: BufReader::new(stream), sent: 0, number }
    }

    fn line(&mut self) -> io::Result<Vec<u8>> {
        let mut line = Vec::new();
        match self.stream.read_until(b'\n', &mut line) {
            Ok(_) if line.last() == Some(&b'\n') => Ok(line),
            Ok(_) => Err(io::ErrorKind::UnexpectedEof.into()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => panic!("no answer"),
            Err(error) => Err(error),
        }
    }

    /// Sends a request with an id of its own, and returns what comes. The end of the connection is an error.
    fn ask(&mut self, command: &str, arguments: &str) -> io::Result<Json> {
        self.sent += 1;
        let id = format!("\"{}-{}\"", self.number, self.sent);
        let request =
            format!("{{\"execute\": \"{command}\", \"arguments\": {arguments}, \"id\": {id}}}\n");
        self.stream.get_mut().write_all(request.as_bytes())?;
        let line = String::from_utf8(self.line()?).unwrap();
        let reply = Json::parse(line.trim_end()).unwrap();
        assert_eq!(reply.get("id").map(Json::to_string), Some(id), "{command}: {line}");
        Ok(reply)
    }

    /// Drops what may be left of others, as clients of an agent begin.
    fn synchronise(&mut self) -> io::Result<()> {
        let id = 1000 * self.number;
        let request = format!(
            "{{\"execute\": \"gue\u{FF}{{\"execute\": \"guest-sync-delimited\", \"arguments\": {{\"id\": {id}}}}}\n"
        );
        let request: Vec<u8> = request.chars().map(|c| u8::try_from(c).unwrap()).collect();
        self.stream.get_mut().write_all(&request)?;
        let error = self.line()?;
        assert!(error.starts_with(b"{\"error\""), "{}", String::from_utf8_lossy(&error));
        let expected = [b"\xFF", format!("{{\"return\": {id}}}\n").as_bytes()].concat();
        assert_eq!(self.line()?, expected);
        Ok(())
    }

    /// One round of everything whose answer tells whom it is for.
    fn round(&mut self, file: &Path) -> io::Result<()> {
        let name = format!("guest-none-{}-{}", self.number, self.sent);
        let reply = self.ask(&name, "{}")?.to_string();
        assert!(reply.contains(&format!("The command {name} has not been found")), "{reply}");
        let opened =
            self.ask("guest-file-open", &format!("{{\"path\": \"{}\"}}", file.display()))?;
        let handle = opened.get("return").unwrap_or_else(|| panic!("{opened}")).to_string();
        let read = self.ask("guest-file-read", &format!("{{\"handle\": {handle}}}"))?;
        // Base64 of the client's number, three times.
        let expected = ["MDAw", "MTEx", "MjIy", "MzMz", "NDQ0"][self.number];
        let content = read.get("return").and_then(|read| read.get("buf-b64"));
        // A handle ends with the agent that gave it.
        match content.and_then(Json::as_str) {
            Some(content) => assert_eq!(content, expected),
            None => assert!(read.to_string().contains("has not been found"), "{read}"),
        }
        self.ask("guest-file-close", &format!("{{\"handle\": {handle}}}"))?;
        assert_eq!(
            self.ask("guest-ping", "{}")?.get("return").map(Json::to_string),
            Some("{}".into())
        );
        let id = -i64::try_from(self.sent).unwrap();
        let sync = self.ask("guest-sync", &format!("{{\"id\": {id}}}"))?;
        assert_eq!(sync.get("return").map(Json::to_string), Some(id.to_string()));
        Ok(())
    }
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let file = |number: usize| {
        let path = dir.join(format!("file-{number}"));
        fs::write(&path, number.to_string().repeat(3)).unwrap();
        path
    };
    (0..CLIENTS).map(file).collect()
}

#[test]
fn five_clients_share_the_real_agent_which_is_killed_and_started_again() {
    let Some(program) = guest_agent() else { return };
    let dir = directory();
    let channel = dir.path().join("channel.sock");
    let files = files(dir.path());
    let mux = start(dir, &["--upstream-lost", "disconnect"]);
    let mut agent = start_agent(&program, &channel);
    let shared = mux.dir().join("shared.sock");
    let rounds: Vec<_> = (0..CLIENTS).map(|_| AtomicUsize::new(0)).collect();
    let (ends, over) = (AtomicUsize::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        for (number, file) in files.iter().enumerate() {
            let (shared, rounds, ends, over) = (&shared, &rounds, &ends, &over);
            scope.spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    let mut client = AgentClient::connect(shared, number);
                    let mut work = || -> io::Result<()> {
                        client.synchronise()?;
                        while !over.load(Ordering::Relaxed) {
                            client.round(file)?;
                            rounds[number].fetch_add(1, Ordering::Relaxed);
                        }
                        Ok(())
                    };
                    // As at the channel itself, what was not answered is lost with the agent.
                    if work().is_err() {
                        ends.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
        let all_go_on = || {
            let before: Vec<_> = rounds.iter().map(|all| all.load(Ordering::Relaxed)).collect();
            let more =
                |(all, before): (&AtomicUsize, &usize)| all.load(Ordering::Relaxed) >= before + 3;
            wait_until(|| rounds.iter().zip(&before).all(more));
        };
        for _ in 0..3 {
            all_go_on();
            kill(&mut agent);
            agent = start_agent(&program, &channel);
        }
        all_go_on();
        over.store(true, Ordering::Relaxed);
    });
    assert!(ends.load(Ordering::Relaxed) >= CLIENTS, "each has seen the agent's end");
}

/// Stands between the mux and the agent, as a virtual machine with a serial port: the mux's connection stays when the agent
/// goes, and what is sent meanwhile waits for the next one.
fn stand_between(channel: &Path, agent: PathBuf) -> Arc<AtomicUsize> {
    let listener = UnixListener::bind(channel).unwrap();
    let connected = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&connected);
    thread::spawn(move || {
        let (near, _) = listener.accept().unwrap();
        let far: Arc<Mutex<Option<UnixStream>>> = Arc::default();
        let to_mux = near.try_clone().unwrap();
        let current = Arc::clone(&far);
        thread::spawn(move || {
            loop {
                let Ok(mut stream) = retry(LIMIT, || UnixStream::connect(&agent)) else { return };
                *current.lock().unwrap() = Some(stream.try_clone().unwrap());
                count.fetch_add(1, Ordering::SeqCst);
                let mut buffer = [0; 4096];
                while let Ok(length @ 1..) = stream.read(&mut buffer) {
                    if (&to_mux).write_all(&buffer[..length]).is_err() {
                        return;
                    }
                }
                *current.lock().unwrap() = None;
            }
        });
        let mut buffer = [0; 4096];
        while let Ok(length @ 1..) = (&near).read(&mut buffer) {
            let written = retry(LIMIT, || match &mut *far.lock().unwrap() {
                Some(stream) => stream.write_all(&buffer[..length]),
                None => Err(io::ErrorKind::NotConnected.into()),
            });
            if written.is_err() {
                return;
            }
        }
    });
    connected
}

#[test]
fn an_agent_that_dies_behind_a_channel_that_stays_is_found_out() {
    let Some(program) = guest_agent() else { return };
    let dir = directory();
    let (channel, socket) = (dir.path().join("channel.sock"), dir.path().join("ga.sock"));
    let files = files(dir.path());
    let connected = stand_between(&channel, socket.clone());
    let mut agent = start_agent(&program, &socket);
    let mux = start(dir, &["--agent-timeout", "0.2"]);
    let shared = mux.dir().join("shared.sock");
    let mut clients: Vec<_> =
        (0..CLIENTS).map(|number| AgentClient::connect(&shared, number)).collect();
    for _ in 0..2 {
        thread::scope(|scope| {
            for (client, file) in clients.iter_mut().zip(&files) {
                scope.spawn(|| client.round(file).unwrap());
            }
        });
        // It takes a command, and does not answer any more.
        agent.signal(Signal::STOP).unwrap();
        let reply = clients[0].ask("guest-ping", "{}").unwrap().to_string();
        let expected = "The guest agent has not answered the command guest-ping within 0.2 seconds";
        assert!(reply.contains(expected), "{reply}");
        let before = connected.load(Ordering::SeqCst);
        kill(&mut agent);
        agent = start_agent(&program, &socket);
        wait_until(|| connected.load(Ordering::SeqCst) > before);
        // Whoever is told that it does not answer yet asks again.
        wait_for(|| {
            let reply = clients[1].ask("guest-ping", "{}").unwrap();
            reply.get("return").map(drop).ok_or_else(|| reply.to_string())
        });
    }
}

/// A fake agent that has synchronised.
struct Fake(BufReader<UnixStream>);

impl Fake {
    fn accept(listener: &UnixListener) -> Fake {
        let (stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        let mut fake = Fake(BufReader::new(stream));
        let line = fake.line();
        let (_, id) = line.rsplit_once("\"id\": ").unwrap();
        let id = id.trim_end().trim_end_matches('}').to_owned();
        fake.0
            .get_mut()
            .write_all(&[b"\xFF", format!("{{\"return\": {id}}}\n").as_bytes()].concat())
            .unwrap();
        fake
    }

    fn line(&mut self) -> String {
        let mut line = Vec::new();
        self.0.read_until(b'\n', &mut line).unwrap();
        String::from_utf8_lossy(&line).into_owned()
    }

    #[track_caller]
    fn answer(&mut self, command: &str) {
        let line = self.line();
        assert!(line.contains(command), "{command} is not in: {line}");
        self.0.get_mut().write_all(b"{\"return\": {}}\n").unwrap();
    }
}

fn fake(dir: &Path, name: &str) -> UnixListener {
    UnixListener::bind(dir.join(name)).unwrap()
}

#[test]
fn an_agent_has_the_roles_and_the_audit_of_its_machine() {
    let dir = directory();
    let listener = fake(dir.path(), "channel.sock");
    let config = "[mux]\nupstream = 'unix:qemu.sock'\nagent = 'unix:channel.sock'\n\
                  agent-listen = ['unix:shared.sock', 'unix:all.sock,role=admin']\ncontrol = ['unix:qmp.sock']\n\
                  [roles.inventory]\nallow = ['guest-get-*', 'guest-ping']\n";
    let top = "listen = ['unix:vm.sock']\ndefault-role = 'inventory'\naudit = 'audit.log'\n";
    fs::write(dir.path().join("mux.toml"), format!("{top}{config}")).unwrap();
    let mut mux = Server::start_in(dir, ["mux", "--config", "mux.toml"]);
    let mut agent = Fake::accept(&listener);
    let mut client = AgentClient::connect(&mux.dir().join("shared.sock"), 0);
    let refused = client.ask("guest-exec", "{\"path\": \"/bin/sh\"}").unwrap().to_string();
    assert!(
        refused.contains("The command guest-exec has been disabled for this instance"),
        "{refused}"
    );
    assert!(client.ask("guest-sync", "{\"id\": 1}").unwrap().get("return").is_some());
    thread::scope(|scope| {
        let asked = scope.spawn(|| client.ask("guest-get-users", "{}").unwrap());
        agent.answer("guest-get-users");
        assert!(asked.join().unwrap().get("return").is_some());
        let mut admin = AgentClient::connect(&mux.dir().join("all.sock"), 1);
        let asked = scope.spawn(move || admin.ask("guest-exec", "{}").unwrap());
        agent.answer("guest-exec");
        asked.join().unwrap();
    });
    wait_for(|| {
        let audit = fs::read_to_string(mux.dir().join("audit.log")).unwrap();
        let has = |text: &str| audit.lines().any(|line| line.contains(text));
        match has("guest-get-users") && has("guest-exec") {
            true => Ok(()),
            false => Err(audit),
        }
    });
    mux.signal(Signal::TERM);
    assert!(mux.wait().success());
    assert!(!mux.dir().join("shared.sock").exists(), "its socket is removed");
}

#[test]
fn operators_see_an_agent_and_share_others_while_the_mux_runs() {
    let dir = directory();
    let listener = fake(dir.path(), "a-agent.sock");
    let _server = Scripted::listen(&dir.path().join("a-qemu.sock"));
    let mux = Server::start_in(dir, ["mux", "--control", "unix:{sock}"]);
    let mut operator = mux.negotiated();
    operator.send(
        r#"{"execute": "__org.qmp-server_machine-add", "arguments": {"name": "a", "upstream": "unix:a-qemu.sock",
        "listen": ["unix:a.sock"], "agent": "unix:a-agent.sock", "agent-listen": ["unix:a-shared.sock"], "agent-timeout": "7"}}"#,
    );
    let added = operator.receive().to_string();
    assert!(added.contains(r#""agent": {"listen": ["unix:"#), "{added}");
    let mut agent = Fake::accept(&listener);
    let mut client = AgentClient::connect(&mux.dir().join("a-shared.sock"), 0);
    thread::scope(|scope| {
        let asked = scope.spawn(|| client.ask("guest-ping", "{}").unwrap());
        agent.answer("guest-ping");
        asked.join().unwrap();
    });
    let metrics = operator.execute("__org.qmp-server_query-metrics").to_string();
    for figure in ["agent_clients", "agent_connected"] {
        assert!(
            metrics.contains(&format!("qmp_server_{figure}{{machine=\\\"a\\\"}} 1")),
            "{metrics}"
        );
    }
    let machines = operator.execute("__org.qmp-server_query-machines").to_string();
    assert!(machines.contains(r#""clients": 1, "channel": {"address": "unix:"#), "{machines}");
    operator.send(r#"{"execute": "__org.qmp-server_machine-remove", "arguments": {"name": "a"}}"#);
    operator.expect(r#"{"return": {}}"#);
    assert!(client.ask("guest-ping", "{}").is_err(), "it has ended");
    assert!(!mux.dir().join("a-shared.sock").exists());
}

#[test]
fn agents_of_machines_that_are_found_are_shared_and_a_reload_leaves_them_alone() {
    let dir = directory();
    let text = |role: &str| {
        format!(
            "log-filter = 'info'\n[mux]\ncontrol = ['unix:qmp.sock']\n[[machine]]\nname = '{{1}}'\n\
             upstream = '{0}/vm-*/qemu.sock'\nlisten = ['unix:{0}/vm-{{1}}/qmp.sock']\nagent = 'unix:{0}/vm-{{1}}/agent.sock'\n\
             agent-listen = ['unix:{0}/vm-{{1}}/shared.sock']\ndefault-role = '{role}'\n",
            dir.path().display()
        )
    };
    for name in ["vm-a", "vm-b"] {
        fs::create_dir(dir.path().join(name)).unwrap();
    }
    fs::write(dir.path().join("mux.toml"), text("admin")).unwrap();
    let again = text("operator");
    let listeners = ["vm-a", "vm-b"].map(|name| fake(&dir.path().join(name), "agent.sock"));
    let _servers =
        ["vm-a", "vm-b"].map(|name| Scripted::listen(&dir.path().join(name).join("qemu.sock")));
    let mut mux = Server::start_in(dir, ["mux", "--config", "mux.toml"]);
    let mut agents = listeners.each_ref().map(Fake::accept);
    let mut clients = ["vm-a", "vm-b"]
        .map(|name| AgentClient::connect(&mux.dir().join(name).join("shared.sock"), 0));
    for (agent, client) in agents.iter_mut().zip(&mut clients) {
        thread::scope(|scope| {
            let asked = scope.spawn(|| client.ask("guest-exec", "{}").unwrap());
            agent.answer("guest-exec");
            asked.join().unwrap();
        });
    }
    fs::write(mux.dir().join("mux.toml"), again).unwrap();
    mux.signal(Signal::HUP);
    mux.process().expect_log("the configuration holds as it is now");
    for client in &mut clients {
        let refused = client.ask("guest-exec", "{}").unwrap().to_string();
        assert!(refused.contains("has been disabled"), "the same connection: {refused}");
    }
}

#[test]
fn an_upgrade_in_place_takes_an_agent_and_its_clients_along() {
    let dir = directory();
    let listener = fake(dir.path(), "channel.sock");
    let mut mux = start(dir, &["--log-filter", "info"]);
    let mut agent = Fake::accept(&listener);
    let mut client = AgentClient::connect(&mux.dir().join("shared.sock"), 0);
    for _ in 0..2 {
        thread::scope(|scope| {
            let asked = scope.spawn(|| client.ask("guest-ping", "{}").unwrap());
            assert!(agent.line().contains("guest-ping"));
            let before = mux.process().stderr().matches("has handed over").count();
            mux.signal(Signal::USR2);
            wait_until(|| mux.process().stderr().matches("has handed over").count() > before);
            agent.0.get_mut().write_all(b"{\"return\": {}}\n").unwrap();
            assert!(asked.join().unwrap().get("return").is_some());
        });
        client.synchronise().unwrap();
    }
}

#[test]
fn mistakes_about_agents_are_named() {
    let mux = ["mux", "--upstream", "unix:a", "--listen", "unix:b", "--check-config"];
    for (options, expected) in [
        (&["--agent", "unix:c"][..], "there is no agent-listen to serve the guest agent at"),
        (&["--agent-listen", "unix:c"], "the channel of the guest agent is missing"),
        (
            &["--agent", "unix:a", "--agent-listen", "unix:c"],
            "unix:a: it is the upstream server of another machine",
        ),
        (&["--agent", "unix:b", "--agent-listen", "unix:c"], "the mux itself listens at unix:b"),
        (&["--agent", "unix:c", "--agent-listen", "unix:b"], "unix:b is listened at twice"),
        (&["--agent", "stdio", "--agent-listen", "unix:c"], "only a server that listens elsewhere"),
        (
            &["--agent", "unix:c", "--agent-listen", "unix:d,pretty=on"],
            "pretty=on is not for clients of a guest agent",
        ),
        (&["--agent", "unix:c", "--agent-listen", "unix:d,role=none"], "role"),
        (
            &["--agent", "unix:c", "--agent-listen", "unix:d", "--agent-timeout", "0"],
            "expected a number of seconds above zero",
        ),
    ] {
        let line = refusal(&[&mux, options].concat());
        assert!(line.contains(expected), "{options:?}: {line}");
    }
}
