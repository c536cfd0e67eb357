// SPDX-License-Identifier: MIT OR Apache-2.0
//! Compares the answers of a server with the predicted ones.

use std::borrow::Cow;

use qmp_proto::Band;

use super::model::Answer;

const TRIES: usize = 3;

/// Returns what `compare` finds, if it finds something every time.
///
/// QEMU may close a connection that is made right after another has ended, or send it what was meant for that one.
pub(super) fn every_time(
    compare: impl Fn() -> Result<Option<String>, String>,
) -> Result<Option<String>, String> {
    let mut found = compare();
    for _ in 1..TRIES {
        if matches!(found, Ok(None)) {
            break;
        }
        found = compare();
    }
    found
}

/// Why `lines` cannot be the `expected` answers: those of each band in their order, merged in any way.
pub(super) fn mismatch(expected: &[Answer], lines: &[String]) -> Option<String> {
    let band = |band| {
        expected.iter().filter(move |answer| answer.band == band).map(|answer| answer.line.as_str())
    };
    let in_band: Vec<&str> = band(Band::InBand).collect();
    let out_of_band: Vec<&str> = band(Band::OutOfBand).collect();
    // The numbers of in-band answers that may have come so far. There is more than one where the same line is the next one
    // of either band.
    let mut came = vec![0];
    for (index, line) in lines.iter().enumerate() {
        let line = without_infinity(line);
        let mut next = Vec::new();
        for &count in &came {
            if in_band.get(count) == Some(&&*line) {
                next.push(count + 1);
            }
            if out_of_band.get(index - count) == Some(&&*line) {
                next.push(count);
            }
        }
        next.sort_unstable();
        next.dedup();
        if next.is_empty() {
            let foretold = came
                .first()
                .and_then(|&count| in_band.get(count).or(out_of_band.get(index - count)));
            return Some(format!(
                "answer {}:\n  foretold {:?}\n  came     {line:?}",
                index + 1,
                foretold.unwrap_or(&"none")
            ));
        }
        came = next;
    }
    (lines.len() != expected.len())
        .then(|| format!("{} answers foretold, {} came", expected.len(), lines.len()))
}

/// The line as we write it: QEMU prints infinite numbers, which JSON has not, as `inf`.
pub(super) fn without_infinity(line: &str) -> Cow<'_, str> {
    if !line.contains("inf") {
        return line.into();
    }
    let mut text = String::new();
    let (mut in_string, mut escaped) = (false, false);
    let mut rest = line.chars();
    loop {
        if !in_string && let Some(behind) = rest.as_str().strip_prefix("inf") {
            text.push_str("1.7976931348623157e+308");
            rest = behind.chars();
        }
        let Some(character) = rest.next() else { break };
        text.push(character);
        in_string ^= character == '"' && !escaped;
        escaped = character == '\\' && !escaped;
    }
    text.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(expected: &[(Band, &str)], lines: &[&str], matches: bool) {
        let expected: Vec<Answer> =
            expected.iter().map(|&(band, line)| Answer { band, line: line.to_owned() }).collect();
        let lines: Vec<String> = lines.iter().map(ToString::to_string).collect();
        assert_eq!(mismatch(&expected, &lines).is_none(), matches, "{lines:?}");
    }

    #[test]
    fn only_the_bands_keep_their_order() {
        let expected = [
            (Band::InBand, "a"),
            (Band::OutOfBand, "x"),
            (Band::InBand, "b"),
            (Band::OutOfBand, "a"),
        ];
        check(&expected, &["a", "x", "b", "a"], true);
        check(&expected, &["x", "a", "a", "b"], true);
        check(&expected, &["a", "b", "x", "a"], true);
        check(&expected, &["b", "a", "x", "a"], false);
        check(&expected, &["a", "a", "x", "b"], false);
        check(&expected, &["a", "x", "b"], false);
        check(&expected, &["a", "x", "b", "a", "a"], false);
    }

    #[test]
    fn infinite_numbers_are_as_we_write_them() {
        assert_eq!(
            without_infinity(r#"{"id": [inf, -inf, null, "inf \" inf"]}"#),
            r#"{"id": [1.7976931348623157e+308, -1.7976931348623157e+308, null, "inf \" inf"]}"#
        );
    }
}
