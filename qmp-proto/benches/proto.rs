// SPDX-License-Identifier: MIT OR Apache-2.0
//! How fast messages are read and written, compared with `serde_json` on the same messages.
//!
//! Both are measured in turns, many times over; what is printed is the median of the ratios, so that whatever else the
//! machine does hits both alike. A ratio above 1 means that this crate is faster. An argument selects the
//! comparisons whose name contains it; `--quick` makes do with few rounds.

#![allow(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "benchmarks read the clock and their command line"
)]

mod figures;
mod samples;

use std::hint::black_box;
use std::time::{Duration, Instant};

use figures::{Spread, record};
use qmp_proto::{Bands, Json, Layout, Reader, Request, ServerMessage, Value};

const ROUNDS: usize = 101;
const QUICK_ROUNDS: usize = 21;
const TURN: Duration = Duration::from_micros(800);

/// What is held against what.
struct Group {
    name: &'static str,
    ours: &'static str,
    theirs: &'static str,
}

const READING: Group = Group { name: "reading", ours: "qmp-proto", theirs: "serde_json" };
const WRITING: Group = Group { name: "writing", ours: "qmp-proto", theirs: "serde_json" };
const DIALECT: Group =
    Group { name: "dialect", ours: "qmp-proto, single quotes", theirs: "qmp-proto, double quotes" };

fn main() {
    let text = samples::text();
    let small = samples::SMALL;
    println!(
        "reading: bytes to a checked Request or ServerMessage, over serde_json::from_slice::<Value>"
    );
    read_requests("small commands", small);
    read_requests("1 KiB of arguments, many members", &[samples::MEMBERS]);
    read_requests("1 KiB of arguments, one string", &[&text]);
    compare(
        &READING,
        "schema reply of 230 KiB",
        || drop(read_server_message(samples::SCHEMA_REPLY.as_bytes())),
        || drop(from_slice(samples::SCHEMA_REPLY.as_bytes())),
    );
    compare(
        &READING,
        "schema reply of 230 KiB, as a tree",
        || drop(read_value(samples::SCHEMA_REPLY.as_bytes())),
        || drop(from_slice(samples::SCHEMA_REPLY.as_bytes())),
    );

    println!("writing: over serde_json::to_writer of the same message as a Value");
    write_requests("small commands", small);
    write_requests("1 KiB of arguments, many members", &[samples::MEMBERS]);
    write_requests("1 KiB of arguments, one string", &[&text]);
    write_responses();

    println!("dialect: single-quoted input, over the same input in double quotes");
    read_dialect("small commands", small);
    read_dialect("1 KiB of arguments, many members", &[samples::MEMBERS]);
    read_dialect("1 KiB of arguments, one string", &[&text]);
}

/// Prints how many times longer `theirs` takes than `ours`.
fn compare(group: &Group, what: &str, mut ours: impl FnMut(), mut theirs: impl FnMut()) {
    let wanted = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    if wanted.is_some_and(|wanted| !what.contains(&wanted)) {
        return;
    }
    let our_runs = runs_per_turn(&mut ours);
    let their_runs = runs_per_turn(&mut theirs);
    let quick = std::env::args().any(|argument| argument == "--quick");
    let rounds = if quick { QUICK_ROUNDS } else { ROUNDS };
    let times: Vec<(f64, f64)> =
        (0..rounds).map(|_| (time(&mut ours, our_runs), time(&mut theirs, their_runs))).collect();
    let spread = |key: fn(&(f64, f64)) -> f64| Spread::of(times.iter().map(key).collect());
    let ratio = spread(|(ours, theirs)| theirs / ours).median;
    let (ours, theirs) = (spread(|times| times.0 * 1e6), spread(|times| times.1 * 1e6));
    println!("  {ratio:5.2}x  {what} ({:.2} µs, {:.2} µs)", ours.median, theirs.median);
    record(group.name, what, group.ours, "µs", ours);
    record(group.name, what, group.theirs, "µs", theirs);
}

