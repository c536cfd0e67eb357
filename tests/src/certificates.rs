// SPDX-License-Identifier: MIT OR Apache-2.0
//! Certificates that are made when a test needs them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose,
    GeneralSubtree, IsCa, KeyPair, NameConstraints, SanType, date_time_ymd,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

/// A certificate and its key, each in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub cert: PathBuf,
    pub key: PathBuf,
}

/// When a certificate is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Validity {
    Over,
    /// As long as anybody can care.
    Now,
    ToCome,
}

/// An authority that issues certificates, with all files in one directory.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    name: String,
    dir: PathBuf,
    /// The certificates between those that it issues and the authority that was made first.
    chain: String,
}

impl Authority {
    /// Makes one, with its own certificate in the file `NAME.pem`.
    pub fn new(dir: &Path, name: &str) -> io::Result<Authority> {
        let key = KeyPair::generate().map_err(io::Error::other)?;
        let params = of_authority(name)?;
        let issuer = CertifiedIssuer::self_signed(params, key).map_err(io::Error::other)?;
        Authority::with(issuer, name, dir, String::new())
    }

    /// Makes one below this one, which may only certify these DNS names and those below them.
    pub fn constrained(&self, name: &str, permitted: &[&str]) -> io::Result<Authority> {
        let key = KeyPair::generate().map_err(io::Error::other)?;
        let permitted = permitted.iter().map(|&name| GeneralSubtree::DnsName(name.to_owned()));
        let mut params = of_authority(name)?;
        params.name_constraints = Some(NameConstraints {
            permitted_subtrees: permitted.collect(),
            excluded_subtrees: Vec::new(),
        });
        let issuer =
            CertifiedIssuer::signed_by(params, key, &self.issuer).map_err(io::Error::other)?;
        let chain = issuer.pem() + &self.chain;
        Authority::with(issuer, name, &self.dir, chain)
    }

    fn with(
        issuer: CertifiedIssuer<'static, KeyPair>,
        name: &str,
        dir: &Path,
        chain: String,
    ) -> io::Result<Authority> {
        let authority = Authority { issuer, name: name.to_owned(), dir: dir.to_owned(), chain };
        fs::write(authority.certificate(), authority.issuer.pem())?;
        Ok(authority)
    }

    pub fn certificate(&self) -> PathBuf {
        self.dir.join(format!("{}.pem", self.name))
    }

    /// Issues a certificate for the owner of this common name and these others: host names,
    /// addresses, URIs. Its files are `NAME.AUTHORITY.crt` and `.key`.
    pub fn issue(&self, name: &str, others: &[&str]) -> io::Result<Identity> {
        self.issue_for(name, others, Validity::Now)
    }

    /// Issues a certificate that is good at this time.
    pub fn issue_for(
        &self,
        name: &str,
        others: &[&str],
        validity: Validity,
    ) -> io::Result<Identity> {
        let (uris, hosts): (Vec<String>, Vec<String>) =
            others.iter().map(|&name| name.to_owned()).partition(|name| name.contains("://"));
        let mut params = CertificateParams::new(hosts).map_err(io::Error::other)?;
        for uri in uris {
            let uri = uri.try_into().map_err(io::Error::other)?;
            params.subject_alt_names.push(SanType::URI(uri));
        }
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        match validity {
            Validity::Over => params.not_after = date_time_ymd(2000, 1, 1),
            Validity::Now => {}
            Validity::ToCome => params.not_before = date_time_ymd(4000, 1, 1),
        }
        let key = KeyPair::generate().map_err(io::Error::other)?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(io::Error::other)?;
        let file = |end: &str| self.dir.join(format!("{name}.{}.{end}", self.name));
        let identity = Identity { cert: file("crt"), key: file("key") };
        fs::write(&identity.cert, certificate.pem() + &self.chain)?;
        fs::write(&identity.key, key.serialize_pem())?;
        Ok(identity)
    }
}

fn of_authority(name: &str) -> io::Result<CertificateParams> {
    let mut params = CertificateParams::new([]).map_err(io::Error::other)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, name);
    Ok(params)
}

/// Chains of certificates (DER, one after the other) with names of every kind, constrained and not.
pub fn chains() -> io::Result<Vec<Vec<u8>>> {
    let dir = tempfile::tempdir()?;
    let root = Authority::new(dir.path(), "root")?;
    let below = root.constrained("below", &["example.org", ".example.com"])?;
    let mut chains = Vec::new();
    for authority in [&root, &below] {
        for names in [&[][..], &["alice.example.org"], &["spiffe://example.org/a", "127.0.0.1"]] {
            let identity = authority.issue("alice.example.org", names)?;
            let mut chain = Vec::new();
            for path in [&identity.cert, &authority.certificate(), &root.certificate()] {
                for certificate in CertificateDer::pem_file_iter(path).map_err(io::Error::other)? {
                    chain.extend_from_slice(&certificate.map_err(io::Error::other)?);
                }
            }
            chains.push(chain);
        }
    }
    Ok(chains)
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").field("name", &self.name).finish_non_exhaustive()
    }
}
