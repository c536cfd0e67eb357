// SPDX-License-Identifier: MIT OR Apache-2.0
//! The least that a server can do: a thread for each client, which answers every line with the same line.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::thread;

/// Serves until the process is killed. Greets with the line, too.
///
/// # Errors
///
/// If it cannot listen there, or there are no more descriptors or threads.
pub fn serve(socket: &Path, line: &str) -> io::Result<()> {
    let line: std::sync::Arc<[u8]> = format!("{line}\r\n").into_bytes().into();
    for client in UnixListener::bind(socket)?.incoming() {
        let client = client?;
        let line = line.clone();
        // A client that leaves ends its thread, and nothing else.
        thread::Builder::new().spawn(move || drop(answer(&client, &line)))?;
    }
    Ok(())
}

fn answer(mut client: &UnixStream, line: &[u8]) -> io::Result<()> {
    client.write_all(line)?;
    let mut input = BufReader::new(client);
    let mut request = Vec::new();
    while input.read_until(b'\n', &mut request)? > 0 {
        client.write_all(line)?;
        request.clear();
    }
    Ok(())
}
