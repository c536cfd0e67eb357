// SPDX-License-Identifier: MIT OR Apache-2.0
//! Settings of an engine's threads.

use std::fmt;
use std::io;
use std::sync::Arc;

use super::{Engine, THREADS};
use crate::Quota;

/// Threads of an engine at most, if [`EngineBuilder::most_threads`] does not say otherwise.
const MOST_THREADS: usize = 8;

/// Called first on each thread of an engine.
pub(super) type OnThreadStart = Arc<dyn Fn() + Send + Sync>;

/// Builds an [`Engine`] with non-default settings.
///
/// ```
/// use qmp_server::Engine;
///
/// let engine = Engine::builder()
///     .thread_name("vm7-qmp")
///     .on_thread_start(|| {
///         // Here, a program pins the thread to a processor, or installs a seccomp filter for it.
///         let name = std::thread::current().name().map(str::to_owned);
///         assert!(name.is_some_and(|name| name.starts_with("vm7-qmp-")));
///     })
///     .start()?;
/// assert_eq!(engine.threads(), 2);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone)]
#[must_use = "no engine is started without `start`"]
pub struct EngineBuilder {
    pub(super) most_threads: usize,
    pub(super) thread_name: String,
    pub(super) on_thread_start: OnThreadStart,
    pub(super) per_user: Quota,
}

impl EngineBuilder {
    pub(super) fn new() -> EngineBuilder {
        EngineBuilder {
            most_threads: MOST_THREADS,
            thread_name: "qmp-io".to_owned(),
            on_thread_start: Arc::new(|| {}),
            per_user: Quota::UNLIMITED,
        }
    }

    /// Limits the number of threads; by default there are eight at most. Two are always there. When all are blocked by
    /// commands, clients wait until one of the commands is done.
    pub fn most_threads(mut self, most: usize) -> EngineBuilder {
        self.most_threads = most.max(THREADS);
        self
    }

    /// Sets the beginning of the threads' names, by default `qmp-io`. A dash and a number follow. Linux shows the first 15
    /// bytes of a name.
    pub fn thread_name(mut self, prefix: impl Into<String>) -> EngineBuilder {
        self.thread_name = prefix.into();
        self
    }

    /// Sets what each thread of the engine calls before anything else, such as a function that sets the thread's
    /// affinity or a seccomp filter. Replaces an earlier one.
    ///
    /// Threads are started while the engine runs, too, and by its own threads: what such a thread inherits, a seccomp
    /// filter or an affinity, is already in force when this is called. So a filter has to permit what this does.
    ///
    /// Threads that close descriptors, look up users and parse large messages (`qmp-aside`) are shared by all engines of the
    /// process and do not call this. They inherit from the thread that starts them.
    ///
    /// # Panics
    ///
    /// If it panics, the thread ends. For one of the first two threads, [`start`](EngineBuilder::start) fails. For
    /// a later one, an error is logged, the engine goes on with the threads it has, and tries again when it next needs
    /// one.
    pub fn on_thread_start(mut self, set_up: impl Fn() + Send + Sync + 'static) -> EngineBuilder {
        self.on_thread_start = Arc::new(set_up);
        self
    }

    /// Limits what the clients of one user may take of all servers of the engine together, besides the
    /// [limits](crate::Limits) of each server: so that the clients of one server leave enough to those of others. By
    /// default there is no such limit.
    pub fn per_user(mut self, quota: Quota) -> EngineBuilder {
        self.per_user = quota;
        self
    }

    /// Starts an engine, which hosts nothing yet. Its first two threads have been set up when this returns.
    ///
    /// # Errors
    ///
    /// If the system has no descriptors or threads left, the name of the threads contains a NUL byte, or what was set
    /// with [`on_thread_start`](EngineBuilder::on_thread_start) panics.
    pub fn start(self) -> io::Result<Engine> {
        if self.thread_name.contains('\0') {
            let message = "invalid name of threads: expected one without NUL bytes";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        Engine::start(self)
    }
}

impl fmt::Debug for EngineBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EngineBuilder")
            .field("most_threads", &self.most_threads)
            .field("thread_name", &self.thread_name)
            .finish_non_exhaustive()
    }
}
