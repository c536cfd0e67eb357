// SPDX-License-Identifier: MIT OR Apache-2.0
//! Certificates and keys from files, with errors that name the file.

use std::fmt;
use std::io;
use std::path::Path;

use rustls::RootCertStore;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// The certificates in a file, of which there is at least one.
pub(in crate::transport) fn certificates(file: &Path) -> io::Result<Vec<CertificateDer<'static>>> {
    let certificates: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(file).and_then(Iterator::collect);
    match certificates {
        Ok(certificates) if certificates.is_empty() => Err(in_file(file, "holds no certificate")),
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(in_file(file, describe(&error))),
    }
}

/// The authorities in a file, of which there is at least one.
pub(in crate::transport) fn authorities(file: &Path) -> io::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(file)? {
        roots.add(certificate).map_err(|error| in_file(file, error))?;
    }
    Ok(roots)
}

/// The private key in a file.
pub(in crate::transport) fn private_key(file: &Path) -> io::Result<PrivateKeyDer<'static>> {
    PrivateKeyDer::from_pem_file(file).map_err(|error| in_file(file, describe(&error)))
}

/// What is wrong with what a file holds.
pub(in crate::transport) fn in_file(file: &Path, error: impl fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{}: {error}", file.display()))
}

fn describe(error: &pem::Error) -> String {
    match error {
        pem::Error::Io(error) => error.to_string(),
        pem::Error::NoItemsFound => "holds no key".to_owned(),
        error => format!("is not PEM: {error}"),
    }
}
