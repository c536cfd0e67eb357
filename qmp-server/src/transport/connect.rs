// SPDX-License-Identifier: MIT OR Apache-2.0
//! Connecting to a server, wherever it is.

pub(crate) mod begin;
#[cfg(feature = "tls")]
mod tls;

use std::io;
use std::net::TcpStream;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::{Duration, Instant};

use nix::sys::socket::{AddressFamily as NixFamily, SockFlag, SockType, VsockAddr, socket};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, ioctl_fionbio};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

use super::options::{self, switch};
use super::vsock::VsockStream;
use super::{Address, AddressError, Opened, Transport, inherited};

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
        Connect { address, tls: None }
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
        match &self.address {
            Address::Systemd(_) | Address::Stdio => Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "only a server that listens elsewhere can be connected to: unix:, unix-abstract:, tcp:, tls:, \
                 vsock: or fd:",
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
    /// ```
    /// use std::os::unix::net::UnixListener;
    /// use std::time::Duration;
    ///
    /// use qmp_server::{Address, Connect, Transport};
    ///
    /// let folder = tempfile::tempdir()?;
    /// let path = folder.path().join("qmp.sock");
    /// let listener = UnixListener::bind(&path)?;
    ///
    /// let server = Connect::new(Address::Unix(path)).connect(Duration::from_secs(1))?;
    /// assert_eq!(server.send(b"{'execute': 'qmp_capabilities'}")?, 31);
    /// # drop(listener);
    /// # Ok::<(), std::io::Error>(())
    /// ```
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
            Address::Unix(path) => connect_unix(&SocketAddrUnix::new(path)?, timeout),
            Address::UnixAbstract(name) => {
                connect_unix(&SocketAddrUnix::new_abstract_name(name.as_bytes())?, timeout)
            }
            Address::Tcp { host, port } => Ok(Box::new(connect_tcp(host, *port, deadline)?)),
            #[cfg(feature = "tls")]
            Address::Tls { host, port } => {
                let client = tls::configure(host, self.tls.as_ref())?;
                tls::shake_hands(connect_tcp(host, *port, deadline)?, client, deadline)
            }
            Address::Vsock { cid, port } => connect_vsock(*cid, *port),
            Address::Fd(number) => match inherited::open(*number, true)? {
                Opened::Connection(connection) => Ok(connection),
                Opened::Listener(_) => Err(io::Error::new(
                    io::ErrorKind::InvalidInput,
                    "the descriptor listens, and is not a connection",
                )),
            },
            // Not verified.
            _ => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    fn set(&mut self, name: &str, value: Option<&str>) -> Result<(), String> {
        match options::modern(name, value) {
            ("server", value) if !switch(name, value)? => {
                return Err("server=off is not supported: the server listens".to_owned());
            }
            ("wait", value) => _ = switch(name, value)?,
            ("server", _) => {}
            ("nodelay", value) => options::nodelay(value)?,
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
}

impl FromStr for Connect {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Connect, AddressError> {
        let (address, settings) = options::split(text);
        let mut connect = Connect::new(address.parse()?);
        for (name, value) in &settings {
            let set = connect.set(name, value.as_deref());
            set.map_err(|reason| AddressError::new(text, reason))?;
        }
        Ok(connect)
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

/// Tries the addresses of a host one after the other.
fn connect_tcp(host: &str, port: u16, deadline: Instant) -> io::Result<TcpStream> {
    let host = if host.is_empty() { "localhost" } else { host };
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
    for target in begin::resolve(host, port)? {
        match begin::begin(&target).and_then(|socket| finish(socket, deadline)) {
            Ok(socket) => return Ok(socket.into()),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Waits until a connection is made.
fn finish(socket: OwnedFd, deadline: Instant) -> io::Result<OwnedFd> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now()).max(SHORTEST);
        let timeout = Timespec::try_from(left).unwrap_or_default();
        match poll(&mut [PollFd::new(&socket, PollFlags::OUT)], Some(&timeout)) {
            Ok(0) => return Err(silent("the server does not accept the connection")),
            Ok(_) if begin::is_made(&socket)? => return Ok(socket),
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// The system gives up after two seconds.
fn connect_vsock(cid: u32, port: u32) -> io::Result<Box<dyn Transport>> {
    let socket: OwnedFd = socket(NixFamily::Vsock, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    nix::sys::socket::connect(socket.as_raw_fd(), &VsockAddr::new(cid, port))?;
    ioctl_fionbio(&socket, true)?;
    Ok(Box::new(VsockStream(socket)))
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
        ] {
            assert_eq!(parse(text), Err(format!("'{text}': {reason}")));
        }
    }

    #[test]
    fn mistakes_are_found_without_connecting() {
        let verify =
            |text: &str| text.parse::<Connect>().unwrap().verify().unwrap_err().to_string();
        assert!(verify("stdio").starts_with("only a server that listens elsewhere"));
        assert!(verify("tls:h:1").starts_with("TLS needs ca=FILE"));
        assert_eq!(verify("tls:h:1,ca=a,cert=b"), "cert=FILE and key=FILE need each other");
        assert_eq!(verify("tcp:h:1,ca=a"), "ca, cert, key and server-name are for tls:HOST:PORT");
        let long = Connect::new(Address::Unix("x".repeat(108).into()));
        assert!(long.verify().unwrap_err().to_string().contains("108 bytes"));
    }
}
