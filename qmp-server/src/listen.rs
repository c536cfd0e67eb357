// SPDX-License-Identifier: MIT OR Apache-2.0
//! How to listen, as written on the command line.

mod deserialize;

use std::io;
#[cfg(feature = "mux")]
use std::net::TcpListener;
#[cfg(feature = "mux")]
use std::os::fd::OwnedFd;
#[cfg(feature = "tls")]
use std::os::unix::fs::PermissionsExt;
#[cfg(feature = "tls")]
use std::path::Path;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

#[cfg(feature = "mux")]
pub(crate) use self::deserialize::Parsed;
use crate::access::{group_id, user_id};
use crate::deadline_profile::{DeadlineProfile, UnknownProfile};
use crate::steps;
#[cfg(feature = "mux")]
use crate::transport::Listener;
use crate::transport::options::{self, Setting, switch};
#[cfg(feature = "tls")]
use crate::transport::tls;
use crate::transport::{
    Address, AddressError, Connect, DialOut, ListenTls, Opened, SocketFile, inherited, stdio, tcp,
    unix, vsock,
};

/// Where to listen, and how.
///
/// Written `ADDR` and options behind commas:
///
/// - `pretty=on`: monitors there pretty-print their output.
/// - `mode=0660`, `owner=USER`, `group=GROUP`: of a Unix socket's file, in force before the first
///   client can connect. `abstract=on`: the path is a name in no file system.
/// - `cert=FILE`, `key=FILE`: the server's certificate chain and key, in PEM; TLS needs both.
///   `client-ca=FILE`: clients need a certificate of one of these authorities.
///   `allow-name=NAME`, which may be given more than once: and one of these names in it.
/// - `insecure=on`: others than those of this machine may connect without TLS.
/// - `deadline-profile=qemu`: commands have the deadlines of a [`DeadlineProfile`].
/// - `role=NAME`: the [`Role`](crate::Role) of whoever comes in here.
/// - `notices=on`: of a mux, a door that is always open, whose clients get the mux's own events.
/// - `server=off`: the client listens there, and the server connects to it, with the options of [`Connect`] but for
///   `abstract`. `reconnect-ms=N` or `reconnect=SECONDS`: it tries again after this time, when nobody accepts and when the
///   client has gone; without it there is one connection, which must succeed.
///
/// QEMU's other options `server=on,wait=off`, `server,nowait` and `nodelay=on` are understood, for they change nothing; a comma in
/// a path is written twice, as in QEMU.
///
/// ```
/// use qmp_server::{Address, Listen};
///
/// let listen: Listen = "unix:/run/qmp,,1.sock,server=on,wait=off,pretty=on,mode=0660".parse()?;
/// assert_eq!(listen.address, Address::Unix("/run/qmp,1.sock".into()));
/// assert!(listen.pretty);
/// assert_eq!(listen.mode, Some(0o660));
/// # Ok::<(), qmp_server::AddressError>(())
/// ```
///
/// In a configuration file it is such a string, or a map with an `address` and options of the same
/// names: `{ address = "unix:/run/qmp.sock", pretty = true, mode = "0660" }`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Listen {
    /// Where.
    pub address: Address,
    /// Whether output is pretty-printed.
    pub pretty: bool,
    /// The permissions of a Unix socket's file; by default those that the umask leaves.
    pub mode: Option<u32>,
    /// The user that a Unix socket's file is to belong to, by name or number.
    pub owner: Option<String>,
    /// The group that a Unix socket's file is to belong to, by name or number.
    pub group: Option<String>,
    /// How to prove who we are and ask others; there whenever the address is one for TLS.
    pub tls: Option<ListenTls>,
    /// Whether others than those of this machine may connect without TLS.
    pub insecure: bool,
    /// The name of the role of all clients there, whoever they are.
    pub role: Option<String>,
    /// Whether clients of a [`Mux`](crate::Mux) there get its own events. They can always connect, and stay when the
    /// upstream server has gone, whatever is said of [others](crate::Mux::on_upstream_lost).
    pub notices: bool,
    /// Set if the client listens there, and the server connects to it.
    pub dial_out: Option<DialOut>,
    /// The deadlines of commands there; by default those of the client's role, or of the server.
    pub deadline_profile: Option<DeadlineProfile>,
}

impl Listen {
    /// Listens here, with no options.
    pub fn new(address: Address) -> Listen {
        Listen {
            address,
            pretty: false,
            mode: None,
            owner: None,
            group: None,
            tls: None,
            insecure: false,
            role: None,
            notices: false,
            dial_out: None,
            deadline_profile: None,
        }
    }

