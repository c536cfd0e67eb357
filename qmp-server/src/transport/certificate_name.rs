// SPDX-License-Identifier: MIT OR Apache-2.0
//! Names in certificates, as they are and as operators expect them.

use std::fmt;

/// A name that a certificate gives its owner.
///
/// The common name counts only in a certificate without alternative names, and only if the constraints of
/// all authorities above it permit it as a DNS name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CertificateName {
    /// An alternative name that is a DNS name.
    Dns(String),
    /// An alternative name that is a URI.
    Uri(String),
    /// The common name.
    Common(String),
}

impl fmt::Display for CertificateName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CertificateName::Dns(name) => write!(f, "dns:{name}"),
            CertificateName::Uri(uri) => write!(f, "uri:{uri}"),
            CertificateName::Common(name) => write!(f, "cn:{name}"),
        }
    }
}

/// A name that an operator expects in a certificate: `dns:NAME`, `uri:URI` or `cn:NAME`. Without a kind it is a URI if
/// it has `://`, and else a DNS name or a common name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ExpectedName {
    kind: Option<NameKind>,
    name: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum NameKind {
    Dns,
    Uri,
    Common,
}

impl ExpectedName {
    pub(crate) fn new(text: &str) -> ExpectedName {
        let (kind, name) = match text.split_once(':') {
            Some(("dns", name)) => (Some(NameKind::Dns), name.to_ascii_lowercase()),
            Some(("uri", uri)) => (Some(NameKind::Uri), uri.to_owned()),
            Some(("cn", name)) => (Some(NameKind::Common), name.to_owned()),
            _ if text.contains("://") => (Some(NameKind::Uri), text.to_owned()),
            _ => (None, text.to_owned()),
        };
        ExpectedName { kind, name }
    }

    /// Whether it is this name. Case does not matter in DNS names.
    pub(crate) fn is(&self, name: &CertificateName) -> bool {
        match (name, self.kind) {
            (CertificateName::Dns(name), None | Some(NameKind::Dns)) => {
                name.eq_ignore_ascii_case(&self.name)
            }
            (CertificateName::Uri(uri), Some(NameKind::Uri)) => *uri == self.name,
            (CertificateName::Common(name), None | Some(NameKind::Common)) => *name == self.name,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_certificates_are_of_a_kind() {
        let [dns, uri, common] =
            [CertificateName::Dns, CertificateName::Uri, CertificateName::Common]
                .map(|kind| kind("a.example".to_owned()));
        let is = |text: &str| [&dns, &uri, &common].map(|name| ExpectedName::new(text).is(name));
        assert_eq!(is("dns:a.example"), [true, false, false]);
        assert_eq!(is("dns:A.Example"), [true, false, false]);
        assert_eq!(is("uri:a.example"), [false, true, false]);
        assert_eq!(is("cn:a.example"), [false, false, true]);
        assert_eq!(is("a.example"), [true, false, true]);
        assert_eq!(is("other.example"), [false, false, false]);
        let uri = CertificateName::Uri("spiffe://a/b".to_owned());
        assert!(ExpectedName::new("spiffe://a/b").is(&uri));
        assert!(!ExpectedName::new("dns:spiffe://a/b").is(&uri));
    }
}
