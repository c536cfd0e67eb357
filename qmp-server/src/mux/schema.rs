// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is known of the upstream server's commands, so that it is not sent what it would refuse.
//!
//! QEMU reads a message byte by byte, which takes about ten microseconds each, and reads nothing else meanwhile: a
//! message of a megabyte keeps it from all clients for ten seconds. So of a long request, what the server only reads to
//! refuse it is left out. Its answer is the same.

use std::collections::HashMap;

use qmp_dispatch::proto::{Error, Json, Object, Value};
use qmp_dispatch::qapi::first_unexpected;

use super::request::Text;

/// The command that returns the schema.
pub(super) const QUERY: &str = "query-qmp-schema";

/// Requests of up to this many bytes are sent as they are: to read one takes less time than to execute most commands.
pub(super) const SHORT: usize = 256;

/// Commands that take any arguments, whatever the schema says: in QEMU, no code is generated for them.
const UNCHECKED: [&str; 3] = ["device_add", "netdev_add", "object-add"];

/// What stands for an unexpected argument. No member in QAPI has this name.
const UNEXPECTED: &str = "-";

pub(super) struct Schema {
    /// The arguments of each command in the order of their declaration; `None` if they are not known.
    commands: HashMap<String, Option<Vec<String>>>,
}

impl Schema {
    /// Reads the answer of the server. Returns `None` if it is not a schema, or not that of a server that returns one.
    pub(super) fn new(answer: &Json) -> Option<Schema> {
        let value = answer.to_value();
        let entries = value.as_array()?;
        let text = |entry: &Value, member: &str| Some(entry.get(member)?.as_str()?.to_owned());
        let types: HashMap<String, &Value> =
            entries.iter().filter_map(|entry| Some((text(entry, "name")?, entry))).collect();
        let commands = entries
            .iter()
            .filter(|entry| entry.get("meta-type").and_then(Value::as_str) == Some("command"));
        let commands = commands.filter_map(|command| {
            let name = text(command, "name")?;
            let is_checked = !UNCHECKED.contains(&name.as_str());
            let ty = text(command, "arg-type").and_then(|ty| types.get(&ty).copied());
            Some((name, ty.filter(|_| is_checked).and_then(members)))
        });
        let commands: HashMap<_, _> = commands.collect();
        commands.contains_key(QUERY).then_some(Schema { commands })
    }

    /// Leaves out what the server would only read to refuse it. Returns the name of the argument that it will call
    /// unexpected under the name that stands for it.
    ///
    /// # Errors
    ///
    /// That of the server, if nothing need be sent.
    pub(super) fn shorten(
        &self,
        text: &mut Text,
        arguments: &Object,
    ) -> Result<Option<String>, Error> {
        let Some(known) = self.commands.get(&text.command) else {
            if text.command.len() > SHORT {
                return Err(Error::command_not_found(&text.command));
            }
            // It says so before it looks at arguments.
            text.arguments = None;
            return Ok(None);
        };
        let Some(known) = known else { return Ok(None) };
        let names = known.iter().map(String::as_str);
        let Some(unexpected) = first_unexpected(arguments, names.clone()) else { return Ok(None) };
        // The others are checked first.
        let present = names.filter_map(|name| Some((name, arguments.get(name)?.clone())));
        let left: Object = present.chain([(UNEXPECTED, Value::Null)]).collect();
        text.arguments = Some(Json::from(&left));
        Ok(Some(unexpected.to_owned()))
    }
}

/// The members of an object type without variants.
fn members(ty: &Value) -> Option<Vec<String>> {
    if ty.get("variants").is_some() {
        return None;
    }
    let names = ty.get("members")?.as_array()?.iter();
    names.map(|member| Some(member.get("name")?.as_str()?.to_owned())).collect()
}

