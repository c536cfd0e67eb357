// SPDX-License-Identifier: MIT OR Apache-2.0
//! Descriptors and data on their way to another program: all in the queue of one socket, so that only that has to be passed
//! on.
//!
//! The last descriptor is a file in memory with the data. Its first line names the format.

use std::fs::File;
use std::io::{self, BufWriter, IoSlice, IoSliceMut, Read, Seek, SeekFrom, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::{Errno, fcntl_dupfd_cloexec};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
    sockopt,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::MAX_DESCRIPTORS;

/// The number of the format. Programs whose number is the same understand each other's data: members that are missing have a
/// default, others are ignored. It changes with the meaning of a member that was there before.
pub(crate) const FORMAT: u32 = 1;

/// The first line of the data, with the number behind it.
const MAGIC: &str = "qmp-server hand-over ";

/// Collects descriptors. They stay open here, too.
pub(crate) struct Packing {
    near: OwnedFd,
    far: OwnedFd,
    /// Not sent yet. Duplicates, for as many as go into one message.
    batch: Vec<OwnedFd>,
    count: u32,
}

/// Both ends of the pair. The other program reads from `far`; `near` only keeps it from looking hung up.
pub(crate) struct Packed {
    pub(crate) near: OwnedFd,
    pub(crate) far: OwnedFd,
}

/// What has come from another program.
pub(crate) struct Unpacked<T> {
    pub(crate) data: T,
    pub(crate) descriptors: Luggage,
}

/// Descriptors by their numbers, each to be taken once.
#[derive(Debug, Default)]
pub(crate) struct Luggage(Vec<Option<OwnedFd>>);

impl Luggage {
    /// Takes a descriptor.
    ///
    /// # Errors
    ///
    /// If there is none of this number, or not any more.
    pub(crate) fn take(&mut self, number: u32) -> io::Result<OwnedFd> {
        let slot = self.0.get_mut(number as usize).and_then(Option::take);
        slot.ok_or_else(|| invalid("a descriptor is missing"))
    }
}

fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

impl Packing {
    pub(crate) fn new() -> io::Result<Packing> {
        let (near, far) = pair()?;
        Ok(Packing { near, far, batch: Vec::new(), count: 0 })
    }

    /// Adds a descriptor, and returns its number.
    ///
    /// # Errors
    ///
    /// If it cannot be passed on, as a socket cannot in which sockets wait in which sockets wait, a few times over: Linux
    /// bounds that. Also if the system has no room.
    pub(crate) fn add(&mut self, descriptor: BorrowedFd<'_>) -> io::Result<u32> {
        if sockopt::socket_domain(descriptor) == Ok(AddressFamily::UNIX) {
            check_depth(descriptor)?;
        }
        let duplicate = match fcntl_dupfd_cloexec(descriptor, 0) {
            Err(Errno::MFILE) if !self.batch.is_empty() => {
                self.send()?;
                fcntl_dupfd_cloexec(descriptor, 0)?
            }
            duplicate => duplicate?,
        };
        self.batch.push(duplicate);
        if self.batch.len() == MAX_DESCRIPTORS {
            self.send()?;
        }
        self.count += 1;
        Ok(self.count - 1)
    }

    /// Adds the data, which is all then.
    pub(crate) fn finish(mut self, data: &impl Serialize) -> io::Result<Packed> {
        let file = File::from(memfd_create("qmp-server-hand-over", MemfdFlags::CLOEXEC)?);
        let mut file = BufWriter::new(file);
        writeln!(file, "{MAGIC}{FORMAT}")?;
        serde_json::to_writer(&mut file, data)?;
        let file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
        self.send()?;
        self.batch.push(file.into());
        self.send()?;
        Ok(Packed { near: self.near, far: self.far })
    }

    fn send(&mut self) -> io::Result<()> {
        let batch = std::mem::take(&mut self.batch);
        if batch.is_empty() {
            return Ok(());
        }
        let batch: Vec<_> = batch.iter().map(AsFd::as_fd).collect();
        Ok(send(&self.near, &batch)?)
    }
}

/// One message with descriptors.
fn send(socket: &OwnedFd, descriptors: &[BorrowedFd<'_>]) -> Result<(), Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    ancillary.push(SendAncillaryMessage::ScmRights(descriptors));
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    sendmsg(socket, &[IoSlice::new(&[0])], &mut ancillary, flags).map(drop)
}

/// Whether a socket can be in the queue of one that is itself passed on: a client can fill it so that Linux refuses that, and
/// must not keep others from being handed over.
fn check_depth(socket: BorrowedFd<'_>) -> io::Result<()> {
    let (near, far) = pair()?;
    send(&near, &[socket])?;
    let (outer, _far) = pair()?;
    Ok(send(&outer, &[far.as_fd()])?)
}

/// Takes all that another program has packed. Descriptors that are not taken are closed.
pub(crate) fn unpack<T: DeserializeOwned>(socket: &OwnedFd) -> io::Result<Unpacked<T>> {
    let mut descriptors = Vec::new();
    loop {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut byte = [0];
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        let received = recvmsg(socket, &mut [IoSliceMut::new(&mut byte)], &mut ancillary, flags);
        match received {
            Ok(received) if received.bytes == 0 => break,
            Err(Errno::AGAIN) => break,
            received => received?,
        };
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(came) = message {
                descriptors.extend(came.map(Some));
            }
        }
    }
    let data = descriptors.pop().flatten().ok_or_else(|| invalid("nothing was handed over"))?;
    let mut file = File::from(data);
    file.seek(SeekFrom::Start(0))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let (line, data) = bytes.split_at(bytes.iter().position(|&byte| byte == b'\n').unwrap_or(0));
    if line != format!("{MAGIC}{FORMAT}").as_bytes() {
        let line = String::from_utf8_lossy(line);
        return Err(invalid(format!("the format is unknown: '{}'", line.escape_default())));
    }
    let data = serde_json::from_slice(data)?;
    Ok(Unpacked { data, descriptors: Luggage(descriptors) })
}

pub(crate) fn invalid(reason: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason.into())
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn thousands_of_descriptors_come_in_their_order() {
        const COUNT: u32 = 2000;
        let mut packing = Packing::new().unwrap();
        let file = |text: String| {
            let mut file = File::from(memfd_create("test", MemfdFlags::CLOEXEC).unwrap());
            file.write_all(text.as_bytes()).unwrap();
            file
        };
        for number in 0..COUNT {
            assert_eq!(packing.add(file(number.to_string()).as_fd()).unwrap(), number);
        }
        let Packed { far, near } = packing.finish(&"data").unwrap();
        drop(near);
        let mut unpacked = unpack::<String>(&far).unwrap();
        assert_eq!(unpacked.data, "data");
        for number in (0..COUNT).rev() {
            let mut file = File::from(unpacked.descriptors.take(number).unwrap());
            file.seek(SeekFrom::Start(0)).unwrap();
            assert_eq!(io::read_to_string(file).unwrap(), number.to_string());
        }
        assert!(unpacked.descriptors.take(0).is_err(), "it was taken");
        assert!(unpack::<String>(&far).is_err(), "there is nothing more");
    }

    #[test]
    fn another_format_is_refused_by_name() {
        let (near, far) = pair().unwrap();
        let mut file = File::from(memfd_create("test", MemfdFlags::CLOEXEC).unwrap());
        file.write_all(b"qmp-server hand-over 999\n{}").unwrap();
        send(&near, &[file.as_fd()]).unwrap();
        let error = unpack::<String>(&far).err().unwrap().to_string();
        assert_eq!(error, "the format is unknown: 'qmp-server hand-over 999'");
    }

    #[test]
    fn a_socket_that_cannot_be_passed_on_is_refused_alone() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut inner: OwnedFd = UnixStream::pair().unwrap().0.into();
        for _ in 0..3 {
            let (near, far) = pair().unwrap();
            send(&near, &[inner.as_fd()]).unwrap();
            inner = far;
        }
        send(&theirs.into(), &[inner.as_fd()]).unwrap();
        let mut packing = Packing::new().unwrap();
        // Newer versions of Linux have no such bound.
        let refused = packing.add(ours.as_fd()).is_err();
        let (other, _theirs) = UnixStream::pair().unwrap();
        assert!(packing.add(other.as_fd()).is_ok());
        let packed = packing.finish(&refused).unwrap();
        let (outer, _far) = pair().unwrap();
        send(&outer, &[packed.near.as_fd(), packed.far.as_fd()]).unwrap();
    }
}
