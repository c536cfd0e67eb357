// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which QAPI types Rust types are, as introspection shows them.

#![allow(dead_code, deprecated)]

use std::collections::HashMap;

use qmp_dispatch::qapi::{
    Arguments, CommandInfo, EventInfo, Introspection, Problem, Type, arguments_of, type_of,
};
use qmp_proto::Value;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One line for each type that results of these types lead to, with their own names.
fn describe(types: &[Type]) -> Vec<String> {
    let mut introspection = Introspection::new();
    introspection.unmasked(true);
    for ty in types {
        introspection.event(&EventInfo::new("EVENT", ty));
    }
    let lines = lines(&introspection).into_iter();
    lines.filter(|line| !line.contains("EVENT") && !line.contains("builtin")).collect()
}

/// The entries as clients get them.
fn lines(introspection: &Introspection) -> Vec<String> {
    let entries = introspection.to_json().to_value();
    entries.as_array().unwrap().iter().map(Value::to_string).collect()
}

#[track_caller]
fn assert_type<T: JsonSchema>(expected: &[&str]) {
    assert_eq!(describe(&[type_of::<T>().unwrap()]), expected);
    assert_eq!(describe(&[arguments_of::<T>().unwrap().as_type().clone()]), expected);
}

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
struct Everything {
    text: String,
    byte: u8,
    flag: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    list: Option<Vec<Status>>,
    /// Documented.
    #[deprecated]
    old: Option<Status>,
    #[schemars(extend("x-qapi-features" = ["unstable", "other"]))]
    new_thing: Option<Box<Everything>>,
    anything: serde_json::Value,
    many: Vec<HashMap<String, serde_json::Value>>,
    renamed: Id,
}

#[derive(Serialize, Deserialize, JsonSchema)]
struct Id(String);

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Status {
    Running,
    Paused,
}

#[test]
fn structs() {
    assert_type::<Everything>(&[
        concat!(
            r#"{"name": "Everything", "members": [{"name": "text", "type": "str"}, "#,
            r#"{"name": "byte", "type": "int"}, "#,
            r#"{"name": "flag", "type": "bool"}, "#,
            r#"{"name": "list", "default": null, "type": "[Status]"}, "#,
            r#"{"name": "old", "default": null, "type": "Status", "features": ["deprecated"]}, "#,
            r#"{"name": "new-thing", "default": null, "type": "Everything", "#,
            r#""features": ["unstable", "other"]}, "#,
            r#"{"name": "anything", "type": "any"}, {"name": "many", "type": "[any]"}, "#,
            r#"{"name": "renamed", "type": "str"}], "meta-type": "object"}"#
        ),
        r#"{"name": "[Status]", "element-type": "Status", "meta-type": "array"}"#,
        concat!(
            r#"{"name": "Status", "members": [{"name": "running"}, {"name": "paused"}], "#,
            r#""meta-type": "enum", "values": ["running", "paused"]}"#
        ),
        r#"{"name": "[any]", "element-type": "any", "meta-type": "array"}"#,
    ]);
}

#[test]
fn unions() {
    #[derive(Serialize, Deserialize, JsonSchema)]
    #[serde(tag = "kind", rename_all = "kebab-case")]
    enum Shape {
        Circle(Circle),
        #[deprecated]
        Square {
            side: f64,
        },
        #[schemars(extend("x-qapi-features" = ["unstable"]))]
        Nothing,
    }
    #[derive(Serialize, Deserialize, JsonSchema)]
    struct Circle {
        radius: f64,
    }
    assert_type::<Shape>(&[
        concat!(
            r#"{"name": "Shape", "tag": "kind", "variants": [{"case": "circle", "type": "Circle"}, "#,
            r#"{"case": "square", "type": "Shape-square"}, {"case": "nothing", "type": "q_empty"}], "#,
            r#""members": [{"name": "kind", "type": "ShapeKind"}], "meta-type": "object"}"#
        ),
        concat!(
            r#"{"name": "ShapeKind", "members": [{"name": "circle"}, "#,
            r#"{"name": "square", "features": ["deprecated"]}, "#,
            r#"{"name": "nothing", "features": ["unstable"]}], "#,
            r#""meta-type": "enum", "values": ["circle", "square", "nothing"]}"#
        ),
        concat!(
            r#"{"name": "Circle", "members": [{"name": "radius", "type": "number"}], "#,
            r#""meta-type": "object"}"#
        ),
        concat!(
            r#"{"name": "Shape-square", "members": [{"name": "side", "type": "number"}], "#,
            r#""meta-type": "object"}"#
        ),
        r#"{"name": "q_empty", "members": [], "meta-type": "object"}"#,
    ]);
}

