// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where in a Rust type something is, or is wrong.

use super::error::Problem;

/// What is wrong, and where.
pub(crate) struct Misfit {
    pub(crate) place: String,
    pub(crate) problem: Problem,
}

/// Where we are: the nearest named type, and the way from there.
#[derive(Clone)]
pub(crate) struct Place {
    /// What an anonymous type in this place is called.
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
