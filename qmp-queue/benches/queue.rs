// SPDX-License-Identifier: MIT OR Apache-2.0
//! The cost of an item, beside that of the alternatives: a channel, and a queue per producer that are scanned.

use std::collections::VecDeque;
use std::hint::black_box;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion};
use crossbeam_channel::{Receiver, Sender, bounded};
use qmp_queue::{Mode, Producer, Queue};

const LIMIT: usize = Mode::DEFAULT_LIMIT.get();
const SIZES: [usize; 6] = [1, 10, 100, 1_000, 10_000, 100_000];

fn main() {
    let criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_secs(1));
    let mut criterion = criterion.configure_from_args();
    idle_producers(&mut criterion);
    against_a_channel(&mut criterion);
    against_a_scan(&mut criterion);
    criterion.final_summary();
}

fn idle_producers(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("push, pop and done on one thread");
    for size in SIZES {
        let one_busy = format!("{size} producers, one busy");
        group.bench_function(BenchmarkId::new("qmp-queue", &one_busy), |bencher| {
            let bench = Bench::new(size);
            bencher.iter(|| {
                bench.push(0, black_box(0));
                bench.pop()
            });
        });
        group.bench_function(BenchmarkId::new("scanned list", &one_busy), |bencher| {
            let list = LockedScan::new(size);
            // The served producer goes to the end, so all others are scanned for its next item.
            bencher.iter(|| (list.push(0, black_box(0)), list.pop()));
        });
    }
    for size in SIZES {
        let all_busy = BenchmarkId::new("qmp-queue", format!("{size} producers, all busy"));
        group.bench_function(all_busy, |bencher| {
            let bench = Bench::new(size);
            for producer in 0..size {
                (0..LIMIT / 2).for_each(|_| _ = bench.push(producer, producer));
            }
            bencher.iter(|| {
                let served = bench.pop().unwrap_or_default();
                bench.push(served, black_box(served))
            });
        });
    }
}

fn against_a_channel(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("one producer");
    for (what, items) in [("one at a time, one thread", 1), ("eight at a time, one thread", LIMIT)]
    {
        group.bench_function(BenchmarkId::new("qmp-queue", what), |bencher| {
            let bench = Bench::new(1);
            bencher.iter(|| exchange(&bench, items));
        });
        group.bench_function(BenchmarkId::new("crossbeam-channel", what), |bencher| {
            let channel = Channel::new();
            bencher.iter(|| exchange(&channel, items));
        });
    }
    let what = "two threads";
    group.bench_function(BenchmarkId::new("qmp-queue", what), |bencher| {
        let bench = Bench::new(1);
        bencher.iter_custom(|items| contend(items, 1, 1, &bench));
    });
    group.bench_function(BenchmarkId::new("crossbeam-channel", what), |bencher| {
        let channel = Channel::new();
        bencher.iter_custom(|items| contend(items, 1, 1, &channel));
    });
}

fn against_a_scan(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("two threads push, one pops");
    for (size, busy, name) in
        [(1, 1, "one"), (100, 1, "one"), (100, 100, "all"), (10_000, 1, "one")]
    {
        let what = format!("{size} producers, {name} busy");
        group.bench_function(BenchmarkId::new("qmp-queue", &what), |bencher| {
            let bench = Bench::new(size);
            bencher.iter_custom(|items| contend(items, 2, busy, &bench));
        });
        group.bench_function(BenchmarkId::new("locked list", &what), |bencher| {
            let list = LockedScan::new(size);
            bencher.iter_custom(|items| contend(items, 2, busy, &list));
        });
    }
}

/// Something with items of several producers in it, each of which is the number of its producer.
trait Contended: Sync {
    /// Returns whether there was room.
    fn push(&self, producer: usize, item: usize) -> bool;
    fn pop(&self) -> Option<usize>;
}

fn exchange(contended: &impl Contended, items: usize) {
    (0..items).for_each(|item| _ = black_box(contended.push(0, item)));
    (0..items).for_each(|_| _ = black_box(contended.pop()));
}

/// Measures how long it takes to pop `items`, while other threads push to their share of the busy producers in turn.
fn contend(items: u64, pushers: usize, busy: usize, contended: &impl Contended) -> Duration {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for pusher in 0..pushers {
            let stop = &stop;
            scope.spawn(move || {
                let mut producers = (pusher % busy..busy).step_by(pushers).cycle();
                let mut refusals = 0;
                while !stop.load(Ordering::Relaxed) {
                    let producer = producers.next().unwrap_or_default();
                    refusals = if contended.push(producer, producer) { 0 } else { refusals + 1 };
                    if refusals >= busy.min(64) {
                        refusals = 0;
                        thread::yield_now();
                    }
                }
            });
        }
        let start = Instant::now();
        for _ in 0..items {
            while contended.pop().is_none() {
                thread::yield_now();
            }
        }
        let elapsed = start.elapsed();
        stop.store(true, Ordering::Relaxed);
        elapsed
    })
}

/// A queue and its producers.
struct Bench {
    queue: Queue<usize>,
    producers: Vec<Producer<usize>>,
}

impl Bench {
    fn new(size: usize) -> Self {
        let queue = Queue::new();
        let producers = (0..size).map(|_| queue.register(Mode::default())).collect();
        Self { queue, producers }
    }
}

impl Contended for Bench {
    fn push(&self, producer: usize, item: usize) -> bool {
        self.producers[producer].push(item).is_ok()
    }

    fn pop(&self) -> Option<usize> {
        let popped = self.queue.try_pop()?;
        black_box(popped.ticket.done());
        Some(popped.item)
    }
}

/// A queue per producer, and a list that is scanned under a lock, as QEMU's is.
struct LockedScan {
    producers: Vec<Mutex<VecDeque<usize>>>,
    order: Mutex<VecDeque<usize>>,
}

impl LockedScan {
    fn new(size: usize) -> Self {
        let producers = (0..size).map(|_| Mutex::default()).collect();
        Self { producers, order: Mutex::new((0..size).collect()) }
    }
}

impl Contended for LockedScan {
    fn push(&self, producer: usize, item: usize) -> bool {
        let mut items = self.producers[producer].lock().unwrap();
        let has_room = items.len() < LIMIT;
        if has_room {
            items.push_back(item);
        }
        has_room
    }

    fn pop(&self) -> Option<usize> {
        let mut order = self.order.lock().unwrap();
        for place in 0..order.len() {
            let item = self.producers[order[place]].lock().unwrap().pop_front();
            if item.is_some() {
                let served = order.remove(place);
                order.extend(served);
                return item;
            }
        }
        None
    }
}

struct Channel(Sender<usize>, Receiver<usize>);

impl Channel {
    fn new() -> Self {
        let (sender, receiver) = bounded(LIMIT);
        Self(sender, receiver)
    }
}

impl Contended for Channel {
    fn push(&self, _: usize, item: usize) -> bool {
        self.0.try_send(item).is_ok()
    }

    fn pop(&self) -> Option<usize> {
        self.1.try_recv().ok()
    }
}
