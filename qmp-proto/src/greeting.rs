// SPDX-License-Identifier: MIT OR Apache-2.0
//! What servers send first.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Json, Layout};

/// A version, as QAPI's `VersionInfo`: what `query-version` returns. Displays as in `qemu --version`;
/// one that a server did not state is 0.0.0 and displays as unknown.
///
/// ```
/// use qmp_proto::Version;
///
/// let version = Version::new(10, 0, 2, "Debian");
/// assert_eq!(version.to_string(), "10.0.2 (Debian)");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Version {
    /// The three numbers.
    pub qemu: VersionTriple,
    /// What the one who packaged it wants to add; may be empty.
    pub package: Cow<'static, str>,
}

impl Version {
    /// `major.minor.micro`, and what the one who packaged it wants to add; may be empty.
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

/// Three numbers, as QAPI's `VersionTriple`, from which they have their order on the wire. Later
/// versions are greater.
///
/// ```
/// use qmp_proto::VersionTriple;
///
/// let bookworm = VersionTriple { major: 7, minor: 2, micro: 17 };
/// assert!(bookworm < VersionTriple { major: 10, minor: 0, micro: 0 });
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct VersionTriple {
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

/// Something that a server offers and a client may enable, by its name on the wire.
///
/// ```
/// use qmp_proto::Capability;
///
/// assert_eq!(Capability::from("oob"), Capability::OOB);
/// assert_eq!(Capability::from("novelty").name(), "novelty");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Capability(Cow<'static, str>);

impl Capability {
    /// Out-of-band execution.
    pub const OOB: Capability = Capability(Cow::Borrowed("oob"));

    /// The name on the wire.
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

/// The first message of a connection: who serves, and what can be enabled.
///
/// ```
/// use qmp_proto::{Capability, Greeting, Layout, Version};
///
/// let greeting =
///     Greeting { version: Version::new(10, 0, 2, ""), capabilities: vec![Capability::OOB] };
/// let mut out = String::new();
/// greeting.write(Layout::Compact, &mut out);
/// assert_eq!(
///     out,
///     "{\"QMP\": {\"version\": {\"qemu\": {\"micro\": 2, \"minor\": 0, \"major\": 10}, \
///      \"package\": \"\"}, \"capabilities\": [\"oob\"]}}\r\n"
/// );
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Greeting {
    /// The version of the server.
    pub version: Version,
    /// What the client may enable.
    pub capabilities: Vec<Capability>,
}

impl Greeting {
    /// Appends the greeting as QEMU writes it, ended by CR LF.
    pub fn write(&self, layout: Layout, out: &mut String) {
        let from = out.len();
        out.push_str("{\"QMP\": ");
        // Nothing in a greeting can fail to be written.
        out.push_str(Json::encode(self).unwrap_or(Json::EMPTY_OBJECT).as_str());
        out.push('}');
        layout.finish(out, from);
    }
}
