// SPDX-License-Identifier: MIT OR Apache-2.0
//! How a mux and its upstream server come together: either of the two may connect.

use std::io;
use std::marker::PhantomData;
use std::str::FromStr;

use serde::{Deserialize, Deserializer};

use crate::access::user_id;
use crate::listen::Parsed;
use crate::transport::options::{self, Setting, switch};
use crate::{Address, AddressError, Connect, Listen};

/// How a [`Mux`](crate::Mux) and its upstream server come together.
///
/// Written as a [`Connect`], or with `dial-in=on` among the options of a [`Listen`] if the server connects: `user=NAME` is then the
/// user whose process it must be at a Unix socket, by name or number, in place of the own user and root. What QEMU is told is
/// understood there: `server=off,reconnect-ms=N`. Servers of several machines can connect at [one socket](crate::DialInSockets).
///
/// ```
/// use qmp_server::Dial;
///
/// let dial: Dial = "unix:/run/vm0/qmp.sock,dial-in=on,mode=0600,user=0".parse()?;
/// let Dial::In(dial_in) = dial else { panic!() };
/// assert_eq!(dial_in.listen, "unix:/run/vm0/qmp.sock,mode=0600".parse()?);
/// assert!(matches!("unix:/run/vm0/qemu.sock".parse()?, Dial::Out(_)));
/// # Ok::<(), qmp_server::AddressError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Dial {
    /// The server listens, and the mux connects.
    Out(Connect),
    /// The mux listens, and the server connects.
    In(Box<DialIn>),
}

/// How to listen for a server that connects.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct DialIn {
    /// Where, and how.
    pub listen: Listen,
    /// The user whose process a server at a Unix socket must be, by name or number; by default the own user or root.
    pub user: Option<String>,
}

impl Dial {
    /// Where the server is, or where it connects.
    pub fn address(&self) -> &Address {
        match self {
            Dial::Out(connect) => &connect.address,
            Dial::In(dial_in) => &dial_in.listen.address,
        }
    }

    /// Looks for mistakes without connecting or listening.
    ///
    /// # Errors
    ///
    /// That of [`Mux::open`](crate::Mux::open), or of connecting, for the same mistake.
    pub fn verify(&self) -> io::Result<()> {
        match self {
            Dial::Out(connect) => connect.verify(),
            Dial::In(dial_in) => {
                let DialIn { listen, user } = &**dial_in;
                user.as_deref().map(user_id).transpose()?;
                listen.verify().map_err(|error| error.reason)
            }
        }
    }
}

impl DialIn {
    /// Listens like this, for a server of the own user or root.
    pub fn new(listen: Listen) -> DialIn {
        DialIn { listen, user: None }
    }

    /// Whether the servers of two machines can connect at the same socket, and be told apart: at a Unix socket by the
    /// [user](DialIn::user) of their processes, with TLS by the names in their certificates.
    ///
    /// ```
    /// use qmp_server::Dial;
    ///
    /// let dial_in = |text: &str| match text.parse() {
    ///     Ok(Dial::In(dial_in)) => *dial_in,
    ///     other => panic!("{other:?}"),
    /// };
    /// let first = dial_in("unix:/run/qemu.sock,dial-in=on,mode=0666,user=1001");
    /// let second = dial_in("unix:/run/qemu.sock,dial-in=on,mode=0666,user=1002");
    /// assert!(first.check_beside(&second).is_ok());
    /// let other = dial_in("unix:/run/qemu.sock,dial-in=on");
    /// assert_eq!(first.check_beside(&other).unwrap_err(), "another machine listens there with other options");
    /// ```
    ///
    /// # Errors
    ///
    /// If they cannot, with the reason.
    pub fn check_beside(&self, other: &DialIn) -> Result<(), &'static str> {
        if self.of_all() != other.of_all() {
            return Err("another machine listens there with other options");
        }
        let tells_apart = |dial_in: &DialIn| match dial_in.listen.address {
            // What is inherited turns out to be a Unix socket or not.
            Address::Unix(_) | Address::UnixAbstract(_) | Address::Fd(_) | Address::Systemd(_) => {
                true
            }
            Address::Tls { .. } => !dial_in.allow_names().is_empty(),
            Address::Tcp { .. } | Address::Vsock { .. } | Address::Stdio => false,
        };
        match tells_apart(self) && tells_apart(other) {
            true => Ok(()),
            false => Err(
                "it is another machine's, too, and nothing tells them apart: expected unix:PATH, or tls:HOST:PORT with \
                 client-ca=FILE and allow-name=NAME",
            ),
        }
    }

    /// The names in certificates of servers that may connect.
    pub(super) fn allow_names(&self) -> &[String] {
        self.listen.tls.as_ref().map_or(&[], |tls| &tls.allow_names)
    }

    /// How to listen for the servers of all machines that connect there.
    pub(super) fn of_all(&self) -> Listen {
        let mut listen = self.listen.clone();
        listen.tls.iter_mut().for_each(|tls| tls.allow_names.clear());
        listen
    }

    fn parse(address: Address, settings: Vec<Setting>) -> Result<DialIn, String> {
        let (mut user, mut rest) = (None, Vec::new());
        for (name, value) in settings {
            match options::modern(&name, value.as_deref()) {
                ("server", value) if switch("server", value)? => {
                    return Err("with dial-in=on the server connects: server=off".to_owned());
                }
                // What QEMU does, and not this end.
                ("server" | "reconnect" | "reconnect-ms" | "dial-in", _) => {}
                ("user", Some(name)) => user = Some(name.to_owned()),
                ("role" | "pretty" | "notices", _) => {
                    return Err(format!("{name} is for clients, and not for dial-in=on"));
                }
                _ => rest.push((name, value)),
            }
        }
        Ok(DialIn { user, ..DialIn::new(Listen::of_settings(address, &rest)?) })
    }
}

