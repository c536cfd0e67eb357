// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the ready-made roles may do. Decided by the commands of QEMU 10.0 and its guest agent, one by one; `docs/roles.md`
//! has the table and the reasons. What QEMU gets in future is denied unless it is a query.

/// Nothing that begins with `x-`: those can change in meaning with every version, and show where things are in the memory
/// of QEMU.
pub(super) const OBSERVER_ALLOWS: &[&str] = &[
    "query-*",
    "__org.qmp-server_query-*",
    "qom-list",
    "qom-list-types",
    "trace-event-get-state",
    "xen-event-list",
    // Of a guest agent.
    "guest-ping",
    "guest-info",
    "guest-get-*",
    "guest-network-get-*",
    "guest-fsfreeze-status",
];

/// Has the firmware of the host sign whatever it is given.
pub(super) const OBSERVER_DENIES: &[&str] = &["query-sev-attestation-report"];

/// Besides what an observer may do.
pub(super) const OPERATOR_ALLOWS: &[&str] = &[
    // The run state.
    "stop",
    "cont",
    "system_powerdown",
    "system_reset",
    "system_wakeup",
    "inject-nmi",
    // What the guest sees of its devices.
    "announce-self",
    "balloon",
    "device_del",
    "input-send-event",
    "rtc-reset-reinjection",
    "send-key",
    "set_link",
    // Media that are there.
    "eject",
    "blockdev-close-tray",
    "blockdev-insert-medium",
    "blockdev-open-tray",
    "blockdev-remove-medium",
    // Disks that are there.
    "block-dirty-bitmap-*",
    "block-latency-histogram-set",
    "block-set-write-threshold",
    "block_resize",
    "block_set_io_throttle",
    "blockdev-snapshot-delete-internal-sync",
    "blockdev-snapshot-internal-sync",
    "snapshot-delete",
    "snapshot-load",
    "snapshot-save",
    // Jobs and migrations that others have started.
    "block-job-*",
    "job-*",
    "migrate-pause",
    "migrate_cancel",
    // How much work the guest may make.
    "calc-dirty-rate",
    "cancel-vcpu-dirty-limit",
    "set-vcpu-dirty-limit",
    // What a guest agent does besides executing programs and opening files.
    "guest-fsfreeze-*",
    "guest-fstrim",
    "guest-set-memory-blocks",
    "guest-set-time",
    "guest-set-vcpus",
    "guest-shutdown",
    "guest-suspend-*",
];
