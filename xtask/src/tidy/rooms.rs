// SPDX-License-Identifier: MIT OR Apache-2.0
//! Checks the modules of one crate: none of those beside each other use each other in a circle, and no two types have the
//! same name.
//!
//! A file and the folder of its name are one module to those beside it. A module may use what the one that it is in defines;
//! what that one only passes on counts as where it comes from.

use std::collections::{BTreeMap, BTreeSet};

/// The segments of a path.
type Path = Vec<String>;

/// Modules that were read, by their paths in the crate.
struct Modules {
    /// What each refers to, as written.
    references: BTreeMap<Path, BTreeSet<Path>>,
    /// What each makes known under a shorter name.
    imports: BTreeMap<Path, BTreeMap<String, Path>>,
}

/// Checks the files of a crate: paths below its `src`, and their texts.
pub(super) fn check(name: &str, files: &[(&str, &str)]) -> Vec<String> {
    let mut modules = Modules { references: BTreeMap::new(), imports: BTreeMap::new() };
    let mut types: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (path, text) in files {
        let module = module(path);
        if module.last().is_some_and(|last| last == "tests") {
            continue;
        }
        let code = without_tests(text);
        for defined in types_of(code) {
            types.entry(defined).or_default().push(path);
        }
        let code = without_comments(code);
        let (imports, references) = used(&code);
        modules.imports.insert(module.clone(), imports);
        modules.references.insert(module, references);
    }
    let twice = types.iter().filter(|(_, files)| files.len() > 1);
    let twice =
        twice.map(|(of, files)| format!("{name}: types called {of} in {}", files.join(", ")));
    twice.chain(modules.circles().map(|circle| format!("{name}: {circle}"))).collect()
}

/// The module that a file is, from a path such as `engine/leader.rs`.
fn module(path: &str) -> Path {
    let path = path.trim_end_matches(".rs");
    match path {
        "lib" | "main" => Path::new(),
        _ => path.trim_end_matches("/mod").split('/').map(str::to_owned).collect(),
    }
}

fn without_tests(text: &str) -> &str {
    text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default()
}

fn without_comments(text: &str) -> String {
    text.lines()
        .map(|line| line.split("//").next().unwrap_or_default())
        .collect::<Vec<_>>()
        .join("\n")
}

/// The names of the types that stand at the left margin, as rustfmt puts those of a module.
fn types_of(code: &str) -> impl Iterator<Item = &str> {
    code.lines().filter_map(|line| {
        let line = match line.strip_prefix("pub") {
            Some(rest) if rest.starts_with('(') => rest.split_once(") ")?.1,
            Some(rest) => rest.strip_prefix(' ')?,
            None => line,
        };
        let kinds = ["struct ", "enum ", "trait ", "type "];
        let rest = kinds.into_iter().find_map(|kind| line.strip_prefix(kind))?;
        rest.split(|c: char| !c.is_alphanumeric() && c != '_').next()
    })
}

/// What the `use` declarations of a text import, and all paths in it that begin at the crate or at a module.
fn used(code: &str) -> (BTreeMap<String, Path>, BTreeSet<Path>) {
    let (mut imports, mut references) = (BTreeMap::new(), BTreeSet::new());
    let mut rest = code;
    while let Some(at) = rest.find("use ") {
        let starts =
            rest[..at].chars().next_back().is_none_or(|c| !c.is_alphanumeric() && c != '_');
        rest = &rest[at + 4..];
        let Some((tree, after)) = rest.split_once(';') else { break };
        if starts {
            leaves(&Path::new(), tree.trim(), &mut |name, path| {
                references.insert(path.clone());
                imports.insert(name, path);
            });
            rest = after;
        }
    }
    for begin in ["crate::", "super::", "self::"] {
        for (at, _) in code.match_indices(begin) {
            let path =
                code[at..].split(|c: char| !c.is_alphanumeric() && c != '_' && c != ':').next();
            let path = path.unwrap_or_default().trim_end_matches(':');
            references.insert(path.split("::").map(str::to_owned).collect());
        }
    }
    (imports, references)
}

/// Calls `each` with every name that a tree of imports makes known, and the path of what that is.
fn leaves(before: &Path, tree: &str, each: &mut dyn FnMut(String, Path)) {
    if let Some((head, inner)) = tree.split_once('{') {
        let head = head.split("::").map(str::trim).filter(|segment| !segment.is_empty());
        let before: Path = before.iter().cloned().chain(head.map(str::to_owned)).collect();
        let inner = inner.rsplit_once('}').map_or(inner, |(inner, _)| inner);
        let (mut depth, mut from) = (0, 0);
        for (at, c) in inner.char_indices().chain([(inner.len(), ',')]) {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 0 => {
                    leaves(&before, inner[from..at].trim(), each);
                    from = at + 1;
                }
                _ => {}
            }
        }
    } else if !tree.is_empty() {
        let (path, name) = match tree.split_once(" as ") {
            Some((path, name)) => (path, Some(name)),
            None => (tree, None),
        };
        let rest = path.split("::").filter(|segment| *segment != "self" || before.is_empty());
        let path: Path = before.iter().cloned().chain(rest.map(|s| s.trim().to_owned())).collect();
        let last = path.last().cloned().unwrap_or_default();
        each(name.map_or(last, |name| name.trim().to_owned()), path);
    }
}

