// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whether a licence, as packages state it, lets a permissive project take them.

/// Those that ask for no more than that they, and who wrote it, are named. `deny.toml` has the same.
const PERMISSIVE: [&str; 9] = [
    "Apache-2.0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "CC0-1.0",
    "ISC",
    "MIT",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// Whether the terms of an SPDX expression can be met with permissive licences alone.
pub(super) fn is_permissive(expression: &str) -> bool {
    // Before there were expressions, a slash said "or".
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut rest = &words[..];
    any_of(&mut rest) == Some(true) && rest.is_empty()
}

/// `AND` binds more tightly than `OR`. None if this is no expression.
fn any_of(words: &mut &[&str]) -> Option<bool> {
    let mut permissive = all_of(words)?;
    while skip(words, "OR") {
        permissive |= all_of(words)?;
    }
    Some(permissive)
}

fn all_of(words: &mut &[&str]) -> Option<bool> {
    let mut permissive = one(words)?;
    while skip(words, "AND") {
        permissive &= one(words)?;
    }
    Some(permissive)
}

fn one(words: &mut &[&str]) -> Option<bool> {
    if skip(words, "(") {
        let permissive = any_of(words)?;
        return skip(words, ")").then_some(permissive);
    }
    let (licence, rest) = words.split_first()?;
    *words = rest;
    if skip(words, "WITH") {
        // An exception only ever allows more.
        *words = words.split_first()?.1;
    }
    Some(PERMISSIVE.contains(licence))
}

fn skip(words: &mut &[&str], wanted: &str) -> bool {
    match words.split_first() {
        Some((first, rest)) if *first == wanted => {
            *words = rest;
            true
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::Manifest;

    #[test]
    fn the_auditor_allows_the_same() {
        let config = Manifest::parse(include_str!("../../deny.toml"));
        let allowed = config.get("licenses", "allow").unwrap().split('"').skip(1).step_by(2);
        assert_eq!(allowed.collect::<Vec<_>>(), PERMISSIVE);
    }

    #[test]
    fn expressions_are_understood() {
        for good in [
            "MIT",
            "MIT/Apache-2.0",
            "MIT OR GPL-3.0-only",
            "(MIT OR GPL-3.0-only) AND Unicode-3.0",
            "GPL-2.0-only OR MIT AND ISC",
            "Apache-2.0 WITH LLVM-exception OR GPL-2.0-only",
        ] {
            assert!(is_permissive(good), "{good}");
        }
        for bad in [
            "GPL-3.0-only",
            "MIT AND GPL-3.0-only",
            "(MIT OR ISC) AND MPL-2.0",
            "GPL-2.0-only WITH Classpath-exception-2.0",
            "",
            "MIT OR",
            "(MIT",
            "MIT ISC",
        ] {
            assert!(!is_permissive(bad), "{bad}");
        }
    }
}
