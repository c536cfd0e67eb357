// SPDX-License-Identifier: MIT OR Apache-2.0
//! How addresses are written on the command line.

pub(crate) mod options;

use std::borrow::Cow;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::steps;

/// Where a server listens, or a client connects.
///
/// Written `unix:PATH`, `unix-abstract:NAME` or `unix:@NAME` (as systemd and `ss` have it),
/// `tcp:HOST:PORT`, `tls:HOST:PORT`, `vsock:CID:PORT`, `fd:NUMBER`, `systemd` or `systemd:NAME`, or
/// `stdio`; a path with a slash may go without `unix:`. QEMU's `unix:path=PATH` and `tcp::PORT` are understood.
///
/// ```
/// use qmp_server::Address;
///
/// let address: Address = "tcp:localhost:4444".parse()?;
/// assert_eq!(address, Address::Tcp { host: "localhost".into(), port: 4444 });
/// assert_eq!("./qmp.sock".parse::<Address>()?.to_string(), "unix:./qmp.sock");
/// assert!("carrier-pigeon:coop".parse::<Address>().is_err());
/// # Ok::<(), qmp_server::AddressError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Address {
    /// A Unix socket at this path.
    Unix(PathBuf),
    /// A Unix socket with this name, which is in no file system.
    UnixAbstract(String),
    /// A TCP port of a host.
    Tcp {
        /// A name or address; an IPv6 address without its brackets. Empty for all addresses of this machine when
        /// listening, and for `localhost` when connecting.
        host: String,
        /// The port; 0 lets the system choose when listening.
        port: u16,
    },
    /// TLS 1.3 at a TCP port of a host.
    Tls {
        /// As for TCP.
        host: String,
        /// As for TCP.
        port: u16,
    },
    /// A port between a virtual machine and its host.
    Vsock {
        /// The context: 1 is this machine, 2 the host, `u32::MAX` (written `any`) listens on all.
        cid: u32,
        /// The port.
        port: u32,
    },
    /// An inherited descriptor: a socket that listens or is connected.
    Fd(i32),
    /// What systemd listens at for us: the sockets of this name (`FileDescriptorName=`), or all.
    Systemd(Option<String>),
    /// Standard input and output.
    Stdio,
}

/// An address, or the options behind it, cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{text}': {reason}")]
pub struct AddressError {
    text: String,
    reason: String,
}

impl AddressError {
    pub(crate) fn new(text: &str, reason: impl Into<String>) -> AddressError {
        AddressError { text: text.to_owned(), reason: reason.into() }
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Address, AddressError> {
        let address = Address::parse(text)?;
        address.check().map_err(|reason| AddressError::new(text, reason))?;
        Ok(address)
    }
}

/// Bytes of a Unix socket's path or name: the system has 108, of which one is a zero.
const LONGEST_PATH: usize = 107;

impl Address {
    /// Looks for what no socket can have.
    pub(crate) fn check(&self) -> Result<(), String> {
        let (what, bytes) = match self {
            Address::Unix(path) => ("path", path.as_os_str().as_encoded_bytes()),
            Address::UnixAbstract(name) => ("name", name.as_bytes()),
            _ => return Ok(()),
        };
        if bytes.is_empty() {
            return Err(format!("the {what} is missing"));
        }
        if bytes.len() > LONGEST_PATH {
            let len = bytes.len();
            return Err(format!(
                "the {what} has {len} bytes, and that of a socket at most {LONGEST_PATH}"
            ));
        }
        match what == "path" && bytes.contains(&0) {
            true => Err("the path has a zero byte".to_owned()),
            false => Ok(()),
        }
    }

