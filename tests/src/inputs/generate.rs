// SPDX-License-Identifier: MIT OR Apache-2.0
//! Inputs built from the grammar and the protocol: mostly right, so that what is wrong stands alone.

use super::Random;

/// Commands that no server has, or that are refused for their arguments whatever these are.
const COMMANDS: &[&str] =
    &["x", "no-such", "QMP_CAPABILITIES", "qmp-capabilities", "nul\\u0000l", "\\u00e9", ""];

const NUMBERS: &[&str] = &[
    "0",
    "-0",
    "1",
    "-1",
    "0.0",
    "-0.0",
    "0.1",
    "1e0",
    "1E5",
    "-1e-5",
    "1e16",
    "1e17",
    "123456789012345678",
    "9223372036854775807",
    "9223372036854775808",
    "-9223372036854775808",
    "-9223372036854775809",
    "18446744073709551615",
    "18446744073709551616",
    "1e308",
    "1.7976931348623157e308",
    "1.7976931348623159e308",
    "1e400",
    "-1e400",
    "4.9e-324",
    "2e-324",
    "1e-400",
    "0.30000000000000004",
    "2.5e-5",
    "9007199254740993",
    "9007199254740993.0",
    "0.1e1",
    "00",
    "01",
    "-01",
    "0e5",
    "-",
    "-a",
    "1.",
    "1.e",
    "1e",
    "1e+",
    ".5",
    "+1",
    "0x1",
    "1.5.5",
    "1-1",
    "1e5e5",
    "1_000",
    "NaN",
    "Infinity",
];

const WORDS: &[&str] =
    &["true", "false", "null", "nul", "truee", "True", "e", "inf", "nan", "a_b", "abc1"];

const BLANKS: &[&str] = &["", "", "", " ", " ", "\n", "\t", "\r\n", "  ", "\r"];

/// One in a hundred is none that JSON allows.
const STRAYS: &[&str] =
    &["\x0B", "\x0C", "\0", "\u{A0}", "\u{FEFF}", "\x7F", "@", "%", "/", "#", "\\"];

/// Pieces of strings between quotes.
const ESCAPES: &[&str] = &[
    "\\b",
    "\\f",
    "\\n",
    "\\r",
    "\\t",
    "\\\"",
    "\\'",
    "\\\\",
    "\\/",
    "\\u0041",
    "\\u0000",
    "\\u00e9",
    "\\u20AC",
    "\\uFFFD",
    "\\ud83d\\ude00",
    "\\uD800\\uDC00",
    "\\uDBFF\\uDFFD",
    "\\u001f",
    "\\u007F",
    "\\uFEFF",
];

const BAD_ESCAPES: &[&str] = &[
    "\\x",
    "\\a",
    "\\0",
    "\\u",
    "\\u1",
    "\\u12",
    "\\u123",
    "\\u12G4",
    "\\u 123",
    "\\u+123",
    "\\uD800",
    "\\uDC00",
    "\\uD800\\u0041",
    "\\uD800x",
    "\\uD800\\n",
    "\\uD800\\uD800",
    "\\uD800\\u",
    "\\uD800\\uDC0",
    "\\uDC00\\uD800",
    "\\uFFFE",
    "\\uFFFF",
    "\\uFDD0",
    "\\uFDEF",
    "\\uD83F\\uDFFE",
    "\\uD83F\\uDFFF",
    "\\\u{e9}",
    "\\ ",
    "\\U0041",
];

const TEXT: &[&[u8]] = &[
    b"a",
    b"b",
    b"abc",
    b" ",
    b"{",
    b"]",
    b":",
    b",",
    b"\x7F",
    "é".as_bytes(),
    "€".as_bytes(),
    "😀".as_bytes(),
    "\u{FFFD}".as_bytes(),
    "\u{10FFFD}".as_bytes(),
    "\u{D7FF}".as_bytes(),
    "\u{E000}".as_bytes(),
    b"\xC0\x80",
];

