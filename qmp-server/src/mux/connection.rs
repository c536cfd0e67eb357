// SPDX-License-Identifier: MIT OR Apache-2.0
//! One connection to the upstream server: from its greeting to its end, on one thread, which
//! transmits answers and events to clients in the order in which they come.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use qmp_dispatch::Dispatcher;
use qmp_dispatch::proto::{
    Band, Capability, Dialect, Event, Greeting, Json, Limits, Message, Reader, RequestText,
    Response, ServerMessage, SyntaxError, Value,
};

use super::link::Link;
use super::upstream::Upstream;
use crate::Address;

/// After so long without a greeting somebody should be told.
const GREETING_EXPECTED: Duration = Duration::from_secs(5);

/// What a server may send before its greeting: QEMU lets what is left for its last client turn up.
const MOST_BEFORE_GREETING: usize = 64 << 20;

/// What is read at a time.
const BUFFER_SIZE: usize = 64 << 10;

/// Why a connection has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct End {
    pub(super) why: String,
    /// The server has ended because it was told to: by `quit`, or as the guest or somebody else has
    /// shut the machine down.
    pub(super) orderly: bool,
}

impl End {
    /// On one line: the server may have a say in this, and it gets into the log.
    fn broken(why: impl ToString) -> End {
        End { why: why.to_string().replace(char::is_control, " "), orderly: false }
    }
}

pub(super) struct Connection<'a> {
    upstream: &'a Upstream,
    link: Arc<Link>,
    reader: Reader,
    buffer: Vec<u8>,
    /// The server has said that it ends.
    ending: bool,
    is_closing: &'a dyn Fn() -> bool,
}

/// What is done with a message that has come.
type Handle<'a> = dyn FnMut(Result<Message<'_>, SyntaxError>) -> Result<(), End> + 'a;

impl<'a> Connection<'a> {
    pub(super) fn open(
        address: &Address,
        upstream: &'a Upstream,
        is_closing: &'a dyn Fn() -> bool,
    ) -> Result<Connection<'a>, End> {
        Ok(Connection {
            upstream,
            link: Arc::new(Link::connect(address).map_err(End::broken)?),
            // What a server sends is looked at when it is complete, whatever dialect the server speaks.
            reader: Reader::new(Dialect::Qemu10_0, Limits::default()),
            buffer: vec![0; BUFFER_SIZE],
            ending: false,
            is_closing,
        })
    }

    /// Waits for the greeting, and enables out-of-band execution if it is offered.
    pub(super) fn negotiate(&mut self) -> Result<Greeting, End> {
        let greeting = self.greeting()?;
        let oob = greeting.capabilities.contains(&Capability::OOB);
        let enable = oob.then(|| Json::encode(&Enable { enable: ["oob"] }));
        let enable = enable.transpose().map_err(End::broken)?;
        // Whatever was left for an earlier client has not got this one.
        let id = super::random() >> 32 | 1 << 31;
        let mut text = String::new();
        let request = RequestText {
            command: "qmp_capabilities",
            arguments: enable.as_ref(),
            id,
            band: Band::InBand,
        };
        request.write(&mut text);
        self.link.send(text, None);
        let mut outcome = None;
        while outcome.is_none() {
            self.receive(None, &mut |message| {
                if let Ok(ServerMessage::Response(response)) = parse(message)
                    && response.id.as_ref().and_then(Value::as_u64) == Some(id)
                {
                    outcome = Some(response.result);
                }
                Ok(())
            })?;
        }
        match outcome {
            Some(Err(error)) => Err(End::broken(format_args!("negotiation failed: {error}"))),
            _ => Ok(greeting),
        }
    }

    fn greeting(&mut self) -> Result<Greeting, End> {
        let began = Instant::now();
        let mut told = false;
        let mut received = 0;
        let mut greeting = None;
        while greeting.is_none() {
            if !told && began.elapsed() >= GREETING_EXPECTED {
                told = true;
                tracing::warn!("no greeting from the upstream server; has it another client?");
            }
            let wake_again = (!told).then_some(GREETING_EXPECTED);
            received += self.receive(wake_again, &mut |message| {
                if let Ok(ServerMessage::Greeting(message)) = parse(message) {
                    greeting = Some(message);
                }
                Ok(())
            })?;
            if received > MOST_BEFORE_GREETING {
                return Err(End::broken("it sends anything but a greeting"));
            }
        }
        greeting.ok_or_else(|| End::broken("no greeting"))
    }

    /// Passes on what the server sends, until it sends no more.
    pub(super) fn serve(&mut self, dispatcher: &Dispatcher) -> End {
        let upstream = self.upstream;
        loop {
            let mut ending = self.ending;
            let received = self.receive(None, &mut |message| match parse(message)? {
                ServerMessage::Event(event) => {
                    ending = tells_end(&event).unwrap_or(ending);
                    dispatcher.relay(&event);
                    Ok(())
                }
                ServerMessage::Response(Response { id, result, .. }) => {
                    let id = id.as_ref().and_then(Value::as_u64);
                    ending |= result.is_ok() && id.is_some_and(|id| upstream.is_quit(id));
                    id.and_then(|id| upstream.answered(id, result))
                        .ok_or_else(|| End::broken("it answers what it was not asked"))
                }
                ServerMessage::Greeting(_) => Err(End::broken("it greets twice")),
            });
            self.ending = ending;
            if let Err(end) = received {
                return End { orderly: ending, ..end };
            }
        }
    }

    /// Waits for bytes, and has the messages in them dealt with. How many bytes there were.
    fn receive(
        &mut self,
        timeout: Option<Duration>,
        handle: &mut Handle<'_>,
    ) -> Result<usize, End> {
        self.link.wait(&self.upstream.waker, timeout).map_err(End::broken)?;
        if (self.is_closing)() {
            return Err(End::broken("the mux ends"));
        }
        let received = match self.link.receive(&mut self.buffer) {
            Ok(0) => return Err(End::broken("it has closed the connection")),
            Ok(received) => received,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            Err(error) => return Err(End::broken(error)),
        };
        let mut bytes = &self.buffer[..received];
        while let Some(message) = self.reader.read(&mut bytes) {
            handle(message)?;
        }
        Ok(received)
    }

    pub(super) fn link(&self) -> &Arc<Link> {
        &self.link
    }
}

impl Drop for Connection<'_> {
    fn drop(&mut self) {
        self.link.shutdown();
    }
}

#[derive(serde::Serialize)]
struct Enable {
    enable: [&'static str; 1],
}

fn parse(message: Result<Message<'_>, SyntaxError>) -> Result<ServerMessage, End> {
    let rubbish = |error| End::broken(format_args!("it sends rubbish: {error}"));
    let message = message.map_err(|error| rubbish(error.to_string()))?;
    ServerMessage::parse(&message).map_err(|error| rubbish(error.to_string()))
}

/// Whether the event says that the machine, and so its server, is about to end, or that it is not.
fn tells_end(event: &Event) -> Option<bool> {
    match &*event.name {
        "SHUTDOWN" => Some(true),
        // With -no-shutdown the machine is stopped instead, and can be started again.
        "STOP" | "RESET" | "RESUME" => Some(false),
        _ => None,
    }
}
