// SPDX-License-Identifier: MIT OR Apache-2.0
//! The least that a server or a mux can do, to hold ours against.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use clap::ValueEnum;
use qmp_dispatch::proto::{Band, Layout, Reader, Timestamp, Version};
use qmp_dispatch::{Dispatcher, Locals, Monitor, Output, Registry, Time};
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};

/// The work of a floor for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Way {
    /// A thread for each client answers every line with the same line.
    Threads,
    /// One thread for all of them does, by epoll, and answers what it has read in one write. A client that does not
    /// read is not read from.
    Epoll,
    /// Our reader and our dispatcher in a loop by epoll: no queue, no suspension, no accounts. A write for each
    /// response.
    PlainLoop,
    /// One thread hands on what comes, by epoll, between each client and a connection of its own to the server behind.
    Relay,
}

/// Serves until the process is killed. `line` is what is answered, and with what the echoes greet; for a relay, the
/// socket of the server behind.
pub fn serve(way: Way, socket: &Path, line: &str) -> io::Result<()> {
    let listener = UnixListener::bind(socket)?;
    let answer: Arc<[u8]> = format!("{line}\r\n").into_bytes().into();
    match way {
        Way::Threads => threads(&listener, &answer),
        Way::Epoll => Site::new(listener)?.run(|client| Ok([Echo::new(client, &answer)?])),
        Way::PlainLoop => {
            let dispatcher = plain_dispatcher();
            Site::new(listener)?.run(|client| Ok([Plain::new(client, &dispatcher)?]))
        }
        Way::Relay => Site::new(listener)?.run(|client| Half::both(client, line)),
    }
}

fn threads(listener: &UnixListener, line: &Arc<[u8]>) -> io::Result<()> {
    for client in listener.incoming() {
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

/// A listener and one thread.
struct Site {
    listener: UnixListener,
    epoll: std::os::fd::OwnedFd,
}

const LISTENER: u64 = u64::MAX;

/// How one client is served. An error ends its connection.
trait Serve {
    fn client(&self) -> &UnixStream;
    fn received(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Sends what is left to be sent. Nothing is read before that is done.
    fn flush(&mut self) -> io::Result<Flushed> {
        Ok(Flushed::All)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flushed {
    All,
    Part,
}

impl Site {
    fn new(listener: UnixListener) -> io::Result<Site> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &listener, EventData::new_u64(LISTENER), EventFlags::IN)?;
        Ok(Site { listener, epoll })
    }

    /// `greet` returns what is to be read from for a new client.
    fn run<S: Serve, const N: usize>(
        &self,
        mut greet: impl FnMut(UnixStream) -> io::Result<[S; N]>,
    ) -> io::Result<()> {
        let mut clients: HashMap<u64, S> = HashMap::new();
        let mut next = 0;
        let mut events = Vec::with_capacity(64);
        let mut buffer = vec![0; 1 << 16];
        loop {
            epoll::wait(&self.epoll, spare_capacity(&mut events), None)?;
            for event in events.drain(..) {
                let number = event.data.u64();
                if number == LISTENER {
                    // A client may have left before it is greeted.
                    for client in greet(self.listener.accept()?.0).into_iter().flatten() {
                        let data = EventData::new_u64(next);
                        epoll::add(&self.epoll, client.client(), data, EventFlags::IN)?;
                        clients.insert(next, client);
                        next += 1;
                    }
                    continue;
                }
                let Some(client) = clients.get_mut(&number) else { continue };
                if self.turn(client, event.flags, number, &mut buffer).is_err() {
                    clients.remove(&number);
                }
            }
        }
    }

    fn turn<S: Serve>(
        &self,
        client: &mut S,
        ready: EventFlags,
        number: u64,
        buffer: &mut [u8],
    ) -> io::Result<()> {
        let was_waiting = ready.contains(EventFlags::OUT);
        if !was_waiting {
            match client.client().read(buffer)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                bytes => client.received(&buffer[..bytes])?,
            }
        }
        let is_waiting = client.flush()? == Flushed::Part;
        if is_waiting != was_waiting {
            let interest = if is_waiting { EventFlags::OUT } else { EventFlags::IN };
            epoll::modify(&self.epoll, client.client(), EventData::new_u64(number), interest)?;
        }
        Ok(())
    }
}

struct Echo {
    client: UnixStream,
    line: Arc<[u8]>,
    unsent: Vec<u8>,
}

impl Echo {
    fn new(mut client: UnixStream, line: &Arc<[u8]>) -> io::Result<Echo> {
        client.set_nonblocking(true)?;
        client.write_all(line)?;
        Ok(Echo { client, line: Arc::clone(line), unsent: Vec::new() })
    }
}

impl Serve for Echo {
    fn client(&self) -> &UnixStream {
        &self.client
    }

    fn received(&mut self, bytes: &[u8]) -> io::Result<()> {
        for _ in bytes.iter().filter(|&&byte| byte == b'\n') {
            self.unsent.extend_from_slice(&self.line);
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<Flushed> {
        while !self.unsent.is_empty() {
            match self.client.write(&self.unsent) {
                Ok(bytes) => drop(self.unsent.drain(..bytes)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Ok(Flushed::Part);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(Flushed::All)
    }
}

/// One with the protocol's own commands: what is measured is one of them.
fn plain_dispatcher() -> Dispatcher {
    let start = Instant::now();
    let time = move || {
        let wall = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        Time { wall: Timestamp::from_unix(wall), monotonic: start.elapsed() }
    };
    Dispatcher::new(Registry::new(), Version::new(10, 0, 2, ""), time)
}

struct Plain {
    client: UnixStream,
    monitor: Arc<Monitor>,
    reader: Reader,
}

impl Plain {
    fn new(client: UnixStream, dispatcher: &Dispatcher) -> io::Result<Plain> {
        let output = Arc::new(Direct(Mutex::new(client.try_clone()?)));
        let monitor = dispatcher.connect(output, Layout::Compact, Locals::default());
        Ok(Plain { client, monitor, reader: Reader::default() })
    }
}

impl Serve for Plain {
    fn client(&self) -> &UnixStream {
        &self.client
    }

    fn received(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while let Some(message) = self.reader.read(&mut bytes) {
            let pending = self.monitor.receive(message);
            debug_assert_eq!(pending.band(), Band::InBand);
            self.monitor.execute(pending, || ());
        }
        Ok(())
    }
}

/// Writes each text at once.
struct Direct(Mutex<UnixStream>);

impl Output for Direct {
    fn transmit(&self, text: &str) {
        // The end of the client is seen by the loop.
        let _ = self.0.lock().unwrap_or_else(PoisonError::into_inner).write_all(text.as_bytes());
    }
}

/// One direction of a relay.
struct Half {
    from: UnixStream,
    to: UnixStream,
}

impl Half {
    fn both(client: UnixStream, behind: &str) -> io::Result<[Half; 2]> {
        let behind = UnixStream::connect(behind)?;
        let there = Half { from: client.try_clone()?, to: behind.try_clone()? };
        Ok([there, Half { from: behind, to: client }])
    }
}

impl Serve for Half {
    fn client(&self) -> &UnixStream {
        &self.from
    }

    fn received(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.to.write_all(bytes)
    }
}

impl Drop for Half {
    /// So that the other direction ends, too.
    fn drop(&mut self) {
        let _ = self.to.shutdown(Shutdown::Both);
    }
}
