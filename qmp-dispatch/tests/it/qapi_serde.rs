// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where serde knows more, or other things, than the schema that schemars derives: such types are
//! refused by a check for tests, or what they refuse is answered in QEMU's words.

#![allow(dead_code)]

use std::borrow::Cow;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroI32;
use std::time::Duration;

use qmp_dispatch::qapi::{Problem, arguments_of, check_arguments_of, type_of};
use qmp_proto::{Object, Value};
use schemars::generate::SchemaGenerator;
use schemars::{JsonSchema, Schema, json_schema};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};

type Anything = serde_json::Value;

/// Why these types cannot be the arguments of a command.
fn refusal<T: DeserializeOwned + JsonSchema>() -> Option<Problem> {
    check_arguments_of::<T>().err().map(|error| error.problem)
}

/// The same, of a command whose only argument has this type.
macro_rules! refusal_of_member {
    ($type:ty) => {{
        #[derive(Deserialize, JsonSchema)]
        struct Arguments {
            x: $type,
        }
        refusal::<Arguments>()
    }};
}

/// What a client is told that sends `{"x": value}` to a command whose argument `x` has this type.
macro_rules! answer {
    ($type:ty, $value:expr) => {{
        #[derive(Deserialize, JsonSchema)]
        struct Arguments {
            x: $type,
        }
        assert_eq!(refusal::<Arguments>(), None);
        let arguments = Object::from_iter([("x", Value::from($value))]);
        let decoded = arguments_of::<Arguments>().unwrap().decode::<Arguments>(arguments);
        decoded.map_or_else(|error| error.desc.into_owned(), |_| "ok".to_owned())
    }};
}

#[track_caller]
fn assert_disagreement(refusal: Option<Problem>, reason: &str) {
    assert_eq!(refusal, Some(Problem::Disagreement(reason.to_owned())));
}

#[test]
fn characters_and_lengths_of_strings_are_checked() {
    #[derive(Deserialize, JsonSchema)]
    struct Limits {
        #[schemars(length(min = 2, max = 3))]
        some: Option<String>,
        #[schemars(length(max = 3))]
        few: Option<String>,
        #[schemars(length(min = 2))]
        many: Option<String>,
        #[schemars(length(equal = 2))]
        pair: Option<String>,
    }
    assert_eq!(answer!(char, "é"), "ok");
    for wrong in ["", "xy"] {
        assert_eq!(answer!(char, wrong), "Parameter 'x' expects a single character");
    }
    assert_eq!(answer!(char, 1), "Invalid parameter type for 'x', expected: string");
    let list = Value::Array(vec!["a".into(), "bc".into()]);
    assert_eq!(answer!(Vec<char>, list), "Parameter 'null' expects a single character");
    let limits = arguments_of::<Limits>().unwrap();
    for (name, value, expected) in [
        ("some", "éé", "ok"),
        ("some", "é", "Parameter 'some' expects a string of 2 to 3 characters"),
        ("few", "", "ok"),
        ("few", "four", "Parameter 'few' expects a string of at most 3 characters"),
        ("many", "many", "ok"),
        ("many", "1", "Parameter 'many' expects a string of at least 2 characters"),
        ("pair", "é", "Parameter 'pair' expects a string of 2 characters"),
    ] {
        let checked = limits.check(&Object::from_iter([(name, value)]));
        let said = checked.map_or_else(|error| error.desc.into_owned(), |()| "ok".to_owned());
        assert_eq!(said, expected, "{name}: {value}");
    }
}

#[test]
fn integers_without_zero_are_checked() {
    assert_eq!(answer!(NonZeroI32, -1), "ok");
    assert_eq!(answer!(NonZeroI32, 0), "Parameter 'x' expects an integer other than 0");
    assert_eq!(answer!(Option<NonZeroI32>, 0), "Parameter 'x' expects an integer other than 0");
}

