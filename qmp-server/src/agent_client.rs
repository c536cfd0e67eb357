// SPDX-License-Identifier: MIT OR Apache-2.0
//! A blocking client of QEMU's guest agent.

use std::fmt;
use std::io;
use std::time::{Duration, Instant};

use qmp_dispatch::proto::Json;
use qmp_dispatch::proto::client::{AgentReceived, AgentSession};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::rand::{GetRandomFlags, getrandom};

use crate::client::{BUFFER, Unsent, connect_in_time, is_closed, is_temporary};
use crate::transport::LONGEST_TIMEOUT;
use crate::{ClientError, Closed, Connect, Transport};

/// A blocking client of QEMU's guest agent (`qemu-ga`) at its channel, used by one thread, with one command at a time.
///
/// The agent never speaks first, and a channel has one client at a time: what does not answer may be an agent that hangs, a
/// guest without an agent, or a channel that another client has.
///
/// ```no_run
/// use std::time::Duration;
///
/// use qmp_server::{AgentClient, Connect};
///
/// let channel = Connect::new("unix:/run/vm1/agent.sock".parse()?);
/// let mut agent = AgentClient::connect(&channel, Duration::from_secs(10))?;
/// println!("{}", agent.execute("guest-get-osinfo", None)?);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct AgentClient {
    transport: Box<dyn Transport>,
    session: AgentSession,
    unsent: Unsent,
    /// What was received and not looked at yet, from `at` on.
    input: Vec<u8>,
    at: usize,
    timeout: Duration,
}

impl AgentClient {
    /// Connects and synchronises, within the timeout; each command has as much.
    ///
    /// # Errors
    ///
    /// [`ClientError`], among them that of [`Connect::connect`].
    pub fn connect(connect: &Connect, timeout: Duration) -> Result<AgentClient, ClientError> {
        connect.verify()?;
        let timeout = timeout.min(LONGEST_TIMEOUT);
        let deadline = Instant::now() + timeout;
        let transport = connect_in_time(connect.clone(), timeout)?;
        AgentClient::synchronised(transport, timeout, deadline)
    }

    /// Synchronises over a connection that has been made, like [`connect`](AgentClient::connect).
    ///
    /// # Errors
    ///
    /// As [`connect`](AgentClient::connect).
    pub fn over(
        transport: Box<dyn Transport>,
        timeout: Duration,
    ) -> Result<AgentClient, ClientError> {
        let timeout = timeout.min(LONGEST_TIMEOUT);
        AgentClient::synchronised(transport, timeout, Instant::now() + timeout)
    }

    fn synchronised(
        transport: Box<dyn Transport>,
        timeout: Duration,
        deadline: Instant,
    ) -> Result<AgentClient, ClientError> {
        let mut random = [0; 4];
        getrandom(&mut random, GetRandomFlags::empty()).map_err(io::Error::from)?;
        let session = AgentSession::new(u32::from_ne_bytes(random));
        let (unsent, input) = (Unsent::default(), Vec::new());
        let mut client = AgentClient { transport, session, unsent, input, at: 0, timeout };
        client.synchronise(deadline)?;
        Ok(client)
    }

    /// Executes a command, and returns its result. `arguments` is an object. That of a command which is answered only if it
    /// fails is empty, as soon as the agent has answered what follows it.
    ///
    /// # Errors
    ///
    /// [`ClientError`]. After one that is not [`ClientError::Command`], an answer that comes later is dropped: the next command
    /// begins by synchronising.
    pub fn execute(
        &mut self,
        command: &str,
        arguments: Option<&Json>,
    ) -> Result<Json, ClientError> {
        let deadline = Instant::now() + self.timeout;
        if !self.session.is_idle() {
            self.session.resynchronise();
        }
        self.synchronise(deadline)?;
        let taken = self.session.request(command, arguments);
        debug_assert!(taken, "the session is idle");
        loop {
            return match self.receive(deadline)? {
                AgentReceived::Response(result) => Ok(result?),
                AgentReceived::Executed => Ok(Json::EMPTY_OBJECT),
                _ => continue,
            };
        }
    }

    fn synchronise(&mut self, deadline: Instant) -> Result<(), ClientError> {
        while self.session.is_synchronising() {
            self.receive(deadline)?;
        }
        Ok(())
    }

    /// Sends what is unsent, and waits for the next thing that the agent sends.
    fn receive(&mut self, deadline: Instant) -> Result<AgentReceived, ClientError> {
        loop {
            if let Some(bytes) = self.session.transmit() {
                self.unsent.bytes.extend_from_slice(&bytes);
            }
            let mut rest = &self.input[self.at..];
            let received = self.session.read(&mut rest);
            self.at = self.input.len() - rest.len();
            match received {
                Some(Ok(received)) => return Ok(received),
                // What follows may be anything: the next command synchronises.
                Some(Err(error)) => return Err(error.into()),
                None => {}
            }
            self.unsent.send(&*self.transport);
            self.wait(deadline)?;
            self.input.resize(BUFFER, 0);
            self.at = 0;
            let bytes = match self.transport.receive_bytes(&mut self.input) {
                Ok(received) => received.bytes,
                Err(error) if is_temporary(&error) => {
                    self.input.clear();
                    continue;
                }
                Err(error) if is_closed(&error) => 0,
                Err(error) => return Err(error.into()),
            };
            self.input.truncate(bytes);
            if bytes == 0 {
                return Err(ClientError::Closed(Closed::BeforeResponse));
            }
        }
    }

