// SPDX-License-Identifier: MIT OR Apache-2.0
//! As much of JSON Schema as we write, and nothing else: an unknown keyword is a panic.

use schemars::Schema;
use serde_json::Value;

/// Whether the value matches the schema at this place of the document.
pub(crate) fn matches(document: &Schema, pointer: &str, value: &Value) -> bool {
    let schema = document.pointer(pointer).unwrap_or_else(|| panic!("nothing at {pointer}"));
    let keywords = schema.as_object().unwrap();
    keywords.iter().all(|(keyword, expected)| {
        let matches_here =
            |schema: &str| matches(document, &format!("{pointer}/{keyword}/{schema}"), value);
        match keyword.as_str() {
            "description" | "title" | "deprecated" | "x-qapi-features" | "format" => true,
            "$ref" => {
                matches(document, expected.as_str().unwrap().strip_prefix('#').unwrap(), value)
            }
            "type" => has_type(value, expected.as_str().unwrap()),
            "const" => value == expected,
            "enum" => expected.as_array().unwrap().contains(value),
            "minimum" => !value.is_number() || integer(value) >= integer(expected),
            "maximum" => !value.is_number() || integer(value) <= integer(expected),
            "minLength" => length(value).is_none_or(|length| length >= expected.as_u64().unwrap()),
            "maxLength" => length(value).is_none_or(|length| length <= expected.as_u64().unwrap()),
            "not" => !matches(document, &format!("{pointer}/not"), value),
            "anyOf" => indices(expected).any(|index| matches_here(&index)),
            "oneOf" => indices(expected).filter(|index| matches_here(index)).count() == 1,
            "items" => match value {
                Value::Array(elements) => elements
                    .iter()
                    .all(|element| matches(document, &format!("{pointer}/items"), element)),
                _ => true,
            },
            "required" => match value {
                Value::Object(members) => expected
                    .as_array()
                    .unwrap()
                    .iter()
                    .all(|name| members.contains_key(name.as_str().unwrap())),
                _ => true,
            },
            "properties" => match value {
                Value::Object(members) => members.iter().all(|(name, member)| {
                    let place = format!("{pointer}/properties/{name}");
                    expected.get(name).is_none() || matches(document, &place, member)
                }),
                _ => true,
            },
            "additionalProperties" => match value {
                Value::Object(members) => {
                    let known = keywords.get("properties").and_then(Value::as_object);
                    let is_known = |name| known.is_some_and(|known| known.contains_key(name));
                    expected.as_bool().unwrap() || members.keys().all(is_known)
                }
                _ => true,
            },
            unknown => panic!("the keyword {unknown} at {pointer}"),
        }
    })
}

fn indices(list: &Value) -> impl Iterator<Item = String> {
    (0..list.as_array().unwrap().len()).map(|index| index.to_string())
}

/// QEMU's integers are written as such, where JSON Schema takes 1.0 for one.
fn has_type(value: &Value, name: &str) -> bool {
    match name {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        unknown => panic!("the type {unknown}"),
    }
}

/// Numbers with a fraction are no integers, and so beyond any bound.
fn integer(number: &Value) -> Option<i128> {
    number.as_i64().map(i128::from).or_else(|| number.as_u64().map(i128::from))
}

fn length(value: &Value) -> Option<u64> {
    Some(value.as_str()?.chars().count() as u64)
}
