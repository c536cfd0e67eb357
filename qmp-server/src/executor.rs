// SPDX-License-Identifier: MIT OR Apache-2.0
//! Async commands on a Tokio runtime.

use qmp_dispatch::{Spawn, Task};
use tokio::runtime::Handle;

/// Polls [async commands](qmp_dispatch::Registry::async_command) in a Tokio runtime: for the first time on the thread that
/// executes commands, so that those that do not wait are answered at once, and then in tasks. Handlers can use the
/// runtime's timers and sockets, and spawn tasks, at every poll.
///
/// When the runtime ends, requests that are not answered get an error.
///
/// ```
/// use std::time::Duration;
///
/// use qmp_dispatch::proto::Error;
/// use qmp_dispatch::{AsyncContext, LocalClient, Registry};
/// use qmp_server::TokioExecutor;
///
/// let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_time().build()?;
/// let mut registry = Registry::new();
/// registry.set_executor(TokioExecutor::new(runtime.handle().clone()));
/// registry.async_command("x-nap", |_: AsyncContext| async {
///     tokio::time::sleep(Duration::from_millis(1)).await;
///     Ok::<(), Error>(())
/// })?;
/// assert_eq!(LocalClient::new(registry).ask("{'execute': 'x-nap'}"), [r#"{"return": {}}"#]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct TokioExecutor(Handle);

impl TokioExecutor {
    /// Creates an executor that spawns tasks on this runtime.
    pub fn new(runtime: Handle) -> TokioExecutor {
        TokioExecutor(runtime)
    }

    /// Creates an executor that spawns tasks on the current runtime.
    ///
    /// # Panics
    ///
    /// Outside of a Tokio runtime.
    pub fn current() -> TokioExecutor {
        TokioExecutor(Handle::current())
    }
}

impl Spawn for TokioExecutor {
    fn spawn(&self, task: Task) {
        let _entered = self.0.enter();
        if let Some(task) = task.poll_now() {
            self.0.spawn(task);
        }
    }
}
