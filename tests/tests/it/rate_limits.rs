// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which events QEMU limits to one in a second, and which of them it limits separately, as recorded in
//! `conformance/rate-limits.jsonl`.
//!
//! QEMU's test protocol drives the devices that send the events, as a guest would. There, time is QEMU's own, so nothing
//! depends on the load of the machine. Debian builds QEMU 10.0 without the accelerator for that; its behaviour was recorded
//! with real time, and is the same.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

use qmp_proto::Dialect;
use tempfile::TempDir;
use tests::conformance::matching::{Captures, match_value};
use tests::endpoint::Endpoint;
use tests::json::Json;
use tests::process::Process;
use tests::programs::Oracle;
use tests::server::{Client, LIMIT};
use tests::waiting::retry;

const RECORDED: &str = include_str!("../../conformance/rate-limits.jsonl");
const MILLISECOND: u64 = 1_000_000;

/// QEMU, stopped in time, with its monitor and its test protocol.
struct Machine {
    monitor: Client,
    devices: BufReader<UnixStream>,
    /// Events that the test has not taken yet.
    events: Vec<Json>,
    _process: Process,
    _dir: TempDir,
}

impl Machine {
    /// Starts QEMU; `None` if the calling test is to be skipped.
    fn start(recorded: &Json) -> Option<Self> {
        let program = Oracle::of(Dialect::Qemu11_1).program("qemu-system-x86_64")?;
        let dir = tempfile::tempdir().unwrap();
        if let Some(Json::Object(files)) = recorded.get("files") {
            for (name, letter) in files {
                fs::write(dir.path().join(name), letter.as_str().unwrap().repeat(65_536)).unwrap();
            }
        }
        let [monitor, devices] = ["monitor", "devices"].map(|name| dir.path().join(name));
        let listen = |path: &std::path::Path| format!("unix:{},server=on,wait=off", path.display());
        let mut command = Command::new(program);
        command.args(["-accel", "qtest", "-display", "none", "-nodefaults"]);
        command.args(["-action", "watchdog=none", "-qtest-log", "none"]);
        command.args(["-qtest", &listen(&devices), "-qmp", &listen(&monitor)]);
        let place = dir.path().display().to_string();
        command.args(texts(recorded, "arguments").map(|text| text.replace("{dir}", &place)));
        let process = Process::start(command.stdin(Stdio::null()).stdout(Stdio::null())).unwrap();
        let devices = BufReader::new(retry(LIMIT, || UnixStream::connect(&devices)).unwrap());
        devices.get_ref().set_read_timeout(Some(LIMIT)).unwrap();
        let mut monitor = Client::connect(&Endpoint::Unix(monitor));
        assert!(monitor.receive().get("QMP").is_some());
        let mut machine =
            Self { monitor, devices, events: Vec::new(), _process: process, _dir: dir };
        // The machine may be started only now, which is an event.
        machine.execute(r#"{"execute": "qmp_capabilities"}"#);
        Some(machine)
    }

    /// Does something that a guest could do, or runs a command.
    fn cause(&mut self, line: &str) {
        if line.starts_with('{') {
            return self.execute(line);
        }
        writeln!(self.devices.get_ref(), "{line}").unwrap();
        let mut answer = String::new();
        while !answer.starts_with("OK") {
            answer.clear();
            assert_ne!(self.devices.read_line(&mut answer).unwrap(), 0);
            assert!(!answer.starts_with("FAIL") && !answer.starts_with("ERR"), "{line}: {answer}");
        }
    }

    fn pass(&mut self, milliseconds: u64) {
        self.cause(&format!("clock_step {}", milliseconds * MILLISECOND));
    }

    /// Runs a command. All earlier events come before its reply.
    fn execute(&mut self, command: &str) {
        self.monitor.send(command);
        loop {
            let message = self.monitor.receive();
            if message.get("event").is_none() {
                assert!(message.get("return").is_some(), "{command}: {message}");
                return;
            }
            self.events.push(message);
        }
    }

    /// The data of all events of this name that have been sent since the last time.
    fn take(&mut self, name: &str) -> Vec<Json> {
        self.execute(r#"{"execute": "query-name"}"#);
        let mut events = std::mem::take(&mut self.events);
        events.retain(|event| event.get("event").and_then(Json::as_str) == Some(name));
        events.iter().map(|event| event.get("data").unwrap().clone()).collect()
    }
}

fn texts<'j>(recorded: &'j Json, name: &str) -> impl Iterator<Item = &'j str> {
    array(recorded, name).iter().map(|text| text.as_str().unwrap())
}

fn array<'j>(recorded: &'j Json, name: &str) -> &'j [Json] {
    recorded.get(name).and_then(Json::as_array).unwrap()
}

/// The data of the events must be as recorded, where `<int>` stands for what depends on real time.
#[track_caller]
fn check(event: &str, when: &str, taken: Vec<Json>, expected: &[Json]) {
    let (taken, expected) = (Json::Array(taken), Json::Array(expected.to_vec()));
    let outcome = match_value(&expected, &taken, &mut Captures::new());
    assert_eq!(outcome, Ok(()), "{event}, {when}: {taken}");
}

#[test]
fn qemu_limits_events_as_recorded() {
    for line in RECORDED.lines() {
        let recorded = Json::parse(line).unwrap();
        let event = recorded.get("event").and_then(Json::as_str).unwrap();
        let Some(mut machine) = Machine::start(&recorded) else { return };
        texts(&recorded, "setup").for_each(|line| machine.cause(line));
        machine.take(event);
        for causes in array(&recorded, "causes") {
            let lines = causes.as_array().unwrap();
            lines.iter().for_each(|line| machine.cause(line.as_str().unwrap()));
        }
        check(event, "at once", machine.take(event), array(&recorded, "at_once"));
        machine.pass(999);
        assert!(machine.take(event).is_empty(), "{event}, within the second");
        machine.pass(2);
        let after = array(&recorded, "after_a_second");
        check(event, "after a second", machine.take(event), after);
        machine.pass(1001);
        assert!(machine.take(event).is_empty(), "{event}, the next second");
    }
}
