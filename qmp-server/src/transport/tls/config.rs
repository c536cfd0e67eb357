// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a TLS server is told on the command line, as `rustls` wants it.

use std::io;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::server::WebPkiClientVerifier;

use super::names::NamesVerifier;
use super::pem::{authorities, certificates, in_file, private_key};
use crate::ListenTls;

/// Reads the files.
pub(crate) fn configure(options: &ListenTls) -> io::Result<ServerConfig> {
    let provider = Arc::new(ring::default_provider());
    let chain = certificates(&options.cert)?;
    let key = private_key(&options.key)?;
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(io::Error::other)?;
    let builder = match &options.client_ca {
        None => builder.with_no_client_auth(),
        Some(file) => {
            let roots = Arc::new(authorities(file)?);
            let inner = WebPkiClientVerifier::builder_with_provider(roots, provider)
                .build()
                .map_err(|error| in_file(file, error))?;
            let names = options.allow_names.clone();
            builder.with_client_cert_verifier(Arc::new(NamesVerifier::new(inner, names)))
        }
    };
    builder.with_single_cert(chain, key).map_err(|error| in_file(&options.cert, error))
}
