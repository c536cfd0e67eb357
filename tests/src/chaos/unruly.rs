// SPDX-License-Identifier: MIT OR Apache-2.0
//! Clients that break every rule of good behaviour, though not of QMP when an answer is checked.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::{Shutdown, shutdown, sockopt};

use super::site::Doors;
use crate::channel::Channel;
use crate::connection::Connection;
use crate::endpoint::Endpoint;
use crate::inputs::{Inputs, Random};
use crate::json::Layout;
use crate::server::LIMIT;

/// How long a client tries to send what the server does not read, or waits for what does not come.
const BRIEFLY: Duration = Duration::from_millis(20);
/// How many connections a client leaves open that it is done with.
const KEPT: usize = 6;
const QMP_CAPABILITIES: &str = r#"{"execute": "qmp_capabilities"}"#;
const WITH_OOB: &str = r#"{"execute": "qmp_capabilities", "arguments": {"enable": ["oob"]}}"#;
const LARGE_ANSWER: &str = r#"{"execute": "query-qmp-schema"}"#;

type Visit = fn(&mut Unruly) -> io::Result<()>;

/// Who comes again and again, each time in another way.
pub(super) struct Unruly {
    doors: Arc<Doors>,
    random: Random,
    /// Connections that are no longer read.
    kept: Vec<Box<dyn Channel>>,
}

const VISITS: [Visit; 11] = [
    Unruly::open_and_close,
    Unruly::vanish_in_a_message,
    Unruly::send_byte_by_byte,
    Unruly::read_byte_by_byte,
    Unruly::never_read,
    Unruly::send_rubbish,
    Unruly::begin_something_huge,
    Unruly::read_no_more,
    Unruly::call_out_of_band,
    Unruly::leave_descriptors,
    Unruly::mistake_the_door,
];

impl Unruly {
    pub(super) fn new(doors: Arc<Doors>, random: Random) -> Self {
        Self { doors, random, kept: Vec::new() }
    }

