// SPDX-License-Identifier: MIT OR Apache-2.0
//! The crate's own sources on shuttle's primitives. Each test runs many times, under schedules that
//! shuttle chooses at every lock and wait. A lost wake-up or resume is then a deadlock, which
//! shuttle reports with the schedule that led to it.
//!
//! Shuttle rather than loom: all data is behind one lock, so the order of lock operations matters
//! and not the memory model; and scenarios of this size (three or four threads, condition variables)
//! are beyond loom's exhaustive search.

#![allow(dead_code, unreachable_pub, missing_docs)]

#[path = "../src/fair.rs"]
mod fair;
#[path = "../src/mode.rs"]
mod mode;
#[path = "../src/outcome.rs"]
mod outcome;
#[path = "../src/producer.rs"]
mod producer;
#[path = "../src/queue.rs"]
mod queue;
#[path = "../src/ready.rs"]
mod ready;
#[path = "../src/shared.rs"]
mod shared;
#[path = "../src/stats.rs"]
mod stats;
#[path = "../src/ticket.rs"]
mod ticket;

/// Replaces the sources' own module.
mod sync {
    pub(crate) use shuttle::sync::{Condvar, Mutex, MutexGuard};
}

pub use mode::Mode;
pub use outcome::{ProducerId, PushError, Pushed, Resume};
pub use producer::Producer;
pub use queue::Queue;
pub use stats::ProducerStats;
pub use ticket::Ticket;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

use shuttle::sync::{Condvar, Mutex};
use shuttle::thread;

const RANDOM: usize = 1_500;
const PRIORITIES: usize = 1_500;
const EXHAUSTIVE: usize = 10_000;

/// Uniformly random schedules, and those with few but badly timed switches.
fn explore(scenario: impl Fn() + Send + Sync + Copy + 'static) {
    shuttle::check_random(scenario, RANDOM);
    shuttle::check_pct(scenario, PRIORITIES, 3);
}

fn up_to(limit: usize) -> Mode {
    Mode::UpTo(limit.try_into().unwrap())
}

/// A counter to wait for.
#[derive(Clone, Default)]
struct Bell(Arc<(Mutex<usize>, Condvar)>);

impl Bell {
    fn ring(&self) {
        *self.0.0.lock().unwrap() += 1;
        self.0.1.notify_all();
    }

    /// Waits until it has been rung more often than waited for.
    fn wait(&self) {
        let mut rung = self.0.0.lock().unwrap();
        while *rung == 0 {
            rung = self.0.1.wait(rung).unwrap();
        }
        *rung -= 1;
    }

    fn unheard(&self) -> usize {
        *self.0.0.lock().unwrap()
    }
}

/// Pushes, and whenever suspended waits until resumed.
fn push_patiently(producer: &Producer<usize>, resumed: &Bell, items: impl Iterator<Item = usize>) {
    for item in items {
        if producer.push(item).unwrap() == Pushed::Suspended {
            resumed.wait();
        }
    }
}

fn register_with_bell(queue: &Queue<usize>, mode: Mode) -> (Producer<usize>, Bell) {
    let bell = Bell::default();
    let hook = bell.clone();
    (queue.register_with_hook(mode, move |_| hook.ring()), bell)
}

/// Two producers with back-pressure, two blocking poppers: all items arrive in order, and all
/// threads end.
#[test]
fn push_pop_suspend_resume_finish() {
    explore(|| {
        let queue = Queue::new();
        let pushers: Vec<_> = [up_to(2), Mode::OneInProgress]
            .into_iter()
            .map(|mode| {
                let (producer, resumed) = register_with_bell(&queue, mode);
                thread::spawn(move || {
                    push_patiently(&producer, &resumed, 0..4);
                    producer
                })
            })
            .collect();
        let poppers: Vec<_> = (0..2)
            .map(|_| {
                let queue = queue.clone();
                thread::spawn(move || {
                    let mut popped = Vec::new();
                    while let Some(next) = queue.pop() {
                        popped.push((next.producer, next.item));
                    }
                    popped
                })
            })
            .collect();
        let producers: Vec<_> = pushers.into_iter().map(|pusher| pusher.join().unwrap()).collect();
        queue.finish();
        let mut all: Vec<_> = Vec::new();
        for popper in poppers {
            let popped = popper.join().unwrap();
            for producer in &producers {
                let own =
                    popped.iter().filter(|(id, _)| *id == producer.id()).map(|(_, item)| item);
                assert!(own.is_sorted(), "FIFO");
            }
            all.extend(popped);
        }
        all.sort_unstable();
        let expected: Vec<_> = producers
            .iter()
            .flat_map(|producer| (0..4).map(|item| (producer.id(), item)))
            .collect();
        assert_eq!(all, expected);
    });
}

