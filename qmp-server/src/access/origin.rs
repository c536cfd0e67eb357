// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where a client has come in, and what that makes it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use qmp_dispatch::proto::Layout;

use crate::DeadlineProfile;

/// What is decided by where a client has connected.
#[derive(Clone, Debug, Default)]
pub(crate) struct Origin {
    pub(crate) layout: Layout,
    /// The index of the server's listener.
    pub(crate) listener: Option<usize>,
    pub(crate) role: Option<DoorRole>,
    /// Clients there get the server's own events, and are let in and stay whatever becomes of what is served.
    pub(crate) notices: bool,
    /// How often the doors of the server had been opened and shut when the client was let in.
    pub(crate) opening: u64,
    pub(crate) deadlines: Option<DeadlineProfile>,
}

impl Origin {
    pub(crate) fn new(layout: Layout) -> Origin {
        Origin { layout, ..Origin::default() }
    }
}

/// The name of the role that everybody is to have who comes in by a listener. A [local](qmp_dispatch::Monitor::local) of
/// their monitors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DoorRole(pub(crate) Arc<str>);

/// Whether a client gets the server's own events and stays, because of where it has come in or of its role. A local of its
/// monitor.
#[derive(Clone, Debug)]
pub(crate) struct Notices(Arc<AtomicBool>);

impl Notices {
    pub(crate) fn new(on: bool) -> Notices {
        Notices(Arc::new(AtomicBool::new(on)))
    }

    /// To be called while the monitor is made.
    #[cfg(feature = "roles")]
    pub(crate) fn turn_on(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub(crate) fn are_on(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Tells the name of the role that a client has now, if roles are in use. A local of its monitor.
pub(crate) struct GivenRole(Box<NameOfRole>);

type NameOfRole = dyn Fn() -> Option<Arc<str>> + Send + Sync;

impl GivenRole {
    pub(crate) fn new(name: impl Fn() -> Option<Arc<str>> + Send + Sync + 'static) -> GivenRole {
        GivenRole(Box::new(name))
    }

    /// `None` if the client's listener names a role that does not exist.
    pub(crate) fn name(&self) -> Option<Arc<str>> {
        (self.0)()
    }
}
