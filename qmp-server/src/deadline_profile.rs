// SPDX-License-Identifier: MIT OR Apache-2.0
//! How long QEMU's commands may take.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use qmp_dispatch::{Deadlines, Locals};
use serde::{Deserialize, Serialize};

/// What changes nothing.
const QUERIES: Duration = Duration::from_secs(30);

/// All that is not named here.
const OTHERS: Duration = Duration::from_secs(60);

/// Devices, network and character devices: the guest takes part, but is not waited for.
const HOT_PLUG: Duration = Duration::from_secs(2 * 60);

/// Block devices, jobs and exports: requests of the guest are waited for, and storage may be slow.
const BLOCK: Duration = Duration::from_secs(5 * 60);

/// What starts and ends a migration, stops and starts the guest, or allocates its memory.
const MIGRATION: Duration = Duration::from_secs(10 * 60);

/// What writes or reads the memory of the guest while the command is executed.
const DUMP: Duration = Duration::from_secs(60 * 60);

/// A ready-made set of deadlines for commands, for the doors and roles that ask for it.
///
/// `docs/deadlines.md` has the times of [`Qemu`](DeadlineProfile::Qemu), and says why they are so long.
///
/// ```
/// use std::time::Duration;
///
/// use qmp_server::DeadlineProfile;
///
/// let profile: DeadlineProfile = "qemu".parse()?;
/// assert_eq!(profile.of("query-status"), Some(Duration::from_secs(30)));
/// assert_eq!(profile.of("dump-guest-memory"), Some(Duration::from_secs(3600)));
/// assert_eq!(DeadlineProfile::Off.of("query-status"), None);
/// assert_eq!("fast".parse::<DeadlineProfile>().unwrap_err().to_string(), "'fast' is no deadline profile, only qemu and off");
/// # Ok::<(), qmp_server::UnknownProfile>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum DeadlineProfile {
    /// No command has a deadline: for a door of a server whose other doors have a profile.
    Off,
    /// What QEMU's commands take at most on a machine that is well, with a margin.
    Qemu,
}

/// There is no deadline profile of this name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no deadline profile, only qemu and off")]
pub struct UnknownProfile(String);

impl DeadlineProfile {
    /// Returns the deadline of the command of this name.
    pub fn of(self, command: &str) -> Option<Duration> {
        match self {
            DeadlineProfile::Off => None,
            DeadlineProfile::Qemu => Some(of_qemu(command)),
        }
    }

    /// Gives a monitor this profile, unless its listener or its client's role has one.
    pub fn given_to(self, locals: Locals) -> Locals {
        with_profile(locals, move || Some(self))
    }
}

/// The profile of a monitor, which may be another one for each of its commands: the client may get another role. A local
/// of the monitor.
#[derive(Clone)]
struct ProfileOf(Arc<Decide>);

type Decide = dyn Fn() -> Option<DeadlineProfile> + Send + Sync;

/// Gives a monitor this profile, if there is one, where none was given to it before.
pub(crate) fn with_profile(
    locals: Locals,
    profile: impl Fn() -> Option<DeadlineProfile> + Send + Sync + 'static,
) -> Locals {
    let before = locals.get::<ProfileOf>().cloned();
    let first = ProfileOf(Arc::new(move || {
        let before = before.as_ref().and_then(|ProfileOf(before)| before());
        before.or_else(&profile)
    }));
    let of = first.clone();
    locals.with(first).with(Deadlines::new(move |command| (of.0)()?.of(command)))
}

fn of_qemu(command: &str) -> Duration {
    let begins = |beginnings: &[&str]| beginnings.iter().any(|begin| command.starts_with(begin));
    match command {
        // Anything can be in the last one: `savevm` is.
        "dump-guest-memory"
        | "memsave"
        | "pmemsave"
        | "xen-save-devices-state"
        | "xen-load-devices-state"
        | "human-monitor-command" => DUMP,
        "stop" | "cont" | "quit" | "object-add" | "object-del" | "x-exit-preconfig" => MIGRATION,
        "transaction" | "eject" | "change-backing-file" => BLOCK,
        "device_add" | "device_del" | "device-sync-config" | "set-cpu-topology" => HOT_PLUG,
        _ if begins(&["query-", "x-query-", "qom-get", "qom-list"]) => QUERIES,
        _ if begins(&["migrate", "snapshot-", "xen-colo-", "x-colo-"]) => MIGRATION,
        _ if begins(&["block", "x-block", "drive-", "job-", "nbd-server-"]) => BLOCK,
        _ if begins(&["netdev_", "chardev-", "cxl-"]) => HOT_PLUG,
        _ => OTHERS,
    }
}

impl FromStr for DeadlineProfile {
    type Err = UnknownProfile;

    fn from_str(name: &str) -> Result<DeadlineProfile, UnknownProfile> {
        match name {
            "off" => Ok(DeadlineProfile::Off),
            "qemu" => Ok(DeadlineProfile::Qemu),
            _ => Err(UnknownProfile(name.to_owned())),
        }
    }
}

impl fmt::Display for DeadlineProfile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DeadlineProfile::Off => "off",
            DeadlineProfile::Qemu => "qemu",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_have_the_time_of_their_kind() {
        for (command, expected) in [
            ("query-block", QUERIES),
            ("x-query-usb", QUERIES),
            ("system_reset", OTHERS),
            ("balloon", OTHERS),
            ("device_del", HOT_PLUG),
            ("netdev_add", HOT_PLUG),
            ("blockdev-add", BLOCK),
            ("block_resize", BLOCK),
            ("block-job-cancel", BLOCK),
            ("drive-mirror", BLOCK),
            ("migrate", MIGRATION),
            ("migrate_cancel", MIGRATION),
            ("snapshot-save", MIGRATION),
            ("stop", MIGRATION),
            ("dump-guest-memory", DUMP),
            ("", OTHERS),
        ] {
            assert_eq!(DeadlineProfile::Qemu.of(command), Some(expected), "{command}");
        }
        for profile in [DeadlineProfile::Off, DeadlineProfile::Qemu] {
            assert_eq!(profile.to_string().parse(), Ok(profile));
        }
    }
}