impl From<Connect> for Dial {
    fn from(connect: Connect) -> Dial {
        Dial::Out(connect)
    }
}

impl From<Address> for Dial {
    fn from(address: Address) -> Dial {
        Dial::Out(address.into())
    }
}

impl FromStr for Dial {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Dial, AddressError> {
        let (address, mut settings) = options::split(text);
        let wrong = |reason| AddressError::new(text, reason);
        let mut dials_in = false;
        for (name, value) in settings.iter().filter(|(name, _)| name == "dial-in") {
            dials_in = switch(name, value.as_deref()).map_err(wrong)?;
        }
        if dials_in {
            return Ok(Dial::In(Box::new(
                DialIn::parse(address.parse()?, settings).map_err(wrong)?,
            )));
        }
        settings.retain(|(name, _)| name != "dial-in");
        let connect = Connect::of_settings(address.parse()?, &settings);
        Ok(Dial::Out(connect.map_err(wrong)?))
    }
}

/// A string as on the command line, with options.
impl<'de> Deserialize<'de> for Dial {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Dial, D::Error> {
        deserializer.deserialize_str(Parsed(PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_connects_is_listened_for() {
        let parse = |text: &str| text.parse::<Dial>().map_err(|error| error.to_string());
        let dial_in = |text: &str| match parse(text).unwrap() {
            Dial::In(dial_in) => dial_in,
            Dial::Out(connect) => panic!("{connect:?}"),
        };
        let plain = dial_in("unix:path=a,dial-in=on,server=off,reconnect-ms=100");
        assert_eq!(*plain, DialIn::new("unix:a".parse().unwrap()));
        let all = dial_in("unix:a,abstract=on,dial-in,user=qemu");
        assert_eq!(all.user.as_deref(), Some("qemu"));
        assert_eq!(all.listen.address, Address::UnixAbstract("a".into()));
        let file = dial_in("unix:a,mode=0660,group=kvm,dial-in");
        assert_eq!(file.listen, "unix:a,mode=0660,group=kvm".parse().unwrap());
        assert_eq!(parse("unix:a,dial-in=off"), Ok(Address::Unix("a".into()).into()));
        for (text, reason) in [
            ("unix:a,dial-in=on,server=on", "with dial-in=on the server connects: server=off"),
            ("unix:a,dial-in=on,role=x", "role is for clients, and not for dial-in=on"),
            ("unix:a,dial-in=perhaps", "dial-in is on or off, not 'perhaps'"),
            ("unix:a,user=x", "option 'user=x' is unknown"),
            ("tls:h:1,dial-in=on", "TLS needs cert=FILE and key=FILE"),
        ] {
            assert_eq!(parse(text), Err(format!("'{text}': {reason}")));
        }
    }
}
