// SPDX-License-Identifier: MIT OR Apache-2.0
//! Messages that are more work than they look.

use std::io;

use serde_json::json;

use super::Intruder;
use crate::fuzz::AUDIT_WORDS;
use crate::inputs::Inputs;

/// Names of two pieces that a hash which multiplies by 33 and adds cannot tell apart, as QEMU's cannot.
pub(super) fn colliding_names(intruder: &mut Intruder<'_>) -> io::Result<()> {
    let name = |number: usize| -> String {
        (0..12).map(|bit| if number >> bit & 1 == 0 { "Ez" } else { "FY" }).collect()
    };
    unexpected_arguments(intruder, 4096, name)
}

pub(super) fn many_arguments(intruder: &mut Intruder<'_>) -> io::Result<()> {
    unexpected_arguments(intruder, 16384, |number| format!("n{number}"))
}

/// Before negotiation, and after.
fn unexpected_arguments(
    intruder: &mut Intruder<'_>,
    count: usize,
    name: impl Fn(usize) -> String,
) -> io::Result<()> {
    let socket = intruder.any()?;
    let names = |count| {
        (0..count).map(|number| format!("\"{}\":0", name(number))).collect::<Vec<_>>().join(",")
    };
    let request = |command: &str, count| {
        format!("{{\"execute\":\"{command}\",\"arguments\":{{{}}}}}\n", names(count))
    };
    socket.read_lines(1)?;
    socket.send(request("qmp_capabilities", count))?;
    socket.read_lines(1)?;
    socket.send(super::socket::QMP_CAPABILITIES)?;
    socket.read_lines(1)?;
    socket.send(request("query-name", count))?;
    socket.read_lines(1)
}

/// Requests in which secrets stand within secrets, or that look as if.
pub(super) fn secrets(intruder: &mut Intruder<'_>) -> io::Result<()> {
    let socket = intruder.any()?;
    socket.negotiate(false)?;
    let stars = json!({"execute": "*", "arguments": {"password": vec!["*"; 17]}, "id": "***"});
    socket.send(format!("{stars}\n"))?;
    socket.read_lines(1)?;
    for _ in 0..8 {
        let random = &mut intruder.random;
        let mut text = || -> String {
            let run: String = (0..=random.few(12)).map(|_| random.pick(AUDIT_WORDS)).collect();
            run.repeat(1 + random.below(100))
        };
        let arguments =
            json!({"password": text(), "o": text(), "command-line": text(), "uri": text()});
        let request = json!({"execute": "migrate-x", "arguments": arguments, "id": text()});
        socket.send(format!("{request}\n"))?;
        socket.read_lines(1)?;
    }
    Ok(())
}

pub(super) fn long_names(intruder: &mut Intruder<'_>) -> io::Result<()> {
    let socket = intruder.any()?;
    socket.negotiate(false)?;
    let name = "n".repeat(128 << 10);
    for request in [
        json!({"execute": name}),
        json!({"execute": "query-name", "arguments": {&name: 0}}),
        json!({"execute": "query-name", &name: 0}),
        json!({"execute": "query-name", "id": name}),
    ] {
        socket.send(format!("{request}\n"))?;
        socket.read_lines(1)?;
    }
    Ok(())
}

/// Up to the depth that is allowed, and beyond.
pub(super) fn deep_values(intruder: &mut Intruder<'_>) -> io::Result<()> {
    let socket = intruder.any()?;
    socket.negotiate(false)?;
    for depth in [100, 1000, 1020, 3000] {
        let value = "[".repeat(depth) + &"]".repeat(depth);
        for member in ["id", "arguments"] {
            let text = format!("{{\"execute\":\"query-name\",\"{member}\":{{\"x\":{value}}}}}\n");
            socket.send(text)?;
            socket.read_lines(1)?;
        }
    }
    Ok(())
}

pub(super) fn near_the_limits(intruder: &mut Intruder<'_>) -> io::Result<()> {
    let socket = intruder.observer()?;
    socket.negotiate(false)?;
    let numbers = "1,".repeat(1 << 20);
    socket
        .send(format!("{{\"execute\":\"query-name\",\"arguments\":{{\"x\":[{numbers}1]}}}}\n"))?;
    socket.read_lines(1)
}

pub(super) fn broken_json(intruder: &mut Intruder<'_>) -> io::Result<()> {
    let socket = intruder.any()?;
    socket.read_lines(1)?;
    if intruder.random.one_in(2) {
        socket.send(super::socket::QMP_CAPABILITIES)?;
    }
    let random = intruder.random.fork(intruder.attempts);
    let mut inputs = Inputs::new(random, &[]);
    for _ in 0..50 {
        if !socket.send(inputs.next_input())? || !socket.send(b"\n")? {
            break;
        }
    }
    socket.read_lines(1)
}
