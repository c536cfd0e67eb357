// SPDX-License-Identifier: MIT OR Apache-2.0
//! QAPI schemas as text, as QEMU's source has them.

use std::collections::HashMap;

use super::introspection::Entity;
use super::schema_info::{MetaType, SchemaInfo, SchemaMember, SchemaVariant};
use super::types::EMPTY_NAME;

/// Columns of a line.
const WIDTH: usize = 70;

/// Writes entries whose names are those of QAPI.
pub(super) fn write(entries: &[SchemaInfo], entities: &[Entity]) -> String {
    let by_name = entries.iter().map(|entry| (entry.name.as_str(), &entry.meta)).collect();
    let results = entities.iter().map(|entity| (entity.name.as_str(), entity)).collect();
    let text = Text { by_name, entities: results };
    let mut out = String::new();
    let pragma = text.pragma(entries);
    if !pragma.is_empty() {
        let pragma = Node::Object(vec![("pragma".to_owned(), Node::Object(pragma))]);
        pragma.write(0, &mut out);
        out.push('\n');
    }
    for entry in entries {
        if let Some(expression) = text.expression(entry) {
            if !out.is_empty() {
                out.push('\n');
            }
            documentation(entry, &mut out);
            Node::Object(expression).write(0, &mut out);
            out.push('\n');
        }
    }
    out
}

type Members = Vec<(String, Node)>;

/// A value of QAPI's language.
enum Node {
    Name(String),
    Bool(bool),
    List(Vec<Node>),
    Object(Members),
}

impl Node {
    fn list<'n>(names: impl IntoIterator<Item = &'n String>) -> Node {
        Node::List(names.into_iter().cloned().map(Node::Name).collect())
    }

    fn inline(&self) -> String {
        let all = |parts: Vec<String>, [open, close]: [&str; 2]| match parts.is_empty() {
            true => format!("{open}{close}"),
            false => format!("{open} {} {close}", parts.join(", ")),
        };
        match self {
            Node::Name(name) => format!("'{name}'"),
            Node::Bool(value) => value.to_string(),
            Node::List(nodes) => all(nodes.iter().map(Node::inline).collect(), ["[", "]"]),
            Node::Object(members) => {
                let member = |(name, node): &(String, Node)| format!("'{name}': {}", node.inline());
                all(members.iter().map(member).collect(), ["{", "}"])
            }
        }
    }

    /// Writes the value from this column on: on one line, or with each of its parts on a line of its own.
    fn write(&self, column: usize, out: &mut String) {
        let inline = self.inline();
        let parts: Vec<(String, &Node)> = match self {
            _ if column + inline.len() <= WIDTH => Vec::new(),
            Node::Name(_) | Node::Bool(_) => Vec::new(),
            Node::List(nodes) => nodes.iter().map(|node| (String::new(), node)).collect(),
            Node::Object(members) => {
                members.iter().map(|(name, node)| (format!("'{name}': "), node)).collect()
            }
        };
        if parts.is_empty() {
            return out.push_str(&inline);
        }
        let [open, close] = if matches!(self, Node::List(_)) { ["[ ", " ]"] } else { ["{ ", " }"] };
        out.push_str(open);
        for (index, (name, node)) in parts.into_iter().enumerate() {
            if index > 0 {
                out.push_str(",\n");
                out.extend(std::iter::repeat_n(' ', column + 2));
            }
            out.push_str(&name);
            node.write(column + 2 + name.len(), out);
        }
        out.push_str(close);
    }
}

struct Text<'e> {
    by_name: HashMap<&'e str, &'e MetaType>,
    entities: HashMap<&'e str, &'e Entity>,
}

