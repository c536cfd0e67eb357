// SPDX-License-Identifier: MIT OR Apache-2.0
//! Connecting as the flags say, and what clients print.

use std::io::{self, Write};
use std::mem::take;
use std::time::{Duration, Instant};

use qmp_dispatch::proto::Capability;
use qmp_server::{Client, ClientError, Connect, ConnectTls};

use crate::Failure;
use crate::arguments::TlsOptions;

/// Connects and negotiates. All that is done with the client must be over in this time, or have another deadline.
pub(crate) fn connect(
    connect: &Connect,
    tls: &TlsOptions,
    timeout: Duration,
    capabilities: Vec<Capability>,
) -> Result<Client, ClientError> {
    let deadline = Instant::now() + timeout;
    let mut client = Client::connect_with(&with_flags(connect, tls), timeout, capabilities)?;
    client.set_deadline(Some(deadline));
    Ok(client)
}

/// What is said behind the address, and for the rest what the flags say.
pub(crate) fn with_flags(connect: &Connect, flags: &TlsOptions) -> Connect {
    let mut connect = connect.clone();
    if flags.are_given() {
        let TlsOptions { ca, cert, key, server_name } = flags.clone();
        let tls: &mut ConnectTls = connect.tls.get_or_insert_default();
        tls.ca = ca.unwrap_or_else(|| take(&mut tls.ca));
        tls.cert = cert.or_else(|| tls.cert.take());
        tls.key = key.or_else(|| tls.key.take());
        tls.server_name = server_name.or_else(|| tls.server_name.take());
    }
    connect
}

/// Writes a text to standard output, unless nobody reads it.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout();
    match writeln!(out, "{}", text.trim_end()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::usage(error)),
        _ => Ok(()),
    }
}
