// SPDX-License-Identifier: MIT OR Apache-2.0
//! How to read a JSON Schema as schemars writes it.

use std::borrow::Cow;

use serde_json::{Map, Value, json};

use super::error::Problem;
use super::model::EnumValue;
use super::place::{Misfit, Place};

pub(crate) type Schema = Map<String, Value>;

const FEATURES: &str = "x-qapi-features";
pub(crate) const ORDER: &str = "x-qapi-order";

/// Whether the schema says anything about the value, rather than only about the place it is in.
pub(crate) fn has_shape(schema: &Schema) -> bool {
    ["type", "enum", "const", "properties", "oneOf", "anyOf", "allOf", "not", "if"]
        .iter()
        .any(|key| schema.contains_key(*key))
}

/// Whether this is a type that has a name in QAPI: an enum, an object or an alternate.
pub(crate) fn is_named(schema: &Schema) -> bool {
    schema.get("type").is_some_and(|ty| ty == "object")
        || ["properties", "oneOf", "anyOf"].iter().any(|key| schema.contains_key(*key))
        || schema.get("type").is_some_and(|ty| ty == "string")
            && (schema.contains_key("enum") || schema.contains_key("const"))
}

/// The values, if this is an enum. Documented ones come as schemas of their own.
pub(crate) fn enum_values(
    schema: &Schema,
    place: &Place,
) -> Result<Option<Vec<EnumValue>>, Misfit> {
    if schema.get("type").is_some_and(|ty| ty == "string") {
        let values = array(schema, "enum").unwrap_or_default();
        let values = values.iter().chain(schema.get("const")).filter_map(Value::as_str);
        let plain =
            |name: &str| EnumValue { name: name.to_owned(), features: Vec::new(), doc: None };
        return Ok(Some(values.map(plain).collect()));
    }
    let Some(groups) = array(schema, "oneOf") else { return Ok(None) };
    let mut values = Vec::new();
    for group in groups {
        match group.as_object() {
            Some(group) if group.get("type").is_some_and(|ty| ty == "string") => {
                let features = features(group, place)?;
                let doc = doc(group);
                values.extend(enum_values(group, place)?.into_iter().flatten().map(|value| {
                    EnumValue { features: features.clone(), doc: doc.clone(), ..value }
                }));
            }
            _ => return Ok(None),
        }
    }
    Ok(Some(values))
}

/// The schema with the variants of an enum under one key. If an enum has a variant that is untagged, and skipped because it is
/// for what the schema does not have, schemars does not say that only one of the others fits.
pub(crate) fn with_variants(schema: &Schema) -> Cow<'_, Schema> {
    let unchanged = Cow::Borrowed(schema);
    let Some(branches) = array(schema, "anyOf") else { return unchanged };
    let is_value = |branch: &Value| {
        let keys = ["enum", "const"];
        branch["type"] == "string" && keys.iter().any(|key| branch.get(*key).is_some())
    };
    let tag_of = |branch: &Value| Some(tag(branch.as_object()?)?.0.to_owned());
    let first = branches.first().and_then(tag_of);
    let are_variants = first.is_some() && branches.iter().all(|branch| tag_of(branch) == first);
    if !are_variants && !branches.iter().all(is_value) {
        return unchanged;
    }
    let rename = |(key, value): (&String, &Value)| {
        let key = if key == "anyOf" { "oneOf" } else { key };
        (key.to_owned(), value.clone())
    };
    Cow::Owned(schema.iter().map(rename).collect())
}

/// Whether members without a declaration are accepted.
pub(crate) fn is_open(schema: &Schema, place: &Place) -> Result<bool, Misfit> {
    let key = ["additionalProperties", "unevaluatedProperties"];
    match key.iter().find_map(|key| schema.get(*key)) {
        None | Some(Value::Bool(false)) => Ok(false),
        Some(Value::Bool(true)) => Ok(true),
        Some(Value::Object(values)) if !has_shape(values) && !values.contains_key("$ref") => {
            Ok(true)
        }
        Some(_) => place.misfit(Problem::Map),
    }
}

/// The member that has a constant text, which is what the variants of a tagged enum have.
pub(crate) fn tag(variant: &Schema) -> Option<(&str, &str)> {
    properties(variant).find_map(|(name, schema)| {
        Some((name.as_str(), schema.as_object()?.get("const")?.as_str()?))
    })
}

