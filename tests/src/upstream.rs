// SPDX-License-Identifier: MIT OR Apache-2.0
//! A server behind a mux: one of QEMU's programs, and our mux in front of it.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use qmp_proto::Dialect;

use crate::endpoint::Endpoint;
use crate::json::Json;
use crate::process::Process;
use crate::programs::{self, Oracle};
use crate::server::{Client, Server};
use crate::waiting::wait_for;

/// The name of its socket, in the directory of the mux.
pub const SOCKET: &str = "upstream.sock";

/// The name of the mux's socket at which clients get its own events, in the same directory.
pub const NOTICES: &str = "notices.sock";

/// Options of a mux: these, and others that tests rely on where these do not say otherwise.
pub fn mux_options<'a>(options: &[&'a str]) -> impl Iterator<Item = &'a str> {
    let keep: &[_] = match options.contains(&"--upstream-lost") {
        true => &[],
        false => &["--upstream-lost", "keep"],
    };
    let notices = ["--listen", "unix:notices.sock,notices=on"];
    options.iter().copied().chain(keep.iter().copied()).chain(notices)
}

/// Waits until a mux with such options has a connection to its server, or has none.
#[track_caller]
pub fn expect_upstream(mux: &Server, connected: bool) {
    let mut client = watcher(mux);
    wait_for(|| {
        client.send_command("__org.qmp-server_query-upstream");
        // Events may come first.
        let upstream = loop {
            if let Some(upstream) = client.receive().get("return") {
                break upstream.clone();
            }
        };
        let is = upstream.get("connected").map(Json::to_string);
        if is == Some(connected.to_string()) { Ok(()) } else { Err(format!("{upstream}")) }
    });
}

/// Connects a client to a mux with such options where it gets the mux's own events, and negotiates.
#[track_caller]
pub fn watcher(mux: &Server) -> Client {
    let mut client = Client::connect(&Endpoint::Unix(mux.dir().join(NOTICES)));
    client.negotiate("{}");
    client
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// QEMU with no machine, running nothing yet. A test that can do without is skipped if it is absent.
    Emulator,
    StorageDaemon,
}

impl Program {
    pub const ALL: [Program; 2] = [Program::StorageDaemon, Program::Emulator];

    fn name(self) -> &'static str {
        match self {
            Self::Emulator => "qemu-system-x86_64",
            Self::StorageDaemon => "qemu-storage-daemon",
        }
    }

    /// Its command line, with a monitor at this socket; `None` if it is absent and the calling test is to be skipped.
    pub fn command(self, socket: &str) -> Option<Vec<String>> {
        match self {
            Self::StorageDaemon => drop(programs::find(self.name(), "apt-get install qemu-utils")?),
            Self::Emulator => drop(programs::find_optional(self.name())?),
        }
        Some(self.command_line(self.name().to_owned(), socket))
    }

    fn command_line(self, program: String, socket: &str) -> Vec<String> {
        let chardev = format!("socket,id=monitor,path={socket},server=on,wait=off");
        let (option, rest): (_, &[&str]) = match self {
            Self::StorageDaemon => ("--chardev", &["--monitor", "chardev=monitor"]),
            Self::Emulator => (
                "-chardev",
                &[
                    "-machine",
                    "none",
                    "-nodefaults",
                    "-nographic",
                    "-S",
                    "-name",
                    "confvm",
                    "-mon",
                    "chardev=monitor,mode=control",
                ],
            ),
        };
        let words = [program, option.to_owned(), chardev].into_iter();
        words.chain(rest.iter().map(|&word| word.to_owned())).collect()
    }

    /// The same of the QEMU that speaks this dialect; `None` if the calling test is to be skipped.
    pub fn command_of(self, dialect: Dialect, socket: &str) -> Option<Vec<String>> {
        let program = Oracle::of(dialect).program(self.name())?;
        Some(self.command_line(program.to_string_lossy().into_owned(), socket))
    }

    /// Starts it in a directory, where its socket will be; `None` if the calling test is to be skipped.
    pub fn start_in(self, dir: &Path) -> Option<Process> {
        let words = self.command(SOCKET)?;
        // A program that was killed has left it behind, and nobody is to find that one.
        drop(fs::remove_file(dir.join(SOCKET)));
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).current_dir(dir).stdin(Stdio::null()).stdout(Stdio::null());
        Some(Process::start(&mut command).expect("the program starts"))
    }
}

/// A program of QEMU's with our mux in front of it, in one directory.
#[derive(Debug)]
pub struct Muxed {
    pub mux: Server,
    pub upstream: Process,
    program: Program,
}

impl Muxed {
    /// Starts both, the mux with these options; `None` if the calling test is to be skipped.
    pub fn start(program: Program, options: &[&str]) -> Option<Muxed> {
        let dir =
            tempfile::Builder::new().prefix("qmp-mux-").tempdir().expect("temporary directory");
        let upstream = program.start_in(dir.path())?;
        let listen = ["--listen", "unix:{sock}", "--listen", "unix:{pretty},pretty=on"];
        let mux = ["mux", "--upstream", "unix:upstream.sock"].into_iter().chain(listen);
        let mux = Server::start_in(dir, mux.chain(mux_options(options)));
        Some(Muxed { mux, upstream, program })
    }

    /// Starts the program again, after its end.
    pub fn restart(&mut self) {
        self.upstream.stop().expect("it can be stopped");
        self.upstream = self.program.start_in(self.mux.dir()).expect("it has been there before");
    }
}

/// Waits until the files that a process holds in this directory are those with these names, which are sorted.
#[track_caller]
pub fn expect_held(process: &mut Process, dir: &Path, names: &[&str]) {
    wait_for(|| {
        let files = open_files(process);
        let held = files.iter().filter_map(|path| Path::new(path).strip_prefix(dir).ok());
        let mut held: Vec<_> = held.map(|path| path.display().to_string()).collect();
        held.sort();
        if held == names { Ok(()) } else { Err(format!("holds {held:?}, not {names:?}")) }
    });
}

/// Waits until a process holds at most this number of files.
#[track_caller]
pub fn expect_files(process: &mut Process, most: usize) {
    wait_for(|| {
        let open = open_files(process).len();
        if open <= most { Ok(()) } else { Err(format!("{open} files are open, not {most}")) }
    });
}

pub fn open_files(process: &mut Process) -> Vec<OsString> {
    let open = fs::read_dir(format!("/proc/{}/fd", process.child().id())).expect("it runs");
    let targets = open.filter_map(|fd| fs::read_link(fd.ok()?.path()).ok());
    targets.map(PathBuf::into_os_string).collect()
}
