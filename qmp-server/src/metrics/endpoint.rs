// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who asks for metrics, and when they get them.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::no_listener;
use super::request::{Incoming, LONGEST, Requested};
use crate::io::Waker;
use crate::listen::bind;
use crate::transport::Opened;
use crate::{Address, Listen, ListenError, Listener, Received, Transport};

/// How long a client may take, from connecting to having read its response.
const DEADLINE: Duration = Duration::from_secs(5);

/// When there is one more, the oldest goes.
const MOST_CLIENTS: usize = 64;

/// After the figures have been told, nobody is told them for so many times as long as that took. So whoever asks without pause
/// takes a quarter of one processor at most, and the more figures there are, the longer others wait.
const REST: u32 = 3;

/// How long clients wait at least that could not be accepted.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// Serves [`Metrics`](crate::Metrics) over HTTP until it is dropped.
#[must_use = "metrics are served until it is dropped"]
pub struct MetricsEndpoint {
    address: Address,
    stop: Arc<Waker>,
    thread: Option<JoinHandle<()>>,
}

impl MetricsEndpoint {
    /// `text` makes what is answered.
    pub(super) fn start(
        text: impl Fn() -> String + Send + 'static,
        listen: &Listen,
    ) -> Result<MetricsEndpoint, ListenError> {
        let listeners = open_listeners(listen)?;
        let address = listeners.first().map_or(listen.address.clone(), |first| first.0.address());
        let failed = |reason| ListenError { address: listen.address.clone(), reason };
        let stop = Arc::new(Waker::new().map_err(failed)?);
        let mut service = Service {
            text: Box::new(text),
            listeners,
            stop: Arc::clone(&stop),
            clients: VecDeque::new(),
            accept_after: Instant::now(),
            tell_after: Instant::now(),
        };
        let run = move || service.run();
        let thread =
            thread::Builder::new().name("qmp-metrics".into()).spawn(run).map_err(failed)?;
        Ok(MetricsEndpoint { address, stop, thread: Some(thread) })
    }

    /// Where it listens, with the port that the system has chosen.
    pub fn address(&self) -> &Address {
        &self.address
    }
}

impl Drop for MetricsEndpoint {
    fn drop(&mut self) {
        self.stop.wake();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for MetricsEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MetricsEndpoint").field("address", &self.address).finish_non_exhaustive()
    }
}

/// Cleans up when it is dropped.
struct MetricsListener(Box<dyn Listener>);

impl Drop for MetricsListener {
    fn drop(&mut self) {
        self.0.clean_up();
    }
}

fn open_listeners(listen: &Listen) -> Result<Vec<MetricsListener>, ListenError> {
    let failed = |reason| ListenError { address: listen.address.clone(), reason };
    let opened = bind(listen)?.into_iter().map(|opened| match opened {
        Opened::Listener(listener) => {
            let mut listening = MetricsListener(listener);
            listening.0.open().map_err(failed)?;
            Ok(listening)
        }
        Opened::Connection(_) => Err(no_listener(listen)),
    });
    opened.collect()
}

type MakeText = Box<dyn Fn() -> String + Send>;

/// What the thread has.
struct Service {
    text: MakeText,
    listeners: Vec<MetricsListener>,
    stop: Arc<Waker>,
    /// The oldest first.
    clients: VecDeque<Scraper>,
    /// There were no descriptors left.
    accept_after: Instant,
    /// The figures have been told not long before.
    tell_after: Instant,
}

impl Service {
    fn run(&mut self) {
        loop {
            let ready = match self.wait() {
                Ok(ready) => ready,
                Err(error) => {
                    tracing::error!(%error, "cannot wait for those who want metrics");
                    return;
                }
            };
            if ready.first() == Some(&true) {
                return;
            }
            let (listeners, clients) = ready[1..].split_at(self.listeners.len());
            let now = Instant::now();
            let mut clients = clients.iter();
            self.clients.retain_mut(|client| {
                let is_ready = clients.next().is_some_and(|ready| *ready);
                // One that waits is ready when it has gone.
                now < client.deadline && (!is_ready || (!client.waits() && client.go_on()))
            });
            for (index, _) in listeners.iter().enumerate().filter(|(_, ready)| **ready) {
                self.accept(index);
            }
            self.tell();
        }
    }

    /// Tells the figures to all that have asked for them, all the same, which is after each has asked.
    fn tell(&mut self) {
        let began = Instant::now();
        if began < self.tell_after || !self.clients.iter().any(Scraper::waits) {
            return;
        }
        let figures = (self.text)();
        self.tell_after = Instant::now() + REST * began.elapsed();
        self.clients.retain_mut(|client| !client.waits() || client.take(&figures));
    }

    /// Waits until something can be done: whether there is an end to it, and whether each listener and
    /// each client is ready.
    fn wait(&self) -> io::Result<Vec<bool>> {
        let now = Instant::now();
        let pausing = self.accept_after > now;
        let accepting = if pausing { PollFlags::empty() } else { PollFlags::IN };
        let mut fds = vec![PollFd::new(&*self.stop, PollFlags::IN)];
        let listeners = self.listeners.iter().map(|listener| listener.0.as_fd());
        fds.extend(listeners.map(|fd| PollFd::from_borrowed_fd(fd, accepting)));
        fds.extend(self.clients.iter().map(Scraper::poll_fd));
        let again = self.clients.front().map(|client| client.deadline);
        let again = again.into_iter().chain(pausing.then_some(self.accept_after));
        let waits = self.clients.iter().any(Scraper::waits);
        let again = again.chain(waits.then_some(self.tell_after)).min();
        let timeout = again.map(|again| again.saturating_duration_since(now));
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(fds.iter().map(|fd| !fd.revents().is_empty()).collect())
    }

