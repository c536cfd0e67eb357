// SPDX-License-Identifier: MIT OR Apache-2.0
//! Our own server as a child process, for tests.

use std::ffi::OsStr;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::connection::Connection;
use crate::endpoint::Endpoint;
use crate::json::{Json, Layout};
use crate::process::{Process, Signal, run};
use crate::waiting::wait_for;

/// Time limit of every wait. Whatever works is faster, even on a busy machine.
pub const LIMIT: Duration = Duration::from_secs(20);

/// A server in its own directory. Dropping it ends the server.
#[derive(Debug)]
pub struct Server {
    process: Process,
    dir: TempDir,
}

impl Server {
    /// Starts the machine `confvm`, not running, on a compact and on a pretty-printing socket, and waits until it
    /// accepts connections.
    pub fn start() -> Self {
        let arguments = ["serve", "--name", "confvm", "--paused"];
        Self::start_with(arguments.into_iter().chain([
            "--listen",
            "unix:{sock}",
            "--listen",
            "unix:{pretty},pretty=on",
        ]))
    }

    /// Starts `qmp-server` with these arguments, in which `{sock}` and `{pretty}` stand for paths, and waits until it
    /// accepts connections on the former. Its standard input is empty, its working directory the one of the sockets.
    pub fn start_with<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Self {
        Self::start_in(temporary_directory(), arguments)
    }

    /// Like [`start_with`](Self::start_with), in a directory that holds something already.
    pub fn start_in<'a>(dir: TempDir, arguments: impl IntoIterator<Item = &'a str>) -> Self {
        Self::launch(dir, arguments, &[])
    }

    /// Like [`start_with`](Self::start_with), with these variables in its environment.
    pub fn start_in_environment<'a>(
        arguments: impl IntoIterator<Item = &'a str>,
        variables: &[(&str, &str)],
    ) -> Self {
        Self::launch(temporary_directory(), arguments, variables)
    }

    fn launch<'a>(
        dir: TempDir,
        arguments: impl IntoIterator<Item = &'a str>,
        variables: &[(&str, &str)],
    ) -> Self {
        let [sock, pretty] =
            ["qmp.sock", "pretty.sock"].map(|name| dir.path().join(name).display().to_string());
        let arguments = arguments
            .into_iter()
            .map(|argument| argument.replace("{sock}", &sock).replace("{pretty}", &pretty));
        let mut command = qmp_server(arguments);
        command.current_dir(dir.path()).stdout(Stdio::piped()).envs(variables.iter().copied());
        let process = Process::start(&mut command).expect("qmp-server starts");
        let mut server = Self { process, dir };
        let endpoint = server.endpoint();
        server.process.expect_ready(&endpoint);
        server
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The path of its compact socket.
    pub fn socket(&self) -> PathBuf {
        self.dir().join("qmp.sock")
    }

    pub fn endpoint(&self) -> Endpoint {
        Endpoint::Unix(self.socket())
    }

    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Connects a client; the greeting is still to be read.
    /// What it has written to standard error.
    pub fn stderr(&self) -> String {
        self.process.stderr()
    }

    pub fn connect(&self) -> Client {
        Client::connect(&self.endpoint())
    }

    /// Connects a client and negotiates, with no capability enabled.
    pub fn negotiated(&self) -> Client {
        let mut client = self.connect();
        client.negotiate("{}");
        client
    }

    pub fn wait(&mut self) -> ExitStatus {
        let status = self.process.wait(LIMIT).expect("child can be waited for");
        status.unwrap_or_else(|| panic!("qmp-server has not exited: {}", self.process.stderr()))
    }

    /// The ports that it listens at, in the order of its arguments.
    pub fn ports(&self) -> Vec<u16> {
        // It accepts clients before it says where, and greets them afterwards.
        drop(self.connect().receive());
        ports(&self.process.stderr())
    }

    /// Waits until it has logged that it refused this many clients, and returns the reasons.
    #[track_caller]
    pub fn refused(&mut self, clients: usize) -> Vec<String> {
        wait_for(|| {
            let log = self.process.stderr();
            let said = log.split_inclusive('\n').filter(|line| !line.contains("listening at"));
            let lines: Vec<_> = said.map(|line| line.trim_end().to_owned()).collect();
            if lines.len() < clients || !log.ends_with('\n') {
                return Err(format!("{clients} clients are to be refused: {log}"));
            }
            let reasons = lines.iter().map(|line| {
                let (_, reason) = line
                    .split_once(" is refused: ")
                    .unwrap_or_else(|| panic!("not a refusal: {line}"));
                reason.to_owned()
            });
            let reasons: Vec<_> = reasons.collect();
            assert_eq!(reasons.len(), clients, "{log}");
            Ok(reasons)
        })
    }

    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal).expect("qmp-server runs");
    }
}

