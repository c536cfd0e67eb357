// SPDX-License-Identifier: MIT OR Apache-2.0
//! Properties for any input.

use std::collections::HashSet;

use qmp_proto::client::{Ids, Received, Session, Stage};
use qmp_proto::{
    Band, Bands, Capability, Dialect, Json, Layout, Limits, Reader, Request, Response,
    ServerMessage, Value,
};

use super::server;
use crate::inputs::Random;
use crate::json;

#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name on the command line.
    pub name: &'static str,
    /// Parts of inputs besides messages.
    pub words: &'static [&'static str],
    /// Inputs are certificates (DER) rather than text.
    pub takes_certificates: bool,
    /// Takes any input, or panics.
    pub run: fn(&[u8]),
}

pub const TARGETS: &[Target] = &[
    text("reader", &[], reader),
    text("request", &[], request),
    text("writer", &[], writer),
    text("session", SESSION_WORDS, session),
    text("audit", server::AUDIT_WORDS, server::audit),
    text("roles", server::ROLE_WORDS, server::roles),
    text("addresses", server::ADDRESS_WORDS, server::addresses),
    text("configuration", server::CONFIGURATION_WORDS, server::configuration),
    Target {
        name: "certificates",
        words: &[],
        takes_certificates: true,
        run: server::certificates,
    },
    text("metrics", server::HTTP_WORDS, server::metrics),
    text("descriptors", server::DESCRIPTOR_WORDS, server::descriptors),
];