#[test]
fn what_only_the_type_knows_is_said_in_the_form_of_qemu() {
    #[derive(Deserialize, JsonSchema)]
    #[serde(try_from = "u8")]
    struct Even(u8);
    impl TryFrom<u8> for Even {
        type Error = &'static str;
        fn try_from(number: u8) -> Result<Even, &'static str> {
            if number.is_multiple_of(2) { Ok(Even(number)) } else { Err("it is odd") }
        }
    }
    #[derive(Deserialize, JsonSchema)]
    #[serde(untagged)]
    enum AddressOrIndex {
        Address(IpAddr),
        Index(u8),
    }
    assert_eq!(answer!(IpAddr, "::1"), "ok");
    assert_eq!(answer!(IpAddr, "::x"), "Invalid parameter 'x': invalid IP address syntax");
    let list = Value::Array(vec!["::1".into(), "".into()]);
    assert_eq!(answer!(Vec<IpAddr>, list), "Invalid parameter 'x[1]': invalid IP address syntax");
    assert_eq!(answer!(Even, 1), "Invalid parameter 'x': it is odd");
    assert_eq!(answer!(AddressOrIndex, "::x"), "Invalid parameter 'x'");
    let endless = Object::from_iter([("secs", u64::MAX), ("nanos", u64::from(u32::MAX))]);
    assert_eq!(
        answer!(Duration, endless),
        "Invalid parameter 'x': overflow deserializing Duration"
    );
}

/// Says that it is any string, and takes two.
struct Mode;

impl JsonSchema for Mode {
    fn schema_name() -> Cow<'static, str> {
        "Mode".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string"})
    }
}

impl<'de> Deserialize<'de> for Mode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Mode, D::Error> {
        match String::deserialize(deserializer)?.as_str() {
            "on" | "off" => Ok(Mode),
            other => Err(serde::de::Error::unknown_variant(other, &["on", "off"])),
        }
    }
}

/// Says that it is any integer, and takes small ones.
struct Small;

impl JsonSchema for Small {
    fn schema_name() -> Cow<'static, str> {
        "Small".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "integer"})
    }
}

impl<'de> Deserialize<'de> for Small {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Small, D::Error> {
        match i64::deserialize(deserializer)? {
            -9..=9 => Ok(Small),
            large => Err(serde::de::Error::invalid_value(
                serde::de::Unexpected::Signed(large),
                &"one digit",
            )),
        }
    }
}

#[test]
fn types_may_be_choosier_than_their_schema() {
    assert_eq!(answer!(Mode, "on"), "ok");
    assert_eq!(answer!(Mode, "auto"), "Parameter 'x' does not accept value 'auto'");
    assert_eq!(answer!(Small, 9), "ok");
    assert_eq!(answer!(Small, 10), "Parameter 'x' expects one digit");
    let list = Value::Array(vec![10.into()]);
    assert_eq!(answer!(Vec<Small>, list), "Parameter 'null' expects one digit");
}

#[test]
fn arrays_of_fixed_length_are_refused_even_if_that_is_none() {
    #[derive(Deserialize, JsonSchema)]
    struct Nothing();
    assert_eq!(refusal_of_member!([u8; 0]), Some(Problem::Tuple));
    assert_eq!(refusal_of_member!((u8,)), Some(Problem::Tuple));
    assert_eq!(refusal_of_member!(Nothing), Some(Problem::Tuple));
}

#[test]
fn wide_integers_are_refused_wherever_they_are() {
    #[derive(Deserialize, JsonSchema)]
    struct Flattening {
        #[serde(flatten)]
        base: Base,
    }
    #[derive(Deserialize, JsonSchema)]
    struct Base {
        wide: u128,
    }
    assert_eq!(refusal::<Flattening>(), Some(Problem::WideInteger));
    assert_eq!(refusal_of_member!(Option<u128>), Some(Problem::WideInteger));
    assert_eq!(refusal_of_member!(Vec<i128>), Some(Problem::WideInteger));
}

