// SPDX-License-Identifier: MIT OR Apache-2.0
//! How much clients may take of the server.

use std::time::Duration;

use qmp_dispatch::proto;

/// Limits of the clients of a [`Server`](crate::Server): of each client, of the clients of one user together, and of
/// all clients together.
///
/// A user is what [`Peer::user`](crate::Peer::user) tells apart: a user of this machine, the first name of a
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
/// assert_eq!(limits.message.nesting, 1024, "as in QEMU");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Limits of one message. By default QEMU's.
    pub message: proto::Limits,
    /// Bytes that one client may leave unread before it gets no more events and its requests are not read. By default
    /// 256 KiB.
    pub unread: usize,
    /// How long a client may read nothing at all while output waits for it, before it is disconnected; `None` is for
    /// ever. By default ten minutes.
    pub stalled: Option<Duration>,
    /// Descriptors that are open for one client: those it has named, those that came last, and those that are still
    /// being closed. A message with descriptors is read only while there is room for as many as Linux lets one have,
    /// which are 253. By default 512.
    pub descriptors: usize,
    /// Connections that are not identified yet: in a TLS handshake, or while their user's groups are looked up. When
    /// there are more, the oldest is refused. By default 64.
    pub handshakes: usize,
    /// What the clients of one user may take together, which includes what is left of those that have gone. By default
    /// nine sixteenths of the descriptors that the process may open for connections (but at least 256), and six sixteenths
    /// for what comes with messages (but at least 256), so that there are some left for others; and of the rest as much
    /// as all.
    pub per_user: Quota,
    /// What all clients may take together. By default 1 GiB, half of the descriptors that the process may open (but at
    /// least 256 of them), and any number of monitors and requests.
    pub per_server: Quota,
}

/// What several clients may take together. [`usize::MAX`] is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Quota {
    /// Connections. One more is refused before it is greeted.
    pub monitors: usize,
    /// Bytes that are kept for them: incomplete messages, requests that wait, responses and events that they have not
    /// read. When there are more, the client that takes most is disconnected.
    pub bytes: usize,
    /// In-band requests that wait or are executed. When there are as many, the next ones wait in turn, and their
    /// clients are not read from. Negotiation and out-of-band requests do not count.
    pub requests: usize,
    /// Descriptors that are open for them, as in [`Limits::descriptors`].
    pub descriptors: usize,
}

impl Quota {
    /// No limits.
    pub const UNLIMITED: Quota = Quota {
        monitors: usize::MAX,
        bytes: usize::MAX,
        requests: usize::MAX,
        descriptors: usize::MAX,
    };
}

/// No limits.
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
            descriptors: 512,
            handshakes: 64,
            per_user: Quota {
                monitors: descriptors(9),
                descriptors: descriptors(6),
                ..Quota::UNLIMITED
            },
            per_server: Quota { bytes: 1 << 30, descriptors: descriptors(8), ..Quota::UNLIMITED },
        }
    }
}

/// So many sixteenths of the descriptors that may be open, and at least as many as one message can have, so that passing
/// descriptors works at all.
fn descriptors(sixteenths: usize) -> usize {
    let open = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let open = open.and_then(|open| usize::try_from(open).ok()).unwrap_or(usize::MAX);
    (open / 16 * sixteenths).max(256)
}
