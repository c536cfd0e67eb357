// SPDX-License-Identifier: MIT OR Apache-2.0
//! What an item costs, held against what else one might use. All figures of a line are from the
//! same run, their rounds interleaved, and each is the median of its rounds. `--quick` makes do with
//! few rounds.

mod figures;

use std::collections::VecDeque;
use std::hint::black_box;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use figures::{Spread, record};
use qmp_queue::{Mode, Producer, PushError, Queue};

const LIMIT: usize = 8;

/// Names in the figures.
const OURS: &str = "qmp-queue";
const IDLE: &str = "push, pop and done on one thread";
const CHANNEL: &str = "one producer";
const SCAN: &str = "two threads push, one pops";

fn main() {
    let asked = |flag: &str| std::env::args().any(|argument| argument == flag);
    let scale = match (asked("--bench"), asked("--quick")) {
        (true, false) => Scale::BENCH,
        (true, true) => Scale::QUICK,
        // `cargo test --benches` wants to know only whether this runs.
        (false, _) => Scale::TRY,
    };
    memory();
    idle_producers(&scale);
    against_a_channel(&scale);
    against_a_scan(&scale);
}

/// Rounds are short and many, so that what else the machine does spoils some rounds, not the median.
struct Scale {
    rounds: usize,
    items: usize,
    contended_rounds: usize,
    contended: Duration,
    sizes: &'static [usize],
    idle_sizes: &'static [usize],
}

impl Scale {
    const BENCH: Scale = Scale {
        rounds: 501,
        items: 4_000,
        contended_rounds: 11,
        contended: Duration::from_millis(60),
        sizes: &[1, 100, 10_000, 100_000],
        idle_sizes: &[1, 10, 100, 1_000, 10_000, 100_000],
    };
    const QUICK: Scale = Scale { rounds: 51, contended_rounds: 3, ..Scale::BENCH };
    const TRY: Scale = Scale {
        rounds: 1,
        items: 200,
        contended_rounds: 1,
        contended: Duration::from_millis(1),
        sizes: &[1, 100],
        idle_sizes: &[1, 100],
    };
}

fn idle_producers(scale: &Scale) {
    println!("push + pop + done of one item, one thread; and push + pop of a list that is scanned");
    println!("  {:>9} {:>18} {:>18} {:>18}", "producers", "one busy", "all busy", "list, one busy");
    let sizes = scale.idle_sizes;
    let mut one: Vec<_> = sizes.iter().map(|&size| Bench::new(size)).collect();
    let mut all: Vec<_> = sizes.iter().map(|&size| Bench::new(size).busy()).collect();
    let lists: Vec<_> = sizes.iter().map(|&size| LockedScan::new(size)).collect();
    let mut rows: Vec<Box<dyn FnMut() -> f64>> = Vec::new();
    for bench in &mut one {
        rows.push(Box::new(|| nanos_per(scale.items, || bench.push_pop_one())));
    }
    for bench in &mut all {
        rows.push(Box::new(|| nanos_per(scale.items, || bench.pop_push_any())));
    }
    for (list, size) in lists.iter().zip(sizes) {
        // What is served goes to the end of the list, and so all of it is scanned for the next item.
        let items = (10 * scale.items / size).clamp(1, scale.items);
        rows.push(Box::new(move || {
            nanos_per(items, || {
                black_box((list.push(0, 1), list.pop(&mut ())));
            })
        }));
    }
    let spreads = interleave(scale.rounds, &mut rows);
    let columns: Vec<_> = spreads.chunks(sizes.len()).collect();
    for (row, size) in sizes.iter().enumerate() {
        print!("  {size:>9}");
        for column in &columns {
            let median = column[row].median;
            print!(" {median:>9.1} ns {:>5.2}x", median / column[0].median);
        }
        println!();
        let one_busy = format!("{size} producers, one busy");
        record(IDLE, &one_busy, OURS, "ns", columns[0][row]);
        record(IDLE, &one_busy, "scanned list", "ns", columns[2][row]);
    }
    for (row, size) in sizes.iter().enumerate() {
        record(IDLE, &format!("{size} producers, all busy"), OURS, "ns", columns[1][row]);
    }
    println!();
}

