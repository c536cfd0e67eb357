// SPDX-License-Identifier: MIT OR Apache-2.0
//! What input of any size may cost, at QEMU's limits.

#![allow(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "only the crate itself is without clocks"
)]

use std::time::{Duration, Instant};

use qmp_proto::{
    Bands, Dialect, Json, Limits, Message, Object, Reader, Request, SyntaxError, SyntaxErrorKind,
    Value, from_value,
};

const MIB: u64 = 1 << 20;
/// As a server gets its input.
const PIECE: usize = 64 << 10;
/// What is known of a token that is kept, in bytes.
const TOKEN: u64 = 24;

const OLD: Dialect = Dialect::Qemu10_0;
const NEW: Dialect = Dialect::Qemu11_1;

type Outcome = Result<(), SyntaxErrorKind>;

/// Feeds `text` `count` times. What came of it, and the most memory that was allocated meanwhile.
fn feed<T>(
    reader: &mut Reader,
    text: &str,
    count: usize,
    mut look: impl FnMut(Result<Message<'_>, SyntaxError>) -> T,
) -> (Vec<T>, u64) {
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
    (seen, allocated.bytes_max)
}

fn outcome(message: Result<Message<'_>, SyntaxError>) -> Outcome {
    message.and_then(|message| message.to_value()).map(drop).map_err(|error| error.kind)
}

/// Feeds `parts`, and holds against the outcomes and the memory that is allowed for each of them.
#[track_caller]
fn check(dialect: Dialect, parts: &[(&str, usize)], expected: &[Outcome], most: u64) {
    let mut reader = Reader::new(dialect, Limits::default());
    let mut all = Vec::new();
    for &(text, count) in parts {
        let (seen, allocated) = feed(&mut reader, text, count, outcome);
        assert!(allocated <= most, "{allocated} bytes");
        all.extend(seen);
    }
    assert_eq!(all, expected, "{dialect}");
    assert_eq!(feed(&mut reader, "{}", 1, outcome).0, [Ok(())], "usable");
    let kept = allocation_counter::measure(|| drop(reader));
    assert!(kept.bytes_current.unsigned_abs() <= 512 << 10, "{} bytes kept", kept.bytes_current);
}

/// Checks that `work` takes no more than about twice as long for twice the size. Other programs may
/// make it seem longer, but not every time; and an allocator may at one size, where memory is first
/// asked of the kernel, but not at every size.
#[track_caller]
fn check_is_linear(size: usize, mut work: impl FnMut(usize) -> Duration) {
    const TRIES_A_SIZE: usize = 4;
    const SIZES: u32 = 5;
    const TOO_MUCH: f64 = 3.0;
    let mut ratios = Vec::new();
    for size in (0..SIZES).map(|doubled| size << doubled) {
        for _ in 0..TRIES_A_SIZE {
            let ratio = work(2 * size).as_secs_f64() / work(size).as_secs_f64();
            if ratio < TOO_MUCH {
                return;
            }
            ratios.push(ratio);
        }
    }
    panic!("twice as much takes longer by factors of {ratios:.1?}");
}

/// How long it takes.
fn time<T>(work: impl FnOnce() -> T) -> Duration {
    let started = Instant::now();
    drop(work());
    started.elapsed()
}

#[test]
fn a_token_of_64_mib() {
    let limit = [Err(SyntaxErrorKind::TokenSizeLimit)];
    for dialect in Dialect::ALL {
        check(dialect, &[("\"", 1), ("a", (64 << 20) - 2), ("\"", 1)], &limit, 130 * MIB);
        check(dialect, &[("\"", 1), ("a", 64 << 20)], &limit, 130 * MIB);
        check(dialect, &[("1", (64 << 20) + 1)], &limit, 130 * MIB);
    }
}

#[test]
fn a_string_that_never_ends() {
    let limit = Err(SyntaxErrorKind::TokenSizeLimit);
    let parts = [("[\"", 1), ("a", 64 << 20), ("a", 64 << 20), ("\u{1}", 1)];
    // What follows the first 64 MiB is read afresh, as a word, which is too long, too.
    let stray = Err(SyntaxErrorKind::Stray(b"\x01".to_vec()));
    check(OLD, &parts, &[limit.clone(), limit.clone(), stray], 130 * MIB);
    // Or it is skipped.
    check(NEW, &parts, &[limit], 130 * MIB);
}

#[test]
fn ten_mib_of_open_brackets() {
    let errors = (10 << 20) / 1025;
    let expected = vec![Err(SyntaxErrorKind::NestingLimit); errors];
    check(OLD, &[("[", errors * 1025)], &expected, 2 * MIB);
    let parts = [("[", errors * 1025), ("]", errors * 1025)];
    check(NEW, &parts, &expected[..1], 2 * MIB);
}

#[test]
fn what_is_skipped_is_not_kept() {
    let skipped = [("[1 2", 1), (",'a' ", 2 << 20), ("'", 1), ("a", 65 << 20), ("''", 1), ("]", 1)];
    check(NEW, &skipped, &[Err(SyntaxErrorKind::ListSeparator)], 2 * MIB);
}

#[test]
fn two_mi_tokens_and_one_more() {
    let limit = Err(SyntaxErrorKind::TokenCountLimit);
    let leftover = Err(SyntaxErrorKind::ExpectingValue);
    for dialect in Dialect::ALL {
        check(dialect, &[("[", 1), ("1,", (1 << 20) - 2), ("1]", 1)], &[Ok(())], 150 * MIB);
    }
    let parts = [("[", 1), ("1,", 1 << 20), ("]", 1)];
    check(OLD, &parts, &[limit.clone(), leftover], 150 * MIB);
    check(NEW, &parts, std::slice::from_ref(&limit), 150 * MIB);
    check(OLD, &[("[", 1), (",", (2 << 20) - 1), ("]", 1)], &[limit], 150 * MIB);
}

#[test]
fn white_space_is_not_kept() {
    for dialect in Dialect::ALL {
        check(
            dialect,
            &[(" ", 10 << 20), ("[1", 1), (" \n", 5 << 20), (",", 1), ("\t", 10 << 20), ("2]", 1)],
            &[Ok(())],
            MIB,
        );
        check(
            dialect,
            &[("@", 1), ("rubbish ", 1 << 20), ("\n", 1)],
            &[Err(SyntaxErrorKind::Stray(b"@".to_vec()))],
            MIB,
        );
    }
}

#[test]
fn one_byte_of_the_white_space_between_two_tokens_is_kept() {
    for dialect in Dialect::ALL {
        for blanks in [0, 1, 2, 32, 1000] {
            let count = 40_000;
            let text = format!("1{blank},{blank}", blank = " ".repeat(blanks));
            let mut reader = Reader::new(dialect, Limits::default());
            assert!(feed(&mut reader, "[", 1, outcome).0.is_empty());
            let (seen, allocated) = feed(&mut reader, &text, count, outcome);
            assert_eq!(seen, []);
            let tokens = 1 + 2 * count as u64;
            let kept = reader.kept() as u64;
            let most = tokens * (TOKEN + 1 + blanks.min(1) as u64) + 10 * TOKEN;
            assert!(kept <= most, "{kept} bytes of {tokens} tokens, not {most}");
            // Buffers grow to twice their size, and are copied meanwhile.
            assert!(allocated <= 4 * kept, "{allocated} bytes for {kept}");
        }
    }
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
    assert!(reader.kept() < 100, "{} bytes", reader.kept());
}

/// Names of one length, all in one bucket of QEMU's hash table if that is wanted: in names of that
/// length, these places do not decide on the bucket.
fn name(index: usize, same_bucket: bool) -> String {
    let digit = |place: u32| char::from(b'A' + (index / 50_usize.pow(place) % 50) as u8);
    let varied: String = [0, 1, 2].map(digit).into_iter().collect();
    let varied = varied.replace('\\', "~");
    if same_bucket { format!("aa{varied}aaaaa") } else { format!("{varied}aaaaaaa") }
}

#[test]
fn objects_of_very_many_members_take_linear_time() {
    for same_bucket in [false, true] {
        let object = |count: usize| {
            let member = |index| format!("'{}':0", name(index, same_bucket));
            let members: Vec<String> = (0..count).map(member).collect();
            format!("{{{}}}", members.join(","))
        };
        check_is_linear(8000, |count| {
            let text = format!("{{'execute':'x','arguments':{}}}", object(count));
            let mut reader = Reader::default();
            let message = reader.read(&mut text.as_bytes()).unwrap().unwrap();
            time(|| {
                let arguments = Request::parse(&message, Bands::InBand).unwrap().arguments;
                assert_eq!(arguments.len(), count);
                let copy: Object =
                    arguments.iter().map(|(name, value)| (name, value.clone())).collect();
                let value = Value::from(copy.clone());
                assert_eq!(from_value::<Value>(value.clone()), Ok(value.clone()));
                assert_eq!(copy, arguments);
                assert!(value.to_string().len() > count * 4);
            })
        });
        for dialect in Dialect::ALL {
            check_is_linear(8000, |count| {
                let text =
                    object(count).replace('}', &format!(",'{}':1}}", name(count - 1, same_bucket)));
                let mut reader = Reader::new(dialect, Limits::default());
                time(|| {
                    let outcomes: Vec<Outcome> = text
                        .as_bytes()
                        .chunks(100)
                        .flat_map(|mut piece| reader.read(&mut piece).map(outcome))
                        .collect();
                    assert_eq!(outcomes, [Err(SyntaxErrorKind::DuplicateKey)]);
                })
            });
        }
    }
}

#[test]
fn a_token_in_single_bytes_takes_linear_time() {
    for dialect in Dialect::ALL {
        check_is_linear(1 << 16, |len| {
            let text = ["\"", &"a".repeat(len), "\""].concat();
            let mut reader = Reader::new(dialect, Limits::default());
            time(|| {
                let read = |byte: &u8| reader.read(&mut std::slice::from_ref(byte)).map(outcome);
                let outcomes: Vec<Outcome> = text.as_bytes().iter().filter_map(read).collect();
                assert_eq!(outcomes, [Ok(())]);
            })
        });
    }
}

#[test]
fn a_message_in_small_pieces_takes_linear_time() {
    let tokens =
        ["[1, 'b\\n', {'a': [true], 'c': {}}], ", "[[[[[]]]]] ,\n\n ", "{'long\\u0061 name': 1}, "];
    for text in tokens {
        for dialect in Dialect::ALL {
            for piece in [1, 7, 100] {
                check_is_linear(500, |count| {
                    let text = format!("[{} 0 ", text.repeat(count));
                    let mut reader = Reader::new(dialect, Limits::default());
                    time(|| {
                        for mut piece in text.as_bytes().chunks(piece) {
                            assert!(reader.read(&mut piece).is_none());
                        }
                        assert_eq!(reader.read(&mut &b"]"[..]).map(outcome), Some(Ok(())));
                    })
                });
            }
        }
    }
}

#[test]
fn very_many_errors_take_linear_time() {
    for text in ["@ ", "nul ", "[1 2", "[1 2]", "\n:", "{'a':[}", "'\n"] {
        for dialect in Dialect::ALL {
            check_is_linear(4000, |count| {
                let text = text.repeat(count);
                let mut reader = Reader::new(dialect, Limits::default());
                time(|| {
                    let mut input = text.as_bytes();
                    let mut errors = 0;
                    while let Some(message) = reader.read(&mut input) {
                        errors += usize::from(outcome(message).is_err());
                    }
                    assert!(errors > 0);
                })
            });
        }
    }
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
            for dialect in Dialect::ALL {
                let mut reader = Reader::new(dialect, limits);
                for piece in
                    [&b"{'a': [1, -2.5e3, nul"[..], b"l]}", b"'ab\xFF\n", &b"[".repeat(2000)]
                {
                    let mut input = piece;
                    while let Some(message) = reader.read(&mut input) {
                        let _ = outcome(message);
                    }
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
            assert!(Request::parse(&message, Bands::InBand).is_err());
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
