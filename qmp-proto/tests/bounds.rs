// SPDX-License-Identifier: MIT OR Apache-2.0
//! What input of any size may cost, at QEMU's limits.

use std::time::{Duration, Instant};

use qmp_proto::{Json, Limits, Message, Object, Reader, Request, SyntaxError, Value, from_value};

const MIB: u64 = 1 << 20;
/// As a server gets its input.
const PIECE: usize = 64 << 10;
/// No single step takes longer, not even unoptimised on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

/// Feeds `text` `count` times. What came of it, and the most memory that was allocated meanwhile.
fn feed<T>(
    reader: &mut Reader,
    text: &str,
    count: usize,
    mut look: impl FnMut(Result<Message<'_>, SyntaxError>) -> T,
) -> (Vec<T>, u64) {
    let started = Instant::now();
    let per_piece = (PIECE / text.len()).max(1);
    let piece = text.repeat(per_piece.min(count));
    let mut seen = Vec::new();
    let allocated = allocation_counter::measure(|| {
        let mut left = count;
        while left > 0 {
            let now = left.min(per_piece);
            let mut input = &piece.as_bytes()[..now * text.len()];
            while let Some(message) = reader.read(&mut input) {
                seen.push(look(message));
            }
            left -= now;
        }
    });
    assert!(started.elapsed() < LIMIT, "{:?}", started.elapsed());
    (seen, allocated.bytes_max)
}

fn outcome(message: Result<Message<'_>, SyntaxError>) -> Result<(), SyntaxError> {
    message?.to_value().map(drop)
}

/// Feeds `parts`, and holds against the outcomes and the memory that is allowed for all of them.
#[track_caller]
fn check(parts: &[(&str, usize)], expected: &[Result<(), SyntaxError>], most: u64) {
    let mut reader = Reader::default();
    let mut all = Vec::new();
    for &(text, count) in parts {
        let (seen, allocated) = feed(&mut reader, text, count, outcome);
        assert!(allocated <= most, "{allocated} bytes");
        all.extend(seen);
    }
    assert_eq!(all, expected);
    assert_eq!(feed(&mut reader, "{}", 1, outcome).0, [Ok(())], "usable");
    let kept = allocation_counter::measure(|| drop(reader));
    assert!(kept.bytes_current.unsigned_abs() <= 512 << 10, "{} bytes kept", kept.bytes_current);
}

#[test]
fn a_token_of_64_mib() {
    let limit = [Err(SyntaxError::TokenSizeLimit)];
    check(&[("\"", 1), ("a", (64 << 20) - 2), ("\"", 1)], &limit, 130 * MIB);
    check(&[("\"", 1), ("a", 64 << 20)], &limit, 130 * MIB);
    check(&[("1", (64 << 20) + 1)], &limit, 130 * MIB);
}

#[test]
fn a_string_that_never_ends() {
    // What follows the first 64 MiB is read afresh, as a word, which is too long, too.
    check(
        &[("[\"", 1), ("a", 64 << 20), ("a", 64 << 20), ("\u{1}", 1)],
        &[
            Err(SyntaxError::TokenSizeLimit),
            Err(SyntaxError::TokenSizeLimit),
            Err(SyntaxError::Stray("\u{1}".to_owned())),
        ],
        130 * MIB,
    );
}

#[test]
fn ten_mib_of_open_brackets() {
    let errors = (10 << 20) / 1025;
    let expected = vec![Err(SyntaxError::NestingLimit); errors];
    check(&[("[", errors * 1025)], &expected, 2 * MIB);
}

#[test]
fn two_mi_tokens_and_one_more() {
    check(&[("[", 1), ("1,", (1 << 20) - 2), ("1]", 1)], &[Ok(())], 150 * MIB);
    let limit = Err(SyntaxError::TokenCountLimit);
    check(&[("[", 1), (",", (2 << 20) - 1), ("]", 1)], &[limit], 150 * MIB);
}

#[test]
fn white_space_is_not_kept() {
    check(
        &[(" ", 10 << 20), ("[1", 1), (" \n", 5 << 20), (",", 1), ("\t", 10 << 20), ("2]", 1)],
        &[Ok(())],
        MIB,
    );
    check(
        &[("@", 1), ("rubbish ", 1 << 20), ("\n", 1)],
        &[Err(SyntaxError::Stray("@".to_owned()))],
        MIB,
    );
}

#[test]
fn white_space_in_single_bytes_is_not_kept() {
    let mut reader = Reader::default();
    let allocated = allocation_counter::measure(|| {
        for byte in std::iter::once(&b'[').chain([b' '; 100_000].iter()) {
            assert!(reader.read(&mut std::slice::from_ref(byte)).is_none());
        }
    });
    assert!(allocated.bytes_max < 1000, "{} bytes", allocated.bytes_max);
}

#[test]
fn objects_of_very_many_members() {
    for same_bucket in [false, true] {
        // A weight of 0 for the bytes at these places puts names of one length into one bucket.
        let name = |index: usize| match same_bucket {
            false => format!("{index}"),
            true => format!("aa{}", {
                let digit = |place: u32| char::from(b'a' + (index / 26usize.pow(place) % 26) as u8);
                format!("{}{}{}aaaaa", digit(0), digit(1), digit(2))
            }),
        };
        let count = if same_bucket { 17_000 } else { 300_000 };
        let members: Vec<String> = (0..count).map(|index| format!("'{}':0", name(index))).collect();
        let started = Instant::now();
        let text = format!("{{'execute':'x','arguments':{{{}}}}}", members.join(","));
        let mut reader = Reader::default();
        let message = reader.read(&mut text.as_bytes()).unwrap().unwrap();
        let arguments = Request::parse(&message, false).unwrap().arguments;
        assert_eq!(arguments.len(), count);
        let copy: Object = arguments.iter().map(|(name, value)| (name, value.clone())).collect();
        let value = Value::from(copy.clone());
        assert_eq!(from_value::<Value>(value.clone()), Ok(value.clone()));
        assert_eq!(copy, arguments);
        assert!(value.to_string().len() > count * 4);
        assert!(started.elapsed() < LIMIT, "{:?}", started.elapsed());

        let text = format!("{{{},'{}':1}}", members.join(","), name(count - 1));
        let message = reader.read(&mut text.as_bytes()).unwrap().unwrap();
        assert_eq!(message.to_value(), Err(SyntaxError::DuplicateKey));
    }
}

#[test]
fn a_token_in_single_bytes() {
    let started = Instant::now();
    let mut reader = Reader::default();
    let mut outcomes = Vec::new();
    for byte in std::iter::once(&b'"').chain(vec![b'a'; 1 << 20].iter()).chain(b"\"") {
        outcomes.extend(reader.read(&mut std::slice::from_ref(byte)).map(outcome));
    }
    assert_eq!(outcomes, [Ok(())]);
    assert!(started.elapsed() < LIMIT, "{:?}", started.elapsed());
}

#[test]
fn limits_may_be_anything() {
    for limit in [0, 1, 2, usize::MAX - 1, usize::MAX] {
        for limits in [
            Limits { token_bytes: limit, ..Limits::default() },
            Limits { tokens: limit, ..Limits::default() },
            Limits { nesting: limit, ..Limits::default() },
            Limits { token_bytes: limit, tokens: limit, nesting: limit },
        ] {
            let mut reader = Reader::new(limits);
            for piece in [&b"{'a': [1, -2.5e3, nul"[..], b"l]}", b"'ab\xFF\n", &b"[".repeat(2000)] {
                let mut input = piece;
                while let Some(message) = reader.read(&mut input) {
                    let _ = outcome(message);
                }
            }
        }
    }
}

#[test]
fn the_deepest_message_fits_a_small_stack() {
    let deep = |open: &str, close: &str| format!("{}{}", open.repeat(1024), close.repeat(1024));
    let texts = [deep("[", "]"), format!("{}1{}", "{'a':".repeat(1024), "}".repeat(1024))];
    let look = move || {
        for text in texts {
            let mut reader = Reader::default();
            let message = reader.read(&mut text.as_bytes()).unwrap().unwrap();
            let value = message.to_value().unwrap();
            assert!(Request::parse(&message, false).is_err());
            assert_eq!(value.clone(), value);
            assert_eq!(Json::from(&value).to_value(), value);
            assert!(!format!("{value:?}").is_empty());
            if !cfg!(debug_assertions) {
                // Without optimisation, this needs all of two MiB.
                assert_eq!(from_value::<Value>(value.clone()), Ok(value));
            }
        }
    };
    std::thread::Builder::new().stack_size(2 << 20).spawn(look).unwrap().join().unwrap();
}
