// SPDX-License-Identifier: MIT OR Apache-2.0
//! The dialects of QEMU's JSON parser.

use std::fmt;
use std::str::FromStr;

use crate::VersionTriple;

/// Which QEMU's JSON parser is mirrored.
///
/// The dialects accept the same messages. They differ in how an error is worded, whether its place is
/// told, and when it is found: 10.0 parses a message when its last bracket is closed, 11.1 looks at
/// each token as it comes, and skips the rest of the message after an error.
///
/// ```
/// use qmp_proto::{Dialect, Limits, Reader};
///
/// let error = |dialect| {
///     let mut reader = Reader::new(dialect, Limits::default());
///     let message = reader.read(&mut &b"{'execute' 'stop'}"[..]).unwrap();
///     message.and_then(|message| message.to_value()).unwrap_err().to_string()
/// };
/// assert_eq!(error(Dialect::Qemu10_0), "JSON parse error, missing : in object pair");
/// assert_eq!(error(Dialect::Qemu11_1), "1:12: JSON parse error, expecting ':'");
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Dialect {
    /// That of QEMU 10.0, and of the versions before it from 7.2 on.
    Qemu10_0,
    /// That of QEMU 11.1.
    #[default]
    Qemu11_1,
}

impl Dialect {
    /// All dialects, the oldest first.
    pub const ALL: [Dialect; 2] = [Dialect::Qemu10_0, Dialect::Qemu11_1];

    /// The version of QEMU that the dialect is named after, such as `11.1`.
    pub const fn name(self) -> &'static str {
        match self {
            Dialect::Qemu10_0 => "10.0",
            Dialect::Qemu11_1 => "11.1",
        }
    }

    /// The version of QEMU that the dialect has been compared with.
    pub const fn version(self) -> VersionTriple {
        match self {
            Dialect::Qemu10_0 => VersionTriple { major: 10, minor: 0, micro: 2 },
            Dialect::Qemu11_1 => VersionTriple { major: 11, minor: 1, micro: 3 },
        }
    }

    /// Returns the dialect that this version of QEMU speaks.
    ///
    /// ```
    /// use qmp_proto::{Dialect, VersionTriple};
    ///
    /// let dialect = |major, minor| Dialect::of_version(VersionTriple { major, minor, micro: 0 });
    /// assert_eq!(dialect(9, 2), Dialect::Qemu10_0);
    /// assert_eq!(dialect(11, 1), Dialect::Qemu11_1);
    /// ```
    pub fn of_version(version: VersionTriple) -> Dialect {
        match (version.major, version.minor) >= (11, 1) {
            true => Dialect::Qemu11_1,
            false => Dialect::Qemu10_0,
        }
    }
}

/// By [`name`](Dialect::name).
impl FromStr for Dialect {
    type Err = UnknownDialect;

    fn from_str(name: &str) -> Result<Dialect, UnknownDialect> {
        Self::ALL.into_iter().find(|dialect| dialect.name() == name).ok_or(UnknownDialect(()))
    }
}

impl fmt::Display for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A text is not the name of a [`Dialect`].
///
/// ```
/// let error = "7.2".parse::<qmp_proto::Dialect>().unwrap_err();
/// assert_eq!(error.to_string(), "unknown dialect: expected 10.0 or 11.1");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown dialect: expected 10.0 or 11.1")]
pub struct UnknownDialect(());