#[test]
fn unions_with_a_base_and_a_named_tag() {
    #[derive(Serialize, Deserialize, JsonSchema)]
    #[schemars(extend("x-qapi-tag-type" = "DriverType", "x-qapi-features" = ["dynamic"]))]
    struct Options {
        id: Option<String>,
        #[serde(flatten)]
        driver: Driver,
    }
    #[derive(Serialize, Deserialize, JsonSchema)]
    #[serde(tag = "driver", rename_all = "lowercase")]
    enum Driver {
        Null,
        Nested(Inner),
    }
    #[derive(Serialize, Deserialize, JsonSchema)]
    #[serde(tag = "mode", rename_all = "lowercase")]
    enum Inner {
        Fast,
    }
    assert_type::<Options>(&[
        concat!(
            r#"{"name": "Options", "tag": "driver", "variants": [{"case": "null", "type": "q_empty"}, "#,
            r#"{"case": "nested", "type": "Inner"}], "#,
            r#""members": [{"name": "driver", "type": "DriverType"}, "#,
            r#"{"name": "id", "default": null, "type": "str"}], "#,
            r#""meta-type": "object", "features": ["dynamic"]}"#
        ),
        concat!(
            r#"{"name": "DriverType", "members": [{"name": "null"}, {"name": "nested"}], "#,
            r#""meta-type": "enum", "values": ["null", "nested"]}"#
        ),
        r#"{"name": "q_empty", "members": [], "meta-type": "object"}"#,
        concat!(
            r#"{"name": "Inner", "tag": "mode", "variants": [{"case": "fast", "type": "q_empty"}], "#,
            r#""members": [{"name": "mode", "type": "InnerKind"}], "meta-type": "object"}"#
        ),
        concat!(
            r#"{"name": "InnerKind", "members": [{"name": "fast"}], "#,
            r#""meta-type": "enum", "values": ["fast"]}"#
        ),
    ]);
}

#[test]
fn alternates() {
    #[derive(Serialize, Deserialize, JsonSchema)]
    struct Holder {
        value: StatusOrNull,
    }
    #[derive(Serialize, Deserialize, JsonSchema)]
    #[serde(untagged)]
    enum StatusOrNull {
        Status(Status),
        Count(u32),
        Null,
    }
    assert_eq!(
        describe(&[type_of::<Holder>().unwrap()])[1],
        concat!(
            r#"{"name": "StatusOrNull", "members": [{"type": "Status"}, {"type": "int"}, "#,
            r#"{"type": "null"}], "meta-type": "alternate"}"#
        )
    );
}

