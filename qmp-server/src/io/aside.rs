// SPDX-License-Identifier: MIT OR Apache-2.0
//! Aside: threads for what may block or takes long, and is not a handler, such as closing descriptors that clients have
//! passed, or parsing large messages.
//!
//! A descriptor may be a socket whose `close()` waits for its peer (`SO_LINGER`), or a file of a file system that
//! hangs; a user database may be a network away.

use std::collections::{HashMap, VecDeque};
use std::os::fd::OwnedFd;
use std::sync::{Condvar, LazyLock, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// Threads at most that close. Each may be held for as long as one client likes, so there are enough for many clients
/// that do so. They are started when there is something to do, and end when there is nothing.
const CLOSING_THREADS: usize = 32;

/// Threads at most that look something up: never held by a client that passes descriptors.
const LOOK_UP_THREADS: usize = 4;

/// Threads at most that have to do with large messages. Those who send some must not keep all processors busy.
const LARGE_MESSAGE_THREADS: usize = 2;

/// Threads that the jobs of one owner may hold at a time: others' jobs get by.
const THREADS_PER_OWNER: usize = 2;

/// Of large messages, one owner's are dealt with one after the other: they do not block.
const LARGE_MESSAGES_PER_OWNER: usize = 1;

/// How long a thread waits for another job before it ends.
const PATIENCE: Duration = Duration::from_secs(10);

/// Whose jobs they are: those of one owner wait for each other before they hold up anybody else's.
pub(crate) type Owner = u64;

/// Whoever it is not known of who they are.
pub(crate) const STRANGERS: Owner = 1;

type Job = Box<dyn FnOnce() + Send>;

/// Threads of one kind, and their jobs.
struct Aside {
    jobs: LazyLock<Mutex<Jobs>>,
    something: Condvar,
    most: usize,
    per_owner: usize,
}

/// Jobs that wait or run. The amount that waits is bounded by what the jobs hold: a descriptor and a connection are
/// charged until they are closed, and look-ups are counted by who wants them.
#[derive(Default)]
struct Jobs {
    owners: HashMap<Owner, Owned>,
    /// Owners that have a job that may run, each once, in turn.
    ready: VecDeque<Owner>,
    threads: usize,
    idle: usize,
}

#[derive(Default)]
struct Owned {
    waiting: VecDeque<Job>,
    running: usize,
    /// Whether the owner is in `Jobs::ready`.
    listed: bool,
}

static CLOSING: Aside = Aside::new(CLOSING_THREADS, THREADS_PER_OWNER);
static LOOK_UPS: Aside = Aside::new(LOOK_UP_THREADS, THREADS_PER_OWNER);
static LARGE_MESSAGES: Aside = Aside::new(LARGE_MESSAGE_THREADS, LARGE_MESSAGES_PER_OWNER);

/// Closes something on another thread, soon: `close` drops what may take long to be dropped. Jobs of one owner may run at
/// the same time.
pub(crate) fn close_aside(owner: Owner, close: impl FnOnce() + Send + 'static) {
    CLOSING.run(owner, Box::new(close));
}

/// Looks something up on another thread, soon.
pub(crate) fn look_up_aside(owner: Owner, look_up: impl FnOnce() + Send + 'static) {
    LOOK_UPS.run(owner, Box::new(look_up));
}

/// Parses or drops a large message on another thread, soon: others would wait for that.
pub(crate) fn large_message_aside(owner: Owner, job: impl FnOnce() + Send + 'static) {
    LARGE_MESSAGES.run(owner, Box::new(job));
}

/// Closes a descriptor that a client has passed, on a thread where that may take long. A socket does not wait for its peer
/// (`SO_LINGER`): that is the usual way to make it take long, and nobody here wants to know what becomes of the data.
pub(crate) fn close_foreign(fd: OwnedFd) {
    // What is no socket has no such option.
    let _ = rustix::net::sockopt::set_socket_linger(&fd, None);
    drop(fd);
}

impl Aside {
    const fn new(most: usize, per_owner: usize) -> Aside {
        Aside { jobs: LazyLock::new(Mutex::default), something: Condvar::new(), most, per_owner }
    }

    fn lock(&self) -> MutexGuard<'_, Jobs> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&'static self, owner: Owner, job: Job) {
        let mut jobs = self.lock();
        jobs.owners.entry(owner).or_default().waiting.push_back(job);
        jobs.list(owner, self.per_owner);
        self.find_threads(&mut jobs);
    }

    /// Wakes a thread for what is ready, or starts one if those that are idle have enough to do.
    fn find_threads(&'static self, jobs: &mut Jobs) {
        if jobs.ready.len() <= jobs.idle {
            self.something.notify_all();
        } else if jobs.threads < self.most {
            jobs.threads += 1;
            let thread = thread::Builder::new().name("qmp-aside".into());
            if let Err(error) = thread.spawn(|| self.work()) {
                // The next job tries again.
                jobs.threads -= 1;
                tracing::error!(%error, "cannot start a thread for what may block");
            }
        }
    }

    fn work(&'static self) {
        let mut jobs = self.lock();
        loop {
            if let Some((owner, job)) = jobs.next(self.per_owner) {
                if !jobs.ready.is_empty() {
                    self.find_threads(&mut jobs);
                }
                drop(jobs);
                let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(job));
                if done.is_err() {
                    tracing::error!("a job that was run aside has panicked");
                }
                jobs = self.lock();
                jobs.done(owner, self.per_owner);
                continue;
            }
            jobs.idle += 1;
            let waited = self.something.wait_timeout(jobs, PATIENCE);
            let (next, waited) = waited.unwrap_or_else(PoisonError::into_inner);
            jobs = next;
            jobs.idle -= 1;
            if waited.timed_out() && jobs.ready.is_empty() {
                jobs.threads -= 1;
                return;
            }
        }
    }
}

