// SPDX-License-Identifier: MIT OR Apache-2.0
//! A mux that is upgraded and reloaded again and again under load: every reply comes once and in its order, every event once,
//! nobody is disconnected but who uses TLS, and descriptors that were passed before can be used afterwards.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt::Write as _;
use std::fs::{self, File, Permissions};
use std::io::{BufRead, BufReader, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use tempfile::TempDir;

use crate::certificates::{Authority, Identity};
use crate::channel::TlsClient;
use crate::endpoint::{Endpoint, LOCALHOST};
use crate::json::Json;
use crate::process::{Process, Signal};
use crate::server::{Client, LIMIT, ports, program};
use crate::waiting::wait_for;

/// What is to be done.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub machines: usize,
    /// How often the program is executed anew.
    pub executed: usize,
    pub restarted: usize,
    /// How often it reads its file again, which says something else each time.
    pub reloaded: usize,
}

/// How late a reply may be that an upgrade has held up: two seconds each for a descriptor that is on its way and for commands
/// of the mux itself, as docs/operate.md has it, and one for the start of the program.
pub const BOUND: Duration = Duration::from_secs(5);

/// What has been seen.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// Replies of all clients.
    pub replies: usize,
    /// The longest time that a client has waited for one.
    pub longest: Duration,
}

/// Does what the plan says.
pub fn run(plan: Plan) -> Seen {
    // One more, whose clients have TLS and which is idle otherwise.
    let mut service = Service::new(plan.machines + 1);
    let upstreams: Vec<_> =
        (0..=plan.machines).map(|number| Upstream::start(&service.upstream(number))).collect();
    service.start();
    let mut keepers: Vec<_> =
        (0..plan.machines).map(|number| Keeper::new(&service.socket(number), number)).collect();
    // It passes descriptors again and again.
    let mut busy = Keeper::new(&service.socket(0), plan.machines);
    let mut with_tls = WithTls::new(&service);
    let stop = Arc::new(AtomicBool::new(false));
    let load: Vec<_> = (0..plan.machines)
        .flat_map(|number| [false, true].map(|oob| (number, oob)))
        .map(|(number, oob)| Loader::start(&service.socket(number), oob, &stop))
        .collect();
    let kinds = [Kind::Execution, Kind::Restart, Kind::Reload];
    let mut left = [plan.executed, plan.restarted, plan.reloaded];
    while left.iter().any(|&left| left > 0) {
        for (kind, left) in kinds.iter().zip(&mut left) {
            // Twice as many reloads are twice as many at a time.
            let times = if *kind == Kind::Reload { 2 } else { 1 };
            for _ in 0..times.min(*left) {
                *left -= 1;
                load.iter().for_each(Loader::wait_for_progress);
                match kind {
                    Kind::Execution => service.execute_anew(),
                    Kind::Restart => service.restart(),
                    Kind::Reload => service.reload(),
                }
                busy.use_descriptor();
                busy.pass();
                if *kind != Kind::Reload {
                    with_tls.client.expect_end();
                    with_tls = WithTls::new(&service);
                }
                with_tls.ask();
            }
        }
    }
    load.iter().for_each(Loader::wait_for_progress);
    stop.store(true, Ordering::SeqCst);
    let seen = load.into_iter().map(Loader::finish).fold(
        Seen { replies: 0, longest: Duration::ZERO },
        |all, one| Seen {
            replies: all.replies + one.replies,
            longest: all.longest.max(one.longest),
        },
    );
    keepers.iter_mut().for_each(Keeper::use_descriptor);
    drop((keepers, busy, service, upstreams));
    seen
}

/// What happens to the service.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Execution,
    Restart,
    Reload,
}

/// A client that passes a descriptor, and uses it some time later.
struct Keeper {
    client: Client,
    name: String,
    /// The other end of what was passed.
    ours: UnixStream,
}

impl Keeper {
    fn new(socket: &Path, number: usize) -> Keeper {
        let mut client = Client::connect(&Endpoint::Unix(socket.to_owned()));
        client.negotiate("{}");
        let (ours, _) = UnixStream::pair().expect("a pair");
        let mut keeper = Keeper { client, name: format!("tap{number}"), ours };
        keeper.pass();
        keeper
    }

