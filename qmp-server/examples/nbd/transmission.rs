// SPDX-License-Identifier: MIT OR Apache-2.0
//! The second phase of NBD: requests, and a simple reply to each.

use std::io::{self, ErrorKind, Read, Write};

use crate::export::{Export, Failure, Operation, is_no_space};
use crate::wire::{MAX_PAYLOAD, read_array, read_u16, read_u32, read_u64, violation};

const REQUEST_MAGIC: u32 = 0x2560_9513;
const REPLY_MAGIC: u32 = 0x6744_6698;
const REPLY_HEADER: usize = 16;

mod command {
    pub(super) const READ: u16 = 0;
    pub(super) const WRITE: u16 = 1;
    pub(super) const DISCONNECT: u16 = 2;
    pub(super) const FLUSH: u16 = 3;
    pub(super) const TRIM: u16 = 4;
    pub(super) const WRITE_ZEROES: u16 = 6;
}

/// The request is to be on disk before it is answered.
const FUA: u16 = 1;
/// What is zeroed is to be allocated all the same.
const NO_HOLE: u16 = 1 << 1;

mod error {
    pub(super) const PERMISSION: u32 = 1;
    pub(super) const IO: u32 = 5;
    pub(super) const INVALID: u32 = 22;
    pub(super) const NO_SPACE: u32 = 28;
}

struct Request {
    flags: u16,
    command: u16,
    cookie: u64,
    offset: u64,
    length: u32,
}

impl Request {
    /// `None` if the client has gone.
    fn read(stream: &mut impl Read) -> io::Result<Option<Request>> {
        let header: [u8; 28] = match read_array(stream) {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(None),
            header => header?,
        };
        let mut rest = header.as_slice();
        if read_u32(&mut rest)? != REQUEST_MAGIC {
            return Err(violation("this is no request".to_owned()));
        }
        Ok(Some(Request {
            flags: read_u16(&mut rest)?,
            command: read_u16(&mut rest)?,
            cookie: read_u64(&mut rest)?,
            offset: read_u64(&mut rest)?,
            length: read_u32(&mut rest)?,
        }))
    }

    fn is_too_long(&self) -> bool {
        self.length > MAX_PAYLOAD && matches!(self.command, command::READ | command::WRITE)
    }
}

/// Why a request was refused.
enum Refusal {
    Invalid,
    Failed(Operation, Failure),
}

impl Refusal {
    fn code(&self) -> u32 {
        match self {
            Refusal::Failed(_, Failure::ReadOnly) => error::PERMISSION,
            Refusal::Failed(Operation::Write, Failure::OutOfRange) => error::NO_SPACE,
            Refusal::Invalid | Refusal::Failed(_, Failure::OutOfRange) => error::INVALID,
            Refusal::Failed(_, Failure::Io(error)) if is_no_space(error) => error::NO_SPACE,
            Refusal::Failed(_, Failure::Io(_)) => error::IO,
        }
    }
}

/// Serves requests until the client disconnects. `report` is told of errors of the device, each before
/// the client is.
pub(crate) fn transmit(
    stream: &mut (impl Read + Write),
    export: &Export,
    report: impl Fn(Operation, &io::Error),
) -> io::Result<()> {
    // A reply: its header, and what has been read. Or what is to be written.
    let mut buffer = Vec::new();
    while let Some(request) = Request::read(stream)? {
        if request.command == command::DISCONNECT {
            break;
        }
        buffer.resize(REPLY_HEADER, 0);
        let payload = if request.is_too_long() { 0 } else { request.length as usize };
        match request.command {
            // There is no end to what would have to be skipped.
            command::WRITE if request.is_too_long() => {
                return Err(violation(format!("a write of {} bytes", request.length)));
            }
            command::WRITE => {
                buffer.resize(REPLY_HEADER + payload, 0);
                stream.read_exact(&mut buffer[REPLY_HEADER..])?;
            }
            command::READ => buffer.resize(REPLY_HEADER + payload, 0),
            _ => {}
        }
        let result = execute(&request, export, &mut buffer[REPLY_HEADER..]);
        if let Err(Refusal::Failed(operation, Failure::Io(error))) = &result {
            report(*operation, error);
        }
        if request.command != command::READ || result.is_err() {
            buffer.truncate(REPLY_HEADER);
        }
        let code = result.err().map_or(0, |refusal| refusal.code());
        buffer[..4].copy_from_slice(&REPLY_MAGIC.to_be_bytes());
        buffer[4..8].copy_from_slice(&code.to_be_bytes());
        buffer[8..REPLY_HEADER].copy_from_slice(&request.cookie.to_be_bytes());
        stream.write_all(&buffer)?;
    }
    Ok(())
}

