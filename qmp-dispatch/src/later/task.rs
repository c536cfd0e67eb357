// SPDX-License-Identifier: MIT OR Apache-2.0
//! An async handler at work, and who polls it.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Polled, Poll, Wake, Waker, ready};
use std::thread::{self, Thread};

use qmp_proto::{Error, Json};

use crate::Monitor;
use crate::closing::Closed;
use crate::reply::Reply;

/// The executor of [async commands](crate::Registry::async_command), which the embedder brings.
///
/// Implemented for functions that take a [`Task`]. `qmp-server` has one for Tokio.
pub trait Spawn: Send + Sync + 'static {
    /// Polls the task until it is done. Called on the thread that executes commands, which must not wait for that.
    ///
    /// An executor whose timers and sockets can be used on this thread calls [`Task::poll_now`] first, so that a command
    /// that does not wait for anything is answered at once. If the task is dropped, its request is answered with an
    /// error.
    fn spawn(&self, task: Task);
}

impl<F: Fn(Task) + Send + Sync + 'static> Spawn for F {
    fn spawn(&self, task: Task) {
        self(task);
    }
}

/// A request that is served by an async handler: a future that answers it. While it is polled, and while the handler's
/// future is dropped, the client's monitor is the [current](crate::current) one.
///
/// ```
/// use std::thread;
///
/// use qmp_dispatch::{Registry, Task};
///
/// // A thread for each request that waits.
/// Registry::new().set_executor(|task: Task| {
///     if let Some(task) = task.poll_now() {
///         thread::spawn(|| task.run());
///     }
/// });
/// ```
#[must_use = "the client waits until the task has been polled to its end"]
pub struct Task {
    monitor: Arc<Monitor>,
    /// `None` when it is done.
    work: Option<(Handling, Reply)>,
    /// For commands that are cancellable.
    closed: Option<Closed>,
}

/// What an async handler does.
pub(crate) type Handling = Pin<Box<dyn Future<Output = Result<Json, Error>> + Send>>;

impl Task {
    pub(crate) fn new(
        monitor: &Arc<Monitor>,
        handling: Handling,
        reply: Reply,
        is_cancellable: bool,
    ) -> Task {
        let closed = is_cancellable.then(|| Closed::new(reply.request()));
        Task { monitor: Arc::clone(monitor), work: Some((handling, reply)), closed }
    }

    /// Polls for the first time, on this thread. Returns `None` if it is done. Nothing wakes a task that has only been polled
    /// by this: it is to be polled again by an executor.
    pub fn poll_now(mut self) -> Option<Task> {
        let mut polled = Polled::from_waker(Waker::noop());
        Pin::new(&mut self).poll(&mut polled).is_pending().then_some(self)
    }

    /// Polls until it is done, on this thread, which sleeps in between: for tests, and for programs that have a thread for
    /// each request.
    pub fn run(mut self) {
        struct Unpark(Thread);
        impl Wake for Unpark {
            fn wake(self: Arc<Self>) {
                self.0.unpark();
            }
        }
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        while Pin::new(&mut self).poll(&mut Polled::from_waker(&waker)).is_pending() {
            thread::park();
        }
    }

    /// Drops the handler's future.
    fn finish(&mut self) -> Option<Reply> {
        let (handling, reply) = self.work.take()?;
        // If its destructor panics, that is logged, and the request has its answer all the same.
        let _ = self.monitor.run(reply.command(), || drop(handling));
        self.closed = None;
        Some(reply)
    }
}

impl Future for Task {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, polled: &mut Polled<'_>) -> Poll<()> {
        let task = &mut *self;
        if let Some(closed) = &mut task.closed
            && Pin::new(closed).poll(polled).is_ready()
            && let Some(reply) = task.finish()
        {
            reply.abandon();
        }
        let Some((handling, reply)) = &mut task.work else { return Poll::Ready(()) };
        let polled = task.monitor.run(reply.command(), || handling.as_mut().poll(polled));
        let result = match polled {
            Ok(result) => ready!(result),
            Err(panicked) => Err(panicked),
        };
        if let Some(reply) = task.finish() {
            reply.send(result);
        }
        Poll::Ready(())
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.finish();
    }
}

impl fmt::Debug for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let command = self.work.as_ref().map(|(_, reply)| reply.command());
        f.debug_struct("Task")
            .field("command", &command)
            .field("monitor", &self.monitor)
            .finish_non_exhaustive()
    }
}
