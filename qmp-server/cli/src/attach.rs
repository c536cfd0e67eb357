// SPDX-License-Identifier: MIT OR Apache-2.0
//! `qmp-server attach`: a monitor that is added to a QEMU that runs, shared, and taken away again.
//!
//! QEMU gets one end of a pair of sockets through a monitor that it has, so nobody has to be allowed to create a file, and
//! nobody else can connect. A monitor cannot remove itself: the one that it came through is kept for that.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, IntoRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use clap::Args;
use qmp_dispatch::proto::{Band, Capability, Json, Object, Value};
use qmp_server::{Address, Client, ClientError, Connect};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use crate::config::Sourced;
use crate::deadline::seconds;
use crate::{Failure, complain};

/// The type of the objects that are monitors, since QEMU 11.1.
const MONITOR: &str = "monitor-qmp";

/// Options of `attach` alone.
#[derive(Args, Clone, Debug)]
pub(crate) struct ThroughOptions {
    /// A monitor of the QEMU to attach to: unix:PATH, a path with a slash or unix-abstract:NAME. It is
    /// held until the end
    #[arg(long, value_name = "ADDR")]
    through: Sourced<Connect>,
    /// Give up if that monitor does not answer a command within so many seconds
    #[arg(long, value_name = "SECONDS", value_parser = seconds, default_value = "10")]
    timeout: Duration,
}

/// A monitor that was added to a QEMU, until it is removed.
pub(crate) struct Attached {
    through: Connect,
    timeout: Duration,
    /// `None` when the connection has ended.
    client: Option<Client>,
    /// The id of the monitor, and of its character device.
    id: String,
    /// A signal ends the mux, and not the end of QEMU.
    pub(crate) is_signalled: bool,
}

impl ThroughOptions {
    /// Looks for mistakes that can be found without connecting.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        let blame = |error: &str| Err(self.through.blame("through", error));
        match &self.through.value.address {
            Address::Unix(_) | Address::UnixAbstract(_) => Ok(()),
            _ => blame("descriptors can be passed to a Unix socket alone: expected unix:PATH"),
        }
    }

    /// Adds a monitor. Returns its other end, too.
    pub(crate) fn attach(&self) -> Result<(Attached, OwnedFd), Failure> {
        self.check()?;
        let through = self.through.value.clone();
        let client = Client::connect_with(&through, self.timeout, Vec::<Capability>::new());
        let client = client.map_err(|error| broken(&through, None, error))?;
        let id = format!("qmp-server-{}", std::process::id());
        let client = Some(client);
        let mut attached =
            Attached { through, timeout: self.timeout, client, id, is_signalled: false };
        attached.check_version()?;
        let (ours, theirs) = UnixStream::pair().map_err(Failure::usage)?;
        attached.add(&theirs)?;
        Ok((attached, ours.into()))
    }
}

impl Attached {
    /// Says that QEMU is too old, before anything is changed.
    fn check_version(&mut self) -> Result<(), Failure> {
        let types = self.execute("qom-list-types", [("implements", MONITOR.into())])?;
        if types.to_value().as_array().is_some_and(|types| !types.is_empty()) {
            return Ok(());
        }
        let version = self.execute("query-version", [])?.to_value();
        let number = |part: &str| version.get("qemu")?.get(part)?.as_i64();
        let version = match (number("major"), number("minor")) {
            (Some(major), Some(minor)) => format!("QEMU {major}.{minor}"),
            _ => "the server".to_owned(),
        };
        let through = &self.through.address;
        let error =
            format!("{through}: {version} has no monitors that can be added: QEMU 11.1 has");
        Err(Failure::usage(error))
    }

