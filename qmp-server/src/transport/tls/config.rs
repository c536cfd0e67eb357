// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a TLS server is told on the command line, as `rustls` wants it.

use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};

use super::names::NamesVerifier;
use crate::ListenTls;

/// Reads the files.
pub(in crate::transport) fn configure(options: &ListenTls) -> io::Result<ServerConfig> {
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
            builder.with_client_cert_verifier(Arc::new(NamesVerifier::new(inner, names)))
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
