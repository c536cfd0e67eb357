// SPDX-License-Identifier: MIT OR Apache-2.0
//! Numbers as QEMU has them.

use std::fmt;

/// A number: an integer in the range of `i64` or `u64` exactly, or a double.
///
/// A number is an integer if it was spelt without dot and exponent and fits; `1.0` and `1e3` are
/// doubles, as is `18446744073709551616`. Mirrors `QNum`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Number(pub(super) Repr);

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Repr {
    Signed(i64),
    /// Only for values beyond the range of `i64`, so that equal integers compare equal.
    Unsigned(u64),
    Double(f64),
}

impl Number {
    /// Returns the integer, if this is one in the range of `i64`.
    pub fn as_i64(self) -> Option<i64> {
        match self.0 {
            Repr::Signed(value) => Some(value),
            Repr::Unsigned(_) | Repr::Double(_) => None,
        }
    }

    /// Returns the integer, if this is one in the range of `u64`.
    pub fn as_u64(self) -> Option<u64> {
        match self.0 {
            Repr::Signed(value) => u64::try_from(value).ok(),
            Repr::Unsigned(value) => Some(value),
            Repr::Double(_) => None,
        }
    }

    /// Returns the nearest double. May be infinite: QEMU reads `1e400` as infinity.
    pub fn as_f64(self) -> f64 {
        match self.0 {
            Repr::Signed(value) => value as f64,
            Repr::Unsigned(value) => value as f64,
            Repr::Double(value) => value,
        }
    }
}

/// As QEMU would write it.
impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        crate::Value::Number(*self).fmt(f)
    }
}

impl From<i64> for Number {
    fn from(value: i64) -> Number {
        Number(Repr::Signed(value))
    }
}

impl From<u64> for Number {
    fn from(value: u64) -> Number {
        Number(i64::try_from(value).map_or(Repr::Unsigned(value), Repr::Signed))
    }
}

impl From<i32> for Number {
    fn from(value: i32) -> Number {
        i64::from(value).into()
    }
}

impl From<u32> for Number {
    fn from(value: u32) -> Number {
        i64::from(value).into()
    }
}

impl From<f64> for Number {
    fn from(value: f64) -> Number {
        Number(Repr::Double(value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::from_value;

    #[test]
    fn integers_are_exact_and_not_doubles() {
        assert_eq!(Number::from(7u64), Number::from(7i64));
        assert_eq!(Number::from(7i64).as_u64(), Some(7));
        assert_eq!(Number::from(7.0).as_i64(), None);
        assert_eq!(Number::from(7).as_f64(), 7.0);
        assert_eq!(Number::from(0.1).to_string(), "0.10000000000000001");
        assert_eq!(from_value::<Number>(7.into()), Ok(Number::from(7)));
        assert!(from_value::<Number>("7".into()).is_err());
    }
}
