// SPDX-License-Identifier: MIT OR Apache-2.0
//! Aside: threads for what may block and is not a handler, such as closing descriptors that clients have passed.
//!
//! A descriptor may be a socket whose `close()` waits for its peer (`SO_LINGER`), or a file of a file system that
//! hangs; a user database may be a network away.

use std::collections::{HashMap, VecDeque};
use std::sync::{Condvar, LazyLock, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// Threads at most. They are started when there is something to do, and end when there is nothing.
const THREADS: usize = 4;

/// Threads that the jobs of one owner may hold at a time: others' jobs get by.
const THREADS_PER_OWNER: usize = 2;

/// How long a thread waits for another job before it ends.
const PATIENCE: Duration = Duration::from_secs(10);

/// Whose jobs they are: those of one owner wait for each other before they hold up anybody else's.
pub(crate) type Owner = u64;

type Job = Box<dyn FnOnce() + Send>;

/// Jobs that wait or run. The amount that waits is bounded by what the jobs hold: a descriptor is charged until it is
/// closed.
#[derive(Default)]
struct Aside {
    owners: HashMap<Owner, Jobs>,
    /// Owners that have a job that may run, each once, in turn.
    ready: VecDeque<Owner>,
    threads: usize,
    idle: usize,
}

#[derive(Default)]
struct Jobs {
    waiting: VecDeque<Job>,
    running: usize,
    /// Whether the owner is in `Aside::ready`.
    listed: bool,
}

static ASIDE: LazyLock<(Mutex<Aside>, Condvar)> = LazyLock::new(Default::default);

/// Runs `job` on another thread, soon. Jobs of one owner may run at the same time.
pub(crate) fn aside(owner: Owner, job: impl FnOnce() + Send + 'static) {
    let mut aside = lock();
    let jobs = aside.owners.entry(owner).or_default();
    jobs.waiting.push_back(Box::new(job));
    aside.list(owner);
    aside.find_threads();
}

impl Aside {
    /// Lets the owner have a turn if one of its jobs may run.
    fn list(&mut self, owner: Owner) {
        let Some(jobs) = self.owners.get_mut(&owner) else { return };
        if !jobs.listed && !jobs.waiting.is_empty() && jobs.running < THREADS_PER_OWNER {
            jobs.listed = true;
            self.ready.push_back(owner);
        }
    }

    /// Wakes a thread for what is ready, or starts one if those that are idle have enough to do.
    fn find_threads(&mut self) {
        if self.ready.len() <= self.idle {
            ASIDE.1.notify_all();
        } else if self.threads < THREADS {
            self.threads += 1;
            let spawned = thread::Builder::new().name("qmp-aside".into()).spawn(work);
            if let Err(error) = spawned {
                // The next job tries again.
                self.threads -= 1;
                tracing::error!(%error, "cannot start a thread for what may block");
            }
        }
    }

    fn next(&mut self) -> Option<(Owner, Job)> {
        let owner = self.ready.pop_front()?;
        let jobs = self.owners.get_mut(&owner)?;
        jobs.listed = false;
        let job = jobs.waiting.pop_front()?;
        jobs.running += 1;
        self.list(owner);
        if !self.ready.is_empty() {
            self.find_threads();
        }
        Some((owner, job))
    }

    fn done(&mut self, owner: Owner) {
        let Some(jobs) = self.owners.get_mut(&owner) else { return };
        jobs.running -= 1;
        if jobs.running == 0 && jobs.waiting.is_empty() {
            self.owners.remove(&owner);
        } else {
            self.list(owner);
        }
    }
}

fn work() {
    let mut aside = lock();
    loop {
        if let Some((owner, job)) = aside.next() {
            drop(aside);
            let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(job));
            if done.is_err() {
                tracing::error!("a job that was run aside has panicked");
            }
            aside = lock();
            aside.done(owner);
            continue;
        }
        aside.idle += 1;
        let (next, waited) =
            ASIDE.1.wait_timeout(aside, PATIENCE).unwrap_or_else(PoisonError::into_inner);
        aside = next;
        aside.idle -= 1;
        if waited.timed_out() && aside.ready.is_empty() {
            aside.threads -= 1;
            return;
        }
    }
}

fn lock() -> MutexGuard<'static, Aside> {
    ASIDE.0.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn an_owner_whose_jobs_hang_holds_up_no_other() {
        let (hang, hung) = channel::<()>();
        let hung = std::sync::Arc::new(Mutex::new(hung));
        for _ in 0..10 {
            let hung = std::sync::Arc::clone(&hung);
            aside(1, move || {
                let _ = hung.lock().unwrap().recv();
            });
        }
        let (done, other) = channel();
        for number in 0..10 {
            let done = done.clone();
            aside(2, move || done.send(number).unwrap());
        }
        let mut all: Vec<i32> = (0..10).map(|_| other.recv().unwrap()).collect();
        all.sort_unstable();
        assert_eq!(all, (0..10).collect::<Vec<_>>());
        drop(hang);
    }

    #[test]
    fn a_job_that_panics_ends_no_thread() {
        let (done, told) = channel();
        aside(3, || panic!("as tested"));
        aside(3, move || done.send(()).unwrap());
        told.recv().unwrap();
    }
}
