// SPDX-License-Identifier: MIT OR Apache-2.0
//! What servers send first.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::{Json, Layout};

/// A version, as QAPI's `VersionInfo`: what `query-version` returns.
///
/// ```
/// use qmp_proto::Version;
///
/// let version = Version::new(10, 0, 2, "Debian");
/// assert_eq!(version.to_string(), "10.0.2 (Debian)");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let VersionTriple { major, minor, micro } = self.qemu;
        write!(f, "{major}.{minor}.{micro}")?;
        if !self.package.is_empty() {
            write!(f, " ({})", self.package)?;
        }
        Ok(())
    }
}

/// Three numbers, as QAPI's `VersionTriple`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionTriple {
    /// Changes with every release.
    pub micro: i64,
    /// Changes when something is added.
    pub minor: i64,
    /// Changes rarely.
    pub major: i64,
}

/// Something that a server offers and a client may enable.
///
/// ```
/// use qmp_proto::Capability;
///
/// assert_eq!(Capability::from("oob"), Capability::Oob);
/// assert_eq!(Capability::from("novelty").name(), "novelty");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "Cow<'static, str>", into = "Cow<'static, str>")]
pub enum Capability {
    /// Out-of-band execution.
    Oob,
    /// One that this crate does not know.
    Other(String),
}

impl Capability {
    /// The name on the wire.
    pub fn name(&self) -> &str {
        match self {
            Capability::Oob => "oob",
            Capability::Other(name) => name,
        }
    }
}

impl From<&str> for Capability {
    fn from(name: &str) -> Capability {
        match name {
            "oob" => Capability::Oob,
            other => Capability::Other(other.to_owned()),
        }
    }
}

impl From<Cow<'static, str>> for Capability {
    fn from(name: Cow<'static, str>) -> Capability {
        Capability::from(&*name)
    }
}

impl From<Capability> for Cow<'static, str> {
    fn from(capability: Capability) -> Cow<'static, str> {
        match capability {
            Capability::Oob => "oob".into(),
            Capability::Other(name) => name.into(),
        }
    }
}

/// The first message of a connection: who serves, and what can be enabled.
///
/// ```
/// use qmp_proto::{Capability, Greeting, Layout, Version, VersionTriple};
///
/// let greeting = Greeting {
///     version: Version {
///         qemu: VersionTriple { micro: 2, minor: 0, major: 10 },
///         package: "".into(),
///     },
///     capabilities: vec![Capability::Oob],
/// };
/// let mut out = String::new();
/// greeting.write(Layout::Compact, &mut out);
/// assert_eq!(
///     out,
///     "{\"QMP\": {\"version\": {\"qemu\": {\"micro\": 2, \"minor\": 0, \"major\": 10}, \
///      \"package\": \"\"}, \"capabilities\": [\"oob\"]}}\r\n"
/// );
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