/// The keyword, if there is one, that allows some values of a type and not others, and that our checks
/// know nothing of.
pub(crate) fn unchecked_keyword(schema: &Schema) -> Option<&'static str> {
    const NEVER: [&str; 18] = [
        "additionalItems",
        "contains",
        "dependencies",
        "dependentRequired",
        "dependentSchemas",
        "else",
        "exclusiveMaximum",
        "exclusiveMinimum",
        "if",
        "maxItems",
        "maxProperties",
        "minItems",
        "minProperties",
        "multipleOf",
        "pattern",
        "propertyNames",
        "then",
        "unevaluatedItems",
    ];
    let has = |keyword: &&str| schema.contains_key(*keyword);
    let of_type = |name: &str, keywords: [&'static str; 2]| {
        // A list of types is none of ours anyway.
        let fits = schema.get("type").is_some_and(|ty| ty == name || ty.is_array());
        keywords.into_iter().find(|keyword| !fits && has(keyword))
    };
    let is_nonzero = schema.get("not").is_none_or(|not| *not == json!({"const": 0}));
    let is_integer = schema.get("type").is_some_and(|ty| ty == "integer");
    let selected = ["enum", "const"].into_iter().find(|keyword| is_integer && has(keyword));
    NEVER
        .into_iter()
        .find(has)
        .or_else(|| of_type("integer", ["minimum", "maximum"]))
        .or_else(|| of_type("string", ["minLength", "maxLength"]))
        .or_else(|| (!is_nonzero || has(&"not") && !is_integer).then_some("not"))
        .or(selected)
}

/// Whether this is an array of so many elements, or of some of different types.
pub(crate) fn is_fixed(schema: &Schema) -> bool {
    schema.contains_key("prefixItems")
        || schema.get("maxItems").is_some_and(|max| *max == 0)
        || schema.contains_key("minItems") && schema.get("minItems") == schema.get("maxItems")
}

pub(crate) fn is_array(schema: &Schema) -> bool {
    schema.get("type").is_some_and(|ty| ty == "array")
}

/// The schema without the alternative of null, and whether there was one: what `Option` adds.
pub(crate) fn without_null(schema: &Value) -> (Cow<'_, Value>, bool) {
    let unchanged = (Cow::Borrowed(schema), false);
    let Value::Object(object) = schema else { return unchanged };
    let is_null = |schema: &Value| *schema == json!({"type": "null"});
    if let Some(Value::Array(types)) = object.get("type")
        && let [ty, null] = types.as_slice()
        && null == "null"
    {
        let mut present = object.clone();
        present.insert("type".to_owned(), ty.clone());
        if let Some(Value::Array(values)) = present.get_mut("enum") {
            values.retain(|value| !value.is_null());
        }
        return (Cow::Owned(present.into()), true);
    }
    if let Some([present, null]) = array(object, "anyOf")
        && is_null(null)
    {
        return (Cow::Borrowed(present), true);
    }
    unchanged
}

pub(crate) fn array<'s>(schema: &'s Schema, key: &str) -> Option<&'s [Value]> {
    schema.get(key)?.as_array().map(Vec::as_slice)
}

pub(crate) fn properties(schema: &Schema) -> impl Iterator<Item = (&String, &Value)> {
    schema.get("properties").and_then(Value::as_object).into_iter().flatten()
}

pub(crate) fn doc(schema: &Schema) -> Option<String> {
    Some(schema.get("description")?.as_str()?.to_owned())
}

pub(crate) fn features(schema: &Schema, place: &Place) -> Result<Vec<String>, Misfit> {
    let mut features = Vec::new();
    if schema.get("deprecated") == Some(&Value::Bool(true)) {
        features.push("deprecated".to_owned());
    }
    for name in names(schema, FEATURES, place)?.unwrap_or_default() {
        if !features.iter().any(|feature| feature == name) {
            features.push(name.to_owned());
        }
    }
    Ok(features)
}

/// Puts those first that the schema's attribute names, in its order.
pub(crate) fn in_order<T>(
    schema: &Schema,
    attribute: &'static str,
    mut items: Vec<T>,
    name: impl Fn(&T) -> &str,
    place: &Place,
) -> Result<Vec<T>, Misfit> {
    let Some(order) = names(schema, attribute, place)? else { return Ok(items) };
    if order.iter().any(|wanted| !items.iter().any(|item| name(item) == *wanted)) {
        return place.misfit(Problem::Attribute(attribute));
    }
    items.sort_by_key(|item| {
        order.iter().position(|wanted| *wanted == name(item)).unwrap_or(order.len())
    });
    Ok(items)
}

/// The strings that an attribute lists.
pub(crate) fn names<'s>(
    schema: &'s Schema,
    key: &'static str,
    place: &Place,
) -> Result<Option<Vec<&'s str>>, Misfit> {
    let Some(value) = schema.get(key) else { return Ok(None) };
    match value.as_array().and_then(|names| names.iter().map(Value::as_str).collect()) {
        Some(names) => Ok(Some(names)),
        None => place.misfit(Problem::Attribute(key)),
    }
}
