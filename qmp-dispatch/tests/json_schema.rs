// SPDX-License-Identifier: MIT OR Apache-2.0
//! What matches the JSON Schema of a command is what its checks accept.

#![allow(dead_code, deprecated)]

mod shapes;
mod validator;

use proptest::prelude::*;
use proptest::sample::Index;
use qmp_dispatch::proto::Error;
use qmp_dispatch::qapi::{Arguments, CommandInfo, Introspection, Policy, Type};
use qmp_dispatch::qapi::{OutputPolicy, arguments_of};
use qmp_dispatch::{Context, EventType, Registry};
use qmp_proto::{Object, Value};
use schemars::{JsonSchema, Schema};
use serde::{Deserialize, Serialize};

use shapes::root;

fn schema_of(arguments: &Arguments) -> Schema {
    let mut introspection = Introspection::new();
    introspection.command(&CommandInfo::new("command", arguments, &Type::empty()));
    introspection.json_schema()
}

fn matches(schema: &Schema, arguments: &Object) -> bool {
    // Not by way of QEMU's text, which has doubles without a point.
    let arguments = serde_json::to_value(Value::from(arguments.clone())).unwrap();
    validator::matches(schema, "/commands/command/arguments", &arguments)
}

/// What is accepted matches once negative numbers have become the large ones that they stand for.
#[track_caller]
fn check_same(arguments: &Arguments, schema: &Schema, object: &Object) {
    match arguments.prepare(object.clone()) {
        Ok(ready) => assert!(matches(schema, &ready), "{ready:?} in {schema:?}"),
        Err(error) => assert!(!matches(schema, object), "{error}: {object:?} in {schema:?}"),
    }
}

proptest! {
    #[test]
    fn what_matches_is_what_is_accepted(
        shape in root(),
        choices in prop::collection::vec(any::<Index>(), 50),
    ) {
        let arguments = shapes::arguments(&shape);
        let schema = schema_of(&arguments);
        let mut choices = choices.iter().cycle();
        let value = shape.value(&mut |n| choices.next().unwrap().index(n));
        let object = value.as_object().unwrap();
        prop_assert!(arguments.check(object).is_ok());
        check_same(&arguments, &schema, object);
        for mistake in shape.mistakes(&value) {
            if let Some(object) = mistake.as_object() {
                check_same(&arguments, &schema, object);
            }
        }
    }
}