    fn accept(&mut self, listener: usize) {
        for _ in 0..MOST_CLIENTS {
            match self.listeners[listener].0.accept() {
                Ok(transport) => {
                    let mut client = Scraper::new(transport);
                    // The request comes with the connection, as a rule.
                    if client.go_on() {
                        self.clients.push_back(client);
                    }
                    if self.clients.len() > MOST_CLIENTS {
                        self.clients.pop_front();
                    }
                }
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => return,
                    io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted => {}
                    _ => return self.accept_after = Instant::now() + ACCEPT_AGAIN,
                },
            }
        }
    }
}

/// One that has connected, and gets one response.
struct Scraper {
    transport: Box<dyn Transport>,
    deadline: Instant,
    ready_for_request: bool,
    request: Incoming,
    asked: Option<Requested>,
    response: Option<String>,
    /// How much of the response has been sent.
    sent: usize,
}

impl Scraper {
    fn new(transport: Box<dyn Transport>) -> Scraper {
        Scraper {
            transport,
            deadline: Instant::now() + DEADLINE,
            ready_for_request: false,
            request: Incoming::default(),
            asked: None,
            response: None,
            sent: 0,
        }
    }

    fn poll_fd(&self) -> PollFd<'_> {
        let flags = match (&self.response, &self.asked) {
            (Some(_), _) => PollFlags::OUT,
            (None, Some(_)) => PollFlags::empty(),
            (None, None) => PollFlags::IN,
        };
        PollFd::from_borrowed_fd(self.transport.as_fd(), flags)
    }

    /// Whether it has asked for the figures, and has not been told them.
    fn waits(&self) -> bool {
        self.asked.is_some()
    }

    /// Takes the figures that it has asked for. Whether there is more to do.
    fn take(&mut self, figures: &str) -> bool {
        self.response = self.asked.take().map(|asked| asked.response(figures));
        self.go_on()
    }

    /// Does what can be done now. Whether there is more to do.
    fn go_on(&mut self) -> bool {
        match self.serve() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => true,
            Ok(()) | Err(_) => false,
        }
    }

    fn serve(&mut self) -> io::Result<()> {
        if !self.ready_for_request {
            self.transport.handshake()?;
            self.ready_for_request = true;
        }
        while self.response.is_none() {
            if self.waits() {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            self.receive()?;
            match self.request.asked() {
                Some(Requested::Refused(response)) => self.response = Some(response),
                asked => self.asked = asked,
            }
        }
        let response = self.response.as_deref().unwrap_or_default().as_bytes();
        while self.sent < response.len() {
            match self.transport.send(&response[self.sent..]) {
                Ok(sent) => self.sent += sent,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.discard_input();
        self.transport.shutdown();
        Ok(())
    }

    fn receive(&mut self) -> io::Result<()> {
        let mut buffer = [0; LONGEST];
        let room = &mut buffer[..self.request.room()];
        match self.transport.receive(room, &mut Vec::new()) {
            Ok(Received { bytes: 0, .. }) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(Received { bytes, .. }) => {
                self.request.add(&room[..bytes]);
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// What comes behind the request would have the system throw the response away.
    fn discard_input(&self) {
        let mut buffer = [0; LONGEST];
        for _ in 0..16 {
            match self.transport.receive(&mut buffer, &mut Vec::new()) {
                Ok(Received { bytes: 1.., .. }) => {}
                Ok(_) | Err(_) => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn who_asks_while_others_are_told_is_told_with_all_who_do() {
        const ASKING: usize = 20;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.sock");
        let (begun, has_begun) = channel();
        let (go_on, may_go_on) = channel::<()>();
        let told = std::sync::Mutex::new(0);
        let text = move || {
            let mut told = told.lock().unwrap();
            *told += 1;
            begun.send(()).unwrap();
            // Only the first time there is something to wait for.
            let _ = may_go_on.recv();
            format!("told {told}\n")
        };
        let listen = Listen::new(Address::Unix(path.clone()));
        let _endpoint = MetricsEndpoint::start(text, &listen).unwrap();
        let ask = || {
            let mut client = UnixStream::connect(&path).unwrap();
            client.write_all(b"GET /metrics HTTP/1.1\r\n\r\n").unwrap();
            client
        };
        let first = ask();
        has_begun.recv().unwrap();
        let others: Vec<_> = (0..ASKING).map(|_| ask()).collect();
        drop(go_on);
        let response = |mut client: UnixStream| {
            let mut response = String::new();
            client.read_to_string(&mut response).unwrap();
            response.lines().last().map(str::to_owned)
        };
        assert_eq!(response(first).as_deref(), Some("told 1"));
        for client in others {
            assert_eq!(response(client).as_deref(), Some("told 2"));
        }
    }
}