    fn add(&mut self, theirs: &UnixStream) -> Result<(), Failure> {
        let id = self.id.clone();
        self.pass(theirs.as_fd())?;
        self.execute("getfd", [("fdname", id.as_str().into())])?;
        let name = object([("str", id.as_str().into())]);
        let address = [("type", Value::from("fd")), ("data", name)];
        let data = [("addr", object(address)), ("server", Value::from(false))];
        let backend = [("type", Value::from("socket")), ("data", object(data))];
        let chardev = [("id", id.as_str().into()), ("backend", object(backend))];
        if let Err(failure) = self.execute("chardev-add", chardev) {
            // What is left of it goes with the connection, too, but that may be another mux's.
            let _ = self.execute("closefd", [("fdname", id.as_str().into())]);
            return Err(failure);
        }
        let monitor = [("qom-type", MONITOR), ("id", &id), ("chardev", &id)];
        let monitor = monitor.map(|(name, value)| (name, Value::from(value)));
        if let Err(failure) = self.execute("object-add", monitor) {
            let _ = self.execute("chardev-remove", [("id", id.as_str().into())]);
            return Err(failure);
        }
        Ok(())
    }

    /// Sends a descriptor, which the next `getfd` takes.
    fn pass(&self, descriptor: BorrowedFd<'_>) -> Result<(), Failure> {
        let Some(client) = &self.client else { return Ok(()) };
        let descriptors = [descriptor];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
        let sent = sendmsg(client, &[IoSlice::new(b" ")], &mut ancillary, SendFlags::NOSIGNAL);
        let address = &self.through.address;
        sent.map(drop).map_err(|error| Failure::usage(format_args!("{address}: {error}")))
    }

    fn execute<const N: usize>(
        &mut self,
        command: &str,
        arguments: [(&str, Value); N],
    ) -> Result<Json, Failure> {
        let Some(client) = &mut self.client else {
            return Err(Failure::usage(format_args!("{}: not connected", self.through.address)));
        };
        let arguments = Object::from_iter(arguments);
        let arguments = (!arguments.is_empty()).then(|| Json::from(&arguments));
        let result = client.execute(command, arguments.as_ref(), Band::InBand);
        result.map_err(|error| broken(&self.through, Some(command), error))
    }

    /// What is readable when the monitor that is held has something to say.
    pub(crate) fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        self.client.as_ref().map(AsFd::as_fd)
    }

    /// Reads what has come through the monitor that is held, for QEMU keeps what nobody reads.
    pub(crate) fn look(&mut self) {
        let Some(client) = &mut self.client else { return };
        match client.next_event(Duration::ZERO) {
            Ok(_) => client.forget_events(),
            // The end of QEMU shows at the monitor that was added.
            Err(_) => self.client = None,
        }
    }

    /// Takes the monitor away again, if QEMU is still there. To be called when the mux has ended.
    pub(crate) fn detach(mut self) {
        if self.client.is_none() {
            let client = Client::connect_with(&self.through, self.timeout, Vec::new());
            let Ok(client) = client else {
                // There is nobody left whose monitor it could be, or nobody who could be asked.
                return tracing::info!(id = self.id, "the monitor that was added is not removed");
            };
            self.client = Some(client);
        }
        let id = self.id.clone();
        for (command, argument) in [("object-del", "id"), ("chardev-remove", "id")] {
            match self.execute(command, [(argument, id.as_str().into())]) {
                Ok(_) => {}
                // It ends, and takes its monitors with it.
                Err(_) if self.has_gone() => return,
                // A mux before it may not have ended.
                Err(failure) if !self.is_signalled => {
                    tracing::info!(id, "the monitor that was added is not removed: {failure}");
                }
                Err(failure) => {
                    complain(&format_args!("qmp-server: '{id}' is left in QEMU: {failure}"));
                }
            }
        }
    }

    fn has_gone(&mut self) -> bool {
        self.look();
        self.client.is_none()
    }
}

fn object<const N: usize>(members: [(&str, Value); N]) -> Value {
    Value::Object(Object::from_iter(members))
}

/// A command that has failed is named, as nobody has asked for it.
fn broken(through: &Connect, command: Option<&str>, error: ClientError) -> Failure {
    match (command, error) {
        (Some(command), ClientError::Command(error)) => {
            Failure::command(format_args!("{command}: {error}"))
        }
        (_, error) => Failure::usage(format_args!("{}: {error}", through.address)),
    }
}

/// The address of a descriptor that is handed to a mux.
pub(crate) fn address_of(descriptor: OwnedFd) -> Connect {
    Connect::new(Address::Fd(descriptor.into_raw_fd()))
}
