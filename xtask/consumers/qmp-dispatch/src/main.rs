// SPDX-License-Identifier: MIT OR Apache-2.0
//! Commands without a server: called by the program itself, and served over a transport of its own,
//! which is a pair of channels here.

use std::error::Error;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;

use qmp_dispatch::proto::{
    Error as QmpError, Layout, Reader, ServerMessage, Version, VersionTriple,
};
use qmp_dispatch::{Context, Dispatcher, EmitError, EventType, Locals, Output, Registry, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[derive(Deserialize, JsonSchema)]
struct SetSpeed {
    rpm: u16,
}

#[derive(Serialize, JsonSchema)]
struct FanInfo {
    rpm: u16,
}

const FAN_STOPPED: EventType<()> = EventType::new("FAN_STOPPED");

#[derive(Default)]
struct Fan(Mutex<u16>);

impl Fan {
    fn set_speed(&self, context: &Context, new: SetSpeed) -> Result<(), EmitError> {
        *self.0.lock().unwrap() = new.rpm;
        if new.rpm == 0 {
            context.emit(&FAN_STOPPED, &())?;
        }
        Ok(())
    }

    fn query(&self, _: &Context) -> Result<FanInfo, QmpError> {
        Ok(FanInfo { rpm: *self.0.lock().unwrap() })
    }
}

fn dispatcher(fan: &Arc<Fan>) -> Result<Dispatcher, Box<dyn Error>> {
    let mut registry = Registry::new();
    registry.event(&FAN_STOPPED)?;
    let mut commands = registry.with(Arc::clone(fan));
    commands.command("fan-set-speed", Fan::set_speed)?;
    commands.command("query-fan", Fan::query)?;
    let qemu = VersionTriple { major: 1, minor: 2, micro: 3 };
    Ok(Dispatcher::new(registry, Version { qemu, package: "fan".into() }, Time::default))
}

/// What the monitor says is kept as text.
#[derive(Default)]
struct Screen(Mutex<String>);

impl Output for Screen {
    fn transmit(&self, text: &str) {
        self.0.lock().unwrap().push_str(text);
    }
}

/// The program calls its own commands.
fn in_process(dispatcher: &Dispatcher, input: &str) -> Vec<String> {
    let screen = Arc::new(Screen::default());
    let monitor = dispatcher.connect(screen.clone(), Layout::Compact, Locals::default());
    let mut reader = Reader::default();
    let mut input = input.as_bytes();
    while let Some(message) = reader.read(&mut input) {
        monitor.execute(monitor.receive(message), || ());
    }
    let said = screen.0.lock().unwrap();
    said.lines().skip(1).map(str::to_owned).collect()
}

/// What the monitor says is sent to somebody else.
struct Wire(Sender<Vec<u8>>);

impl Output for Wire {
    fn transmit(&self, text: &str) {
        // Whoever has gone away does not want to know.
        let _ = self.0.send(text.into());
    }
}

/// Serves one client until it goes away. Packets are not messages: these may be cut anywhere.
fn serve(dispatcher: &Dispatcher, requests: &Receiver<Vec<u8>>, responses: Sender<Vec<u8>>) {
    let monitor = dispatcher.connect(Arc::new(Wire(responses)), Layout::Compact, Locals::default());
    let mut reader = Reader::default();
    while let Ok(packet) = requests.recv() {
        let mut input: &[u8] = &packet;
        while let Some(message) = reader.read(&mut input) {
            monitor.execute(monitor.receive(message), || ());
        }
    }
}

fn over_channels(
    dispatcher: Dispatcher,
    session: &str,
) -> Result<Vec<ServerMessage>, Box<dyn Error>> {
    let (send, requests) = channel();
    let (responses, receive) = channel();
    let server = thread::spawn(move || serve(&dispatcher, &requests, responses));
    for packet in session.as_bytes().chunks(5) {
        send.send(packet.to_vec())?;
    }
    drop(send);
    server.join().expect("serving does not panic");
    let said: Vec<u8> = receive.into_iter().flatten().collect();
    let (mut reader, mut input) = (Reader::default(), &said[..]);
    let mut messages = Vec::new();
    while let Some(message) = reader.read(&mut input) {
        messages.push(ServerMessage::parse(&message?)?);
    }
    Ok(messages)
}

const SESSION: &str = "{'execute': 'qmp_capabilities'}
    {'execute': 'fan-set-speed', 'arguments': {'rpm': 900}, 'id': 1}
    {'execute': 'fan-set-speed', 'arguments': {'rpm': 'fast'}, 'id': 2}
    {'execute': 'query-fan', 'id': 3}
    {'execute': 'fan-set-speed', 'arguments': {'rpm': 0}, 'id': 4}";

fn main() -> Result<(), Box<dyn Error>> {
    let fan = Arc::new(Fan::default());
    let dispatcher = dispatcher(&fan)?;
    let said = in_process(&dispatcher, SESSION);
    assert_eq!(said[..2], [r#"{"return": {}}"#, r#"{"return": {}, "id": 1}"#]);
    assert!(said[2].contains("Parameter 'rpm' expects uint64"), "{said:?}");
    assert_eq!(said[3], r#"{"return": {"rpm": 900}, "id": 3}"#);
    assert!(said[4].contains("FAN_STOPPED"), "{said:?}");
    assert_eq!(said[5], r#"{"return": {}, "id": 4}"#);
    assert_eq!(*fan.0.lock().unwrap(), 0);

    let messages = over_channels(dispatcher, SESSION)?;
    let [ServerMessage::Greeting(greeting), rest @ ..] = &messages[..] else {
        panic!("no greeting: {messages:?}");
    };
    assert_eq!(greeting.version.to_string(), "1.2.3 (fan)");
    let succeeded = |message: &&ServerMessage| matches!(message, ServerMessage::Response(response) if response.result.is_ok());
    assert_eq!(rest.len(), 6, "five responses and an event");
    assert_eq!(rest.iter().filter(succeeded).count(), 4);
    println!("{} messages", messages.len());
    Ok(())
}
