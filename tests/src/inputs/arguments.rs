// SPDX-License-Identifier: MIT OR Apache-2.0
//! Commands with arguments built from their types: most have one or two mistakes, as the first one hides the others.

use std::collections::HashSet;

use super::Random;
use crate::json::Json;
use crate::schema::{Schema, Shape};

const INTEGERS: &[&str] = &[
    "0",
    "-0",
    "1",
    "-1",
    "7",
    "255",
    "-129",
    "65536",
    "2147483648",
    "4294967296",
    "9223372036854775807",
    "9223372036854775808",
    "-9223372036854775808",
    "-9223372036854775809",
    "18446744073709551615",
    "18446744073709551616",
];
const FLOATS: &[&str] = &["0.0", "-0.0", "1.0", "1e0", "1e3", "0.5", "-1e-5", "1e19", "1e308"];
const TEXTS: &[&str] = &[
    "",
    " ",
    "0",
    "1a",
    "a",
    "null",
    "true",
    "NUL\0inside",
    "\0",
    "\u{e9}",
    "\u{20ac}uro",
    "\u{1f600}",
    "\u{d7ff}\u{fffd}",
    "\u{7f}\n\t\"\\'",
    "%s%n%d",
    "a.b",
    "a[0]",
    "[0]",
    ".",
    "monitor",
    "x-y_z",
    "fdset-id:1",
];
/// Of each pair, GLib's hashes are the same, and so they are of what is joined from them.
const COLLIDING: &[&str] = &["ab", "bA", "cd", "dC"];
const LETTERS: &[&str] = &["a", "A", "b", "B", "c", "-", "1", "!", "\u{e9}", "\0"];

/// A request to run a command of the schema.
pub fn request(schema: &Schema, random: &mut Random) -> Json {
    let all: Vec<_> = schema.commands().collect();
    let mut command = random.pick(&all);
    let has_arguments = |name| !schema.members(schema.arguments_of(name)).is_empty();
    while !has_arguments(command) && !random.one_in(6) {
        command = random.pick(&all);
    }
    let arguments = object(schema, schema.arguments_of(command), random);
    let mut members = vec![("execute".to_owned(), Json::from(command))];
    if arguments != Json::Object(Vec::new()) || random.one_in(2) {
        members.push(("arguments".to_owned(), arguments));
    }
    members.push(("id".to_owned(), Json::Number(random.below(1000).to_string())));
    Json::Object(members)
}

/// A value of the type, or almost.
fn value(schema: &Schema, ty: &str, random: &mut Random) -> Json {
    if random.one_in(10) {
        return anything(random, 2);
    }
    match schema.shape(ty) {
        Shape::Builtin("string") => Json::String(text(random)),
        Shape::Builtin("int") => integer(random),
        Shape::Builtin("number") => number(random),
        Shape::Builtin("boolean") => Json::Bool(random.one_in(2)),
        Shape::Builtin("null") => Json::Null,
        Shape::Builtin(_) => anything(random, 2),
        Shape::Enum(values) => Json::String(choice(&values, random)),
        Shape::Array(element) => {
            let count = if random.one_in(8) { 0 } else { 1 + random.few(4) };
            Json::Array((0..count).map(|_| value(schema, element, random)).collect())
        }
        Shape::Alternate(branches) => value(schema, random.pick(&branches), random),
        Shape::Object => object(schema, ty, random),
    }
}

/// An object of the type, or almost.
fn object(schema: &Schema, ty: &str, random: &mut Random) -> Json {
    let mut members = Vec::new();
    add_members(schema, ty, random, &mut members);
    if random.one_in(4) {
        for _ in 0..unexpected(random) {
            members.push((name(schema, random), anything(random, 1)));
        }
    }
    // A name that comes twice breaks the message before anybody looks at the arguments.
    let mut names = HashSet::new();
    members.retain(|(name, _)| names.insert(name.clone()));
    if random.one_in(2) {
        for at in 1..members.len() {
            members.swap(at, random.below(at + 1));
        }
    }
    Json::Object(members)
}

