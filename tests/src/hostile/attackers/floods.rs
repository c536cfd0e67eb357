// SPDX-License-Identifier: MIT OR Apache-2.0
//! Attackers that send many requests.

use std::io;

use super::Intruder;
use super::socket::QMP_CAPABILITIES;

/// Opens more connections than a user may have, and sends as many requests on each as the server reads.
pub(super) fn full_quotas(intruder: &mut Intruder<'_>) -> io::Result<()> {
    let mut sockets = Vec::new();
    let requests = QMP_CAPABILITIES.to_owned() + &"{\"execute\": \"query-name\"}\n".repeat(8);
    for _ in 0..500 {
        let socket = intruder.admin()?;
        // Those beyond the quota are closed.
        drop(socket.send(&requests));
        sockets.push(socket);
    }
    let is_served = |count: &usize| sockets[*count].read_lines(10).is_ok();
    let served = (0..20).filter(is_served).count();
    if served == 0 { Err(io::ErrorKind::ConnectionAborted.into()) } else { Ok(()) }
}

pub(super) fn in_band(intruder: &mut Intruder<'_>) -> io::Result<()> {
    while intruder.kept.len() < 8 {
        let socket = intruder.any()?;
        socket.negotiate(true)?;
        intruder.keep(socket, 8);
    }
    let requests = "{\"execute\": \"query-name\"}\n".repeat(32);
    for socket in &intruder.kept {
        socket.send(&requests)?;
    }
    let answered = intruder.kept.iter().try_for_each(|socket| socket.read_lines(32));
    if answered.is_err() {
        intruder.kept.clear();
    }
    answered
}

pub(super) fn out_of_band(intruder: &mut Intruder<'_>) -> io::Result<()> {
    let socket = intruder.any()?;
    socket.negotiate(true)?;
    let requests = "{\"exec-oob\": \"yank\", \"arguments\": {\"instances\": []}}\n";
    socket.send(requests.repeat(200))?;
    socket.read_lines(50)
}

pub(super) fn denied(intruder: &mut Intruder<'_>) -> io::Result<()> {
    let socket = intruder.observer()?;
    socket.negotiate(true)?;
    for command in ["quit", "stop", "getfd", "human-monitor-command", "object-add", "absent"] {
        let arguments =
            r#"{"fdname": "a", "command-line": "quit", "qom-type": "secret", "id": "a"}"#;
        socket.send(
            format!("{{\"execute\": \"{command}\", \"arguments\": {arguments}}}\n").repeat(4),
        )?;
        socket.send(format!("{{\"exec-oob\": \"{command}\", \"arguments\": {arguments}}}\n"))?;
        socket.read_lines(5)?;
    }
    Ok(())
}
