// SPDX-License-Identifier: MIT OR Apache-2.0
//! What becomes of results and data of events on their way to clients.

#![allow(dead_code)]

use qmp_dispatch::proto::{Error, Json, Value};
use qmp_dispatch::qapi::{OutputPolicy, Policy, Problem, SchemaError, arguments_of, type_of};
use qmp_dispatch::{Context, EmitError, EventType, LocalClient, Registry};
use schemars::JsonSchema;
use serde::{Serialize, Serializer};

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
struct Drive {
    tray_open: Option<bool>,
    device: String,
    #[schemars(extend("x-qapi-features" = ["deprecated"]))]
    alias: Option<&'static str>,
    backing: Option<Box<Drive>>,
    details: Vec<Detail>,
    anything: serde_json::Value,
    size: u64,
}

#[derive(Serialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum Detail {
    Speed {
        z: Option<f64>,
        a: u8,
        #[schemars(extend("x-qapi-features" = ["unstable"]))]
        m: u8,
    },
    Nothing,
}

fn drive() -> Drive {
    let backing = Drive {
        tray_open: Some(false),
        device: "b".to_owned(),
        alias: None,
        backing: None,
        details: Vec::new(),
        anything: serde_json::Value::Null,
        size: u64::MAX,
    };
    Drive {
        tray_open: None,
        device: "null".to_owned(),
        alias: Some("x"),
        backing: Some(Box::new(backing)),
        details: vec![
            Detail::Speed { z: None, a: 1, m: 2 },
            Detail::Speed { z: Some(0.5), a: 3, m: 4 },
            Detail::Nothing,
        ],
        anything: serde_json::json!({"z": null, "a": [null, {"q": 1, "b": 2}]}),
        size: 7,
    }
}

const DRIVE: EventType<Drive> = EventType::new("DRIVE");

