// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whoever sends a large message waits for it to be parsed, and nobody else does. Alone in its process, for what listens to
//! trace points listens to all.

use std::fmt;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use qmp_dispatch::proto::{Error, Layout};
use qmp_dispatch::{Context, Dispatcher, Registry};
use qmp_server::{Server, ServerHandle, system_time, version};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

/// Nothing takes so long.
const LIMIT: Duration = Duration::from_secs(30);

/// Where a large message is being parsed, tells so and waits for a word.
struct Gate {
    began: Sender<()>,
    go_on: Mutex<Receiver<()>>,
}

struct Size(usize);

impl Visit for Size {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "request" {
            self.0 = format!("{value:?}").len();
        }
    }
}

impl Subscriber for Gate {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.name() == "handle_qmp_command"
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut size = Size(0);
        event.record(&mut size);
        if size.0 > 100_000 {
            self.began.send(()).unwrap();
            self.go_on.lock().unwrap().recv().unwrap();
        }
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

struct Client(BufReader<UnixStream>);

impl Client {
    fn new(server: &ServerHandle) -> Client {
        let (near, far) = UnixStream::pair().unwrap();
        far.set_read_timeout(Some(LIMIT)).unwrap();
        server.control().serve(Box::new(near), Layout::Compact).unwrap();
        let mut client = Client(BufReader::new(far));
        client.send("{'execute': 'qmp_capabilities', 'arguments': {'enable': ['oob']}}");
        client.expect("QMP");
        client.expect("return");
        client
    }

    fn send(&self, text: &str) {
        self.0.get_ref().write_all(text.as_bytes()).unwrap();
    }

    #[track_caller]
    fn expect(&mut self, text: &str) {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        assert!(line.contains(text), "no {text} in {line}");
    }
}

#[test]
fn a_large_message_holds_up_its_own_client_only() {
    let ((tell, began), (go_on, word)) = (channel(), channel());
    tracing::subscriber::set_global_default(Gate { began: tell, go_on: Mutex::new(word) }).unwrap();
    let mut registry = Registry::new();
    let length = |_: &Context, arguments: Text| Ok::<_, Error>(arguments.text.len() as u64);
    registry.command("x-length", length).unwrap().allow_oob();
    let dispatcher = Dispatcher::new(registry, version(), system_time);
    let server = Server::new(dispatcher).stay().spawn().unwrap();
    let (mut large, mut small) = (Client::new(&server), Client::new(&server));
    let text = "x".repeat(150_000);
    for execute in ["execute", "exec-oob"] {
        let request = |id, text: &str| {
            format!(
                "{{'{execute}': 'x-length', 'id': '{id}', 'arguments': {{'text': '{text}'}}}}\n"
            )
        };
        let sender = large.0.get_ref().try_clone().unwrap();
        let messages = request("large", &text) + &request("next", "y");
        let sending = std::thread::spawn(move || (&sender).write_all(messages.as_bytes()).unwrap());
        began.recv().unwrap();
        small.send(&request("small", "zz"));
        small.expect(r#"{"return": 2, "id": "small"}"#);
        let mut newcomer = Client::new(&server);
        newcomer.send(&request("new", "zzz"));
        newcomer.expect(r#"{"return": 3, "id": "new"}"#);
        go_on.send(()).unwrap();
        large.expect(r#"{"return": 150000, "id": "large"}"#);
        large.expect(r#"{"return": 1, "id": "next"}"#);
        sending.join().unwrap();
    }
    // However many clients of one user send some: they are parsed one at a time.
    let many: Vec<Client> = (0..20).map(|_| Client::new(&server)).collect();
    let request = format!("{{'execute': 'x-length', 'arguments': {{'text': '{text}'}}}}");
    let sending: Vec<_> = many
        .iter()
        .map(|client| {
            let (socket, request) = (client.0.get_ref().try_clone().unwrap(), request.clone());
            std::thread::spawn(move || (&socket).write_all(request.as_bytes()).unwrap())
        })
        .collect();
    sending.into_iter().for_each(|sending| sending.join().unwrap());
    began.recv().unwrap();
    for _ in 0..3 {
        small.send("{'execute': 'x-length', 'arguments': {'text': 'z'}}");
        small.expect(r#"{"return": 1}"#);
    }
    assert!(began.try_recv().is_err(), "a second one is parsed");
    many.iter().for_each(|_| go_on.send(()).unwrap());
    for mut client in many {
        client.expect(r#"{"return": 150000}"#);
    }
    (0..19).for_each(|_| began.recv().unwrap());
    // Who leaves meanwhile takes nothing with it, and neither does a server that ends.
    let leaving = Client::new(&server);
    leaving.send(&format!("{{'execute': 'x-length', 'arguments': {{'text': '{text}'}}}}"));
    began.recv().unwrap();
    drop(leaving);
    small.send("{'execute': 'x-length', 'arguments': {'text': 'z'}}");
    small.expect(r#"{"return": 1}"#);
    server.control().shutdown();
    go_on.send(()).unwrap();
    server.wait();
}

#[derive(serde::Deserialize, schemars::JsonSchema)]
struct Text {
    text: String,
}