/// A client for tests: every method panics if the server does anything unexpected, or is late.
#[derive(Debug)]
pub struct Client {
    connection: Connection,
}

impl Client {
    pub fn connect(endpoint: &Endpoint) -> Self {
        match Connection::open(endpoint, Layout::Compact, LIMIT) {
            Ok(connection) => Self { connection },
            Err(error) => panic!("{error}"),
        }
    }

    /// Reads the greeting and negotiates with these arguments.
    #[track_caller]
    pub fn negotiate(&mut self, arguments: &str) {
        let greeting = self.receive();
        assert!(greeting.get("QMP").is_some(), "not a greeting: {greeting}");
        self.send(&format!(r#"{{"execute": "qmp_capabilities", "arguments": {arguments}}}"#));
        self.expect(r#"{"return": {}}"#);
    }

    /// Sends a text as it is.
    #[track_caller]
    pub fn send(&mut self, text: &str) {
        self.send_bytes(text.as_bytes());
    }

    #[track_caller]
    pub fn send_bytes(&mut self, bytes: &[u8]) {
        self.send_with(bytes, &[]);
    }

    /// Sends bytes, and descriptors along with the first of them.
    #[track_caller]
    pub fn send_with(&mut self, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) {
        if let Err(error) = self.connection.send(bytes, descriptors, Instant::now() + LIMIT) {
            panic!("{error}");
        }
    }

    #[track_caller]
    pub fn receive(&mut self) -> Json {
        match self
            .connection
            .read_message(Instant::now() + LIMIT)
            .and_then(|message| message.json())
        {
            Ok(value) => value,
            Err(error) => panic!("{error}; so far: {:#?}", self.connection.transcript()),
        }
    }

    /// The next message must have exactly this text.
    #[track_caller]
    pub fn expect(&mut self, text: &str) {
        assert_eq!(self.receive().to_string(), text);
    }

    /// The next message must be an event of this name.
    #[track_caller]
    pub fn expect_event(&mut self, name: &str) {
        let message = self.receive();
        assert_eq!(message.get("event").and_then(Json::as_str), Some(name), "{message}");
    }

    /// Sends a command without arguments and without an id.
    #[track_caller]
    pub fn send_command(&mut self, command: &str) {
        self.send(&format!(r#"{{"execute": "{command}"}}"#));
    }

    /// Runs a command without arguments and returns its result.
    #[track_caller]
    pub fn execute(&mut self, command: &str) -> Json {
        self.send_command(command);
        let reply = self.receive();
        reply.get("return").unwrap_or_else(|| panic!("{command}: {reply}")).clone()
    }

    /// Ends the sending side.
    #[track_caller]
    pub fn half_close(&mut self) {
        if let Err(error) = self.connection.half_close() {
            panic!("{error}");
        }
    }

    /// The server must close the connection now.
    #[track_caller]
    pub fn expect_end(&mut self) {
        if let Err(error) = self.connection.expect_end(Instant::now() + LIMIT) {
            panic!("{error}");
        }
    }

    /// Nothing must come for this long.
    #[track_caller]
    pub fn expect_silence(&mut self, duration: Duration) {
        if let Err(error) = self.connection.expect_silence(duration) {
            panic!("{error}");
        }
    }
}

fn temporary_directory() -> TempDir {
    tempfile::Builder::new().prefix("qmp-tests-").tempdir().expect("temporary directory")
}

/// Runs the program, which must fail at once with exit status 2 and one line. Returns the line.
#[track_caller]
pub fn refusal(arguments: &[&str]) -> String {
    let finished =
        run(&mut qmp_server(arguments), "", LIMIT).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(finished.status.code(), Some(2), "{arguments:?}: {finished:#?}");
    assert_eq!(finished.stdout, "", "{arguments:?}");
    let lines: Vec<_> = finished.stderr.lines().collect();
    assert_eq!(lines.len(), 1, "{arguments:?}: {}", finished.stderr);
    lines[0].to_owned()
}

/// A `qmp-server` with these arguments and an empty standard input, not started yet.
pub fn qmp_server(arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Command {
    let mut command = Command::new(program());
    command.args(arguments).stdin(Stdio::null());
    command
}

/// The program: `QMP_SERVER_BIN` if set, else the one beside this test, brought up to date first.
pub fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| match std::env::var_os("QMP_SERVER_BIN") {
        Some(path) => path.into(),
        None => build("qmp-server-cli", "--bin", "qmp-server", "qmp-server"),
    })
}

/// A copy of the [program] in this directory, for users who have no access to where that is.
pub fn copy_for_all(dir: &Path) -> PathBuf {
    let copy = dir.join("qmp-server");
    // By another process: what this one writes cannot be executed while a child that another thread starts still has it open.
    let mut install = Command::new("install");
    install.args(["-m", "755"]).args([program(), &copy]);
    let installed = run(&mut install, "", LIMIT).expect("copy the program");
    assert!(installed.status.success(), "{installed:?}");
    copy
}

/// An example of the crate `qmp-server`: in the directory `QMP_EXAMPLES_DIR` if set, else the one beside this test,
/// brought up to date first.
pub fn example(name: &str) -> PathBuf {
    match std::env::var_os("QMP_EXAMPLES_DIR") {
        Some(directory) => Path::new(&directory).join(name),
        None => build("qmp-server", "--example", name, &format!("examples/{name}")),
    }
}

/// Builds a program of a package, which is then at `path` in the directory of this profile.
fn build(package: &str, kind: &str, name: &str, path: &str) -> PathBuf {
    let profile_dir = profile_dir();
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(["build", "--quiet", "--package", package, kind, name]);
    if kind == "--example" {
        command.args(["--features", "machine"]);
    }
    command.arg("--target-dir").arg(target_dir());
    if profile_dir.ends_with("release") {
        command.arg("--release");
    }
    let status = command.current_dir(env!("CARGO_MANIFEST_DIR")).status().expect("cargo starts");
    assert!(status.success(), "{name} cannot be built ({status})");
    profile_dir.join(path)
}

/// The directory of this profile's programs; tests are in its subdirectory `deps`.
fn profile_dir() -> PathBuf {
    let own = std::env::current_exe().expect("path of this program");
    let dir = own.parent().expect("directory of this program");
    if dir.ends_with("deps") { dir.parent().unwrap_or(dir).to_owned() } else { dir.to_owned() }
}

pub fn target_dir() -> PathBuf {
    let profile = profile_dir();
    profile.parent().unwrap_or(&profile).to_owned()
}

/// Returns the ports in a server's log at which it listens, in their order.
pub fn ports(log: &str) -> Vec<u16> {
    let whole_lines = log.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n'));
    let addresses =
        whole_lines.filter_map(|line| line.split_once("listening at ")?.1.rsplit_once(':'));
    addresses.filter_map(|(_, port)| port.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_read_from_whole_lines() {
        let log = "qmp-server: listening at tcp:127.0.0.1:41\nqmp-server: listening at tls:[::1]:42\n\
                   qmp-server: listening at tcp:127.0.0.1:4";
        assert_eq!(ports(log), [41, 42]);
    }
}