/// A queue and its producers.
struct Bench {
    queue: Queue<u64>,
    producers: Vec<Producer<u64>>,
}

impl Bench {
    fn new(size: usize) -> Self {
        let queue = Queue::new();
        let producers = (0..size).map(|_| queue.register(Mode::default())).collect();
        Self { queue, producers }
    }

    fn busy(self) -> Self {
        for (index, producer) in self.producers.iter().enumerate() {
            for _ in 0..LIMIT / 2 {
                let _ = producer.push(index as u64);
            }
        }
        self
    }

    fn push_pop_one(&mut self) {
        let _ = self.producers[0].push(black_box(1));
        black_box(self.queue.try_pop().map(|popped| popped.ticket.done()));
    }

    fn pop_push_any(&mut self) {
        if let Some(popped) = self.queue.try_pop() {
            let _ = self.producers[popped.item as usize].push(black_box(popped.item));
            black_box(popped.ticket.done());
        }
    }
}

fn against_a_channel(scale: &Scale) {
    println!("one producer against a bounded({LIMIT}) crossbeam channel");
    let queue = Queue::new();
    let producer = queue.register(Mode::default());
    let (sender, receiver) = bounded(LIMIT);
    let spreads = interleave(
        scale.rounds,
        &mut [
            Box::new(|| {
                nanos_per(scale.items, || {
                    let _ = producer.push(black_box(1u64));
                    black_box(queue.try_pop().map(|popped| popped.ticket.done()));
                })
            }) as Box<dyn FnMut() -> f64>,
            Box::new(|| {
                nanos_per(scale.items, || {
                    let _ = sender.send(black_box(1u64));
                    let _ = black_box(receiver.recv());
                })
            }),
            Box::new(|| {
                nanos_per(scale.items / LIMIT, || {
                    for n in 0..LIMIT as u64 {
                        let _ = producer.push(black_box(n));
                    }
                    for _ in 0..LIMIT {
                        black_box(queue.try_pop().map(|popped| popped.ticket.done()));
                    }
                }) / LIMIT as f64
            }),
            Box::new(|| {
                nanos_per(scale.items / LIMIT, || {
                    for n in 0..LIMIT as u64 {
                        let _ = sender.send(black_box(n));
                    }
                    for _ in 0..LIMIT {
                        let _ = black_box(receiver.recv());
                    }
                }) / LIMIT as f64
            }),
        ],
    );
    line("one at a time, one thread", spreads[0], spreads[1]);
    line("eight at a time, one thread", spreads[2], spreads[3]);
    let spreads = interleave(
        scale.contended_rounds,
        &mut [
            Box::new(|| contend(scale.contended, 1, &Fair(Bench::new(1))))
                as Box<dyn FnMut() -> f64>,
            Box::new(|| contend(scale.contended, 1, &Channel::new())),
        ],
    );
    line("two threads", spreads[0], spreads[1]);
    println!();
}

fn against_a_scan(scale: &Scale) {
    println!(
        "two threads pushing, one popping, against a Mutex<VecDeque> per producer and a linear"
    );
    println!(
        "scan: of a list that is the popper's own, so that no producer can come or go and nobody"
    );
    println!("else can pop, and of one behind a lock, as QEMU's is");
    println!(
        "  {:>9} {:>5} {:>12} {:>21} {:>21}",
        "producers", "busy", "ours", "own list", "locked list"
    );
    for &size in scale.sizes {
        for busy in if size == 1 { vec![1] } else { vec![1, size] } {
            let fair = Busy { busy, contended: Fair(Bench::new(size)) };
            let own_list = Busy { busy, contended: Scan::new(size) };
            let locked_list = Busy { busy, contended: LockedScan::new(size) };
            let spreads = interleave(
                scale.contended_rounds,
                &mut [
                    Box::new(|| contend(scale.contended, 2, &fair)) as Box<dyn FnMut() -> f64>,
                    Box::new(|| contend(scale.contended, 2, &own_list)),
                    Box::new(|| contend(scale.contended, 2, &locked_list)),
                ],
            );
            let busy = if busy == size { "all" } else { "one" };
            let what = format!("{size} producers, {busy} busy");
            let names = [OURS, "list of the popper's", "locked list"];
            for (of, spread) in names.into_iter().zip(&spreads) {
                record(SCAN, &what, of, "ns", *spread);
            }
            let [ours, own_list, locked_list] = [0, 1, 2].map(|index| spreads[index].median);
            println!(
                "  {size:>9} {busy:>5} {ours:>9.1} ns {own_list:>12.1} ns {:>4.2}x {locked_list:>12.1} ns {:>4.2}x",
                ours / own_list,
                ours / locked_list,
            );
        }
    }
    println!();
}

