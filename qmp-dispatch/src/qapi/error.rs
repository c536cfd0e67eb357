// SPDX-License-Identifier: MIT OR Apache-2.0
//! Why a Rust type cannot be expressed in QAPI.

/// A Rust type cannot be expressed in QAPI. Returned when a command or event is registered.
///
/// Displays as the type, the place within it, and the problem.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{type_name} cannot be expressed in QAPI: at {place}: {problem}")]
#[non_exhaustive]
pub struct SchemaError {
    /// The name of the type.
    pub type_name: String,
    /// The place within it: the name of a type and, after dots, those of members.
    pub place: String,
    /// What is wrong there.
    pub problem: Problem,
}

/// What cannot be expressed in QAPI.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// Arguments, the data of an event and the branches of unions are objects.
    #[error("not an object (a struct, a tagged enum or the unit type)")]
    NotAnObject,
    /// Tuples, tuple structs and `[T; N]`: an array of QAPI has elements of one type and no fixed length.
    #[error("a tuple or array of fixed length")]
    Tuple,
    /// serde's default for enums with content. `#[serde(tag = "…")]` makes it a union,
    /// `#[serde(untagged)]` an alternate.
    #[error("an enum with content must be tagged (a union) or untagged (an alternate)")]
    ExternallyTagged,
    /// A map with values of one type. A map to `serde_json::Value` is an object with any members.
    #[error("a map whose values have a type of their own; only `serde_json::Value` is possible")]
    Map,
    /// An `Option` that is not a member.
    #[error("only members can be optional")]
    Nullable,
    /// Two tagged enums, or an untagged one, are flattened into one struct.
    #[error("more than one union, or an untagged enum, flattened into a struct")]
    Flattened,
    /// An object has two members of the same name, for example one of a union and one of its branch.
    #[error("there is more than one member '{0}'")]
    Clash(String),
    /// The branches of an alternate cannot be told apart by their JSON type.
    #[error("two branches of an untagged enum have the same JSON type")]
    Ambiguous,
    /// An `Option` of an untagged enum that may be null. QAPI distinguishes null from absent; serde does so
    /// only for members that are read with [`present`](super::present).
    #[error("an `Option` of a type that may be null: only `present` can tell null from absent")]
    NullOrAbsent,
    /// A name of a member, a tag or a value of an enum that QAPI does not allow.
    #[error("invalid name '{0}': expected a letter followed by letters, digits, '-' or '_'")]
    Name(String),
    /// An integer of 128 bits.
    #[error("an integer wider than 64 bits")]
    WideInteger,
    /// A type that contains itself and nothing else.
    #[error("a type that contains only itself")]
    Endless,
    /// An `x-qapi-…` attribute has a value of the wrong type.
    #[error("the attribute {0} is malformed")]
    Attribute(&'static str),
    /// A keyword of JSON Schema that restricts values but is not checked, such as `pattern`. Results and the data
    /// of events can have it.
    #[error("a limit that is not checked: {0}")]
    Unchecked(&'static str),
    /// The type refuses a value that its schema allows, with its own reason.
    #[error("the type refuses what its schema describes: {0}")]
    Disagreement(String),
    /// Any other JSON Schema, with its text.
    #[error("a schema that has no counterpart: {0}")]
    Unsupported(String),
}
