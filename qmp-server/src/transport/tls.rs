// SPDX-License-Identifier: MIT OR Apache-2.0
//! TLS 1.3 on TCP, with clients' certificates if asked for.

mod config;
mod names;
pub(super) mod pem;

use std::io::{self, Read, Write};
#[cfg(feature = "mux")]
use std::net::TcpListener;
use std::net::{TcpStream, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustls::{
    CertificateError, Connection, InvalidMessage, OtherError, PeerIncompatible, ServerConfig,
    ServerConnection,
};

pub(crate) use self::config::configure;
#[cfg(feature = "fuzzing")]
pub(crate) use self::names::names_of;
use self::names::{Authorities, NameNotAllowed};
use super::tcp::{self, TcpSocket};
use super::{Listener, Received, Transport};
use crate::transport::{Address, ListenTls, Peer, Renewal};

/// So much is encrypted before it is seen whether the client reads it.
const MOST_AT_A_TIME: usize = 16 << 10;

/// Binds a socket to a port of a host. It does not listen yet.
pub(crate) fn bind(host: &str, port: u16, options: &ListenTls) -> io::Result<Box<dyn Listener>> {
    let keys = Keys::read(options)?;
    let addresses = match host {
        "" => tcp::all_addresses(port),
        host => (host, port).to_socket_addrs()?.collect(),
    };
    Ok(Box::new(TlsListener { listener: TcpSocket::bind(&addresses)?, keys }))
}

/// Goes on with a socket of another program.
#[cfg(feature = "mux")]
pub(crate) fn take_over(
    listener: TcpListener,
    options: &ListenTls,
) -> io::Result<Box<dyn Listener>> {
    let keys = Keys::read(options)?;
    Ok(Box::new(TlsListener { listener: TcpSocket::take_over(listener)?, keys }))
}

struct TlsListener {
    listener: TcpSocket,
    keys: Arc<Keys>,
}

/// What a listener proves itself with and asks of clients, from files that may be read again.
struct Keys {
    options: ListenTls,
    current: Mutex<Configured>,
}

type Configured = (Arc<ServerConfig>, Arc<Authorities>);

impl Keys {
    fn read(options: &ListenTls) -> io::Result<Arc<Keys>> {
        let (config, authorities) = configure(options)?;
        let current = Mutex::new((Arc::new(config), authorities));
        Ok(Arc::new(Keys { options: options.clone(), current }))
    }

    fn read_again(&self) -> io::Result<()> {
        let (config, authorities) = configure(&self.options)?;
        *self.lock() = (Arc::new(config), authorities);
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Configured> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AsFd for TlsListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

impl Listener for TlsListener {
    fn open(&mut self) -> io::Result<()> {
        self.listener.open()
    }

    fn shut(&mut self) -> io::Result<()> {
        self.listener.shut()
    }

    fn accept(&self) -> io::Result<Box<dyn Transport>> {
        let stream = self.listener.accept_stream()?;
        let (config, authorities) = self.keys.lock().clone();
        let tls = ServerConnection::new(config).map_err(io::Error::other)?;
        Ok(Box::new(TlsStream::new(tls.into(), stream, authorities, explain)))
    }

    fn address(&self) -> Address {
        match self.listener.address() {
            Address::Tcp { host, port } => Address::Tls { host, port },
            other => other,
        }
    }

    fn renewal(&self) -> Option<Renewal> {
        let keys = Arc::clone(&self.keys);
        Some(Arc::new(move || keys.read_again()))
    }
}

pub(crate) struct TlsStream {
    stream: TcpStream,
    authorities: Arc<Authorities>,
    state: Mutex<TlsState>,
}

struct TlsState {
    tls: Connection,
    /// So many bytes have been encrypted and not been said to be sent, because not all of them are.
    encrypted: usize,
    /// What is wrong with the other end, in words.
    explain: fn(&rustls::Error) -> String,
}

impl TlsState {
    /// Reads and decrypts; false at the end.
    fn fill(&mut self, mut stream: &TcpStream) -> io::Result<bool> {
        let received = self.tls.read_tls(&mut stream)?;
        if let Err(error) = self.tls.process_new_packets() {
            // The alert tells the other end why.
            let _ = self.flush(stream);
            return Err(io::Error::new(io::ErrorKind::InvalidData, (self.explain)(&error)));
        }
        Ok(received > 0)
    }

    /// Writes what has been encrypted.
    fn flush(&mut self, mut stream: &TcpStream) -> io::Result<()> {
        while self.tls.wants_write() {
            self.tls.write_tls(&mut stream)?;
        }
        Ok(())
    }
}

/// What is wrong with the client, in words for the log.
fn explain(error: &rustls::Error) -> String {
    use rustls::Error;
    match error {
        Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            "it does not speak TLS".to_owned()
        }
        Error::PeerIncompatible(
            PeerIncompatible::SupportedVersionsExtensionRequired
            | PeerIncompatible::Tls12NotOfferedOrEnabled,
        ) => "it does not speak TLS 1.3".to_owned(),
        Error::NoCertificatesPresented => "it has no certificate".to_owned(),
        Error::InvalidCertificate(error) => {
            format!("its certificate {}", explain_certificate(error))
        }
        error => error.to_string(),
    }
}

fn explain_certificate(error: &CertificateError) -> String {
    match error {
        // The latter if the authority has the name of one that is accepted.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "is not from an accepted authority".to_owned()
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "has expired".to_owned()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "is not valid yet".to_owned()
        }
        CertificateError::Other(OtherError(reason)) if reason.is::<NameNotAllowed>() => {
            reason.to_string()
        }
        CertificateError::Other(OtherError(reason)) => format!("is not accepted: {reason}"),
        error => format!("is not accepted: {error}"),
    }
}

fn unless_blocked(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
        result => result,
    }
}