fn line(what: &str, ours: Spread, theirs: Spread) {
    record(CHANNEL, what, OURS, "ns", ours);
    record(CHANNEL, what, "crossbeam-channel", "ns", theirs);
    let (ours, theirs) = (ours.median, theirs.median);
    println!("  {what:<30} {ours:>9.1} ns against {theirs:>9.1} ns: {:>5.2}x", ours / theirs);
}

/// Something with items of several producers in it. The popper's part is its own, so that no lock
/// is needed for it.
trait Contended: Sync {
    type Popper;
    fn popper(&self) -> Self::Popper;
    fn producers(&self) -> usize;
    /// Whether there was room.
    fn push(&self, producer: usize, item: u64) -> bool;
    fn pop(&self, popper: &mut Self::Popper) -> bool;
}

/// Nanoseconds per popped item, with `pushers` threads that push to their share of the producers in
/// turn.
fn contend<C: Contended>(time: Duration, pushers: usize, contended: &C) -> f64 {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for pusher in 0..pushers {
            let stop = &stop;
            scope.spawn(move || {
                let producers = contended.producers();
                let mut producer = pusher % producers;
                let mut refusals = 0;
                while !stop.load(Ordering::Relaxed) {
                    if contended.push(producer, 1) {
                        refusals = 0;
                    } else {
                        refusals += 1;
                    }
                    producer += pushers;
                    if producer >= producers {
                        producer = pusher % producers;
                    }
                    if refusals >= producers.min(64) {
                        refusals = 0;
                        thread::yield_now();
                    }
                }
            });
        }
        let mut popper = contended.popper();
        let (mut popped, start) = (0u64, Instant::now());
        let elapsed = loop {
            for _ in 0..64 {
                if contended.pop(&mut popper) {
                    popped += 1;
                } else {
                    thread::yield_now();
                }
            }
            let elapsed = start.elapsed();
            if elapsed >= time {
                break elapsed;
            }
        };
        stop.store(true, Ordering::Relaxed);
        elapsed.as_nanos() as f64 / popped.max(1) as f64
    })
}

/// Only some of the producers are pushed to.
struct Busy<C> {
    contended: C,
    busy: usize,
}

impl<C: Contended> Contended for Busy<C> {
    type Popper = C::Popper;
    fn popper(&self) -> C::Popper {
        self.contended.popper()
    }
    fn producers(&self) -> usize {
        self.busy
    }
    fn push(&self, producer: usize, item: u64) -> bool {
        self.contended.push(producer, item)
    }
    fn pop(&self, popper: &mut C::Popper) -> bool {
        self.contended.pop(popper)
    }
}

struct Fair(Bench);

impl Contended for Fair {
    type Popper = ();
    fn popper(&self) {}
    fn producers(&self) -> usize {
        self.0.producers.len()
    }
    fn push(&self, producer: usize, item: u64) -> bool {
        !matches!(self.0.producers[producer].push(item), Err(PushError::Full(_)))
    }
    fn pop(&self, (): &mut ()) -> bool {
        self.0.queue.try_pop().is_some()
    }
}

/// Serves the first producer of `order` that has an item, and moves it to the end.
fn scan(producers: &[Mutex<VecDeque<u64>>], order: &mut VecDeque<usize>) -> bool {
    for place in 0..order.len() {
        if producers[order[place]].lock().unwrap().pop_front().map(black_box).is_some() {
            let served = order.remove(place);
            order.extend(served);
            return true;
        }
    }
    false
}