    /// Waits until the agent can be read from, or written to if something is unsent.
    fn wait(&self, deadline: Instant) -> Result<(), ClientError> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            let seconds = self.timeout.as_secs_f64();
            return Err(ClientError::TimedOut(match self.session.is_synchronising() {
                true => {
                    "the guest agent does not answer; does it run, and is another client connected?"
                        .to_owned()
                }
                false => format!("no response of the guest agent within {seconds} s"),
            }));
        }
        let room = if self.unsent.bytes.is_empty() { PollFlags::empty() } else { PollFlags::OUT };
        let mut waiting = [PollFd::from_borrowed_fd(self.transport.as_fd(), PollFlags::IN | room)];
        match poll(&mut waiting, Timespec::try_from(left).ok().as_ref()) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(io::Error::from(error).into()),
        }
    }
}

impl fmt::Debug for AgentClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AgentClient").field("session", &self.session).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::os::unix::net::UnixStream;
    use std::thread::{self, JoinHandle};

    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(60);

    /// An agent that sends each of these texts for a line that it is sent; the id of a synchronisation is in place of `ID`.
    fn agent(texts: &'static [&'static [u8]]) -> (UnixStream, JoinHandle<Vec<String>>) {
        let (near, far) = UnixStream::pair().unwrap();
        near.set_nonblocking(true).unwrap();
        let agent = thread::spawn(move || {
            let mut lines = BufReader::new(&far).split(b'\n').map_while(Result::ok);
            let mut seen = Vec::new();
            for text in texts {
                let Some(line) = lines.next() else { break };
                let line = String::from_utf8_lossy(&line).into_owned();
                let id =
                    line.rsplit_once("\"id\": ").map_or("", |(_, id)| id.trim_end_matches('}'));
                let at = text.windows(2).position(|part| part == b"ID");
                let (before, after) =
                    at.map_or((*text, &b""[..]), |at| (&text[..at], &text[at + 2..]));
                (&far).write_all(&[before, id.as_bytes(), after].concat()).unwrap();
                seen.push(line);
            }
            seen.extend(lines.map(|line| String::from_utf8_lossy(&line).into_owned()));
            seen
        });
        (near, agent)
    }

    #[test]
    fn a_command_is_executed_when_the_agent_has_synchronised() {
        let (near, agent) = agent(&[
            b"s of somebody else\"}\n\xFF{\"return\": ID}\n",
            b"{\"return\": [1]}\n",
            b"{\"error\": {\"class\": \"GenericError\", \"desc\": \"no\"}}\n",
        ]);
        let mut client = AgentClient::over(Box::new(near), TIMEOUT).unwrap();
        assert_eq!(client.execute("guest-a", None).unwrap().as_str(), "[1]");
        let error = client.execute("guest-b", Some(&Json::EMPTY_OBJECT)).unwrap_err();
        assert!(matches!(error, ClientError::Command(_)), "{error}");
        drop(client);
        let seen = agent.join().unwrap();
        assert_eq!(
            seen[1..],
            [r#"{"execute":"guest-a"}"#, r#"{"execute":"guest-b","arguments":{}}"#]
        );
    }

    #[test]
    fn a_command_that_is_not_answered_is_not_waited_for() {
        let (near, agent) = agent(&[
            b"\xFF{\"return\": ID}\n",
            b"",
            b"\xFF{\"return\": ID}\n",
            b"{\"return\": 1}\n",
        ]);
        let mut client = AgentClient::over(Box::new(near), TIMEOUT).unwrap();
        assert_eq!(client.execute("guest-suspend-ram", None).unwrap(), Json::EMPTY_OBJECT);
        assert_eq!(client.execute("guest-a", None).unwrap().as_str(), "1");
        drop(client);
        assert_eq!(agent.join().unwrap().len(), 4);
    }

    #[test]
    fn a_late_answer_is_not_that_to_the_next_command() {
        let (near, agent) = agent(&[
            b"\xFF{\"return\": ID}\n",
            b"",
            b"{\"return\": \"late\"}\n\xFF{\"return\": ID}\n",
            b"{\"return\": \"ours\"}\n",
        ]);
        let mut client = AgentClient::over(Box::new(near), TIMEOUT).unwrap();
        client.timeout = Duration::from_millis(20);
        let error = client.execute("guest-slow", None).unwrap_err();
        assert!(matches!(error, ClientError::TimedOut(_)), "{error}");
        client.timeout = TIMEOUT;
        assert_eq!(client.execute("guest-next", None).unwrap().as_str(), "\"ours\"");
        drop(client);
        assert_eq!(agent.join().unwrap().len(), 4);
    }

    #[test]
    fn an_agent_that_sends_anything_else_is_an_error_once() {
        let (near, agent) = agent(&[
            b"\xFF{\"return\": ID}\n",
            b"login: ",
            b"\xFF{\"return\": ID}\n",
            b"{\"return\": 1}\n",
        ]);
        let mut client = AgentClient::over(Box::new(near), TIMEOUT).unwrap();
        let error = client.execute("guest-a", None).unwrap_err();
        assert!(matches!(error, ClientError::Agent(_)), "{error}");
        assert_eq!(client.execute("guest-b", None).unwrap().as_str(), "1");
        drop(client);
        assert_eq!(agent.join().unwrap().len(), 4);
    }

    #[test]
    fn the_end_of_the_channel_is_told() {
        let (near, far) = UnixStream::pair().unwrap();
        near.set_nonblocking(true).unwrap();
        drop(far);
        let error = AgentClient::over(Box::new(near), TIMEOUT).unwrap_err();
        assert!(matches!(error, ClientError::Closed(_)), "{error}");
    }
}
