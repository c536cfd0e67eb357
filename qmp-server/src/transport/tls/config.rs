// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a TLS server is told on the command line, as `rustls` wants it.

use std::io;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::server::WebPkiClientVerifier;

use super::names::{Authorities, NamesVerifier};
use super::pem::{authorities as roots, certificates, in_file, private_key};
use crate::transport::ListenTls;

/// Reads the files. The authorities are those of clients, if they need certificates.
pub(crate) fn configure(options: &ListenTls) -> io::Result<(ServerConfig, Arc<Authorities>)> {
    let provider = Arc::new(ring::default_provider());
    let chain = certificates(&options.cert)?;
    let key = private_key(&options.key)?;
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(io::Error::other)?;
    let mut authorities = Arc::new(Authorities::default());
    let builder = match &options.client_ca {
        None => builder.with_no_client_auth(),
        Some(file) => {
            authorities = Arc::new(Authorities::new(&certificates(file)?));
            let roots = Arc::new(roots(file)?);
            let inner = WebPkiClientVerifier::builder_with_provider(roots, provider)
                .build()
                .map_err(|error| in_file(file, error))?;
            let authorities = Arc::clone(&authorities);
            let verifier = NamesVerifier::new(inner, authorities, &options.allow_names);
            builder.with_client_cert_verifier(Arc::new(verifier))
        }
    };
    let config = builder.with_single_cert(chain, key);
    Ok((config.map_err(|error| in_file(&options.cert, error))?, authorities))
}