const BAD_TEXT: &[&[u8]] = &[
    b"\x80",
    b"\xBF",
    b"\xC0",
    b"\xC0\x81",
    b"\xC1\xBF",
    b"\xC3",
    b"\xE0\x80\x80",
    b"\xE2\x82",
    b"\xE2",
    b"\xED\xA0\x80",
    b"\xED\xBF\xBF",
    b"\xEF\xBF\xBE",
    b"\xEF\xBF\xBF",
    b"\xEF\xB7\x90",
    b"\xF0\x80\x80\x80",
    b"\xF0\x9F\xBF\xBE",
    b"\xF0\x9F\x98",
    b"\xF4\x90\x80\x80",
    b"\xF5\x80\x80\x80",
    b"\xF8\x88\x80\x80\x80",
    b"\xFC\x84\x80\x80\x80\x80",
    b"\xFD\xBF\xBF\xBF\xBF\xBF",
    b"\xFC\x80",
    b"\t",
    b"\n",
    b"\0",
    b"\x1F",
    b"\xFE",
    b"\xFF",
];

/// A request, or something close to one.
pub(super) fn request(random: &mut Random) -> Vec<u8> {
    let mut members = Vec::new();
    if !random.one_in(30) {
        members.push(execute(random, "execute"));
    }
    if random.one_in(6) {
        members.push(execute(random, "exec-oob"));
        if !random.one_in(3) {
            members.swap_remove(0);
        }
    }
    if random.one_in(3) {
        let name = spelling(random, "arguments");
        members.push((name, if random.one_in(3) { value(random, 2) } else { object(random, 2) }));
    }
    if !random.one_in(4) {
        members.push((spelling(random, "id"), value(random, 3)));
    }
    while random.one_in(10) {
        members.push((string(random), value(random, 2)));
    }
    for from in 0..members.len() {
        let to = from + random.below(members.len() - from);
        members.swap(from, to);
    }
    let mut text = braces(random, members);
    if random.one_in(3) {
        text.extend_from_slice(random.pick(BLANKS).as_bytes());
    }
    if random.one_in(12) {
        text.extend(request(random));
    }
    text
}

fn execute(random: &mut Random, name: &str) -> (Vec<u8>, Vec<u8>) {
    let command = match random.below(16) {
        0 => value(random, 1),
        1 => string(random),
        2..6 => quoted(random, b"qmp_capabilities"),
        6 => quoted(random, b"query-version"),
        _ => {
            let command = random.pick(COMMANDS).as_bytes();
            quoted(random, command)
        }
    };
    (spelling(random, name), command)
}

/// The name, now and then with a character written as an escape sequence.
fn spelling(random: &mut Random, name: &str) -> Vec<u8> {
    let mut text = name.as_bytes().to_vec();
    if random.one_in(20) {
        let at = random.below(text.len());
        let escape = format!("\\u{:04x}", text[at]);
        text.splice(at..=at, escape.into_bytes());
    }
    quoted(random, &text)
}

/// A value, alone at top level.
pub(super) fn message(random: &mut Random) -> Vec<u8> {
    let mut text = value(random, 4);
    text.extend_from_slice(random.pick(BLANKS).as_bytes());
    text
}

/// Tokens without grammar.
pub(super) fn tokens(random: &mut Random) -> Vec<u8> {
    (0..=random.below(8)).flat_map(|_| token(random)).collect()
}

/// A token, or a piece of one, perhaps with white space around it.
pub(super) fn token(random: &mut Random) -> Vec<u8> {
    let mut text = match random.below(12) {
        0..5 => vec![random.pick(b"{}[],:")],
        5..7 => string(random),
        7..9 => random.pick(NUMBERS).as_bytes().to_vec(),
        9 => random.pick(WORDS).as_bytes().to_vec(),
        10 => random.pick(STRAYS).as_bytes().to_vec(),
        _ => random.pick(BAD_TEXT).to_vec(),
    };
    text.extend_from_slice(random.pick(BLANKS).as_bytes());
    text
}

fn value(random: &mut Random, depth: usize) -> Vec<u8> {
    match random.below(if depth == 0 { 8 } else { 12 }) {
        0..3 => number(random),
        3..6 => string(random),
        6 if random.one_in(8) => random.pick(WORDS).as_bytes().to_vec(),
        6 | 7 => random.pick(&WORDS[..3]).as_bytes().to_vec(),
        8..10 => array(random, depth - 1),
        _ => object(random, depth - 1),
    }
}

