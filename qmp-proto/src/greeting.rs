// SPDX-License-Identifier: MIT OR Apache-2.0
//! What servers send first.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Json, Layout};

/// A version: QAPI's `VersionInfo`, which `query-version` returns.
///
/// Displays as in `qemu --version`. A version that a server did not state is 0.0.0 and displays as
/// unknown.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Version {
    /// The three numbers.
    pub qemu: VersionTriple,
    /// What the distributor adds, such as `Debian 1:10.0.2+ds-1`; may be empty.
    pub package: Cow<'static, str>,
}

impl Version {
    /// Creates the version `major.minor.micro`, with what the distributor adds.
    pub fn new(
        major: i64,
        minor: i64,
        micro: i64,
        package: impl Into<Cow<'static, str>>,
    ) -> Version {
        Version { qemu: VersionTriple { micro, minor, major }, package: package.into() }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.qemu {
            VersionTriple { major: 0, minor: 0, micro: 0 } => f.write_str("unknown version")?,
            VersionTriple { major, minor, micro } => write!(f, "{major}.{minor}.{micro}")?,
        }
        if !self.package.is_empty() {
            write!(f, " ({})", self.package)?;
        }
        Ok(())
    }
}

/// The three numbers of a version: QAPI's `VersionTriple`. Later versions are greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct VersionTriple {
    // In QEMU's order on the wire.
    /// Changes with every release.
    pub micro: i64,
    /// Changes when something is added.
    pub minor: i64,
    /// Changes rarely.
    pub major: i64,
}

impl Ord for VersionTriple {
    fn cmp(&self, other: &VersionTriple) -> Ordering {
        let key = |version: &VersionTriple| (version.major, version.minor, version.micro);
        key(self).cmp(&key(other))
    }
}

impl PartialOrd for VersionTriple {
    fn partial_cmp(&self, other: &VersionTriple) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The name of something that a server offers and a client may enable.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Capability(Cow<'static, str>);

impl Capability {
    /// Out-of-band execution.
    pub const OOB: Capability = Capability(Cow::Borrowed("oob"));

    /// Returns the name on the wire.
    pub fn name(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl From<&'static str> for Capability {
    fn from(name: &'static str) -> Capability {
        Capability(name.into())
    }
}

impl From<String> for Capability {
    fn from(name: String) -> Capability {
        Capability(name.into())
    }
}

/// The first message of a connection: the server's version, and what can be enabled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Greeting {
    /// The version of the server.
    pub version: Version,
    /// What the client may enable.
    pub capabilities: Vec<Capability>,
}

impl Greeting {
    /// Creates the greeting of a server that offers these capabilities.
    pub fn new(version: Version, capabilities: Vec<Capability>) -> Greeting {
        Greeting { version, capabilities }
    }

    /// Appends the greeting as QEMU writes it, ended by CR LF.
    pub fn write(&self, layout: Layout, out: &mut String) {
        let from = out.len();
        out.push_str("{\"QMP\": ");
        // Text and numbers cannot fail to be written.
        out.push_str(Json::encode(self).unwrap_or(Json::EMPTY_OBJECT).as_str());
        out.push('}');
        layout.finish(out, from);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_have_their_order_by_the_largest_number_first() {
        let triple = |major, minor, micro| Version::new(major, minor, micro, "").qemu;
        assert!(triple(7, 2, 17) < triple(10, 0, 0));
        assert!(triple(10, 0, 9) < triple(10, 1, 0));
    }

    #[test]
    fn a_version_displays_what_is_known_of_it() {
        assert_eq!(Version::new(11, 1, 0, "").to_string(), "11.1.0");
        assert_eq!(Version::new(0, 0, 0, "x").to_string(), "unknown version (x)");
    }
}
