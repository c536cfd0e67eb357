// SPDX-License-Identifier: MIT OR Apache-2.0
//! The client's end of TLS.

use std::io;
use std::net::TcpStream;
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::ServerName;
use rustls::{AlertDescription, CertificateError, ClientConfig, ClientConnection, InvalidMessage};

use super::ConnectTls;
use crate::transport::tls::TlsStream;
use crate::transport::tls::pem::{authorities, certificates, in_file, private_key};

/// Reads the files. `host` is the name that the server's certificate must have, unless the options have another.
pub(super) fn configure(host: &str, options: Option<&ConnectTls>) -> io::Result<ClientConnection> {
    let invalid = |reason| io::Error::new(io::ErrorKind::InvalidInput, reason);
    let none = ConnectTls::default();
    let ConnectTls { ca, cert, key, server_name } = options.unwrap_or(&none);
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(io::Error::other)?
        .with_root_certificates(authorities(ca)?);
    let config = match (cert, key) {
        (Some(cert), Some(file)) => {
            let (chain, key) = (certificates(cert)?, private_key(file)?);
            builder.with_client_auth_cert(chain, key).map_err(|error| in_file(cert, error))?
        }
        _ => builder.with_no_client_auth(),
    };
    let host = if host.is_empty() { "localhost" } else { host };
    let name = server_name.as_deref().unwrap_or(host).to_owned();
    let name = ServerName::try_from(name.clone())
        .map_err(|_| invalid(format!("'{name}' is not a name that a certificate could have")))?;
    ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)
}

impl TlsStream {
    /// The client's end, before its handshake. The server may still refuse our certificate after that.
    pub(super) fn of_client(client: ClientConnection, stream: TcpStream) -> TlsStream {
        TlsStream::new(client.into(), stream, Arc::default(), explain)
    }
}

/// What a handshake has failed of.
pub(super) fn explain_end(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => {
            let closed = "the server has closed the connection during the TLS handshake";
            io::Error::new(error.kind(), closed)
        }
        _ => error,
    }
}

/// What is wrong with the server, in words for people.
fn explain(error: &rustls::Error) -> String {
    use rustls::Error;
    match error {
        Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            "the server does not speak TLS".to_owned()
        }
        Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            "the server's certificate is not from the authority (ca)".to_owned()
        }
        Error::InvalidCertificate(reason) => {
            format!("the server's certificate is not accepted: {reason}")
        }
        Error::AlertReceived(AlertDescription::CertificateRequired) => {
            "the server wants a certificate (cert and key)".to_owned()
        }
        Error::AlertReceived(alert) => format!("the server refuses the connection: {alert:?}"),
        reason => reason.to_string(),
    }
}
