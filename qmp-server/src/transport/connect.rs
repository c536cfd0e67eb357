// SPDX-License-Identifier: MIT OR Apache-2.0
//! Connecting to a server, wherever it is.

pub(crate) mod attempt;
pub(crate) mod stream;
#[cfg(feature = "tls")]
mod tls;

use std::io;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::{Duration, Instant};

use rustix::io::{Errno, ioctl_fionbio};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

use self::attempt::Attempt;
use super::options::{self, Setting, switch};
use super::{Address, AddressError, Transport};

/// The system takes a timeout of zero for none.
const SHORTEST: Duration = Duration::from_millis(1);

/// A century. Clocks end before `Duration::MAX` does.
pub(crate) const LONGEST_TIMEOUT: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// Where to connect to a server, and how.
///
/// Written `ADDR` and options after commas, as on QEMU's command line:
///
/// - `ca=FILE`: the authority that the certificate of a TLS server must be from, in PEM. `cert=FILE`, `key=FILE`: our own
///   certificate, if the server wants one. `server-name=NAME`: the name that the server's certificate must have, if that
///   is not the host.
/// - `abstract=on`: the path of a Unix socket is a name in no file system.
/// - `keep-alive=off`: do not find out that the host of a TCP or TLS server has vanished. Otherwise the system asks after
///   `keep-alive-idle=10` seconds of silence, every `keep-alive-interval=10` seconds, and gives up when there was no answer
///   `keep-alive-count=3` times.
/// - `ipv4=off` or `ipv6=off`: leave out such addresses of a host; `on` leaves out the others.
///
/// QEMU's `server=on,wait=off` is understood, for it says that the server listens; so is `nodelay=on`. A comma in a path is
/// written twice. A host that is left out, as in `tcp::4444`, is `localhost`.
///
/// ```
/// use qmp_server::{Address, Connect};
///
/// let connect: Connect = "unix:/run/vm,,1.sock,server=on,wait=off".parse()?;
/// assert_eq!(connect, Connect::new(Address::Unix("/run/vm,1.sock".into())));
/// assert!("unix:/run/vm1.sock,server=off".parse::<Connect>().is_err());
/// # Ok::<(), qmp_server::AddressError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Connect {
    /// Where.
    pub address: Address,
    /// For a TLS server, which needs it.
    pub tls: Option<ConnectTls>,
    /// When a TCP or TLS server's host counts as vanished, if it is to be found out.
    pub keep_alive: Option<KeepAlive>,
    /// Whether IPv4 addresses of a host may be used, as in QEMU: those alone if this is `true` and IPv6 is not.
    pub ipv4: Option<bool>,
    /// Likewise for IPv6 addresses.
    pub ipv6: Option<bool>,
}

/// When the other end of a TCP connection counts as vanished. The system rounds times to seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct KeepAlive {
    /// Silence after which it is asked.
    pub idle: Duration,
    /// How long it may take to answer before it is asked again.
    pub interval: Duration,
    /// How often it is asked.
    pub count: u32,
}

/// It takes 40 seconds to notice.
impl Default for KeepAlive {
    fn default() -> KeepAlive {
        KeepAlive { idle: Duration::from_secs(10), interval: Duration::from_secs(10), count: 3 }
    }
}

/// What the client of a TLS server needs. All files are in PEM.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct ConnectTls {
    /// The authority that the server's certificate must be from.
    pub ca: PathBuf,
    /// Our own certificate, and those that lead to its authority.
    pub cert: Option<PathBuf>,
    /// The private key that belongs to it.
    pub key: Option<PathBuf>,
    /// The name that the server's certificate must have, if that is not the host.
    pub server_name: Option<String>,
}

impl ConnectTls {
    /// Trusts this authority, and has no certificate.
    pub fn new(ca: impl Into<PathBuf>) -> ConnectTls {
        ConnectTls { ca: ca.into(), ..ConnectTls::default() }
    }
}

