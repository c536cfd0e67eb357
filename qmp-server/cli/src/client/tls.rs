// SPDX-License-Identifier: MIT OR Apache-2.0
//! The client's end of TLS.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::ring;
use rustls::pki_types::ServerName;
use rustls::{
    AlertDescription, CertificateError, ClientConfig, ClientConnection, InvalidMessage, StreamOwned,
};

use super::silent;
use super::stream::{SHORTEST, Stream, invalid};
use crate::arguments::TlsOptions;
use qmp_server::pem::{authorities, certificates, in_file, private_key};

pub(super) struct TlsStream(StreamOwned<ClientConnection, TcpStream>);

impl Read for TlsStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer).map_err(explain)
    }
}

impl Write for TlsStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes).map_err(explain)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush().map_err(explain)
    }
}

impl Stream for TlsStream {
    fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.0.sock.set_read_timeout(timeout)
    }

    fn set_write_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.0.sock.set_write_timeout(timeout)
    }
}

/// A client of the server at `host`, or of the name that it is said to have.
pub(super) fn configure(host: &str, options: &TlsOptions) -> io::Result<ClientConnection> {
    let Some(ca) = &options.ca else {
        return Err(invalid("TLS needs --ca FILE, the authority of the server's certificate"));
    };
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(io::Error::other)?
        .with_root_certificates(authorities(ca)?);
    let config = match (&options.cert, &options.key) {
        (Some(cert), Some(file)) => {
            let (chain, key) = (certificates(cert)?, private_key(file)?);
            builder.with_client_auth_cert(chain, key).map_err(|error| in_file(cert, error))?
        }
        _ => builder.with_no_client_auth(),
    };
    let name = options.server_name.as_deref().unwrap_or(host).to_owned();
    let name = ServerName::try_from(name.clone())
        .map_err(|_| invalid(format!("'{name}' is not a name that a certificate could have")))?;
    ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)
}

/// The server may still refuse our certificate after this.
pub(super) fn shake_hands(
    stream: TcpStream,
    mut client: ClientConnection,
    timeout: Duration,
) -> io::Result<TlsStream> {
    stream.set_read_timeout(Some(timeout.max(SHORTEST)))?;
    stream.set_write_timeout(Some(timeout.max(SHORTEST)))?;
    while client.is_handshaking() {
        client.complete_io(&mut &stream).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => silent("the server does not shake hands"),
            io::ErrorKind::UnexpectedEof => io::Error::new(
                error.kind(),
                "the server has closed the connection during the handshake",
            ),
            _ => explain(error),
        })?;
    }
    Ok(TlsStream(StreamOwned::new(client, stream)))
}

/// Puts what TLS finds wrong into words for people.
fn explain(error: io::Error) -> io::Error {
    let reason = match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        None => return error,
        Some(rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType)) => {
            "the server does not speak TLS".to_owned()
        }
        Some(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer)) => {
            "the server's certificate is not from the authority of --ca".to_owned()
        }
        Some(rustls::Error::InvalidCertificate(reason)) => {
            format!("the server's certificate is not accepted: {reason}")
        }
        Some(rustls::Error::AlertReceived(AlertDescription::CertificateRequired)) => {
            "the server wants a certificate: --cert and --key".to_owned()
        }
        Some(rustls::Error::AlertReceived(alert)) => {
            format!("the server refuses the connection: {alert:?}")
        }
        Some(reason) => reason.to_string(),
    };
    io::Error::new(error.kind(), reason)
}
