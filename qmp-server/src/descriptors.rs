// SPDX-License-Identifier: MIT OR Apache-2.0
//! File descriptors that a client has passed along with its bytes.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The descriptors of one connection: those that wait for a command to take them, and those that
/// `getfd` has named. A [local](qmp_dispatch::Monitor::local) of every monitor of a
/// [`Server`](crate::Server).
///
/// What the last message with descriptors brought waits; it replaces what was waiting. All of them
/// are closed with the connection.
///
/// ```
/// use std::fs::File;
/// use std::io::{BufRead, BufReader, IoSlice, Write};
/// use std::mem::MaybeUninit;
/// use std::os::fd::AsFd;
/// use std::os::unix::net::UnixStream;
///
/// use qmp_dispatch::proto::{Error, Layout};
/// use qmp_dispatch::{Context, Dispatcher, Registry};
/// use qmp_server::{Descriptors, Server, system_time, version};
/// use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
///
/// /// The size of a file that comes along.
/// fn x_size(context: &Context) -> Result<u64, Error> {
///     let descriptor = context.monitor().local().and_then(Descriptors::take_waiting);
///     let file = File::from(descriptor.ok_or_else(|| Error::generic("no descriptor has come"))?);
///     Ok(file.metadata().map_err(|error| Error::generic(error.to_string()))?.len())
/// }
///
/// let mut registry = Registry::new();
/// registry.command("x-size", x_size)?;
/// let dispatcher = Dispatcher::new(registry, version(), system_time);
/// let (stream, mut client) = UnixStream::pair()?;
/// let server = Server::new(dispatcher).serve(Box::new(stream), Layout::Compact).spawn()?;
///
/// let mut file = tempfile::tempfile()?;
/// file.write_all(b"hello")?;
/// client.write_all(b"{'execute': 'qmp_capabilities'}")?;
/// let request = [IoSlice::new(b"{'execute': 'x-size'}")];
/// let descriptors = [file.as_fd()];
/// let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
/// let mut along = SendAncillaryBuffer::new(&mut space);
/// along.push(SendAncillaryMessage::ScmRights(&descriptors));
/// sendmsg(&client, &request, &mut along, SendFlags::empty())?;
///
/// let said = BufReader::new(client).lines().nth(2).expect("an answer")?;
/// assert_eq!(said, r#"{"return": 5}"#);
/// server.wait();
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Default)]
pub struct Descriptors {
    waiting: Mutex<Vec<OwnedFd>>,
    named: Mutex<HashMap<String, OwnedFd>>,
}

impl Descriptors {
    /// Takes the first waiting descriptor, and closes the others. Mirrors `qemu_chr_fe_get_msgfd`.
    ///
    /// ```
    /// use qmp_server::Descriptors;
    ///
    /// assert!(Descriptors::default().take_waiting().is_none(), "nobody has sent any");
    /// ```
    pub fn take_waiting(&self) -> Option<OwnedFd> {
        let mut waiting = std::mem::take(&mut *lock(&self.waiting)).into_iter();
        waiting.next()
    }

    /// Lets a descriptor wait again that has been taken and was not used, unless others have come.
    pub(crate) fn give_back(&self, descriptor: OwnedFd) {
        let mut waiting = lock(&self.waiting);
        if waiting.is_empty() {
            waiting.push(descriptor);
        }
    }

    /// Gives a descriptor a name, and closes the one that had it.
    ///
    /// ```
    /// use std::fs::File;
    ///
    /// use qmp_server::Descriptors;
    ///
    /// let descriptors = Descriptors::default();
    /// descriptors.insert_named("disk", File::open("/dev/null")?.into());
    /// assert!(descriptors.take_named("disk").is_some());
    /// assert!(descriptors.take_named("disk").is_none());
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn insert_named(&self, name: impl Into<String>, descriptor: OwnedFd) {
        lock(&self.named).insert(name.into(), descriptor);
    }

    /// Takes the descriptor of this name.
    pub fn take_named(&self, name: &str) -> Option<OwnedFd> {
        lock(&self.named).remove(name)
    }

    /// Lets descriptors wait that have just arrived.
    pub(crate) fn arrive(&self, descriptors: Vec<OwnedFd>) {
        *lock(&self.waiting) = descriptors;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
