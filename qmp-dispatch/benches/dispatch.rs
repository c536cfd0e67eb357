// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a command costs from the parsed request to the encoded response, held against `serde_json`
//! doing nothing but the (de)serialization. And from text to text, held against the same of
//! `serde_json`. All figures of a run are measured in turns, and each is the median of its rounds.
//! `--quick` makes do with few rounds.
//!
//! Both sides own a request that is parsed already, its arguments a tree; call the same function with
//! the same types; make a string of the result and the id; and free all that. Beyond this, `serde_json`
//! does nothing: it knows which command it is, and neither checks nor sends.

mod figures;

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use figures::{Spread, record};
use qmp_dispatch::proto::{Error, Layout, Reader, Version, VersionTriple};
use qmp_dispatch::{
    Context, Dispatcher, Locals, Monitor, Output, Pending, RegisterError, Registry, Time,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

const QUERY: &str = r#"{"execute": "query-status", "id": "libvirt-17"}"#;
const RESIZE: &str = r#"{"execute": "block_resize", "arguments": {"node-name": "drive-virtio-disk0", "size": 10737418240, "force": true, "mode": "full", "speed": 1048576}, "id": "libvirt-18"}"#;

/// How many requests there are at a time: as many as QEMU lets a client have waiting. Of hundreds, it would be
/// the allocator that is measured.
const AT_A_TIME: usize = 8;

/// Names in the figures.
const OURS: &str = "qmp-dispatch";
const PARSED: &str = "from the parsed request to the encoded response";
const TEXT: &str = "from the text of the request to that of the response";

fn main() -> Result<(), RegisterError> {
    let asked = |flag: &str| std::env::args().any(|argument| argument == flag);
    let scale = match (asked("--bench"), asked("--quick")) {
        (true, false) => Scale::BENCH,
        (true, true) => Scale::QUICK,
        // `cargo test --benches` wants to know only whether this runs.
        (false, _) => Scale::TRY,
    };
    against_serde_json(&scale)?;
    among_commands(&scale)
}

struct Scale {
    rounds: usize,
    /// A multiple of [`AT_A_TIME`].
    requests: usize,
}

impl Scale {
    const BENCH: Scale = Scale { rounds: 501, requests: 200 };
    const QUICK: Scale = Scale { rounds: 51, ..Scale::BENCH };
    const TRY: Scale = Scale { rounds: 1, requests: 16 };
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

/// What a program without dispatcher would read, knowing which command it is.
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

fn against_serde_json(scale: &Scale) -> Result<(), RegisterError> {
    let mut registry = Registry::new();
    registry.command("query-status", |_: &Context| Ok::<_, Error>(status()))?;
    registry
        .command("block_resize", |_: &Context, new: BlockResize| Ok::<_, Error>(resize(new)))?;
    let ours = Ours::new(registry);
    let spreads = interleave(
        scale.rounds,
        &mut [
            Box::new(|| ours.execute(scale.requests, || QUERY)) as Box<dyn FnMut() -> f64>,
            Box::new(|| from_tree::<(), _>(scale.requests, QUERY, |_| status())),
            Box::new(|| ours.execute(scale.requests, || RESIZE)),
            Box::new(|| from_tree::<BlockResize, _>(scale.requests, RESIZE, resize_some)),
            Box::new(|| ours.serve(scale.requests, QUERY)),
            Box::new(|| from_text::<(), _>(scale.requests, QUERY, |_| status())),
            Box::new(|| ours.serve(scale.requests, RESIZE)),
            Box::new(|| from_text::<BlockResize, _>(scale.requests, RESIZE, resize_some)),
        ],
    );
    println!("{PARSED}, against serde_json");
    line(PARSED, "no arguments", spreads[0], spreads[1]);
    line(PARSED, "five arguments", spreads[2], spreads[3]);
    println!("{TEXT}, against serde_json");
    line(TEXT, "no arguments", spreads[4], spreads[5]);
    line(TEXT, "five arguments", spreads[6], spreads[7]);
    Ok(())
}

fn resize_some(new: Option<BlockResize>) -> Option<Resized> {
    new.map(resize)
}

fn among_commands(scale: &Scale) -> Result<(), RegisterError> {
    const NUMBERS: [usize; 3] = [10, 100, 1_000];
    let mut served = Vec::new();
    for number in NUMBERS {
        let mut registry = Registry::new();
        let mut requests = Vec::new();
        for index in 0..number {
            let name: &'static str = format!("query-something-{index}").leak();
            registry.command(name, |_: &Context| Ok::<_, Error>(status()))?;
            requests.push(format!(r#"{{"execute": "{name}", "id": "libvirt-17"}}"#));
        }
        served.push((Ours::new(registry), requests));
    }
    let mut measures: Vec<Box<dyn FnMut() -> f64>> = Vec::new();
    for all in [true, false] {
        for (ours, requests) in &served {
            let used = &requests[..if all { requests.len() } else { 10 }];
            measures.push(Box::new(move || {
                let mut next = used.iter().cycle();
                ours.execute(scale.requests, || next.next().map_or("", String::as_str))
            }));
        }
    }
    let spreads = interleave(scale.rounds, &mut measures);
    println!("no arguments, with so many commands registered");
    println!("  {:>9} {:>16} {:>16}", "commands", "all in turn", "ten of them");
    let (all, ten) = spreads.split_at(NUMBERS.len());
    for ((number, all_used), ten_used) in NUMBERS.iter().zip(all).zip(ten) {
        let registered = format!("{number} commands registered");
        record(PARSED, &format!("{registered}, all used"), OURS, "ns", *all_used);
        record(PARSED, &format!("{registered}, ten used"), OURS, "ns", *ten_used);
        let (all_used, ten_used) = (all_used.median, ten_used.median);
        println!(
            "  {number:>9} {all_used:>8.0} ns {:>4.2}x {ten_used:>8.0} ns {:>4.2}x",
            all_used / all[0].median,
            ten_used / ten[0].median,
        );
    }
    Ok(())
}

fn line(group: &str, what: &str, ours: Spread, theirs: Spread) {
    record(group, what, OURS, "ns", ours);
    record(group, what, "serde_json", "ns", theirs);
    let (ours, theirs) = (ours.median, theirs.median);
    println!("  {what:<16} {ours:>6.0} ns against {theirs:>6.0} ns: {:>5.2}x", ours / theirs);
}

/// Somebody who reads everything and keeps nothing.
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
        let negotiation =
            ours.receive(&mut Reader::default(), r#"{"execute": "qmp_capabilities"}"#);
        ours.0.execute(negotiation, || ());
        ours
    }

    fn receive(&self, reader: &mut Reader, text: &str) -> Pending {
        let message = reader.read(&mut text.as_bytes()).expect("a message");
        self.0.receive(message)
    }

    /// Nanoseconds per request that has been received already.
    fn execute<'t>(&self, count: usize, mut text: impl FnMut() -> &'t str) -> f64 {
        let mut reader = Reader::default();
        let received = || self.receive(&mut reader, text());
        nanos_each(count, received, |pending| self.0.execute(pending, || ()))
    }

    /// Nanoseconds per request from its text.
    fn serve(&self, count: usize, text: &str) -> f64 {
        let mut reader = Reader::default();
        nanos_each(
            count,
            || text,
            |text| {
                let mut input = black_box(text).as_bytes();
                while let Some(message) = reader.read(&mut input) {
                    self.0.execute(self.0.receive(message), || ());
                }
            },
        )
    }
}

fn from_tree<A: for<'de> Deserialize<'de>, T: Serialize>(
    count: usize,
    text: &str,
    run: impl Fn(Option<A>) -> T,
) -> f64 {
    let parsed = || serde_json::from_str::<Request<serde_json::Value>>(text).expect("a request");
    nanos_each(count, parsed, |request| {
        let arguments = request.arguments.map(|tree| serde_json::from_value(tree).expect("right"));
        answer(Response { result: run(arguments), id: request.id });
    })
}

fn from_text<A: for<'de> Deserialize<'de>, T: Serialize>(
    count: usize,
    text: &str,
    run: impl Fn(Option<A>) -> T,
) -> f64 {
    nanos_each(
        count,
        || text,
        |text| {
            let request: Request<A> =
                serde_json::from_slice(black_box(text).as_bytes()).expect("a request");
            answer(Response { result: run(request.arguments), id: request.id });
        },
    )
}

fn answer<T: Serialize>(response: Response<T>) {
    black_box(serde_json::to_string(&response).expect("text"));
}

/// Nanoseconds that `body` takes for each of what `make` makes before.
fn nanos_each<T>(count: usize, mut make: impl FnMut() -> T, mut body: impl FnMut(T)) -> f64 {
    let mut items = Vec::with_capacity(AT_A_TIME);
    let mut total = Duration::ZERO;
    for _ in 0..count / AT_A_TIME {
        items.extend((0..AT_A_TIME).map(|_| make()));
        let before = Instant::now();
        let start = Instant::now();
        items.drain(..).for_each(&mut body);
        let spent = start.elapsed();
        // Reading the clock is a good part of so short a time.
        total += spent.saturating_sub(start - before);
    }
    total.as_nanos() as f64 / count as f64
}

/// Runs all measures in turns.
fn interleave(rounds: usize, measures: &mut [Box<dyn FnMut() -> f64 + '_>]) -> Vec<Spread> {
    let mut samples = vec![Vec::with_capacity(rounds); measures.len()];
    for round in 0..=rounds {
        for (measure, samples) in measures.iter_mut().zip(&mut samples) {
            let sample = measure();
            // The first round warms up.
            if round > 0 {
                samples.push(sample);
            }
        }
    }
    samples.into_iter().map(Spread::of).collect()
}
