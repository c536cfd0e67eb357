// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the service manager is told, if there is one: systemd's `sd_notify` protocol, with its store of descriptors.
//!
//! Our own, because the crates for it know neither sockets in the abstract namespace, nor barriers.

use std::ffi::OsStr;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use qmp_server::Handover;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::time::{ClockId, clock_gettime};

/// How long the service manager may take to store them.
const STORE_DEADLINE: Duration = Duration::from_secs(2);

/// Says that everything is served, and what that is, in a few words.
pub(crate) fn ready(status: &str) {
    tell(&format!("READY=1\nSTATUS={}", on_one_line(status)));
}

/// Says that the configuration is being read again; [`ready`] says when that is done.
pub(crate) fn reloading() {
    let now = clock_gettime(ClockId::Monotonic);
    let now = Duration::try_from(now).unwrap_or_default();
    tell(&format!("RELOADING=1\nMONOTONIC_USEC={}", now.as_micros()));
}

/// Says that the program is about to end.
pub(crate) fn stopping() {
    tell("STOPPING=1");
}

/// Whether the service manager stores descriptors for us: `FDSTORE` is the number of those that it takes.
pub(crate) fn can_store() -> bool {
    let most = std::env::var("FDSTORE").ok().and_then(|most| most.parse::<u32>().ok());
    most.is_some_and(|most| most >= 2) && socket_name().is_some()
}

/// Stores both ends of a pair of sockets. Waits until the service manager has taken them.
pub(crate) fn store(descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    send(&format!("FDSTORE=1\nFDNAME={}", Handover::STORE_NAME), descriptors)?;
    // They are stored from here on, whatever becomes of the rest.
    if let Err(error) = wait_until_taken() {
        tracing::warn!(%error, "the service manager may not have stored descriptors yet");
    }
    Ok(())
}

/// Waits until the service manager has taken what it was sent: else it might not know any more whose that is.
fn wait_until_taken() -> io::Result<()> {
    let (taken, barrier) = pipe_with(PipeFlags::CLOEXEC)?;
    send("BARRIER=1", &[barrier.as_fd()])?;
    drop(barrier);
    let deadline = STORE_DEADLINE.try_into().map_err(io::Error::other)?;
    // One that knows no barriers may keep it open.
    poll(&mut [PollFd::new(&taken, PollFlags::IN)], Some(&deadline))?;
    Ok(())
}

/// Takes what was stored out of the store.
pub(crate) fn remove_stored() {
    tell(&format!("FDSTOREREMOVE=1\nFDNAME={}", Handover::STORE_NAME));
}

fn tell(state: &str) {
    if socket_name().is_some()
        && let Err(error) = send(state, &[])
    {
        tracing::warn!(%error, "the service manager cannot be told");
    }
}

fn socket_name() -> Option<std::ffi::OsString> {
    std::env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty())
}

fn send(state: &str, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let name = socket_name().ok_or(io::ErrorKind::NotFound)?;
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&address(&name)?)?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() {
        ancillary.push(SendAncillaryMessage::ScmRights(descriptors));
    }
    let state = [IoSlice::new(state.as_bytes())];
    sendmsg(&socket, &state, &mut ancillary, SendFlags::NOSIGNAL)?;
    Ok(())
}

fn address(name: &OsStr) -> io::Result<SocketAddr> {
    match name.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
        _ => SocketAddr::from_pathname(name),
    }
}

fn on_one_line(text: &str) -> String {
    text.replace(char::is_control, " ")
}
