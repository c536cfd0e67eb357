// SPDX-License-Identifier: MIT OR Apache-2.0
//! Modified UTF-8 as QEMU reads it: NUL may be written `C0 80`, noncharacters are refused.

/// Whether `code` is a Unicode scalar value that QEMU accepts in a string.
pub(crate) fn scalar(code: u32) -> Option<char> {
    let noncharacter = (0xFDD0..=0xFDEF).contains(&code) || code & 0xFFFE == 0xFFFE;
    if noncharacter { None } else { char::from_u32(code) }
}

/// Decodes the sequence that starts at `bytes[0]`: the character, `None` if the sequence is
/// invalid, and its length. An invalid sequence is a lead byte with the continuation bytes that
/// follow it, as many as it announces at most, or a single stray byte.
///
/// Panics if `bytes` is empty.
pub(crate) fn decode(bytes: &[u8]) -> (Option<char>, usize) {
    const SMALLEST: [u32; 5] = [0x80, 0x800, 0x1_0000, 0x20_0000, 0x400_0000];
    let lead = bytes[0];
    if lead < 0x80 {
        return (Some(char::from(lead)), 1);
    }
    let announced = lead.leading_ones() as usize;
    if announced == 1 || announced > 6 {
        return (None, 1);
    }
    let mut code = u32::from(lead) & (0x7F >> announced);
    for at in 1..announced {
        match bytes.get(at) {
            Some(byte) if byte & 0xC0 == 0x80 => code = code << 6 | u32::from(byte & 0x3F),
            _ => return (None, at),
        }
    }
    let overlong = code < SMALLEST[announced - 2] && !(code == 0 && announced == 2);
    let decoded = if overlong { None } else { scalar(code) };
    (decoded, announced)
}

/// The text of `bytes`, each invalid sequence replaced by one U+FFFD, as QEMU prints raw input in
/// its error descriptions.
pub(crate) fn decode_lossy(mut bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    while !bytes.is_empty() {
        let (decoded, len) = decode(bytes);
        text.push(decoded.unwrap_or(char::REPLACEMENT_CHARACTER));
        bytes = &bytes[len..];
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(bytes: &[u8], expected: &str) {
        assert_eq!(decode_lossy(bytes), expected, "{bytes:02X?}");
    }

    #[test]
    fn well_formed_text_is_kept() {
        check("aé€😀\u{7F}".as_bytes(), "aé€😀\u{7F}");
    }

    #[test]
    fn nul_may_be_written_in_two_bytes() {
        check(b"\xC0\x80", "\0");
    }

    #[test]
    fn each_invalid_sequence_becomes_one_replacement_character() {
        check(b"\x80", "\u{FFFD}");
        check(b"\x80\x80", "\u{FFFD}\u{FFFD}");
        check(b"\xC3", "\u{FFFD}");
        check(b"\xC3a", "\u{FFFD}a");
        check(b"\xE2\x82", "\u{FFFD}");
        check(b"\xE2\x82\xC3\xA9", "\u{FFFD}é");
        check(b"\xC1\xBF", "\u{FFFD}");
        check(b"\xED\xA0\x80", "\u{FFFD}");
        check(b"\xEF\xB7\x90", "\u{FFFD}");
        check(b"\xF4\x90\x80\x80", "\u{FFFD}");
        check(b"\xFC\x84\x80\x80\x80\x80x", "\u{FFFD}x");
        check(b"\xFE\xFF", "\u{FFFD}\u{FFFD}");
    }
}
