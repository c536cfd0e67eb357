// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a command costs from the parsed request to the encoded response, and from text to text, beside `serde_json`
//! doing nothing but the (de)serialization.
//!
//! Both sides call the same function with the same types, make a string of the result and the id, and free all that.
//! Beyond this, `serde_json` does nothing: it knows which command it is, and neither checks nor sends.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{BatchSize, BenchmarkId, Criterion};
use qmp_dispatch::proto::{Error, Layout, Reader, Version, VersionTriple};
use qmp_dispatch::{Context, Dispatcher, Locals, Monitor, Output, Pending, Registry, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

const QUERY: &str = r#"{"execute": "query-status", "id": "libvirt-17"}"#;
const RESIZE: &str = r#"{"execute": "block_resize", "arguments": {"node-name": "drive-virtio-disk0", "size": 10737418240, "force": true, "mode": "full", "speed": 1048576}, "id": "libvirt-18"}"#;

/// As many requests as QEMU lets a client have waiting. With hundreds, the allocator would be measured.
const AT_A_TIME: BatchSize = BatchSize::NumIterations(8);

const OURS: &str = "qmp-dispatch";
const THEIRS: &str = "serde_json";
const PARSED: &str = "from the parsed request to the encoded response";
const TEXT: &str = "from the text of the request to that of the response";

fn main() {
    let criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_secs(1));
    let mut criterion = criterion.configure_from_args();
    against_serde_json(&mut criterion);
    among_commands(&mut criterion);
    criterion.final_summary();
}

#[derive(Serialize, Deserialize, JsonSchema)]
struct StatusInfo {
    status: RunState,
    running: bool,
}

#[derive(Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum RunState {
    Running,
    GuestPanicked,
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
struct BlockResize {
    node_name: String,
    size: u64,
    force: Option<bool>,
    mode: PreallocMode,
    speed: Option<i64>,
}

#[derive(Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum PreallocMode {
    Off,
    Full,
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
struct Resized {
    node_name: String,
    size: u64,
    mode: PreallocMode,
}

fn status() -> StatusInfo {
    let status = black_box(RunState::Running);
    StatusInfo { status, running: true }
}

fn resize(new: BlockResize) -> Resized {
    black_box((new.force, new.speed));
    Resized { node_name: new.node_name, size: new.size, mode: new.mode }
}

/// What a program without a dispatcher would read, knowing which command it is.
#[derive(Deserialize)]
struct Request<A> {
    #[serde(rename = "execute")]
    _command: String,
    arguments: Option<A>,
    id: serde_json::Value,
}

#[derive(Serialize)]
struct Response<T> {
    #[serde(rename = "return")]
    result: T,
    id: serde_json::Value,
}

fn against_serde_json(criterion: &mut Criterion) {
    let mut registry = Registry::new();
    registry.command("query-status", |_: &Context| Ok::<_, Error>(status())).unwrap();
    let resize_it = |_: &Context, new: BlockResize| Ok::<_, Error>(resize(new));
    registry.command("block_resize", resize_it).unwrap();
    let ours = Ours::new(registry);
    against::<(), _>(criterion, &ours, "no arguments", QUERY, |_| status());
    let resize_some = |new: Option<BlockResize>| new.map(resize);
    against::<BlockResize, _>(criterion, &ours, "five arguments", RESIZE, resize_some);
}

fn against<A: for<'de> Deserialize<'de>, T: Serialize>(
    criterion: &mut Criterion,
    ours: &Ours,
    what: &str,
    text: &str,
    run: impl Fn(Option<A>) -> T,
) {
    let mut group = criterion.benchmark_group(PARSED);
    group.bench_function(BenchmarkId::new(OURS, what), |bencher| {
        let received = || ours.receive(text);
        bencher.iter_batched(received, |pending| ours.0.execute(pending, || ()), AT_A_TIME);
    });
    group.bench_function(BenchmarkId::new(THEIRS, what), |bencher| {
        let parsed = || serde_json::from_str::<Request<serde_json::Value>>(text).unwrap();
        let answer = |request: Request<serde_json::Value>| {
            let arguments = request.arguments.map(|tree| serde_json::from_value(tree).unwrap());
            response(run(arguments), request.id)
        };
        bencher.iter_batched(parsed, answer, AT_A_TIME);
    });
    group.finish();
    let mut group = criterion.benchmark_group(TEXT);
    group.bench_function(BenchmarkId::new(OURS, what), |bencher| {
        let mut reader = Reader::default();
        bencher.iter(|| {
            let mut input = black_box(text).as_bytes();
            while let Some(message) = reader.read(&mut input) {
                ours.0.execute(ours.0.receive(message), || ());
            }
        });
    });
    group.bench_function(BenchmarkId::new(THEIRS, what), |bencher| {
        bencher.iter(|| {
            let request: Request<A> = serde_json::from_slice(black_box(text).as_bytes()).unwrap();
            response(run(request.arguments), request.id)
        });
    });
}

/// Commands without arguments, with this many registered and executed in turn.
fn among_commands(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group(PARSED);
    for number in [10, 100, 1_000] {
        let names: Vec<String> =
            (0..number).map(|index| format!("query-something-{index}")).collect();
        let mut registry = Registry::new();
        for name in &names {
            let name: &'static str = name.clone().leak();
            registry.command(name, |_: &Context| Ok::<_, Error>(status())).unwrap();
        }
        let ours = Ours::new(registry);
        let request = |name| format!(r#"{{"execute": "{name}", "id": "libvirt-17"}}"#);
        let requests: Vec<String> = names.iter().map(request).collect();
        for (used, name) in [(number, "all"), (10, "ten")] {
            let what = format!("{number} commands registered, {name} used");
            group.bench_function(BenchmarkId::new(OURS, what), |bencher| {
                let mut next = requests[..used].iter().cycle();
                let received = || ours.receive(next.next().map_or("", String::as_str));
                bencher.iter_batched(received, |pending| ours.0.execute(pending, || ()), AT_A_TIME);
            });
        }
    }
}

fn response<T: Serialize>(result: T, id: serde_json::Value) -> String {
    serde_json::to_string(&Response { result, id }).unwrap()
}

/// Takes everything and keeps nothing.
struct Nowhere;

impl Output for Nowhere {
    fn transmit(&self, text: &str) {
        black_box(text);
    }
}

/// A negotiated monitor.
struct Ours(Arc<Monitor>);

impl Ours {
    fn new(registry: Registry) -> Ours {
        let version = Version {
            qemu: VersionTriple { major: 0, minor: 1, micro: 0 },
            package: "bench".into(),
        };
        let dispatcher = Dispatcher::new(registry, version, Time::default);
        let monitor = dispatcher.connect(Arc::new(Nowhere), Layout::Compact, Locals::default());
        let ours = Ours(monitor);
        ours.0.execute(ours.receive(r#"{"execute": "qmp_capabilities"}"#), || ());
        ours
    }

    fn receive(&self, text: &str) -> Pending {
        let mut reader = Reader::default();
        self.0.receive(reader.read(&mut text.as_bytes()).expect("a message"))
    }
}
