// SPDX-License-Identifier: MIT OR Apache-2.0
//! File descriptors: `getfd`, `closefd`, `add-fd`, `remove-fd`, `query-fdsets`. Mirrors
//! `qapi/misc.json` and `monitor/fds.c`.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use qmp_dispatch::proto::Error;
use qmp_dispatch::{Context, RegisterError, Registry};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl, ftruncate};
use rustix::io::Errno;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::session::{Descriptor, Descriptors};

#[derive(Deserialize, JsonSchema)]
struct Getfd {
    fdname: String,
}

#[derive(Deserialize, JsonSchema)]
struct Closefd {
    fdname: String,
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
struct AddFd {
    fdset_id: Option<i64>,
    opaque: Option<String>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
struct RemoveFd {
    fdset_id: i64,
    fd: Option<i64>,
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(extend("x-qapi-order" = ["fdset-id", "fd"]))]
struct AddfdInfo {
    fd: i64,
    fdset_id: i64,
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(extend("x-qapi-order" = ["fdset-id", "fds"]))]
struct FdsetInfo {
    fds: Vec<FdsetFdInfo>,
    fdset_id: i64,
}

#[derive(Serialize, JsonSchema)]
struct FdsetFdInfo {
    fd: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    opaque: Option<String>,
}

/// Sets of descriptors, shared by all monitors, which the embedder opens by paths such as `/dev/fdset/3`.
///
/// The descriptors that clients have added count in [`Limits::descriptors`](crate::Limits::descriptors) until they are
/// removed; those that are [opened](FdSets::open) belong to the embedder.
///
/// ```
/// use std::sync::Arc;
///
/// use qmp_dispatch::{LocalClient, Registry};
/// use qmp_server::{FdSets, register_fd_sets};
///
/// let fd_sets = Arc::new(FdSets::default());
/// let mut registry = Registry::new();
/// register_fd_sets(&mut registry, &fd_sets)?;
/// let said = LocalClient::new(registry).ask("{'execute': 'query-fdsets'}");
/// assert_eq!(said, [r#"{"return": []}"#]);
///
/// // What a handler does with the name of a file, before it opens that itself; 0 is `O_RDONLY`.
/// assert!(fd_sets.open("disk.img", 0).unwrap().is_none());
/// assert!(fd_sets.open("/dev/fdset/3", 0).is_err());
/// # Ok::<(), qmp_dispatch::RegisterError>(())
/// ```
#[derive(Debug, Default)]
pub struct FdSets {
    /// By their ids; a set holds the oldest descriptor first.
    sets: Mutex<BTreeMap<i64, Vec<FdSetMember>>>,
}

#[derive(Debug)]
struct FdSetMember {
    fd: Descriptor,
    opaque: Option<String>,
}

impl FdSetMember {
    /// The number by which clients name the descriptor.
    fn number(&self) -> i64 {
        self.fd.as_raw_fd().into()
    }
}

/// Registers `getfd` and `closefd`: descriptors that a client passes and names, which handlers take with
/// [`Descriptors::take_named`].
///
/// # Errors
///
/// [`RegisterError`] if the registry has one of the commands already.
pub fn register_descriptors(registry: &mut Registry) -> Result<(), RegisterError> {
    registry.command("getfd", getfd)?;
    registry.command("closefd", closefd)?;
    Ok(())
}

/// Registers `add-fd`, `remove-fd` and `query-fdsets`, on sets that the embedder keeps.
///
/// # Errors
///
/// [`RegisterError`] if the registry has one of the commands already.
pub fn register_fd_sets(
    registry: &mut Registry,
    fd_sets: &Arc<FdSets>,
) -> Result<(), RegisterError> {
    let mut group = registry.with(Arc::clone(fd_sets));
    group.command("add-fd", FdSets::add_fd)?;
    group.command("remove-fd", FdSets::remove_fd)?;
    group.command("query-fdsets", FdSets::query_fdsets)?;
    Ok(())
}

/// Takes the descriptor that the client has passed along.
fn take_waiting(context: &Context) -> Result<Descriptor, Error> {
    context
        .monitor()
        .local::<Descriptors>()
        .and_then(Descriptors::take_waiting)
        .ok_or_else(|| Error::generic("No file descriptor supplied via SCM_RIGHTS"))
}

fn not_found(name: &str) -> Error {
    Error::generic(format!("File descriptor named '{name}' not found"))
}

fn getfd(context: &Context, arguments: Getfd) -> Result<(), Error> {
    let fd = take_waiting(context)?;
    if arguments.fdname.starts_with(|first: char| first.is_ascii_digit()) {
        return Err(Error::generic("Parameter 'fdname' expects a name not starting with a digit"));
    }
    if let Some(descriptors) = context.monitor().local::<Descriptors>() {
        descriptors.insert_named(arguments.fdname, fd);
    }
    Ok(())
}

fn closefd(context: &Context, arguments: Closefd) -> Result<(), Error> {
    let named = context
        .monitor()
        .local::<Descriptors>()
        .and_then(|descriptors| descriptors.take_named(&arguments.fdname));
    named.map(drop).ok_or_else(|| not_found(&arguments.fdname))
}

impl FdSets {
    /// Opens a path of the form `/dev/fdset/ID` with the flags of `open(2)`; `None` if the path is not of this form, so that
    /// the embedder opens it as a file.
    ///
    /// Duplicates the oldest descriptor of the set whose access mode is that of the flags. `O_APPEND`, `O_NONBLOCK`, `O_DIRECT`
    /// and `O_NOATIME` are set as the flags say, for all duplicates, and the file is truncated where `open(2)` would do
    /// that. The duplicate is closed on exec, and stays open when the set is removed. Mirrors `monitor_fdset_dup_fd_add()` and
    /// `qemu_dup_flags()` of QEMU.
    ///
    /// # Errors
    ///
    /// `EINVAL` if the id is not a number, or if `O_SYNC` is not as the descriptor has it; `ENOENT` if there is no such set; `EACCES`
    /// if it has no descriptor of this access mode; what the system reports.
    pub fn open(&self, path: impl AsRef<Path>, flags: i32) -> io::Result<Option<OwnedFd>> {
        let Some(id) = path.as_ref().as_os_str().as_bytes().strip_prefix(b"/dev/fdset/") else {
            return Ok(None);
        };
        let id = std::str::from_utf8(id).ok().and_then(|id| id.parse::<i64>().ok());
        let flags = OFlags::from_bits_retain(flags.cast_unsigned());
        let fd = self.duplicate(id.ok_or(Errno::INVAL)?, flags & OFlags::ACCMODE)?;

        let has = fcntl_getfl(&fd)?;
        if (has ^ flags).intersects(OFlags::SYNC) {
            return Err(Errno::INVAL.into());
        }
        let settable = OFlags::APPEND | OFlags::NONBLOCK | OFlags::DIRECT | OFlags::NOATIME;
        fcntl_setfl(&fd, has.difference(settable) | (flags & settable))?;
        if flags.contains(OFlags::TRUNC) || flags.contains(OFlags::CREATE | OFlags::EXCL) {
            ftruncate(&fd, 0)?;
        }
        Ok(Some(fd))
    }