#[test]
fn limits_that_are_not_checked_are_refused_in_arguments() {
    #[derive(Serialize, Deserialize, JsonSchema)]
    struct Pattern {
        #[schemars(regex(pattern = "^a"))]
        text: String,
    }
    #[derive(Deserialize, JsonSchema)]
    struct Items {
        #[schemars(length(min = 1, max = 3))]
        list: Vec<u8>,
    }
    #[derive(Deserialize, JsonSchema)]
    struct Fraction {
        #[schemars(range(min = 0.0, max = 1.0))]
        fraction: f64,
    }
    #[derive(Deserialize, JsonSchema)]
    struct Selected {
        #[schemars(extend("enum" = [1, 2]))]
        level: u8,
    }
    #[derive(Deserialize, JsonSchema)]
    struct Broken {
        #[schemars(range(min = -1.5))]
        level: i8,
    }
    assert_eq!(refusal::<Pattern>(), Some(Problem::Unchecked("pattern")));
    assert_eq!(refusal::<Items>(), Some(Problem::Unchecked("maxItems")));
    assert_eq!(refusal::<Fraction>(), Some(Problem::Unchecked("minimum")));
    assert_eq!(refusal::<Selected>(), Some(Problem::Unchecked("enum")));
    assert_eq!(refusal::<Broken>(), Some(Problem::Unsupported("minimum -1.5".to_owned())));
    assert!(type_of::<Pattern>().is_ok(), "what a server sends is not checked");
}

#[derive(Deserialize, JsonSchema, PartialEq, Eq, Hash)]
#[serde(rename_all = "lowercase")]
enum Side {
    Left,
    Right,
}

#[derive(Deserialize, JsonSchema, PartialEq, Eq, Hash)]
#[serde(rename_all = "lowercase")]
enum DocumentedSide {
    /// Where the thumb is right.
    Left,
    Right,
}

#[test]
fn keys_of_maps_are_any_text_or_the_values_of_an_enum() {
    assert_eq!(refusal_of_member!(HashMap<String, Anything>), None);
    assert_eq!(refusal_of_member!(HashMap<String, u8>), Some(Problem::Map));
    assert_eq!(refusal_of_member!(HashMap<u8, Anything>), Some(Problem::Map));

    let level = |side: &str| Object::from_iter([(side, 1)]);
    assert_eq!(answer!(HashMap<Side, u8>, level("left")), "ok");
    assert_eq!(answer!(HashMap<Side, u8>, level("up")), "Parameter 'x.up' is unexpected");

    assert_disagreement(
        refusal_of_member!(HashMap<DocumentedSide, Anything>),
        "at x, unknown variant `any text`, there are `left`, `right`",
    );
    assert_disagreement(
        refusal_of_member!(HashMap<char, Anything>),
        "at x, invalid value: string \"any text\", expected a character",
    );
    assert_disagreement(
        refusal_of_member!(HashMap<Ipv4Addr, Anything>),
        "at x, invalid IPv4 address syntax",
    );
    assert_disagreement(
        refusal_of_member!(HashMap<bool, Anything>),
        "at x, invalid type: string \"any text\", expected a boolean",
    );
}

fn from_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    String::deserialize(deserializer).map(String::into_bytes)
}

fn optional<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u8>, D::Error> {
    Option::deserialize(deserializer)
}

#[test]
fn functions_of_serde_that_schemars_does_not_see_are_found_out() {
    #[derive(Deserialize, JsonSchema)]
    struct Bytes {
        #[serde(deserialize_with = "from_text")]
        bytes: Vec<u8>,
    }
    #[derive(Deserialize, JsonSchema)]
    struct Described {
        #[serde(deserialize_with = "from_text")]
        #[schemars(with = "String")]
        bytes: Vec<u8>,
    }
    #[derive(Deserialize, JsonSchema)]
    struct Forgotten {
        #[serde(deserialize_with = "optional")]
        level: Option<u8>,
    }
    #[derive(Deserialize, JsonSchema)]
    struct Remembered {
        #[serde(default, deserialize_with = "optional")]
        level: Option<u8>,
    }
    assert_disagreement(refusal::<Bytes>(), "at bytes, invalid type: sequence, expected a string");
    assert_eq!(refusal::<Described>(), None);
    assert_disagreement(refusal::<Forgotten>(), "missing field `level`");
    assert_eq!(refusal::<Remembered>(), None);
}

#[test]
fn variants_that_serde_cannot_read_are_found_out() {
    #[derive(Deserialize, JsonSchema)]
    #[serde(tag = "type", rename_all = "lowercase")]
    enum Target {
        Null,
        File(String),
    }
    assert_disagreement(refusal::<Target>(), "invalid type: map, expected a string");
    assert_disagreement(
        refusal_of_member!(Option<Vec<Target>>),
        "at x[0], invalid type: map, expected a string",
    );
}