impl TlsStream {
    pub(super) fn new(
        tls: Connection,
        stream: TcpStream,
        authorities: Arc<Authorities>,
        explain: fn(&rustls::Error) -> String,
    ) -> TlsStream {
        TlsStream {
            stream,
            authorities,
            state: Mutex::new(TlsState { tls, encrypted: 0, explain }),
        }
    }

    fn state(&self) -> MutexGuard<'_, TlsState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AsFd for TlsStream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

impl Transport for TlsStream {
    fn reports_hang_up(&self) -> bool {
        true
    }

    fn handshake(&self) -> io::Result<()> {
        let mut state = self.state();
        loop {
            unless_blocked(state.flush(&self.stream))?;
            if !state.tls.is_handshaking() {
                return Ok(());
            }
            if !state.fill(&self.stream)? {
                let left = "it has left during the TLS handshake";
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, left));
            }
        }
    }

    fn peer(&self) -> io::Result<Peer> {
        let address = self.stream.peer_addr()?.to_string();
        let state = self.state();
        Ok(match state.tls.peer_certificates() {
            Some(chain) => Peer::Certificate { names: self.authorities.names(chain), address },
            None => Peer::Address(address),
        })
    }

    fn receive(&self, buffer: &mut [u8], _descriptors: &mut Vec<OwnedFd>) -> io::Result<Received> {
        // What has been decrypted says nothing of what has not been received.
        let all = |bytes| Received { bytes, may_be_more: true };
        let mut state = self.state();
        loop {
            match state.tls.reader().read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // Without a farewell. A message that is cut off is seen to be so.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(all(0)),
                read => return read.map(all),
            }
            state.fill(&self.stream)?;
            // Answers to messages of TLS itself.
            unless_blocked(state.flush(&self.stream))?;
        }
    }

    fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        let mut state = self.state();
        if state.encrypted == 0 {
            let at_once = bytes.len().min(MOST_AT_A_TIME);
            state.encrypted = state.tls.writer().write(&bytes[..at_once])?;
        }
        state.flush(&self.stream)?;
        Ok(std::mem::take(&mut state.encrypted))
    }

    fn shutdown(&self) {
        let mut state = self.state();
        state.tls.send_close_notify();
        let _ = state.flush(&self.stream);
        Transport::shutdown(&self.stream);
    }
}
