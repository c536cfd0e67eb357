// SPDX-License-Identifier: MIT OR Apache-2.0
//! QAPI types of Rust types.
//!
//! QEMU describes its commands in a schema language, QAPI, and generates from it what checks
//! arguments and what `query-qmp-schema` reports. Here, the same follows from Rust types: from a
//! type that implements [`JsonSchema`](schemars::JsonSchema), [`arguments_of`] and [`type_of`] make
//! a model of the QAPI type, once, when a command or event is registered.
//!
//! - [`Arguments::check`] refuses wrong arguments with the error that QEMU would return, before serde sees them.
//!   Serde can deserialize what it accepts, unless a type is stricter than its schema.
//! - [`Introspection`] writes the result of `query-qmp-schema`.
//! - A [`Policy`] says how deprecated and unstable items are treated in both.
//!
//! # How Rust types map to QAPI types
//!
//! | Rust, with serde's attributes | QAPI |
//! |---|---|
//! | `String`, `PathBuf`, `IpAddr`, … | `str` |
//! | `char`, `#[schemars(length(…))]` of a string | `str`, whose number of characters is checked |
//! | `bool`, `f64` and `f32` | `bool`, `number` |
//! | `i8` … `i64`, `u8` … `u64`, `isize`, `usize` | an integer type of that width; `int` to introspection |
//! | `NonZero…`, `#[schemars(range(…))]` | the same, with narrower bounds |
//! | `serde_json::Value` | `any` |
//! | another type with `#[schemars(with = "qmp_dispatch::qapi::Any")]`, such as [`qmp_proto::Value`] | `any` |
//! | `i128` with `#[schemars(with = "qmp_dispatch::qapi::Int")]` | any integer of 64 bits, signed or not |
//! | `Vec<T>`, other sequences, sets (which take duplicates) | array |
//! | struct | struct, its members in the order of declaration |
//! | `Option<T>`, `#[serde(default)]` as a member | optional member |
//! | `#[serde(flatten)]` of a struct | base, its members where the field is declared: first, usually |
//! | enum without content | enum |
//! | enum with `#[serde(tag = "…")]` | union, the tag and the variants' members |
//! | `#[serde(flatten)]` of such an enum | union with a base: the tag, the other fields, the variants |
//! | enum with `#[serde(tag = "…", content = "…")]` | union whose variants have one member |
//! | enum with `#[serde(untagged)]` | alternate, if each variant has a JSON type of its own |
//! | `HashMap<K, T>` whose keys are an enum without doc comments | struct of optional members |
//! | `Box<T>`, `Cow<T>`, `Arc<T>` with serde's feature `rc`, newtype structs, `#[serde(transparent)]` | what they contain |
//! | `Duration`, `SystemTime`, `Range<T>` | struct, with the members that serde gives them |
//! | `#[serde(from = "T")]`, `#[serde(try_from = "T")]` | what `T` is |
//! | `()` | no arguments, no result, no data; `null` as a member |
//! | struct or map with `#[serde(flatten)] HashMap<String, serde_json::Value>` | struct that accepts any other members |
//!
//! Names are those on the wire, after `rename` and `rename_all`; QAPI has them in `kebab-case`. Those of
//! members, tags and values are checked as those of commands are; values may begin with a digit.
//! Aliases and `deny_unknown_fields` change nothing: there is one name for a member, and members
//! without a declaration are always refused. Members that are skipped in one direction are not there
//! in that direction. A variant with `other` is one like any other. One with `#[serde(untagged)]` and `#[schemars(skip)]` is not
//! part of the type: an enum may keep in it what other versions have. Doc comments are kept as
//! documentation.
//!
//! Not in QAPI, and a [`SchemaError`] at registration: tuples and arrays of fixed length, enums with
//! content and without a tag, untagged ones whose variants have the same JSON type, maps to anything but
//! any value, options that are not members, integers of 128 bits; in arguments also
//! [limits](Problem::Unchecked) that nobody would check, such as those of `#[schemars(regex(…))]`.
//!
//! serde may [know other things](Problem::Disagreement) than the schema: `deserialize_with`, an
//! implementation by hand, a map with keys that are not any text, a tagged variant that contains no struct.
//! [`check_arguments_of`] finds that out by trying, in tests, and at registration in debug builds. A type may be choosy about strings and numbers:
//! clients are then told `Parameter 'x' expects …` or `Invalid parameter 'x': …`, and the words of
//! the type.
//!
//! A member that is `None` is not written ([`Json::encode`](qmp_proto::Json::encode)). serde reads null like an `Option` that is
//! absent, and QAPI knows no null but in alternates and among any values. So in arguments, an `Option` of an untagged enum with
//! a branch for null is [refused](Problem::NullOrAbsent), unless it is read with [`present`].
//!
//! What cannot be found out is `#[serde(flatten)]` of an `Option<T>`: serde takes it for absent if
//! anything is wrong with it, such as one member missing. Better make its members optional.
//!
//! # Attributes
//!
//! | Attribute | Where | What |
//! |---|---|---|
//! | `#[deprecated]` | type, field, variant | feature `deprecated` |
//! | `#[schemars(extend("x-qapi-features" = ["unstable"]))]` | type, field, variant | these features |
//! | `#[schemars(extend("x-qapi-order" = ["id", "type"]))]` | struct, enum | these members or values come first, in this order |
//! | `#[schemars(extend("x-qapi-tag-order" = ["file", "raw"]))]` | the same | these values of the tag's enum come first, in this order |
//! | `#[schemars(extend("x-qapi-tag-type" = "JobType"))]` | tagged enum, or the struct that it is flattened into | the name of the enum that is the type of the tag |
//!
//! In an enum of which some variants have attributes or doc comments, those come after the others
//! unless `x-qapi-order` says otherwise. The type of a tag is called like the union with `Kind`
//! behind it; if there is an enum of the given name and with the same values already, they are one.
//!
//! # Example
//!
//! ```
//! use qmp_dispatch::qapi::arguments_of;
//! use qmp_proto::{Object, Value};
//!
//! /// What to back up, and how.
//! #[derive(serde::Deserialize, schemars::JsonSchema)]
//! #[serde(rename_all = "kebab-case")]
//! struct Backup {
//!     node_name: String,
//!     speed: Option<u32>,
//!     #[serde(flatten)]
//!     target: Target,
//! }
//!
//! #[derive(serde::Deserialize, schemars::JsonSchema)]
//! #[serde(tag = "target", rename_all = "kebab-case")]
//! enum Target {
//!     File { filename: String },
//!     Nothing,
//! }
//!
//! let backup = arguments_of::<Backup>()?;
//! let refused = |members: &[(&str, Value)]| {
//!     let arguments = Object::from_iter(members.iter().cloned());
//!     backup.check(&arguments).unwrap_err().desc.into_owned()
//! };
//! let (target, node) = (("target", "file".into()), ("node-name", "disk0".into()));
//! assert_eq!(refused(&[]), "Parameter 'target' is missing");
//! assert_eq!(refused(&[target.clone()]), "Parameter 'node-name' is missing");
//! assert_eq!(refused(&[target.clone(), node.clone()]), "Parameter 'filename' is missing");
//! assert_eq!(
//!     refused(&[target, node, ("speed", Value::from(1i64 << 32))]),
//!     "Parameter 'speed' expects uint32_t"
//! );
//! # Ok::<(), qmp_dispatch::qapi::SchemaError>(())
//! ```
//!
//! # Where this is not QEMU
//!
//! - Bounds narrower than the width of an integer are checked here, in words that QEMU's commands
//!   use for it (`Parameter 'x' expects an integer in the range of 1 to 255`).
//! - Members that any value fits keep infinite numbers out: serde_json has none, they become null.
//! - Arguments are nested at most 128 deep, their own object included (`Parameter 'x' is nested too
//!   deeply`): the types that take them may need much of the stack for each level.
//! - QAPI has no arrays of arrays, and no structs that accept any other members; here, they work.

mod check;
mod decode;
mod derive;
mod entries;
mod error;
mod hash_order;
mod introspection;
mod merge;
mod model;
mod name;
mod output;
mod path;
mod place;
mod policy;
mod probe;
mod scalar;
mod schema;
mod schema_info;
mod stand_in;
mod text;
mod types;
mod unsigned;

pub(crate) use decode::decode;
pub use error::{Problem, SchemaError};
pub use introspection::{CommandInfo, EventInfo, Introspection};
pub(crate) use name::is_name;
pub use policy::{InputPolicy, OutputPolicy, Policy};
pub use qmp_proto::decode::present;
pub use schema_info::{
    MetaType, SchemaAlternateMember, SchemaEnumMember, SchemaInfo, SchemaJsonType, SchemaMember,
    SchemaVariant,
};
pub use stand_in::{Any, Int};
pub(crate) use types::Checked;
pub use types::{Arguments, Type, arguments_of, check_arguments_of, type_of};
