// SPDX-License-Identifier: MIT OR Apache-2.0
//! The files that TLS needs.

use std::path::PathBuf;

/// What a TLS server needs. All files are in PEM.
///
/// ```
/// use qmp_server::{Listen, ListenTls};
///
/// let mut tls = ListenTls::new("server.pem", "server-key.pem");
/// tls.client_ca = Some("clients.pem".into());
/// tls.allow_names.push("alice.example.org".to_owned());
/// let mut listen = Listen::new("tls:localhost:4444".parse()?);
/// listen.tls = Some(tls);
///
/// let typed = "tls:localhost:4444,cert=server.pem,key=server-key.pem,client-ca=clients.pem,\
///              allow-name=alice.example.org";
/// assert_eq!(listen, typed.parse()?);
/// # Ok::<(), qmp_server::AddressError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct ListenTls {
    /// The server's certificate, and those that lead to its authority.
    pub cert: PathBuf,
    /// The private key that belongs to it.
    pub key: PathBuf,
    /// Whose certificates clients must have; without it they need none.
    pub client_ca: Option<PathBuf>,
    /// Names of which a client's certificate must have one, as a DNS name, a URI or the common name.
    /// With none here any will do.
    pub allow_names: Vec<String>,
}

impl ListenTls {
    /// With this certificate and its key, for clients without any.
    pub fn new(cert: impl Into<PathBuf>, key: impl Into<PathBuf>) -> ListenTls {
        ListenTls { cert: cert.into(), key: key.into(), ..ListenTls::default() }
    }
}
