// SPDX-License-Identifier: MIT OR Apache-2.0
//! Strings and numbers as QEMU writes them (`qobject/json-writer.c`).

use std::fmt::Write;

use crate::scan::plain_run;
use crate::unicode::scalar;

#[inline]
pub(super) fn write_string(text: &str, out: &mut String) {
    out.push('"');
    write_inside(text, out);
    out.push('"');
}

/// Writes a string without its quotes.
#[inline]
pub(super) fn write_inside(text: &str, out: &mut String) {
    let plain = plain_run(text.as_bytes(), b'"');
    if plain == text.len() {
        out.push_str(text);
    } else {
        write_specials(text, plain, out);
    }
}

/// Writes the inside of a string that has other than plain bytes, after its first `plain` bytes.
#[cold]
fn write_specials(mut text: &str, mut plain: usize, out: &mut String) {
    loop {
        let (run, rest) = text.split_at(plain);
        out.push_str(run);
        let mut rest = rest.chars();
        let Some(special) = rest.next() else { break };
        write_escape(special, out);
        text = rest.as_str();
        plain = plain_run(text.as_bytes(), b'"');
    }
}

fn write_escape(character: char, out: &mut String) {
    let short = match character {
        '"' => "\\\"",
        '\\' => "\\\\",
        '\u{8}' => "\\b",
        '\u{C}' => "\\f",
        '\n' => "\\n",
        '\r' => "\\r",
        '\t' => "\\t",
        _ => {
            // A Rust string may have noncharacters, which QEMU does not accept.
            let character = scalar(u32::from(character)).unwrap_or(char::REPLACEMENT_CHARACTER);
            for unit in character.encode_utf16(&mut [0; 2]) {
                write_unit(*unit, out);
            }
            return;
        }
    };
    out.push_str(short);
}

fn write_unit(unit: u16, out: &mut String) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    out.push_str("\\u");
    for shift in [12, 8, 4, 0] {
        out.push(char::from(DIGITS[usize::from(unit >> shift & 0xF)]));
    }
}

pub(super) fn write_integer(value: impl itoa::Integer, out: &mut String) {
    out.push_str(itoa::Buffer::new().format(value));
}

/// Writes like C's `%.17g`. JSON has neither infinities nor NaN: the former become the largest double of
/// their sign, the latter `null`.
pub(super) fn write_double(value: f64, out: &mut String) {
    if value.is_nan() {
        out.push_str("null");
        return;
    }
    const DIGITS: i32 = 17;
    let finite = value.clamp(f64::MIN, f64::MAX);
    // One digit, the dot, sixteen digits, `e`, the exponent; correctly rounded.
    let scientific = format!("{finite:.16e}");
    let Some((mantissa, exponent)) = scientific.split_once('e') else { return };
    let exponent: i32 = exponent.parse().unwrap_or_default();
    let (sign, mantissa) = match mantissa.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", mantissa),
    };
    let all: String = mantissa.chars().filter(|&character| character != '.').collect();
    let digits = all.trim_end_matches('0');
    out.push_str(sign);
    if digits.is_empty() {
        out.push('0');
    } else if (-4..0).contains(&exponent) {
        out.push_str("0.");
        out.extend(std::iter::repeat_n('0', (-exponent - 1) as usize));
        out.push_str(digits);
    } else if (0..DIGITS).contains(&exponent) {
        let whole = exponent as usize + 1;
        out.push_str(&all[..whole]);
        if digits.len() > whole {
            out.push('.');
            out.push_str(&digits[whole..]);
        }
    } else {
        out.push_str(&digits[..1]);
        if digits.len() > 1 {
            out.push('.');
            out.push_str(&digits[1..]);
        }
        // Writing to a string cannot fail.
        let _ = write!(out, "e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_are_written_like_in_c() {
        for (value, expected) in [
            (0.0, "0"),
            (-0.0, "-0"),
            (0.1, "0.10000000000000001"),
            (1.0, "1"),
            (100.0, "100"),
            (1.5, "1.5"),
            (-2.25, "-2.25"),
            (1e16, "10000000000000000"),
            (1e17, "1e+17"),
            (1.25e17, "1.25e+17"),
            (1e-4, "0.0001"),
            (1e-5, "1.0000000000000001e-05"),
            (1e100, "1e+100"),
            (5e-324, "4.9406564584124654e-324"),
            (f64::MAX, "1.7976931348623157e+308"),
            (f64::INFINITY, "1.7976931348623157e+308"),
            (f64::NEG_INFINITY, "-1.7976931348623157e+308"),
            (f64::NAN, "null"),
        ] {
            let mut out = String::new();
            write_double(value, &mut out);
            assert_eq!(out, expected);
        }
    }

    #[test]
    fn strings_are_ascii() {
        let mut out = String::new();
        write_string("a\"\\/\u{8}\u{C}\n\r\t\0\u{1F}\u{7F}é\u{FFFF}😀z", &mut out);
        assert_eq!(
            out,
            "\"a\\\"\\\\/\\b\\f\\n\\r\\t\\u0000\\u001F\\u007F\\u00E9\\uFFFD\\uD83D\\uDE00z\""
        );
    }
}
