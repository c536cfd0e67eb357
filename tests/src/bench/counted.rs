// SPDX-License-Identifier: MIT OR Apache-2.0
//! The work of the server for a request, counted and not timed: user instructions by valgrind, system calls by strace.
//! Each count is the difference of two runs, of which one has more requests; what a server does once is in both.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::client::{Client, Mode};
use crate::process::Process;
use crate::server::program;
use crate::waiting::retry;

/// Requests of the shorter run, and by how many times the other one is longer.
const REQUESTS: usize = 2_000;
const LONGER: usize = 3;

/// A count may be larger than before by so much: another compiler or library makes some difference.
const TOLERANCE: f64 = 1.05;

/// Emulated servers are slow.
const PATIENCE: Duration = Duration::from_secs(60);

/// Per request, by what is counted.
pub type Counts = BTreeMap<String, f64>;

/// How requests come.
#[derive(Clone, Copy)]
struct Way {
    name: &'static str,
    mode: Mode,
    clients: usize,
    /// How many requests each client sends in one write, before it receives the answers.
    together: usize,
}

const WAYS: [Way; 4] = [
    Way { name: "one in flight", mode: Mode::InBand, clients: 1, together: 1 },
    Way { name: "eight in one write", mode: Mode::InBand, clients: 1, together: 8 },
    Way {
        name: "eight in one write, out-of-band enabled",
        mode: Mode::OutOfBand,
        clients: 1,
        together: 8,
    },
    Way { name: "64 clients, one in flight each", mode: Mode::InBand, clients: 64, together: 1 },
];

impl Way {
    /// How often all clients send, for about so many requests.
    fn rounds(self, requests: usize) -> usize {
        requests / (self.clients * self.together)
    }
}

/// Counts everything.
pub fn count() -> Result<Counts, String> {
    let mut counts = Counts::new();
    for way in WAYS {
        for (unit, tool) in [("instructions", instructions as Tool), ("system calls", system_calls)]
        {
            let of = |requests| run(tool, way, requests);
            let [short, long] = [of(REQUESTS)?, of(LONGER * REQUESTS)?];
            let more = way.rounds(LONGER * REQUESTS) - way.rounds(REQUESTS);
            let per_request = (long - short) / (more * way.clients * way.together) as f64;
            counts.insert(format!("{}: {unit}", way.name), per_request);
        }
    }
    Ok(counts)
}

/// Returns the counts that are larger in `now` than in `before`, one a line.
pub fn larger(before: &Counts, now: &Counts) -> String {
    let mut lines = String::new();
    for (what, before) in before {
        match now.get(what) {
            Some(now) if *now <= before * TOLERANCE => {}
            Some(now) => _ = writeln!(lines, "{what}: {before:.2} before, {now:.2} now"),
            None => _ = writeln!(lines, "{what}: {before:.2} before, and not counted now"),
        }
    }
    lines
}

/// The command that runs the server, and what it counts into this file; how much that is, is found by the second.
struct Counted {
    command: Command,
    read: fn(&str) -> Option<f64>,
}

type Tool = fn(&Path) -> Counted;

fn instructions(into: &Path) -> Counted {
    let mut command = Command::new("valgrind");
    command.arg("--tool=callgrind").arg(format!("--callgrind-out-file={}", into.display()));
    let total = |text: &str| {
        let mut lines = text.lines();
        let line = lines.find_map(|line| line.strip_prefix("totals: "))?;
        line.split_whitespace().next()?.parse().ok()
    };
    Counted { command, read: total }
}

fn system_calls(into: &Path) -> Counted {
    let mut command = Command::new("strace");
    // Not those of the thread that stands by: they come with time.
    const OF_REQUESTS: &str = "trace=epoll_pwait,recvmsg,recvfrom,sendto,sendmsg,write,futex";
    command.args(["-f", "-c", "-e", OF_REQUESTS, "-o"]).arg(into);
    // The line of the sum: share, seconds, microseconds a call, calls, maybe errors, and "total".
    let total = |text: &str| {
        let line = text.lines().rfind(|line| line.ends_with(" total"))?;
        line.split_whitespace().nth(3)?.parse().ok()
    };
    Counted { command, read: total }
}

fn run(tool: Tool, way: Way, requests: usize) -> Result<f64, String> {
    let dir = tempfile::tempdir().map_err(|error| format!("cannot make a directory: {error}"))?;
    let (socket, counts) = (dir.path().join("qmp.sock"), dir.path().join("counts"));
    let Counted { mut command, read } = tool(&counts);
    let tool = command.get_program().to_string_lossy().into_owned();
    command.arg(program()).args(["serve", "--listen"]).arg(format!("unix:{}", socket.display()));
    let started = Process::start(command.stdin(Stdio::null()).stdout(Stdio::null()));
    let mut server = started.map_err(|error| format!("cannot run {tool}: {error}"))?;
    let asked = ask(&socket, way, requests);
    asked.map_err(|error| format!("under {tool}: {error}: {}", server.stderr()))?;
    if !matches!(server.wait(PATIENCE), Ok(Some(_))) {
        return Err(format!("{tool} does not end: {}", server.stderr()));
    }
    let text = std::fs::read_to_string(&counts).map_err(|error| format!("{tool}: {error}"))?;
    read(&text).ok_or_else(|| format!("{tool} has counted nothing: {text}"))
}

fn ask(socket: &Path, way: Way, requests: usize) -> io::Result<()> {
    let connect = || retry(PATIENCE, || Client::connect(socket, way.mode));
    let mut clients = (0..way.clients).map(|_| connect()).collect::<io::Result<Vec<_>>>()?;
    for _ in 0..way.rounds(requests) {
        clients.iter_mut().try_for_each(|client| client.ask(way.together))?;
        for client in &mut clients {
            let mut left = way.together;
            while left > 0 {
                left = left.saturating_sub(client.receive()?);
            }
        }
    }
    // A signal would reach the tool, and not the server.
    Client::connect_asking(socket, Mode::InBand, b"{\"execute\": \"quit\"}\n").map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_larger_or_gone_is_named() {
        let counts = |pairs: &[(&str, f64)]| -> Counts {
            pairs.iter().map(|(what, count)| ((*what).to_owned(), *count)).collect()
        };
        let before = counts(&[("a", 100.0), ("b", 3.0), ("c", 1.0)]);
        let now = counts(&[("a", 104.0), ("b", 4.0), ("new", 9.0)]);
        let said = "b: 3.00 before, 4.00 now\nc: 1.00 before, and not counted now\n";
        assert_eq!(larger(&before, &now), said);
        assert_eq!(larger(&before, &before), "");
    }
}
