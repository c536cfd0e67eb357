// SPDX-License-Identifier: MIT OR Apache-2.0
//! Finding the bytes in a text that need attention: most need none.

/// The number of leading bytes that stand for themselves between two `quote`s: printable ASCII, but
/// neither the quote nor a backslash.
#[inline]
pub(crate) fn plain_run(bytes: &[u8], quote: u8) -> usize {
    let mut run = 0;
    while let Some(chunk) = bytes[run..].first_chunk::<8>() {
        let special = special_bytes(u64::from_le_bytes(*chunk), quote);
        if special != 0 {
            return run + special.trailing_zeros() as usize / 8;
        }
        run += 8;
    }
    // What is left is looked at together with bytes in front of it, which are plain.
    if let Some(chunk) = bytes.last_chunk::<8>() {
        let special = special_bytes(u64::from_le_bytes(*chunk), quote);
        return bytes.len() - 8 + (special.trailing_zeros() as usize / 8).min(8);
    }
    match short_word(bytes) {
        Some(word) if special_bytes(word, quote) != 0 => {
            bytes.iter().take_while(|&&byte| is_plain(byte, quote)).count()
        }
        _ => bytes.len(),
    }
}

/// All of less than eight bytes, some of them twice; `None` if there are none.
#[inline]
fn short_word(bytes: &[u8]) -> Option<u64> {
    if let (Some(first), Some(last)) = (bytes.first_chunk(), bytes.last_chunk()) {
        let (first, last) = (u32::from_le_bytes(*first), u32::from_le_bytes(*last));
        return Some(u64::from(first) | u64::from(last) << 32);
    }
    let (first, last) = (*bytes.first()?, *bytes.last()?);
    let middle = bytes[bytes.len() / 2];
    Some(u64::from_le_bytes([first, middle, last, last, last, last, last, last]))
}

#[inline]
fn is_plain(byte: u8, quote: u8) -> bool {
    matches!(byte, b' '..=b'~') && byte != quote && byte != b'\\'
}

/// The highest bit of each byte that does not stand for itself. Only the lowest one that is set can
/// be relied on: the borrows and carries of a byte change those above it.
#[inline]
fn special_bytes(word: u64, quote: u8) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = ONES << 7;
    let equals = |byte: u8| {
        let differences = word ^ (ONES * u64::from(byte));
        differences.wrapping_sub(ONES) & !differences
    };
    let below_blank = word.wrapping_sub(ONES * 0x20);
    let above_tilde = word | word.wrapping_add(ONES);
    (below_blank | above_tilde | equals(quote) | equals(b'\\')) & HIGHS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_ends_at_the_first_special_byte_wherever_it_stands() {
        for quote in [b'"', b'\''] {
            for byte in 0..=255 {
                for before in 0..20 {
                    for filler in [b' ', b'x', b'~', b'!', b'[', b']'] {
                        let mut bytes = vec![filler; before];
                        bytes.push(byte);
                        bytes.extend([filler; 20]);
                        let expected = if is_plain(byte, quote) { before + 21 } else { before };
                        assert_eq!(
                            plain_run(&bytes, quote),
                            expected,
                            "{byte:#04x} after {before}"
                        );
                    }
                }
            }
        }
    }
}
