// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who is let in, and how much they may take.

mod account;
mod admission;
mod limits;
mod origin;
mod users;

pub(crate) use account::{Accounts, BeingClosed, Charge, Ledger, Users, owner_of};
pub(crate) use admission::{
    Admission, HANDSHAKE_DEADLINE, Logged, Policy, RefusalHook, Refused, Verdict,
};
pub use limits::{Limits, Quota};
pub(crate) use origin::{DoorRole, GivenRole, Notices, Origin};
pub use users::Access;
#[cfg(feature = "roles")]
pub(crate) use users::is_mapped_group;
#[cfg(any(feature = "roles", feature = "mux"))]
pub(crate) use users::is_nobody;
pub(crate) use users::{Groups, group_id, groups_of, user_id};