impl Connect {
    /// Connects there, with no options.
    pub fn new(address: Address) -> Connect {
        let keep_alive = Some(KeepAlive::default());
        Connect { address, tls: None, keep_alive, ipv4: None, ipv6: None }
    }

    /// Whether to [prepare](Attempt::prepare) an attempt may take long: names are looked up, or files are read.
    pub(crate) fn is_slow_to_prepare(&self) -> bool {
        matches!(self.address, Address::Tcp { .. } | Address::Tls { .. })
    }

    /// Whether the connection is there already, and cannot be made again.
    #[cfg(feature = "mux")]
    pub(crate) fn is_inherited(&self) -> bool {
        matches!(self.address, Address::Fd(_) | Address::Systemd(_))
    }

    pub(super) fn allows_ipv4(&self) -> bool {
        self.ipv4.unwrap_or(self.ipv6 != Some(true))
    }

    pub(super) fn allows_ipv6(&self) -> bool {
        self.ipv6.unwrap_or(self.ipv4 != Some(true))
    }

    /// Connects there, with these options.
    pub(crate) fn of_settings(address: Address, settings: &[Setting]) -> Result<Connect, String> {
        let mut connect = Connect::new(address);
        for (name, value) in settings {
            connect.set(name, value.as_deref())?;
        }
        Ok(connect)
    }

    /// Looks for mistakes that can be found without connecting: in the address, and in the files of TLS.
    ///
    /// # Errors
    ///
    /// That of [`connect`](Connect::connect) for the same mistake.
    pub fn verify(&self) -> io::Result<()> {
        let invalid = |reason| io::Error::new(io::ErrorKind::InvalidInput, reason);
        self.address.check().map_err(invalid)?;
        self.check_tls().map_err(|reason| invalid(reason.to_owned()))?;
        if !self.allows_ipv4() && !self.allows_ipv6() {
            return Err(invalid("without IPv4 and IPv6 there is no address left".to_owned()));
        }
        match &self.address {
            Address::Stdio => Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "only a server that listens elsewhere can be connected to: unix:, unix-abstract:, tcp:, tls:, \
                 vsock:, fd: or systemd:",
            )),
            #[cfg(feature = "tls")]
            Address::Tls { host, .. } => tls::configure(host, self.tls.as_ref()).map(drop),
            #[cfg(not(feature = "tls"))]
            Address::Tls { .. } => Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "this program was built without TLS",
            )),
            _ => Ok(()),
        }
    }

    /// Options that do not go together, or not with the address.
    fn check_tls(&self) -> Result<(), &'static str> {
        match (&self.address, &self.tls) {
            (Address::Tls { .. }, None) => {
                Err("TLS needs ca=FILE, the authority of the server's certificate")
            }
            (Address::Tls { .. }, Some(tls)) if tls.ca.as_os_str().is_empty() => {
                Err("TLS needs ca=FILE, the authority of the server's certificate")
            }
            (Address::Tls { .. }, Some(tls)) if tls.cert.is_some() != tls.key.is_some() => {
                Err("cert=FILE and key=FILE need each other")
            }
            (Address::Tls { .. }, Some(_)) | (_, None) => Ok(()),
            (_, Some(_)) => Err("ca, cert, key and server-name are for tls:HOST:PORT"),
        }
    }

    /// Connects, TLS included. What is returned does not block; this does: for the timeout, and for as long as the system
    /// takes to look up the name of a host.
    ///
    /// # Errors
    ///
    /// What is wrong with the options, the files of TLS or the certificate of the server; what the system says; or
    /// [`TimedOut`](io::ErrorKind::TimedOut).
    pub fn connect(&self, timeout: Duration) -> io::Result<Box<dyn Transport>> {
        self.verify()?;
        let timeout = timeout.min(LONGEST_TIMEOUT);
        let deadline = Instant::now() + timeout;
        match &self.address {
            Address::Unix(path) => return connect_unix(&SocketAddrUnix::new(path)?, timeout),
            Address::UnixAbstract(name) => {
                let address = SocketAddrUnix::new_abstract_name(name.as_bytes())?;
                return connect_unix(&address, timeout);
            }
            _ => {}
        }
        let mut attempt = Attempt::prepare(self, timeout)?;
        loop {
            // No address gets more time than there is for all.
            let now = Instant::now();
            if let Some(stream) = attempt.step(now)? {
                return stream.into_transport();
            }
            attempt.hurry(deadline);
            attempt.wait()?;
        }
    }

    pub(crate) fn set(&mut self, name: &str, value: Option<&str>) -> Result<(), String> {
        match options::modern(name, value) {
            ("server", value) if !switch(name, value)? => {
                return Err("server=off is not supported: the server listens".to_owned());
            }
            ("wait", value) => _ = switch(name, value)?,
            ("server", _) => {}
            ("nodelay", value) => options::nodelay(value)?,
            ("keep-alive", value) => {
                self.keep_alive = match switch(name, value)? {
                    true => Some(self.keep_alive.unwrap_or_default()),
                    false => None,
                };
            }
            ("keep-alive-idle", Some(value)) => self.keep_alive().idle = seconds(name, value)?,
            ("keep-alive-interval", Some(value)) => {
                self.keep_alive().interval = seconds(name, value)?;
            }
            ("keep-alive-count", Some(value)) => {
                let count = value.parse().ok().filter(|count| (1..=MOST_PROBES).contains(count));
                self.keep_alive().count = count.ok_or_else(|| {
                    format!("{name} is a number from 1 to {MOST_PROBES}, not '{value}'")
                })?;
            }
            ("ipv4", value) => self.ipv4 = Some(switch(name, value)?),
            ("ipv6", value) => self.ipv6 = Some(switch(name, value)?),
            ("abstract", value) => {
                if switch(name, value)? {
                    let Address::Unix(path) = &self.address else {
                        return Err("only a Unix socket can be abstract".to_owned());
                    };
                    self.address = Address::UnixAbstract(path.to_string_lossy().into_owned());
                }
            }
            ("ca", Some(file)) => self.tls().ca = file.into(),
            ("cert", Some(file)) => self.tls().cert = Some(file.into()),
            ("key", Some(file)) => self.tls().key = Some(file.into()),
            ("server-name", Some(name)) => self.tls().server_name = Some(name.to_owned()),
            (name, value) => return Err(options::unknown(name, value)),
        }
        Ok(())
    }

    fn tls(&mut self) -> &mut ConnectTls {
        self.tls.get_or_insert_default()
    }

    fn keep_alive(&mut self) -> &mut KeepAlive {
        self.keep_alive.get_or_insert_default()
    }
}

