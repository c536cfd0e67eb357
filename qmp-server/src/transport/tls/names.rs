// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which names a client's certificate has, and whether one of them is allowed.

use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, OtherError, SignatureScheme,
};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, GeneralSubtree, NameConstraints};

use crate::transport::CertificateName;
use crate::transport::ExpectedName;

/// The authorities of clients, as far as names depend on them.
#[derive(Debug, Default)]
pub(crate) struct Authorities {
    constrained: Vec<Constrained>,
}

/// An authority that may not certify every name.
#[derive(Debug)]
struct Constrained {
    subject: Vec<u8>,
    constraints: Constraints,
}

impl Authorities {
    pub(super) fn new(certificates: &[CertificateDer<'_>]) -> Authorities {
        let constrained = certificates.iter().filter_map(|certificate| {
            let certificate = parse(certificate)?;
            let constraints = Constraints::of(&certificate)?;
            Some(Constrained { subject: certificate.subject().as_raw().to_vec(), constraints })
        });
        Authorities { constrained: constrained.collect() }
    }

    /// The names of the owner of the first certificate; the others are those of authorities between it and one of these.
    /// The chain has been verified. What is shown to people, in the log for one, has no control characters.
    pub(super) fn names(&self, chain: &[CertificateDer<'_>]) -> Vec<CertificateName> {
        let parsed: Option<Vec<_>> = chain.iter().map(parse).collect();
        let parsed = parsed.unwrap_or_default();
        let Some((owner, between)) = parsed.split_first() else { return Vec::new() };
        let mut names = match owner.subject_alternative_name() {
            Ok(Some(names)) => names.value.general_names.iter().filter_map(alternative).collect(),
            Ok(None) => self.common_name(owner, between).into_iter().collect(),
            Err(_) => Vec::new(),
        };
        names.retain(|name| !name.to_string().contains(char::is_control));
        names
    }

    /// The common name of a certificate without alternative names. Nobody has held it against the constraints yet:
    /// verification looks at alternative names alone.
    fn common_name(
        &self,
        owner: &X509Certificate<'_>,
        between: &[X509Certificate<'_>],
    ) -> Option<CertificateName> {
        let mut names = owner.subject().iter_common_name();
        let name = names.next()?.as_str().ok()?;
        // Of several, none is meant more than the others.
        if names.next().is_some() {
            return None;
        }
        let issued = |constrained: &&Constrained| {
            let mut issuers = between.iter().chain([owner]).map(|issued| issued.issuer().as_raw());
            issuers.any(|issuer| issuer == constrained.subject)
        };
        let above = self.constrained.iter().filter(issued).map(|above| &above.constraints);
        let permitted = above.into_iter().all(|constraints| constraints.permit(name))
            && between
                .iter()
                .filter_map(Constraints::of)
                .all(|constraints| constraints.permit(name));
        permitted.then(|| CertificateName::Common(name.to_owned()))
    }
}

/// The names in the first of these certificates, for authorities with the others.
#[cfg(feature = "fuzzing")]
pub(crate) fn names_of(certificates: &[&[u8]]) -> Vec<CertificateName> {
    let chain: Vec<_> = certificates.iter().map(|&der| CertificateDer::from(der)).collect();
    Authorities::new(chain.get(1..).unwrap_or_default()).names(&chain)
}

fn parse<'a>(certificate: &'a CertificateDer<'_>) -> Option<X509Certificate<'a>> {
    x509_parser::parse_x509_certificate(certificate).ok().map(|(_, certificate)| certificate)
}

fn alternative(name: &GeneralName<'_>) -> Option<CertificateName> {
    match name {
        GeneralName::DNSName(name) => Some(CertificateName::Dns((*name).to_owned())),
        GeneralName::URI(uri) => Some(CertificateName::Uri((*uri).to_owned())),
        _ => None,
    }
}

/// The DNS names that an authority may certify (RFC 5280, 4.2.1.10).
#[derive(Debug, Default)]
struct Constraints {
    /// If there are any, a name has to be within one of them.
    permitted: Vec<String>,
    excluded: Vec<String>,
    /// They cannot be understood, and permit nothing.
    unknown: bool,
}

impl Constraints {
    /// `None` if there are none.
    fn of(certificate: &X509Certificate<'_>) -> Option<Constraints> {
        match certificate.name_constraints() {
            Ok(None) => None,
            Ok(Some(constraints)) => Some(Constraints::from(constraints.value)),
            Err(_) => Some(Constraints { unknown: true, ..Constraints::default() }),
        }
    }

    fn from(constraints: &NameConstraints<'_>) -> Constraints {
        let names = |subtrees: &Option<Vec<GeneralSubtree<'_>>>| {
            let subtrees = subtrees.iter().flatten();
            let name = |subtree: &GeneralSubtree<'_>| match subtree.base {
                GeneralName::DNSName(name) => Some(name.to_owned()),
                _ => None,
            };
            subtrees.filter_map(name).collect()
        };
        Constraints {
            permitted: names(&constraints.permitted_subtrees),
            excluded: names(&constraints.excluded_subtrees),
            unknown: false,
        }
    }

    fn permit(&self, name: &str) -> bool {
        let within = |subtrees: &[String]| subtrees.iter().any(|subtree| is_within(name, subtree));
        !self.unknown
            && (self.permitted.is_empty() || within(&self.permitted))
            && !within(&self.excluded)
    }
}

/// Whether it is this name or one below it; with a dot before, one below it.
fn is_within(name: &str, subtree: &str) -> bool {
    let Some(start) = name.len().checked_sub(subtree.len()) else { return false };
    let name = name.as_bytes();
    let (before, end) = name.split_at(start);
    let is_at_dot = subtree.is_empty() || subtree.starts_with('.') || before.ends_with(b".");
    end.eq_ignore_ascii_case(subtree.as_bytes()) && (is_at_dot || before.is_empty())
}

/// Verifies a client's certificate, and that it has one of some names.
#[derive(Debug)]
pub(super) struct NamesVerifier {
    inner: Arc<dyn ClientCertVerifier>,
    authorities: Arc<Authorities>,
    /// With none, any will do.
    allowed: Vec<ExpectedName>,
}

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct NameNotAllowed(String);

impl NamesVerifier {
    pub(super) fn new(
        inner: Arc<dyn ClientCertVerifier>,
        authorities: Arc<Authorities>,
        allowed: &[String],
    ) -> NamesVerifier {
        let allowed = allowed.iter().map(|name| ExpectedName::new(name)).collect();
        NamesVerifier { inner, authorities, allowed }
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
        let chain: Vec<_> = [certificate].into_iter().chain(intermediates).cloned().collect();
        let names = self.authorities.names(&chain);
        let is_allowed =
            |name: &CertificateName| self.allowed.iter().any(|allowed| allowed.is(name));
        if self.allowed.is_empty() || names.iter().any(is_allowed) {
            return Ok(verified);
        }
        let names: Vec<_> = names.iter().map(CertificateName::to_string).collect();
        let reason = match names.is_empty() {
            true => "has no name that counts".to_owned(),
            false => format!("has none of the allowed names, but {}", names.join(", ")),
        };
        let refused = OtherError(Arc::new(NameNotAllowed(reason)));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constraints_hold_for_names_within_them() {
        for (name, subtree, expected) in [
            ("a.example", "a.example", true),
            ("b.A.example", "a.Example", true),
            ("ba.example", "a.example", false),
            ("a.example", ".a.example", false),
            ("b.a.example", ".a.example", true),
            ("a.example", "", true),
            ("example", "a.example", false),
            ("Älice", "lice", false),
        ] {
            assert_eq!(is_within(name, subtree), expected, "{name} {subtree}");
        }
        let constraints = |permitted: &[&str], excluded: &[&str]| {
            let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
            Constraints { permitted: owned(permitted), excluded: owned(excluded), unknown: false }
        };
        assert!(constraints(&[], &[]).permit("alice"));
        assert!(!constraints(&["a.example"], &[]).permit("alice"));
        assert!(constraints(&["a.example"], &[]).permit("b.a.example"));
        assert!(!constraints(&["a.example"], &["b.a.example"]).permit("b.a.example"));
        assert!(!Constraints { unknown: true, ..constraints(&[], &[]) }.permit("alice"));
    }
}
