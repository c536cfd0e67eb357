// SPDX-License-Identifier: MIT OR Apache-2.0
//! Receiving from a Unix socket, with each descriptor at its place in the stream of bytes.

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, recv, recvmsg,
};

use super::{MAX_DESCRIPTORS, Received};

/// So many bytes are received one by one before others get their turn.
const MOST_SINGLE_BYTES: usize = 256;

/// Receives bytes; if descriptors came, they came with the last of these.
///
/// Linux hands out what was sent before descriptors together with the bytes that brought them, and
/// does not say where the latter begin. QEMU knows, for it reads byte by byte. So it is looked
/// first, and only when there are descriptors it is read like that.
pub(super) fn receive(
    socket: &UnixStream,
    buffer: &mut [u8],
    descriptors: &mut Vec<OwnedFd>,
) -> io::Result<Received> {
    let (all, descriptors_ahead) = look_ahead(socket, buffer)?;
    if !descriptors_ahead {
        let room = buffer.len();
        // No more than has been looked at: who knows what has come since.
        let (received, _) = recv(socket, &mut buffer[..all], RecvFlags::DONTWAIT)?;
        return Ok(Received::of_stream(received, room));
    }
    let one_by_one = |bytes| Received { bytes, may_be_more: true };
    let at_most = all.min(MOST_SINGLE_BYTES);
    for (before, byte) in buffer[..at_most].iter_mut().enumerate() {
        let came = receive_byte(socket, byte)?;
        if !came.is_empty() {
            *descriptors = came;
            return Ok(one_by_one(before + 1));
        }
    }
    Ok(one_by_one(at_most))
}

/// Receives bytes, unless descriptors come with some of them.
pub(super) fn receive_bytes(socket: &UnixStream, buffer: &mut [u8]) -> io::Result<Received> {
    let (all, descriptors_ahead) = look_ahead(socket, buffer)?;
    if descriptors_ahead {
        return Err(io::ErrorKind::QuotaExceeded.into());
    }
    let room = buffer.len();
    let (received, _) = recv(socket, &mut buffer[..all], RecvFlags::DONTWAIT)?;
    Ok(Received::of_stream(received, room))
}

/// How much is there, and whether there are descriptors, too. Some Linux tell of descriptors that
/// come behind what fits into `buffer`, which does no harm.
fn look_ahead(socket: &UnixStream, buffer: &mut [u8]) -> io::Result<(usize, bool)> {
    let mut buffers = [IoSliceMut::new(buffer)];
    // Descriptors are not made when there is no room for them.
    let mut no_room = RecvAncillaryBuffer::default();
    let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
    let seen = recvmsg(socket, &mut buffers, &mut no_room, flags)?;
    Ok((seen.bytes, seen.flags.contains(ReturnFlags::CTRUNC)))
}

fn receive_byte(socket: &UnixStream, byte: &mut u8) -> io::Result<Vec<OwnedFd>> {
    let (_, came) = receive_with_descriptors(socket, std::slice::from_mut(byte))?;
    Ok(came)
}

/// Receives bytes; if descriptors came, they came with any of these. No look ahead is taken.
pub(super) fn receive_message(
    socket: &UnixStream,
    buffer: &mut [u8],
    descriptors: &mut Vec<OwnedFd>,
) -> io::Result<Received> {
    let room = buffer.len();
    let (bytes, came) = receive_with_descriptors(socket, buffer)?;
    if came.is_empty() {
        return Ok(Received::of_stream(bytes, room));
    }
    *descriptors = came;
    // Linux hands out nothing that was sent behind descriptors together with them.
    Ok(Received { bytes, may_be_more: true })
}

fn receive_with_descriptors(
    socket: &UnixStream,
    buffer: &mut [u8],
) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut buffers = [IoSliceMut::new(buffer)];
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let bytes = recvmsg(socket, &mut buffers, &mut ancillary, flags)?.bytes;
    let mut came = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            came.extend(rights);
        }
    }
    Ok((bytes, came))
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write;
    use std::os::fd::AsRawFd;

    use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};

    use super::*;

    type Receive = fn(&UnixStream, &mut [u8], &mut Vec<OwnedFd>) -> io::Result<Received>;

    /// Sends each text with so many descriptors, all before any is received; gives what is received
    /// at a time, with the number of descriptors.
    fn received(sent: &[(&str, usize)], receive: Receive) -> Vec<(String, usize)> {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        let file = File::open("/dev/null").unwrap();
        for &(text, count) in sent {
            if count == 0 {
                ours.write_all(text.as_bytes()).unwrap();
                continue;
            }
            let rights = vec![file.as_raw_fd(); count];
            let bytes = [io::IoSlice::new(text.as_bytes())];
            let message = [ControlMessage::ScmRights(&rights)];
            sendmsg::<()>(ours.as_raw_fd(), &bytes, &message, MsgFlags::empty(), None).unwrap();
        }
        drop(ours);
        let mut all = Vec::new();
        let mut buffer = [0; 1000];
        loop {
            let mut descriptors = Vec::new();
            let length = receive(&theirs, &mut buffer, &mut descriptors).unwrap().bytes;
            if length == 0 {
                return all;
            }
            let text = String::from_utf8(buffer[..length].to_vec()).unwrap();
            all.push((text, descriptors.len()));
        }
    }

    #[track_caller]
    fn check(sent: &[(&str, usize)], expected: &[(&str, usize)]) {
        let expected: Vec<_> =
            expected.iter().map(|&(text, count)| (text.to_owned(), count)).collect();
        assert_eq!(received(sent, receive), expected);
    }

    #[test]
    fn bytes_without_descriptors_come_at_once() {
        check(&[("one", 0), ("two", 0)], &[("onetwo", 0)]);
    }

    #[test]
    fn descriptors_come_with_the_byte_that_brought_them() {
        check(&[("abc", 2)], &[("a", 2), ("bc", 0)]);
        check(&[("abc", 0), ("def", 1)], &[("abcd", 1), ("ef", 0)]);
        check(&[("a", 1), ("bc", 0), ("d", 3)], &[("a", 1), ("bcd", 3)]);
        check(&[("a", 1), ("b", 1)], &[("a", 1), ("b", 1)]);
    }

    #[test]
    fn as_many_descriptors_as_linux_sends_are_received() {
        check(&[("a", MAX_DESCRIPTORS)], &[("a", MAX_DESCRIPTORS)]);
    }

    #[test]
    fn much_before_a_descriptor_is_received_in_parts() {
        let much = "x".repeat(MOST_SINGLE_BYTES + 1);
        let all = received(&[(&much, 0), ("y", 1)], receive);
        let lengths: Vec<_> = all.iter().map(|(text, count)| (text.len(), *count)).collect();
        assert_eq!(lengths, [(MOST_SINGLE_BYTES, 0), (2, 1)]);
    }

    #[test]
    fn what_is_one_message_comes_at_once() {
        let sent = [("abc", 0), ("def", 1), ("gh", 0), ("i", 2), ("j", 0)];
        let expected = [("abcdef", 1), ("ghi", 2), ("j", 0)];
        let expected = expected.map(|(text, count)| (text.to_owned(), count));
        assert_eq!(received(&sent, receive_message), expected);
    }
}
