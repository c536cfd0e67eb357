// SPDX-License-Identifier: MIT OR Apache-2.0
//! Types that only have a schema, for members whose own type has none or another one.

use std::borrow::Cow;

use schemars::generate::SchemaGenerator;
use schemars::{JsonSchema, Schema, json_schema};

/// Stands for any value: the schema of a member that is a [`qmp_proto::Value`].
///
/// ```
/// use qmp_dispatch::proto::Value;
/// use qmp_dispatch::qapi::Any;
/// use qmp_dispatch::qapi_types;
///
/// qapi_types! {
///     struct QomSet {
///         path: String,
///         #[schemars(with = "Any")]
///         value: Value,
///     }
/// }
///
/// # qmp_dispatch::qapi::check_arguments_of::<QomSet>().unwrap();
/// ```
#[derive(Debug)]
pub enum Any {}

impl JsonSchema for Any {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Any".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        true.into()
    }
}

/// Stands for an integer of 64 bits that may be signed or unsigned: the schema of an `i128` where introspection says `int`, and
/// nothing else is known.
#[derive(Debug)]
pub enum Int {}

impl JsonSchema for Int {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Int".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "integer", "minimum": i64::MIN, "maximum": u64::MAX})
    }
}
