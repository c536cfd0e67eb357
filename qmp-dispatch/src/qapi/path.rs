// SPDX-License-Identifier: MIT OR Apache-2.0
//! Paths to values within the arguments.

use std::fmt;

/// A chain of steps from a value up to the arguments as a whole.
#[derive(Clone, Copy)]
pub(crate) struct Path<'a> {
    parent: Option<&'a Path<'a>>,
    step: Step<'a>,
    depth: usize,
}

#[derive(Clone, Copy)]
enum Step<'a> {
    Arguments,
    Member(&'a str),
    Element(usize),
}

impl<'a> Path<'a> {
    pub(crate) const ARGUMENTS: Path<'static> =
        Path { parent: None, step: Step::Arguments, depth: 0 };

    pub(crate) fn member<'b>(&'b self, name: &'b str) -> Path<'b>
    where
        'a: 'b,
    {
        Path { parent: Some(self), step: Step::Member(name), depth: self.depth + 1 }
    }

    pub(crate) fn element<'b>(&'b self, index: usize) -> Path<'b>
    where
        'a: 'b,
    {
        Path { parent: Some(self), step: Step::Element(index), depth: self.depth + 1 }
    }

    /// Number of objects and arrays that contain the value.
    pub(crate) fn depth(&self) -> usize {
        self.depth
    }

    /// Returns the last name. QEMU reports no more of a value whose type is right, and `null` for an element.
    pub(crate) fn bare(&self) -> &'a str {
        match self.step {
            Step::Member(name) => name,
            Step::Element(_) | Step::Arguments => "null",
        }
    }
}

/// The whole path: `a.b[1].c`.
impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parent) = self.parent {
            parent.fmt(f)?;
        }
        match (self.step, self.parent) {
            (Step::Arguments, _) => Ok(()),
            (Step::Element(index), _) => write!(f, "[{index}]"),
            (Step::Member(name), Some(Path { step: Step::Arguments, .. }) | None) => {
                f.write_str(name)
            }
            (Step::Member(name), Some(_)) => write!(f, ".{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_joined_by_dots_and_indices_stand_in_brackets() {
        let root = Path::ARGUMENTS;
        let list = root.member("list");
        let element = list.element(11);
        let member = element.member("id");
        assert_eq!(list.to_string(), "list");
        assert_eq!(element.to_string(), "list[11]");
        assert_eq!(member.to_string(), "list[11].id");
        assert_eq!(member.bare(), "id");
        assert_eq!(element.bare(), "null");
    }
}
