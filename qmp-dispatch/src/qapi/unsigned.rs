// SPDX-License-Identifier: MIT OR Apache-2.0
//! Negative numbers for unsigned types, which QEMU accepts for compatibility.

use qmp_proto::{Object, Value};

use super::check::unsigned;
use super::model::{self, Builtin, Model};
use super::rewrite::Rewriter;

/// Replaces negative numbers in unsigned places by the large ones of the same 64 bits. The
/// arguments have been checked.
pub(crate) fn wrap(model: &Model, ty: &model::Object, object: Object) -> Object {
    let wrap = |builtin: &Builtin, value| match builtin {
        Builtin::Int(integer) if !integer.width.is_signed() => {
            unsigned(&value).map_or(value, Value::from)
        }
        _ => value,
    };
    Rewriter { model, keeps: |_: &_| true, builtin: wrap }.object(ty, object)
}
