// SPDX-License-Identifier: MIT OR Apache-2.0
//! Integers and strings of a JSON Schema.

use serde_json::Value;

use super::error::Problem;
use super::model::{Integer, Length, Width};
use super::place::{Misfit, Place};
use super::schema::Schema;

/// How many characters a string of this schema has.
pub(crate) fn length(schema: &Schema) -> Length {
    let bound = |key| schema.get(key).and_then(Value::as_u64);
    let Length { min, max } = Length::ANY;
    Length { min: bound("minLength").unwrap_or(min), max: bound("maxLength").unwrap_or(max) }
}

/// The integer type of this schema.
pub(crate) fn integer(schema: &Schema, place: &Place) -> Result<Integer, Misfit> {
    let native = |of32, of64| if usize::BITS == 32 { of32 } else { of64 };
    let width = match schema.get("format").and_then(Value::as_str) {
        Some("int8") => Width::I8,
        Some("int16") => Width::I16,
        Some("int32") => Width::I32,
        Some("uint8") => Width::U8,
        Some("uint16") => Width::U16,
        Some("uint32") => Width::U32,
        Some("uint64") => Width::U64,
        Some("int") => native(Width::I32, Width::I64),
        Some("uint") => native(Width::U32, Width::U64),
        Some("int128" | "uint128") => return place.misfit(Problem::WideInteger),
        _ if is_any64(schema) => Width::Any64,
        _ => Width::I64,
    };
    let bound = |key: &str, widest: i128| match schema.get(key) {
        None => Ok(widest),
        Some(bound) => {
            let wide = bound.as_i64().map(i128::from).or(bound.as_u64().map(i128::from));
            wide.ok_or_else(|| place.at(Problem::Unsupported(format!("{key} {bound}"))))
        }
    };
    let range = width.range();
    let (lowest, highest) = (*range.start(), *range.end());
    let min = bound("minimum", lowest)?.max(lowest);
    let max = bound("maximum", highest)?.min(highest);
    if min > max {
        return place.misfit(Problem::Unsupported(format!("a range of {min} to {max}")));
    }
    let bounds = min..=max;
    Ok(Integer {
        width,
        bounds: (bounds != range).then_some(bounds),
        // The only thing that is ever excluded.
        nonzero: schema.contains_key("not"),
    })
}

/// Whether the bounds are those that no Rust type has: of the smallest signed to the largest unsigned integer.
fn is_any64(schema: &Schema) -> bool {
    schema.get("minimum").and_then(Value::as_i64) == Some(i64::MIN)
        && schema.get("maximum").and_then(Value::as_u64) == Some(u64::MAX)
}