impl Text<'_> {
    /// What QAPI only allows by name.
    fn pragma(&self, entries: &[SchemaInfo]) -> Members {
        let is_plain = |name: &str| {
            let own = name.strip_prefix("__").and_then(|name| Some(name.split_once('_')?.1));
            !own.unwrap_or(name).contains(|c: char| c == '_' || c.is_ascii_uppercase())
        };
        let mut commands = Vec::new();
        let mut members = Vec::new();
        let mut results = Vec::new();
        for entry in entries {
            let name = || Node::Name(entry.name.clone());
            match &entry.meta {
                MetaType::Command { ret_type, .. } => {
                    if !is_plain(&entry.name) {
                        commands.push(name());
                    }
                    let element = ret_type.trim_matches(['[', ']']);
                    if !matches!(self.by_name.get(element), Some(MetaType::Object { .. })) {
                        results.push(name());
                    }
                }
                MetaType::Object { members: all, .. }
                    if !all.iter().all(|member| is_plain(&member.name)) =>
                {
                    members.push(name());
                }
                MetaType::Enum { members: all, .. }
                    if !all.iter().all(|value| is_plain(&value.name)) =>
                {
                    members.push(name());
                }
                _ => {}
            }
        }
        let lists = [
            ("command-name-exceptions", commands),
            ("command-returns-exceptions", results),
            ("member-name-exceptions", members),
        ];
        let used = lists.into_iter().filter(|(_, names)| !names.is_empty());
        used.map(|(name, names)| (name.to_owned(), Node::List(names))).collect()
    }

    fn expression(&self, entry: &SchemaInfo) -> Option<Members> {
        let name = Node::Name(entry.name.clone());
        let mut expression: Members = match &entry.meta {
            MetaType::Builtin { .. } | MetaType::Array { .. } => return None,
            MetaType::Object { .. } if entry.name == EMPTY_NAME => return None,
            MetaType::Enum { members, .. } => {
                let value = |name: &String, features: &[String]| match features {
                    [] => Node::Name(name.clone()),
                    features => Node::Object(vec![
                        ("name".to_owned(), Node::Name(name.clone())),
                        ("features".to_owned(), Node::list(features)),
                    ]),
                };
                let values = members.iter().map(|member| value(&member.name, &member.features));
                vec![("enum".to_owned(), name), ("data".to_owned(), Node::List(values.collect()))]
            }
            MetaType::Alternate { members } => {
                let branch = |ty: &String| (self.json_type(ty).to_owned(), type_name(ty));
                let branches = members.iter().map(|member| branch(&member.type_name));
                vec![
                    ("alternate".to_owned(), name),
                    ("data".to_owned(), Node::Object(branches.collect())),
                ]
            }
            MetaType::Object { members, tag: None, .. } => {
                let members = members.iter().map(member).collect();
                vec![("struct".to_owned(), name), ("data".to_owned(), Node::Object(members))]
            }
            MetaType::Object { members, tag: Some(tag), variants } => {
                let has_members = |variant: &&SchemaVariant| variant.type_name != EMPTY_NAME;
                let variants = variants.iter().flatten().filter(has_members);
                let variants =
                    variants.map(|variant| (variant.case.clone(), type_name(&variant.type_name)));
                vec![
                    ("union".to_owned(), name),
                    ("base".to_owned(), Node::Object(members.iter().map(member).collect())),
                    ("discriminator".to_owned(), Node::Name(tag.clone())),
                    ("data".to_owned(), Node::Object(variants.collect())),
                ]
            }
            MetaType::Command { arg_type, ret_type, allow_oob } => {
                let mut command = vec![("command".to_owned(), name)];
                self.data(arg_type, &mut command);
                if ret_type != EMPTY_NAME {
                    command.push(("returns".to_owned(), type_name(ret_type)));
                }
                let result = self
                    .entities
                    .get(entry.name.as_str())
                    .and_then(|entity| entity.result.as_ref());
                let mut option = |name: &str, is_set: bool, value: bool| {
                    if is_set {
                        command.push((name.to_owned(), Node::Bool(value)));
                    }
                };
                option(
                    "success-response",
                    result.is_some_and(|result| !result.success_response),
                    false,
                );
                option("allow-oob", *allow_oob, true);
                option(
                    "allow-preconfig",
                    result.is_some_and(|result| result.allow_preconfig),
                    true,
                );
                command
            }
            MetaType::Event { arg_type } => {
                let mut event = vec![("event".to_owned(), name)];
                self.data(arg_type, &mut event);
                event
            }
        };
        if !entry.features.is_empty() {
            expression.push(("features".to_owned(), Node::list(&entry.features)));
        }
        Some(expression)
    }

    /// Arguments or data. Those of a union must be boxed.
    fn data(&self, ty: &str, expression: &mut Members) {
        if ty == EMPTY_NAME {
            return;
        }
        expression.push(("data".to_owned(), type_name(ty)));
        if let Some(MetaType::Object { tag: Some(_), .. }) = self.by_name.get(ty) {
            expression.push(("boxed".to_owned(), Node::Bool(true)));
        }
    }

    /// Branches of alternates have no names in Rust; their JSON types tell them apart.
    fn json_type(&self, ty: &str) -> &'static str {
        match self.by_name.get(ty) {
            Some(MetaType::Object { .. }) => "object",
            Some(MetaType::Array { .. }) => "array",
            Some(MetaType::Enum { .. }) => "string",
            _ => match ty {
                "str" => "string",
                "bool" => "bool",
                "null" => "null",
                _ => "number",
            },
        }
    }
}

fn member(member: &SchemaMember) -> (String, Node) {
    let optional = if member.optional { "*" } else { "" };
    let ty = type_name(&member.type_name);
    let node = match member.features.as_slice() {
        [] => ty,
        features => Node::Object(vec![
            ("type".to_owned(), ty),
            ("features".to_owned(), Node::list(features)),
        ]),
    };
    (format!("{optional}{}", member.name), node)
}

/// A type by its name: an array is a list of its elements' type.
fn type_name(name: &str) -> Node {
    match name.strip_prefix('[').and_then(|name| name.strip_suffix(']')) {
        Some(element) => Node::List(vec![type_name(element)]),
        None => Node::Name(name.to_owned()),
    }
}

/// The comment before a definition.
fn documentation(entry: &SchemaInfo, out: &mut String) {
    let parts: Vec<(&str, &str)> = match &entry.meta {
        MetaType::Enum { members, .. } => members
            .iter()
            .filter_map(|value| Some((value.name.as_str(), value.documentation.as_deref()?)))
            .collect(),
        MetaType::Object { members, .. } => members
            .iter()
            .filter_map(|member| Some((member.name.as_str(), member.documentation.as_deref()?)))
            .collect(),
        _ => Vec::new(),
    };
    if entry.documentation.is_none() && parts.is_empty() {
        return;
    }
    out.push_str("##\n");
    let mut line = |indent: &str, text: &str| {
        let text = format!("# {indent}{text}");
        out.push_str(text.trim_end());
        out.push('\n');
    };
    line("", &format!("@{}:", entry.name));
    if let Some(text) = &entry.documentation {
        line("", "");
        text.lines().for_each(|text| line("", text));
    }
    for (name, text) in parts {
        line("", "");
        let mut lines = text.lines();
        line("", &format!("@{name}: {}", lines.next().unwrap_or_default()));
        lines.for_each(|text| line("    ", text));
    }
    out.push_str("##\n");
}