const fn text(name: &'static str, words: &'static [&'static str], run: fn(&[u8])) -> Target {
    Target { name, words, takes_certificates: false, run }
}

/// What servers send, and other programs that are taken for one. The ids are those of [`session`].
#[rustfmt::skip]
const SESSION_WORDS: &[&str] = &[
    "{'QMP': {'version': {}, 'capabilities': ['oob']}}\r\n", "{'return': {}, 'id': 4294967301}\r\n", "{'return': {}, 'id': 3}\n",
    "{'return': 1, 'id': 13}", "{'error': {'class': 'GenericError', 'desc': 'x'}, 'id': 23}", "{'error': {'class': 'x', 'desc': ''}}",
    "{'return': {}}", "{'event': 'STOP', 'timestamp': {'seconds': 1, 'microseconds': 2}}\n", "{", "}", "[", "]", "{}", "1 ", "'", "\n",
    "\r\n", " ", "\u{1}", "HTTP/1.1 400\r\n", "(qemu) ", "QEMU 10.0 monitor", "\u{1b}[", "RFB 003.008\n", "SSH-2.0-x\r\n", "'id':",
];

/// How the input is cut into pieces does not matter, whatever the limits.
fn reader(input: &[u8]) {
    // The input itself decides on the rest, so that it is all that is needed to see a failure again.
    let mut random =
        Random::new(input.iter().fold(0, |sum: u64, &byte| sum.rotate_left(5) ^ u64::from(byte)));
    let mut limit = |usual: usize| if random.one_in(2) { usual } else { random.below(40) };
    let usual = Limits::default();
    let limits = Limits {
        token_bytes: limit(usual.token_bytes),
        tokens: limit(usual.tokens),
        nesting: limit(usual.nesting),
    };
    let len = 1 + random.below(20);
    for dialect in Dialect::ALL {
        let whole = outcomes(dialect, limits, [input]);
        for len in [1, len] {
            let pieces = outcomes(dialect, limits, input.chunks(len));
            assert_eq!(pieces, whole, "{len} bytes at a time, {dialect}, {limits:?}");
        }
    }
}

/// Returns what a reader with these limits reads from the pieces.
fn outcomes<'a>(
    dialect: Dialect,
    limits: Limits,
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> Vec<String> {
    let mut reader = Reader::new(dialect, limits);
    let mut outcomes = Vec::new();
    for mut piece in pieces {
        while let Some(message) = reader.read(&mut piece) {
            outcomes.push(match message.and_then(|message| message.to_value()) {
                Ok(value) => value.to_string(),
                Err(error) => error.to_string(),
            });
        }
        assert!(piece.is_empty());
    }
    outcomes.push(format!("idle: {}", reader.is_idle()));
    outcomes
}

/// The check of a request agrees with the general parser, and what has been accepted reads as it is written.
fn request(input: &[u8]) {
    let (mut reader, mut input) = (Reader::default(), input);
    while let Some(message) = reader.read(&mut input) {
        let Ok(message) = message else { continue };
        let value = message.to_value();
        for bands in [Bands::InBand, Bands::Both] {
            match Request::parse(&message, bands) {
                Ok(request) => {
                    let value = value.as_ref().expect("a request is a value");
                    let arguments = value.get("arguments").and_then(Value::as_object).cloned();
                    assert_eq!(request.arguments, arguments.unwrap_or_default());
                    assert_eq!(request.id.as_ref(), value.get("id"));
                    let mut text = String::new();
                    request.write(&mut text);
                    check_settles(&text, rewrite_request);
                }
                Err(refused) => match &value {
                    Ok(value) => assert_eq!(refused.id.as_ref(), value.get("id")),
                    Err(error) => assert_eq!(refused.error.desc, error.to_string()),
                },
            }
        }
        if let Ok(server_message) = ServerMessage::parse(&message) {
            let text = write(&server_message, Layout::Compact);
            check_settles(&text, |text| rewrite(text, Layout::Compact));
        }
    }
}

/// Output has QEMU's layout for any value, or is compact where that would be very long, and reads as the same value.
fn writer(input: &[u8]) {
    let (mut reader, mut input) = (Reader::default(), input);
    while let Some(message) = reader.read(&mut input) {
        let Ok(value) = message.and_then(|message| message.to_value()) else { continue };
        let response = Response::new(Some(value.clone()), Ok(Json::from(&value)));
        for (layout, checked) in
            [(Layout::Compact, json::Layout::Compact), (Layout::Pretty, json::Layout::Pretty)]
        {
            let mut text = String::new();
            response.write(layout, &mut text);
            let body = text.strip_suffix("\r\n").expect("CR LF at the end").replace("\r\n", "\n");
            let is_compact = !body.contains('\n');
            let checked = if is_compact { json::Layout::Compact } else { checked };
            assert!(!is_compact || layout == Layout::Compact || body.len() > 100, "{body}");
            assert_eq!(json::Json::parse(&body).expect("JSON").to_text(checked), body);
            check_settles(&text, |text| rewrite(text, layout));
        }
    }
}

/// What a server sends means the same to its client however it is cut, and no request is answered twice.
fn session(input: &[u8]) {
    let whole = conversation([input]);
    for len in [1, 2 + input.len() % 13] {
        assert_eq!(conversation(input.chunks(len)), whole, "{len} bytes at a time");
    }
}

/// Returns what a client that has always some requests pending receives and sends.
fn conversation<'p>(pieces: impl IntoIterator<Item = &'p [u8]>) -> Vec<String> {
    let mut session = Session::new(Ids::nth_connection(3, 5), vec![Capability::OOB]);
    let mut pending = HashSet::new();
    let mut asked = 0;
    let mut seen = Vec::new();
    for mut piece in pieces {
        while let Some(received) = session.read(&mut piece) {
            let more = match &received {
                Ok(Received::Ready) => 12,
                Ok(Received::Response { request, .. }) => {
                    assert!(pending.remove(request), "{request} is answered twice");
                    1
                }
                Ok(_) => 0,
                Err(_) => {
                    assert_eq!(session.stage(), Stage::Failed);
                    0
                }
            };
            for _ in 0..more {
                let band = if asked % 3 == 0 { Band::OutOfBand } else { Band::InBand };
                session.request("x", None, band, asked).expect("a small request");
                pending.insert(asked);
                asked += 1;
            }
            let counts = [Band::InBand, Band::OutOfBand].map(|band| session.pending_count(band));
            assert_eq!(counts.iter().sum::<usize>(), pending.len());
            let sent = session.transmit();
            for request in sent.iter().flat_map(|sent| sent.lines()) {
                with_message(request, |message| Request::parse(&message, Bands::Both))
                    .expect("a request");
            }
            seen.push(format!("{received:?}, then {sent:?}"));
        }
        assert!(piece.is_empty());
    }
    seen.push(format!("{:?}, {:?}", session.stage(), session.suspect()));
    seen
}

fn write(message: &ServerMessage, layout: Layout) -> String {
    let mut text = String::new();
    match message {
        ServerMessage::Greeting(greeting) => greeting.write(layout, &mut text),
        ServerMessage::Response(response) => response.write(layout, &mut text),
        ServerMessage::Event(event) => event.write(layout, &mut text),
    }
    text
}

/// Checks that a message keeps its form when it is read and written.
///
/// It may change the first time: `-0` is what the double is written as, and an integer when it is read. And members of
/// one bucket of QEMU's hash table change places every time, so that two times bring them back.
#[track_caller]
fn check_settles(text: &str, rewrite: impl Fn(&str) -> String) {
    let settled = rewrite(text);
    assert_eq!(rewrite(&rewrite(&settled)), settled);
}

fn rewrite_request(text: &str) -> String {
    let mut again = String::new();
    let request = with_message(text, |message| Request::parse(&message, Bands::Both));
    request.expect("a request").write(&mut again);
    again
}

fn rewrite(text: &str, layout: Layout) -> String {
    let message = with_message(text, |message| ServerMessage::parse(&message));
    write(&message.expect("a message of a server"), layout)
}

fn with_message<T>(text: &str, parse: impl FnOnce(qmp_proto::Message<'_>) -> T) -> T {
    let mut reader = Reader::default();
    let mut input = text.as_bytes();
    parse(reader.read(&mut input).expect("complete").expect("well-formed tokens"))
}
