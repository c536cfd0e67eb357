// SPDX-License-Identifier: MIT OR Apache-2.0
//! How fast messages are read and written, beside `serde_json` on the same messages.

mod samples;

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion};
use qmp_proto::{Bands, Json, Layout, Message, Reader, Request, ServerMessage, Value};

const OURS: &str = "qmp-proto";
const THEIRS: &str = "serde_json";
const SCHEMA: &[u8] = samples::SCHEMA_REPLY.as_bytes();

fn main() {
    let criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_secs(1));
    let mut criterion = criterion.configure_from_args();
    let text = samples::text();
    let requests = [
        ("small commands", samples::SMALL),
        ("1 KiB of arguments, many members", &[samples::MEMBERS]),
        ("1 KiB of arguments, one string", &[&text]),
    ];
    reading(&mut criterion, &requests);
    writing(&mut criterion, &requests);
    dialect(&mut criterion, &requests);
    criterion.final_summary();
}

/// Bytes to a checked `Request` or `ServerMessage`, beside `serde_json::from_slice::<Value>`.
fn reading(criterion: &mut Criterion, messages: &[(&str, &[&str])]) {
    let mut group = criterion.benchmark_group("reading");
    for (what, messages) in messages {
        let stream = messages.join("\r\n");
        group.bench_function(BenchmarkId::new(OURS, what), |bencher| {
            let mut reader = Reader::default();
            bencher.iter(|| requests(&mut reader, &stream, messages.len()));
        });
        group.bench_function(BenchmarkId::new(THEIRS, what), |bencher| {
            bencher
                .iter(|| messages.iter().for_each(|message| drop(from_slice(message.as_bytes()))));
        });
    }
    let what = "schema reply of 230 KiB";
    group.bench_function(BenchmarkId::new(OURS, what), |bencher| {
        bencher.iter(|| server_message(black_box(SCHEMA)));
    });
    group.bench_function(BenchmarkId::new(THEIRS, what), |bencher| {
        bencher.iter(|| from_slice(SCHEMA));
    });
    let what = "schema reply of 230 KiB, as a tree";
    group.bench_function(BenchmarkId::new(OURS, what), |bencher| {
        bencher.iter(|| tree(black_box(SCHEMA)));
    });
    group.bench_function(BenchmarkId::new(THEIRS, what), |bencher| {
        bencher.iter(|| from_slice(SCHEMA));
    });
}

/// Beside `serde_json::to_writer` of the same message as a `Value`.
fn writing(criterion: &mut Criterion, messages: &[(&str, &[&str])]) {
    let mut group = criterion.benchmark_group("writing");
    let theirs = |bencher: &mut criterion::Bencher<'_>, messages: &[&str]| {
        let values: Vec<_> =
            messages.iter().map(|message| from_slice(message.as_bytes())).collect();
        let mut out = Vec::new();
        bencher.iter(|| {
            for value in &values {
                out.clear();
                serde_json::to_writer(&mut out, black_box(value)).expect("writable");
                black_box(&out);
            }
        });
    };
    for (what, messages) in messages {
        group.bench_function(BenchmarkId::new(OURS, what), |bencher| {
            let requests: Vec<_> = messages.iter().map(|message| request(message)).collect();
            let mut text = String::new();
            bencher.iter(|| {
                for request in &requests {
                    text.clear();
                    black_box(request).write(&mut text);
                    black_box(&text);
                }
            });
        });
        group.bench_function(BenchmarkId::new(THEIRS, what), |bencher| theirs(bencher, messages));
    }
    let what = "schema reply of 230 KiB, passed on";
    group.bench_function(BenchmarkId::new(OURS, what), |bencher| {
        let ServerMessage::Response(response) = server_message(SCHEMA) else {
            panic!("not a response");
        };
        let mut text = String::new();
        bencher.iter(|| {
            text.clear();
            black_box(&response).write(Layout::Compact, &mut text);
            black_box(&text);
        });
    });
    group.bench_function(BenchmarkId::new(THEIRS, what), |bencher| {
        theirs(bencher, &[samples::SCHEMA_REPLY]);
    });
    let what = "schema reply of 230 KiB, from a tree";
    group.bench_function(BenchmarkId::new(OURS, what), |bencher| {
        let tree = tree(SCHEMA);
        bencher.iter(|| Json::from(black_box(&tree)));
    });
    group.bench_function(BenchmarkId::new(THEIRS, what), |bencher| {
        theirs(bencher, &[samples::SCHEMA_REPLY]);
    });
}

/// Input in single quotes, beside the same in double quotes.
fn dialect(criterion: &mut Criterion, messages: &[(&str, &[&str])]) {
    let mut group = criterion.benchmark_group("dialect");
    for (what, messages) in messages {
        let strict = messages.join("\r\n");
        for (name, stream) in [
            ("qmp-proto, single quotes", strict.replace('"', "'")),
            ("qmp-proto, double quotes", strict),
        ] {
            group.bench_function(BenchmarkId::new(name, what), |bencher| {
                let mut reader = Reader::default();
                bencher.iter(|| requests(&mut reader, &stream, messages.len()));
            });
        }
    }
}

fn requests(reader: &mut Reader, stream: &str, count: usize) {
    let mut input = black_box(stream).as_bytes();
    for _ in 0..count {
        let message = reader.read(&mut input).expect("complete").expect("well-formed");
        drop(black_box(Request::parse(&message, Bands::Both).expect("a request")));
    }
    assert!(reader.read(&mut input).is_none());
}

fn request(text: &str) -> Request {
    parsed(text.as_bytes(), |message| Request::parse(message, Bands::Both).expect("a request"))
}

fn server_message(bytes: &[u8]) -> ServerMessage {
    parsed(bytes, |message| ServerMessage::parse(message).expect("a response"))
}

fn tree(bytes: &[u8]) -> Value {
    parsed(bytes, |message| message.to_value().expect("well-formed"))
}

fn parsed<T>(mut input: &[u8], parse: impl FnOnce(&Message<'_>) -> T) -> T {
    let mut reader = Reader::default();
    parse(&reader.read(&mut input).expect("complete").expect("well-formed"))
}

fn from_slice(message: &[u8]) -> serde_json::Value {
    serde_json::from_slice(black_box(message)).expect("well-formed")
}
