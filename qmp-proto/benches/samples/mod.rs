// SPDX-License-Identifier: MIT OR Apache-2.0
//! Messages as they are on the wire.

#![allow(dead_code, reason = "each benchmark uses some")]

/// What management software asks for all day.
pub(crate) const SMALL: &[&str] = &[
    r#"{"execute": "query-status", "id": "libvirt-17"}"#,
    r#"{"execute": "qmp_capabilities"}"#,
    r#"{"execute": "query-name", "arguments": {}, "id": "__qmp#00003"}"#,
    r#"{"execute": "cont", "id": 42}"#,
    r#"{"execute": "trace-event-get-state", "arguments": {"name": "handle_qmp_command"}, "id": "libvirt-18"}"#,
    r#"{"exec-oob": "migrate-pause", "id": "libvirt-19"}"#,
];

/// A command with 1 KiB of arguments of many kinds.
pub(crate) const MEMBERS: &str = r#"{"execute": "blockdev-add", "arguments": {"node-name": "libvirt-3-format", "driver": "qcow2", "read-only": false, "auto-read-only": true, "discard": "unmap", "detect-zeroes": "unmap", "lazy-refcounts": true, "l2-cache-size": 4194304, "cache": {"direct": true, "no-flush": false}, "overlap-check": {"template": "cached", "main-header": true, "active-l1": true, "active-l2": false}, "encrypt": {"format": "luks", "key-secret": "libvirt-3-format-encryption-secret0"}, "file": {"driver": "throttle", "throttle-group": "throttle-libvirt-3", "node-name": "libvirt-3-throttle", "file": {"driver": "nbd", "node-name": "libvirt-3-storage", "server": {"type": "inet", "host": "storage-17.example.org", "port": "10809"}, "export": "images/production/database-primary", "reconnect-delay": 60, "open-timeout": 5, "tls-creds": "objlibvirt-3-storage_tls0", "cache": {"direct": true, "no-flush": false}}}, "backing": {"driver": "qcow2", "node-name": "libvirt-4-format", "read-only": true, "file": {"driver": "file", "filename": "/var/lib/libvirt/images/base/debian-13.qcow2", "aio": "native", "locking": "auto"}, "backing": null}}, "id": "libvirt-419"}"#;

/// A command with one argument of 1 KiB.
pub(crate) fn text() -> String {
    let text = "info registers; the quick brown fox, 0123456789 [a-z]; ".repeat(19);
    format!(
        r#"{{"execute": "human-monitor-command", "arguments": {{"command-line": "{text}"}}, "id": "libvirt-420"}}"#
    )
}

/// The reply to `query-qmp-schema`, recorded from QEMU 10.0.2.
pub(crate) const SCHEMA_REPLY: &str = include_str!("schema-reply.json");
