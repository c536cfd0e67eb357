// SPDX-License-Identifier: MIT OR Apache-2.0
//! TLS on TCP.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use super::{Channel, no_descriptors};
use crate::certificates::Identity;

const HANDSHAKE_LIMIT: Duration = Duration::from_secs(20);

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsClient {
    /// The certificate of the authority that the server's is from.
    pub ca: PathBuf,
    pub identity: Option<Identity>,
}

impl TlsClient {
    fn config(&self) -> io::Result<ClientConfig> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates(&self.ca)? {
            roots.add(certificate).map_err(io::Error::other)?;
        }
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .with_root_certificates(roots);
        match &self.identity {
            None => Ok(builder.with_no_client_auth()),
            Some(Identity { cert, key }) => {
                let key = PrivateKeyDer::from_pem_file(key).map_err(io::Error::other)?;
                builder.with_client_auth_cert(certificates(cert)?, key).map_err(io::Error::other)
            }
        }
    }
}

fn certificates(file: &PathBuf) -> io::Result<Vec<CertificateDer<'static>>> {
    let all = CertificateDer::pem_file_iter(file).and_then(Iterator::collect);
    all.map_err(io::Error::other)
}

/// A client's end of a TLS connection.
#[derive(Debug)]
pub struct TlsStream {
    stream: TcpStream,
    tls: ClientConnection,
}

impl TlsStream {
    /// Shakes hands with the server of this name; whether it accepts our certificate is not known
    /// before something is received.
    pub fn connect(stream: TcpStream, name: &str, client: &TlsClient) -> io::Result<TlsStream> {
        TlsStream::connect_with(stream, name, client, b"")
    }

    /// Like [`connect`](Self::connect), and sends these bytes together with the end of the handshake.
    pub fn connect_with(
        stream: TcpStream,
        name: &str,
        client: &TlsClient,
        first: &[u8],
    ) -> io::Result<TlsStream> {
        let name = ServerName::try_from(name.to_owned()).map_err(io::Error::other)?;
        let config = Arc::new(client.config()?);
        let mut tls = ClientConnection::new(config, name).map_err(io::Error::other)?;
        // Kept until the handshake is over.
        tls.writer().write_all(first)?;
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(HANDSHAKE_LIMIT))?;
        stream.set_write_timeout(Some(HANDSHAKE_LIMIT))?;
        // Not `complete_io`, which would read more without reporting it.
        loop {
            while tls.wants_write() {
                tls.write_tls(&mut &stream)?;
            }
            if !tls.is_handshaking() {
                break;
            }
            if tls.read_tls(&mut &stream)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            tls.process_new_packets().map_err(io::Error::other)?;
        }
        stream.set_nonblocking(true)?;
        Ok(TlsStream { stream, tls })
    }
}

impl Channel for TlsStream {
    fn readable(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }

    fn writable(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }

    fn send(&mut self, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<usize> {
        if !descriptors.is_empty() {
            return no_descriptors();
        }
        // What has been taken before goes first: it would be kept without limit.
        self.flush()?;
        self.tls.writer().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        while self.tls.wants_write() {
            self.tls.write_tls(&mut self.stream)?;
        }
        Ok(())
    }

    fn receive(&mut self, received: &mut Vec<u8>) -> io::Result<usize> {
        self.tls.read_tls(&mut self.stream)?;
        self.tls
            .process_new_packets()
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        let before = received.len();
        match self.tls.reader().read_to_end(received) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && received.len() == before => {
                Err(error)
            }
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
            _ => Ok(received.len() - before),
        }
    }

    fn half_close(&mut self) -> io::Result<()> {
        self.tls.send_close_notify();
        self.flush()?;
        self.stream.shutdown(Shutdown::Write)
    }
}
