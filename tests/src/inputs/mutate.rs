// SPDX-License-Identifier: MIT OR Apache-2.0
//! Small changes to an input.

use super::Random;
use super::generate;

/// Bytes that mean something to the lexer.
const TELLING: &[u8] =
    b"{}[],:'\"\\ \t\r\n\0\x1F\x7F\x80\xBF\xC0\xC3\xE2\xED\xF0\xF5\xFE\xFF-+.0123456789eEutfnrx@%";

/// Changes `input` in one place; `other` may lend a part.
pub(super) fn mutate(input: &mut Vec<u8>, other: &[u8], random: &mut Random) {
    let at = random.below(input.len() + 1);
    let end = at + random.few(8).min(input.len() - at);
    match random.below(9) {
        0 => drop(input.drain(at..end)),
        1 => input.insert(at, random.pick(TELLING)),
        2 => input.insert(at, random.byte()),
        3 => {
            if let Some(byte) = input.get_mut(at) {
                *byte = random.pick(TELLING);
            }
        }
        4 => {
            if let Some(byte) = input.get_mut(at) {
                *byte ^= 1 << random.below(8);
            }
        }
        5 => {
            let again = input[at..end].to_vec();
            input.splice(end..end, again);
        }
        6 => drop(input.splice(at..end, generate::token(random))),
        7 => input.truncate(at),
        _ => {
            let from = random.below(other.len() + 1);
            let until = from + random.below((other.len() - from).min(20) + 1);
            input.splice(at..end, other[from..until].iter().copied());
        }
    }
}
