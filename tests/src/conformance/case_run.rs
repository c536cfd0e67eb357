// SPDX-License-Identifier: MIT OR Apache-2.0
//! Going through the steps of one case.

use std::collections::HashMap;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use regex::{Captures as Groups, Regex};

use super::case::{Case, Mode};
use super::matching::{Captures, match_raw, match_value};
use super::step::{Action, MachineState, Send, Step};
use crate::connection::{Connection, End, Failure, Message, shown, unexpected};
use crate::endpoint::Endpoint;
use crate::json::{Json, Layout};

/// The name of the connection that a case starts with.
const MAIN: &str = "main";
const GREETING: &str = r#"{"QMP": {"version": {"qemu": {"micro": "<int>", "minor": "<int>", "major": "<int>"},
    "package": "<string>"}, "capabilities": ["oob"]}}"#;
const DEFAULT_ACTIONS: &str = r#"{"execute": "set-action", "arguments":
    {"reboot": "reset", "shutdown": "poweroff", "panic": "shutdown", "watchdog": "reset"}}"#;

/// The monitors of the server under test, and how long to wait for them.
#[derive(Clone, Debug)]
pub struct Monitors {
    /// The compact one.
    pub main: Endpoint,
    /// The pretty-printing one, if there is one.
    pub pretty: Option<Endpoint>,
    /// For a connection to be accepted.
    pub patience: Duration,
    pub step_limit: Duration,
}

pub fn run_case(case: &Case, monitors: &Monitors) -> Result<(), (Failure, Vec<String>)> {
    let mut run = CaseRun {
        monitors,
        step_limit: monitors.step_limit.max(case.step_limit),
        captures: Captures::new(),
        connections: HashMap::new(),
        own_commands: 0,
        sent: Sent::default(),
    };
    run.steps(case).map_err(|failure| (failure, run.transcript()))
}

#[derive(Debug, Default)]
struct Sent {
    start: Vec<u8>,
    len: usize,
}

impl Sent {
    const KEPT: usize = 200;

    fn add(&mut self, bytes: &[u8]) {
        let room = Self::KEPT - self.start.len();
        self.start.extend_from_slice(&bytes[..bytes.len().min(room)]);
        self.len += bytes.len();
    }
}

impl fmt::Display for Sent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for &byte in &self.start {
            match byte {
                b'\'' | b'"' => write!(f, "{}", char::from(byte))?,
                _ => write!(f, "{}", byte.escape_ascii())?,
            }
        }
        match self.len {
            0 => f.write_str("nothing"),
            len if len > self.start.len() => write!(f, "... ({len} bytes)"),
            _ => Ok(()),
        }
    }
}

/// The connections and captured values of a case.
struct CaseRun<'a> {
    monitors: &'a Monitors,
    step_limit: Duration,
    captures: Captures,
    connections: HashMap<String, Connection>,
    own_commands: u64,
    sent: Sent,
}