    /// Duplicates the oldest descriptor of a set that has this access mode.
    fn duplicate(&self, id: i64, access_mode: OFlags) -> io::Result<OwnedFd> {
        let sets = self.lock();
        for member in sets.get(&id).ok_or(Errno::NOENT)? {
            if fcntl_getfl(&member.fd)? & OFlags::ACCMODE == access_mode {
                return member.fd.as_fd().try_clone_to_owned();
            }
        }
        Err(Errno::ACCESS.into())
    }

    fn add_fd(&self, context: &Context, arguments: AddFd) -> Result<AddfdInfo, Error> {
        let fd = take_waiting(context)?;
        let mut sets = self.lock();
        let id = match arguments.fdset_id {
            Some(..0) => {
                return Err(Error::generic("Parameter 'fdset-id' expects a non-negative value"));
            }
            Some(id) => id,
            // The lowest that is free.
            None => (0..).zip(sets.keys()).take_while(|(free, id)| free == *id).count() as i64,
        };
        let member = FdSetMember { fd, opaque: arguments.opaque };
        let info = AddfdInfo { fd: member.number(), fdset_id: id };
        sets.entry(id).or_default().push(member);
        Ok(info)
    }

    fn remove_fd(&self, _: &Context, arguments: RemoveFd) -> Result<(), Error> {
        let RemoveFd { fdset_id: id, fd } = arguments;
        let mut sets = self.lock();
        let removed = match (sets.get_mut(&id), fd) {
            (None, _) => None,
            (Some(_), None) => sets.remove(&id),
            (Some(members), Some(fd)) => {
                let removed: Vec<FdSetMember> =
                    members.extract_if(.., |member| member.number() == fd).collect();
                if members.is_empty() {
                    sets.remove(&id);
                }
                (!removed.is_empty()).then_some(removed)
            }
        };
        removed.map(drop).ok_or_else(|| match fd {
            None => not_found(&format!("fdset-id:{id}")),
            Some(fd) => not_found(&format!("fdset-id:{id}, fd:{fd}")),
        })
    }

    fn query_fdsets(&self, _: &Context) -> Result<Vec<FdsetInfo>, Error> {
        let info = |member: &FdSetMember| FdsetFdInfo {
            fd: member.number(),
            opaque: member.opaque.clone(),
        };
        let sets = self.lock();
        let sets = sets.iter().rev().map(|(&fdset_id, members)| FdsetInfo {
            fds: members.iter().map(info).collect(),
            fdset_id,
        });
        Ok(sets.collect())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<i64, Vec<FdSetMember>>> {
        self.sets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