impl Modules {
    /// The module that a path leads to, from another one; `None` if it is none of this crate.
    fn find(&self, from: &Path, path: &[String], depth: usize) -> Option<Path> {
        let first = path.first()?;
        let mut absolute: Path = match first.as_str() {
            "crate" => Path::new(),
            "self" => from.clone(),
            "super" => from[..from.len().checked_sub(1)?].to_vec(),
            child => {
                let inside: Path = from.iter().cloned().chain([child.to_owned()]).collect();
                self.references.contains_key(&inside).then_some(inside)?
            }
        };
        for (at, segment) in path.iter().enumerate().skip(1) {
            if segment == "super" {
                absolute.pop();
                continue;
            }
            let inside: Path = absolute.iter().cloned().chain([segment.clone()]).collect();
            if self.references.contains_key(&inside) {
                absolute = inside;
                continue;
            }
            // An imported name stands for what it comes from.
            let import = self.imports.get(&absolute).and_then(|imports| imports.get(segment));
            let origin = import.filter(|import| depth < 8 && **import != path[..=at]);
            let origin = origin.and_then(|import| self.find(&absolute, import, depth + 1));
            return Some(origin.unwrap_or(absolute));
        }
        Some(absolute)
    }

    /// Each circle among modules beside each other, by an example.
    fn circles(&self) -> impl Iterator<Item = String> {
        // By the module that they are in: which uses which, and where.
        let mut uses: BTreeMap<Path, BTreeMap<String, BTreeMap<String, String>>> = BTreeMap::new();
        for (module, references) in &self.references {
            for path in references {
                let Some(found) = self.find(module, path, 0) else { continue };
                let common =
                    module.iter().zip(&found).take_while(|(one, other)| one == other).count();
                if let (Some(one), Some(other)) = (module.get(common), found.get(common)) {
                    let of = uses.entry(module[..common].to_vec()).or_default();
                    let of = of.entry(one.clone()).or_default();
                    of.entry(other.clone()).or_insert_with(|| module.join("/"));
                }
            }
        }
        uses.into_values().filter_map(|uses| circle(&uses))
    }
}

/// A circle, if there is one: what uses nothing that is left is taken away until nothing is.
fn circle(uses: &BTreeMap<String, BTreeMap<String, String>>) -> Option<String> {
    let mut left: BTreeSet<&String> = uses.keys().collect();
    loop {
        let ends = |module: &&String| !uses[*module].keys().any(|other| left.contains(other));
        let ends: Vec<&String> = left.iter().copied().filter(ends).collect();
        if ends.is_empty() {
            break;
        }
        ends.iter().for_each(|module| _ = left.remove(module));
    }
    // Each of those that are left uses another one of them: a way along them comes to where it has been.
    let mut way = vec![*left.first()?];
    loop {
        let last = *way.last()?;
        let (next, file) = uses[last].iter().find(|(other, _)| left.contains(other))?;
        if let Some(start) = way.iter().position(|module| *module == next) {
            let names: Vec<_> = way[start..].iter().map(|name| name.as_str()).collect();
            return Some(format!(
                "modules in a circle: {} -> {next} (in {file}.rs)",
                names.join(" -> ")
            ));
        }
        way.push(next);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_that_use_each_other_downwards_are_accepted() {
        let files = [
            ("lib.rs", "mod a;\nmod b;\npub use a::A;\n"),
            ("a.rs", "mod inner;\nuse crate::b::{self, B as Other};\nstruct A;\n"),
            ("a/inner.rs", "use super::A;\nfn f() { crate::b::g() }\n"),
            ("b.rs", "// use crate::a::A;\n/// [`crate::a::A`]\npub struct B;\n"),
        ];
        assert_eq!(check("x", &files), [""; 0]);
    }

    #[test]
    fn circles_are_found_however_they_are_written() {
        let ways = [
            "use crate::a::A;",
            "use super::{a::{self, A}, c};",
            "fn f() -> crate::a::A { todo!() }",
            // What the crate passes on comes from where it is.
            "use crate::A;",
        ];
        for way in ways {
            let files = [
                ("lib.rs", "mod a;\nmod b;\npub use self::a::A;\n"),
                ("a.rs", "use crate::b::B;\npub struct A;\n"),
                ("b.rs", &format!("{way}\npub struct B;\n")),
            ];
            let found = check("x", &files);
            assert_eq!(found.len(), 1, "{way}: {found:?}");
            assert!(found[0].contains("a -> b -> a"), "{found:?}");
        }
    }

    #[test]
    fn circles_further_in_and_of_more_than_two_are_found() {
        let files = [
            ("lib.rs", "mod m;\n"),
            ("m.rs", "mod a;\nmod b;\nmod c;\n"),
            ("m/a.rs", "use super::b::x;\n"),
            ("m/b.rs", "mod deep;\n"),
            ("m/b/deep.rs", "use crate::m::c;\n"),
            ("m/c.rs", "fn f() { super::a::y() }\n"),
        ];
        assert_eq!(check("x", &files), ["x: modules in a circle: a -> b -> c -> a (in m/c.rs)"]);
    }

    #[test]
    fn tests_may_use_what_they_like() {
        let tests = "#[cfg(test)]\nmod tests {\n    use crate::a::A;\n}\n";
        let files =
            [("a.rs", "use crate::b::B;\n"), ("b.rs", tests), ("b/tests.rs", "use crate::a;\n")];
        assert_eq!(check("x", &files), [""; 0]);
    }

    #[test]
    fn two_types_of_one_name_are_found() {
        let files = [
            ("a.rs", "pub(super) struct Held(u8);\n"),
            ("b.rs", "enum Held {}\nimpl T for Held {\n    type Error = ();\n}\n"),
            ("c.rs", "type Held2 = ();\nimpl T for C {\n    type Error = ();\n}\n"),
        ];
        assert_eq!(check("x", &files), ["x: types called Held in a.rs, b.rs"]);
    }
}
