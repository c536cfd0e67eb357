// SPDX-License-Identifier: MIT OR Apache-2.0
//! The hand-over of the leadership and the mailbox, compiled against shuttle's primitives: each test runs many times,
//! under schedules that shuttle chooses at every lock, wait and atomic access. A hand-over or a notice that gets lost is
//! a deadlock then, which shuttle reports with the schedule that led there.

#![allow(dead_code, unreachable_pub, missing_docs)]

#[path = "../src/engine/leader.rs"]
mod leader;
#[path = "../src/io/mailbox.rs"]
mod mailbox;

/// In the place of the crate's own.
mod sync {
    pub(crate) use shuttle::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
    pub(crate) use shuttle::sync::{Mutex, MutexGuard};
}

mod io {
    pub(crate) use super::sync;
}

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use shuttle::rand::Rng;
use shuttle::sync::atomic::{AtomicUsize, Ordering};
use shuttle::sync::{Condvar, Mutex};
use shuttle::thread;

use self::leader::{Alarm, Leadership, Waited};
use self::mailbox::{Mailbox, Notice};

type Token = u32;

const RANDOM: usize = 1_500;
const PRIORITIES: usize = 1_500;

fn explore(scenario: impl Fn() + Send + Sync + Copy + 'static) {
    shuttle::check_random(scenario, RANDOM);
    shuttle::check_pct(scenario, PRIORITIES, 3);
}

/// Instead of an eventfd: set until somebody has waited for it.
#[derive(Default)]
struct Waker {
    set: Mutex<bool>,
    changed: Condvar,
}

impl Waker {
    fn new() -> std::io::Result<Waker> {
        Ok(Waker::default())
    }

    fn wake(&self) {
        *self.set.lock().unwrap() = true;
        self.changed.notify_all();
    }

    fn wait(&self) {
        let mut set = self.set.lock().unwrap();
        while !*set {
            set = self.changed.wait(set).unwrap();
        }
        *set = false;
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        unreachable!("nothing is polled here")
    }
}

/// What the loop does when it has nothing to do.
fn sleep(mailbox: &Mailbox) {
    if mailbox.announce_sleep() {
        mailbox.waker.wait();
        mailbox.awake();
    }
}

/// Expires at any time after it was armed, once for one of those that wait.
#[derive(Default)]
struct AnyTime {
    /// Whether the patience of those that have some may be over at any time, or never is.
    impatient: bool,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    armed: bool,
    released: bool,
}

impl Alarm for AnyTime {
    fn arm(&self) {
        self.state.lock().unwrap().armed = true;
        self.changed.notify_all();
    }

    fn wait(&self, until: Option<Instant>) -> Waited {
        let until = until.filter(|_| self.impatient);
        // A period is long: others get on meanwhile, and a follower that arms again and again is no busy loop.
        thread::yield_now();
        let mut state = self.state.lock().unwrap();
        loop {
            if state.armed || state.released {
                state.armed = false;
                return Waited::Expired;
            }
            if until.is_some() && shuttle::rand::thread_rng().gen_bool(0.5) {
                return Waited::Gave;
            }
            state = match until {
                None => self.changed.wait(state).unwrap(),
                Some(_) => {
                    drop(state);
                    thread::yield_now();
                    self.state.lock().unwrap()
                }
            };
        }
    }

    fn release(&self) {
        self.state.lock().unwrap().released = true;
        self.changed.notify_all();
    }
}

type Work = Box<dyn FnOnce() + Send>;

/// A loop that hands out work.
struct Loop {
    work: VecDeque<Work>,
    /// How much of it is not done yet.
    left: usize,
}

struct Engine {
    leadership: Leadership<Loop, AnyTime>,
    mailbox: Mailbox,
    done: Mutex<Vec<()>>,
    leads: AtomicUsize,
}

impl Engine {
    fn new(work: Vec<Work>) -> Arc<Engine> {
        Engine::with(work, AnyTime::default())
    }

    fn with(work: Vec<Work>, alarm: AnyTime) -> Arc<Engine> {
        let led = Loop { left: work.len(), work: work.into() };
        Arc::new(Engine {
            leadership: Leadership::new(led, alarm),
            mailbox: Mailbox::new().unwrap(),
            done: Mutex::default(),
            leads: AtomicUsize::new(0),
        })
    }

