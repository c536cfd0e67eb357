// SPDX-License-Identifier: MIT OR Apache-2.0
//! Connections that come to nothing.

use std::io;

use super::Intruder;
use super::socket::{QMP_CAPABILITIES, Socket};

pub(super) fn silent(intruder: &mut Intruder<'_>) -> io::Result<()> {
    let socket = intruder.any()?;
    intruder.keep(socket, 48);
    Ok(())
}

pub(super) fn unfinished(intruder: &mut Intruder<'_>) -> io::Result<()> {
    let socket = intruder.any()?;
    socket.read_lines(1)?;
    socket.send(&QMP_CAPABILITIES[..1 + intruder.random.below(QMP_CAPABILITIES.len() - 2)])?;
    intruder.keep(socket, 48);
    Ok(())
}

/// Nothing, or the beginning of a record: a handshake, of TLS, of this many bytes.
pub(super) fn unfinished_tls(intruder: &mut Intruder<'_>) -> io::Result<()> {
    let socket = intruder.tls()?;
    let begin = [22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3];
    socket.send(&begin[..intruder.random.below(begin.len() + 1)])?;
    intruder.keep(socket, 48);
    Ok(())
}

pub(super) fn storm(intruder: &mut Intruder<'_>) -> io::Result<()> {
    for _ in 0..40 {
        let socket = intruder.any()?;
        if intruder.random.one_in(2) {
            socket.reset();
        }
    }
    Ok(())
}

pub(super) fn metrics_byte_by_byte(intruder: &mut Intruder<'_>) -> io::Result<()> {
    let socket = Socket::unix(&intruder.target.metrics)?;
    intruder.keep(socket, 32);
    for socket in &intruder.kept {
        // Those that are disconnected by now do not matter.
        drop(socket.send(b"G"));
    }
    Ok(())
}

pub(super) fn unread_metrics(intruder: &mut Intruder<'_>) -> io::Result<()> {
    let socket = Socket::unix(&intruder.target.metrics)?;
    socket.send("GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(20))?;
    intruder.keep(socket, 32);
    Ok(())
}
