// SPDX-License-Identifier: MIT OR Apache-2.0
//! A relay between a client and a QMP server that records the server's messages and changes nothing.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use crate::json::Json;
use crate::server::LIMIT;
use crate::waiting::retry;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// An event: all of it.
    Event(Json),
    Answer {
        /// The request, without its id.
        request: Json,
        /// The answer, without its id.
        answer: Json,
    },
}

impl Said {
    /// What a message says that answers one of these requests, which wait for answers by their ids, or none.
    pub fn new(message: &Json, waiting: &mut HashMap<Option<Json>, Json>) -> Said {
        if message.get("event").is_some() {
            return Said::Event(message.clone());
        }
        let id = message.get("id").cloned();
        let request = waiting.remove(&id).unwrap_or_else(|| panic!("not asked for: {message}"));
        Said::Answer { request, answer: without_id(message) }
    }

    /// The event, if it is one.
    pub fn event(&self) -> Option<&Json> {
        match self {
            Said::Event(event) => Some(event),
            Said::Answer { .. } => None,
        }
    }

    /// The request that is answered, if it is an answer.
    pub fn request(&self) -> Option<&Json> {
        match self {
            Said::Event(_) => None,
            Said::Answer { request, .. } => Some(request),
        }
    }
}

/// A message without its id.
pub fn without_id(message: &Json) -> Json {
    let Json::Object(members) = message else { return message.clone() };
    Json::Object(members.iter().filter(|(name, _)| name != "id").cloned().collect())
}

/// The messages of a server to its one client, in order, without negotiation.
#[derive(Clone, Debug, Default)]
pub struct Record(Arc<Mutex<Vec<Said>>>);

impl Record {
    /// Lets one client connect at `front` to the server at `back`.
    pub fn start(front: &Path, back: &Path) -> io::Result<Record> {
        let listener = UnixListener::bind(front)?;
        let record = Record::default();
        let (writer, back) = (record.clone(), back.to_owned());
        thread::spawn(move || writer.relay(&listener, &back));
        Ok(record)
    }

    pub fn said(&self) -> Vec<Said> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn relay(&self, listener: &UnixListener, back: &Path) -> io::Result<()> {
        let (client, _) = listener.accept()?;
        let server = retry(LIMIT, || UnixStream::connect(back))?;
        let waiting = Arc::new(Mutex::new(HashMap::new()));
        let (requests, to_server) = (BufReader::new(client.try_clone()?), server.try_clone()?);
        let asked = Arc::clone(&waiting);
        thread::spawn(move || pass_requests(requests, to_server, &asked));
        let mut client = client;
        for line in BufReader::new(server).lines() {
            let line = line?;
            let message = Json::parse(&line).map_err(io::Error::other)?;
            if message.get("QMP").is_none() {
                let mut waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
                self.note(Said::new(&message, &mut waiting));
            }
            // BufRead takes the CR for part of the line end.
            client.write_all(format!("{line}\r\n").as_bytes())?;
        }
        Ok(())
    }

    fn note(&self, said: Said) {
        let negotiation = |request: &Json| {
            request.get("execute").and_then(Json::as_str) == Some("qmp_capabilities")
        };
        if !matches!(&said, Said::Answer { request, .. } if negotiation(request)) {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).push(said);
        }
    }
}

fn pass_requests(
    requests: BufReader<UnixStream>,
    mut server: UnixStream,
    asked: &Mutex<HashMap<Option<Json>, Json>>,
) -> io::Result<()> {
    for line in requests.lines() {
        let line = line?;
        let request = Json::parse(&line).map_err(io::Error::other)?;
        let id = request.get("id").cloned();
        // Before the server can answer.
        asked.lock().unwrap_or_else(PoisonError::into_inner).insert(id, without_id(&request));
        server.write_all(format!("{line}\n").as_bytes())?;
    }
    Ok(())
}
