// SPDX-License-Identifier: MIT OR Apache-2.0
//! The entries of `query-qmp-schema`: these types are written, and they describe themselves.

use schemars::JsonSchema;
use serde::{Serialize, Serializer};

/// One entry of the result of `query-qmp-schema`. Mirrors `SchemaInfo` of QEMU's `qapi/introspect.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(extend("x-qapi-order" = ["name", "meta-type", "features"]))]
#[schemars(extend("x-qapi-tag-type" = "SchemaMetaType"))]
#[non_exhaustive]
pub struct SchemaInfo {
    /// The name of the command or event, or that by which other entries refer to the type.
    pub name: String,
    /// The kind of entity, and what belongs to that kind.
    #[serde(flatten)]
    pub meta: MetaType,
    /// Features, such as `deprecated` and `unstable`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub features: Vec<String>,
    /// The documentation comment of the Rust type. Not serialized.
    #[serde(skip)]
    pub documentation: Option<String>,
}

/// What an entry of the schema is; see [`SchemaInfo`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(tag = "meta-type", rename_all = "lowercase", rename_all_fields = "kebab-case")]
#[non_exhaustive]
pub enum MetaType {
    /// A builtin type.
    Builtin {
        /// The JSON type of its values.
        json_type: SchemaJsonType,
    },
    /// A set of strings.
    Enum {
        /// The strings, in the order of their declaration.
        members: Vec<SchemaEnumMember>,
        /// Their names alone.
        #[schemars(extend("x-qapi-features" = ["deprecated"]))]
        values: Vec<String>,
    },
    /// Any number of elements of one type.
    Array {
        /// The name of their type.
        element_type: String,
    },
    /// A structure, a union or a list of arguments.
    Object {
        /// The members that all values have.
        members: Vec<SchemaMember>,
        /// In a union, the name of the member that tells the variants apart.
        #[serde(skip_serializing_if = "Option::is_none")]
        #[schemars(with = "String")]
        tag: Option<String>,
        /// In a union, the variants.
        #[serde(skip_serializing_if = "Option::is_none")]
        #[schemars(with = "Vec<SchemaVariant>")]
        variants: Option<Vec<SchemaVariant>>,
    },
    /// One of several types of different JSON type.
    Alternate {
        /// These types.
        members: Vec<SchemaAlternateMember>,
    },
    /// A command.
    Command {
        /// The name of the type of its arguments.
        arg_type: String,
        /// The name of the type of its result.
        ret_type: String,
        /// Whether it can be executed out of band.
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        allow_oob: bool,
    },
    /// An event.
    Event {
        /// The name of the type of its data.
        arg_type: String,
    },
}

/// The JSON type of a builtin type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "JSONType")]
#[expect(missing_docs, reason = "their names say it")]
pub enum SchemaJsonType {
    String,
    Number,
    Int,
    Boolean,
    Null,
    Object,
    Array,
    Value,
}

/// A value of an enum.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "SchemaInfoEnumMember")]
#[non_exhaustive]
pub struct SchemaEnumMember {
    /// The value.
    pub name: String,
    /// Features of the value.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub features: Vec<String>,
    /// The documentation comment. Not serialized.
    #[serde(skip)]
    pub documentation: Option<String>,
}

/// A member of an object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "SchemaInfoObjectMember")]
#[non_exhaustive]
pub struct SchemaMember {
    /// The name of the member.
    pub name: String,
    /// The name of its type.
    #[serde(rename = "type")]
    pub type_name: String,
    /// Whether the member can be absent. Serialized as a `default` of null, or not at all.
    #[serde(rename = "default", skip_serializing_if = "std::ops::Not::not")]
    #[serde(serialize_with = "null")]
    #[schemars(with = "serde_json::Value")]
    pub optional: bool,
    /// Features of the member.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub features: Vec<String>,
    /// The documentation comment. Not serialized.
    #[serde(skip)]
    pub documentation: Option<String>,
}

/// A variant of a union.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "SchemaInfoObjectVariant")]
#[non_exhaustive]
pub struct SchemaVariant {
    /// The value of the tag.
    pub case: String,
    /// The name of the object type whose members it adds.
    #[serde(rename = "type")]
    pub type_name: String,
}

/// A branch of an alternate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "SchemaInfoAlternateMember")]
#[non_exhaustive]
pub struct SchemaAlternateMember {
    /// The name of the type.
    #[serde(rename = "type")]
    pub type_name: String,
}

fn null<S: Serializer>(_: &bool, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_unit()
}

#[cfg(test)]
mod tests {
    use qmp_proto::Value;

    use super::SchemaInfo;
    use crate::qapi::{Arguments, CommandInfo, Introspection, type_of};

    #[test]
    fn the_schema_of_the_schema_is_what_qemu_says() {
        let mut introspection = Introspection::new();
        let result = type_of::<Vec<SchemaInfo>>().unwrap();
        introspection.command(&CommandInfo::new("query-qmp-schema", &Arguments::none(), &result));
        let json = introspection.to_json();
        assert_eq!(result.check(&json), Ok(()));
        let entries = json.to_value();
        let entries: Vec<_> = entries.as_array().unwrap().iter().map(Value::to_string).collect();
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
