// SPDX-License-Identifier: MIT OR Apache-2.0
//! The NBD clients, each with a thread of its own.

use std::convert::Infallible;
use std::io;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use qmp_dispatch::Dispatcher;

use crate::back_end::BackEnd;
use crate::events;
use crate::handshake::negotiate;
use crate::transmission::transmit;

/// Each may take as much memory as its largest request.
const MAX_CLIENTS: usize = 32;
/// How long clients may take to read their last replies.
const GRACE: Duration = Duration::from_secs(5);

pub(crate) struct Clients {
    back_end: Arc<BackEnd>,
    dispatcher: Dispatcher,
    grace: Duration,
    connected: Vec<Client>,
    /// Every thread has a copy, and sends nothing.
    working: Sender<Infallible>,
    finished: Receiver<Infallible>,
}

struct Client {
    stream: UnixStream,
    thread: JoinHandle<()>,
}

impl Clients {
    pub(crate) fn new(back_end: Arc<BackEnd>, dispatcher: Dispatcher) -> Clients {
        let (working, finished) = channel();
        let connected = Vec::new();
        Clients { back_end, dispatcher, grace: GRACE, connected, working, finished }
    }

    /// Serves one more client.
    pub(crate) fn serve(&mut self, stream: UnixStream) -> io::Result<()> {
        self.connected.retain(|client| !client.thread.is_finished());
        if self.connected.len() == MAX_CLIENTS {
            return Err(io::Error::other("there are too many"));
        }
        let back_end = Arc::clone(&self.back_end);
        let dispatcher = self.dispatcher.clone();
        let working = self.working.clone();
        let mut connection = stream.try_clone()?;
        let thread = thread::Builder::new().name("nbd-client".to_owned()).spawn(move || {
            if let Err(error) = serve(&mut connection, &back_end, &dispatcher) {
                eprintln!("nbd: a client is lost: {error}");
            }
            // There is another descriptor of it.
            let _ = connection.shutdown(Shutdown::Both);
            drop(working);
        })?;
        self.connected.push(Client { stream, thread });
        Ok(())
    }

    /// Answers what clients have sent so far, and lets go of them. When this is done, nothing is in
    /// flight.
    pub(crate) fn finish(self) {
        let shut_down = |how| {
            for client in &self.connected {
                // It may have gone already.
                let _ = client.stream.shutdown(how);
            }
        };
        // What has arrived can still be read, and then the stream ends.
        shut_down(Shutdown::Read);
        drop(self.working);
        if self.finished.recv_timeout(self.grace) == Err(RecvTimeoutError::Timeout) {
            shut_down(Shutdown::Both);
        }
        for client in self.connected {
            // It has panicked at worst, and said so.
            let _ = client.thread.join();
        }
    }
}

fn serve(
    connection: &mut UnixStream,
    back_end: &BackEnd,
    dispatcher: &Dispatcher,
) -> io::Result<()> {
    let Some(export) = negotiate(connection, back_end)? else { return Ok(()) };
    transmit(connection, export, |operation, error| {
        events::block_io_error(dispatcher, export.name(), operation, error);
    })
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use qmp_dispatch::Registry;
    use qmp_server::{system_time, version};

    use super::*;
    use crate::export::Export;
    use crate::export::tests::device;

    const CHOICE: &[u8] = b"\0\0\0\x03IHAVEOPT\0\0\0\x01\0\0\0\x04disk";

    fn request(command: u8, block: u64, length: u32) -> Vec<u8> {
        let mut request = vec![0x25, 0x60, 0x95, 0x13, 0, 0, 0, command];
        request.extend([block, block * 512].into_iter().flat_map(u64::to_be_bytes));
        request.extend(length.to_be_bytes());
        request
    }

    /// Those of one device, `disk`, and the first of them.
    fn clients_of(export: Export) -> (Clients, UnixStream) {
        let mut registry = Registry::new();
        events::register(&mut registry).unwrap();
        let dispatcher = Dispatcher::new(registry, version(), system_time);
        let mut clients = Clients::new(Arc::new(BackEnd::new(vec![export])), dispatcher);
        let (client, stream) = UnixStream::pair().unwrap();
        clients.serve(stream).unwrap();
        (clients, client)
    }

    #[test]
    fn what_has_been_sent_is_done_before_the_end() {
        let (export, file) = device("disk", false);
        let (clients, mut client) = clients_of(export);
        client.write_all(CHOICE).unwrap();
        let writes = (0..100_u8)
            .flat_map(|block| [request(1, block.into(), 512), vec![block + 1; 512]].concat());
        client.write_all(&writes.collect::<Vec<u8>>()).unwrap();
        clients.finish();

        let mut told = Vec::new();
        client.read_to_end(&mut told).unwrap();
        let (greeting, device, reply) = (18, 10, 16);
        assert_eq!(told.len(), greeting + device + 100 * reply);
        let stored = std::fs::read(file.path()).unwrap();
        for block in 0..100_u8 {
            assert_eq!(stored[usize::from(block) * 512..][..512], [block + 1; 512]);
        }
    }

    #[test]
    fn who_does_not_read_does_not_hold_up_the_end_for_good() {
        let (export, _file) = device("disk", false);
        let (mut clients, mut client) = clients_of(export);
        clients.grace = Duration::from_millis(1);
        client.write_all(CHOICE).unwrap();
        client.write_all(&request(0, 0, 1 << 20)).unwrap();
        clients.finish();
    }
}