/// The most that Linux takes for the times and the number of [`KeepAlive`].
const LONGEST_SILENCE: u64 = 32767;
const MOST_PROBES: u32 = 127;

fn seconds(name: &str, value: &str) -> Result<Duration, String> {
    let seconds = value.parse().ok().filter(|seconds| (1..=LONGEST_SILENCE).contains(seconds));
    let wrong =
        || format!("{name} is a number of seconds from 1 to {LONGEST_SILENCE}, not '{value}'");
    Ok(Duration::from_secs(seconds.ok_or_else(wrong)?))
}

/// With no options.
impl From<Address> for Connect {
    fn from(address: Address) -> Connect {
        Connect::new(address)
    }
}

impl FromStr for Connect {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Connect, AddressError> {
        let (address, settings) = options::split(text);
        let connect = Connect::of_settings(address.parse()?, &settings);
        connect.map_err(|reason| AddressError::new(text, reason))
    }
}

fn connect_unix(address: &SocketAddrUnix, timeout: Duration) -> io::Result<Box<dyn Transport>> {
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    // It holds for `connect`, too, which waits while too many other clients do.
    set_socket_timeout(&socket, Timeout::Send, Some(timeout.max(SHORTEST)))?;
    match connect(&socket, address) {
        Ok(()) => {}
        Err(Errno::AGAIN) => {
            return Err(silent("the server does not accept; too many clients wait there"));
        }
        Err(error) => return Err(error.into()),
    }
    ioctl_fionbio(&socket, true)?;
    Ok(Box::new(UnixStream::from(socket)))
}