#[test]
fn empty_structs_are_named_where_they_are_members() {
    #[derive(Serialize, Deserialize, JsonSchema)]
    struct Nothing {}
    #[derive(Serialize, Deserialize, JsonSchema)]
    struct Holder {
        nothing: Nothing,
    }
    let empty = [r#"{"name": "q_empty", "members": [], "meta-type": "object"}"#];
    assert_type::<()>(&empty);
    assert_type::<Nothing>(&empty);
    assert_eq!(
        describe(&[type_of::<Holder>().unwrap()])[1],
        r#"{"name": "Nothing", "members": [], "meta-type": "object"}"#
    );
}

#[test]
fn the_order_of_values_can_be_given() {
    #[derive(Serialize, Deserialize, JsonSchema)]
    #[serde(rename_all = "lowercase")]
    #[schemars(extend("x-qapi-order" = ["first", "second"]))]
    enum Order {
        /// Documented values would come last.
        First,
        Second,
    }
    let lines = describe(&[type_of::<Vec<Order>>().unwrap()]);
    assert!(lines[1].ends_with(r#""values": ["first", "second"]}"#));
}

mod elsewhere {
    #[derive(schemars::JsonSchema)]
    pub(crate) struct Id {
        number: u8,
    }

    #[derive(schemars::JsonSchema)]
    pub(crate) struct Pair {
        left: Option<u8>,
        right: u16,
    }
}

#[derive(JsonSchema)]
struct Pair {
    left: u8,
    right: u8,
}

#[test]
fn types_of_the_same_name_and_shape_are_one() {
    let pairs = [type_of::<Pair>().unwrap(), type_of::<elsewhere::Pair>().unwrap()];
    assert_eq!(
        describe(&pairs),
        [concat!(
            r#"{"name": "Pair", "members": [{"name": "left", "default": null, "type": "int"}, "#,
            r#"{"name": "right", "type": "int"}], "meta-type": "object"}"#
        )]
    );
}

#[test]
fn types_of_the_same_name_and_another_shape_are_two() {
    #[derive(JsonSchema)]
    struct Id {
        text: String,
    }
    let ids = [type_of::<Id>().unwrap(), type_of::<elsewhere::Id>().unwrap()];
    let names: Vec<String> =
        describe(&ids).iter().map(|line| line.split('"').nth(3).unwrap().to_owned()).collect();
    assert_eq!(names, ["Id", "Id2"]);
}

#[test]
fn types_are_called_neither_like_builtin_ones_nor_like_commands_and_events() {
    #[derive(JsonSchema)]
    struct Names {
        text: Text,
        event: Event,
        real: String,
    }
    #[derive(JsonSchema)]
    #[schemars(rename = "str")]
    struct Text {
        length: u8,
    }
    #[derive(JsonSchema)]
    #[schemars(rename = "EVENT")]
    struct Event {
        flag: bool,
    }
    let mut introspection = Introspection::new();
    introspection.unmasked(true).event(&EventInfo::new("EVENT", &type_of::<Names>().unwrap()));
    let entries = introspection.finish();
    let names: Vec<&str> = entries.iter().map(|entry| entry.name.as_str()).collect();
    assert_eq!(names, ["EVENT", "Names", "str2", "EVENT2", "str", "int", "bool"]);
}

#[test]
fn defaults_make_members_optional_in_arguments_and_then_everywhere() {
    #[derive(Serialize, Deserialize, JsonSchema)]
    struct Level {
        #[serde(default)]
        level: u8,
    }
    let level = |default: &str| {
        format!(
            r#"{{"name": "Level", "members": [{{"name": "level", {default}"type": "int"}}], "meta-type": "object"}}"#
        )
    };
    let arguments = arguments_of::<Level>().unwrap().as_type().clone();
    let result = type_of::<Level>().unwrap();
    let optional = level(r#""default": null, "#);
    assert_eq!(describe(std::slice::from_ref(&arguments)), [&*optional]);
    assert_eq!(describe(std::slice::from_ref(&result)), [level("")]);
    assert_eq!(describe(&[result, arguments]), [&*optional]);
}

#[test]
fn results_are_described_as_they_are_serialized() {
    #[derive(Serialize, JsonSchema)]
    struct Wire {
        seconds: f64,
    }
    #[derive(Clone, Serialize, JsonSchema)]
    #[serde(into = "Wire")]
    struct Time(u64);
    impl From<Time> for Wire {
        fn from(time: Time) -> Wire {
            Wire { seconds: time.0 as f64 }
        }
    }
    #[derive(Serialize, JsonSchema)]
    struct Report {
        time: Time,
        option: Option<u8>,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        notes: Vec<String>,
    }
    assert_eq!(
        describe(&[type_of::<Report>().unwrap()])[..2],
        [
            concat!(
                r#"{"name": "Report", "members": [{"name": "time", "type": "Time"}, "#,
                r#"{"name": "option", "default": null, "type": "int"}, "#,
                r#"{"name": "notes", "default": null, "type": "[str]"}], "meta-type": "object"}"#
            ),
            concat!(
                r#"{"name": "Time", "members": [{"name": "seconds", "type": "number"}], "#,
                r#""meta-type": "object"}"#
            ),
        ]
    );
}

#[test]
fn names_are_masked_in_the_order_of_first_use() {
    let mut introspection = Introspection::new();
    let (arguments, result) = (Arguments::none(), type_of::<Vec<Status>>().unwrap());
    introspection.command(&CommandInfo::new("first", &arguments, &result));
    let mut second = CommandInfo::new("second", &arguments, &result);
    let features = ["unstable".to_owned()];
    second.features = &features;
    second.allow_oob = true;
    introspection.command(&second);
    introspection.event(&EventInfo::new("EVENT", &type_of::<Pair>().unwrap()));
    assert_eq!(
        lines(&introspection),
        [
            r#"{"name": "first", "ret-type": "[1]", "meta-type": "command", "arg-type": "0"}"#,
            concat!(
                r#"{"name": "second", "ret-type": "[1]", "allow-oob": true, "#,
                r#""meta-type": "command", "arg-type": "0", "features": ["unstable"]}"#
            ),
            r#"{"name": "EVENT", "meta-type": "event", "arg-type": "2"}"#,
            r#"{"name": "0", "members": [], "meta-type": "object"}"#,
            r#"{"name": "[1]", "element-type": "1", "meta-type": "array"}"#,
            concat!(
                r#"{"name": "1", "members": [{"name": "running"}, {"name": "paused"}], "#,
                r#""meta-type": "enum", "values": ["running", "paused"]}"#
            ),
            concat!(
                r#"{"name": "2", "members": [{"name": "left", "type": "int"}, "#,
                r#"{"name": "right", "type": "int"}], "meta-type": "object"}"#
            ),
            r#"{"name": "int", "json-type": "int", "meta-type": "builtin"}"#,
        ]
    );
}

#[test]
fn documentation_is_kept() {
    /// A thing.
    #[derive(JsonSchema)]
    struct Thing {
        /// Its name.
        name: String,
    }
    let ty = type_of::<Thing>().unwrap();
    assert_eq!(ty.documentation(), Some("A thing."));
    assert_eq!(ty.name(), "Thing");
    let mut introspection = Introspection::new();
    introspection.event(&EventInfo::new("EVENT", &ty));
    let entries = introspection.finish();
    assert_eq!(entries[1].documentation.as_deref(), Some("A thing."));
    let qmp_dispatch::qapi::MetaType::Object { members, .. } = &entries[1].meta else {
        panic!("{entries:?}")
    };
    assert_eq!(members[0].documentation.as_deref(), Some("Its name."));
}

#[track_caller]
fn assert_refused<T: JsonSchema>(place: &str, problem: &Problem) {
    for error in [arguments_of::<T>().unwrap_err(), type_of::<T>().unwrap_err()] {
        assert_eq!((error.place.as_str(), &error.problem), (place, problem));
    }
}

#[test]
fn what_is_no_qapi_type_is_refused() {
    #[derive(JsonSchema)]
    struct Tuple {
        inner: Vec<Inner>,
    }
    #[derive(JsonSchema)]
    struct Inner {
        pair: (u8, String),
    }
    assert_refused::<Tuple>("Inner.pair", &Problem::Tuple);

    #[derive(JsonSchema)]
    struct Fixed {
        bytes: [u8; 6],
    }
    assert_refused::<Fixed>("Fixed.bytes", &Problem::Tuple);

    #[derive(JsonSchema)]
    enum External {
        Text(String),
        Nothing,
    }
    assert_refused::<External>("External", &Problem::ExternallyTagged);

    #[derive(JsonSchema)]
    struct Counts {
        by_name: HashMap<String, u8>,
    }
    assert_refused::<Counts>("Counts.by_name", &Problem::Map);

    #[derive(JsonSchema)]
    struct Gaps {
        list: Vec<Option<u8>>,
    }
    assert_refused::<Gaps>("Gaps.list", &Problem::Nullable);
    assert_refused::<Option<u8>>("Nullable_uint8", &Problem::Nullable);

    #[derive(JsonSchema)]
    struct Wide {
        number: i128,
    }
    assert_refused::<Wide>("Wide.number", &Problem::WideInteger);

    #[derive(JsonSchema)]
    #[serde(untagged)]
    enum Ambiguous {
        Text(String),
        Status(Status),
    }
    assert_refused::<Ambiguous>("Ambiguous", &Problem::Ambiguous);

    #[derive(JsonSchema)]
    struct TwoUnions {
        #[serde(flatten)]
        one: One,
        #[serde(flatten)]
        two: Two,
    }
    #[derive(JsonSchema)]
    #[serde(tag = "one")]
    enum One {
        A,
    }
    #[derive(JsonSchema)]
    #[serde(tag = "two")]
    enum Two {
        A,
    }
    assert_refused::<TwoUnions>("TwoUnions", &Problem::Flattened);

    #[derive(JsonSchema)]
    struct Clash {
        name: String,
        #[serde(flatten)]
        rest: Rest,
    }
    #[derive(JsonSchema)]
    #[serde(tag = "type")]
    enum Rest {
        A { name: String },
    }
    assert_refused::<Clash>("Clash", &Problem::Clash("name".to_owned()));

    #[derive(JsonSchema)]
    struct Endless(Box<Endless>);
    assert_refused::<Endless>("Endless", &Problem::Endless);

    #[derive(JsonSchema)]
    #[schemars(extend("x-qapi-order" = ["missing"]))]
    struct Order {
        name: String,
    }
    assert_refused::<Order>("Order", &Problem::Attribute("x-qapi-order"));
    #[derive(JsonSchema)]
    struct Features {
        #[schemars(extend("x-qapi-features" = "unstable"))]
        name: String,
    }
    assert_refused::<Features>("Features.name", &Problem::Attribute("x-qapi-features"));
}

#[test]
fn arguments_are_objects() {
    #[derive(JsonSchema)]
    struct Unit;
    for problem in [
        arguments_of::<u8>().unwrap_err().problem,
        arguments_of::<Vec<Pair>>().unwrap_err().problem,
        arguments_of::<Status>().unwrap_err().problem,
        arguments_of::<serde_json::Value>().unwrap_err().problem,
        arguments_of::<Unit>().unwrap_err().problem,
    ] {
        assert_eq!(problem, Problem::NotAnObject);
    }
    let anything = arguments_of::<serde_json::Map<String, serde_json::Value>>().unwrap();
    let object = qmp_proto::Object::from_iter([("x", 1)]);
    assert_eq!(anything.check(&object), Ok(()));
}

mod declared {
    use qmp_dispatch::qapi::{Problem, arguments_of, check_arguments_of, present, type_of};
    use qmp_dispatch::qapi_types;
    use qmp_proto::{Json, Object, Value};

    qapi_types! {
        /// With members of all kinds.
        #[derive(Debug, PartialEq)]
        pub(super) struct Copy<T: Clone, U> where U: Default {
            /// What is copied.
            pub node_name: Name,
            at_most: Option<T>,
            other: Option<U>,
            #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
            #[schemars(with = "StrOrNull")]
            backing: Option<StrOrNull>,
            nothing: Nothing,
            mode: Mode,
            snake: Snake,
        }

        #[derive(Debug, PartialEq)]
        pub(super) struct Name(pub String);
    }

    // Twice in a module, and a type in a macro that is none of ours.
    qapi_types! {
        #[derive(Debug, PartialEq, Clone, Default)]
        struct Nothing {}

        /// Documented.
        ///
        /// On several lines.
        #[serde(rename_all = "snake_case")]
        #[derive(Debug, PartialEq)]
        struct Snake {
            two_words: u8,
        }

        #[derive(Debug, PartialEq)]
        #[serde(untagged)]
        enum StrOrNull {
            Str(String),
            Null,
        }

        #[derive(Debug, PartialEq)]
        #[serde(tag = "type", rename_all = "UPPERCASE")]
        enum Mode {
            TopOnly { some_member: Option<u8> },
            Full,
        }

        struct Unit;

        struct Pair(u8, u8);
    }

    fn copy(backing: Option<StrOrNull>) -> Copy<u8, String> {
        Copy {
            node_name: Name("n".to_owned()),
            at_most: None,
            other: Some(String::new()),
            backing,
            nothing: Nothing {},
            mode: Mode::TopOnly { some_member: Some(1) },
            snake: Snake { two_words: 2 },
        }
    }

    #[test]
    fn types_are_declared_without_attributes() {
        qapi_types! {
            struct Within {
                a_b: u8,
            }
        }
        assert_eq!(Json::encode(&Within { a_b: 1 }).unwrap().as_str(), r#"{"a-b": 1}"#);
        let arguments = check_arguments_of::<Copy<u8, String>>().unwrap();
        for (backing, text) in [
            (None, ""),
            (Some(StrOrNull::Null), r#""backing": null, "#),
            (Some(StrOrNull::Str("b".to_owned())), r#""backing": "b", "#),
        ] {
            let copy = copy(backing);
            let written = Json::encode(&copy).unwrap();
            let expected = [
                r#"{"node-name": "n", "other": "", "#,
                text,
                r#""nothing": {}, "mode": {"type": "TOPONLY", "some-member": 1}, "snake": {"two_words": 2}}"#,
            ];
            assert_eq!(written.as_str(), expected.concat());
            assert_eq!(type_of::<Copy<u8, String>>().unwrap().check(&written), Ok(()));
            let Value::Object(object) = written.to_value() else { panic!() };
            assert_eq!(arguments.decode(object), Ok(copy));
        }
        let null = Object::from_iter([("at-most", Value::Null)]);
        assert!(arguments.check(&null).unwrap_err().desc.contains("'node-name' is missing"));
        assert_eq!(type_of::<Unit>().unwrap().name(), "null");
        assert_eq!(arguments_of::<Pair>().unwrap_err().problem, Problem::Tuple);
        _ = (Unit, Pair(1, 2));
    }
}