    fn parse(text: &str) -> Result<Address, AddressError> {
        steps::count(text.len());
        let wrong = |reason: String| AddressError::new(text, reason);
        let (scheme, rest) = text.split_once(':').unwrap_or((text, ""));
        match scheme {
            "unix" => match (rest.strip_prefix('@'), long_form(rest)) {
                (Some(name), _) => Ok(Address::UnixAbstract(name.to_owned())),
                (None, Some(("path", path))) => Ok(Address::Unix(path.into())),
                (None, Some(_)) => Err(wrong(format!(
                    "options come after the path, and a file of this name is unix:./{rest}"
                ))),
                (None, None) => Ok(Address::Unix(rest.into())),
            },
            "unix-abstract" => Ok(Address::UnixAbstract(rest.to_owned())),
            "tcp" | "tls" => {
                let (host, port) = rest
                    .rsplit_once(':')
                    .ok_or_else(|| wrong(format!("expected {scheme}:HOST:PORT")))?;
                let port = number(port, "port").map_err(wrong)?;
                let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
                let host = bare.unwrap_or(host).to_owned();
                match scheme {
                    "tcp" => Ok(Address::Tcp { host, port }),
                    _ => Ok(Address::Tls { host, port }),
                }
            }
            "vsock" => {
                let (cid, port) = rest
                    .split_once(':')
                    .ok_or_else(|| wrong("expected vsock:CID:PORT".to_owned()))?;
                let cid = match cid {
                    "any" => u32::MAX,
                    cid => number(cid, "context").map_err(wrong)?,
                };
                Ok(Address::Vsock { cid, port: number(port, "port").map_err(wrong)? })
            }
            "fd" => match rest.parse() {
                Ok(fd @ 0..) => Ok(Address::Fd(fd)),
                _ => Err(wrong(format!("'{rest}' is not a descriptor"))),
            },
            "systemd" if rest.is_empty() => Ok(Address::Systemd(None)),
            "systemd" => Ok(Address::Systemd(Some(rest.to_owned()))),
            "stdio" if rest.is_empty() => Ok(Address::Stdio),
            _ if text.contains('/') => {
                // With `unix:` before it, it might be an abstract name or an option.
                let path = Address::Unix(text.into());
                match Address::parse(&format!("unix:{text}")) {
                    Ok(written) if written == path => Ok(path),
                    _ => Ok(Address::Unix(format!("./{text}").into())),
                }
            }
            _ => Err(wrong(
                "expected unix:PATH, unix-abstract:NAME, tcp:HOST:PORT, tls:HOST:PORT, \
                 vsock:CID:PORT, fd:NUMBER, systemd or stdio"
                    .to_owned(),
            )),
        }
    }
}

/// The name and value of what is an option to QEMU, where a path is expected.
fn long_form(text: &str) -> Option<(&str, &str)> {
    let (name, value) = text.split_once('=')?;
    let is_name = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-');
    (is_name && !name.is_empty()).then_some((name, value))
}

fn number<T: FromStr>(text: &str, what: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("'{text}' is not a {what}"))
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Unix(path) => write!(f, "unix:{}", path.display()),
            Address::UnixAbstract(name) => write!(f, "unix-abstract:{name}"),
            Address::Tcp { host, port } => write!(f, "tcp:{}:{port}", bracketed(host)),
            Address::Tls { host, port } => write!(f, "tls:{}:{port}", bracketed(host)),
            Address::Vsock { cid: u32::MAX, port } => write!(f, "vsock:any:{port}"),
            Address::Vsock { cid, port } => write!(f, "vsock:{cid}:{port}"),
            Address::Fd(fd) => write!(f, "fd:{fd}"),
            Address::Systemd(None) => f.write_str("systemd"),
            Address::Systemd(Some(name)) => write!(f, "systemd:{name}"),
            Address::Stdio => f.write_str("stdio"),
        }
    }
}

/// An IPv6 address needs brackets before a port.
fn bracketed(host: &str) -> Cow<'_, str> {
    if host.contains(':') { format!("[{host}]").into() } else { host.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_error(text: &str, expected: &str) {
        let error = text.parse::<Address>().unwrap_err();
        assert_eq!(error.to_string(), format!("'{text}': {expected}"));
    }

    #[test]
    fn mistakes_are_named() {
        check_error("unix:", "the path is missing");
        check_error("unix:@", "the name is missing");
        check_error("tcp:localhost", "expected tcp:HOST:PORT");
        check_error("tcp:localhost:http", "'http' is not a port");
        check_error("vsock:3", "expected vsock:CID:PORT");
        check_error("vsock:host:1", "'host' is not a context");
        check_error("fd:-1", "'-1' is not a descriptor");
        let options = "options come after the path, and a file of this name is unix:./server=on";
        check_error("unix:server=on", options);
        check_error("unix:path=", "the path is missing");
        check_error("/a\0b", "the path has a zero byte");
    }

    #[test]
    fn addresses_read_and_print_alike() {
        for text in [
            "unix:/run/qmp.sock",
            "unix-abstract:qmp",
            "tcp:[::1]:1",
            "tls:localhost:4444",
            "vsock:any:1",
            "vsock:2:1",
            "fd:3",
            "systemd",
            "systemd:qmp",
            "stdio",
        ] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        assert_eq!("unix:@a".parse(), Ok(Address::UnixAbstract("a".into())));
    }

    #[test]
    fn paths_and_names_that_are_too_long_are_refused_with_their_length() {
        for (scheme, what) in
            [("unix:", "path"), ("unix-abstract:", "name"), ("unix:path=", "path")]
        {
            let text = |len| format!("{scheme}{}", "x".repeat(len));
            assert!(text(107).parse::<Address>().is_ok(), "{scheme}");
            let expected = format!("the {what} has 108 bytes, and that of a socket at most 107");
            check_error(&text(108), &expected);
        }
        check_error(
            &format!("/{}", "é".repeat(100)),
            "the path has 201 bytes, and that of a socket at most 107",
        );
    }

    #[test]
    fn qemus_forms_are_understood() {
        let parse = |text: &str| text.parse::<Address>().unwrap();
        assert_eq!(parse("unix:path=a.sock"), Address::Unix("a.sock".into()));
        assert_eq!(parse("unix:path=path=a"), Address::Unix("path=a".into()));
        assert_eq!(parse("unix:./x=y"), Address::Unix("./x=y".into()));
        assert_eq!(parse("tcp::4444"), Address::Tcp { host: String::new(), port: 4444 });
        assert_eq!(parse("tcp::4444").to_string(), "tcp::4444");
    }

    #[test]
    fn ipv6_addresses_stand_in_brackets() {
        let address: Address = "tcp:[::1]:1".parse().unwrap();
        assert_eq!(address, Address::Tcp { host: "::1".into(), port: 1 });
        assert_eq!(address.to_string(), "tcp:[::1]:1");
    }
}