fn runs_per_turn(run: &mut impl FnMut()) -> u32 {
    let mut runs = 1;
    loop {
        let seconds = time(run, runs) * f64::from(runs);
        if seconds >= TURN.as_secs_f64() {
            return runs;
        }
        runs *= 2;
    }
}

/// Seconds per run.
fn time(run: &mut impl FnMut(), runs: u32) -> f64 {
    let start = Instant::now();
    for _ in 0..runs {
        run();
    }
    start.elapsed().as_secs_f64() / f64::from(runs)
}

fn read_requests(what: &str, messages: &[&str]) {
    let stream = messages.join("\r\n");
    compare(
        &READING,
        what,
        {
            let mut reader = Reader::default();
            move || requests(&mut reader, stream.as_bytes(), messages.len())
        },
        || {
            for message in messages {
                drop(from_slice(message.as_bytes()));
            }
        },
    );
}

fn read_dialect(what: &str, messages: &[&str]) {
    let strict = messages.join("\r\n");
    let dialect = strict.replace('"', "'");
    let (mut reader, mut other_reader) = (Reader::default(), Reader::default());
    compare(
        &DIALECT,
        what,
        || requests(&mut reader, dialect.as_bytes(), messages.len()),
        || requests(&mut other_reader, strict.as_bytes(), messages.len()),
    );
}

fn requests(reader: &mut Reader, stream: &[u8], count: usize) {
    let mut input = black_box(stream);
    let mut read = 0;
    while let Some(message) = reader.read(&mut input) {
        let request =
            Request::parse(&message.expect("well-formed"), Bands::Both).expect("a request");
        drop(black_box(request));
        read += 1;
    }
    assert_eq!(read, count);
}

fn read_request(message: &str) -> Request {
    let mut input = message.as_bytes();
    let mut reader = Reader::default();
    let message = reader.read(&mut input).expect("complete").expect("well-formed");
    Request::parse(&message, Bands::Both).expect("a request")
}

fn read_server_message(message: &[u8]) -> ServerMessage {
    let mut input = black_box(message);
    let mut reader = Reader::default();
    let message = reader.read(&mut input).expect("complete").expect("well-formed");
    black_box(ServerMessage::parse(&message).expect("a response"))
}

fn read_value(message: &[u8]) -> Value {
    let mut input = black_box(message);
    let mut reader = Reader::default();
    let message = reader.read(&mut input).expect("complete").expect("well-formed");
    black_box(message.to_value().expect("well-formed"))
}

fn from_slice(message: &[u8]) -> serde_json::Value {
    black_box(serde_json::from_slice(black_box(message)).expect("well-formed"))
}

fn write_requests(what: &str, messages: &[&str]) {
    let ours: Vec<Request> = messages.iter().map(|message| read_request(message)).collect();
    let mut text = String::new();
    write(what, messages, || {
        for request in &ours {
            text.clear();
            black_box(request).write(&mut text);
            black_box(&text);
        }
    });
}

/// Compares with `serde_json`, which writes these messages.
fn write(what: &str, messages: &[&str], ours: impl FnMut()) {
    let theirs: Vec<_> = messages.iter().map(|message| from_slice(message.as_bytes())).collect();
    let mut out = Vec::new();
    compare(&WRITING, what, ours, || {
        for value in &theirs {
            out.clear();
            serde_json::to_writer(&mut out, black_box(value)).expect("writable");
            black_box(&out);
        }
    });
}

fn write_responses() {
    let schema = &[samples::SCHEMA_REPLY];
    let response = match read_server_message(samples::SCHEMA_REPLY.as_bytes()) {
        ServerMessage::Response(response) => response,
        other => panic!("no response: {other:?}"),
    };
    let mut text = String::new();
    write("schema reply of 230 KiB, passed on", schema, || {
        text.clear();
        black_box(&response).write(Layout::Compact, &mut text);
        black_box(&text);
    });
    let tree = read_value(samples::SCHEMA_REPLY.as_bytes());
    write("schema reply of 230 KiB, from a tree", schema, || {
        drop(black_box(Json::from(black_box(&tree))));
    });
}
