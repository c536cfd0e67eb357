// SPDX-License-Identifier: MIT OR Apache-2.0
//! The server, the echo beside it, and what the server holds.

use std::fmt;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::geteuid;
use tempfile::TempDir;

use super::{Kind, Target};
use crate::certificates::Authority;
use crate::channel::TlsClient;
use crate::endpoint::{Endpoint, LOCALHOST};
use crate::process::{Process, run};
use crate::server::{LIMIT, Server};

/// The user that attackers become, if they may. It needs no entry in the user database.
pub(super) const ATTACKERS: u32 = 12345;
/// The request of each polite client, and its answer without the id.
pub(super) const ANSWER: &str = r#"{"return": {"name": "confvm"}, "id": "#;
const BETWEEN_LOOKS: Duration = Duration::from_millis(50);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Holdings {
    /// Bytes that are allocated, as glibc's allocator counts them.
    live_bytes: u64,
    /// Private memory that has been written to, in KiB: also what the allocator keeps.
    dirty_kib: u64,
    pub(super) descriptors: usize,
    pub(super) threads: usize,
}

impl Holdings {
    /// Whether memory and descriptors are.
    pub(super) fn is_as(&self, before: &Holdings, slack: u64) -> bool {
        self.live_bytes <= before.live_bytes + slack && self.descriptors == before.descriptors
    }
}

impl fmt::Display for Holdings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Holdings { live_bytes, dirty_kib, descriptors, threads } = self;
        write!(
            f,
            "{live_bytes} live bytes, {descriptors} descriptors, {threads} threads, {dirty_kib} KiB dirty"
        )
    }
}

pub(super) struct Site {
    kind: Kind,
    server: Server,
    upstream: Option<Process>,
    echo: Process,
    echo_socket: PathBuf,
    tcp: u16,
    tls: u16,
    authority: PathBuf,
    _dirs: [TempDir; 2],
}

impl Site {
    pub(super) fn open(
        kind: Kind,
        qemu: Option<Vec<String>>,
        program: &Path,
    ) -> Result<Site, String> {
        let cannot =
            |what: &'static str| move |error: std::io::Error| format!("cannot {what}: {error}");
        let dir = tempfile::tempdir().map_err(cannot("make a directory"))?;
        let dir_of_echo = tempfile::tempdir().map_err(cannot("make a directory"))?;
        let authority = Authority::new(dir.path(), "authority").map_err(cannot("certify"))?;
        let identity = authority.issue("server", &[LOCALHOST]).map_err(cannot("certify"))?;
        let upstream = match qemu {
            None => None,
            Some(words) => {
                let mut command = Command::new(&words[0]);
                command.args(&words[1..]).stdin(Stdio::null()).stdout(Stdio::null());
                command.current_dir(dir.path());
                Some(Process::start(&mut command).map_err(cannot("start QEMU"))?)
            }
        };
        let server = start_server(kind, dir.path(), &identity.cert, &identity.key);
        let [tcp, tls] = server.ports()[..2] else { return Err("no ports".to_owned()) };
        let echo_socket = dir_of_echo.path().join("echo.sock");
        let mut command = Command::new(program);
        command.arg("echo").arg(&echo_socket).arg(format!("{ANSWER}0}}"));
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let echo = Process::start(&mut command).map_err(cannot("start the echo"))?;
        let greeted = Endpoint::Unix(echo_socket.clone()).connect(LIMIT);
        greeted.map_err(|error| format!("no echo ({error}): {}", echo.stderr()))?;
        for (dir, socket) in [(dir_of_echo.path(), Some(&echo_socket)), (server.dir(), None)] {
            // Its name is secret enough.
            fs::set_permissions(dir, Permissions::from_mode(0o711))
                .map_err(cannot("open a directory"))?;
            if let Some(socket) = socket {
                fs::set_permissions(socket, Permissions::from_mode(0o666))
                    .map_err(cannot("open a socket"))?;
            }
        }
        let mut site = Site {
            kind,
            server,
            upstream,
            echo,
            echo_socket,
            tcp,
            tls,
            authority: authority.certificate(),
            _dirs: [dir, dir_of_echo],
        };
        site.expect_alive()?;
        Ok(site)
    }

    /// The ways in for polite clients.
    pub(super) fn endpoints(&self) -> [Endpoint; 3] {
        [
            self.server.endpoint(),
            Endpoint::Tcp { host: "127.0.0.1".to_owned(), port: self.tcp },
            Endpoint::Tls {
                port: self.tls,
                client: TlsClient { ca: self.authority.clone(), identity: None },
            },
        ]
    }

    pub(super) fn echo_socket(&self) -> &Path {
        &self.echo_socket
    }

    pub(super) fn server_target(&self) -> Target {
        let path = |name: &str| self.server.dir().join(name);
        Target {
            kind: self.kind,
            admin: path("admin.sock"),
            observer: path("observer.sock"),
            metrics: path("metrics.sock"),
            tcp: self.tcp,
            tls: self.tls,
        }
    }

    pub(super) fn echo_target(&self) -> Target {
        let socket = || self.echo_socket.clone();
        Target {
            kind: Kind::Echo,
            admin: socket(),
            observer: socket(),
            metrics: socket(),
            tcp: 0,
            tls: 0,
        }
    }

    /// No process has ended.
    pub(super) fn expect_alive(&mut self) -> Result<(), String> {
        let processes = [
            ("the server", Some(self.server.process())),
            ("QEMU", self.upstream.as_mut()),
            ("the echo", Some(&mut self.echo)),
        ];
        for (name, process) in processes {
            let Some(process) = process else { continue };
            if !matches!(process.wait(Duration::ZERO), Ok(None)) {
                return Err(format!("{name} has ended: {}", process.stderr()));
            }
        }
        Ok(())
    }