impl Jobs {
    /// Lets the owner have a turn if one of its jobs may run.
    fn list(&mut self, owner: Owner, per_owner: usize) {
        let Some(owned) = self.owners.get_mut(&owner) else { return };
        if !owned.listed && !owned.waiting.is_empty() && owned.running < per_owner {
            owned.listed = true;
            self.ready.push_back(owner);
        }
    }

    fn next(&mut self, per_owner: usize) -> Option<(Owner, Job)> {
        let owner = self.ready.pop_front()?;
        let owned = self.owners.get_mut(&owner)?;
        owned.listed = false;
        let job = owned.waiting.pop_front()?;
        owned.running += 1;
        self.list(owner, per_owner);
        Some((owner, job))
    }

    fn done(&mut self, owner: Owner, per_owner: usize) {
        let Some(owned) = self.owners.get_mut(&owner) else { return };
        owned.running -= 1;
        if owned.running == 0 && owned.waiting.is_empty() {
            self.owners.remove(&owner);
        } else {
            self.list(owner, per_owner);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::mpsc::{Sender, channel};

    use super::*;

    /// Jobs of this owner that end when the sender is dropped.
    fn hanging(owner: Owner, jobs: usize) -> Sender<()> {
        let (hang, hung) = channel::<()>();
        let hung = Arc::new(Mutex::new(hung));
        for _ in 0..jobs {
            let hung = Arc::clone(&hung);
            close_aside(owner, move || {
                let _ = hung.lock().unwrap().recv();
            });
        }
        hang
    }

    #[test]
    fn owners_whose_jobs_hang_hold_up_no_other() {
        // More than enough for all threads, did one of them get more than its share.
        let _hang: Vec<_> = (0..10).map(|owner| hanging(100 + owner, 100)).collect();
        let (done, other) = channel();
        for number in 0..10 {
            let done = done.clone();
            close_aside(2, move || done.send(number).unwrap());
        }
        let mut all: Vec<i32> = (0..10).map(|_| other.recv().unwrap()).collect();
        all.sort_unstable();
        assert_eq!(all, (0..10).collect::<Vec<_>>());
    }

    #[test]
    fn look_ups_wait_for_nothing_that_is_closed() {
        let _hang: Vec<_> =
            (0..CLOSING_THREADS as u64).map(|owner| hanging(200 + owner, 2)).collect();
        let (done, told) = channel();
        look_up_aside(200, move || done.send(()).unwrap());
        told.recv().unwrap();
    }

    #[test]
    fn a_job_that_panics_ends_no_thread() {
        let (done, told) = channel();
        look_up_aside(3, || panic!("as tested"));
        look_up_aside(3, move || done.send(()).unwrap());
        told.recv().unwrap();
    }
}