    /// Listens there, with these options.
    pub(crate) fn of_settings(address: Address, settings: &[Setting]) -> Result<Listen, String> {
        let mut draft = Draft::new();
        draft.address = Some(address);
        for (name, value) in settings {
            draft.set(name, value.as_deref())?;
        }
        draft.finish()
    }

    /// Looks for mistakes that can be found without listening: whether the TLS files are good and the key is not for
    /// everybody to read, users and groups exist, the host's name is known, and strangers are kept out. A server with a
    /// key that everybody may read, or with TLS but without client certificates, can listen all the same.
    ///
    /// # Errors
    ///
    /// That of [`Server::listen`](crate::Server::listen) for the same mistake.
    pub fn verify(&self) -> Result<(), ListenError> {
        verify(self)
    }

    /// Options that do not go together, or not with the address.
    pub(crate) fn check(&self) -> Result<(), String> {
        self.address.check()?;
        Ok(self.check_options()?)
    }

    fn check_options(&self) -> Result<(), &'static str> {
        let has_file = matches!(self.address, Address::Unix(_));
        if !has_file && (self.mode.is_some() || self.owner.is_some() || self.group.is_some()) {
            return Err("mode, owner and group are for the file of a Unix socket");
        }
        if self.dial_out.is_some() {
            return match self.mode.is_some() || self.owner.is_some() || self.group.is_some() {
                true => Err("mode, owner and group are for a socket that the server makes"),
                false => Ok(()),
            };
        }
        match (&self.address, &self.tls) {
            (Address::Tls { .. }, Some(tls)) => {
                if tls.cert.as_os_str().is_empty() || tls.key.as_os_str().is_empty() {
                    return Err("TLS needs cert=FILE and key=FILE");
                }
                if tls.client_ca.is_none() && !tls.allow_names.is_empty() {
                    return Err("allow-name needs client-ca=FILE");
                }
                Ok(())
            }
            (Address::Tls { .. }, None) => Err("TLS needs cert=FILE and key=FILE"),
            (_, Some(_)) => Err("cert, key, client-ca and allow-name are for tls:HOST:PORT"),
            (_, None) => Ok(()),
        }
    }
}

/// A server cannot listen at an address.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[error("cannot listen at {address}: {reason}")]
pub struct ListenError {
    /// Where.
    pub address: Address,
    /// Why; that stands in the text of this error, too.
    pub reason: io::Error,
}

/// Takes an address; only systemd gives more than one socket for it. A listener lets clients connect when it is
/// [opened](crate::Listener::open).
pub(crate) fn bind(listen: &Listen) -> Result<Vec<Opened>, ListenError> {
    if let Some(dial) = &listen.dial_out {
        let opened = check(listen).and_then(|()| dial.open(listen.insecure));
        let failed = |reason| ListenError { address: listen.address.clone(), reason };
        return opened.map(|opened| vec![opened]).map_err(failed);
    }
    let one = |listener| vec![Opened::Listener(listener)];
    let opened = check(listen).and_then(|()| match &listen.address {
        Address::Unix(path) => unix::bind_path(path, socket_file(listen)?).map(one),
        Address::UnixAbstract(name) => unix::bind_abstract(name).map(one),
        Address::Tcp { host, port } => tcp::bind_host(host, *port, listen.insecure).map(one),
        #[cfg(feature = "tls")]
        Address::Tls { host, port } => tls::bind(host, *port, &tls_files(listen)).map(one),
        #[cfg(not(feature = "tls"))]
        Address::Tls { .. } => Err(no_tls()),
        Address::Vsock { cid, port } => vsock::bind_port(*cid, *port, listen.insecure).map(one),
        Address::Fd(fd) => inherited::open(*fd, listen.insecure).map(|opened| vec![opened]),
        Address::Systemd(name) => inherited::activated(name.as_deref(), listen.insecure),
        Address::Stdio => stdio::connect().map(|connection| vec![Opened::Connection(connection)]),
    });
    opened.map_err(|reason| ListenError { address: listen.address.clone(), reason })
}

/// Listens with a socket that another program has handed over.
#[cfg(feature = "mux")]
pub(crate) fn take_over(
    listen: &Listen,
    socket: OwnedFd,
    file: Option<(u64, u64)>,
) -> Result<Box<dyn Listener>, ListenError> {
    let taken = check(listen).and_then(|()| match &listen.address {
        Address::Unix(path) => Ok(unix::take_over(socket.into(), path, file, socket_file(listen)?)),
        Address::UnixAbstract(name) => Ok(unix::take_over_abstract(socket.into(), name)),
        Address::Tcp { .. } => tcp::take_over(TcpListener::from(socket), listen.insecure),
        Address::Vsock { .. } => vsock::take_over(socket, listen.insecure),
        #[cfg(feature = "tls")]
        Address::Tls { .. } => tls::take_over(TcpListener::from(socket), &tls_files(listen)),
        &Address::Fd(number) => inherited::listener(socket, number, listen.insecure),
        _ => inherited::listener(socket, -1, listen.insecure),
    });
    taken.map_err(|reason| ListenError { address: listen.address.clone(), reason })
}

