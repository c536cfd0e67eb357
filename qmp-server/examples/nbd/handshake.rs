// SPDX-License-Identifier: MIT OR Apache-2.0
//! The first phase of NBD, fixed newstyle: the client says which device it wants.

use std::io::{self, Read, Write};

use crate::back_end::BackEnd;
use crate::export::Export;
use crate::wire::{MAX_PAYLOAD, read_u16, read_u32, read_u64, transmission_flags, violation};

const GREETING: &[u8; 8] = b"NBDMAGIC";
const OPTION_MAGIC: u64 = u64::from_be_bytes(*b"IHAVEOPT");
const REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;

const FIXED_NEWSTYLE: u16 = 1;
const NO_ZEROES: u16 = 1 << 1;

/// Longer than any option that there is: names have 4096 bytes at most.
const MAX_OPTION: u32 = 1 << 14;

mod option {
    pub(super) const EXPORT_NAME: u32 = 1;
    pub(super) const ABORT: u32 = 2;
    pub(super) const LIST: u32 = 3;
    pub(super) const INFO: u32 = 6;
    pub(super) const GO: u32 = 7;
}

mod reply {
    pub(super) const ACK: u32 = 1;
    pub(super) const SERVER: u32 = 2;
    pub(super) const INFO: u32 = 3;
    pub(super) const UNSUPPORTED: u32 = (1 << 31) + 1;
    pub(super) const INVALID: u32 = (1 << 31) + 3;
    pub(super) const UNKNOWN: u32 = (1 << 31) + 6;
}

mod info {
    pub(super) const EXPORT: u16 = 0;
    pub(super) const BLOCK_SIZE: u16 = 3;
}

/// Negotiates until the client has chosen a device; `None` if it does not want any.
pub(crate) fn negotiate<'b>(
    stream: &mut (impl Read + Write),
    back_end: &'b BackEnd,
) -> io::Result<Option<&'b Export>> {
    let mut greeting = GREETING.to_vec();
    greeting.extend(OPTION_MAGIC.to_be_bytes());
    greeting.extend((FIXED_NEWSTYLE | NO_ZEROES).to_be_bytes());
    stream.write_all(&greeting)?;
    let flags = read_u32(stream)?;
    if flags & !u32::from(FIXED_NEWSTYLE | NO_ZEROES) != 0 {
        return Err(violation(format!("unknown flags {flags:#x}")));
    }
    let padding = if flags & u32::from(NO_ZEROES) == 0 { 124 } else { 0 };
    loop {
        let (option, data) = read_option(stream)?;
        match option {
            option::EXPORT_NAME => {
                // This option has no way to say no but to disconnect.
                let name = String::from_utf8_lossy(&data);
                let no_device = || violation(format!("there is no device '{name}'"));
                let export = back_end.find(&name).ok_or_else(no_device)?;
                let mut answer = described(export);
                answer.resize(answer.len() + padding, 0);
                stream.write_all(&answer)?;
                return Ok(Some(export));
            }
            option::ABORT => {
                answer(stream, option, reply::ACK, &[])?;
                return Ok(None);
            }
            option::LIST if data.is_empty() => list(stream, back_end)?,
            option::INFO | option::GO => match requested_name(&data) {
                Some(name) => match back_end.find(&name) {
                    Some(export) => {
                        inform(stream, option, export)?;
                        if option == option::GO {
                            return Ok(Some(export));
                        }
                    }
                    None => answer(stream, option, reply::UNKNOWN, &[])?,
                },
                None => answer(stream, option, reply::INVALID, &[])?,
            },
            option::LIST => answer(stream, option, reply::INVALID, &[])?,
            _ => answer(stream, option, reply::UNSUPPORTED, &[])?,
        }
    }
}

fn read_option(stream: &mut impl Read) -> io::Result<(u32, Vec<u8>)> {
    if read_u64(stream)? != OPTION_MAGIC {
        return Err(violation("this is no option".to_owned()));
    }
    let option = read_u32(stream)?;
    let length = read_u32(stream)?;
    if length > MAX_OPTION {
        return Err(violation(format!("an option of {length} bytes")));
    }
    let mut data = vec![0; length as usize];
    stream.read_exact(&mut data)?;
    Ok((option, data))
}

fn list(stream: &mut impl Write, back_end: &BackEnd) -> io::Result<()> {
    for export in back_end.exports() {
        let name = export.name().as_bytes();
        let mut data = (name.len() as u32).to_be_bytes().to_vec();
        data.extend(name);
        answer(stream, option::LIST, reply::SERVER, &data)?;
    }
    answer(stream, option::LIST, reply::ACK, &[])
}

/// The name in an option that asks for a device. What else the client wants to be told of it does not
/// matter: it is told everything.
fn requested_name(mut data: &[u8]) -> Option<String> {
    let length = read_u32(&mut data).ok()? as usize;
    let (name, mut rest) = data.split_at_checked(length)?;
    let requests = read_u16(&mut rest).ok()?;
    (rest.len() == 2 * usize::from(requests)).then_some(())?;
    String::from_utf8(name.to_vec()).ok()
}

fn inform(stream: &mut impl Write, option: u32, export: &Export) -> io::Result<()> {
    let mut data = info::EXPORT.to_be_bytes().to_vec();
    data.extend(described(export));
    answer(stream, option, reply::INFO, &data)?;
    let mut data = info::BLOCK_SIZE.to_be_bytes().to_vec();
    let (minimum, preferred) = (1_u32, 4096_u32);
    data.extend([minimum, preferred, MAX_PAYLOAD].into_iter().flat_map(u32::to_be_bytes));
    answer(stream, option, reply::INFO, &data)?;
    answer(stream, option, reply::ACK, &[])
}

