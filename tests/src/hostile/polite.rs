// SPDX-License-Identifier: MIT OR Apache-2.0
//! Clients that check each answer, and how long they waited.

use std::fmt;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::pace::Stop;
use super::site::{ANSWER, Site, patience};
use crate::connection::{Connection, Failure, shown, unexpected};
use crate::endpoint::Endpoint;
use crate::json::Layout;
use crate::server::LIMIT;

const UNKNOWN: &str = r#""error": {"class": "CommandNotFound", "desc": "The command no-such-command has not been found"}"#;
/// Time between two requests of one client.
const BETWEEN_REQUESTS: Duration = Duration::from_millis(2);
const BETWEEN_NEWCOMERS: Duration = Duration::from_millis(50);
/// The time for which percentiles are compared. It has a few thousand requests if they are answered.
const WINDOW: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Checked {
    answers: u64,
    newcomers: u64,
}

impl fmt::Display for Checked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Checked { answers, newcomers } = self;
        write!(f, "{answers} answers, none lost or wrong; {newcomers} new clients, all served")
    }
}

/// How long answers took, sorted.
#[derive(Clone, Debug, Default)]
pub(super) struct Latencies(Vec<u32>);

impl Latencies {
    fn new(mut micros: Vec<u32>) -> Latencies {
        micros.sort_unstable();
        Latencies(micros)
    }

    /// Microseconds in which this share has been answered.
    pub(super) fn percentile(&self, share: f64) -> f64 {
        let index = (self.0.len() as f64 * share) as usize;
        self.0
            .get(index.min(self.0.len().saturating_sub(1)))
            .map_or(f64::NAN, |&micros| micros.into())
    }
}

impl fmt::Display for Latencies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [p50, p90, p99, p999] = [0.5, 0.9, 0.99, 0.999].map(|share| self.percentile(share));
        let most = self.0.last().copied().unwrap_or_default();
        let count = self.0.len();
        write!(f, "p50 {p50} µs, p90 {p90}, p99 {p99}, p99.9 {p999}, at most {most}, of {count}")
    }
}

/// The latencies of the server and the echo in one window of time.
#[derive(Debug)]
pub(super) struct Window {
    ours: Latencies,
    echo: Latencies,
}

impl Window {
    /// The 99th percentile of the server in times of the echo's. If the server answers nothing in all that time, it is infinite.
    fn ratio(&self) -> f64 {
        match self.ours.0.is_empty() {
            true => f64::INFINITY,
            false => self.ours.percentile(0.99) / self.echo.percentile(0.99),
        }
    }
}

/// What the client has measured that asks the server and the echo.
#[derive(Debug)]
pub(super) struct Measured {
    pub(super) ours: Latencies,
    pub(super) echo: Latencies,
    windows: Vec<Window>,
}

impl Measured {
    /// `asked` has when the server was asked, and how long it and the echo took, in microseconds.
    fn new(asked: &[(Duration, [u32; 2])], time: Duration) -> Measured {
        let all = |asked: &[(Duration, [u32; 2])], of: usize| {
            Latencies::new(asked.iter().map(|(_, micros)| micros[of]).collect())
        };
        let count = (time.as_secs_f64() / WINDOW.as_secs_f64()).round().max(1.0);
        let mut rest = asked;
        let windows = (1..=count as u32).map(|number| {
            let end = time.mul_f64(f64::from(number) / count);
            let (before, after) = rest.split_at(rest.partition_point(|(at, _)| *at < end));
            rest = after;
            Window { ours: all(before, 0), echo: all(before, 1) }
        });
        let windows = windows.collect();
        Measured { ours: all(asked, 0), echo: all(asked, 1), windows }
    }

    /// The ratios of all windows, sorted.
    pub(super) fn ratios(&self) -> Vec<f64> {
        let mut ratios: Vec<_> = self.windows.iter().map(Window::ratio).collect();
        ratios.sort_by(f64::total_cmp);
        ratios
    }
}

/// All polite clients, each on a thread.
pub(super) struct Polite {
    stop: Arc<Stop>,
    measuring: JoinHandle<Result<Measured, String>>,
    newcomers: JoinHandle<Result<Latencies, String>>,
    others: Vec<JoinHandle<Result<u64, String>>>,
}