/// Does what comes before opening an address: nobody notices.
pub(crate) fn verify(listen: &Listen) -> Result<(), ListenError> {
    if let Some(dial) = &listen.dial_out {
        let verified = check(listen).and_then(|()| dial.verify(listen.insecure));
        let failed = |reason| ListenError { address: listen.address.clone(), reason };
        return verified.map_err(failed);
    }
    let verified = check(listen).and_then(|()| match &listen.address {
        Address::Unix(path) => {
            socket_file(listen)?;
            unix::check_path(path)
        }
        Address::Tcp { host, port } => tcp::resolve(host, *port, listen.insecure).map(drop),
        #[cfg(feature = "tls")]
        Address::Tls { host, port } => {
            let files = tls_files(listen);
            tls::configure(&files)?;
            check_key(&files.key)?;
            check_strangers(host, *port, listen)
        }
        #[cfg(not(feature = "tls"))]
        Address::Tls { .. } => Err(no_tls()),
        Address::Vsock { cid, .. } => vsock::check_local(*cid, listen.insecure),
        // Whether these are there is not known before the program is started as it will be.
        Address::UnixAbstract(_) | Address::Fd(_) | Address::Systemd(_) | Address::Stdio => Ok(()),
    });
    verified.map_err(|reason| ListenError { address: listen.address.clone(), reason })
}

/// What the file of the socket is to be like, with users and groups looked up.
fn socket_file(listen: &Listen) -> io::Result<SocketFile> {
    Ok(SocketFile {
        mode: listen.mode,
        owner: listen.owner.as_deref().map(user_id).transpose()?,
        group: listen.group.as_deref().map(group_id).transpose()?,
    })
}

#[cfg(feature = "tls")]
fn tls_files(listen: &Listen) -> ListenTls {
    listen.tls.clone().unwrap_or_default()
}

/// Whether a private key is one.
#[cfg(feature = "tls")]
fn check_key(file: &Path) -> io::Result<()> {
    match file.metadata()?.permissions().mode() & 0o004 {
        0 => Ok(()),
        _ => {
            let reason = format!("{}: everybody may read this key; use chmod o-r", file.display());
            Err(io::Error::new(io::ErrorKind::InvalidData, reason))
        }
    }
}

/// Whether anybody on the network may connect. That works, but is hardly ever meant.
#[cfg(feature = "tls")]
fn check_strangers(host: &str, port: u16, listen: &Listen) -> io::Result<()> {
    let asks = listen.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some());
    if asks || tcp::resolve(host, port, listen.insecure).is_ok() {
        return Ok(());
    }
    let reason = "anybody may connect, for clients need no certificate; use client-ca=FILE, or \
                  insecure=on if that is meant";
    Err(io::Error::new(io::ErrorKind::Unsupported, reason))
}

#[cfg(not(feature = "tls"))]
fn no_tls() -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, "this program was built without TLS")
}

fn check(listen: &Listen) -> io::Result<()> {
    listen.check().map_err(|reason| io::Error::new(io::ErrorKind::InvalidInput, reason))
}

/// What has been said so far, in whatever order.
struct Draft {
    address: Option<Address>,
    /// Its address means nothing.
    options: Listen,
    /// The address is a path that is to become a name.
    is_abstract: bool,
    /// The client listens, and `connect` has the options for that, whose names are `connects`. Its address means nothing.
    dials: bool,
    connect: Connect,
    connects: Vec<String>,
    /// How long to wait before connecting again, by which option, if at all.
    reconnect: Option<(String, Duration)>,
    /// Whether it was said that clients are waited for, or are not.
    waits: bool,
}

impl Draft {
    fn new() -> Draft {
        Draft {
            address: None,
            options: Listen::new(Address::Stdio),
            is_abstract: false,
            dials: false,
            connect: Connect::new(Address::Stdio),
            connects: Vec::new(),
            reconnect: None,
            waits: false,
        }
    }

