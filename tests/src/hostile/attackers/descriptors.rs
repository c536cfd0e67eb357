// SPDX-License-Identifier: MIT OR Apache-2.0
//! Descriptors that are many, or slow to close.

use std::fs::File;
use std::io;
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::net::sockopt::{
    set_socket_linger, set_socket_recv_buffer_size, set_socket_send_buffer_size,
};

use super::Intruder;
use super::socket::{MOST_DESCRIPTORS, Socket};

/// How long closing a descriptor takes.
const LINGER: Duration = Duration::from_secs(2);
const BUFFER_SIZE: usize = 4096;

/// A socket with unsent data, which waits when it is closed, for the one who closes it last.
pub(super) fn lingering(intruder: &mut Intruder<'_>) -> io::Result<()> {
    let listener = match intruder.listener.take() {
        Some(listener) => listener,
        None => {
            let listener = TcpListener::bind(("127.0.0.1", 0))?;
            set_socket_recv_buffer_size(&listener, BUFFER_SIZE)?;
            listener
        }
    };
    let near = TcpStream::connect(listener.local_addr()?)?;
    let (far, _) = listener.accept()?;
    intruder.listener = Some(listener);
    set_socket_send_buffer_size(&near, BUFFER_SIZE)?;
    set_socket_linger(&near, Some(LINGER))?;
    let near = Socket::new(near)?;
    while near.send([0; BUFFER_SIZE])? {}
    intruder.keep(Socket::new(far)?, 64);
    let socket = if intruder.random.one_in(2) { intruder.admin()? } else { intruder.observer()? };
    let times = 1 + intruder.random.below(3);
    socket.send_with(" ", near.as_fd(), times)?;
    drop(near);
    // Half of them have been received by then, and the others have not.
    if intruder.random.one_in(2) { socket.negotiate(false) } else { Ok(()) }
}

/// Descriptors for nothing, held for as long as the target holds them.
pub(super) fn many(intruder: &mut Intruder<'_>) -> io::Result<()> {
    let null = File::open("/dev/null")?;
    let socket = if intruder.random.one_in(2) { intruder.admin()? } else { intruder.observer()? };
    if intruder.random.one_in(2) {
        socket.negotiate(false)?;
    }
    for _ in 0..1 + intruder.random.below(4) {
        socket.send_with(" ", null.as_fd(), MOST_DESCRIPTORS)?;
    }
    intruder.keep(socket, 4);
    Ok(())
}

/// Descriptors that arrive at a connection which has ended.
pub(super) fn left_unread(intruder: &mut Intruder<'_>) -> io::Result<()> {
    let null = File::open("/dev/null")?;
    let socket = intruder.admin()?;
    for _ in 0..8 {
        socket.send_with(" ", null.as_fd(), MOST_DESCRIPTORS)?;
    }
    Ok(())
}

/// Names for descriptors, as many as one client may have at a time, with which it leaves.
pub(super) fn names(intruder: &mut Intruder<'_>) -> io::Result<()> {
    let null = File::open("/dev/null")?;
    let socket = intruder.admin()?;
    socket.negotiate(true)?;
    for number in 0..50 {
        let name = format!("{}-{number}", intruder.attempts);
        let text = format!("{{\"execute\":\"getfd\",\"arguments\":{{\"fdname\":\"a{name}\"}}}}\n");
        socket.send_with(&text, null.as_fd(), 1)?;
        socket.read_lines(1)?;
    }
    Ok(())
}
