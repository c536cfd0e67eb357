// SPDX-License-Identifier: MIT OR Apache-2.0
//! The QAPI types of results that are not serialized from a type of this crate.

#![expect(dead_code, reason = "these types only describe others")]

use schemars::JsonSchema;

#[derive(JsonSchema)]
pub(super) struct VersionInfo {
    qemu: VersionTriple,
    package: String,
}

#[derive(JsonSchema)]
struct VersionTriple {
    major: i64,
    minor: i64,
    micro: i64,
}

#[derive(JsonSchema)]
pub(super) struct SchemaInfo {
    name: String,
    features: Option<Vec<String>>,
    #[serde(flatten)]
    meta: SchemaMeta,
}

#[derive(JsonSchema)]
#[serde(tag = "meta-type", rename_all = "lowercase")]
enum SchemaMeta {
    Builtin(SchemaInfoBuiltin),
    Enum(SchemaInfoEnum),
    Array(SchemaInfoArray),
    Object(SchemaInfoObject),
    Alternate(SchemaInfoAlternate),
    Command(SchemaInfoCommand),
    Event(SchemaInfoEvent),
}

#[derive(JsonSchema)]
#[serde(rename_all = "kebab-case")]
struct SchemaInfoBuiltin {
    json_type: JSONType,
}

#[derive(JsonSchema)]
#[serde(rename_all = "lowercase")]
enum JSONType {
    String,
    Number,
    Int,
    Boolean,
    Null,
    Object,
    Array,
    Value,
}

#[derive(JsonSchema)]
struct SchemaInfoEnum {
    members: Vec<SchemaInfoEnumMember>,
    #[schemars(extend("x-qapi-features" = ["deprecated"]))]
    values: Vec<String>,
}

#[derive(JsonSchema)]
struct SchemaInfoEnumMember {
    name: String,
    features: Option<Vec<String>>,
}

#[derive(JsonSchema)]
#[serde(rename_all = "kebab-case")]
struct SchemaInfoArray {
    element_type: String,
}

#[derive(JsonSchema)]
struct SchemaInfoObject {
    members: Vec<SchemaInfoObjectMember>,
    tag: Option<String>,
    variants: Option<Vec<SchemaInfoObjectVariant>>,
}

#[derive(JsonSchema)]
struct SchemaInfoObjectMember {
    name: String,
    r#type: String,
    default: Option<serde_json::Value>,
    features: Option<Vec<String>>,
}

#[derive(JsonSchema)]
struct SchemaInfoObjectVariant {
    case: String,
    r#type: String,
}

#[derive(JsonSchema)]
struct SchemaInfoAlternate {
    members: Vec<SchemaInfoAlternateMember>,
}

#[derive(JsonSchema)]
struct SchemaInfoAlternateMember {
    r#type: String,
}

#[derive(JsonSchema)]
#[serde(rename_all = "kebab-case")]
struct SchemaInfoCommand {
    arg_type: String,
    ret_type: String,
    allow_oob: Option<bool>,
}

#[derive(JsonSchema)]
#[serde(rename_all = "kebab-case")]
struct SchemaInfoEvent {
    arg_type: String,
}
