// SPDX-License-Identifier: MIT OR Apache-2.0
//! TLS 1.3 on TCP, with clients' certificates if asked for.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::ring;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, InvalidMessage, OtherError,
    RootCertStore, ServerConfig, ServerConnection, SignatureScheme,
};
use x509_parser::extensions::GeneralName;

use super::{Listener, Transport};
use crate::{Address, ListenTls, Peer};

/// So much is encrypted before it is seen whether the client reads it.
const MOST_AT_A_TIME: usize = 16 << 10;

pub(super) fn listen(host: &str, port: u16, options: &ListenTls) -> io::Result<Box<dyn Listener>> {
    let config = Arc::new(configure(options)?);
    let listener = TcpListener::bind((host, port))?;
    listener.set_nonblocking(true)?;
    Ok(Box::new(TlsListener { listener, config }))
}

fn configure(options: &ListenTls) -> io::Result<ServerConfig> {
    let provider = Arc::new(ring::default_provider());
    let chain = certificates(&options.cert)?;
    let key = PrivateKeyDer::from_pem_file(&options.key)
        .map_err(|error| in_file(&options.key, describe(&error)))?;
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(io::Error::other)?;
    let builder = match &options.client_ca {
        None => builder.with_no_client_auth(),
        Some(file) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(file)? {
                roots.add(certificate).map_err(|error| in_file(file, error))?;
            }
            let inner = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                .build()
                .map_err(|error| in_file(file, error))?;
            let names = options.allow_names.clone();
            builder.with_client_cert_verifier(Arc::new(NamesVerifier { inner, names }))
        }
    };
    builder.with_single_cert(chain, key).map_err(|error| in_file(&options.cert, error))
}

fn certificates(file: &Path) -> io::Result<Vec<CertificateDer<'static>>> {
    let certificates: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(file).and_then(Iterator::collect);
    match certificates {
        Ok(certificates) if certificates.is_empty() => Err(in_file(file, "holds no certificate")),
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(in_file(file, describe(&error))),
    }
}

fn describe(error: &pem::Error) -> String {
    match error {
        pem::Error::Io(error) => error.to_string(),
        pem::Error::NoItemsFound => "holds no key".to_owned(),
        error => format!("is not PEM: {error}"),
    }
}

fn in_file(file: &Path, error: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{}: {error}", file.display()))
}

/// Verifies a client's certificate, and that it has one of some names.
#[derive(Debug)]
struct NamesVerifier {
    inner: Arc<dyn ClientCertVerifier>,
    /// With none, any will do.
    names: Vec<String>,
}

#[derive(Debug, thiserror::Error)]
#[error("none of its names ({0}) is allowed")]
struct NameNotAllowed(String);

impl ClientCertVerifier for NamesVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let verified = self.inner.verify_client_cert(certificate, intermediates, now)?;
        let names = names_in(certificate);
        if self.names.is_empty() || names.iter().any(|name| self.names.contains(name)) {
            return Ok(verified);
        }
        let refused = OtherError(Arc::new(NameNotAllowed(names.join(", "))));
        Err(rustls::Error::InvalidCertificate(CertificateError::Other(refused)))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

/// DNS names, URIs, and the common name.
fn names_in(certificate: &CertificateDer<'_>) -> Vec<String> {
    let Ok((_, certificate)) = x509_parser::parse_x509_certificate(certificate) else {
        return Vec::new();
    };
    let mut names = Vec::new();
    if let Ok(Some(alternatives)) = certificate.subject_alternative_name() {
        for name in &alternatives.value.general_names {
            if let GeneralName::DNSName(name) | GeneralName::URI(name) = name {
                names.push((*name).to_owned());
            }
        }
    }
    let common = certificate.subject().iter_common_name();
    names.extend(common.filter_map(|name| name.as_str().ok()).map(str::to_owned));
    names
}

struct TlsListener {
    listener: TcpListener,
    config: Arc<ServerConfig>,
}

impl Listener for TlsListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        AsFd::as_fd(&self.listener)
    }

    fn accept(&self) -> io::Result<Box<dyn Transport>> {
        let (stream, _) = self.listener.accept()?;
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        let tls = ServerConnection::new(Arc::clone(&self.config)).map_err(io::Error::other)?;
        Ok(Box::new(TlsStream { state: Mutex::new(State { tls, encrypted: 0 }), stream }))
    }

    fn address(&self) -> Address {
        match Listener::address(&self.listener) {
            Address::Tcp { host, port } => Address::Tls { host, port },
            other => other,
        }
    }
}

struct TlsStream {
    stream: TcpStream,
    state: Mutex<State>,
}

struct State {
    tls: ServerConnection,
    /// So many bytes have been encrypted and not been said to be sent, because not all of them are.
    encrypted: usize,
}

impl State {
    /// Reads and decrypts; false at the end.
    fn fill(&mut self, mut stream: &TcpStream) -> io::Result<bool> {
        let received = self.tls.read_tls(&mut stream)?;
        if let Err(error) = self.tls.process_new_packets() {
            // The alert tells the client why.
            let _ = self.flush(stream);
            return Err(io::Error::new(io::ErrorKind::InvalidData, explain(&error)));
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

fn explain(error: &rustls::Error) -> String {
    match error {
        rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            "the client does not speak TLS".to_owned()
        }
        rustls::Error::NoCertificatesPresented => "the client has no certificate".to_owned(),
        rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(reason))) => {
            format!("the client's certificate: {reason}")
        }
        error => error.to_string(),
    }
}

fn unless_blocked(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
        result => result,
    }
}

impl TlsStream {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Transport for TlsStream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        AsFd::as_fd(&self.stream)
    }

    fn handshake(&self) -> io::Result<()> {
        let mut state = self.state();
        loop {
            unless_blocked(state.flush(&self.stream))?;
            if !state.tls.is_handshaking() {
                return Ok(());
            }
            if !state.fill(&self.stream)? {
                let left = "the client has left during the TLS handshake";
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, left));
            }
        }
    }

    fn peer(&self) -> io::Result<Peer> {
        let address = self.stream.peer_addr()?.to_string();
        let state = self.state();
        let certificate = state.tls.peer_certificates().and_then(<[_]>::first);
        Ok(match certificate {
            Some(certificate) => Peer::Certificate { names: names_in(certificate), address },
            None => Peer::Address(address),
        })
    }

    fn receive(&self, buffer: &mut [u8], _descriptors: &mut Vec<OwnedFd>) -> io::Result<usize> {
        let mut state = self.state();
        loop {
            match state.tls.reader().read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // Without a farewell. A message that is cut off is seen to be so.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(0),
                read => return read,
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
