// SPDX-License-Identifier: MIT OR Apache-2.0
//! Introspection, as far as it concerns those who have some role.

use std::collections::HashMap;

use qmp_dispatch::proto::{Json, Value};

use super::Role;
use crate::introspected::Introspected;

impl Role {
    /// Removes from a result of introspection what this role does not allow.
    pub(super) fn shown(&self, introspected: Introspected, whole: &Json) -> Json {
        self.last_shown.of(introspected, whole, || match introspected {
            Introspected::Commands => commands(whole, self),
            Introspected::Schema => schema(whole, self),
        })
    }
}

/// The commands that the role allows.
fn commands(whole: &Json, role: &Role) -> Json {
    let whole_value = whole.to_value();
    let entries = whole_value.as_array().unwrap_or_default();
    whole.retain_elements(|index| {
        text(&entries[index], "name").is_none_or(|n| role.allows_command(n))
    })
}

/// The commands and events that the role allows, and the types that they lead to. All others keep their text and
/// their place.
fn schema(whole: &Json, role: &Role) -> Json {
    let whole_value = whole.to_value();
    let entries = whole_value.as_array().unwrap_or_default();
    let mut types = HashMap::new();
    let mut kept = vec![false; entries.len()];
    let mut reached = Vec::new();
    for (index, entry) in entries.iter().enumerate() {
        let allowed = match (text(entry, "name"), text(entry, "meta-type")) {
            (Some(name), Some("command")) => role.allows_command(name),
            (Some(name), Some("event")) => role.allows_event(name),
            (Some(name), _) => {
                types.insert(name, index);
                false
            }
            // Whatever that is, it names nothing.
            (None, _) => true,
        };
        if allowed {
            kept[index] = true;
            reached.push(index);
        }
    }
    while let Some(index) = reached.pop() {
        each_type(&entries[index], &mut |name| {
            if let Some(&index) = types.get(name)
                && !std::mem::replace(&mut kept[index], true)
            {
                reached.push(index);
            }
        });
    }
    whole.retain_elements(|index| kept[index])
}

/// The types to which an entry leads directly.
fn each_type(entry: &Value, found: &mut dyn FnMut(&str)) {
    let lists = ["members", "variants"].into_iter().filter_map(|key| entry.get(key)?.as_array());
    let direct = ["arg-type", "ret-type", "element-type"].into_iter().map(|key| text(entry, key));
    let listed = lists.flatten().map(|item| text(item, "type"));
    direct.chain(listed).flatten().for_each(found);
}

fn text<'v>(entry: &'v Value, key: &str) -> Option<&'v str> {
    entry.get(key)?.as_str()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCHEMA: &str = r#"[
        {"name": "DONE", "meta-type": "event", "arg-type": "0"},
        {"name": "query-x",  "ret-type":"[1]", "meta-type": "command", "arg-type": "7"},
        {"name": "do", "ret-type": "7", "meta-type": "command", "arg-type": "4"},
        {"name": "0", "members": [{"name": "a", "type": "int"}], "meta-type": "object"},
        {"name": "[1]", "element-type": "1", "meta-type": "array"},
        {"name": "1", "tag": "t", "variants": [{"case": "c", "type": "2"}], "members": [{"name": "t", "type": "3"}], "meta-type": "object"},
        {"name": "2", "members": [{"name": "again", "default": null, "type": "1"}], "meta-type": "object"},
        {"name": "3", "members": [{"name": "c"}], "meta-type": "enum", "values": ["c"]},
        {"name": "4", "members": [{"name": "b", "type": "5"}], "meta-type": "object"},
        {"name": "5", "members": [{"type": "str"}, {"type": "6"}], "meta-type": "alternate"},
        {"name": "6", "members": [{"name": "d", "type": "bool"}], "meta-type": "object"},
        {"name": "7", "members": [], "meta-type": "object"},
        {"name": "int", "json-type": "int", "meta-type": "builtin"},
        {"name": "str", "json-type": "string", "meta-type": "builtin"},
        {"name": "bool", "json-type": "boolean", "meta-type": "builtin"},
        {"meta-type": "new in QEMU 99"}, "or even this"]"#;

    /// Text as it came from a server.
    fn json(text: &str) -> Json {
        Json::from(&text.parse::<Value>().unwrap())
    }

    fn role(commands: &[&str], events: &[&str]) -> Role {
        let mut role = Role::new("r").unwrap();
        commands.iter().for_each(|pattern| role.allow(pattern).unwrap());
        events.iter().for_each(|pattern| role.allow_events(pattern).unwrap());
        role
    }

    #[track_caller]
    fn check(role: &Role, expected: &[usize]) {
        let whole = json(SCHEMA);
        let entries: Vec<String> =
            SCHEMA.lines().skip(1).map(|line| line.trim().to_owned()).collect();
        let mut lines: Vec<String> = entries
            .iter()
            .map(|line| line.trim_end_matches(',').to_owned())
            .take(entries.len() - 1)
            .collect();
        lines
            .extend([r#"{"meta-type": "new in QEMU 99"}"#, r#""or even this""#].map(str::to_owned));
        let expected: Vec<Json> = expected.iter().map(|&index| json(&lines[index])).collect();
        let expected: Vec<&str> = expected.iter().map(Json::as_str).collect();
        let part = schema(&whole, role);
        assert_eq!(part.as_str(), format!("[{}]", expected.join(", ")));
    }

    #[test]
    fn types_vanish_with_the_last_that_leads_to_them() {
        check(&role(&[], &[]), &[15, 16]);
        check(&role(&[], &["*"]), &[0, 3, 12, 15, 16]);
        check(&role(&["query-*"], &[]), &[1, 4, 5, 6, 7, 11, 15, 16]);
        check(&role(&["do"], &[]), &[2, 8, 9, 10, 11, 13, 14, 15, 16]);
        check(&role(&["*"], &["*"]), &(0..17).collect::<Vec<_>>());
    }

    #[test]
    fn what_is_no_list_is_left_alone() {
        for whole in [json("{}"), json("1"), json("[]"), json("[null, 1, [2]]")] {
            assert_eq!(schema(&whole, &role(&[], &[])), whole);
            assert_eq!(commands(&whole, &role(&[], &[])), whole);
        }
    }

    #[test]
    fn another_server_is_shown_anew() {
        let role = role(&["a"], &[]);
        for (whole, part) in [
            (r#"[{"name": "a"}, {"name": "b"}]"#, r#"[{"name": "a"}]"#),
            (r#"[{"name": "b"}]"#, "[]"),
            (r#"[{"name": "b"}]"#, "[]"),
            (r#"[{"name": "a"}]"#, r#"[{"name": "a"}]"#),
        ] {
            assert_eq!(role.shown(Introspected::Commands, &json(whole)).as_str(), part);
        }
        assert_eq!(role.shown(Introspected::Schema, &json("[1]")).as_str(), "[1]");
    }
}
