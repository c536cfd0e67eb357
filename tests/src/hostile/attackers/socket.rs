// SPDX-License-Identifier: MIT OR Apache-2.0
//! A connection that never waits for long.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_linger, set_socket_timeout};
use rustix::net::{
    RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, Shutdown, recv, send, sendmsg,
    shutdown,
};

/// As many descriptors as the kernel takes with one message.
pub(super) const MOST_DESCRIPTORS: usize = 253;
/// Time in which the target takes some more bytes, or it does not read.
const SENDS_WITHIN: Duration = Duration::from_millis(20);
/// Time in which the target answers, or the attempt has failed.
const ANSWERS_WITHIN: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub(super) struct Socket(OwnedFd);

impl Socket {
    pub(super) fn unix(path: &Path) -> io::Result<Socket> {
        Socket::new(UnixStream::connect(path)?)
    }

    pub(super) fn tcp(port: u16) -> io::Result<Socket> {
        Socket::new(TcpStream::connect(("127.0.0.1", port))?)
    }

    /// A socket that is connected to something else than the target.
    pub(super) fn new(socket: impl Into<OwnedFd>) -> io::Result<Socket> {
        let socket = socket.into();
        set_socket_timeout(&socket, Timeout::Send, Some(SENDS_WITHIN))?;
        set_socket_timeout(&socket, Timeout::Recv, Some(ANSWERS_WITHIN))?;
        Ok(Socket(socket))
    }

    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// Sends what the target takes. Returns `false` if that was not all.
    pub(super) fn send(&self, text: impl AsRef<[u8]>) -> io::Result<bool> {
        let mut left = text.as_ref();
        while !left.is_empty() {
            match send(&self.0, left, SendFlags::NOSIGNAL) {
                Ok(sent) => left = &left[sent..],
                Err(Errno::AGAIN) => return Ok(false),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(true)
    }

    /// Sends a short text with this descriptor, this many times.
    pub(super) fn send_with(
        &self,
        text: &str,
        descriptor: BorrowedFd<'_>,
        times: usize,
    ) -> io::Result<()> {
        let descriptors = vec![descriptor; times];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        assert!(
            control.push(SendAncillaryMessage::ScmRights(&descriptors)),
            "too many descriptors"
        );
        sendmsg(&self.0, &[IoSlice::new(text.as_bytes())], &mut control, SendFlags::NOSIGNAL)?;
        Ok(())
    }

    /// Reads until this many lines have come, and perhaps more.
    pub(super) fn read_lines(&self, mut count: usize) -> io::Result<()> {
        let mut buffer = [0; 16 << 10];
        while count > 0 {
            let (size, _) = recv(&self.0, &mut buffer, RecvFlags::empty())?;
            if size == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let lines = buffer[..size].iter().filter(|&&byte| byte == b'\n').count();
            count = count.saturating_sub(lines);
        }
        Ok(())
    }

    pub(super) fn read_byte(&self) -> io::Result<()> {
        match recv(&self.0, &mut [0; 1], RecvFlags::empty())? {
            (0, _) => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    /// Reads the greeting and negotiates.
    pub(super) fn negotiate(&self, oob: bool) -> io::Result<()> {
        self.read_lines(1)?;
        self.send(if oob { WITH_OOB } else { QMP_CAPABILITIES })?;
        self.read_lines(1)
    }

    pub(super) fn half_close(&self) -> io::Result<()> {
        Ok(shutdown(&self.0, Shutdown::Write)?)
    }

    /// Closes it, a TCP connection with a reset.
    pub(super) fn reset(self) {
        // Whatever comes of it, it is closed.
        let _ = set_socket_linger(&self.0, Some(Duration::ZERO));
    }
}

pub(super) const QMP_CAPABILITIES: &str = "{\"execute\": \"qmp_capabilities\"}\n";
const WITH_OOB: &str =
    "{\"execute\": \"qmp_capabilities\", \"arguments\": {\"enable\": [\"oob\"]}}\n";
