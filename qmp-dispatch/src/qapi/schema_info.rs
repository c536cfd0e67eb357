// SPDX-License-Identifier: MIT OR Apache-2.0
//! The entries of `query-qmp-schema`.

use serde::ser::{Serialize, SerializeMap, Serializer};

/// One entry of the result of `query-qmp-schema`.
///
/// Serializes with QEMU's members in QEMU's order. Mirrors `SchemaInfo` of QEMU's
/// `qapi/introspect.json`.
///
/// ```
/// use qmp_dispatch::{Registry, proto::Json};
///
/// let entries = Registry::new().introspection().unmasked(true).finish();
/// let version = entries.iter().find(|entry| entry.name == "VersionInfo").unwrap();
/// let json = Json::encode(version).unwrap();
/// assert!(json.as_str().starts_with(r#"{"name": "VersionInfo", "members": ["#));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SchemaInfo {
    /// The name of the command or event, or that by which other entries refer to the type.
    pub name: String,
    /// What kind of entity this is, and what belongs to that kind.
    pub meta: MetaType,
    /// Features, such as `deprecated` and `unstable`.
    pub features: Vec<String>,
    /// The documentation comment of the Rust type. Not serialized.
    pub documentation: Option<String>,
}

/// What an entry of the schema is.
///
/// ```
/// use qmp_dispatch::Registry;
/// use qmp_dispatch::qapi::MetaType;
///
/// let entries = Registry::new().introspection().unmasked(true).finish();
/// let command = entries.iter().find(|entry| entry.name == "query-version").unwrap();
/// let MetaType::Command { ret_type, allow_oob, .. } = &command.meta else { panic!() };
/// assert_eq!((ret_type.as_str(), *allow_oob), ("VersionInfo", false));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MetaType {
    /// A type that is there from the beginning.
    Builtin {
        /// `string`, `int`, `number`, `boolean`, `null` or `value`.
        json_type: &'static str,
    },
    /// A set of strings.
    Enum {
        /// The strings, in the order of their declaration.
        members: Vec<SchemaEnumMember>,
    },
    /// Any number of alike elements.
    Array {
        /// The name of their type.
        element_type: String,
    },
    /// A structure, a union or a list of arguments.
    Object {
        /// The members that all values have.
        members: Vec<SchemaMember>,
        /// In a union, the name of the member that tells the variants apart, and the variants.
        union: Option<(String, Vec<SchemaVariant>)>,
    },
    /// One of several types of different JSON type.
    Alternate {
        /// The names of these types.
        members: Vec<String>,
    },
    /// A command.
    Command {
        /// The name of the type of its arguments.
        arg_type: String,
        /// The name of the type of its result.
        ret_type: String,
        /// Whether it can be executed out of band.
        allow_oob: bool,
    },
    /// An event.
    Event {
        /// The name of the type of its data.
        arg_type: String,
    },
}

/// A value of an enum.
///
/// ```
/// use qmp_dispatch::qapi::{EventInfo, Introspection, MetaType, type_of};
///
/// #[derive(schemars::JsonSchema)]
/// struct Change {
///     to: State,
/// }
///
/// #[derive(schemars::JsonSchema)]
/// #[schemars(rename_all = "kebab-case")]
/// enum State {
///     On,
///     /// For good.
///     SwitchedOff,
/// }
///
/// let mut introspection = Introspection::new();
/// introspection.unmasked(true).event(&EventInfo::new("CHANGE", &type_of::<Change>()?));
/// let entries = introspection.finish();
/// let state = entries.into_iter().find(|entry| entry.name == "State").unwrap();
/// let MetaType::Enum { members } = state.meta else { panic!() };
/// assert_eq!(members[1].name, "switched-off");
/// assert_eq!(members[1].documentation.as_deref(), Some("For good."));
/// # Ok::<(), qmp_dispatch::qapi::SchemaError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SchemaEnumMember {
    /// The value.
    pub name: String,
    /// Features of the value.
    pub features: Vec<String>,
    /// The documentation comment. Not serialized.
    pub documentation: Option<String>,
}

/// A member of an object.
///
/// ```
/// use qmp_dispatch::qapi::{EventInfo, Introspection, MetaType, type_of};
///
/// #[derive(schemars::JsonSchema)]
/// struct Resized {
///     device: Option<String>,
/// }
///
/// let mut introspection = Introspection::new();
/// introspection.unmasked(true).event(&EventInfo::new("RESIZED", &type_of::<Resized>()?));
/// let MetaType::Object { members, union } = &introspection.finish()[1].meta else { panic!() };
/// assert_eq!((members[0].name.as_str(), members[0].type_name.as_str()), ("device", "str"));
/// assert!(members[0].optional && union.is_none());
/// # Ok::<(), qmp_dispatch::qapi::SchemaError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SchemaMember {
    /// The name of the member.
    pub name: String,
    /// The name of its type.
    pub type_name: String,
    /// Whether the member can be absent. On the wire, a `default` of null says so.
    pub optional: bool,
    /// Features of the member.
    pub features: Vec<String>,
    /// The documentation comment. Not serialized.
    pub documentation: Option<String>,
}

/// A variant of a union.
///
/// ```
/// use qmp_dispatch::qapi::{EventInfo, Introspection, MetaType, type_of};
///
/// #[derive(schemars::JsonSchema)]
/// #[schemars(tag = "driver", rename_all = "kebab-case")]
/// enum Disk {
///     File { filename: String },
/// }
///
/// let mut introspection = Introspection::new();
/// introspection.unmasked(true).event(&EventInfo::new("DISK_ADDED", &type_of::<Disk>()?));
/// let MetaType::Object { union, .. } = &introspection.finish()[1].meta else { panic!() };
/// let (tag, variants) = union.as_ref().unwrap();
/// assert_eq!((tag.as_str(), variants[0].case.as_str()), ("driver", "file"));
/// # Ok::<(), qmp_dispatch::qapi::SchemaError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SchemaVariant {
    /// The value of the tag.
    pub case: String,
    /// The name of the object type whose members it adds.
    pub type_name: String,
}