    fn set(&mut self, name: &str, value: Option<&str>) -> Result<(), String> {
        steps::count(name.len() + value.map_or(0, str::len));
        match options::modern(name, value) {
            ("wait", value) if switch(name, value)? => {
                return Err("wait=on is not supported: clients may come at any time, use wait=off"
                    .to_owned());
            }
            ("server", value) => self.dials = !switch(name, value)?,
            ("wait", _) => self.waits = true,
            ("reconnect" | "reconnect-ms", Some(value)) => self.reconnect(name, value)?,
            (
                "ca"
                | "server-name"
                | "keep-alive"
                | "keep-alive-idle"
                | "keep-alive-interval"
                | "keep-alive-count"
                | "ipv4"
                | "ipv6",
                value,
            ) => {
                self.connect.set(name, value)?;
                self.connects.push(name.to_owned());
            }
            ("nodelay", value) => options::nodelay(value)?,
            ("notices", value) => self.options.notices = switch(name, value)?,
            ("pretty", value) => self.options.pretty = switch(name, value)?,
            ("insecure", value) => self.options.insecure = switch(name, value)?,
            ("abstract", value) => self.is_abstract = switch(name, value)?,
            ("mode", Some(mode)) => {
                let bits = u32::from_str_radix(mode, 8).ok().filter(|bits| *bits <= 0o777);
                self.options.mode =
                    Some(bits.ok_or_else(|| format!("'{mode}' is not a mode like 0660"))?);
            }
            ("owner", Some(owner)) => self.options.owner = Some(owner.to_owned()),
            ("group", Some(group)) => self.options.group = Some(group.to_owned()),
            ("cert", Some(file)) => self.tls().cert = file.into(),
            ("key", Some(file)) => self.tls().key = file.into(),
            ("client-ca", Some(file)) => self.tls().client_ca = Some(file.into()),
            ("allow-name", Some(name)) => self.tls().allow_names.push(name.to_owned()),
            ("deadline-profile", Some(name)) => {
                let profile = name.parse().map_err(|error: UnknownProfile| error.to_string())?;
                self.options.deadline_profile = Some(profile);
            }
            ("role", Some("")) => return Err("the name of the role is missing".to_owned()),
            ("role", Some(role)) => {
                if let Some(first) = self.options.role.replace(role.to_owned()) {
                    return Err(format!("there is a role already, '{first}'"));
                }
            }
            (name, value) => return Err(options::unknown(name, value)),
        }
        Ok(())
    }

    fn tls(&mut self) -> &mut ListenTls {
        self.options.tls.get_or_insert_default()
    }

    /// As QEMU reads it: in seconds or milliseconds, and zero is never.
    fn reconnect(&mut self, name: &str, value: &str) -> Result<(), String> {
        if self.reconnect.is_some() {
            return Err("reconnect and reconnect-ms exclude each other".to_owned());
        }
        let number: u32 =
            value.parse().map_err(|_| format!("{name} is a number, not '{value}'"))?;
        let time = match name {
            "reconnect" => Duration::from_secs(number.into()),
            _ => Duration::from_millis(number.into()),
        };
        self.reconnect = Some((name.to_owned(), time));
        Ok(())
    }

    /// How to connect to the client, if it listens. An inherited connection is there already.
    fn dial_out(&mut self, address: &Address) -> Result<Option<DialOut>, String> {
        let reconnect = self.reconnect.take().filter(|(_, time)| !time.is_zero());
        let is_there = matches!(address, Address::Fd(_) | Address::Systemd(_) | Address::Stdio);
        if let Some((name, _)) = reconnect.as_ref().filter(|_| !self.dials || is_there) {
            return Err(format!("{name} is for server=off and an address to connect to"));
        }
        if let Some(name) = self.connects.first().filter(|_| !self.dials || is_there) {
            return Err(format!("{name} is for server=off and an address to connect to"));
        }
        if !self.dials || is_there {
            return Ok(None);
        }
        if self.waits {
            return Err("wait is for clients that connect, and not for server=off".to_owned());
        }
        let mut connect = self.connect.clone();
        connect.address = address.clone();
        if let Some(tls) = self.options.tls.take() {
            if tls.client_ca.is_some() || !tls.allow_names.is_empty() {
                return Err("client-ca and allow-name are for clients that connect".to_owned());
            }
            let ours = connect.tls.get_or_insert_default();
            let file = |file: PathBuf| (!file.as_os_str().is_empty()).then_some(file);
            (ours.cert, ours.key) = (file(tls.cert), file(tls.key));
        }
        Ok(Some(DialOut { reconnect: reconnect.map(|(_, time)| time), ..DialOut::new(connect) }))
    }