    /// What the engine's threads do: lead, let go to run something, take the leadership back or post the result.
    fn serve(&self) {
        let mut lead = self.leadership.try_lead();
        loop {
            if lead.is_none() {
                lead = self.leadership.stand_by(Duration::ZERO);
            }
            let Some(mut leading) = lead.take() else { return };
            self.leads.fetch_add(1, Ordering::SeqCst);
            loop {
                let mut taken = Vec::new();
                self.mailbox.take(&mut taken);
                leading.left -= self.done.lock().unwrap().drain(..).count();
                if leading.left == 0 {
                    self.leadership.end();
                    return;
                }
                let Some(work) = leading.work.pop_front() else {
                    sleep(&self.mailbox);
                    continue;
                };
                self.leadership.let_go(leading);
                work();
                match self.leadership.try_lead() {
                    Some(again) => {
                        leading = again;
                        leading.left -= 1;
                    }
                    None => {
                        self.done.lock().unwrap().push(());
                        self.mailbox.wake();
                        break;
                    }
                }
            }
        }
    }

    fn run(self: &Arc<Self>, threads: usize) {
        let threads: Vec<_> = (0..threads)
            .map(|_| {
                let engine = Arc::clone(self);
                thread::spawn(move || engine.serve())
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    }
}

/// Something that one piece of work waits for and another one gives.
#[derive(Clone, Default)]
struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    fn open(&self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_all();
    }

    fn pass(&self) {
        let mut open = self.0.0.lock().unwrap();
        while !*open {
            open = self.0.1.wait(open).unwrap();
        }
    }
}

#[test]
fn a_run_that_blocks_is_stepped_in_for() {
    explore(|| {
        let gate = Gate::default();
        let (blocked, opens) = (gate.clone(), gate);
        let work: Vec<Work> =
            vec![Box::new(move || blocked.pass()), Box::new(move || opens.open())];
        Engine::new(work).run(2);
    });
}

#[test]
fn two_runs_that_block_are_stepped_in_for() {
    explore(|| {
        let (first, second) = (Gate::default(), Gate::default());
        let opens = [first.clone(), second.clone()];
        let work: Vec<Work> = vec![
            Box::new(move || first.pass()),
            Box::new(move || second.pass()),
            Box::new(move || opens.iter().for_each(Gate::open)),
        ];
        Engine::new(work).run(3);
    });
}

#[test]
fn everything_is_run_once_and_all_threads_end() {
    explore(|| {
        let ran = Arc::new(AtomicUsize::new(0));
        let one = || {
            let ran = Arc::clone(&ran);
            Box::new(move || _ = ran.fetch_add(1, Ordering::SeqCst)) as Work
        };
        Engine::new((0..4).map(|_| one()).collect()).run(3);
        assert_eq!(ran.load(Ordering::SeqCst), 4);
    });
}

#[test]
fn a_result_from_another_thread_wakes_the_leader() {
    explore(|| {
        // One piece of work is done elsewhere: nobody here ever runs it.
        let engine = Engine::new(vec![Box::new(|| ())]);
        {
            let mut lead = engine.leadership.try_lead().unwrap();
            lead.left += 1;
        }
        let elsewhere = {
            let engine = Arc::clone(&engine);
            thread::spawn(move || {
                engine.done.lock().unwrap().push(());
                engine.mailbox.post(1, Notice::Wake);
            })
        };
        engine.run(2);
        elsewhere.join().unwrap();
    });
}

#[test]
fn a_follower_that_nobody_needs_leaves_one_behind() {
    explore(|| {
        let gate = Gate::default();
        let (blocked, opens) = (gate.clone(), gate);
        // With three threads, one may leave before the other is needed, and never both.
        let work: Vec<Work> =
            vec![Box::new(|| ()), Box::new(move || blocked.pass()), Box::new(move || opens.open())];
        Engine::with(work, AnyTime { impatient: true, ..AnyTime::default() }).run(3);
    });
}
