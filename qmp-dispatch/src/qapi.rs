// SPDX-License-Identifier: MIT OR Apache-2.0
//! QAPI's view of Rust types.

mod check;
mod derive;
mod error;
mod hash_order;
mod introspection;
mod model;
mod path;
mod schema_info;
mod schema_schema;
mod types;
mod unsigned;

pub use error::{Problem, SchemaError};
pub use introspection::{CommandInfo, Introspection};
pub use schema_info::{MetaType, SchemaEnumMember, SchemaInfo, SchemaMember, SchemaVariant};
pub use types::{Arguments, Type, arguments_of, type_of};
