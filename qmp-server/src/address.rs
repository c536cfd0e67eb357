// SPDX-License-Identifier: MIT OR Apache-2.0
//! How addresses are written on the command line.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// Where a server listens, or a client connects.
///
/// Written `unix:PATH`, `tcp:HOST:PORT` or `stdio`; a path with a slash may go without `unix:`.
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A Unix socket at this path.
    Unix(PathBuf),
    /// A TCP port of a host.
    Tcp {
        /// A name or address; an IPv6 address without its brackets.
        host: String,
        /// The port; 0 lets the system choose when listening.
        port: u16,
    },
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
    fn new(text: &str, reason: impl Into<String>) -> AddressError {
        AddressError { text: text.to_owned(), reason: reason.into() }
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Address, AddressError> {
        if text == "stdio" {
            return Ok(Address::Stdio);
        }
        if let Some(path) = text.strip_prefix("unix:") {
            return match path {
                "" => Err(AddressError::new(text, "the path is missing")),
                path => Ok(Address::Unix(path.into())),
            };
        }
        if let Some(rest) = text.strip_prefix("tcp:") {
            let (host, port) = rest
                .rsplit_once(':')
                .ok_or_else(|| AddressError::new(text, "expected tcp:HOST:PORT"))?;
            let port = port
                .parse()
                .map_err(|_| AddressError::new(text, format!("'{port}' is not a port")))?;
            let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
            return Ok(Address::Tcp { host: bare.unwrap_or(host).to_owned(), port });
        }
        if text.contains('/') {
            return Ok(Address::Unix(text.into()));
        }
        Err(AddressError::new(text, "expected unix:PATH, tcp:HOST:PORT or stdio"))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Unix(path) => write!(f, "unix:{}", path.display()),
            Address::Tcp { host, port } if host.contains(':') => write!(f, "tcp:[{host}]:{port}"),
            Address::Tcp { host, port } => write!(f, "tcp:{host}:{port}"),
            Address::Stdio => f.write_str("stdio"),
        }
    }
}

/// Where to listen, and how monitors there lay out their output.
///
/// Written `ADDR[,pretty=on]`. QEMU's `server=on,wait=off` and `server,nowait` are understood, for
/// they change nothing; a comma in a path is written twice, as in QEMU.
///
/// ```
/// use qmp_server::{Address, Listen};
///
/// let listen: Listen = "unix:/run/qmp,,1.sock,server=on,wait=off,pretty=on".parse()?;
/// assert_eq!(listen.address, Address::Unix("/run/qmp,1.sock".into()));
/// assert!(listen.pretty);
/// # Ok::<(), qmp_server::AddressError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// Where.
    pub address: Address,
    /// Whether output is pretty-printed.
    pub pretty: bool,
}

impl FromStr for Listen {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Listen, AddressError> {
        let mut parts = split_options(text).into_iter();
        let address = parts.next().unwrap_or_default().parse()?;
        let mut listen = Listen { address, pretty: false };
        for option in parts {
            match option.as_str() {
                "pretty=on" | "pretty" => listen.pretty = true,
                "pretty=off" => listen.pretty = false,
                "server=on" | "server" | "wait=off" | "nowait" => {}
                "wait=on" | "wait" => {
                    return Err(AddressError::new(
                        text,
                        "the machine does not wait for a client, use wait=off",
                    ));
                }
                "server=off" => {
                    return Err(AddressError::new(text, "connecting to a client is not supported"));
                }
                _ => {
                    return Err(AddressError::new(text, format!("option '{option}' is unknown")));
                }
            }
        }
        Ok(listen)
    }
}

/// Splits at commas, except at two in a row, which stand for one.
fn split_options(text: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut rest = text.chars().peekable();
    while let Some(character) = rest.next() {
        let part = parts.last_mut().expect("there is always one");
        if character != ',' {
            part.push(character);
        } else if rest.next_if_eq(&',').is_some() {
            part.push(',');
        } else {
            parts.push(String::new());
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_error(text: &str, expected: &str) {
        let error = text.parse::<Listen>().unwrap_err();
        assert_eq!(error.to_string(), format!("'{text}': {expected}"));
    }

    #[test]
    fn mistakes_are_named() {
        check_error("unix:", "the path is missing");
        check_error("tcp:localhost", "expected tcp:HOST:PORT");
        check_error("tcp:localhost:http", "'http' is not a port");
        check_error("qmp.sock", "expected unix:PATH, tcp:HOST:PORT or stdio");
        check_error("unix:a,wait=on", "the machine does not wait for a client, use wait=off");
        check_error("unix:a,colour=red", "option 'colour=red' is unknown");
    }

    #[test]
    fn ipv6_addresses_stand_in_brackets() {
        let address: Address = "tcp:[::1]:1".parse().unwrap();
        assert_eq!(address, Address::Tcp { host: "::1".into(), port: 1 });
        assert_eq!(address.to_string(), "tcp:[::1]:1");
    }
}