/// What a client is told of the drive, as a result and as an event.
fn told(policy: Policy) -> String {
    let mut registry = Registry::new();
    registry.set_policy(policy);
    registry.event(&DRIVE).unwrap();
    registry
        .command("query-drive", |context: &Context| {
            context.emit(&DRIVE, &drive())?;
            Ok::<_, Error>(drive())
        })
        .unwrap();
    let said = LocalClient::new(registry).ask("{'execute': 'query-drive'}");
    let [event, response] = said.as_slice() else { panic!("{said:?}") };
    let result = response.strip_prefix(r#"{"return": "#).and_then(|rest| rest.strip_suffix('}'));
    let (_, data) = event.split_once(r#""data": "#).unwrap();
    assert_eq!(data.strip_suffix('}'), result);
    result.unwrap().to_owned()
}

const BACKING: &str = r#""backing": {"tray-open": false, "device": "b", "details": [], "anything": null, "size": 18446744073709551615}, "#;
const ANYTHING: &str = r#""anything": {"z": null, "a": [null, {"q": 1, "b": 2}]}, "size": 7}"#;

#[test]
fn none_is_left_out_and_what_is_there_stays_in_its_order() {
    let details = r#""details": [{"kind": "speed", "a": 1, "m": 2}, {"kind": "speed", "z": 0.5, "a": 3, "m": 4}, {"kind": "nothing"}], "#;
    assert_eq!(
        told(Policy::default()),
        [r#"{"device": "null", "alias": "x", "#, BACKING, details, ANYTHING].concat()
    );
}

#[test]
fn what_a_policy_hides_leaves_the_rest_in_its_order() {
    let hide = OutputPolicy::Hide;
    let details = r#""details": [{"kind": "speed", "a": 1}, {"kind": "speed", "z": 0.5, "a": 3}, {"kind": "nothing"}], "#;
    assert_eq!(
        told(Policy { deprecated_output: hide, unstable_output: hide, ..Policy::default() }),
        [r#"{"device": "null", "#, BACKING, details, ANYTHING].concat()
    );
}

/// Says that it is an object with a number, and is written in another way.
#[derive(JsonSchema)]
struct Liar {
    number: u8,
}

impl Serialize for Liar {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map([("number", i64::from(self.number) - 1)])
    }
}

#[test]
fn what_is_not_of_its_declared_type_is_found_out() {
    const LIE: EventType<Liar> = EventType::new("LIE");
    let mut registry = Registry::new();
    registry.event(&LIE).unwrap();
    registry.command("query-liar", |_: &Context| Ok::<_, Error>(Liar { number: 0 })).unwrap();
    registry.command("query-honest", |_: &Context| Ok::<_, Error>(Liar { number: 1 })).unwrap();
    let client = LocalClient::new(registry);
    assert_eq!(
        client.ask("{'execute': 'query-honest'} {'execute': 'query-liar'}"),
        [
            r#"{"return": {"number": 0}}"#,
            r#"{"error": {"class": "GenericError", "desc": "The result of query-liar is not of its type: Parameter 'number' expects uint8_t"}}"#,
        ]
    );
    let emitted = client.monitor().dispatcher().emit(&LIE, &Liar { number: 0 });
    assert!(
        matches!(&emitted, Err(EmitError::Mismatch { name, .. }) if name == "LIE"),
        "{emitted:?}"
    );
    assert!(client.ask("").is_empty());
}

#[test]
fn results_are_checked_at_any_depth() {
    let ty = type_of::<Vec<Drive>>().unwrap();
    let check = |text: &str| {
        let checked = ty.check(&Json::from(&text.parse::<Value>().unwrap()));
        checked.map_or_else(|error| error.desc.into_owned(), |()| "ok".to_owned())
    };
    assert_eq!(ty.check(&Json::encode(&[drive()]).unwrap()), Ok(()));
    let mut deep = "0".to_owned();
    for _ in 0..200 {
        deep = format!("[{deep}]");
    }
    let drive = r#""device": "a", "details": [], "size": 1"#;
    for (text, expected) in [
        (format!(r#"[{{{drive}, "anything": {deep}}}]"#), "ok"),
        (format!(r#"[{{{drive}, "anything": 1, "new": 1}}]"#), "Parameter '[0].new' is unexpected"),
        (format!("[{{{drive}}}]"), "Parameter '[0].anything' is missing"),
        ("[1]".to_owned(), "Invalid parameter type for '[0]', expected: object"),
    ] {
        assert_eq!(check(&text), expected, "{text}");
    }
}

#[derive(JsonSchema)]
#[serde(untagged)]
enum StrOrNull {
    Str(String),
    Null(()),
}

#[test]
fn an_option_of_what_may_be_null_is_refused() {
    #[derive(JsonSchema)]
    struct Outer {
        inner: Vec<Inner>,
    }
    #[derive(JsonSchema)]
    struct Inner {
        backing: Option<StrOrNull>,
    }
    #[derive(JsonSchema)]
    struct Defaulted {
        #[serde(default = "null")]
        backing: StrOrNull,
    }
    fn null() -> StrOrNull {
        StrOrNull::Null(())
    }
    let SchemaError { place, problem, .. } = arguments_of::<Outer>().unwrap_err();
    assert_eq!((place.as_str(), problem), ("Inner.backing", Problem::NullOrAbsent));
    assert!(type_of::<Outer>().is_ok(), "what is written tells them apart");
    assert!(arguments_of::<Defaulted>().is_ok());
}

#[test]
fn names_that_qapi_does_not_allow_are_refused_in_types() {
    #[derive(JsonSchema)]
    struct Member {
        #[serde(rename = "two words")]
        two_words: u8,
    }
    #[derive(JsonSchema)]
    struct Choice {
        value: Values,
    }
    #[derive(JsonSchema)]
    enum Values {
        #[serde(rename = "2x")]
        Digits,
        #[serde(rename = "0.10")]
        Dotted,
    }
    #[derive(JsonSchema)]
    #[serde(tag = "-type")]
    enum Tag {
        File { filename: String },
    }
    #[derive(JsonSchema)]
    #[serde(tag = "type")]
    enum Variant {
        #[serde(rename = "é")]
        File { filename: String },
    }
    #[derive(JsonSchema)]
    #[serde(tag = "type")]
    enum MemberOfVariant {
        File {
            #[serde(rename = "")]
            filename: String,
        },
    }
    let name = |problem| match problem {
        SchemaError { problem: Problem::Name(name), .. } => name,
        error => panic!("{error}"),
    };
    assert_eq!(name(arguments_of::<Member>().unwrap_err()), "two words");
    assert_eq!(name(arguments_of::<Choice>().unwrap_err()), "0.10");
    assert_eq!(name(arguments_of::<Tag>().unwrap_err()), "-type");
    assert_eq!(name(type_of::<Variant>().unwrap_err()), "é");
    assert_eq!(name(type_of::<MemberOfVariant>().unwrap_err()), "");
}

#[test]
fn a_feature_is_shown_once() {
    let mut registry = Registry::new();
    let command = registry.command("x-old", |_: &Context| Ok::<(), Error>(())).unwrap();
    assert_eq!(command.deprecated().deprecated().features(), ["deprecated"]);
    registry.event(&DRIVE).unwrap().unstable().feature("unstable");
    assert_eq!(registry.find_event("DRIVE").unwrap().features(), ["unstable"]);
}
