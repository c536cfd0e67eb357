// SPDX-License-Identifier: MIT OR Apache-2.0
//! Both sides of a mux, for its tests.

use std::fs::File;
use std::io::{BufRead, BufReader, IoSlice, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

/// Nothing takes so long.
pub(super) const LIMIT: Duration = Duration::from_secs(30);

/// One end of a connection.
pub(super) struct Lines(pub(super) BufReader<UnixStream>);

impl Lines {
    pub(super) fn new(stream: UnixStream) -> Lines {
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        Lines(BufReader::new(stream))
    }

    pub(super) fn send(&mut self, text: &str) {
        self.0.get_mut().write_all(text.as_bytes()).unwrap();
    }

    pub(super) fn send_with_descriptor(&mut self, text: &str) {
        let file = File::open("/dev/null").unwrap();
        pass(self.0.get_ref(), text, file.as_fd());
    }

    /// The next line must have this in it.
    #[track_caller]
    pub(super) fn expect(&mut self, text: &str) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        assert!(!line.is_empty() && line.contains(text), "{text} is not in: {line}");
        line
    }

    /// Nothing more must come.
    #[track_caller]
    pub(super) fn expect_end(&mut self) {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        assert_eq!(line, "");
    }

    /// The next request must be for this command, and is answered.
    #[track_caller]
    pub(super) fn answer(&mut self, command: &str) -> String {
        let request = self.expect(command);
        self.answer_to(&request, "{}");
        request
    }

    pub(super) fn answer_to(&mut self, request: &str, result: &str) {
        let (_, id) = request.rsplit_once(r#""id":"#).unwrap();
        let id = id.trim_end();
        self.send(&format!("{{\"return\": {result}, \"id\": {id}\r\n"));
    }
}

/// Sends this with a descriptor.
pub(super) fn pass(socket: &UnixStream, text: &str, descriptor: BorrowedFd<'_>) {
    let descriptors = [descriptor];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
    sendmsg(socket, &[IoSlice::new(text.as_bytes())], &mut ancillary, SendFlags::empty()).unwrap();
}
