// SPDX-License-Identifier: MIT OR Apache-2.0
//! Bytes as text, for `#[serde(with = "qmp_proto::bytes_as_text")]`: each byte is the character of its number. So bytes that
//! are ASCII, as most are that a client sends, take no more room than they do by themselves.
//!
//! ```
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Serialize, Deserialize)]
//! struct Kept(#[serde(with = "qmp_proto::bytes_as_text")] Vec<u8>);
//!
//! let text = serde_json::to_string(&Kept(b"stop\xFF".to_vec()))?;
//! assert_eq!(text, "\"stop\u{FF}\"");
//! assert_eq!(serde_json::from_str::<Kept>(&text)?.0, b"stop\xFF");
//! # Ok::<(), serde_json::Error>(())
//! ```

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serializer};

/// Serializes bytes as a string.
///
/// # Errors
///
/// Those of the serializer.
pub fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&bytes.iter().map(|&byte| char::from(byte)).collect::<String>())
}

/// Deserializes bytes from a string.
///
/// # Errors
///
/// Those of the deserializer, and an error for a character that is not one of a byte.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let byte = |character: char| u8::try_from(u32::from(character)).map_err(D::Error::custom);
    text.chars().map(byte).collect()
}