/// The error about an argument that was left out, as it would be about the argument.
pub(super) fn restore(error: Error, unexpected: &str) -> Error {
    let is = format!("Parameter '{UNEXPECTED}' is unexpected");
    if error.desc != is {
        return error;
    }
    Error { desc: format!("Parameter '{unexpected}' is unexpected").into(), ..error }
}

#[cfg(test)]
mod tests {
    use qmp_dispatch::proto::Band;

    use super::*;

    fn schema() -> Schema {
        let text = r#"[
            {"meta-type": "command", "name": "query-qmp-schema", "arg-type": "0", "ret-type": "9"},
            {"meta-type": "command", "name": "resize", "arg-type": "1", "ret-type": "0"},
            {"meta-type": "command", "name": "add", "arg-type": "2", "ret-type": "0"},
            {"meta-type": "command", "name": "device_add", "arg-type": "1", "ret-type": "0"},
            {"meta-type": "object", "name": "0", "members": []},
            {"meta-type": "object", "name": "1", "members": [
                {"name": "device", "type": "str"}, {"name": "size", "type": "int"}]},
            {"meta-type": "object", "name": "2", "members": [{"name": "driver", "type": "3"}],
                "tag": "driver", "variants": [{"case": "a", "type": "1"}]}
        ]"#;
        Schema::new(&Json::from(&text.parse::<Value>().unwrap())).unwrap()
    }

    /// What is sent, and the name of the argument that was left out.
    #[track_caller]
    fn shortened(command: &str, arguments: &str) -> Result<(String, Option<String>), Error> {
        let arguments: Value = arguments.parse().unwrap();
        let arguments = arguments.as_object().unwrap();
        let mut text = Text::new(command.to_owned(), Some(Json::from(arguments)), Band::InBand);
        let unexpected = schema().shorten(&mut text, arguments)?;
        let sent = text.arguments.map(|json| json.as_str().to_owned());
        Ok((sent.unwrap_or_default(), unexpected))
    }

    #[test]
    fn what_is_expected_is_sent_as_it_is() {
        for (command, arguments) in [
            ("resize", r#"{"size": 1, "device": "d"}"#),
            ("add", r#"{"driver": "a", "device": "d", "else": 1}"#),
            ("device_add", r#"{"driver": "a", "else": 1}"#),
        ] {
            let sent = Json::from(&arguments.parse::<Value>().unwrap()).as_str().to_owned();
            assert_eq!(shortened(command, arguments), Ok((sent, None)));
        }
    }

    #[test]
    fn of_unexpected_arguments_the_first_one_is_told_and_none_is_sent() {
        let many: Vec<String> = (0..1000).map(|number| format!("'n{number}': [1, 2]")).collect();
        let arguments = format!("{{{}, 'device': 7}}", many.join(", "));
        let (sent, unexpected) = shortened("resize", &arguments).unwrap();
        assert_eq!(sent, r#"{"device": 7, "-": null}"#);
        let object: Value = arguments.parse().unwrap();
        let first = first_unexpected(object.as_object().unwrap(), ["device", "size"]);
        assert_eq!(unexpected.as_deref(), first);
        let error = restore(Error::generic("Parameter '-' is unexpected"), first.unwrap());
        assert_eq!(error.desc, format!("Parameter '{}' is unexpected", first.unwrap()));
        let other = Error::generic("Parameter 'size' is missing");
        assert_eq!(restore(other.clone(), "x"), other);
    }

    #[test]
    fn to_unknown_commands_no_arguments_are_sent() {
        assert_eq!(shortened("absent", "{'a': 1}"), Ok((String::new(), None)));
        let name = "n".repeat(SHORT + 1);
        assert_eq!(shortened(&name, "{}"), Err(Error::command_not_found(&name)));
    }

    #[test]
    fn what_is_no_schema_says_nothing() {
        for answer in ["{}", "[]", "[{'name': 'stop', 'meta-type': 'command'}]", "7"] {
            let answer = Json::from(&answer.parse::<Value>().unwrap());
            assert!(Schema::new(&answer).is_none());
        }
    }
}
