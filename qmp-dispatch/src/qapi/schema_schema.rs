// SPDX-License-Identifier: MIT OR Apache-2.0
//! The schema of the schema: what `query-qmp-schema` says about its own result.

// Only their derived schemas are used.
#![allow(dead_code)]

use std::borrow::Cow;

use schemars::generate::SchemaGenerator;
use schemars::{JsonSchema, Schema};
use serde::Serialize;

use super::schema_info::SchemaInfo;

impl JsonSchema for SchemaInfo {
    fn schema_name() -> Cow<'static, str> {
        "SchemaInfo".into()
    }

    fn schema_id() -> Cow<'static, str> {
        concat!(module_path!(), "::SchemaInfo").into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        Info::json_schema(generator)
    }
}

#[derive(Serialize, JsonSchema)]
#[schemars(extend("x-qapi-order" = ["name", "meta-type", "features"]))]
#[schemars(extend("x-qapi-tag-type" = "SchemaMetaType"))]
struct Info {
    name: String,
    features: Option<Vec<String>>,
    #[serde(flatten)]
    meta: Meta,
}

#[derive(Serialize, JsonSchema)]
#[serde(tag = "meta-type", rename_all = "lowercase")]
enum Meta {
    Builtin(SchemaInfoBuiltin),
    Enum(SchemaInfoEnum),
    Array(SchemaInfoArray),
    Object(SchemaInfoObject),
    Alternate(SchemaInfoAlternate),
    Command(SchemaInfoCommand),
    Event(SchemaInfoEvent),
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
struct SchemaInfoBuiltin {
    json_type: JSONType,
}

#[derive(Serialize, JsonSchema)]
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

#[derive(Serialize, JsonSchema)]
struct SchemaInfoEnum {
    members: Vec<SchemaInfoEnumMember>,
    #[schemars(extend("x-qapi-features" = ["deprecated"]))]
    values: Vec<String>,
}

#[derive(Serialize, JsonSchema)]
struct SchemaInfoEnumMember {
    name: String,
    features: Option<Vec<String>>,
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
struct SchemaInfoArray {
    element_type: String,
}

#[derive(Serialize, JsonSchema)]
struct SchemaInfoObject {
    members: Vec<SchemaInfoObjectMember>,
    tag: Option<String>,
    variants: Option<Vec<SchemaInfoObjectVariant>>,
}

#[derive(Serialize, JsonSchema)]
struct SchemaInfoObjectMember {
    name: String,
    r#type: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    default: Option<serde_json::Value>,
    features: Option<Vec<String>>,
}

#[derive(Serialize, JsonSchema)]
struct SchemaInfoObjectVariant {
    case: String,
    r#type: String,
}

#[derive(Serialize, JsonSchema)]
struct SchemaInfoAlternate {
    members: Vec<SchemaInfoAlternateMember>,
}

#[derive(Serialize, JsonSchema)]
struct SchemaInfoAlternateMember {
    r#type: String,
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
struct SchemaInfoCommand {
    arg_type: String,
    ret_type: String,
    allow_oob: Option<bool>,
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
struct SchemaInfoEvent {
    arg_type: String,
}

#[cfg(test)]
mod tests {
    use qmp_proto::{Json, Value};

    use super::*;
    use crate::qapi::{Arguments, CommandInfo, Introspection, type_of};

    fn entries_of_result() -> Vec<Value> {
        let mut introspection = Introspection::new();
        let result = type_of::<Vec<SchemaInfo>>().unwrap();
        introspection.command(&CommandInfo::new("query-qmp-schema", &Arguments::none(), &result));
        let json = Json::encode(&introspection.finish()).unwrap();
        json.to_value().as_array().unwrap().to_vec()
    }

    #[test]
    fn is_what_qemu_says() {
        let entries: Vec<String> = entries_of_result().iter().map(Value::to_string).collect();
        assert_eq!(
            entries.join("\n"),
            r#"{"name": "query-qmp-schema", "ret-type": "[1]", "meta-type": "command", "arg-type": "0"}
{"name": "0", "members": [], "meta-type": "object"}
{"name": "[1]", "element-type": "1", "meta-type": "array"}
{"name": "1", "tag": "meta-type", "variants": [{"case": "builtin", "type": "3"}, {"case": "enum", "type": "4"}, {"case": "array", "type": "5"}, {"case": "object", "type": "6"}, {"case": "alternate", "type": "7"}, {"case": "command", "type": "8"}, {"case": "event", "type": "9"}], "members": [{"name": "name", "type": "str"}, {"name": "meta-type", "type": "2"}, {"name": "features", "default": null, "type": "[str]"}], "meta-type": "object"}
{"name": "str", "json-type": "string", "meta-type": "builtin"}
{"name": "2", "members": [{"name": "builtin"}, {"name": "enum"}, {"name": "array"}, {"name": "object"}, {"name": "alternate"}, {"name": "command"}, {"name": "event"}], "meta-type": "enum", "values": ["builtin", "enum", "array", "object", "alternate", "command", "event"]}
{"name": "[str]", "element-type": "str", "meta-type": "array"}
{"name": "3", "members": [{"name": "json-type", "type": "10"}], "meta-type": "object"}
{"name": "4", "members": [{"name": "members", "type": "[11]"}, {"name": "values", "type": "[str]", "features": ["deprecated"]}], "meta-type": "object"}
{"name": "5", "members": [{"name": "element-type", "type": "str"}], "meta-type": "object"}
{"name": "6", "members": [{"name": "members", "type": "[12]"}, {"name": "tag", "default": null, "type": "str"}, {"name": "variants", "default": null, "type": "[13]"}], "meta-type": "object"}
{"name": "7", "members": [{"name": "members", "type": "[14]"}], "meta-type": "object"}
{"name": "8", "members": [{"name": "arg-type", "type": "str"}, {"name": "ret-type", "type": "str"}, {"name": "allow-oob", "default": null, "type": "bool"}], "meta-type": "object"}
{"name": "9", "members": [{"name": "arg-type", "type": "str"}], "meta-type": "object"}
{"name": "10", "members": [{"name": "string"}, {"name": "number"}, {"name": "int"}, {"name": "boolean"}, {"name": "null"}, {"name": "object"}, {"name": "array"}, {"name": "value"}], "meta-type": "enum", "values": ["string", "number", "int", "boolean", "null", "object", "array", "value"]}
{"name": "[11]", "element-type": "11", "meta-type": "array"}
{"name": "11", "members": [{"name": "name", "type": "str"}, {"name": "features", "default": null, "type": "[str]"}], "meta-type": "object"}
{"name": "[12]", "element-type": "12", "meta-type": "array"}
{"name": "12", "members": [{"name": "name", "type": "str"}, {"name": "type", "type": "str"}, {"name": "default", "default": null, "type": "any"}, {"name": "features", "default": null, "type": "[str]"}], "meta-type": "object"}
{"name": "[13]", "element-type": "13", "meta-type": "array"}
{"name": "13", "members": [{"name": "case", "type": "str"}, {"name": "type", "type": "str"}], "meta-type": "object"}
{"name": "[14]", "element-type": "14", "meta-type": "array"}
{"name": "14", "members": [{"name": "type", "type": "str"}], "meta-type": "object"}
{"name": "bool", "json-type": "boolean", "meta-type": "builtin"}
{"name": "any", "json-type": "value", "meta-type": "builtin"}"#
        );
    }
}
