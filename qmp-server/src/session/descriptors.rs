// SPDX-License-Identifier: MIT OR Apache-2.0
//! File descriptors that a client has passed along with its bytes.

use std::collections::HashMap;
use std::fmt;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::access::{Charge, Ledger};
use crate::io::{Owner, close_aside, close_foreign};

/// A descriptor that a client has passed. It counts in [`Limits::descriptors`](crate::Limits::descriptors) until it is
/// closed, which happens on a thread that serves nobody: closing what a stranger has opened may take long. A socket is made
/// not to linger (`SO_LINGER`) before that; who wants it as it is takes it [out](Descriptor::into_owned).
pub struct Descriptor {
    /// `None` only in [`Descriptor::into_owned`] and when dropped.
    open: Option<(OwnedFd, Charge)>,
    owner: Owner,
    /// Another process has it, too, and may rely on what the client has set.
    passed_on: AtomicBool,
}

impl Descriptor {
    /// Hands the descriptor out, to be closed by the caller. It counts no more.
    #[must_use]
    pub fn into_owned(mut self) -> OwnedFd {
        let (fd, _charge) = self.open.take().expect("it is taken only here");
        fd
    }

    /// Says that another process has been given it, too.
    #[cfg(feature = "mux")]
    pub(crate) fn pass_on(&self) {
        self.passed_on.store(true, std::sync::atomic::Ordering::Relaxed);
    }
}

impl AsFd for Descriptor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        let (fd, _) = self.open.as_ref().expect("it is open until it is dropped");
        fd.as_fd()
    }
}

impl AsRawFd for Descriptor {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

impl Drop for Descriptor {
    fn drop(&mut self) {
        if let Some((fd, charge)) = self.open.take() {
            let passed_on = *self.passed_on.get_mut();
            close_aside(self.owner, move || {
                if passed_on {
                    drop(fd);
                } else {
                    close_foreign(fd);
                }
                drop(charge);
            });
        }
    }
}

impl fmt::Debug for Descriptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Descriptor").field(&self.as_raw_fd()).finish()
    }
}

/// Charges descriptors that have come to the ledger.
pub(crate) fn charged(descriptors: Vec<OwnedFd>, ledger: &Arc<Ledger>) -> Vec<Descriptor> {
    let mut charge = ledger.charge_descriptors(descriptors.len());
    let owner = ledger.owner();
    let charged = |fd| Descriptor {
        open: Some((fd, charge.split(1))),
        owner,
        passed_on: AtomicBool::new(false),
    };
    descriptors.into_iter().map(charged).collect()
}

/// The descriptors of one client. A [local](qmp_dispatch::Monitor::local) of each monitor.
///
/// A descriptor waits until a command takes it. Those that come later replace those that wait, and of several that come
/// at once the first is the one: as in QEMU's character devices.
///
/// ```
/// use std::os::fd::OwnedFd;
///
/// use qmp_dispatch::Context;
/// use qmp_dispatch::proto::Error;
/// use qmp_server::Descriptors;
///
/// fn take_log(context: &Context) -> Result<(), Error> {
///     let descriptors = context.monitor().local::<Descriptors>();
///     let descriptor = descriptors.and_then(Descriptors::take_waiting);
///     let descriptor = descriptor.ok_or_else(|| Error::generic("pass a descriptor along"))?;
///     let log: OwnedFd = descriptor.into_owned();
///     # drop(log);
///     Ok(())
/// }
/// ```
#[derive(Debug, Default)]
pub struct Descriptors {
    /// Those that came with one message, the last one with any.
    waiting: Mutex<Vec<Descriptor>>,
    named: Mutex<HashMap<String, Descriptor>>,
}

impl Descriptors {
    /// Takes the first of the descriptors that wait; the others are closed.
    pub fn take_waiting(&self) -> Option<Descriptor> {
        let waiting = std::mem::take(&mut *lock(&self.waiting));
        waiting.into_iter().next()
    }

    /// Keeps a descriptor under a name until it is [taken](Descriptors::take_named) or the client leaves, in place of
    /// the one that had the name: what `getfd` does.
    pub fn insert_named(&self, name: impl Into<String>, descriptor: Descriptor) {
        lock(&self.named).insert(name.into(), descriptor);
    }

    /// Takes the descriptor of a name, which is free then.
    pub fn take_named(&self, name: &str) -> Option<Descriptor> {
        lock(&self.named).remove(name)
    }

    /// Lets a descriptor wait again that was taken, unless another one has come.
    pub(crate) fn give_back(&self, descriptor: Descriptor) {
        let mut waiting = lock(&self.waiting);
        if waiting.is_empty() {
            waiting.push(descriptor);
        }
    }

    /// Does something with each of those that wait.
    #[cfg(feature = "mux")]
    pub(crate) fn look_at_waiting<T>(
        &self,
        look: impl FnMut(&Descriptor) -> std::io::Result<T>,
    ) -> std::io::Result<Vec<T>> {
        lock(&self.waiting).iter().map(look).collect()
    }

    /// Replaces those that wait.
    pub(super) fn arrive(&self, descriptors: Vec<Descriptor>) {
        if !descriptors.is_empty() {
            let replaced = std::mem::replace(&mut *lock(&self.waiting), descriptors);
            drop(replaced);
        }
    }

    /// Closes all: the client has left.
    pub(super) fn clear(&self) {
        drop(std::mem::take(&mut *lock(&self.waiting)));
        drop(std::mem::take(&mut *lock(&self.named)));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