// The order of members below is that of QEMU's hash table; a test compares.

impl Serialize for SchemaInfo {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("name", &self.name)?;
        match &self.meta {
            MetaType::Builtin { json_type } => {
                map.serialize_entry("json-type", json_type)?;
                map.serialize_entry("meta-type", "builtin")?;
            }
            MetaType::Enum { members } => {
                map.serialize_entry("members", members)?;
                map.serialize_entry("meta-type", "enum")?;
                let values: Vec<&str> = members.iter().map(|value| value.name.as_str()).collect();
                map.serialize_entry("values", &values)?;
            }
            MetaType::Array { element_type } => {
                map.serialize_entry("element-type", element_type)?;
                map.serialize_entry("meta-type", "array")?;
            }
            MetaType::Object { members, union } => {
                if let Some((tag, variants)) = union {
                    map.serialize_entry("tag", tag)?;
                    map.serialize_entry("variants", variants)?;
                }
                map.serialize_entry("members", members)?;
                map.serialize_entry("meta-type", "object")?;
            }
            MetaType::Alternate { members } => {
                let members: Vec<_> = members.iter().map(|ty| TypeOnly(ty)).collect();
                map.serialize_entry("members", &members)?;
                map.serialize_entry("meta-type", "alternate")?;
            }
            MetaType::Command { arg_type, ret_type, allow_oob } => {
                map.serialize_entry("ret-type", ret_type)?;
                if *allow_oob {
                    map.serialize_entry("allow-oob", allow_oob)?;
                }
                map.serialize_entry("meta-type", "command")?;
                map.serialize_entry("arg-type", arg_type)?;
            }
            MetaType::Event { arg_type } => {
                map.serialize_entry("meta-type", "event")?;
                map.serialize_entry("arg-type", arg_type)?;
            }
        }
        serialize_features(&self.features, &mut map)?;
        map.end()
    }
}

impl Serialize for SchemaEnumMember {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("name", &self.name)?;
        serialize_features(&self.features, &mut map)?;
        map.end()
    }
}

impl Serialize for SchemaMember {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("name", &self.name)?;
        if self.optional {
            map.serialize_entry("default", &())?;
        }
        map.serialize_entry("type", &self.type_name)?;
        serialize_features(&self.features, &mut map)?;
        map.end()
    }
}

impl Serialize for SchemaVariant {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(2))?;
        map.serialize_entry("case", &self.case)?;
        map.serialize_entry("type", &self.type_name)?;
        map.end()
    }
}

/// A branch of an alternate.
struct TypeOnly<'a>(&'a str);

impl Serialize for TypeOnly<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(1))?;
        map.serialize_entry("type", self.0)?;
        map.end()
    }
}

fn serialize_features<M: SerializeMap>(features: &[String], map: &mut M) -> Result<(), M::Error> {
    if features.is_empty() {
        return Ok(());
    }
    map.serialize_entry("features", features)
}

#[cfg(test)]
mod tests {
    use qmp_proto::{Json, Object, Value};

    use super::*;

    fn every_kind() -> Vec<SchemaInfo> {
        let features = || vec!["unstable".to_owned()];
        let info = |meta| SchemaInfo {
            name: "x".to_owned(),
            meta,
            features: features(),
            documentation: None,
        };
        let members = vec![SchemaMember {
            name: "m".to_owned(),
            type_name: "str".to_owned(),
            optional: true,
            features: features(),
            documentation: None,
        }];
        let variants = vec![SchemaVariant { case: "c".to_owned(), type_name: "0".to_owned() }];
        let value =
            SchemaEnumMember { name: "v".to_owned(), features: features(), documentation: None };
        vec![
            info(MetaType::Builtin { json_type: "int" }),
            info(MetaType::Enum { members: vec![value] }),
            info(MetaType::Array { element_type: "str".to_owned() }),
            info(MetaType::Object { members, union: Some(("m".to_owned(), variants)) }),
            info(MetaType::Alternate { members: vec!["str".to_owned()] }),
            info(MetaType::Command {
                arg_type: "0".to_owned(),
                ret_type: "0".to_owned(),
                allow_oob: true,
            }),
            info(MetaType::Event { arg_type: "0".to_owned() }),
        ]
    }

    fn assert_in_qemu_order(value: &Value) {
        fn names<'a>(members: impl Iterator<Item = (&'a str, &'a Value)>) -> Vec<&'a str> {
            members.map(|(name, _)| name).collect()
        }
        match value {
            Value::Object(object) => {
                assert_eq!(names(object.iter()), names(Object::iter_in_qemu_order(object)));
                object.iter().for_each(|(_, value)| assert_in_qemu_order(value));
            }
            Value::Array(array) => array.iter().for_each(assert_in_qemu_order),
            _ => {}
        }
    }

    #[test]
    fn members_come_in_the_order_of_qemu() {
        for info in every_kind() {
            assert_in_qemu_order(&Json::encode(&info).unwrap().to_value());
        }
    }

    #[test]
    fn a_member_without_extras_is_name_and_type() {
        let member = SchemaMember {
            name: "m".to_owned(),
            type_name: "str".to_owned(),
            optional: false,
            features: Vec::new(),
            documentation: None,
        };
        assert_eq!(Json::encode(&member).unwrap().as_str(), r#"{"name": "m", "type": "str"}"#);
    }
}
