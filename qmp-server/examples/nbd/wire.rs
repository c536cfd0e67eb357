// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the two phases of NBD have in common: <https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md>.
//! All numbers are big-endian.

use std::io::{self, Read};

use crate::export::Export;

/// The most that one request can carry, or ask for; what clients take for granted.
pub(crate) const MAX_PAYLOAD: u32 = 32 << 20;

// What a device can do.
const HAS_FLAGS: u16 = 1;
const READ_ONLY: u16 = 1 << 1;
const SEND_FLUSH: u16 = 1 << 2;
const SEND_FUA: u16 = 1 << 3;
const SEND_TRIM: u16 = 1 << 5;
const SEND_WRITE_ZEROES: u16 = 1 << 6;
const CAN_MULTI_CONN: u16 = 1 << 8;

pub(crate) fn transmission_flags(export: &Export) -> u16 {
    let always = HAS_FLAGS | SEND_FLUSH | SEND_FUA | CAN_MULTI_CONN;
    match export.is_read_only() {
        true => always | READ_ONLY,
        false => always | SEND_TRIM | SEND_WRITE_ZEROES,
    }
}

pub(crate) fn read_u16(from: &mut impl Read) -> io::Result<u16> {
    read_array(from).map(u16::from_be_bytes)
}

pub(crate) fn read_u32(from: &mut impl Read) -> io::Result<u32> {
    read_array(from).map(u32::from_be_bytes)
}

pub(crate) fn read_u64(from: &mut impl Read) -> io::Result<u64> {
    read_array(from).map(u64::from_be_bytes)
}

pub(crate) fn read_array<const N: usize>(from: &mut impl Read) -> io::Result<[u8; N]> {
    let mut array = [0; N];
    from.read_exact(&mut array)?;
    Ok(array)
}

/// The client does not keep to the protocol.
pub(crate) fn violation(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}
