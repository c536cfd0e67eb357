// SPDX-License-Identifier: MIT OR Apache-2.0
//! Names of QAPI as identifiers of Rust.

use std::collections::HashSet;

/// Keywords of all editions that cannot be identifiers.
const KEYWORDS: [&str; 50] = [
    "abstract",
    "as",
    "async",
    "await",
    "become",
    "box",
    "break",
    "const",
    "continue",
    "do",
    "dyn",
    "else",
    "enum",
    "extern",
    "false",
    "final",
    "fn",
    "for",
    "gen",
    "if",
    "impl",
    "in",
    "let",
    "loop",
    "macro",
    "match",
    "mod",
    "move",
    "mut",
    "override",
    "priv",
    "pub",
    "ref",
    "return",
    "static",
    "struct",
    "trait",
    "true",
    "try",
    "type",
    "typeof",
    "unsafe",
    "unsized",
    "use",
    "virtual",
    "where",
    "while",
    "yield",
    "static_assert",
    "union_",
];

/// Returns the name of a field: `node_name` for `node-name`, `r#type` for `type`.
pub(crate) fn field(name: &str) -> String {
    let mut field: String =
        name.chars().map(|c| if is_plain(c) { c.to_ascii_lowercase() } else { '_' }).collect();
    if field.starts_with(|first: char| first.is_ascii_digit()) {
        field.insert(0, '_');
    }
    match field.as_str() {
        // These cannot be raw identifiers.
        "self" | "super" | "crate" | "_" => field + "_",
        keyword if KEYWORDS.contains(&keyword) => format!("r#{keyword}"),
        _ => field,
    }
}

/// Returns the name of a type or a variant: `BlockdevAdd` for `blockdev-add`, `DeviceDeleted` for `DEVICE_DELETED`.
pub(crate) fn camel(name: &str) -> String {
    let is_shouted = !name.contains(|c: char| c.is_ascii_lowercase());
    let mut camel = String::new();
    for word in name.split(|c| !is_plain(c)).filter(|word| !word.is_empty()) {
        // `1-1` and `11` are different.
        if camel.ends_with(|c: char| c.is_ascii_digit())
            && word.starts_with(|c: char| c.is_ascii_digit())
        {
            camel.push('_');
        }
        let (first, rest) = word.split_at(1);
        camel += &first.to_ascii_uppercase();
        if is_shouted && word.len() > 1 && name.len() > 3 {
            camel += &rest.to_ascii_lowercase();
        } else {
            camel += rest;
        }
    }
    if !camel.starts_with(|first: char| first.is_ascii_alphabetic()) {
        camel.insert(0, '_');
    }
    if camel == "Self" { "Self_".to_owned() } else { camel }
}

/// Returns the name of a constant: `STOP`.
pub(crate) fn constant(name: &str) -> String {
    name.chars().map(|c| if is_plain(c) { c.to_ascii_uppercase() } else { '_' }).collect()
}

/// Returns the name, with a number if it is taken, and takes it.
pub(crate) fn unique(name: String, taken: &mut HashSet<String>) -> String {
    let mut unique = name.clone();
    let mut number = 2;
    while !taken.insert(unique.clone()) {
        unique = format!("{name}{number}");
        number += 1;
    }
    unique
}

fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_in_snake_case_and_no_keywords() {
        for (name, expected) in [
            ("node-name", "node_name"),
            ("type", "r#type"),
            ("self", "self_"),
            ("2x", "_2x"),
            ("x-blockdev", "x_blockdev"),
            ("CPU", "cpu"),
            ("__org.qemu_a", "__org_qemu_a"),
        ] {
            assert_eq!(field(name), expected);
        }
    }

    #[test]
    fn types_and_variants_are_in_camel_case() {
        for (name, expected) in [
            ("blockdev-add", "BlockdevAdd"),
            ("DEVICE_DELETED", "DeviceDeleted"),
            ("STOP", "Stop"),
            ("BlockdevOptions", "BlockdevOptions"),
            ("3des", "_3des"),
            ("1-1", "_1_1"),
            ("X86CPURegister32", "X86CPURegister32"),
            ("self", "Self_"),
            ("qcow2", "Qcow2"),
        ] {
            assert_eq!(camel(name), expected);
        }
    }

    #[test]
    fn a_name_that_is_taken_gets_a_number() {
        let mut taken = HashSet::new();
        let names = ["A", "A", "B", "A2", "A"].map(|name| unique(name.to_owned(), &mut taken));
        assert_eq!(names, ["A", "A2", "B", "A22", "A3"]);
    }
}