/// The results of polite clients.
pub(super) struct Met {
    pub(super) checked: Checked,
    pub(super) measured: Measured,
    pub(super) newcomers: Latencies,
}

/// Connects them: over each transport, with out-of-band execution and without.
pub(super) fn start(site: &Site) -> Result<Polite, String> {
    let stop = Arc::new(Stop::default());
    let [unix, ..] = site.endpoints();
    let Endpoint::Unix(socket) = &unix else { return Err("no Unix socket".to_owned()) };
    let mut pair = [Plain::connect(socket, true)?, Plain::connect(site.echo_socket(), false)?];
    let mut others = Vec::new();
    for endpoint in site.endpoints() {
        for oob in [false, true] {
            let mut talker = Talker::connect(&endpoint, oob).map_err(|error| error.to_string())?;
            let (stop, endpoint) = (Arc::clone(&stop), endpoint.clone());
            others.push(thread::spawn(move || {
                talker
                    .talk(&stop)
                    .map_err(|error| format!("a polite client at {endpoint}: {error}"))
            }));
        }
    }
    let (first, second) = (Arc::clone(&stop), Arc::clone(&stop));
    Ok(Polite {
        stop,
        measuring: thread::spawn(move || measure(&mut pair, &first)),
        newcomers: thread::spawn(move || newcomers(&unix, &second)),
        others,
    })
}

impl Polite {
    /// Stops all, and gathers what they have met.
    pub(super) fn stop(self) -> Result<Met, String> {
        self.stop.set();
        let panicked = |_| "a polite client has panicked".to_owned();
        let measured = self.measuring.join().map_err(panicked)??;
        let newcomers = self.newcomers.join().map_err(panicked)??;
        let mut answers = measured.ours.0.len() as u64;
        for other in self.others {
            answers += other.join().map_err(panicked)??;
        }
        let checked = Checked { answers, newcomers: newcomers.0.len() as u64 };
        Ok(Met { checked, measured, newcomers })
    }
}

/// Asks the server and the echo in turn, so that both meet the same moments of the machine.
fn measure(pair: &mut [Plain; 2], stop: &Stop) -> Result<Measured, String> {
    let mut asked = Vec::new();
    let began = Instant::now();
    while !stop.is_set_within(BETWEEN_REQUESTS) {
        let at = began.elapsed();
        let mut micros = [0; 2];
        for (client, micros) in pair.iter_mut().zip(&mut micros) {
            let started = Instant::now();
            client.ask()?;
            *micros = u32::try_from(started.elapsed().as_micros()).unwrap_or(u32::MAX);
        }
        asked.push((at, micros));
    }
    Ok(Measured::new(&asked, began.elapsed()))
}

/// Each connects, negotiates, asks once and leaves.
fn newcomers(endpoint: &Endpoint, stop: &Stop) -> Result<Latencies, String> {
    let mut micros = Vec::new();
    while !stop.is_set_within(BETWEEN_NEWCOMERS) {
        let started = Instant::now();
        let asked = Talker::connect(endpoint, false).and_then(|mut client| client.ask(1));
        asked.map_err(|error| format!("a new client: {error}"))?;
        micros.push(u32::try_from(started.elapsed().as_micros()).unwrap_or(u32::MAX));
    }
    Ok(Latencies::new(micros))
}

/// A client that costs as little as can be, the same for the server and the echo.
struct Plain {
    stream: BufReader<UnixStream>,
    next: u64,
    has_ids: bool,
    line: Vec<u8>,
}

impl Plain {
    fn connect(socket: &Path, has_ids: bool) -> Result<Plain, String> {
        let cannot = |error: std::io::Error| format!("cannot connect: {error}");
        let stream = UnixStream::connect(socket).map_err(cannot)?;
        stream.set_read_timeout(Some(LIMIT)).map_err(cannot)?;
        let stream = BufReader::with_capacity(64 << 10, stream);
        let mut client = Plain { stream, next: 0, has_ids, line: Vec::new() };
        client.read()?;
        client.send("{\"execute\": \"qmp_capabilities\"}\n")?;
        client.read()?;
        Ok(client)
    }