/// Two threads push through one producer.
#[test]
fn a_producer_shared_by_two_threads() {
    explore(|| {
        let queue = Queue::new();
        let producer = Arc::new(queue.register(up_to(8)));
        let pushers: Vec<_> = (0..2)
            .map(|pusher| {
                let producer = Arc::clone(&producer);
                thread::spawn(move || {
                    for n in 0..3 {
                        assert_eq!(producer.push(10 * pusher + n), Ok(Pushed::Ready));
                    }
                })
            })
            .collect();
        let popped: Vec<_> = (0..6).map(|_| queue.pop().unwrap().item).collect();
        for pusher in pushers {
            pusher.join().unwrap();
        }
        for pusher in 0..2 {
            assert!(popped.iter().filter(|item| **item / 10 == pusher).is_sorted(), "FIFO");
        }
        assert!(queue.is_empty());
    });
}

/// As many blocking poppers as items, each of which takes only one. Where a push wakes nobody, a pop
/// has to.
#[test]
fn every_item_wakes_a_sleeper() {
    explore(|| {
        let queue = Queue::new();
        let producer = Arc::new(queue.register(up_to(8)));
        let poppers = [(); 4].map(|()| {
            let queue = queue.clone();
            thread::spawn(move || queue.pop().unwrap().item)
        });
        let pushers = [(); 2].map(|()| {
            let producer = Arc::clone(&producer);
            thread::spawn(move || {
                for item in 0..2 {
                    assert_eq!(producer.push(item), Ok(Pushed::Ready));
                }
            })
        });
        let _ = pushers.map(|pusher| pusher.join().unwrap());
        let _ = poppers.map(|popper| popper.join().unwrap());
        assert!(queue.is_empty());
    });
}

/// A consumer that pops until there is no more, and then waits until its wake-up hook is called.
#[test]
fn no_wake_up_is_lost() {
    explore(|| {
        let wake = Bell::default();
        let hook = wake.clone();
        let queue = Queue::with_wake_hook(move || hook.ring());
        let pushers = [(); 2].map(|()| {
            let producer = queue.register(up_to(8));
            thread::spawn(move || {
                for item in 0..3 {
                    assert!(producer.push(item).is_ok());
                }
                producer
            })
        });
        let mut popped = 0;
        while popped < 6 {
            wake.wait();
            while let Some(next) = queue.try_pop() {
                popped += 1;
                if !next.more {
                    break;
                }
            }
        }
        for pusher in pushers {
            drop(pusher.join().unwrap());
        }
    });
}

/// The same with tokens: if items are left when all threads have ended, there is a token for them.
#[test]
fn no_token_is_lost() {
    explore(|| {
        let queue = Queue::new();
        // Called here, as shuttle does not know of the `OnceLock` that the first call initialises.
        let _ = queue.wakeups();
        let producers: Vec<_> = (0..2).map(|_| Arc::new(queue.register(up_to(8)))).collect();
        let pushers: Vec<_> = producers
            .iter()
            .map(|producer| {
                let producer = Arc::clone(producer);
                thread::spawn(move || {
                    for item in 0..2 {
                        assert!(producer.push(item).is_ok());
                    }
                })
            })
            .collect();
        for _ in 0..4 {
            if queue.wakeups().try_recv().is_ok() {
                while queue.try_pop().is_some_and(|popped| popped.more) {}
            }
            thread::yield_now();
        }
        for pusher in pushers {
            pusher.join().unwrap();
        }
        assert!(queue.is_empty() || queue.wakeups().is_full());
    });
}

/// Whenever the queue is closed, each accepted item is popped or returned, and each suspension ends
/// once.
#[test]
fn close_while_pushing_and_popping() {
    explore(|| {
        let queue = Queue::new();
        let accepted = Arc::new(AtomicUsize::new(0));
        let pushers: Vec<_> = [up_to(2), Mode::OneInProgress]
            .into_iter()
            .map(|mode| {
                let (producer, resumed) = register_with_bell(&queue, mode);
                let accepted = Arc::clone(&accepted);
                thread::spawn(move || {
                    for item in 0..3 {
                        match producer.push(item) {
                            Ok(Pushed::Ready) => _ = accepted.fetch_add(1, Relaxed),
                            Ok(Pushed::Suspended) => {
                                accepted.fetch_add(1, Relaxed);
                                resumed.wait();
                            }
                            Err(error) => {
                                assert!(matches!(error, PushError::Closed(_)));
                                break;
                            }
                        }
                    }
                    assert_eq!(resumed.unheard(), 0);
                    producer
                })
            })
            .collect();
        let popper = thread::spawn({
            let queue = queue.clone();
            move || std::iter::from_fn(|| queue.pop()).count()
        });
        let handed_back = queue.close().items.len();
        let popped = popper.join().unwrap();
        for pusher in pushers {
            assert!(!pusher.join().unwrap().is_suspended());
        }
        assert_eq!(popped + handed_back, accepted.load(Relaxed));
    });
}

