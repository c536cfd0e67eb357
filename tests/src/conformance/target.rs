// SPDX-License-Identifier: MIT OR Apache-2.0
//! The server under test: one that runs already, or one that the runner starts, and again after it has ended.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::our_server::OurServer;
use crate::connection::Connection;
use crate::endpoint::Endpoint;
use crate::json::Layout;
use crate::process::Process;

#[derive(Clone, Debug)]
pub enum Launch {
    Connect {
        main: Endpoint,
        /// Its pretty-printing monitor.
        pretty: Option<Endpoint>,
    },
    /// The runner starts it: program and arguments, in which `{sock}` and `{pretty}` stand for the paths of its sockets.
    Spawn(Vec<String>),
    /// The runner starts our own.
    Ours(OurServer),
    /// The runner starts a server, as for [`Spawn`](Launch::Spawn), and our mux in front of it.
    Through {
        /// `qmp-server`.
        mux: PathBuf,
        /// The server behind it: program and arguments, in which `{sock}` stands for the path of its socket.
        upstream: Vec<String>,
    },
}

impl Launch {
    fn start(&self, dir: &Path) -> Result<Running, String> {
        match self {
            Launch::Connect { main, pretty } => {
                Ok(Running { main: main.clone(), pretty: pretty.clone(), process: None, mux: None })
            }
            Launch::Spawn(words) => spawn(words, dir),
            Launch::Through { mux, upstream } => spawn_through(mux, upstream, dir),
            Launch::Ours(server) => {
                server.start(dir).map_err(|error| format!("cannot start our server: {error}"))
            }
        }
    }
}

#[derive(Debug)]
pub(super) struct Running {
    pub(super) main: Endpoint,
    pub(super) pretty: Option<Endpoint>,
    /// If we have started it, and it is not started for each connection.
    pub(super) process: Option<Process>,
    /// The process between the runner and that server, which does not end with the server.
    pub(super) mux: Option<Process>,
}

fn spawn(words: &[String], dir: &Path) -> Result<Running, String> {
    let sockets = ["main.sock", "pretty.sock"].map(|name| dir.join(name));
    for socket in &sockets {
        // A server that removes its sockets leaves nothing to remove.
        drop(std::fs::remove_file(socket));
    }
    let [main, pretty] = sockets.each_ref().map(|path| path.to_string_lossy());
    let command: Vec<_> = words
        .iter()
        .map(|word| word.replace("{sock}", &main).replace("{pretty}", &pretty))
        .collect();
    let process = start(&command)?;
    let has_pretty = words.iter().any(|word| word.contains("{pretty}"));
    let [main, pretty] = sockets.map(Endpoint::Unix);
    Ok(Running { main, pretty: has_pretty.then_some(pretty), process: Some(process), mux: None })
}

fn spawn_through(mux: &Path, upstream: &[String], dir: &Path) -> Result<Running, String> {
    let behind = dir.join("upstream");
    drop(std::fs::create_dir(&behind));
    let Running { main: upstream, process, .. } = spawn(upstream, &behind)?;
    let [main, pretty] = ["main.sock", "pretty.sock"].map(|name| dir.join(name));
    let [listen, listen_pretty] = [&main, &pretty].map(|path| format!("unix:{}", path.display()));
    let words = [
        mux.display().to_string(),
        "mux".to_owned(),
        "--upstream".to_owned(),
        upstream.to_string(),
        "--listen".to_owned(),
        listen,
        "--listen".to_owned(),
        format!("{listen_pretty},pretty=on"),
    ];
    let mux = Some(start(&words)?);
    let [main, pretty] = [main, pretty].map(Endpoint::Unix);
    Ok(Running { main, pretty: Some(pretty), process, mux })
}

/// The server under test.
#[derive(Debug)]
pub struct Target {
    launch: Launch,
    running: Running,
    dir: TempDir,
}