impl CaseRun<'_> {
    fn steps(&mut self, case: &Case) -> Result<(), Failure> {
        self.connect(MAIN, case.mode).map_err(|failure| self.report("connecting", failure))?;
        for (index, step) in case.steps.iter().enumerate() {
            let place = format!("step {}", index + 1);
            self.step(step).map_err(|failure| self.report(&place, failure))?;
        }
        Ok(())
    }

    /// The failure, with where it happened and what the server was sent before.
    fn report(&self, place: &str, failure: Failure) -> Failure {
        match failure {
            Failure::Unexpected(text) => {
                Failure::Unexpected(format!("{place}: sent {}; {}", self.sent, bounded(text)))
            }
            unreachable @ Failure::Unreachable(_) => unreachable,
        }
    }

    fn transcript(&self) -> Vec<String> {
        let lines = self.connections.iter().flat_map(|(name, connection)| {
            connection.transcript().iter().map(move |line| format!("{name} {line}"))
        });
        lines.collect()
    }

    fn deadline(&self) -> Instant {
        Instant::now() + self.step_limit
    }

    fn connect(&mut self, name: &str, mode: Mode) -> Result<(), Failure> {
        let (endpoint, layout) = match (mode, &self.monitors.pretty) {
            (Mode::Pretty, Some(endpoint)) => (endpoint, Layout::Pretty),
            (Mode::Pretty, None) => return unexpected("there is no pretty-printing monitor"),
            _ => (&self.monitors.main, Layout::Compact),
        };
        let connection = Connection::open(endpoint, layout, self.monitors.patience)?;
        self.connections.insert(name.to_owned(), connection);
        let command = match mode {
            Mode::Fresh => return Ok(()),
            Mode::OutOfBand => {
                r#"{"execute": "qmp_capabilities", "arguments": {"enable": ["oob"]}}"#
            }
            Mode::Negotiated | Mode::Pretty => r#"{"execute": "qmp_capabilities"}"#,
        };
        let greeting = self.receive(name)?.json()?;
        if greeting.get("QMP").is_none() {
            return unexpected(format!(
                "expected a greeting, received {}",
                shown(&greeting.to_string())
            ));
        }
        self.send(name, command)?;
        let reply = self.receive(name)?.json()?;
        if reply.to_string() != r#"{"return": {}}"# {
            return unexpected(format!(
                "capabilities negotiation failed: {}",
                shown(&reply.to_string())
            ));
        }
        Ok(())
    }

    fn connection(&mut self, name: &str) -> Result<&mut Connection, Failure> {
        let connection = self.connections.get_mut(name);
        connection.ok_or_else(|| Failure::Unexpected(format!("there is no connection '{name}'")))
    }

    fn send(&mut self, name: &str, text: &str) -> Result<(), Failure> {
        let deadline = self.deadline();
        self.sent = Sent::default();
        self.sent.add(text.as_bytes());
        self.connection(name)?.send(text.as_bytes(), &[], deadline)
    }

    fn receive(&mut self, name: &str) -> Result<Message, Failure> {
        let deadline = self.deadline();
        self.connection(name)?.read_message(deadline)
    }

    fn step(&mut self, step: &Step) -> Result<(), Failure> {
        let name = step.on.as_deref().unwrap_or(MAIN);
        match &step.action {
            Action::Send(send) => self.send_payload(name, send),
            Action::Expect { alternatives, count } => {
                (0..*count).try_for_each(|_| self.expect(name, alternatives).map(drop))
            }
            Action::ExpectRaw { alternatives, count } => (0..*count).try_for_each(|_| {
                let wanted = || either(alternatives.iter().map(|text| shown(text)));
                let message =
                    self.receive(name).map_err(|failure| instead_of(wanted(), failure))?;
                check_raw(alternatives, &message)
            }),
            Action::ExpectEvent(members) => self.expect_event(name, members),
            Action::ExpectGreeting => {
                let greeting = Json::parse(GREETING)
                    .map_err(|error| Failure::Unexpected(error.to_string()))?;
                self.expect(name, &[greeting]).map(drop)
            }
            Action::ExpectInterleaved(streams) => self.expect_interleaved(name, streams),
            Action::ExpectSilence(duration) => self.connection(name)?.expect_silence(*duration),
            Action::ExpectEnd { reset_allowed } => {
                let deadline = self.deadline();
                match self.connection(name)?.expect_end(deadline)? {
                    End::Reset if !reset_allowed => {
                        unexpected("expected end of file, received a connection reset")
                    }
                    _ => Ok(()),
                }
            }
            Action::Sync => self.sync(name),
            Action::Do { command, may_fail } => self.perform(name, command, *may_fail).map(drop),
            Action::Machine(state) => self.bring_machine_to(name, *state),
            Action::HalfClose => self.connection(name)?.half_close(),
            Action::Close => {
                self.connections.remove(name);
                Ok(())
            }
            Action::Reconnect(mode) => {
                self.connections.remove(name);
                self.connect(name, *mode)
            }
            Action::Connect { mode, name } => self.connect(name, *mode),
            Action::Sleep(duration) => {
                std::thread::sleep(*duration);
                Ok(())
            }
        }
    }

    fn send_payload(&mut self, name: &str, send: &Send) -> Result<(), Failure> {
        let deadline = self.deadline();
        let captures = self.captures.clone();
        let mut sent = Sent::default();
        let connection = self.connection(name)?;
        let files =
            open_files(send.descriptors).map_err(|error| Failure::Unexpected(error.to_string()))?;
        let files: Vec<_> = files.iter().map(AsFd::as_fd).collect();
        let mut descriptors = files.as_slice();
        let outcome = send.payload.for_each_block(
            |text| fill_in(text, &captures),
            |block| {
                sent.add(block);
                for chunk in block.chunks(send.chunk.unwrap_or(usize::MAX)) {
                    connection.send(chunk, descriptors, deadline)?;
                    descriptors = &[];
                    std::thread::sleep(send.pause);
                }
                Ok(())
            },
        );
        self.sent = sent;
        outcome
    }

    /// The next message, which is like one of these.
    fn expect(&mut self, name: &str, alternatives: &[Json]) -> Result<Message, Failure> {
        let wanted = || either(alternatives.iter().map(|value| shown(&value.to_string())));
        let message = self.receive(name).map_err(|failure| instead_of(wanted(), failure))?;
        self.check(alternatives, &message)?;
        Ok(message)
    }

    /// Compares a message with several expectations, and keeps what the first that fits has captured.
    fn check(&mut self, alternatives: &[Json], message: &Message) -> Result<(), Failure> {
        let wanted = || either(alternatives.iter().map(|value| shown(&value.to_string())));
        let value = message.json().map_err(|failure| instead_of(wanted(), failure))?;
        let mut first_mismatch = None;
        for expected in alternatives {
            let mut trial = self.captures.clone();
            match match_value(expected, &value, &mut trial) {
                Ok(()) => {
                    self.captures = trial;
                    return Ok(());
                }
                Err(mismatch) => first_mismatch = first_mismatch.or(Some(mismatch)),
            }
        }
        let why = first_mismatch.map(|mismatch| format!(" ({mismatch})")).unwrap_or_default();
        unexpected(format!("expected {}, received {}{why}", wanted(), shown(&message.text)))
    }

    fn expect_event(&mut self, name: &str, members: &[(String, Json)]) -> Result<(), Failure> {
        let timestamp =
            ["seconds", "microseconds"].map(|unit| (unit.to_owned(), Json::from("<int>")));
        let mut expected = vec![("timestamp".to_owned(), Json::Object(timestamp.into()))];
        expected.extend_from_slice(members);
        let message = self.expect(name, &[Json::Object(expected)])?;
        let microseconds =
            message.json()?.get("timestamp").and_then(|stamp| stamp.get("microseconds")?.as_i64());
        match microseconds {
            Some(0..1_000_000) => Ok(()),
            _ => unexpected(format!("microseconds out of range: {}", shown(&message.text))),
        }
    }

    fn expect_interleaved(&mut self, name: &str, streams: &[Vec<Json>]) -> Result<(), Failure> {
        let mut streams: Vec<&[Json]> = streams.iter().map(Vec::as_slice).collect();
        while streams.iter().any(|stream| !stream.is_empty()) {
            let message = self.receive(name)?;
            let value = message.json()?;
            let taken = streams.iter_mut().find_map(|stream| {
                let (first, rest) = stream.split_first()?;
                match_value(first, &value, &mut self.captures).ok()?;
                *stream = rest;
                Some(())
            });
            if taken.is_none() {
                return unexpected(format!(
                    "none of the expected next messages: {}",
                    shown(&message.text)
                ));
            }
        }
        Ok(())
    }

    fn sync(&mut self, name: &str) -> Result<(), Failure> {
        self.own_commands += 1;
        let id = format!("sync-{}", self.own_commands);
        self.send(name, &format!("{{\"execute\": \"query-version\", \"id\": \"{id}\"}}\n"))?;
        let message = self.receive(name)?;
        if message.json()?.get("id").and_then(Json::as_str) != Some(&id) {
            return unexpected(format!(
                "expected nothing but the reply to {id}, received {}",
                shown(&message.text)
            ));
        }
        Ok(())
    }

    /// Runs a command for its effect and returns its result; drops events before the reply.
    fn perform(
        &mut self,
        name: &str,
        command: &[(String, Json)],
        may_fail: bool,
    ) -> Result<Option<Json>, Failure> {
        self.own_commands += 1;
        let id = Json::String(format!("do-{}", self.own_commands));
        let mut command = command.to_vec();
        command.push(("id".to_owned(), id.clone()));
        self.send(name, &Json::Object(command).to_string())?;
        let deadline = self.deadline();
        loop {
            let reply = self.connection(name)?.read_message(deadline)?.json()?;
            if reply.get("id") == Some(&id) {
                if reply.get("error").is_some() && !may_fail {
                    return unexpected(format!(
                        "command for its effect failed: {}",
                        shown(&reply.to_string())
                    ));
                }
                return Ok(reply.get("return").cloned());
            }
        }
    }

    fn perform_text(
        &mut self,
        name: &str,
        command: &str,
        may_fail: bool,
    ) -> Result<Option<Json>, Failure> {
        match Json::parse(command) {
            Ok(Json::Object(members)) => self.perform(name, &members, may_fail),
            _ => unexpected(format!("not a command: {command}")),
        }
    }

    fn execute(
        &mut self,
        name: &str,
        command: &str,
        may_fail: bool,
    ) -> Result<Option<Json>, Failure> {
        self.perform(name, &[("execute".to_owned(), Json::from(command))], may_fail)
    }

    fn bring_machine_to(&mut self, name: &str, state: MachineState) -> Result<(), Failure> {
        self.perform_text(name, DEFAULT_ACTIONS, true)?;
        self.execute(name, "system_reset", true)?;
        self.execute(name, "cont", true)?;
        let sets = self.execute(name, "query-fdsets", true)?;
        for id in sets
            .iter()
            .flat_map(|sets| sets.as_array().unwrap_or_default())
            .filter_map(|set| set.get("fdset-id"))
        {
            let command =
                format!(r#"{{"execute": "remove-fd", "arguments": {{"fdset-id": {id}}}}}"#);
            self.perform_text(name, &command, true)?;
        }
        if state != MachineState::Running {
            self.execute(name, "stop", false)?;
        }
        if state == MachineState::Prelaunch {
            self.execute(name, "system_reset", false)?;
        }
        Ok(())
    }
}

