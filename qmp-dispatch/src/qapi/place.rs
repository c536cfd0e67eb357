// SPDX-License-Identifier: MIT OR Apache-2.0
//! Places within a Rust type, for error messages.

use super::error::Problem;

/// A problem of a type, and its place.
pub(crate) struct Misfit {
    pub(crate) place: String,
    pub(crate) problem: Problem,
}

/// A place within a type: the nearest named type, and the path from there.
#[derive(Clone)]
pub(crate) struct Place {
    /// Name of an anonymous type at this place.
    pub(crate) name: String,
    text: String,
}

impl Place {
    pub(crate) fn of_type(name: &str) -> Place {
        Place { name: name.to_owned(), text: name.to_owned() }
    }

    pub(crate) fn member(&self, name: &str) -> Place {
        Place { name: format!("{}-{name}", self.name), text: format!("{}.{name}", self.text) }
    }

    pub(crate) fn misfit<T>(&self, problem: Problem) -> Result<T, Misfit> {
        Err(self.at(problem))
    }

    pub(crate) fn at(&self, problem: Problem) -> Misfit {
        Misfit { place: self.text.clone(), problem }
    }
}