impl Target {
    /// Starts the server if need be.
    pub fn new(launch: &Launch) -> Result<Self, String> {
        let dir = tempfile::Builder::new().prefix("qmp-conformance-").tempdir();
        let dir = dir.map_err(|error| format!("cannot make a directory: {error}"))?;
        let running = launch.start(dir.path())?;
        Ok(Self { launch: launch.clone(), running, dir })
    }

    pub fn main(&self) -> &Endpoint {
        &self.running.main
    }

    pub fn pretty(&self) -> Option<&Endpoint> {
        self.running.pretty.as_ref()
    }

    pub fn wait_until_ready(&mut self, patience: Duration) -> Result<(), String> {
        let deadline = Instant::now() + patience;
        loop {
            let error = match self.greets(deadline) {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            if let Some(complaint) = self.exit_complaint() {
                return Err(complaint);
            }
            if Instant::now() >= deadline {
                return Err(error);
            }
        }
    }

    /// A connection that is accepted proves little: a server that is ending may still have its socket.
    fn greets(&self, deadline: Instant) -> Result<(), String> {
        const TRY: Duration = Duration::from_millis(200);
        let mut connection = Connection::open(self.main(), Layout::Compact, TRY)
            .map_err(|error| error.to_string())?;
        connection.read_message(deadline).map(drop).map_err(|error| error.to_string())
    }

    /// Why the server that we started is no longer there, if it is not.
    pub fn exit_complaint(&mut self) -> Option<String> {
        let Running { process, mux, .. } = &mut self.running;
        process.iter_mut().chain(mux).find_map(|process| {
            let status = process.wait(Duration::ZERO).ok().flatten()?;
            Some(format!("the server has exited ({status}): {}", process.stderr().trim_end()))
        })
    }

    /// After a case that ends the server: starts it again, or waits until it is started.
    pub fn bring_back(&mut self, patience: Duration) -> Result<(), String> {
        if let Some(process) = &mut self.running.process {
            let ended = process.wait(patience).map_err(|error| error.to_string())?;
            if ended.is_none() {
                process.stop().map_err(|error| error.to_string())?;
            }
            if let Some(mux) = &mut self.running.mux {
                mux.stop().map_err(|error| error.to_string())?;
            }
            self.running = self.launch.start(self.dir.path())?;
        }
        self.wait_until_ready(patience)
    }
}

fn start(command: &[String]) -> Result<Process, String> {
    let (program, arguments) =
        command.split_first().ok_or("no command to start the server with")?;
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null());
    Process::start(&mut command).map_err(|error| format!("cannot start {program}: {error}"))
}

/// Splits a command line into words at white space, except inside quotes and after a backslash.
pub fn split_words(text: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut characters = text.chars();
    let mut quote = None;
    while let Some(character) = characters.next() {
        match (quote, character) {
            (Some(open), _) if character == open => quote = None,
            (None, '\'' | '"') => {
                quote = Some(character);
                word.get_or_insert_default();
            }
            (None | Some('"'), '\\') => word.get_or_insert_default().extend(characters.next()),
            (None, _) if character.is_whitespace() => words.extend(word.take()),
            _ => word.get_or_insert_default().push(character),
        }
    }
    words.extend(word);
    if quote.is_some() { Err(format!("a quote is left open: {text}")) } else { Ok(words) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_lines_are_split_as_by_a_shell() {
        assert_eq!(
            split_words(" a 'b c'\n\"d\\\"e\" f\\ g ''").unwrap(),
            ["a", "b c", "d\"e", "f g", ""].map(str::to_owned)
        );
        assert!(split_words("a 'b").is_err());
    }

    #[test]
    fn a_server_that_exits_at_once_is_told_with_its_last_words() {
        let words = ["sh", "-c", "echo no such luck >&2"].map(str::to_owned);
        let mut target = Target::new(&Launch::Spawn(words.into())).unwrap();
        let error = target.wait_until_ready(Duration::from_secs(30)).unwrap_err();
        assert!(error.contains("no such luck"), "{error}");
    }
}