    /// All has been said: checks whether it goes together.
    fn finish(mut self) -> Result<Listen, String> {
        let mut address = self.address.take().ok_or("the address is missing")?;
        if self.is_abstract {
            let Address::Unix(path) = &address else {
                return Err("only a Unix socket can be abstract".to_owned());
            };
            address = Address::UnixAbstract(path.to_str().expect("it was text").to_owned());
        }
        let dial_out = self.dial_out(&address)?;
        let listen = Listen { address, dial_out, ..self.options };
        listen.check()?;
        Ok(listen)
    }
}

impl FromStr for Listen {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Listen, AddressError> {
        let (address, settings) = options::split(text);
        let listen = Listen::of_settings(address.parse()?, &settings);
        listen.map_err(|reason| AddressError::new(text, reason))
    }
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
        let wait = "wait=on is not supported: clients may come at any time, use wait=off";
        check_error("unix:a,wait=on", wait);
        check_error("unix:a,wait", wait);
        let dials = "reconnect-ms is for server=off and an address to connect to";
        check_error("unix:a,reconnect-ms=5", dials);
        check_error("fd:3,server=off,reconnect-ms=5", dials);
        check_error("unix:a,server=off,reconnect=x", "reconnect is a number, not 'x'");
        let both = "reconnect and reconnect-ms exclude each other";
        check_error("unix:a,server=off,reconnect=1,reconnect-ms=1", both);
        let wait = "wait is for clients that connect, and not for server=off";
        check_error("unix:a,server=off,wait=off", wait);
        let file = "mode, owner and group are for a socket that the server makes";
        check_error("unix:a,server=off,mode=0600", file);
        check_error(
            "tls:h:1,ca=a,cert=b,key=c",
            "ca is for server=off and an address to connect to",
        );
        let delay = "nodelay=off is not supported: messages are sent without delay";
        check_error("tcp:h:1,nodelay=no", delay);
        check_error("unix:a,colour=red", "option 'colour=red' is unknown");
        check_error("unix:a,pretty=very", "pretty is on or off, not 'very'");
        check_error("unix:a,role=a,role=b", "there is a role already, 'a'");
        let unknown = "'slow' is no deadline profile, only qemu and off";
        check_error("unix:a,deadline-profile=slow", unknown);
        check_error("unix:a,role=", "the name of the role is missing");
        check_error("unix:a,mode=rw", "'rw' is not a mode like 0660");
        check_error("stdio,mode=600", "mode, owner and group are for the file of a Unix socket");
        check_error("tls:h:1,cert=a", "TLS needs cert=FILE and key=FILE");
        check_error("tls:h:1,cert=a,key=b,allow-name=c", "allow-name needs client-ca=FILE");
        check_error("tcp:h:1,cert=a", "cert, key, client-ca and allow-name are for tls:HOST:PORT");
    }

    #[test]
    fn what_is_put_together_by_hand_is_checked_too() {
        let tls = Address::Tls { host: "localhost".into(), port: 0 };
        let error = Listen::new(tls).verify().unwrap_err();
        assert_eq!(error.reason.to_string(), "TLS needs cert=FILE and key=FILE");
        let mut listen = Listen::new(Address::Tcp { host: "localhost".into(), port: 0 });
        listen.mode = Some(0o600);
        let error = listen.verify().unwrap_err();
        assert_eq!(error.reason.kind(), std::io::ErrorKind::InvalidInput);
    }

    #[test]
    fn a_client_that_listens_is_connected_to() {
        let dial = |text: &str| text.parse::<Listen>().unwrap().dial_out;
        let plain = dial("unix:path=a,server=off,reconnect=0").unwrap();
        assert_eq!(plain, DialOut::new(Address::Unix("a".into()).into()));
        assert_eq!(
            dial("unix:a,noserver,reconnect=2").unwrap().reconnect,
            Some(Duration::from_secs(2))
        );
        let tls = dial("tls:h:1,server=off,reconnect-ms=50,ca=a,cert=b,key=c").unwrap();
        assert_eq!(tls.reconnect, Some(Duration::from_millis(50)));
        assert_eq!(tls.connect, "tls:h:1,ca=a,cert=b,key=c".parse().unwrap());
        // It is there already.
        assert_eq!(dial("fd:3,server=off"), None);
    }

    #[test]
    fn what_changes_nothing_is_understood() {
        for options in
            ["server=on,wait=off", "server,nowait", "server=yes,wait=no", "nodelay", "delay=off"]
        {
            let text = format!("unix:a,{options}");
            assert_eq!(text.parse(), Ok(Listen::new(Address::Unix("a".into()))), "{text}");
        }
    }

    #[test]
    fn a_path_becomes_a_name() {
        let listen: Listen = "unix:qmp,abstract=on".parse().unwrap();
        assert_eq!(listen.address, Address::UnixAbstract("qmp".into()));
    }
}
