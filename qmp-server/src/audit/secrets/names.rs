// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which names stand for secrets: all that the audit knows of QEMU is in these tables.
//!
//! Names are compared in small letters and with `-`, however clients spell them.

use std::sync::LazyLock;

use aho_corasick::{AhoCorasick, AhoCorasickKind};

use crate::steps;

/// Names of members, options and parameters that are secrets. `*` stands for any text at the beginning, and at the end if
/// there is one at the beginning.
const SECRETS: &[&str] = &[
    "*password*",
    "*passwd*",
    "*passphrase*",
    "*pass-phrase*",
    "*passcode*",
    "*passkey*",
    "pass",
    "*-pass",
    "pw",
    "pwd",
    "*secret*",
    "*credential*",
    "*token*",
    "*private*",
    "*privkey*",
    "*cookie",
    "key",
    "*-key",
    "*apikey*",
    "*accesskey*",
    "*authkey*",
    "*sslkey*",
    "*authorization*",
    "auth",
    "*-auth",
    "bearer",
    "otp",
    "pin",
    "*-pin",
    "session-id",
    "sessionid",
    "key-data",
    "*signature*",
    "sig",
    "psk",
    "*-psk",
    "jwt",
];

/// Finds the names of secrets in one pass: clients can choose very many names to be looked at.
static SECRET_NAMES: LazyLock<SecretNames> = LazyLock::new(SecretNames::new);

struct SecretNames {
    texts: AhoCorasick,
    /// Of each text, whether others may stand before it and after it.
    open: Vec<(bool, bool)>,
}

impl SecretNames {
    fn new() -> SecretNames {
        let texts = SECRETS.iter().map(|pattern| pattern.trim_matches('*'));
        let texts = AhoCorasick::builder().kind(Some(AhoCorasickKind::DFA)).build(texts);
        let open = SECRETS.iter().map(|pattern| (pattern.starts_with('*'), pattern.ends_with('*')));
        SecretNames { texts: texts.expect("there are few texts"), open: open.collect() }
    }

    fn contain(&self, name: &str) -> bool {
        steps::count(name.len());
        self.texts.find_overlapping_iter(name).any(|found| {
            let (before, after) = self.open[found.pattern().as_usize()];
            (before || found.start() == 0) && (after || found.end() == name.len())
        })
    }
}

/// Whether [`SECRETS`] have this name.
pub(super) fn is_secret(name: &str) -> bool {
    SECRET_NAMES.contain(name)
}

/// Names that look like it, but in QEMU's commands are those of members that hold the id of a `secret` object.
pub(super) const IDS: &[&str] = &[
    "cookie-secret",
    "key-secret",
    "new-secret",
    "old-secret",
    "password-secret",
    "passwordid",
    "proxy-password-secret",
];

/// Headers of HTTP, which also errors may quote.
pub(super) const HEADERS: &[&str] = &["*authorization*", "*cookie", "x-*"];

/// What is kept of the members of an object, at any depth in it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Members {
    /// Those whose names are none of secrets.
    Usual,
    /// Of these, all but a few that are secrets whatever their names, or may be what somebody types.
    AllBut(&'static [&'static str]),
    /// These. The others are secrets, or may be under a misspelt name.
    Only(&'static [&'static str]),
    /// Lines for people, in all texts.
    Lines,
}

/// Commands of QEMU, its guest agent included, that take secrets which the names of members do not tell. `object-add`
/// and `qom-set` are not among them: there it depends on what is added or set.
pub(super) const COMMANDS: &[(&str, Members)] = &[
    ("block-passwd", Members::Only(&["device", "node-name"])),
    ("change", Members::Only(&["device", "target"])),
    ("change-vnc-password", Members::Only(&[])),
    ("guest-exec", Members::AllBut(&["arg", "env", "input-data"])),
    ("guest-file-write", Members::AllBut(&["buf-b64"])),
    ("guest-set-user-password", Members::Only(&["username", "crypted"])),
    ("human-monitor-command", Members::Lines),
    ("input-send-event", Members::AllBut(&["events"])),
    ("ringbuf-write", Members::AllBut(&["data"])),
    ("send-key", Members::AllBut(&["keys"])),
    ("set-password", Members::Only(&["protocol", "connected", "display"])),
    ("sev-inject-launch-secret", Members::Only(&["packet-header", "gpa"])),
];

/// The type of an object begins with this if the object holds a secret.
pub(super) const SECRET_TYPE: &str = "secret";

/// What is kept of an object that holds a secret.
pub(super) const OF_SECRET_OBJECTS: Members = Members::Only(&[
    "qom-type", "id", "format", "keyid", "iv", "file", "loaded", "serial", "props",
]);

/// What is kept of all other objects. Were the type misspelt, this would be the secret.
pub(super) const OF_OBJECTS: Members = Members::AllBut(&["data"]);

/// What is kept where `qom-set` sets a secret.
pub(super) const OF_SECRET_PROPERTIES: Members = Members::Only(&["path", "property"]);

/// Members that hold a line for people, whatever the command.
pub(super) const LINES: &[&str] = &["command-line", "commandline"];

/// Members that say what is in one of [`VALUES`] beside them.
pub(super) const NAMES: &[&str] = &["name", "property", "option", "parameter", "header"];

/// Members that are secrets if one of [`NAMES`] beside them says so.
pub(super) const VALUES: &[&str] = &["value", "content"];

/// Members that hold a command line, as a list: what in it is a secret, only the program knows.
pub(super) const COMMAND_LINES: &[&str] = &["cpr-exec-command"];

/// What stands before a command line in a text.
pub(super) const BEFORE_COMMAND_LINES: &[&str] = &["exec", "-cmd"];

/// Schemes of URLs with a user who is somebody's login and not a token.
pub(super) const LOGIN_SCHEMES: &[&str] = &["ssh", "sftp", "scp"];

/// Schemes of URLs that are taken as such with one slash, too.
pub(super) const URL_SCHEMES: &[&str] =
    &["http", "https", "ftp", "ftps", "sftp", "scp", "ssh", "iscsi", "nfs", "smb", "tftp"];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::glob;

    #[test]
    fn names_are_found_where_the_patterns_match() {
        let words = &["pass", "word", "-", "key", "x", "pin", "secret", "data", "cookie", "e", ""];
        let names = words.iter().flat_map(|a| {
            words.iter().flat_map(move |b| words.iter().map(move |c| format!("{a}{b}{c}")))
        });
        let mut secrets = 0;
        for name in names {
            let expected = SECRETS.iter().any(|pattern| glob::matches(pattern, &name));
            assert_eq!(is_secret(&name), expected, "{name}");
            secrets += usize::from(expected);
        }
        assert!(secrets > 500, "{secrets}");
    }
}
