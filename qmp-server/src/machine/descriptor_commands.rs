// SPDX-License-Identifier: MIT OR Apache-2.0
//! File descriptors: `getfd`, `closefd`, `add-fd`, `remove-fd`, `query-fdsets`. Mirrors
//! `qapi/misc.json` and `monitor/fds.c`.

use std::collections::BTreeMap;
use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use qmp_dispatch::proto::Error;
use qmp_dispatch::{Context, RegisterError, Registry};
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

/// Sets of descriptors, shared by all monitors.
#[derive(Default)]
struct Fdsets {
    /// By their ids; a set holds the oldest descriptor first.
    sets: Mutex<BTreeMap<i64, Vec<Member>>>,
}

struct Member {
    fd: Descriptor,
    opaque: Option<String>,
}

impl Member {
    /// The number by which clients name the descriptor.
    fn number(&self) -> i64 {
        self.fd.as_raw_fd().into()
    }
}

pub(super) fn register(registry: &mut Registry) -> Result<(), RegisterError> {
    registry.command("getfd", getfd)?;
    registry.command("closefd", closefd)?;
    let mut group = registry.with(Arc::new(Fdsets::default()));
    group.command("add-fd", Fdsets::add_fd)?;
    group.command("remove-fd", Fdsets::remove_fd)?;
    group.command("query-fdsets", Fdsets::query_fdsets)?;
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

impl Fdsets {
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
        let member = Member { fd, opaque: arguments.opaque };
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
                let removed: Vec<Member> =
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
        let info =
            |member: &Member| FdsetFdInfo { fd: member.number(), opaque: member.opaque.clone() };
        let sets = self.lock();
        let sets = sets.iter().rev().map(|(&fdset_id, members)| FdsetInfo {
            fds: members.iter().map(info).collect(),
            fdset_id,
        });
        Ok(sets.collect())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<i64, Vec<Member>>> {
        self.sets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