fn described(export: &Export) -> Vec<u8> {
    let mut data = export.size().to_be_bytes().to_vec();
    data.extend(transmission_flags(export).to_be_bytes());
    data
}

fn answer(stream: &mut impl Write, option: u32, reply: u32, data: &[u8]) -> io::Result<()> {
    let mut answer = REPLY_MAGIC.to_be_bytes().to_vec();
    answer.extend([option, reply, data.len() as u32].into_iter().flat_map(u32::to_be_bytes));
    answer.extend(data);
    stream.write_all(&answer)
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::net::Shutdown;
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::export::tests::{SIZE, device};

    fn option(option: u32, data: &[u8]) -> Vec<u8> {
        let mut text = OPTION_MAGIC.to_be_bytes().to_vec();
        text.extend([option, data.len() as u32].into_iter().flat_map(u32::to_be_bytes));
        text.extend(data);
        text
    }

    fn wanting(name: &[u8]) -> Vec<u8> {
        let length = name.len() as u32;
        [&length.to_be_bytes(), name, &[0, 1, 0, 3]].concat()
    }

    fn replied(option: u32, reply: u32, data: &[u8]) -> Vec<u8> {
        let mut text = Vec::new();
        answer(&mut text, option, reply, data).unwrap();
        text
    }

    /// What becomes of a client that has said this: the device that it has got, and what it has been
    /// told after the greeting.
    fn run(flags: u16, options: &[Vec<u8>]) -> io::Result<(Option<String>, Vec<u8>)> {
        let exports = [device("one", false), device("two", true)].map(|(export, _)| export);
        let back_end = BackEnd::new(exports.into());
        let (mut client, mut server) = UnixStream::pair()?;
        client.write_all(&u32::from(flags).to_be_bytes())?;
        client.write_all(&options.concat())?;
        client.shutdown(Shutdown::Write)?;
        let export = negotiate(&mut server, &back_end)?;
        let name = export.map(|export| export.name().to_owned());
        server.shutdown(Shutdown::Write)?;
        let mut told = Vec::new();
        client.read_to_end(&mut told)?;
        let greeting = [&b"NBDMAGICIHAVEOPT"[..], &[0, 3]].concat();
        Ok((name, told.strip_prefix(&*greeting).expect("a greeting").to_vec()))
    }

    #[test]
    fn devices_are_listed_looked_at_and_chosen() {
        let said = [
            option(option::LIST, &[]),
            option(option::INFO, &wanting(b"two")),
            option(option::GO, &wanting(b"one")),
        ];
        let about = |option: u32, flags: u16| {
            let export = [&[0, 0], &SIZE.to_be_bytes()[..], &flags.to_be_bytes()].concat();
            let block_size = [0, 3, 0, 0, 0, 1, 0, 0, 16, 0, 2, 0, 0, 0];
            let informed = [&*export, &block_size].map(|data| replied(option, reply::INFO, data));
            [informed.concat(), replied(option, reply::ACK, &[])].concat()
        };
        let told = [
            replied(option::LIST, reply::SERVER, b"\0\0\0\x03one"),
            replied(option::LIST, reply::SERVER, b"\0\0\0\x03two"),
            replied(option::LIST, reply::ACK, &[]),
            about(option::INFO, 0b1_0000_1111),
            about(option::GO, 0b1_0110_1101),
        ];
        assert_eq!(run(3, &said).unwrap(), (Some("one".to_owned()), told.concat()));
    }

    #[test]
    fn old_clients_get_a_device_as_they_know_it() {
        for (flags, padding) in [(3, 0), (1, 124)] {
            let (name, told) = run(flags, &[option(option::EXPORT_NAME, b"two")]).unwrap();
            assert_eq!((name.as_deref(), told.len()), (Some("two"), 10 + padding));
        }
    }

    #[test]
    fn what_is_refused_is_no_harm() {
        let refused = [
            (8, vec![], reply::UNSUPPORTED),
            (option::LIST, vec![1], reply::INVALID),
            (option::GO, wanting(b"three"), reply::UNKNOWN),
            (option::GO, wanting(b"one")[..6].to_vec(), reply::INVALID),
            (option::INFO, [255; 4].to_vec(), reply::INVALID),
        ];
        for (number, data, reply) in refused {
            let said = [option(number, &data), option(option::ABORT, &[])];
            let told = [replied(number, reply, &[]), replied(option::ABORT, reply::ACK, &[])];
            assert_eq!(run(3, &said).unwrap(), (None, told.concat()), "option {number}");
        }
    }

    #[test]
    fn who_does_not_keep_to_the_protocol_is_disconnected() {
        let [mut nonsense, mut endless] = [option(1, b""), option(option::GO, b"")];
        nonsense[0] = 0;
        endless[12..16].fill(255);
        for (flags, said) in [(3, nonsense), (3, endless), (4, option(option::EXPORT_NAME, b"one"))]
        {
            assert_eq!(run(flags, &[said]).unwrap_err().kind(), ErrorKind::InvalidData);
        }
        let gone = run(3, &[option(option::EXPORT_NAME, b"three")]).unwrap_err();
        assert_eq!(gone.to_string(), "there is no device 'three'");
    }
}
