// SPDX-License-Identifier: MIT OR Apache-2.0
//! A client, without its socket: reads what QEMU 10.0 said in one session, however it was cut into pieces.

use std::collections::BTreeMap;
use std::error::Error;

use qmp_proto::{ErrorClass, Reader, Request, ServerMessage, Value};

const STREAM: &[u8] = include_bytes!("stream.qmp");

/// What a client remembers of a session.
#[derive(Debug, Default, PartialEq)]
struct Session {
    version: String,
    results: usize,
    errors: Vec<ErrorClass>,
    events: Vec<String>,
    by_id: BTreeMap<String, String>,
}

impl Session {
    fn take(&mut self, message: ServerMessage) {
        match message {
            ServerMessage::Greeting(greeting) => self.version = greeting.version.to_string(),
            ServerMessage::Event(event) => self.events.push(event.name.into_owned()),
            ServerMessage::Response(response) => {
                match &response.result {
                    Ok(_) => self.results += 1,
                    Err(error) => self.errors.push(error.class),
                }
                if let (Some(Value::String(id)), Ok(json)) = (response.id, response.result) {
                    self.by_id.insert(id, json.as_str().to_owned());
                }
            }
        }
    }
}

fn replay(pieces: std::slice::Chunks<'_, u8>) -> Result<Session, Box<dyn Error>> {
    let mut reader = Reader::default();
    let mut session = Session::default();
    for mut piece in pieces {
        while let Some(message) = reader.read(&mut piece) {
            session.take(ServerMessage::parse(&message?)?);
        }
    }
    assert!(reader.is_idle(), "the stream ends with a whole message");
    Ok(session)
}

fn main() -> Result<(), Box<dyn Error>> {
    let session = replay(STREAM.chunks(STREAM.len()))?;
    assert!(session.version.starts_with("10.0.2"), "{}", session.version);
    assert_eq!(session.results, 7);
    assert_eq!(
        session.errors,
        [ErrorClass::CommandNotFound, ErrorClass::GenericError, ErrorClass::GenericError]
    );
    assert_eq!(session.events, ["RESUME", "STOP", "SHUTDOWN"]);
    assert_eq!(session.by_id["jobs"], "[]");
    for length in 1..=17 {
        assert_eq!(replay(STREAM.chunks(length))?, session, "in pieces of {length} bytes");
    }

    let mut asked = String::new();
    Request::new("query-status").write(&mut asked);
    assert_eq!(asked, "{\"execute\": \"query-status\"}\r\n");
    println!("QEMU {}: {} results", session.version, session.results);
    Ok(())
}