fn silent(reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_qemu_are_understood_or_named() {
        let parse = |text: &str| text.parse::<Connect>().map_err(|error| error.to_string());
        let unix = Connect::new(Address::Unix("a".into()));
        for options in
            ["server=on,wait=off", "server,nowait", "server=yes", "wait", "nodelay=on", ""]
        {
            let text = format!("unix:path=a,{options}");
            assert_eq!(parse(text.trim_end_matches(',')), Ok(unix.clone()), "{text}");
        }
        assert_eq!(parse("unix:a,abstract=on").unwrap().address, Address::UnixAbstract("a".into()));
        for (text, reason) in [
            ("unix:a,server=off", "server=off is not supported: the server listens"),
            ("unix:a,noserver", "server=off is not supported: the server listens"),
            ("unix:a,server=maybe", "server is on or off, not 'maybe'"),
            ("unix:a,reconnect=1", "option 'reconnect=1' is unknown"),
            ("unix:a,telnet", "option 'telnet' is unknown"),
            (
                "tcp:h:1,nodelay=off",
                "nodelay=off is not supported: messages are sent without delay",
            ),
            ("tcp:h:1,abstract=on", "only a Unix socket can be abstract"),
            (
                "tcp:h:1,keep-alive-idle=0",
                "keep-alive-idle is a number of seconds from 1 to 32767, not '0'",
            ),
            ("tcp:h:1,keep-alive-count=x", "keep-alive-count is a number from 1 to 127, not 'x'"),
        ] {
            assert_eq!(parse(text), Err(format!("'{text}': {reason}")));
        }
    }

    #[test]
    fn a_vanished_host_is_noticed_as_the_options_say() {
        let parse = |options: &str| format!("tcp:h:1,{options}").parse::<Connect>().unwrap();
        let seconds = Duration::from_secs;
        let expected = KeepAlive { idle: seconds(5), interval: seconds(2), count: 7 };
        let options = "keep-alive=on,keep-alive-idle=5,keep-alive-interval=2,keep-alive-count=7";
        assert_eq!(parse(options).keep_alive, Some(expected));
        assert_eq!(parse("keep-alive=off").keep_alive, None);
        assert_eq!(parse("nodelay").keep_alive, Some(KeepAlive::default()));
    }

    #[test]
    fn families_of_addresses_are_chosen_as_in_qemu() {
        for (options, ipv4, ipv6) in [
            ("", true, true),
            ("ipv4=on", true, false),
            ("ipv4=off", false, true),
            ("ipv6", false, true),
            ("ipv6=off", true, false),
            ("ipv4=on,ipv6=on", true, true),
            ("ipv4=on,ipv6=off", true, false),
        ] {
            let text = format!("tcp:h:1,{options}");
            let connect: Connect = text.trim_end_matches(',').parse().unwrap();
            assert_eq!((connect.allows_ipv4(), connect.allows_ipv6()), (ipv4, ipv6), "{text}");
        }
    }

    #[test]
    fn mistakes_are_found_without_connecting() {
        let verify =
            |text: &str| text.parse::<Connect>().unwrap().verify().unwrap_err().to_string();
        assert!(verify("stdio").starts_with("only a server that listens elsewhere"));
        assert!(verify("tcp:h:1,ipv4=off,ipv6=off").starts_with("without IPv4 and IPv6"));
        assert!(verify("tls:h:1").starts_with("TLS needs ca=FILE"));
        assert_eq!(verify("tls:h:1,ca=a,cert=b"), "cert=FILE and key=FILE need each other");
        assert_eq!(verify("tcp:h:1,ca=a"), "ca, cert, key and server-name are for tls:HOST:PORT");
        let long = Connect::new(Address::Unix("x".repeat(108).into()));
        assert!(long.verify().unwrap_err().to_string().contains("108 bytes"));
    }
}