    /// Waits until the server has as many descriptors and threads as these, but not for longer than `time`. Returns how
    /// long that took.
    pub(super) fn wait_for(
        &mut self,
        descriptors: usize,
        threads: usize,
        time: Duration,
    ) -> Result<Duration, String> {
        let started = Instant::now();
        loop {
            let done = self.count("fd")? <= descriptors && self.threads()? <= threads;
            let waited = started.elapsed();
            if done || waited >= time {
                return Ok(waited);
            }
            thread::sleep(BETWEEN_LOOKS);
        }
    }

    /// Returns the resources of the server, which is stopped for a moment.
    pub(super) fn holdings(&mut self) -> Result<Holdings, String> {
        self.expect_alive()?;
        let (descriptors, threads) = (self.count("fd")?, self.threads()?);
        let dirty_kib = self.field("smaps_rollup", "Private_Dirty:")?;
        Ok(Holdings { live_bytes: self.live_bytes()?, dirty_kib, descriptors, threads })
    }

    /// How many threads the server has besides the log's, which is there while there is something to write, and for a minute if
    /// lines were left out.
    pub(super) fn threads(&mut self) -> Result<usize, String> {
        let path = format!("/proc/{}/task", self.server.process().child().id());
        let tasks = fs::read_dir(&path).map_err(|error| format!("{path}: {error}"))?;
        let is_of_log = |task: &fs::DirEntry| {
            fs::read_to_string(task.path().join("comm")).is_ok_and(|name| name.trim() == "qmp-log")
        };
        Ok(tasks.flatten().filter(|task| !is_of_log(task)).count())
    }

    fn count(&mut self, name: &str) -> Result<usize, String> {
        let path = format!("/proc/{}/{name}", self.server.process().child().id());
        let count = fs::read_dir(&path).map(Iterator::count);
        count.map_err(|error| format!("{path}: {error}: {}", self.server.process().stderr()))
    }

    /// Lets the server's allocator print its statistics, which end with the bytes in use.
    fn live_bytes(&mut self) -> Result<u64, String> {
        let pid = self.server.process().child().id().to_string();
        // The frame in which it stops may be one of Rust, where this would be no expression.
        let call = ["-ex", "set language c", "-ex", "call (void)malloc_stats()"];
        let call = ["-nx", "-q", "--batch", "-p", &pid].into_iter().chain(call);
        let logged = self.server.process().stderr().len();
        let debugger = run(Command::new("gdb").args(call), "", LIMIT)
            .map_err(|error| format!("cannot start gdb ({error}); apt-get install gdb"))?;
        let log = self.server.process().stderr();
        let lines = log.get(logged..).unwrap_or_default().lines();
        let mut counts =
            lines.filter_map(|line| line.strip_prefix("in use bytes")?.split('=').nth(1));
        let bytes = counts.next_back().and_then(|bytes| bytes.trim().parse().ok());
        bytes.ok_or_else(|| format!("gdb cannot have malloc_stats() called: {}", debugger.stderr))
    }

    /// The most memory that the server ever had.
    pub(super) fn most_kib(&mut self) -> Result<u64, String> {
        self.field("status", "VmHWM:")
    }

    fn field(&mut self, file: &str, name: &str) -> Result<u64, String> {
        let path = format!("/proc/{}/{file}", self.server.process().child().id());
        let text = fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
        let field = text.lines().find_map(|line| line.strip_prefix(name)?.strip_suffix("kB"));
        let number = field.and_then(|kib| kib.trim().parse().ok());
        number.ok_or_else(|| format!("{path} has no {name}"))
    }

    /// Ends the server, which has to do so in order. Returns how many bytes it has logged.
    pub(super) fn close(mut self) -> Result<usize, String> {
        self.server.process().stop().map_err(|error| error.to_string())?;
        let status = self.server.wait();
        let log = self.server.process().stderr();
        if !status.success() || log.contains("panic") {
            return Err(format!("the server has ended with {status}: {log}"));
        }
        Ok(log.len())
    }
}

fn start_server(kind: Kind, dir: &Path, cert: &Path, key: &Path) -> Server {
    let upstream = format!("unix:{}", dir.join(super::UPSTREAM).display());
    let tls = format!("tls:127.0.0.1:0,cert={},key={}", cert.display(), key.display());
    let mut arguments = match kind {
        Kind::Mux => vec!["mux", "--upstream", &upstream],
        _ => vec!["serve", "--name", "confvm"],
    };
    let listeners = [
        "unix:{sock}",
        "unix:admin.sock,mode=0666,role=admin",
        "unix:observer.sock,mode=0666,role=observer",
        "tcp:127.0.0.1:0",
        &tls,
    ];
    arguments.extend(listeners.iter().flat_map(|listener| ["--listen", listener]));
    arguments.extend(["--audit", "/dev/null", "--metrics", "unix:metrics.sock,mode=0666"]);
    // Another user's attacks are to fill that user's quotas.
    let attackers = ATTACKERS.to_string();
    if geteuid().is_root() {
        arguments.extend(["--allow-user", "0", "--allow-user", &attackers]);
        for limit in ["monitors-per-user=500", "requests-per-user=100", "bytes-per-user=256M"] {
            arguments.extend(["--limit", limit]);
        }
    }
    Server::start_with(arguments)
}

/// How long a polite client waits.
pub(super) fn patience() -> Instant {
    Instant::now() + LIMIT
}
