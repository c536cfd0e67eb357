// SPDX-License-Identifier: MIT OR Apache-2.0
//! The result of `query-qmp-schema`, as clients read it.

use std::collections::HashMap;

use crate::json::Json;

#[derive(Debug)]
pub(crate) enum Shape<'s> {
    /// The JSON type that the schema tells.
    Builtin(&'s str),
    Enum(Vec<&'s str>),
    Array(&'s str),
    Alternate(Vec<&'s str>),
    /// Has [members](Schema::members) and perhaps [variants](Schema::variants).
    Object,
}

#[derive(Debug)]
pub(crate) struct Member<'s> {
    pub(crate) name: &'s str,
    pub(crate) ty: &'s str,
    pub(crate) optional: bool,
}

/// Whether a command or event is an extension that is not QEMU's.
pub fn is_downstream(name: &str) -> bool {
    name.starts_with("__")
}

#[derive(Debug)]
pub struct Schema {
    entries: Vec<Json>,
    by_name: HashMap<String, usize>,
}

impl Schema {
    /// The schema that a server returns, an array of entries.
    pub fn new(result: &Json) -> Self {
        Self::of(result.as_array().expect("a schema is an array").to_vec())
    }

    /// A schema that was written down, an entry on each line.
    pub fn parse(lines: &str) -> Self {
        Self::of(lines.lines().map(|line| Json::parse(line).expect("an entry")).collect())
    }

    fn of(entries: Vec<Json>) -> Self {
        let mut by_name = HashMap::new();
        for (index, entry) in entries.iter().enumerate() {
            let earlier = by_name.insert(text(entry, "name").to_owned(), index);
            assert_eq!(earlier, None, "the name of {entry} is not its own");
        }
        Self { entries, by_name }
    }

    /// The names of the commands and events, sorted.
    pub fn entities(&self) -> Vec<&str> {
        let is_entity = |entry: &&Json| matches!(text(entry, "meta-type"), "command" | "event");
        let mut names: Vec<_> =
            self.entries.iter().filter(is_entity).map(|entry| text(entry, "name")).collect();
        names.sort_unstable();
        names
    }

    pub fn commands(&self) -> impl Iterator<Item = &str> {
        let is_command = |entry: &&Json| text(entry, "meta-type") == "command";
        self.entries.iter().filter(is_command).map(|entry| text(entry, "name"))
    }

    /// These commands and events, as far as they exist, and all types that they lead to. The masked names of types are
    /// numbers by first use, so that schemas can be compared whatever else they contain.
    pub fn excerpt(&self, entities: &[&str]) -> Vec<String> {
        let mut excerpt = Excerpt { schema: self, uses: Vec::new(), names: HashMap::new() };
        let mut lines: Vec<String> = entities
            .iter()
            .filter_map(|name| self.find(name))
            .map(|entry| excerpt.renamed(entry).to_string())
            .collect();
        let mut next = 0;
        while let Some(name) = excerpt.uses.get(next).cloned() {
            lines.push(excerpt.definition(&name).to_string());
            next += 1;
        }
        lines
    }

    /// Whether the schema has what a path from a command or event leads to, in the way and the notation of libvirt:
    /// `arg-type`, `ret-type` and names of members lead to a type, a member with `*` must be optional, `+` stands
    /// before a variant of a union, `^` before a value of an enum, `!` before the JSON type of a builtin type and `$`
    /// before a feature of what comes before it. Arrays and alternates are passed through.
    pub fn has(&self, path: &str) -> bool {
        let steps: Vec<_> = path.split('/').collect();
        self.find(steps[0]).is_some_and(|entry| self.leads(entry, &steps[1..]))
    }

    fn leads(&self, entry: &Json, steps: &[&str]) -> bool {
        let [step, rest @ ..] = steps else { return true };
        if let Some(feature) = step.strip_prefix('$') {
            return has_feature(entry, feature);
        }
        let type_leads = |name: &str, steps| self.leads(self.entry(name), steps);
        match text(entry, "meta-type") {
            "array" => type_leads(text(entry, "element-type"), steps),
            "builtin" => step.strip_prefix('!') == Some(text(entry, "json-type")),
            "alternate" => {
                items(entry, "members").iter().any(|branch| type_leads(text(branch, "type"), steps))
            }
            "enum" => {
                let value = step.strip_prefix('^');
                let found = find_item(items(entry, "members"), "name", value.unwrap_or_default());
                found.is_some_and(|value| is_end(value, rest))
            }
            "object" => match step.strip_prefix('+') {
                Some(case) => find_item(items(entry, "variants"), "case", case)
                    .is_some_and(|variant| type_leads(text(variant, "type"), rest)),
                None => {
                    let name = step.strip_prefix('*');
                    find_item(items(entry, "members"), "name", name.unwrap_or(step))
                        .filter(|member| name.is_none() || member.get("default").is_some())
                        .is_some_and(|member| {
                            is_end(member, rest) || type_leads(text(member, "type"), rest)
                        })
                }
            },
            _ => entry.get(step).and_then(Json::as_str).is_some_and(|name| type_leads(name, rest)),
        }
    }

    pub(crate) fn arguments_of(&self, command: &str) -> &str {
        text(self.entry(command), "arg-type")
    }

    pub(crate) fn shape(&self, ty: &str) -> Shape<'_> {
        let entry = self.entry(ty);
        let members =
            |key| items(entry, "members").iter().map(|member| text(member, key)).collect();
        match text(entry, "meta-type") {
            "builtin" => Shape::Builtin(text(entry, "json-type")),
            "enum" => Shape::Enum(members("name")),
            "array" => Shape::Array(text(entry, "element-type")),
            "alternate" => Shape::Alternate(members("type")),
            _ => Shape::Object,
        }
    }

    /// The members that all objects of this type have.
    pub(crate) fn members(&self, ty: &str) -> Vec<Member<'_>> {
        let member = |member| Member {
            name: text(member, "name"),
            ty: text(member, "type"),
            optional: member.get("default").is_some(),
        };
        items(self.entry(ty), "members").iter().map(member).collect()
    }

    /// The member whose value chooses among variants, and these with the types of their members, if this is a union.
    pub(crate) fn variants(&self, ty: &str) -> Option<(&str, Vec<(&str, &str)>)> {
        let entry = self.entry(ty);
        let tag = entry.get("tag").and_then(Json::as_str)?;
        let variant = |variant| (text(variant, "case"), text(variant, "type"));
        Some((tag, items(entry, "variants").iter().map(variant).collect()))
    }

    fn find(&self, name: &str) -> Option<&Json> {
        self.by_name.get(name).map(|&index| &self.entries[index])
    }

    fn entry(&self, name: &str) -> &Json {
        self.find(name).unwrap_or_else(|| panic!("nothing is called {name}"))
    }
}

