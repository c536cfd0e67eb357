// SPDX-License-Identifier: MIT OR Apache-2.0
//! Values of the library that are said by their names.

use std::str::FromStr;

/// One of them. This type is the program's own, so that it can be read from a file, too.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Named<T>(pub(crate) T);

impl<T: FromStr> FromStr for Named<T> {
    type Err = T::Err;

    fn from_str(text: &str) -> Result<Named<T>, T::Err> {
        text.parse().map(Named)
    }
}
