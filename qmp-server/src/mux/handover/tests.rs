// SPDX-License-Identifier: MIT OR Apache-2.0
use std::io::{BufRead, BufReader, IoSlice, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, IntoRawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

use qmp_dispatch::Dispatcher;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use tempfile::TempDir;

use super::{Frozen, Handover};
use crate::{Address, Discipline, Engine, Limits, Listen, Mux, Server, system_time, version};

/// Nothing takes so long.
const LIMIT: Duration = Duration::from_secs(30);

/// One end of a connection.
struct Lines(BufReader<UnixStream>);

impl Lines {
    fn new(stream: UnixStream) -> Lines {
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        Lines(BufReader::new(stream))
    }

    fn send(&mut self, text: &str) {
        self.0.get_mut().write_all(text.as_bytes()).unwrap();
    }

    fn send_with_descriptor(&mut self, text: &str) {
        let file = std::fs::File::open("/dev/null").unwrap();
        let descriptors = [file.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
        let text = [IoSlice::new(text.as_bytes())];
        sendmsg(self.0.get_ref(), &text, &mut ancillary, SendFlags::empty()).unwrap();
    }

    /// The next line must have this in it.
    #[track_caller]
    fn expect(&mut self, text: &str) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        assert!(!line.is_empty() && line.contains(text), "{text} is not in: {line}");
        line
    }

    /// The next request must be for this command, and is answered.
    #[track_caller]
    fn answer(&mut self, command: &str) -> String {
        let request = self.expect(command);
        self.answer_to(&request, "{}");
        request
    }

    fn answer_to(&mut self, request: &str, result: &str) {
        let (_, id) = request.rsplit_once(r#""id":"#).unwrap();
        let id = id.trim_end();
        self.send(&format!("{{\"return\": {result}, \"id\": {id}\r\n"));
    }
}

struct Site {
    folder: TempDir,
    listener: UnixListener,
    limits: Limits,
}

/// A mux at work.
struct Running {
    engine: Engine,
    mux: Mux,
}

impl Site {
    fn new() -> Site {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("upstream.sock")).unwrap();
        Site { folder, listener, limits: Limits::default() }
    }

    fn address(&self, name: &str) -> Address {
        Address::Unix(self.folder.path().join(name))
    }

    fn run(&self, handover: Option<&mut Handover>) -> Running {
        let engine = Engine::new().unwrap();
        let mux = Mux::new(self.address("upstream.sock").into()).unwrap();
        let dispatcher = Dispatcher::new(mux.registry().unwrap(), version(), system_time);
        let server = Server::new(dispatcher)
            .discipline(Discipline::OnePerMonitor)
            .limits(self.limits)
            .dialect_of_greeting();
        let server = match handover {
            Some(handover) => handover.resume(&mux, server),
            None => server,
        };
        let server = server.listen(&Listen::new(self.address("qmp.sock"))).unwrap();
        mux.serve_on(&engine, server).unwrap();
        Running { engine, mux }
    }

    fn start(&self) -> (Running, Lines) {
        let running = self.run(None);
        let mut upstream = Lines::new(self.listener.accept().unwrap().0);
        let version = r#"{"qemu": {"micro": 0, "minor": 1, "major": 11}, "package": ""}"#;
        upstream.send(&format!(
            "{{\"QMP\": {{\"version\": {version}, \"capabilities\": [\"oob\"]}}}}\r\n"
        ));
        upstream.answer("qmp_capabilities");
        (running, upstream)
    }

    fn client(&self, oob: bool) -> Lines {
        let path = self.folder.path().join("qmp.sock");
        // It listens once the upstream server has greeted.
        let mut client = Lines::new(UnixStream::connect(path).unwrap());
        client.expect("QMP");
        let enable = if oob { r#", "arguments": {"enable": ["oob"]}"# } else { "" };
        client.send(&format!(r#"{{"execute": "qmp_capabilities"{enable}}}"#));
        client.expect("return");
        client
    }

    /// The other program, in this one. The first stands still for ever.
    fn hand_over(&self, running: Running) -> Running {
        let frozen = freeze(&running);
        let socket = frozen.sockets()[0].try_clone_to_owned().unwrap().into_raw_fd();
        std::mem::forget((running, frozen));
        self.run(Some(&mut Handover::receive(&[socket]).unwrap()))
    }
}

fn freeze(running: &Running) -> Frozen {
    Handover::freeze(&running.engine, [&running.mux], &[], LIMIT, "").unwrap()
}

#[test]
fn what_is_under_way_goes_on() {
    let site = Site::new();
    let (mut running, mut upstream) = site.start();
    let (mut client, mut other) = (site.client(true), site.client(false));
    client.send_with_descriptor(r#"{"execute": "getfd", "arguments": {"fdname": "tap"}, "id": 0}"#);
    let named = upstream.answer("getfd");
    client.expect(r#""id": 0"#);
    for round in 0..3 {
        client.send(r#"{"execute": "first", "id": [1]} {"execute": "second", "id": 2}"#);
        client.send(r#"{'execute': 'third', 'arguments': {'x': "é"}, 'id': 3} {'exec"#);
        other.send(r#"{"execute": "fourth", "id": "four"} {"execute": "fifth"}"#);
        let mut requests = [upstream.expect("execute"), upstream.expect("execute")];
        requests.sort();
        let [first, fourth] = requests;
        assert!(first.contains("first") && fourth.contains("fourth"));
        running = site.hand_over(running);
        upstream.answer_to(&fourth, "4");
        other.expect(r#"{"return": 4, "id": "four"}"#);
        upstream.answer("fifth");
        other.expect(r#"{"return": {}}"#);
        // It is with the second program before the first one is answered.
        client.send(r#"-oob': 'urgent', 'id': 9}"#);
        upstream.send(
            "{\"event\": \"STOP\", \"timestamp\": {\"seconds\": 1, \"microseconds\": 2}}\r\n",
        );
        client.expect("STOP");
        other.expect("STOP");
        upstream.answer("urgent");
        client.expect(r#""id": 9"#);
        upstream.answer_to(&first, "1");
        client.expect(r#"{"return": 1, "id": [1]}"#);
        upstream.answer("second");
        client.expect(r#""id": 2"#);
        let third = upstream.answer("third");
        assert!(
            third.contains(r#"{"x":"\u00e9"}"#) || third.contains(r#"{"x": "\u00E9"}"#),
            "{third}"
        );
        client.expect(r#""id": 3"#);
        site.client(round == 0);
    }
    client.send(r#"{"execute": "closefd", "arguments": {"fdname": "tap"}}"#);
    let closed = upstream.answer("closefd");
    let name = |request: &str| {
        let (_, rest) = request.split_once("mux-").unwrap();
        rest.split_once('"').unwrap().0.to_owned()
    };
    assert_eq!(name(&closed), name(&named));
    client.expect("return");
    drop(running);
}

#[test]
fn nobody_notices_if_there_is_no_other_program() {
    let site = Site::new();
    let (running, mut upstream) = site.start();
    let mut client = site.client(false);
    client.send(r#"{"execute": "first", "id": 1} {"execute": "second", "id": 2}"#);
    let first = upstream.expect("first");
    drop(freeze(&running));
    upstream.answer_to(&first, "1");
    client.expect(r#"{"return": 1, "id": 1}"#);
    upstream.answer("second");
    client.expect(r#""id": 2"#);
    site.client(true);
}
