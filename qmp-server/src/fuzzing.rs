// SPDX-License-Identifier: MIT OR Apache-2.0
//! Entries for fuzzing. No part of the API: anything here may change at any time.

use qmp_dispatch::proto::{Error, Object, Request};

use crate::CertificateName;
use crate::{audit, metrics, mux, steps, transport};

/// How many steps this thread has counted while it did some work. Not all loops count theirs.
pub fn steps_during<T>(work: impl FnOnce() -> T) -> (T, u64) {
    steps::during(work)
}

/// The line of the audit for a request that had this error.
pub fn audited(request: &Request, error: Error) -> String {
    audit::line_of(request, error)
}

/// The response to an HTTP request for metrics that arrives in these pieces, as soon as there is one.
pub fn metrics_response<'p>(pieces: impl IntoIterator<Item = &'p [u8]>) -> Option<String> {
    metrics::response_to(pieces)
}

/// The names that count in the first of these certificates (DER), for authorities with the other certificates.
pub fn certificate_names(certificates: &[&[u8]]) -> Vec<CertificateName> {
    transport::tls::names_of(certificates)
}

/// The arguments of a client's command as the upstream of a mux sees them, with the names of descriptors in them: of a
/// client that has given these names, which get this prefix. `None` if the arguments have none of the names.
pub fn renamed(
    prefix: &str,
    given: &[&str],
    command: &str,
    arguments: &Object,
) -> Option<(Object, Vec<String>)> {
    mux::renamed(prefix, given, command, arguments)
}
