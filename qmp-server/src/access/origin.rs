// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where a client has come in, and what that makes it.

use std::sync::Arc;

use qmp_dispatch::proto::Layout;

/// What is decided by where a client has connected.
#[derive(Clone, Debug, Default)]
pub(crate) struct Origin {
    pub(crate) layout: Layout,
    /// The index of the server's listener.
    pub(crate) listener: Option<usize>,
    pub(crate) role: Option<DoorRole>,
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