/// Whether the path ends with this member or value, or with a feature that it has.
fn is_end(item: &Json, rest: &[&str]) -> bool {
    match rest {
        [] => true,
        [feature] => feature.strip_prefix('$').is_some_and(|feature| has_feature(item, feature)),
        _ => false,
    }
}

fn has_feature(item: &Json, feature: &str) -> bool {
    items(item, "features").contains(&Json::from(feature))
}

fn find_item<'j>(items: &'j [Json], key: &str, value: &str) -> Option<&'j Json> {
    items.iter().find(|item| text(item, key) == value)
}

fn items<'j>(entry: &'j Json, key: &str) -> &'j [Json] {
    entry.get(key).and_then(Json::as_array).unwrap_or_default()
}

fn text<'j>(entry: &'j Json, key: &str) -> &'j str {
    let text = entry.get(key).and_then(Json::as_str);
    text.unwrap_or_else(|| panic!("no {key} in {entry}"))
}

/// Gives types new names as they are used.
struct Excerpt<'s> {
    schema: &'s Schema,
    /// The names of types in the schema, in the order of their first use.
    uses: Vec<String>,
    /// The new names of those that are masked.
    names: HashMap<String, usize>,
}

impl Excerpt<'_> {
    fn definition(&mut self, name: &str) -> Json {
        let renamed = self.rename(name);
        match self.renamed(self.schema.entry(name)) {
            Json::Object(mut members) => {
                for (key, value) in &mut members {
                    if key == "name" {
                        *value = Json::from(renamed.as_str());
                    }
                }
                Json::Object(members)
            }
            other => other,
        }
    }

    /// The entry, or a part of it, with new names for the types that it uses.
    fn renamed(&mut self, part: &Json) -> Json {
        match part {
            Json::Object(members) => {
                let rename = |(key, value): &(String, Json)| {
                    let value = match (key.as_str(), value) {
                        ("type" | "arg-type" | "ret-type" | "element-type", Json::String(name)) => {
                            Json::String(self.used(name))
                        }
                        (_, value) => self.renamed(value),
                    };
                    (key.clone(), value)
                };
                Json::Object(members.iter().map(rename).collect())
            }
            Json::Array(elements) => {
                Json::Array(elements.iter().map(|element| self.renamed(element)).collect())
            }
            other => other.clone(),
        }
    }

    fn used(&mut self, name: &str) -> String {
        if !self.uses.iter().any(|used| used == name) {
            self.uses.push(name.to_owned());
        }
        self.rename(name)
    }

    fn rename(&mut self, name: &str) -> String {
        if let Some(element) = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')) {
            return format!("[{}]", self.rename(element));
        }
        if text(self.schema.entry(name), "meta-type") == "builtin" {
            return name.to_owned();
        }
        let next = self.names.len();
        self.names.entry(name.to_owned()).or_insert(next).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINES: &str = r#"{"name": "do", "ret-type": "[3]", "meta-type": "command", "arg-type": "7", "features": ["f"]}
{"name": "7", "tag": "kind", "variants": [{"case": "a", "type": "8"}], "members": [{"name": "kind", "type": "9", "features": ["g"]}, {"name": "of", "default": null, "type": "4"}], "meta-type": "object"}
{"name": "8", "members": [{"name": "size", "type": "int"}], "meta-type": "object"}
{"name": "9", "members": [{"name": "a", "features": ["h"]}], "meta-type": "enum", "values": ["a"]}
{"name": "4", "members": [{"type": "9"}, {"type": "8"}], "meta-type": "alternate"}
{"name": "[3]", "element-type": "3", "meta-type": "array"}
{"name": "3", "members": [{"name": "id", "type": "str"}], "meta-type": "object"}
{"name": "int", "json-type": "int", "meta-type": "builtin"}
{"name": "str", "json-type": "string", "meta-type": "builtin"}
{"name": "5", "members": [], "meta-type": "object"}
{"name": "DONE", "meta-type": "event", "arg-type": "3"}"#;

    #[test]
    fn paths_are_followed() {
        let schema = Schema::parse(LINES);
        for path in [
            "do",
            "do/$f",
            "do/ret-type/id/!string",
            "do/arg-type/kind/^a/$h",
            "do/arg-type/kind/$g",
            "do/arg-type/*of/^a",
            "do/arg-type/of/size",
            "do/arg-type/+a/size/!int",
            "DONE/arg-type/id",
        ] {
            assert!(schema.has(path), "{path}");
        }
        for path in [
            "no",
            "do/$g",
            "do/ret-type/name",
            "do/ret-type/id/!int",
            "do/arg-type/*kind",
            "do/arg-type/kind/^b",
            "do/arg-type/kind/a",
            "do/arg-type/+b",
            "do/arg-type/size",
            "do/arg-type/of/$g",
            "DONE/ret-type",
        ] {
            assert!(!schema.has(path), "{path}");
        }
    }

    #[test]
    fn an_excerpt_names_types_by_first_use() {
        let schema = Schema::parse(LINES);
        assert_eq!(schema.entities(), ["DONE", "do"]);
        assert_eq!(schema.commands().collect::<Vec<_>>(), ["do"]);
        assert_eq!(
            schema.excerpt(&["DONE", "nothing"]),
            [
                r#"{"name": "DONE", "meta-type": "event", "arg-type": "0"}"#,
                r#"{"name": "0", "members": [{"name": "id", "type": "str"}], "meta-type": "object"}"#,
                r#"{"name": "str", "json-type": "string", "meta-type": "builtin"}"#,
            ]
        );
        let excerpt = schema.excerpt(&["do"]);
        assert_eq!(excerpt.len(), 9, "one type is not used by it, and the event is another");
        assert_eq!(
            Schema::parse(&excerpt.join("\n")).excerpt(&["do"]),
            excerpt,
            "an excerpt of itself is the same"
        );
    }
}