fn execute(request: &Request, export: &Export, payload: &mut [u8]) -> Result<(), Refusal> {
    let &Request { flags, command, offset, length, .. } = request;
    let operation = match command {
        command::READ => Operation::Read,
        command::WRITE | command::WRITE_ZEROES => Operation::Write,
        command::FLUSH => Operation::Flush,
        command::TRIM => Operation::Unmap,
        _ => return Err(Refusal::Invalid),
    };
    let known_flags = if command == command::WRITE_ZEROES { FUA | NO_HOLE } else { FUA };
    if flags & !known_flags != 0 || request.is_too_long() {
        return Err(Refusal::Invalid);
    }
    let done = match command {
        command::READ => export.read(payload, offset),
        command::WRITE => export.write(payload, offset),
        command::WRITE_ZEROES => export.write_zeroes(offset, length.into(), flags & NO_HOLE == 0),
        command::TRIM => export.unmap(offset, length.into()),
        _ => export.flush(),
    };
    done.map_err(|failure| Refusal::Failed(operation, failure))?;
    if flags & FUA != 0 && matches!(operation, Operation::Write | Operation::Unmap) {
        export.flush().map_err(|failure| Refusal::Failed(Operation::Flush, failure))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::io::Cursor;

    use super::*;
    use crate::export::tests::{SIZE, device};

    /// A client that has said everything at once.
    struct Client {
        says: Cursor<Vec<u8>>,
        hears: Vec<u8>,
    }

    impl Read for Client {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.says.read(buffer)
        }
    }

    impl Write for Client {
        fn write(&mut self, data: &[u8]) -> io::Result<usize> {
            self.hears.write(data)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn request(flags: u16, command: u16, offset: u64, length: u32) -> Vec<u8> {
        let mut request = REQUEST_MAGIC.to_be_bytes().to_vec();
        request.extend([flags, command].into_iter().flat_map(u16::to_be_bytes));
        request.extend([7, offset].into_iter().flat_map(u64::to_be_bytes));
        request.extend(length.to_be_bytes());
        request
    }

    fn reply(code: u32, data: &[u8]) -> Vec<u8> {
        let mut reply =
            [REPLY_MAGIC, code].into_iter().flat_map(u32::to_be_bytes).collect::<Vec<_>>();
        reply.extend(7_u64.to_be_bytes());
        reply.extend(data);
        reply
    }

    fn run(export: &Export, says: Vec<u8>) -> (io::Result<()>, Vec<u8>) {
        let mut client = Client { says: Cursor::new(says), hears: Vec::new() };
        let result = transmit(&mut client, export, |_, _| ());
        (result, client.hears)
    }

    #[track_caller]
    fn check(export: &Export, requests: &[&[u8]], replies: &[Vec<u8>]) {
        let (result, hears) = run(export, requests.concat());
        result.unwrap();
        assert_eq!(hears, replies.concat());
    }

    #[test]
    fn each_request_is_answered_in_turn() {
        let (export, _file) = device("disk", false);
        let requests: [&[u8]; 9] = [
            &request(FUA, command::WRITE, 4, 3),
            b"abc",
            &request(0, command::READ, 3, 5),
            &request(0, command::WRITE_ZEROES, 5, 1),
            &request(0, command::READ, 4, 3),
            &request(0, command::TRIM, 0, 4),
            &request(0, command::FLUSH, 0, 0),
            &request(0, command::DISCONNECT, 0, 0),
            b"nobody reads this",
        ];
        let done = reply(0, b"");
        let read = [reply(0, b"\0abc\0"), reply(0, b"a\0c")];
        let [first, second] = read;
        check(&export, &requests, &[done.clone(), first, done.clone(), second, done.clone(), done]);
    }

    #[test]
    fn what_cannot_be_done_is_refused_and_the_next_request_is_found() {
        let (export, _file) = device("disk", false);
        let (read_only, _file) = device("disk", true);
        let read = request(0, command::READ, 0, 1);
        let cases: [(&Export, Vec<u8>, u32); 8] = [
            (&export, request(0, command::READ, SIZE, 1), error::INVALID),
            (&export, [request(0, command::WRITE, SIZE, 1), vec![1]].concat(), error::NO_SPACE),
            (&export, request(0, command::WRITE_ZEROES, 1, SIZE as u32), error::NO_SPACE),
            (&export, request(0, command::TRIM, u64::MAX, 2), error::INVALID),
            (&export, request(0, command::READ, 0, MAX_PAYLOAD + 1), error::INVALID),
            (&export, request(NO_HOLE, command::READ, 0, 1), error::INVALID),
            (&export, request(0, 5, 0, 1), error::INVALID),
            (&read_only, [request(0, command::WRITE, 0, 1), vec![1]].concat(), error::PERMISSION),
        ];
        for (export, refused, code) in cases {
            check(export, &[&refused, &read], &[reply(code, b""), reply(0, b"\0")]);
        }
    }

    #[test]
    fn errors_of_the_device_are_reported() {
        let (export, file) = device("disk", false);
        file.as_file().set_len(0).unwrap();
        let reported = RefCell::new(Vec::new());
        let says = request(0, command::READ, 0, 1);
        let mut client = Client { says: Cursor::new(says), hears: Vec::new() };
        transmit(&mut client, &export, |operation, error| {
            reported.borrow_mut().push((operation, error.kind()));
        })
        .unwrap();
        assert_eq!(reported.into_inner(), [(Operation::Read, ErrorKind::UnexpectedEof)]);
        assert_eq!(client.hears, reply(error::IO, b""));
    }

    #[test]
    fn what_is_no_request_ends_the_connection() {
        let (export, _file) = device("disk", false);
        for says in [vec![1; 28], request(0, command::WRITE, 0, MAX_PAYLOAD + 1)] {
            let (result, hears) = run(&export, says);
            assert_eq!(result.unwrap_err().kind(), ErrorKind::InvalidData);
            assert_eq!(hears, b"");
        }
    }
}
