// SPDX-License-Identifier: MIT OR Apache-2.0
//! Eight clients of all kinds share one mux, with a real QEMU behind it, while jobs run: every answer goes to the client that
//! asked, every event to all clients, in QEMU's order.

use std::collections::HashSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, ScopedJoinHandle};
use std::time::Duration;

use qapi::qmp::{Event, blockdev_del};
use qapi::{ExecuteError, Qmp, Stream};
use tests::json::Json;
use tests::process::{Process, run};
use tests::programs::find_python;
use tests::relay::{Record, Said, without_id};
use tests::server::{Client, LIMIT, Server};
use tests::upstream::Program;

const COMMANDS: usize = 1000;
/// All of a client's commands, on a machine that is busy.
const LONG: Duration = Duration::from_secs(60);
/// The end of the last job, which ends the test.
const LAST: &str = r#"{"status": "null", "id": "last"}"#;

/// An id of every JSON type, or none. Those that can be are unique.
fn id(serial: usize) -> Option<String> {
    Some(match serial % 10 {
        0 => format!("{serial}"),
        1 => format!("-{serial}"),
        2 => format!("{serial}.5"),
        3 => format!("\"{serial}\""),
        4 => format!("[{serial}, [], \"x\"]"),
        5 => format!("{{\"serial\": {serial}}}"),
        6 => "null".to_owned(),
        7 => "true".to_owned(),
        8 => "false".to_owned(),
        _ => return None,
    })
}