/// How to make a picture.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
struct Dump {
    file_name: String,
    #[deprecated]
    quality: Option<u8>,
    #[serde(default)]
    when: When,
    #[serde(flatten)]
    format: Format,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum When {
    #[default]
    Now,
    /// At the next frame.
    Later,
}

#[derive(Deserialize, JsonSchema)]
#[serde(tag = "format", rename_all = "lowercase")]
enum Format {
    Ppm,
    Png(Png),
}

/// Portable network graphics.
#[derive(Deserialize, JsonSchema)]
struct Png {
    device: IdOrPath,
    head: Option<i64>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
enum IdOrPath {
    Id(u32),
    Path(Vec<String>),
}

#[derive(Serialize, JsonSchema)]
struct Dumped {
    name: String,
}

const DUMPED: EventType<Dumped> = EventType::new("DUMPED");

fn registry() -> Registry {
    let mut registry = Registry::new();
    registry
        .command("dump", |_: &Context, _: Dump| Ok::<_, Error>(vec![7u16]))
        .unwrap()
        .documented("Makes a picture.")
        .unstable()
        .allow_oob();
    registry.event(&DUMPED).unwrap().documented("A picture was made.").deprecated();
    registry
}

#[test]
fn a_command_and_its_types_are_described() {
    let schema = registry().json_schema();
    let expected = serde_json::json!({
        "description": "Makes a picture.",
        "x-qapi-features": ["unstable"],
        "allow-oob": true,
        "arguments": {"$ref": "#/$defs/Dump"},
        "result": {
            "type": "array",
            "items": {"type": "integer", "format": "uint16", "minimum": 0, "maximum": 65535}
        }
    });
    assert_eq!(schema.pointer("/commands/dump"), Some(&expected));

    let common = serde_json::json!({
        "file-name": {"type": "string"},
        "quality": {
            "deprecated": true,
            "x-qapi-features": ["deprecated"],
            "type": "integer",
            "format": "uint8",
            "minimum": 0,
            "maximum": 255
        },
        "when": {"$ref": "#/$defs/When"}
    });
    let case = |mut about: serde_json::Value, format: &str, more: serde_json::Value| {
        let mut properties = serde_json::json!({"format": {"type": "string", "const": format}});
        for members in [&common, &more] {
            properties.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
        }
        about["type"] = "object".into();
        let own = more.as_object().unwrap().keys().find(|name| *name == "device");
        let required = ["format", "file-name"].into_iter().chain(own.map(String::as_str));
        about["required"] = required.collect();
        about["properties"] = properties;
        about["additionalProperties"] = false.into();
        about
    };
    let png = serde_json::json!({
        "device": {"$ref": "#/$defs/IdOrPath"},
        "head": {
            "type": "integer", "format": "int64", "minimum": i64::MIN, "maximum": i64::MAX
        }
    });
    let about_png =
        serde_json::json!({"title": "Png", "description": "Portable network graphics."});
    let expected = serde_json::json!({
        "description": "How to make a picture.",
        "oneOf": [
            case(serde_json::json!({}), "ppm", serde_json::json!({})),
            case(about_png, "png", png),
        ]
    });
    assert_eq!(schema.pointer("/$defs/Dump"), Some(&expected));

    let expected = serde_json::json!({
        "type": "string",
        "oneOf": [{"const": "now"}, {"description": "At the next frame.", "const": "later"}]
    });
    assert_eq!(schema.pointer("/$defs/When"), Some(&expected));
    let expected = serde_json::json!({
        "anyOf": [
            {"type": "integer", "format": "uint32", "minimum": 0, "maximum": u32::MAX},
            {"type": "array", "items": {"type": "string"}}
        ]
    });
    assert_eq!(schema.pointer("/$defs/IdOrPath"), Some(&expected));
    assert_eq!(schema.pointer("/$defs/Png"), None, "nothing refers to it");
}

#[test]
fn an_event_is_described() {
    let schema = registry().json_schema();
    let expected = serde_json::json!({
        "description": "A picture was made.",
        "deprecated": true,
        "x-qapi-features": ["deprecated"],
        "data": {"$ref": "#/$defs/Dumped"}
    });
    assert_eq!(schema.pointer("/events/DUMPED"), Some(&expected));
}

#[test]
fn the_commands_of_the_protocol_are_there_and_take_no_arguments() {
    let schema = registry().json_schema();
    let expected = serde_json::json!({
        "type": "object", "properties": {}, "required": [], "additionalProperties": false
    });
    assert_eq!(schema.pointer("/commands/query-version/arguments"), Some(&expected));
}

#[test]
fn what_the_policy_hides_is_left_out() {
    let mut registry = registry();
    let policy = Policy { deprecated_output: OutputPolicy::Hide, ..Policy::default() };
    registry.set_policy(policy);
    let schema = registry.json_schema();
    assert_eq!(schema.pointer("/events/DUMPED"), None);
    assert_eq!(schema.pointer("/$defs/Dump/oneOf/0/properties/quality"), None);
    assert!(schema.pointer("/$defs/Dump/oneOf/0/properties/when").is_some());
}

mod elsewhere {
    #[derive(serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
    pub(crate) struct Png {
        pub(crate) head: u16,
    }
}

#[test]
fn types_that_introspection_cannot_tell_apart_are_two() {
    /// Of any width.
    #[derive(Deserialize, JsonSchema)]
    struct Pngs {
        one: elsewhere::Png,
        more: Vec<Wide>,
    }
    #[derive(Deserialize, JsonSchema)]
    #[schemars(rename = "Png")]
    struct Wide {
        head: i64,
    }
    let arguments = arguments_of::<Pngs>().unwrap();
    let schema = schema_of(&arguments);
    assert_eq!(schema.pointer("/$defs/Png/properties/head/maximum").unwrap(), u16::MAX);
    assert_eq!(schema.pointer("/$defs/Png2/properties/head/maximum").unwrap(), i64::MAX);
}

#[test]
fn people_are_told_names_and_documentation() {
    let entries = registry().introspection().unmasked(true).finish();
    let find = |name: &str| entries.iter().find(|entry| entry.name == name).unwrap();
    assert_eq!(find("dump").documentation.as_deref(), Some("Makes a picture."));
    assert_eq!(find("DUMPED").documentation.as_deref(), Some("A picture was made."));
    assert_eq!(find("Dump").documentation.as_deref(), Some("How to make a picture."));
}