/// A producer goes away while its items, and another's, are popped.
#[test]
fn close_a_producer_while_popping() {
    explore(|| {
        let queue = Queue::new();
        let leaving = queue.register(up_to(8));
        let staying = queue.register(up_to(8));
        let id = staying.id();
        let stayer = thread::spawn(move || {
            for item in 0..3 {
                assert!(staying.push(item).is_ok());
            }
            staying
        });
        let leaver = thread::spawn(move || {
            for item in 0..3 {
                assert!(leaving.push(item).is_ok());
            }
            leaving.close().items.len()
        });
        let popper = thread::spawn({
            let queue = queue.clone();
            move || {
                std::iter::from_fn(|| queue.pop()).map(|popped| popped.producer).collect::<Vec<_>>()
            }
        });
        let handed_back = leaver.join().unwrap();
        let staying = stayer.join().unwrap();
        queue.finish();
        let popped = popper.join().unwrap();
        assert_eq!(popped.iter().filter(|popped| **popped == id).count(), 3);
        assert_eq!(popped.len() - 3 + handed_back, 3);
        drop(staying);
    });
}

/// The mode changes while items are pushed, popped and done. There are as many resumes as
/// suspensions.
#[test]
fn change_the_mode_while_popping() {
    explore(|| {
        let queue = Queue::new();
        let (producer, resumed) = register_with_bell(&queue, Mode::OneInProgress);
        let producer = Arc::new(producer);
        let popper = thread::spawn({
            let (queue, producer) = (queue.clone(), Arc::clone(&producer));
            move || {
                let first = queue.pop().unwrap();
                // A resume goes to the hook.
                assert_eq!(producer.set_mode(up_to(2)), None);
                assert_eq!(first.ticket.done(), None);
                for _ in 1..5 {
                    drop(queue.pop().unwrap());
                }
            }
        });
        push_patiently(&producer, &resumed, 0..5);
        popper.join().unwrap();
        assert_eq!(resumed.unheard(), 0);
        assert!(!producer.is_suspended());
    });
}

/// Two consumers never have an item each of a producer in mode `Serial`, and both are told of the
/// end.
#[test]
fn one_after_the_other_with_two_consumers() {
    explore(|| {
        let queue = Queue::new();
        let producer = queue.register(Mode::Serial(Mode::DEFAULT_LIMIT));
        let in_progress = Arc::new(AtomicBool::new(false));
        let poppers: Vec<_> = (0..2)
            .map(|_| {
                let (queue, in_progress) = (queue.clone(), Arc::clone(&in_progress));
                thread::spawn(move || {
                    let mut items = Vec::new();
                    while let Some(popped) = queue.pop() {
                        assert!(!in_progress.swap(true, Relaxed), "held back");
                        items.push(popped.item);
                        thread::yield_now();
                        assert!(in_progress.swap(false, Relaxed));
                        assert_eq!(popped.ticket.done(), None);
                    }
                    items
                })
            })
            .collect();
        for item in 0..4 {
            let _ = producer.push(item).unwrap();
        }
        queue.finish();
        let mut items: Vec<_> =
            poppers.into_iter().flat_map(|popper| popper.join().unwrap()).collect();
        items.sort_unstable();
        assert_eq!(items, [0, 1, 2, 3]);
    });
}

/// The last handle is dropped during a push.
#[test]
fn drop_the_queue_while_pushing() {
    explore(|| {
        let queue = Queue::new();
        let (producer, resumed) = register_with_bell(&queue, up_to(1));
        let pusher = thread::spawn(move || {
            if producer.push(0).is_ok() {
                resumed.wait();
            }
            assert_eq!(producer.push(1), Err(PushError::Closed(1)));
        });
        drop(queue);
        pusher.join().unwrap();
    });
}

/// Small enough to try every schedule, or as many as time allows.
#[test]
fn one_push_against_one_sleeping_pop_exhaustively() {
    shuttle::check_dfs(
        || {
            let queue = Queue::new();
            let producer = queue.register(up_to(1));
            let pusher = thread::spawn(move || {
                assert_eq!(producer.push(7), Ok(Pushed::Suspended));
                producer
            });
            assert_eq!(queue.pop().unwrap().item, 7);
            let producer = pusher.join().unwrap();
            assert!(!producer.is_suspended());
        },
        Some(EXHAUSTIVE),
    );
}

#[test]
fn one_push_against_close_exhaustively() {
    shuttle::check_dfs(
        || {
            let queue = Queue::new();
            let producer = queue.register(up_to(8));
            let pusher = thread::spawn(move || {
                let accepted = producer.push(7).is_ok();
                (accepted, producer)
            });
            let handed_back = queue.close().items.len();
            let (accepted, producer) = pusher.join().unwrap();
            assert_eq!(handed_back, usize::from(accepted));
            assert!(producer.is_closed());
        },
        Some(EXHAUSTIVE),
    );
}
