// SPDX-License-Identifier: MIT OR Apache-2.0
//! The laws of the reader and the writer, for any input.

use proptest::collection::vec;
use proptest::prelude::*;
use qmp_proto::{
    Band, Bands, Dialect, Error, ErrorClass, Event, Json, Layout, Limits, Number, Object, Reader,
    Request, Response, ServerMessage, Timestamp, Value,
};

/// Bytes that are close enough to JSON to get past the lexer now and then.
fn nearly_json() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        proptest::sample::select(vec![
            "{",
            "}",
            "[",
            "]",
            ",",
            ":",
            "'a'",
            "\"b\"",
            "'\\u00e9\\n'",
            "'\\uD83D\\uDE00'",
            "0",
            "-0",
            "01",
            "12e3",
            "1.5",
            "1e",
            "true",
            "null",
            "nul",
            " ",
            "\t",
            "\n",
            "\r\n",
            "'",
            "\"",
            "\\",
            "@",
            "é",
            "{'execute': 'stop'}",
            "{\"execute\": \"x\", \"id\": 1}",
        ])
        .prop_map(|piece| piece.as_bytes().to_vec()),
        vec(any::<u8>(), 1..3),
        Just(vec![b' '; 50]),
    ];
    vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

/// What a server would find in the pieces, one entry per message.
fn outcomes<'a>(dialect: Dialect, pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<String> {
    let mut reader = Reader::new(dialect, Limits::default());
    let mut seen = Vec::new();
    for mut piece in pieces {
        while let Some(message) = reader.read(&mut piece) {
            let request = message
                .map_err(Into::into)
                .and_then(|message| Request::parse(&message, Bands::Both));
            seen.push(format!("{request:?}"));
        }
    }
    seen
}

