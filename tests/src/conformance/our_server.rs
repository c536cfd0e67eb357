// SPDX-License-Identifier: MIT OR Apache-2.0
//! Our own program as the server under test, over any of its transports.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use qmp_proto::Dialect;

use super::target::Running;
use crate::certificates::Authority;
use crate::channel::TlsClient;
use crate::endpoint::{Endpoint, LOCALHOST};
use crate::process::Process;
use crate::server::ports;

/// How long the program may take to say where it listens.
const START_LIMIT: Duration = Duration::from_secs(20);
const BETWEEN_LOOKS: Duration = Duration::from_millis(5);

/// The transport.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Transport {
    /// Unix sockets.
    #[default]
    Unix,
    /// Inherited descriptors: Unix sockets that listen already.
    Fd,
    /// TCP on the loopback interface.
    Tcp,
    /// TLS, with a client's certificate.
    Tls,
    /// Standard input and output, of a new server for each connection.
    Stdio,
}

impl Transport {
    /// Whether descriptors can be passed along.
    pub fn passes_descriptors(self) -> bool {
        matches!(self, Self::Unix | Self::Fd)
    }

    /// The cases that make no sense over it, and why.
    pub fn inapplicable(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Stdio => &[("commands/query-yank", "only sockets can be yanked, as in QEMU")],
            Self::Unix | Self::Fd | Self::Tcp | Self::Tls => &[],
        }
    }

    /// Whether a server has one connection in its life.
    pub fn is_single_connection(self) -> bool {
        self == Self::Stdio
    }
}

/// A program, and how to reach it.
#[derive(Clone, Debug)]
pub struct OurServer {
    /// `qmp-server`.
    pub program: PathBuf,
    /// The transport.
    pub over: Transport,
    /// The QEMU that it takes after.
    pub dialect: Dialect,
}

impl OurServer {
    /// Starts the machine that the cases are for, with a compact and a pretty-printing monitor.
    /// Whatever needs a file has it in `dir`.
    pub(super) fn start(&self, dir: &Path) -> io::Result<Running> {
        let [main, pretty] = ["main.sock", "pretty.sock"].map(|name| dir.join(name));
        match self.over {
            Transport::Unix => {
                let process =
                    self.serve(&unix(&main), &unix(&pretty), Stdio::null(), Stdio::null())?;
                let [main, pretty] = [main, pretty].map(Endpoint::Unix);
                Ok(Running { main, pretty: Some(pretty), process: Some(process), mux: None })
            }
            Transport::Fd => {
                // Standard input and output are descriptors like others.
                let [stdin, stdout] = [listener(&main)?, listener(&pretty)?];
                let process = self.serve("fd:0", "fd:1", stdin.into(), stdout.into())?;
                let [main, pretty] = [main, pretty].map(Endpoint::Unix);
                Ok(Running { main, pretty: Some(pretty), process: Some(process), mux: None })
            }
            Transport::Tcp => self.start_at_ports("tcp:127.0.0.1:0", |port| Endpoint::Tcp {
                host: "127.0.0.1".to_owned(),
                port,
            }),
            Transport::Tls => {
                let authority = Authority::new(dir, "authority")?;
                let server = authority.issue("server", &[LOCALHOST])?;
                let client = TlsClient {
                    ca: authority.certificate(),
                    identity: Some(authority.issue("client", &[])?),
                };
                let address = format!(
                    "tls:127.0.0.1:0,cert={},key={},client-ca={},allow-name=client",
                    server.cert.display(),
                    server.key.display(),
                    client.ca.display()
                );
                self.start_at_ports(&address, |port| Endpoint::Tls { port, client: client.clone() })
            }
            Transport::Stdio => {
                let [main, pretty] = ["stdio", "stdio,pretty=on"].map(|address| {
                    let program = self.program.display().to_string();
                    let dialect = self.dialect.name();
                    let machine = ["serve", "--dialect", dialect, "--name", "confvm", "--paused"];
                    let options = machine.into_iter().chain(["--listen", address]);
                    let options = options.map(str::to_owned);
                    Endpoint::Program([program].into_iter().chain(options).collect())
                });
                Ok(Running { main, pretty: Some(pretty), process: None, mux: None })
            }
        }
    }

    fn serve(&self, main: &str, pretty: &str, stdin: Stdio, stdout: Stdio) -> io::Result<Process> {
        let pretty = format!("{pretty},pretty=on");
        let mut command = Command::new(&self.program);
        command.args(["serve", "--dialect", self.dialect.name(), "--name", "confvm", "--paused"]);
        command.args(["--listen", main, "--listen", &pretty]);
        Process::start(command.stdin(stdin).stdout(stdout))
    }

    /// Lets the system choose two ports, and reads them from the program's log.
    fn start_at_ports(
        &self,
        address: &str,
        endpoint: impl Fn(u16) -> Endpoint,
    ) -> io::Result<Running> {
        let mut process = self.serve(address, address, Stdio::null(), Stdio::null())?;
        let deadline = Instant::now() + START_LIMIT;
        loop {
            let ports = ports(&process.stderr());
            if let [main, pretty] = ports[..] {
                let [main, pretty] = [main, pretty].map(endpoint);
                return Ok(Running {
                    main,
                    pretty: Some(pretty),
                    process: Some(process),
                    mux: None,
                });
            }
            if process.wait(BETWEEN_LOOKS)?.is_some() || Instant::now() >= deadline {
                return Err(io::Error::other(process.stderr()));
            }
        }
    }
}

fn unix(path: &Path) -> String {
    format!("unix:{}", path.display())
}

/// A socket that listens at a path, in place of one that did.
fn listener(path: &Path) -> io::Result<OwnedFd> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    Ok(UnixListener::bind(path)?.into())
}