    /// Comes once.
    ///
    /// Whatever the server does to such a client is right, but for one thing: a client that says that it sends no more
    /// gets all its answers.
    pub(super) fn visit(&mut self) -> Result<(), String> {
        match self.random.below(VISITS.len() + 2) {
            kind if kind < VISITS.len() => match VISITS[kind](self) {
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    Err(format!("the server does not accept: {error}"))
                }
                _ => Ok(()),
            },
            _ => self.send_no_more(),
        }
    }

    fn endpoint(&mut self) -> Endpoint {
        self.doors.endpoints[self.random.below(self.doors.endpoints.len())].clone()
    }

    fn connect(&mut self) -> io::Result<Box<dyn Channel>> {
        self.endpoint().connect(LIMIT)
    }

    /// Leaves the connection open for some time, or closes it, if possible with a reset.
    fn leave(&mut self, channel: Box<dyn Channel>) {
        if self.random.one_in(3) {
            self.kept.push(channel);
            if self.kept.len() > KEPT {
                let index = self.random.below(self.kept.len());
                self.kept.swap_remove(index);
            }
        } else if self.random.one_in(2) {
            let _ = sockopt::set_socket_linger(channel.readable(), Some(Duration::ZERO));
        }
    }

    fn open_and_close(&mut self) -> io::Result<()> {
        for _ in 0..1 + self.random.few(20) {
            let endpoint = &self.doors.endpoints[self.random.below(2)];
            let channel = endpoint.connect(LIMIT)?;
            if self.random.one_in(4) {
                let _ = sockopt::set_socket_linger(channel.readable(), Some(Duration::ZERO));
            }
        }
        Ok(())
    }

    fn vanish_in_a_message(&mut self) -> io::Result<()> {
        let mut channel = self.connect()?;
        let mut text = QMP_CAPABILITIES.to_owned();
        (0..self.random.few(10)).for_each(|_| text.push_str(r#"{"execute": "query-status"}"#));
        let message = r#"{"execute": "query-name", "id": ["a", {"b": 1}]}"#;
        text.push_str(&message[..1 + self.random.below(message.len() - 1)]);
        push(&mut *channel, text.as_bytes());
        self.leave(channel);
        Ok(())
    }

    fn send_byte_by_byte(&mut self) -> io::Result<()> {
        let mut channel = self.connect()?;
        let text = [QMP_CAPABILITIES, r#"{"execute": "query-name"}"#].concat();
        for byte in text.bytes().take(1 + self.random.below(text.len())) {
            push(&mut *channel, &[byte]);
        }
        self.leave(channel);
        Ok(())
    }

    fn read_byte_by_byte(&mut self) -> io::Result<()> {
        let mut channel = self.doors.endpoints[self.random.below(2)].connect(LIMIT)?;
        push(&mut *channel, QMP_CAPABILITIES.as_bytes());
        push(&mut *channel, LARGE_ANSWER.repeat(5).as_bytes());
        for _ in 0..self.random.below(50) {
            wait(&*channel, PollFlags::IN);
            rustix::net::recv(
                channel.readable(),
                &mut [0; 1][..],
                rustix::net::RecvFlags::empty(),
            )?;
            thread::sleep(Duration::from_millis(1));
        }
        self.leave(channel);
        Ok(())
    }

    fn never_read(&mut self) -> io::Result<()> {
        let mut channel = self.connect()?;
        let capabilities = if self.random.one_in(2) { QMP_CAPABILITIES } else { WITH_OOB };
        push(&mut *channel, capabilities.as_bytes());
        let requests = LARGE_ANSWER.repeat(10);
        for _ in 0..1 + self.random.few(10) {
            if !push(&mut *channel, requests.as_bytes()) {
                break;
            }
        }
        self.leave(channel);
        Ok(())
    }

    fn send_rubbish(&mut self) -> io::Result<()> {
        let mut channel = self.connect()?;
        if self.random.one_in(2) {
            push(&mut *channel, WITH_OOB.as_bytes());
        }
        let mut inputs = Inputs::new(self.random.fork(0), &[]);
        for _ in 0..self.random.below(50) {
            let input = match self.random.below(3) {
                0 => self.random.bytes(300),
                _ => inputs.next_input(),
            };
            if !push(&mut *channel, &input) {
                break;
            }
            if self.random.one_in(5) {
                drop(channel.receive(&mut Vec::new()));
            }
        }
        // A number that follows the last visit's.
        self.random.number();
        self.leave(channel);
        Ok(())
    }

    fn begin_something_huge(&mut self) -> io::Result<()> {
        let mut channel = self.connect()?;
        let (begin, more) = match self.random.below(4) {
            0 => (r#"{"execute": "qmp_capabilities", "id": ""#, "x"),
            1 => ("", "["),
            2 => ("[", "1, "),
            _ => ("", " \r\n\t "),
        };
        push(&mut *channel, begin.as_bytes());
        let piece = more.repeat((64 << 10) / more.len());
        for _ in 0..self.random.below(60) {
            if !push(&mut *channel, piece.as_bytes()) {
                break;
            }
        }
        self.leave(channel);
        Ok(())
    }

    fn read_no_more(&mut self) -> io::Result<()> {
        let mut channel = self.connect()?;
        push(&mut *channel, QMP_CAPABILITIES.as_bytes());
        shutdown(channel.readable(), Shutdown::Read)?;
        for _ in 0..self.random.below(20) {
            if !push(&mut *channel, LARGE_ANSWER.as_bytes()) {
                break;
            }
        }
        self.leave(channel);
        Ok(())
    }

    fn call_out_of_band(&mut self) -> io::Result<()> {
        let mut channel = self.connect()?;
        push(&mut *channel, WITH_OOB.as_bytes());
        let mut requests = String::new();
        for _ in 0..self.random.below(200) {
            requests.push_str(match self.random.below(3) {
                0 => r#"{"execute": "query-name"}"#,
                1 => r#"{"exec-oob": "yank", "arguments": {"instances": []}}"#,
                _ => r#"{"exec-oob": "no-such-command"}"#,
            });
        }
        push(&mut *channel, requests.as_bytes());
        self.leave(channel);
        Ok(())
    }

    fn leave_descriptors(&mut self) -> io::Result<()> {
        let mut channel = self.doors.endpoints[0].connect(LIMIT)?;
        push(&mut *channel, QMP_CAPABILITIES.as_bytes());
        let file = File::open("/dev/null")?;
        let descriptors: Vec<BorrowedFd<'_>> =
            (0..1 + self.random.below(8)).map(|_| file.as_fd()).collect();
        let getfd = r#"{"execute": "getfd", "arguments": {"fdname": "kept"}}"#;
        for _ in 0..1 + self.random.few(10) {
            let text = if self.random.one_in(2) { getfd } else { " " };
            let start = self.random.below(text.len());
            push(&mut *channel, &text.as_bytes()[..start]);
            // Each with another byte of the text.
            channel.send(&text.as_bytes()[start..], &descriptors)?;
        }
        self.leave(channel);
        Ok(())
    }

    /// Speaks no TLS where it is spoken, or not to the end.
    fn mistake_the_door(&mut self) -> io::Result<()> {
        let plain = Endpoint::Tcp { host: "127.0.0.1".to_owned(), port: self.doors.tls_port };
        let mut channel = plain.connect(LIMIT)?;
        match self.random.below(3) {
            0 => {}
            1 => _ = push(&mut *channel, QMP_CAPABILITIES.as_bytes()),
            // The beginning of a record: a handshake, of TLS, with so many bytes.
            _ => _ = push(&mut *channel, &[22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3]),
        }
        self.leave(channel);
        Ok(())
    }

    /// Shuts down its sending side, and must get every answer, in order, and then the end.
    fn send_no_more(&mut self) -> Result<(), String> {
        let endpoint = self.endpoint();
        let (capabilities, requests) = (
            if self.random.one_in(2) { QMP_CAPABILITIES } else { WITH_OOB },
            self.random.below(30),
        );
        let mut text = capabilities.to_owned();
        for id in 0..requests {
            text.push_str(&format!(r#"{{"execute": "query-name", "id": {id}}}"#));
        }
        let deadline = Instant::now() + LIMIT;
        let check = || {
            let mut connection = Connection::open(&endpoint, Layout::Compact, LIMIT)?;
            connection.send(text.as_bytes(), &[], deadline)?;
            connection.half_close()?;
            let mut answers = vec![r#"{"return": {}}"#.to_owned()];
            answers.extend(
                (0..requests)
                    .map(|id| format!(r#"{{"return": {{"name": "confvm"}}, "id": {id}}}"#)),
            );
            // The greeting.
            connection.read_message(deadline)?;
            for answer in answers {
                let came = loop {
                    let message = connection.read_message(deadline)?.text;
                    if !message.starts_with(r#"{"timestamp": "#) {
                        break message;
                    }
                };
                if came != answer {
                    return crate::connection::unexpected(format!("expected {answer}, got {came}"));
                }
            }
            while connection.expect_end(deadline).is_err() {
                let message = connection.read_message(deadline)?.text;
                if !message.starts_with(r#"{"timestamp": "#) {
                    return crate::connection::unexpected(format!("an answer too many: {message}"));
                }
            }
            Ok(())
        };
        check().map_err(|error| format!("after a half-close over {endpoint}: {error}"))
    }
}

/// Sends as much as the server takes for a moment. Whether that was all.
fn push(channel: &mut dyn Channel, bytes: &[u8]) -> bool {
    let mut left = bytes;
    let mut waited = false;
    loop {
        let sent =
            if left.is_empty() { channel.flush().map(|()| 0) } else { channel.send(left, &[]) };
        match sent {
            Ok(_) if left.is_empty() => return true,
            Ok(sent) => left = &left[sent..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && !waited => {
                wait(channel, PollFlags::OUT);
                waited = true;
            }
            Err(_) => return false,
        }
    }
}

fn wait(channel: &dyn Channel, wanted: PollFlags) {
    let timeout = Timespec::try_from(BRIEFLY).unwrap_or_default();
    let _ = rustix::event::poll(
        &mut [PollFd::from_borrowed_fd(channel.readable(), wanted)],
        Some(&timeout),
    );
}