/// The longest part of the report of a failure.
const LONGEST: usize = 900;

/// A text that goes on one line with others.
fn bounded(text: String) -> String {
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

/// Returns a failure that also has what was expected.
fn instead_of(wanted: String, failure: Failure) -> Failure {
    match failure {
        Failure::Unexpected(text) => {
            Failure::Unexpected(format!("expected {wanted}, received {text}"))
        }
        unreachable @ Failure::Unreachable(_) => unreachable,
    }
}

fn open_files(count: usize) -> io::Result<Vec<File>> {
    (0..count).map(|_| OpenOptions::new().read(true).write(true).open("/dev/null")).collect()
}

fn check_raw(alternatives: &[String], message: &Message) -> Result<(), Failure> {
    if alternatives.iter().any(|expected| match_raw(expected, &message.text)) {
        return Ok(());
    }
    let wanted = alternatives.iter().map(|text| shown(text));
    unexpected(format!("expected exactly {}, received {}", either(wanted), shown(&message.text)))
}

fn either(alternatives: impl Iterator<Item = String>) -> String {
    alternatives.collect::<Vec<_>>().join(" or ")
}

/// Replaces each `${name}` by the value captured as `name`: a string by its characters, anything else by its JSON.
fn fill_in(text: &str, captures: &Captures) -> Result<String, Failure> {
    let reference =
        Regex::new(r"\$\{(\w+)\}").map_err(|error| Failure::Unexpected(error.to_string()))?;
    if let Some(missing) =
        reference.captures_iter(text).find(|groups| !captures.contains_key(&groups[1]))
    {
        return unexpected(format!("nothing was captured as '{}'", &missing[1]));
    }
    let replaced = reference.replace_all(text, |groups: &Groups<'_>| match &captures[&groups[1]] {
        Json::String(text) => text.clone(),
        value => value.to_string(),
    });
    Ok(replaced.into_owned())
}
