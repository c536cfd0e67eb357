// SPDX-License-Identifier: MIT OR Apache-2.0
//! Clients that leave something behind.

use std::io;

use super::Intruder;

const BACKLOG: &str = "{\"execute\": \"query-name\"}\n";

pub(super) fn backlog_and_hang_up(intruder: &mut Intruder<'_>) -> io::Result<()> {
    let socket = intruder.any()?;
    socket.negotiate(intruder.random.one_in(2))?;
    socket.send(BACKLOG.repeat(500))?;
    socket.reset();
    Ok(())
}

/// Ends only its own direction, and does not read what it is owed.
pub(super) fn half_open(intruder: &mut Intruder<'_>) -> io::Result<()> {
    let socket = intruder.any()?;
    socket.negotiate(intruder.random.one_in(2))?;
    socket.send(BACKLOG.repeat(200))?;
    socket.half_close()?;
    intruder.keep(socket, 24);
    Ok(())
}