    fn pass(&mut self) {
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        ours.set_read_timeout(Some(LIMIT)).expect("a timeout");
        self.ours = ours;
        self.ask("getfd", &[theirs.as_fd()]);
    }

    /// The server writes into the descriptor of this name, and closes it.
    fn use_descriptor(&mut self) {
        self.ask("closefd", &[]);
        let mut written = String::new();
        let read = self.ours.read_to_string(&mut written);
        assert_eq!((read.ok(), written.as_str()), (Some(USED.len()), USED), "{}", self.name);
    }

    fn ask(&mut self, command: &str, descriptors: &[BorrowedFd<'_>]) {
        let name = &self.name;
        let text =
            format!(r#"{{"execute": "{command}", "arguments": {{"fdname": "{name}"}}, "id": 0}}"#);
        self.client.send_with(text.as_bytes(), descriptors);
        let reply = loop {
            let message = self.client.receive();
            if message.get("event").is_none() {
                break message;
            }
        };
        assert!(reply.get("return").is_some(), "{command} {name}: {reply}");
    }
}

/// A client whose connection goes through TLS, and is not handed over.
struct WithTls {
    client: Client,
    /// Requests of one client differ from all others'.
    next: usize,
}

impl WithTls {
    fn new(service: &Service) -> WithTls {
        let client = TlsClient { ca: service.ca.clone(), identity: None };
        let mut client = Client::connect(&Endpoint::Tls { port: service.port, client });
        client.negotiate("{}");
        WithTls { client, next: CLIENTS.fetch_add(1, Ordering::SeqCst) * REQUESTS }
    }

    fn ask(&mut self) {
        let arguments = format!(r#"{{"n": {}}}"#, self.next);
        self.next += 1;
        self.client.send(&format!(r#"{{"execute": "x-echo", "arguments": {arguments}}}"#));
        self.client.expect(&format!(r#"{{"return": {arguments}}}"#));
    }
}

/// What a server writes into a descriptor that it was passed.
const USED: &str = "used";

/// A mux under a service manager: this one, which speaks systemd's protocols.
struct Service {
    dir: TempDir,
    notified: UnixDatagram,
    process: Option<Process>,
    /// What is in the store.
    stored: Vec<OwnedFd>,
    /// How often the program that runs now has been executed anew.
    executed: usize,
    reloads: usize,
    machines: usize,
    /// Who signs the certificates.
    ca: PathBuf,
    server: Identity,
    /// That of the listener with TLS, once there is one.
    port: u16,
}

impl Service {
    fn new(machines: usize) -> Service {
        let dir = tempfile::Builder::new().prefix("qmp-up-").tempdir().expect("a directory");
        let notified = UnixDatagram::bind(dir.path().join("notify.sock")).expect("a socket");
        notified.set_read_timeout(Some(LIMIT)).expect("a timeout");
        let authority = Authority::new(dir.path(), "authority").expect("an authority");
        let server = authority.issue(LOCALHOST, &[LOCALHOST]).expect("a certificate");
        let only_ours = Permissions::from_mode(0o600);
        fs::set_permissions(&server.key, only_ours).expect("a mode");
        let ca = authority.certificate();
        let service = Service {
            dir,
            notified,
            process: None,
            stored: Vec::new(),
            executed: 0,
            reloads: 0,
            machines,
            ca,
            server,
            port: 0,
        };
        service.write_file();
        service
    }

    /// Says the same of all machines at each reload, and something else of everything beside that.
    fn write_file(&self) {
        let Identity { cert, key } = &self.server;
        let mut text = format!("limit = ['stalled={}']\n", 1000 + self.reloads);
        for number in 0..self.machines + self.reloads % 2 {
            let tls = match number + 1 == self.machines {
                true => {
                    let (cert, key) = (cert.display(), key.display());
                    format!(", 'tls:127.0.0.1:0,insecure=on,cert={cert},key={key}'")
                }
                false => String::new(),
            };
            write!(
                text,
                "\n[[machine]]\nname = 'vm{number}'\nupstream = 'unix:vm{number}-qemu.sock'\n\
                 listen = ['unix:vm{number}.sock'{tls}]\nlimit = ['stalled=1000']\n\
                 deadline = ['{}']\n",
                1000 + self.reloads
            )
            .expect("a text");
        }
        fs::write(self.dir.path().join("mux.toml"), text).expect("a file");
    }

    fn socket(&self, number: usize) -> PathBuf {
        self.dir.path().join(format!("vm{number}.sock"))
    }

    fn upstream(&self, number: usize) -> PathBuf {
        self.dir.path().join(format!("vm{number}-qemu.sock"))
    }

    fn process(&mut self) -> &mut Process {
        self.process.as_mut().expect("it runs")
    }

    fn start(&mut self) {
        let stored = std::mem::take(&mut self.stored);
        // Descriptors that were stored are 3 and 4.
        let (script, variables) = match stored.len() {
            0 => ("", ""),
            _ => (
                "exec 3<&0 4<&1 </dev/null >/dev/null;",
                "LISTEN_FDS=2 LISTEN_PID=$$ LISTEN_FDNAMES=qmp-server-hand-over:qmp-server-hand-over",
            ),
        };
        let script = format!(
            "{script} {variables} exec {} mux --config mux.toml --log-filter info",
            program().display()
        );
        let mut command = Command::new("sh");
        command.args(["-c", &script]).current_dir(self.dir.path());
        command.env("NOTIFY_SOCKET", self.dir.path().join("notify.sock")).env("FDSTORE", "2");
        let mut stored = stored.into_iter();
        let mut next = || stored.next().map_or_else(Stdio::null, Stdio::from);
        command.stdin(next()).stdout(next());
        self.process = Some(Process::start(&mut command).expect("the program starts"));
        self.executed = 0;
        self.expect("READY=1");
        if self.port == 0 {
            let process = self.process();
            self.port = wait_for(|| {
                let log = process.stderr();
                ports(&log).first().copied().ok_or(log)
            });
        }
        for number in 0.. {
            let socket = self.socket(number);
            if !self.upstream(number).exists() {
                break;
            }
            wait_for(|| UnixStream::connect(&socket).map(drop).map_err(|error| error.to_string()));
        }
    }

    /// Waits until it is told this, and keeps what is to be stored.
    fn expect(&mut self, state: &str) {
        let deadline = Instant::now() + LIMIT;
        loop {
            assert!(Instant::now() < deadline, "no {state}: {}", self.process().stderr());
            let mut bytes = [0; 4096];
            let Ok((length, came)) = receive(&self.notified, &mut bytes) else { continue };
            let text = String::from_utf8_lossy(&bytes[..length]).into_owned();
            if text.lines().any(|line| line == "FDSTORE=1") {
                assert_eq!((came.len(), self.stored.len()), (2, 0), "{text}");
                self.stored = came;
            }
            if text.lines().any(|line| line.starts_with(state)) {
                return;
            }
        }
    }

    fn execute_anew(&mut self) {
        self.process().signal(Signal::USR2).expect("it runs");
        self.executed += 1;
        let executed = self.executed;
        let process = self.process();
        wait_for(|| {
            let log = process.stderr();
            let done = log.matches("another program has handed over").count();
            let failed = log.contains("this program goes on");
            assert!(!failed, "no upgrade: {log}");
            if done >= executed { Ok(()) } else { Err(format!("{done} upgrades: {log}")) }
        });
        self.expect("READY=1");
    }

    fn reload(&mut self) {
        self.reloads += 1;
        self.write_file();
        let refused = |log: String| log.matches("SIGHUP: nothing has changed").count();
        let before = refused(self.process().stderr());
        self.process().signal(Signal::HUP).expect("it runs");
        self.expect("RELOADING=1");
        self.expect("READY=1");
        let log = self.process().stderr();
        assert_eq!(refused(log.clone()), before, "{log}");
    }

    fn restart(&mut self) {
        self.process().signal(Signal::TERM).expect("it runs");
        self.expect("BARRIER=1");
        let status = self.process().wait(LIMIT).expect("it can be waited for");
        assert!(status.is_some_and(|status| status.success()), "{status:?}");
        assert_eq!(self.stored.len(), 2, "{}", self.process().stderr());
        self.start();
        // One more than those that executed it anew.
        self.executed = 1;
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            // No store takes anything any more.
            drop(process.child().kill());
            drop(process.child().wait());
        }
    }
}

/// A server behind the mux: it returns the arguments of each command, late, and counts in events.
struct Upstream {
    thread: Option<JoinHandle<()>>,
    over: UnixStream,
}

/// Requests that are not answered before others come.
const HELD: usize = 3;

impl Upstream {
    fn start(path: &Path) -> Upstream {
        let listener = UnixListener::bind(path).expect("a path");
        let (over, theirs) = UnixStream::pair().expect("a pair");
        let thread = thread::spawn(move || {
            let (stream, _) = listener.accept().expect("the mux");
            // Another connection would lose what is under way.
            drop(listener);
            let ended = stream.try_clone().expect("a descriptor");
            thread::spawn(move || {
                let mut theirs = theirs;
                let _ = theirs.read(&mut [0]);
                let _ = ended.shutdown(std::net::Shutdown::Both);
            });
            serve(stream);
        });
        Upstream { thread: Some(thread), over }
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        let _ = self.over.shutdown(std::net::Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || thread::panicking(), "an upstream server has panicked");
        }
    }
}

/// What is read, with the descriptors that come along.
struct WithDescriptors {
    stream: UnixStream,
    passed: Arc<Mutex<VecDeque<OwnedFd>>>,
}

impl Read for WithDescriptors {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let (bytes, came) = receive(&self.stream, buffer)?;
        self.passed.lock().expect("nobody panics").extend(came);
        Ok(bytes)
    }
}

fn receive(socket: impl AsFd, buffer: &mut [u8]) -> std::io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut buffers = [IoSliceMut::new(buffer)];
    let received = recvmsg(socket, &mut buffers, &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    let mut came = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(descriptors) = message {
            came.extend(descriptors);
        }
    }
    Ok((received.bytes, came))
}

fn serve(stream: UnixStream) {
    let mut writer = stream.try_clone().expect("a descriptor");
    let mut say = |text: &str| drop(writer.write_all(format!("{text}\r\n").as_bytes()));
    say(
        r#"{"QMP": {"version": {"qemu": {"micro": 0, "minor": 1, "major": 11}, "package": ""}, "capabilities": ["oob"]}}"#,
    );
    stream.set_read_timeout(Some(Duration::from_millis(2))).expect("a timeout");
    let passed = Arc::new(Mutex::new(VecDeque::new()));
    let mut lines = BufReader::new(WithDescriptors { stream, passed: Arc::clone(&passed) });
    let (mut line, mut held) = (String::new(), Vec::new());
    let (mut ids, mut names, mut events) = (HashSet::new(), HashMap::new(), 0u64);
    loop {
        match lines.read_line(&mut line) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                // Nobody sends more before an answer.
                held.drain(..).for_each(|answer: String| say(&answer));
                continue;
            }
            Err(_) => return,
        }
        let request = Json::parse(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
        line.clear();
        let member = |name: &str| request.get(name).map(ToString::to_string);
        let id = member("id").expect("an id");
        let command = request.get("execute").or(request.get("exec-oob")).and_then(Json::as_str);
        let arguments = request.get("arguments");
        let name = || arguments?.get("fdname")?.as_str().map(str::to_owned);
        let result = match command {
            Some("x-echo") => {
                let number = arguments.and_then(|arguments| arguments.get("n"));
                let key = number.map(ToString::to_string).expect("a number");
                assert!(ids.insert(key.clone()), "{key} came twice");
                arguments.map(ToString::to_string).expect("arguments")
            }
            Some("getfd") => {
                let descriptor = passed.lock().expect("nobody panics").pop_front();
                names.insert(name().expect("a name"), descriptor.expect("a descriptor"));
                "{}".to_owned()
            }
            Some("closefd") => {
                let name = name().expect("a name");
                if let Some(descriptor) = names.remove(&name) {
                    // Nobody may read it any more when a client has left.
                    let _ = File::from(descriptor).write_all(USED.as_bytes());
                } else {
                    let desc = format!("{name} is not known");
                    say(&format!(
                        r#"{{"error": {{"class": "GenericError", "desc": "{desc}"}}, "id": {id}}}"#
                    ));
                    continue;
                }
                "{}".to_owned()
            }
            _ => "{}".to_owned(),
        };
        held.push(format!(r#"{{"return": {result}, "id": {id}}}"#));
        if held.len() > HELD || command != Some("x-echo") {
            held.drain(..).for_each(|answer| say(&answer));
            events += 1;
            say(&format!(
                r#"{{"timestamp": {{"seconds": 1, "microseconds": 2}}, "event": "TICK", "data": {{"n": {events}}}}}"#
            ));
        }
    }
}

/// A client that is never idle.
struct Loader {
    thread: JoinHandle<Seen>,
    replies: Arc<AtomicUsize>,
}

/// Requests that a client with out-of-band execution sends before it reads.
const AHEAD: usize = 6;

impl Loader {
    fn start(socket: &Path, oob: bool, stop: &Arc<AtomicBool>) -> Loader {
        let (socket, stop) = (socket.to_owned(), Arc::clone(stop));
        let replies = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&replies);
        let thread = thread::spawn(move || load(&socket, oob, &stop, &counted));
        Loader { thread, replies }
    }

    /// Waits until it has been answered some more.
    fn wait_for_progress(&self) {
        let before = self.replies.load(Ordering::SeqCst);
        wait_for(|| {
            assert!(!self.thread.is_finished(), "a client has ended");
            let now = self.replies.load(Ordering::SeqCst);
            if now >= before + 3 { Ok(()) } else { Err(format!("{now} replies")) }
        });
    }

    fn finish(self) -> Seen {
        self.thread.join().expect("a client that was content")
    }
}

/// Numbers of requests that no two clients have in common.
static CLIENTS: AtomicUsize = AtomicUsize::new(0);

/// More than one client sends.
const REQUESTS: usize = 10_000_000;

fn load(socket: &Path, oob: bool, stop: &AtomicBool, replies: &AtomicUsize) -> Seen {
    let base = CLIENTS.fetch_add(1, Ordering::SeqCst) * REQUESTS;
    let mut client = Client::connect(&Endpoint::Unix(socket.to_owned()));
    client.negotiate(if oob { r#"{"enable": ["oob"]}"# } else { "{}" });
    let (mut sent, mut received, mut ticks) = (0, 0, None);
    let mut longest = Duration::ZERO;
    while !stop.load(Ordering::SeqCst) {
        let began = Instant::now();
        let ahead = if oob { AHEAD } else { 1 };
        while sent < received + ahead {
            let number = base + sent;
            let text = format!(
                r#"{{"execute": "x-echo", "arguments": {{"n": {number}, "text": "é"}}, "id": [{number}]}}"#
            );
            // In two pieces, so that an upgrade can come between them.
            let (first, second) = text.as_bytes().split_at(sent % text.len());
            client.send_bytes(first);
            thread::yield_now();
            client.send_bytes(second);
            sent += 1;
        }
        loop {
            let message = client.receive();
            if message.get("event").is_some() {
                let tick = message.get("data").and_then(|data| data.get("n"));
                let tick: u64 =
                    tick.map(ToString::to_string).expect("a number").parse().expect("one");
                assert!(ticks.is_none_or(|before| tick == before + 1), "{tick} after {ticks:?}");
                ticks = Some(tick);
                continue;
            }
            let number = base + received;
            let id = message.get("id").map(ToString::to_string);
            assert_eq!(id.as_deref(), Some(&*format!("[{number}]")), "{message}");
            let result = message.get("return").and_then(|result| result.get("n"));
            assert_eq!(result.map(ToString::to_string), Some(number.to_string()), "{message}");
            received += 1;
            replies.fetch_add(1, Ordering::SeqCst);
            break;
        }
        longest = longest.max(began.elapsed());
    }
    Seen { replies: received, longest }
}