fn push_if_room(producer: &Mutex<VecDeque<u64>>, item: u64) -> bool {
    let mut items = producer.lock().unwrap();
    let room = items.len() < LIMIT;
    if room {
        items.push_back(item);
    }
    room
}

struct Scan(Vec<Mutex<VecDeque<u64>>>);

impl Scan {
    fn new(size: usize) -> Self {
        Self((0..size).map(|_| Mutex::default()).collect())
    }
}

impl Contended for Scan {
    type Popper = VecDeque<usize>;
    fn popper(&self) -> VecDeque<usize> {
        (0..self.0.len()).collect()
    }
    fn producers(&self) -> usize {
        self.0.len()
    }
    fn push(&self, producer: usize, item: u64) -> bool {
        push_if_room(&self.0[producer], item)
    }
    fn pop(&self, order: &mut VecDeque<usize>) -> bool {
        scan(&self.0, order)
    }
}

struct LockedScan {
    producers: Vec<Mutex<VecDeque<u64>>>,
    order: Mutex<VecDeque<usize>>,
}

impl LockedScan {
    fn new(size: usize) -> Self {
        Self { producers: Scan::new(size).0, order: Mutex::new((0..size).collect()) }
    }
}

impl Contended for LockedScan {
    type Popper = ();
    fn popper(&self) {}
    fn producers(&self) -> usize {
        self.producers.len()
    }
    fn push(&self, producer: usize, item: u64) -> bool {
        push_if_room(&self.producers[producer], item)
    }
    fn pop(&self, (): &mut ()) -> bool {
        scan(&self.producers, &mut self.order.lock().unwrap())
    }
}

struct Channel(Sender<u64>, Receiver<u64>);

impl Channel {
    fn new() -> Self {
        let (sender, receiver) = bounded(LIMIT);
        Self(sender, receiver)
    }
}

impl Contended for Channel {
    type Popper = ();
    fn popper(&self) {}
    fn producers(&self) -> usize {
        1
    }
    fn push(&self, _: usize, item: u64) -> bool {
        !matches!(self.0.try_send(item), Err(TrySendError::Full(_)))
    }
    fn pop(&self, (): &mut ()) -> bool {
        self.1.try_recv().is_ok()
    }
}

/// From the growth of the resident set, so with everything the allocator adds.
fn memory() {
    const SO_MANY: usize = 200_000;
    let Some(before) = resident() else {
        println!("memory per idle producer: not measured, there is no /proc/self/statm here");
        return;
    };
    let bench = Bench::new(SO_MANY);
    let after = resident().unwrap_or(before);
    let total = after.saturating_sub(before) as f64 / SO_MANY as f64;
    println!(
        "memory per idle producer, from the resident set with {SO_MANY} of them: {total:.0} bytes,",
    );
    record("memory", "an idle producer", OURS, "B", total.into());
    println!("  {} of them its handle", size_of::<Producer<u64>>());
    println!();
    drop(bench);
}

/// Bytes, given a page size of 4096.
fn resident() -> Option<usize> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    Some(statm.split(' ').nth(1)?.parse::<usize>().ok()? * 4096)
}

fn nanos_per(count: usize, mut body: impl FnMut()) -> f64 {
    let start = Instant::now();
    for _ in 0..count {
        body();
    }
    start.elapsed().as_nanos() as f64 / count as f64
}

/// What `rounds` rounds give, after one to warm up. Each round takes everything once, so that what
/// disturbs the machine for a while disturbs all alike.
fn interleave(rounds: usize, measures: &mut [Box<dyn FnMut() -> f64 + '_>]) -> Vec<Spread> {
    let mut samples = vec![Vec::with_capacity(rounds); measures.len()];
    for round in 0..=rounds {
        for (measure, samples) in measures.iter_mut().zip(&mut samples) {
            let sample = measure();
            if round > 0 {
                samples.push(sample);
            }
        }
    }
    samples.into_iter().map(Spread::of).collect()
}
