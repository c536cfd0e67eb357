// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which names a client's certificate has, and whether one of them is allowed.

use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, OtherError, SignatureScheme,
};
use x509_parser::extensions::GeneralName;

/// Verifies a client's certificate, and that it has one of some names.
#[derive(Debug)]
pub(super) struct NamesVerifier {
    inner: Arc<dyn ClientCertVerifier>,
    /// With none, any will do.
    names: Vec<String>,
}

#[derive(Debug, thiserror::Error)]
#[error("has none of the allowed names, but {0}")]
struct NameNotAllowed(String);

impl NamesVerifier {
    pub(super) fn new(inner: Arc<dyn ClientCertVerifier>, names: Vec<String>) -> NamesVerifier {
        NamesVerifier { inner, names }
    }
}

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

/// DNS names, URIs, and the common name. What is shown to people, in the log for one, has no control characters.
pub(super) fn names_in(certificate: &CertificateDer<'_>) -> Vec<String> {
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
    names.retain(|name| !name.contains(char::is_control));
    names
}