/// The members that an object of the type has, with some left out.
fn add_members(schema: &Schema, ty: &str, random: &mut Random, members: &mut Vec<(String, Json)>) {
    for member in schema.members(ty) {
        let is_left_out = if member.optional { random.one_in(2) } else { random.one_in(12) };
        if !is_left_out {
            members.push((member.name.to_owned(), value(schema, member.ty, random)));
        }
    }
    let Some((tag, variants)) = schema.variants(ty) else { return };
    let case = members.iter().find(|(name, _)| name == tag).and_then(|(_, value)| value.as_str());
    let branch = variants.iter().find(|(name, _)| Some(*name) == case);
    let branch = branch.filter(|_| !random.one_in(10)).copied();
    let (_, branch) = branch.unwrap_or_else(|| random.pick(&variants));
    add_members(schema, branch, random, members);
}

/// Number of unknown members: mostly one, sometimes enough for the hash table to grow.
fn unexpected(random: &mut Random) -> usize {
    match random.below(20) {
        0..9 => 1,
        9..18 => 2 + random.few(8),
        18 => random.below(40),
        _ => random.below(150),
    }
}

fn name(schema: &Schema, random: &mut Random) -> String {
    match random.below(8) {
        0..3 => (0..random.few(8)).map(|_| random.pick(LETTERS)).collect(),
        3..5 => (0..=random.few(5)).map(|_| random.pick(COLLIDING)).collect(),
        5 => {
            let commands: Vec<_> = schema.commands().collect();
            let members = schema.members(schema.arguments_of(random.pick(&commands)));
            let names: Vec<_> = members.iter().map(|member| member.name).collect();
            if names.is_empty() { "type".to_owned() } else { random.pick(&names).to_owned() }
        }
        _ => text(random),
    }
}

/// One of the values, hardly ever something like it.
fn choice(values: &[&str], random: &mut Random) -> String {
    let value = random.pick(values);
    match random.below(16) {
        0 => value.to_uppercase(),
        1 => value.replace('-', "_") + "\0",
        2 => value[..random.below(value.len())].to_owned(),
        3 => text(random),
        _ => value.to_owned(),
    }
}

fn text(random: &mut Random) -> String {
    match random.below(12) {
        0..8 => random.pick(TEXTS).to_owned(),
        8 => random.pick(TEXTS).repeat(random.below(100)),
        9 => char::from_u32(random.below(0x11_0000) as u32).unwrap_or('?').to_string(),
        _ => (0..random.few(8)).map(|_| random.pick(TEXTS)).collect(),
    }
}

fn integer(random: &mut Random) -> Json {
    Json::Number(match random.below(4) {
        0 => random.pick(INTEGERS).to_owned(),
        1 => (random.number() >> random.below(64)).cast_signed().to_string(),
        2 => (random.number() >> random.below(64)).to_string(),
        _ => random.below(10).to_string(),
    })
}

fn number(random: &mut Random) -> Json {
    if random.one_in(2) { integer(random) } else { Json::Number(random.pick(FLOATS).to_owned()) }
}

fn anything(random: &mut Random, depth: usize) -> Json {
    match random.below(if depth == 0 { 6 } else { 8 }) {
        0 => Json::Null,
        1 => Json::Bool(random.one_in(2)),
        2 => integer(random),
        3 => number(random),
        4 | 5 => Json::String(text(random)),
        6 => Json::Array((0..random.few(3)).map(|_| anything(random, depth - 1)).collect()),
        _ => {
            let names: HashSet<_> = (0..random.few(3)).map(|_| text(random)).collect();
            let mut names: Vec<_> = names.into_iter().collect();
            names.sort_unstable();
            let member = |name| (name, anything(random, depth - 1));
            Json::Object(names.into_iter().map(member).collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_requests_for_all_commands() {
        let schema = Schema::parse(include_str!("../../schema/qemu-10.0.jsonl"));
        let take = |seed| {
            let mut random = Random::new(seed);
            (0..1000).map(|_| request(&schema, &mut random).to_string()).collect::<Vec<_>>()
        };
        let requests = take(1);
        assert_eq!(requests, take(1));
        assert_ne!(requests, take(2));
        for command in schema.commands() {
            let start = format!(r#"{{"execute": "{command}""#);
            assert!(requests.iter().any(|request| request.starts_with(&start)), "{command}");
        }
    }
}