    fn ask(&mut self) -> Result<(), String> {
        let id = if self.has_ids { self.next } else { 0 };
        self.next += 1;
        self.send(&format!("{{\"execute\": \"query-name\", \"id\": {id}}}\n"))?;
        loop {
            self.read()?;
            if self.line == format!("{ANSWER}{id}}}\r\n").as_bytes() {
                return Ok(());
            }
            if !self.line.starts_with(br#"{"timestamp": "#) {
                let line = String::from_utf8_lossy(&self.line);
                return Err(format!("expected the answer to {id}, got {}", shown(&line)));
            }
        }
    }

    fn send(&mut self, text: &str) -> Result<(), String> {
        let sent = self.stream.get_mut().write_all(text.as_bytes());
        sent.map_err(|error| format!("a polite client cannot send: {error}"))
    }

    fn read(&mut self) -> Result<(), String> {
        self.line.clear();
        match self.stream.read_until(b'\n', &mut self.line) {
            Ok(0) => Err("a polite client has been disconnected".to_owned()),
            Ok(_) => Ok(()),
            Err(error) => Err(format!("a polite client gets no answer: {error}")),
        }
    }
}

/// A client of any transport.
struct Talker {
    connection: Connection,
    oob: bool,
}

impl Talker {
    fn connect(endpoint: &Endpoint, oob: bool) -> Result<Talker, Failure> {
        let mut connection = Connection::open(endpoint, Layout::Compact, LIMIT)?;
        let greeting = connection.read_message(patience())?.text;
        if !greeting.starts_with(r#"{"QMP": "#) {
            return unexpected(format!("not a greeting: {greeting}"));
        }
        let enable = if oob { r#"["oob"]"# } else { "[]" };
        let text = format!(
            r#"{{"execute": "qmp_capabilities", "arguments": {{"enable": {enable}}}, "id": 0}}"#
        );
        connection.send(text.as_bytes(), &[], patience())?;
        let mut talker = Talker { connection, oob };
        talker.expect(r#"{"return": {}, "id": 0}"#)?;
        Ok(talker)
    }

    fn talk(&mut self, stop: &Stop) -> Result<u64, Failure> {
        let mut id = 0;
        while !stop.is_set_within(BETWEEN_REQUESTS) {
            id += 1;
            self.ask(id)?;
        }
        Ok(id)
    }

    fn ask(&mut self, id: u64) -> Result<(), Failure> {
        let (request, answer) = match id % 4 {
            0 if self.oob => (
                r#""exec-oob": "yank", "arguments": {"instances": []}"#,
                format!(r#"{{"return": {{}}, "id": {id}}}"#),
            ),
            1 => (r#""execute": "no-such-command""#, format!("{{\"id\": {id}, {UNKNOWN}}}")),
            _ => (r#""execute": "query-name""#, format!("{ANSWER}{id}}}")),
        };
        self.connection.send(format!("{{{request}, \"id\": {id}}}").as_bytes(), &[], patience())?;
        self.expect(&answer)
    }

    fn expect(&mut self, answer: &str) -> Result<(), Failure> {
        loop {
            let text = self.connection.read_message(patience())?.text;
            if text == answer {
                return Ok(());
            }
            if !text.starts_with(r#"{"timestamp": "#) {
                return unexpected(format!("expected {answer}, got {}", shown(&text)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_sorted_latencies() {
        let latencies = Latencies::new((0..100).rev().collect());
        assert_eq!(
            [0.0, 0.5, 0.99, 1.0].map(|share| latencies.percentile(share)),
            [0.0, 50.0, 99.0, 99.0]
        );
        assert!(Latencies::new(Vec::new()).percentile(0.5).is_nan());
    }

    #[test]
    fn windows_without_an_answer_are_the_worst() {
        let second = Duration::from_secs(1);
        let asked = [(second, [6, 3]), (second * 12, [8, 2]), (second * 30, [2, 2])];
        let measured = Measured::new(&asked, second * 39);
        assert_eq!(measured.ratios(), [1.0, 2.0, 4.0, f64::INFINITY]);
        assert_eq!(Measured::new(&asked[..1], second * 2).ratios(), [2.0]);
    }
}