fn number(random: &mut Random) -> Vec<u8> {
    let text = match random.below(8) {
        0 => random.pick(NUMBERS).to_owned(),
        1 => (random.number() >> random.below(64)).cast_signed().to_string(),
        2 => random.number().to_string(),
        3 => {
            f64::from_bits(random.number()).to_string().replace("NaN", "0").replace("inf", "1e999")
        }
        4 => format!("{:e}", f64::from_bits(random.number()))
            .replace("NaN", "0")
            .replace("inf", "1e999"),
        5 => format!("{}.{}", random.below(1000), random.below(100_000)),
        6 => format!("{}e{}", random.below(100_000), random.below(40).cast_signed() - 20),
        _ => random.below(100).to_string(),
    };
    text.into_bytes()
}

fn array(random: &mut Random, depth: usize) -> Vec<u8> {
    let elements = (0..random.few(6)).map(|_| value(random, depth)).collect();
    brackets(random, elements)
}

fn brackets(random: &mut Random, elements: Vec<Vec<u8>>) -> Vec<u8> {
    let mut text = b"[".to_vec();
    for (index, element) in elements.into_iter().enumerate() {
        if index > 0 {
            punctuate(random, &mut text, b',');
        }
        text.extend(element);
    }
    close(random, &mut text, b"]")
}

fn object(random: &mut Random, depth: usize) -> Vec<u8> {
    // Many short names fall into the same buckets of QEMU's hash table.
    let count = if random.one_in(40) { random.below(40) } else { random.few(6) };
    let members = (0..count).map(|_| (name(random), value(random, depth.min(1)))).collect();
    braces(random, members)
}

fn name(random: &mut Random) -> Vec<u8> {
    match random.below(8) {
        0 => string(random),
        1 => quoted(random, b"enable"),
        2 => quoted(random, b"execute"),
        _ => {
            let letters: Vec<u8> =
                (0..random.below(5)).map(|_| random.pick(b"abcdeXYZ019-_")).collect();
            quoted(random, &letters)
        }
    }
}

fn braces(random: &mut Random, members: Vec<(Vec<u8>, Vec<u8>)>) -> Vec<u8> {
    let mut text = b"{".to_vec();
    for (index, (name, value)) in members.into_iter().enumerate() {
        if index > 0 {
            punctuate(random, &mut text, b',');
        }
        text.extend(name);
        punctuate(random, &mut text, b':');
        text.extend(value);
    }
    close(random, &mut text, b"}")
}

/// Appends a comma or colon; hardly ever none, or something else.
fn punctuate(random: &mut Random, text: &mut Vec<u8>, mark: u8) {
    if random.one_in(10) {
        text.extend_from_slice(random.pick(BLANKS).as_bytes());
    }
    match random.below(150) {
        0 => {}
        1 => text.extend_from_slice(&[mark, mark]),
        2 => text.extend(token(random)),
        _ => text.push(mark),
    }
    text.extend_from_slice(random.pick(BLANKS).as_bytes());
}

fn close(random: &mut Random, text: &mut Vec<u8>, closer: &[u8]) -> Vec<u8> {
    match random.below(150) {
        0 => text.push(b','),
        1 => text.extend(token(random)),
        _ => {}
    }
    text.extend_from_slice(if random.one_in(150) { b"" } else { closer });
    std::mem::take(text)
}

fn string(random: &mut Random) -> Vec<u8> {
    let mut text = Vec::new();
    for _ in 0..random.few(8) {
        match random.below(60) {
            0 => text.extend_from_slice(random.pick(BAD_ESCAPES).as_bytes()),
            1 => text.extend_from_slice(random.pick(BAD_TEXT)),
            2..16 => text.extend_from_slice(random.pick(ESCAPES).as_bytes()),
            16 => {
                let scalar = char::from_u32(random.below(0x11_0000) as u32).unwrap_or('?');
                text.extend_from_slice(scalar.encode_utf8(&mut [0; 4]).as_bytes());
            }
            17 => text.extend(format!("\\u{:04X}", random.below(0x1_0000)).into_bytes()),
            _ => text.extend_from_slice(random.pick(TEXT)),
        }
    }
    quoted(random, &text)
}

/// In quotes of either kind, hardly ever without the last one.
fn quoted(random: &mut Random, text: &[u8]) -> Vec<u8> {
    let quote = random.pick(b"\"\"'");
    let mut quoted = vec![quote];
    quoted.extend_from_slice(text);
    if !random.one_in(300) {
        quoted.push(quote);
    }
    quoted
}