fn value() -> impl Strategy<Value = Value> {
    let text = prop_oneof![".*", any::<String>()].prop_map(|text: String| {
        // QEMU has no noncharacters in its strings, and they are written as U+FFFD.
        text.replace(|c: char| u32::from(c) & 0xFFFE == 0xFFFE, "x")
            .replace(|c: char| ('\u{FDD0}'..='\u{FDEF}').contains(&c), "x")
    });
    let number = prop_oneof![
        any::<i64>().prop_map(Number::from),
        any::<u64>().prop_map(Number::from),
        // What has no fraction is written like an integer, and reads as one.
        any::<f64>()
            .prop_filter("not integral", |double| double.fract() != 0.0)
            .prop_map(Number::from),
    ];
    let scalar = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        number.prop_map(Value::Number),
        text.clone().prop_map(Value::from),
    ];
    scalar.prop_recursive(5, 64, 20, move |inner| {
        prop_oneof![
            vec(inner.clone(), 0..20).prop_map(Value::Array),
            vec((text.clone(), inner), 0..20)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

fn dialect() -> impl Strategy<Value = Dialect> {
    proptest::sample::select(Dialect::ALL.to_vec())
}

fn layout() -> impl Strategy<Value = Layout> {
    proptest::sample::select(vec![Layout::Compact, Layout::Pretty])
}

fn server_message(text: &str) -> ServerMessage {
    let mut reader = Reader::default();
    let mut input = text.as_bytes();
    let message = reader.read(&mut input).expect("a whole message").expect("well-formed tokens");
    ServerMessage::parse(&message).expect("a message of a server")
}

proptest! {
    #[test]
    fn how_the_stream_is_split_does_not_matter(dialect in dialect(), bytes in nearly_json(), mut cuts in vec(any::<prop::sample::Index>(), 0..8)) {
        let whole = outcomes(dialect, [&bytes[..]]);
        prop_assert_eq!(&outcomes(dialect, bytes.chunks(1)), &whole, "byte by byte");

        let mut at: Vec<usize> = cuts.drain(..).map(|cut| cut.index(bytes.len() + 1)).collect();
        at.extend([0, bytes.len()]);
        at.sort_unstable();
        let pieces = at.windows(2).map(|cut| &bytes[cut[0]..cut[1]]);
        prop_assert_eq!(outcomes(dialect, pieces), whole, "cut at {:?}", at);
    }

    #[test]
    fn after_ff_and_a_newline_the_reader_is_as_new(bytes in nearly_json(), more in nearly_json()) {
        let fresh = outcomes(Dialect::Qemu10_0, [&more[..]]);
        let resynchronised = outcomes(Dialect::Qemu10_0, [&bytes, &b"\xFF\n"[..], &more]);
        prop_assert!(resynchronised.ends_with(&fresh));
    }

    /// Without limits being passed.
    #[test]
    fn the_dialects_accept_the_same_messages(bytes in nearly_json()) {
        let accepted = |dialect| {
            let mut reader = Reader::new(dialect, Limits::default());
            let mut input = &bytes[..];
            let mut accepted = Vec::new();
            while let Some(message) = reader.read(&mut input) {
                accepted.extend(message.and_then(|message| message.to_value()));
            }
            accepted
        };
        prop_assert_eq!(accepted(Dialect::Qemu10_0), accepted(Dialect::Qemu11_1));
    }

    #[test]
    fn a_value_reads_as_it_was_written(value in value(), layout in layout()) {
        let mut text = String::new();
        let response = Response::new(Some(value.clone()), Ok(Json::from(&value)));
        response.write(layout, &mut text);
        prop_assert!(text.is_ascii() && text.ends_with("\r\n"));
        if layout == Layout::Compact {
            prop_assert!(!text.trim_end().contains(char::is_control));
        }
        let ServerMessage::Response(read) = server_message(&text) else { panic!("a response") };
        prop_assert_eq!(read.id.as_ref(), Some(&value));
        prop_assert_eq!(read.result.unwrap().to_value(), value);
    }

    #[test]
    fn what_is_written_is_json(value in value()) {
        let text = value.to_string();
        prop_assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok(), "{}", text);
    }

    #[test]
    fn errors_and_events_read_as_they_were_written(
        id in proptest::option::of(value()),
        class in proptest::sample::select(ErrorClass::ALL.to_vec()),
        desc in "[ -~é]*",
        data in proptest::option::of(value()),
        seconds in any::<i64>(),
        layout in layout(),
    ) {
        let mut text = String::new();
        let response = Response::new(id, Err(Error::new(class, desc.clone())));
        response.write(layout, &mut text);
        prop_assert_eq!(server_message(&text), ServerMessage::Response(response));

        let mut text = String::new();
        let timestamp = Timestamp { seconds, microseconds: 1 };
        let event = Event::new(desc, data.as_ref().map(Json::from), timestamp);
        event.write(layout, &mut text);
        let ServerMessage::Event(read) = server_message(&text) else { panic!("an event") };
        prop_assert_eq!(read.data.map(|data| data.to_value()), data);
        prop_assert_eq!((read.name, read.timestamp), (event.name, event.timestamp));
    }

    #[test]
    fn requests_read_as_they_were_written(
        command in ".*",
        arguments in vec(("[a-z]+", value()), 0..4),
        id in proptest::option::of(value()),
        oob in any::<bool>(),
    ) {
        prop_assume!(!command.contains(|c: char| u32::from(c) & 0xFFFE == 0xFFFE || ('\u{FDD0}'..='\u{FDEF}').contains(&c)));
        let arguments: Object = arguments.into_iter().collect();
        let band = if oob { Band::OutOfBand } else { Band::InBand };
        let mut request = Request::new(command);
        (request.arguments, request.id, request.band) = (arguments, id, band);
        let mut text = String::new();
        request.write(&mut text);
        let mut reader = Reader::default();
        let mut input = text.as_bytes();
        let message = reader.read(&mut input).unwrap().unwrap();
        prop_assert_eq!(Request::parse(&message, Bands::Both), Ok(request));
    }
}
