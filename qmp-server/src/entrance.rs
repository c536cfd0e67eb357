// SPDX-License-Identifier: MIT OR Apache-2.0
//! The door through which a client has come.

use std::sync::Arc;

use qmp_dispatch::proto::Layout;

/// What is decided by where a client has connected.
#[derive(Clone, Debug, Default)]
pub(crate) struct Entrance {
    pub(crate) layout: Layout,
    /// Which of the server's listeners it was.
    pub(crate) listener: Option<usize>,
    pub(crate) role: Option<DoorRole>,
}

impl Entrance {
    pub(crate) fn new(layout: Layout) -> Entrance {
        Entrance { layout, ..Entrance::default() }
    }
}

/// The name of the role of whoever comes in here. A [local](qmp_dispatch::Monitor::local) of their
/// monitors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DoorRole(pub(crate) Arc<str>);

/// The name of the role that a client has been given. A [local](qmp_dispatch::Monitor::local) of its monitor; without
/// one, the client may do everything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct GivenRole(pub(crate) Arc<str>);