#[test]
fn schemas_of_other_names_are_found_out() {
    #[derive(Deserialize, JsonSchema)]
    #[serde(rename_all = "lowercase")]
    #[schemars(rename_all = "UPPERCASE")]
    enum Side {
        Left,
        Right,
    }
    #[derive(Deserialize, JsonSchema)]
    struct Renamed {
        #[schemars(rename = "text")]
        body: Option<String>,
        #[schemars(rename = "number")]
        count: u8,
    }
    assert_disagreement(
        refusal_of_member!(Option<Side>),
        "at x, unknown variant `LEFT`, there are `left`, `right`",
    );
    assert_disagreement(refusal::<Renamed>(), "missing field `count`");
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Strict {
    level: u8,
}

#[derive(Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Tagged {
    Null,
    File(Strict),
}

#[test]
fn strictness_of_serde_changes_nothing_or_is_found_out() {
    #[derive(Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields)]
    struct Outer {
        id: u8,
        #[serde(flatten)]
        base: Strict,
    }
    #[derive(Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields)]
    struct WithUnion {
        id: bool,
        #[serde(flatten)]
        target: Tagged,
    }
    assert_eq!(refusal::<Strict>(), None);
    assert_eq!(refusal::<Tagged>(), None);
    assert_eq!(refusal::<Outer>(), None);
    assert_disagreement(refusal::<WithUnion>(), "unknown field `type`");
}

#[test]
fn members_that_are_skipped_or_have_aliases_have_one_name_or_none() {
    #[derive(Deserialize, JsonSchema)]
    struct Skipping {
        #[serde(skip_deserializing)]
        cache: u8,
        #[serde(alias = "alt")]
        level: u8,
        #[serde(skip_serializing)]
        secret: Option<u8>,
    }
    assert_eq!(refusal::<Skipping>(), None);
    let arguments = arguments_of::<Skipping>().unwrap();
    let check = |names: &[&str]| {
        let object: Object = names.iter().map(|name| (*name, 1)).collect();
        arguments.check(&object).map_or_else(|error| error.desc.into_owned(), |()| "ok".to_owned())
    };
    assert_eq!(check(&["level", "secret"]), "ok");
    assert_eq!(check(&["level", "cache"]), "Parameter 'cache' is unexpected");
    assert_eq!(check(&["alt"]), "Parameter 'level' is missing");
}

#[test]
fn a_variant_for_all_others_is_one_like_any_other() {
    #[derive(Deserialize, JsonSchema)]
    #[serde(tag = "type", rename_all = "lowercase")]
    enum Kind {
        Disk,
        #[serde(other)]
        Unknown,
    }
    #[derive(Deserialize, JsonSchema)]
    #[serde(rename_all = "lowercase")]
    enum Level {
        Auto,
        #[serde(untagged)]
        Number(u8),
    }
    let kind = |name: &str| Object::from_iter([("type", name)]);
    assert_eq!(answer!(Kind, kind("unknown")), "ok");
    assert_eq!(answer!(Kind, kind("tape")), "Parameter 'type' does not accept value 'tape'");
    assert_eq!(answer!(Level, "auto"), "ok");
    assert_eq!(answer!(Level, 7), "ok");
    assert_eq!(answer!(Level, "7"), "Parameter 'x' does not accept value '7'");
}

#[test]
fn types_without_end_are_tried_as_far_as_they_go() {
    #[derive(Deserialize, JsonSchema)]
    struct Tree {
        left: TreeOrNull,
        right: TreeOrNull,
        others: Vec<Tree>,
        #[serde(flatten)]
        rest: HashMap<String, Anything>,
    }
    #[derive(Deserialize, JsonSchema)]
    #[serde(untagged)]
    enum TreeOrNull {
        Tree(Box<Tree>),
        Null,
    }
    assert_eq!(refusal::<Tree>(), None);
}

#[test]
fn newtypes_and_transparent_types_are_what_they_contain() {
    #[derive(Deserialize, JsonSchema)]
    struct Level(u8);
    #[derive(Deserialize, JsonSchema)]
    #[serde(transparent)]
    struct Levels {
        list: Vec<Level>,
    }
    let list = Value::Array(vec![1.into(), 256.into()]);
    assert_eq!(answer!(Levels, list), "Parameter 'null' expects uint8_t");
}
