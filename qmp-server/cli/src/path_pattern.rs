// SPDX-License-Identifier: MIT OR Apache-2.0
//! Paths that match many sockets, and what is made of those that do.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// A path in which `*` stands for any text within a component, as in `/run/vm/*/qemu.sock`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct PathPattern {
    pub(crate) start: PathBuf,
    pub(crate) parts: Vec<Part>,
}

/// One component.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Part {
    Fixed(String),
    Any { before: String, after: String },
}

impl Part {
    /// What the `*` stands for; `Some(None)` if there is none.
    pub(crate) fn captures<'n>(&self, name: &'n str) -> Option<Option<&'n str>> {
        match self {
            Part::Fixed(fixed) => (fixed == name).then_some(None),
            Part::Any { before, after } => {
                let any = name.strip_prefix(before.as_str())?.strip_suffix(after.as_str())?;
                // As in a shell, what is hidden has to be named; and it becomes a name itself.
                let is_hidden = before.is_empty() && any.starts_with('.');
                let bad = any.is_empty() || is_hidden || any.contains(char::is_control);
                (!bad).then_some(Some(any))
            }
        }
    }
}

impl PathPattern {
    /// The pattern, if there is a `*` in the path.
    pub(crate) fn parse(path: &Path) -> Result<Option<PathPattern>, String> {
        let Some(text) = path.to_str().filter(|text| text.contains('*')) else { return Ok(None) };
        let start = if path.is_absolute() { "/" } else { "." };
        let parts = text.split('/').filter(|part| !part.is_empty() && *part != ".");
        let parts = parts.map(|part| match part.split_once('*') {
            None => Ok(Part::Fixed(part.to_owned())),
            Some((_, after)) if after.contains('*') => {
                Err(format!("'{part}' has more than one '*' between two slashes"))
            }
            Some((before, after)) => {
                Ok(Part::Any { before: before.to_owned(), after: after.to_owned() })
            }
        });
        Ok(Some(PathPattern { start: start.into(), parts: parts.collect::<Result<_, _>>()? }))
    }

    /// Whether this is the path of a socket that matches.
    pub(crate) fn matches(&self, path: &Path) -> bool {
        let Ok(below) = path.strip_prefix(&self.start) else { return false };
        let names: Vec<_> = below.iter().map(OsStr::to_str).collect();
        names.len() == self.parts.len()
            && names
                .iter()
                .zip(&self.parts)
                .all(|(name, part)| name.is_some_and(|name| part.captures(name).is_some()))
    }

    /// How many `*` there are.
    pub(crate) fn len(&self) -> usize {
        self.parts.iter().filter(|part| matches!(part, Part::Any { .. })).count()
    }

    /// Whether links are followed to a component: only before the first `*`.
    pub(crate) fn is_trusted(&self, level: usize) -> bool {
        self.parts[..=level].iter().all(|part| matches!(part, Part::Fixed(_)))
    }
}

/// Replaces `{1}`, `{2}` and so on by what the first `*` stands for, the second one, and so on.
pub(crate) fn fill(template: &str, captures: &[String]) -> String {
    let mut filled = String::new();
    let mut rest = template;
    while let Some(at) = rest.find('{') {
        filled.push_str(&rest[..at]);
        rest = &rest[at..];
        let number = rest[1..].split_once('}').and_then(|(number, _)| number.parse::<usize>().ok());
        match number.and_then(|number| Some((number, captures.get(number.checked_sub(1)?)?))) {
            Some((number, capture)) => {
                filled.push_str(capture);
                rest = &rest[number.to_string().len() + 2..];
            }
            None => {
                filled.push('{');
                rest = &rest[1..];
            }
        }
    }
    filled + rest
}

/// A socket that matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    /// Of which pattern.
    pub(crate) pattern: usize,
    /// What each `*` stands for.
    pub(crate) captures: Vec<String>,
    pub(crate) path: PathBuf,
    /// The user that the folder of the socket belongs to.
    pub(crate) owner: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_braces_are_filled_in() {
        let captures = ["a".to_owned(), "{1}".to_owned()];
        for (template, expected) in
            [("{1}-{2}", "a-{1}"), ("{3}{0}{x}{", "{3}{0}{x}{"), ("x{1}", "xa"), ("", "")]
        {
            assert_eq!(fill(template, &captures), expected);
        }
    }

    #[test]
    fn a_component_has_one_star_at_most() {
        assert!(PathPattern::parse(Path::new("/run/vm/qemu.sock")).unwrap().is_none());
        assert!(PathPattern::parse(Path::new("/run/**/qemu.sock")).is_err());
        let pattern = PathPattern::parse(Path::new("/run/*/vm-*.sock")).unwrap().unwrap();
        assert_eq!(pattern.len(), 2);
    }
}