/// A command whose request and answer name the client, with what is expected to come back.
fn exchange(name: &str, serial: usize) -> (String, String) {
    let object = format!("{name}-{}", serial / 4);
    let number = serial / 4;
    let (command, arguments, result) = match serial % 4 {
        0 => {
            let text = format!("The command {object} has not been found");
            let error = format!(r#""error": {{"class": "CommandNotFound", "desc": "{text}"}}"#);
            (object, String::new(), Err(error))
        }
        1 => {
            let arguments = format!(
                r#"{{"qom-type": "throttle-group", "id": "{object}", "x-iops-total": {number}}}"#
            );
            ("object-add".to_owned(), arguments, Ok("{}".to_owned()))
        }
        2 => {
            let arguments =
                format!(r#"{{"path": "/objects/{object}", "property": "x-iops-total"}}"#);
            ("qom-get".to_owned(), arguments, Ok(number.to_string()))
        }
        _ => ("object-del".to_owned(), format!(r#"{{"id": "{object}"}}"#), Ok("{}".to_owned())),
    };
    let arguments = match arguments.is_empty() {
        true => String::new(),
        false => format!(r#", "arguments": {arguments}"#),
    };
    let id = id(serial);
    let asked_id = id.as_ref().map_or(String::new(), |id| format!(r#", "id": {id}"#));
    let request = format!(r#"{{"execute": "{command}"{arguments}{asked_id}}}"#);
    let answer = match (result, id) {
        (Ok(result), Some(id)) => format!(r#"{{"return": {result}, "id": {id}}}"#),
        (Ok(result), None) => format!(r#"{{"return": {result}}}"#),
        (Err(error), Some(id)) => format!(r#"{{"id": {id}, {error}}}"#),
        (Err(error), None) => format!("{{{error}}}"),
    };
    (request, answer)
}

fn is_last(event: &Json) -> bool {
    event.get("data").is_some_and(|data| data.to_string() == LAST)
}

/// What an event of a job is about, and when it was.
fn of_job(event: &Json) -> Option<String> {
    if event.get("event")?.as_str()? != "JOB_STATUS_CHANGE" {
        return None;
    }
    let (data, at) = (event.get("data")?, event.get("timestamp")?);
    let (seconds, microseconds) = (at.get("seconds")?, at.get("microseconds")?.as_i64()?);
    let (id, status) = (data.get("id")?.as_str()?, data.get("status")?.as_str()?);
    Some(format!("{id} {status} {seconds}.{microseconds:06}"))
}

/// Counts a client among the busy ones until this is dropped, also if the client panics.
struct Busy<'a>(&'a AtomicUsize);

impl<'a> Busy<'a> {
    fn begin(clients: &'a AtomicUsize) -> Busy<'a> {
        clients.fetch_add(1, Ordering::AcqRel);
        Busy(clients)
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A client that writes down what it is told, until the last event.
struct Witness {
    client: Client,
    said: Vec<Said>,
}

impl Witness {
    fn connect(server: &Server, capabilities: &str) -> Witness {
        let mut client = server.connect();
        client.negotiate(capabilities);
        Witness { client, said: Vec::new() }
    }

    /// Reads the next message, which must be this answer or an event. Whether it was the answer.
    fn read(&mut self, request: &str, answer: Option<&str>) -> bool {
        let message = self.client.receive();
        if message.get("event").is_some() {
            self.said.push(Said::Event(message));
            return false;
        }
        assert_eq!(Some(message.to_string().as_str()), answer);
        let request = without_id(&Json::parse(request).unwrap());
        self.said.push(Said::Answer { request, answer: without_id(&message) });
        true
    }

    fn has_seen_the_last(&self) -> bool {
        self.said.iter().rev().filter_map(Said::event).any(is_last)
    }

    /// Asks `in_flight` commands at a time, then waits for the last event.
    fn talk(mut self, name: &str, in_flight: usize, busy: Busy<'_>) -> Vec<Said> {
        let exchanges: Vec<_> = (0..COMMANDS).map(|serial| exchange(name, serial)).collect();
        for exchanges in exchanges.chunks(in_flight) {
            let requests: Vec<_> = exchanges.iter().map(|(request, _)| request.as_str()).collect();
            self.client.send(&requests.concat());
            for (request, answer) in exchanges {
                while !self.read(request, Some(answer)) {}
            }
        }
        drop(busy);
        while !self.has_seen_the_last() {
            self.read("", None);
        }
        self.said
    }

    /// Runs jobs for as long as others are busy, then a last one.
    fn work(mut self, dir: &Path, busy: &AtomicUsize) -> Vec<Said> {
        let image = dir.join("image");
        let socket = dir.join("nbd.sock");
        let (image, socket) = (image.display(), socket.display());
        let start = format!(
            r#"{{"execute": "nbd-server-start", "arguments": {{"addr": {{"type": "unix", "data": {{"path": "{socket}"}}}}}}}}"#
        );
        self.do_it(&start);
        for number in 0.. {
            let is_last = busy.load(Ordering::Acquire) == 0;
            let job = if is_last { "last".to_owned() } else { format!("job-{number}") };
            let create = format!(
                r#"{{"execute": "blockdev-create", "arguments": {{"job-id": "{job}", "options": {{"driver": "file", "filename": "{image}", "size": 65536}}}}, "id": "{job}"}}"#
            );
            self.do_it(&create);
            self.wait_for(&format!(r#"{{"status": "concluded", "id": "{job}"}}"#));
            self.export(number, &image.to_string());
            self.do_it(&format!(r#"{{"execute": "job-dismiss", "arguments": {{"id": "{job}"}}}}"#));
            if is_last {
                break;
            }
        }
        assert!(self.has_seen_the_last());
        self.said
    }

    /// Exports the image, and ends that again.
    fn export(&mut self, number: usize, image: &str) {
        for (command, arguments) in [
            (
                "blockdev-add",
                format!(
                    r#"{{"driver": "file", "filename": "{image}", "node-name": "node-{number}"}}"#
                ),
            ),
            (
                "block-export-add",
                format!(
                    r#"{{"type": "nbd", "id": "export-{number}", "node-name": "node-{number}"}}"#
                ),
            ),
            ("block-export-del", format!(r#"{{"id": "export-{number}"}}"#)),
        ] {
            self.do_it(&format!(
                r#"{{"execute": "{command}", "arguments": {arguments}, "id": [{number}]}}"#
            ));
        }
        self.wait_for(&format!(r#"{{"id": "export-{number}"}}"#));
        self.do_it(&format!(
            r#"{{"execute": "blockdev-del", "arguments": {{"node-name": "node-{number}"}}}}"#
        ));
    }

    fn do_it(&mut self, request: &str) {
        self.client.send(request);
        let id = Json::parse(request).unwrap().get("id").map(|id| format!(r#", "id": {id}"#));
        let answer = format!(r#"{{"return": {{}}{}}}"#, id.unwrap_or_default());
        while !self.read(request, Some(&answer)) {}
    }

    /// Reads until an event with this data has come, if it has not.
    fn wait_for(&mut self, data: &str) {
        let fits =
            |event: &Json| event.get("data").is_some_and(|actual| actual.to_string() == data);
        while !self.said.iter().rev().filter_map(Said::event).any(fits) {
            self.read("", None);
        }
    }
}

/// The client from crates.io.
type QapiClient = Qmp<Stream<BufReader<UnixStream>, UnixStream>>;

fn connect_qapi(socket: &Path) -> QapiClient {
    let reader = UnixStream::connect(socket).unwrap();
    reader.set_read_timeout(Some(LIMIT)).unwrap();
    let writer = reader.try_clone().unwrap();
    let mut client = Qmp::new(Stream::new(BufReader::new(reader), writer));
    client.handshake().unwrap();
    client
}

/// Hands out the events of jobs, whose time this client does not tell.
fn talk_qapi(mut client: QapiClient, name: &str, busy: Busy<'_>) -> Vec<String> {
    for serial in 0..COMMANDS {
        let node_name = format!("{name}-{serial}");
        let expected = format!("Failed to find node with node-name='{node_name}'");
        match client.execute(&blockdev_del { node_name }) {
            Err(ExecuteError::Qapi(error)) => assert_eq!(error.desc, expected),
            other => panic!("not an error response: {other:?}"),
        }
    }
    drop(busy);
    let mut seen: Vec<String> = Vec::new();
    while seen.last().is_none_or(|event| event != "last null") {
        client.nop().unwrap();
        seen.extend(client.events().filter_map(|event| match event {
            Event::JOB_STATUS_CHANGE { data, .. } => Some(format!("{} {:?}", data.id, data.status)),
            _ => None,
        }));
    }
    seen
}

/// QEMU's own client, in a process of its own.
struct PythonClient {
    process: Process,
    stdout: BufReader<ChildStdout>,
}

/// `None` if it is not installed.
fn connect_python(socket: &Path, name: &str) -> Option<PythonClient> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/interop/mux_client.py");
    let mut command = Command::new(find_python("python")?);
    command.arg(script).arg(socket).args([name, &COMMANDS.to_string()]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut process = Process::start(&mut command).unwrap();
    let mut stdout = BufReader::new(process.child().stdout.take().unwrap());
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n", "{}", process.stderr());
    Some(PythonClient { process, stdout })
}

/// Has it begin, and hands out the events of jobs.
fn talk_python(client: PythonClient, busy: Busy<'_>) -> Vec<String> {
    let PythonClient { mut process, mut stdout } = client;
    process.child().stdin.take().unwrap().write_all(b"go\n").unwrap();
    let mut output = String::new();
    // Whatever the first event: then it has asked all.
    stdout.read_line(&mut output).unwrap();
    drop(busy);
    stdout.read_to_string(&mut output).unwrap();
    let status = process.wait(LONG).unwrap();
    assert!(status.is_some_and(|status| status.success()), "{}", process.stderr());
    output.lines().map(str::to_owned).collect()
}

/// QEMU's shell, which prints answers only.
fn talk_shell(shell: &Path, socket: &Path, home: &Path, name: &str) {
    let input: String =
        (0..COMMANDS).map(|serial| format!("blockdev-del node-name={name}-{serial}\n")).collect();
    // The shell writes a history file into the home directory.
    let mut command = Command::new(shell);
    let finished = run(command.arg(socket).env("HOME", home), &input, LONG).unwrap();
    assert!(finished.status.success(), "{}", finished.stderr);
    let answers: Vec<_> =
        finished.stdout.lines().filter(|line| line.contains("Failed to find node")).collect();
    assert_eq!(answers.len(), COMMANDS, "{}", finished.stdout);
    for (serial, answer) in answers.into_iter().enumerate() {
        assert!(answer.contains(&format!("node-name='{name}-{serial}'")), "{answer}");
    }
}

/// What the server has said that this client was to hear: all events, and the answers to what names it.
fn heard_by(name: &str, said: &[Said]) -> Vec<Said> {
    let own = |request: &Json| request.to_string().contains(&format!("{name}-"));
    said.iter().filter(|said| said.request().is_none_or(own)).cloned().collect()
}

fn join<T>(thread: ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

#[track_caller]
fn check(program: Program) {
    let dir = tempfile::Builder::new().prefix("qmp-mux-").tempdir().unwrap();
    let Some(_upstream) = program.start_in(dir.path()) else { return };
    let record =
        Record::start(&dir.path().join("front.sock"), &dir.path().join("upstream.sock")).unwrap();
    let arguments = ["mux", "--upstream", "unix:front.sock", "--listen", "unix:{sock}"];
    let server = Server::start_in(dir, arguments);
    let socket: PathBuf = server.socket();

    let raw = [("one", "{}", 1), ("many", "{}", 50), ("oob", r#"{"enable": ["oob"]}"#, 8)];
    let raw = raw.map(|(name, capabilities, in_flight)| {
        (name, Witness::connect(&server, capabilities), in_flight)
    });
    let qapis = ["qapi1", "qapi2"].map(|name| (name, connect_qapi(&socket)));
    let pythons: Vec<_> =
        ["python1", "python2"].iter().filter_map(|name| connect_python(&socket, name)).collect();
    let shell = find_python("qmp-shell");
    let worker = Witness::connect(&server, "{}");
    let busy = AtomicUsize::new(0);
    thread::scope(|scope| {
        let (busy, server) = (&busy, &server);
        let of_shell = Busy::begin(busy);
        let witnesses = raw.map(|(name, witness, in_flight)| {
            let busy = Busy::begin(busy);
            scope.spawn(move || (name, witness.talk(name, in_flight, busy)))
        });
        let qapis = qapis.map(|(name, client)| {
            let busy = Busy::begin(busy);
            scope.spawn(move || talk_qapi(client, name, busy))
        });
        let pythons: Vec<_> = pythons
            .into_iter()
            .map(|client| {
                let busy = Busy::begin(busy);
                scope.spawn(move || talk_python(client, busy))
            })
            .collect();
        let worker = scope.spawn(move || worker.work(server.dir(), busy));
        if let Some(shell) = shell {
            talk_shell(&shell, &socket, server.dir(), "shell");
        }
        drop(of_shell);

        let by_worker = join(worker);
        let said = record.said();
        let of_jobs: Vec<_> = said.iter().filter_map(Said::event).filter_map(of_job).collect();
        assert!(of_jobs.len() > 10, "{of_jobs:?}");
        for witness in witnesses {
            let (name, heard) = join(witness);
            assert_same(name, &heard, &heard_by(name, &record.said()));
        }
        let asked: HashSet<_> = by_worker.iter().filter_map(Said::request).collect();
        assert!(asked.len() > 6);
        let to_worker = |said: &&Said| said.request().is_none_or(|request| asked.contains(request));
        let to_worker: Vec<_> = said.iter().filter(to_worker).cloned().collect();
        assert_same("worker", &by_worker, &to_worker);
        let untimed: Vec<_> =
            of_jobs.iter().filter_map(|event| Some(event.rsplit_once(' ')?.0)).collect();
        for seen in qapis.map(join) {
            assert_eq!(seen, untimed);
        }
        for seen in pythons.into_iter().map(join) {
            assert_eq!(seen, of_jobs);
        }
    });
}

/// Compares transcripts, and says where they part.
#[track_caller]
fn assert_same(name: &str, heard: &[Said], said: &[Said]) {
    let differs = heard.iter().zip(said).position(|(heard, said)| heard != said);
    if let Some(at) = differs {
        panic!("{name} has heard, from message {at} on, {:?}, not {:?}", &heard[at..], &said[at..]);
    }
    assert_eq!(heard.len(), said.len(), "{name}");
}

#[test]
fn eight_clients_share_a_storage_daemon_that_runs_jobs() {
    check(Program::StorageDaemon);
}

#[test]
fn eight_clients_share_an_emulator_that_runs_jobs() {
    check(Program::Emulator);
}
