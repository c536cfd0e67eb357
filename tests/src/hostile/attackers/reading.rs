// SPDX-License-Identifier: MIT OR Apache-2.0
//! Clients that do not read, or slowly.

use std::io;

use super::Intruder;

/// A job with a long id, whose events have it in them, in front of clients that do not read. It is no longer because QEMU
/// takes ten microseconds to read a byte of it: with an id of a quarter of a megabyte, the attacker would have no answer
/// in its time, and no event. What huge events cost is tested with a server that sends them at once.
pub(super) fn long_events(intruder: &mut Intruder<'_>) -> io::Result<()> {
    for _ in 0..4 {
        let idle = intruder.admin()?;
        idle.negotiate(false)?;
        intruder.keep(idle, 32);
    }
    let socket = intruder.admin()?;
    socket.negotiate(false)?;
    let id = format!("j{}-{}", intruder.attempts, "x".repeat(1000));
    let options = r#"{"driver": "luks", "file": "absent", "size": 1}"#;
    socket.send(format!(
        "{{\"execute\": \"blockdev-create\", \"arguments\": {{\"job-id\": \"{id}\", \"options\": {options}}}}}\n"
    ))?;
    // The answer, and that the job is created, running, aborting and concluded; then the answer, and that it is gone.
    socket.read_lines(5)?;
    socket
        .send(format!("{{\"execute\": \"job-dismiss\", \"arguments\": {{\"id\": \"{id}\"}}}}\n"))?;
    socket.read_lines(2)
}

/// The machine stops and continues, in front of clients that do not read.
pub(super) fn many_events(intruder: &mut Intruder<'_>) -> io::Result<()> {
    let idle = intruder.observer()?;
    idle.negotiate(false)?;
    intruder.keep(idle, 32);
    let socket = intruder.admin()?;
    socket.negotiate(false)?;
    socket.send("{\"execute\": \"stop\"} {\"execute\": \"cont\"}\n".repeat(20))?;
    socket.read_lines(80)
}

pub(super) fn unread_answers(intruder: &mut Intruder<'_>) -> io::Result<()> {
    let socket = intruder.any()?;
    socket.negotiate(intruder.random.one_in(2))?;
    socket.send("{\"execute\": \"query-qmp-schema\"}\n".repeat(20))?;
    intruder.keep(socket, 24);
    Ok(())
}

pub(super) fn byte_by_byte(intruder: &mut Intruder<'_>) -> io::Result<()> {
    let socket = intruder.any()?;
    socket.negotiate(false)?;
    for byte in b"{\"execute\": \"query-name\"}\n" {
        socket.send([*byte])?;
    }
    for _ in 0..20 {
        socket.read_byte()?;
    }
    Ok(())
}
