// SPDX-License-Identifier: MIT OR Apache-2.0
//! How much clients may take of the server.

use std::time::Duration;

use qmp_dispatch::proto;

/// What the clients of a [`Server`](crate::Server) may take: each of them, those of one user
/// together, and all of them together.
///
/// A user is whoever [`Peer`](crate::Peer) tells apart: a user of this machine, the first name of a
/// certificate, an address without its port.
///
/// ```
/// use std::time::Duration;
///
/// use qmp_server::Limits;
///
/// let mut limits = Limits::default();
/// limits.per_user.monitors = 100;
/// limits.stalled = Some(Duration::from_secs(60));
/// assert_eq!(limits.message.nesting, 1024, "as QEMU has it");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// What one message may hold. By default what QEMU allows.
    pub message: proto::Limits,
    /// How many bytes one client may leave unread before it gets no more events, and its requests
    /// are not read. By default 256 KiB.
    pub unread: usize,
    /// How long a client may read nothing at all while something waits to be read by it, before it
    /// is disconnected; `None` is for ever. By default ten minutes.
    pub stalled: Option<Duration>,
    /// What the clients of one user may take together. By default as much as all.
    pub per_user: Quota,
    /// What all clients may take together. By default 1 GiB, and any number of monitors and
    /// requests.
    pub per_server: Quota,
}

/// What several clients may take together. [`usize::MAX`] is as much as they like.
///
/// ```
/// use qmp_server::{Limits, Quota};
///
/// let mut limits = Limits::default();
/// assert_eq!(limits.per_user, Quota::UNLIMITED);
/// limits.per_user.requests = 16;
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Quota {
    /// Connections. One more is refused before it is greeted.
    pub monitors: usize,
    /// Bytes that are kept for them: of messages that are not complete, requests behind them, and
    /// responses and events that they have not read. Whoever has most of them is disconnected when
    /// they become more.
    pub bytes: usize,
    /// In-band requests that wait or are being executed. When there are as many, these clients are
    /// not read from until one has been answered. A few more may have been read by then.
    pub requests: usize,
}

impl Quota {
    /// As much as they like.
    pub const UNLIMITED: Quota =
        Quota { monitors: usize::MAX, bytes: usize::MAX, requests: usize::MAX };
}

/// As much as they like.
impl Default for Quota {
    fn default() -> Quota {
        Quota::UNLIMITED
    }
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            message: proto::Limits::default(),
            unread: 256 << 10,
            stalled: Some(Duration::from_secs(600)),
            per_user: Quota::UNLIMITED,
            per_server: Quota { bytes: 1 << 30, ..Quota::UNLIMITED },
        }
    }
}
