// SPDX-License-Identifier: MIT OR Apache-2.0
//! Arguments without what nobody else should know.

use qmp_dispatch::proto::{Object, Value};

use crate::glob::{self, PatternError};

/// What stands for a secret.
const HIDDEN: &str = "***";

/// What stands for arguments that have more than [`LONGEST`].
const TOO_LONG: &str = "(too long)";

/// How much of arguments is kept, in bytes of names and texts.
const LONGEST: usize = 16 << 10;

/// Names of members that are secrets, in small letters and with `-`.
const SECRETS: &[&str] = &[
    "*password*",
    "*passwd*",
    "*passphrase*",
    "*secret*",
    "*credential*",
    "*token*",
    "*private*",
    "*cookie",
    "key",
    "*-key",
    "*apikey*",
];

/// Names that look like it, but in QEMU's commands are those of members that hold the id of a `secret` object.
const IDS: &[&str] = &[
    "cookie-secret",
    "key-secret",
    "new-secret",
    "old-secret",
    "password-secret",
    "passwordid",
    "proxy-password-secret",
];

/// Members of QEMU's commands that are secrets, or may be what somebody types, whatever their names.
const OF_COMMANDS: &[(&str, &[&str])] =
    &[("send-key", &["keys"]), ("input-send-event", &["events"]), ("ringbuf-write", &["data"])];

/// Ends a value within a text such as `rbd:pool/image:key=VALUE:id=x`.
const SEPARATORS: &[char] = &[',', ':', ';', '&', '"', '\'', ' ', '\t', '\n'];

/// Which members are secrets.
#[derive(Clone, Debug, Default)]
pub(super) struct Secrets {
    /// Besides those that are always.
    more: Vec<String>,
}

/// What is done with arguments: they are copied, and what is hidden is noted.
struct Copying<'a> {
    secrets: &'a Secrets,
    /// How much more is kept.
    left: usize,
    hidden: Vec<&'a str>,
}

impl Secrets {
    pub(super) fn hide(&mut self, pattern: &str) -> Result<(), PatternError> {
        glob::check(pattern)?;
        self.more.push(normal(pattern));
        Ok(())
    }

    /// The arguments of a command, with secrets replaced.
    pub(super) fn replaced(&self, command: &str, arguments: &Object) -> Value {
        let mut copying = Copying { secrets: self, left: LONGEST, hidden: Vec::new() };
        copying.arguments(command, arguments).unwrap_or_else(|| TOO_LONG.into())
    }

    /// What an error says, with the secrets of the arguments replaced.
    pub(super) fn described(&self, command: &str, arguments: &Object, desc: &str) -> String {
        let mut copying = Copying { secrets: self, left: LONGEST, hidden: Vec::new() };
        if copying.arguments(command, arguments).is_none() {
            // Who knows what else is in them.
            return TOO_LONG.to_owned();
        }
        copying.hidden.sort_unstable_by_key(|secret| std::cmp::Reverse(secret.len()));
        let secrets = copying.hidden.iter().filter(|secret| !secret.is_empty());
        let desc = secrets.fold(desc.to_owned(), |desc, secret| desc.replace(secret, HIDDEN));
        self.clean(&desc)
    }

    fn is_secret(&self, name: &str) -> bool {
        let name = normal(name);
        let matches = |pattern: &str| glob::matches(pattern, &name);
        self.more.iter().any(|pattern| matches(pattern))
            || (!IDS.contains(&&*name) && SECRETS.iter().any(|pattern| matches(pattern)))
    }

    /// A text without the passwords of URLs, and without what is said of members that are secrets.
    pub(super) fn clean(&self, text: &str) -> String {
        // QEMU takes all options of a block device as a name, in JSON.
        if let Some(options) = text.strip_prefix("json:") {
            return if options.is_empty() { text.to_owned() } else { format!("json:{HIDDEN}") };
        }
        let mut clean = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(at) = rest.find(['=', '/']) {
            let (before, after) = rest.split_at(at);
            clean.push_str(before);
            if let Some(authority) = after.strip_prefix("//").filter(|_| before.ends_with(':')) {
                let end = authority.find(['/', '?', '#', ' ']).unwrap_or(authority.len());
                let user = authority[..end].rfind('@').map_or("", |at| &authority[..at]);
                clean.push_str("//");
                rest = authority;
                if let Some((name, password)) = user.split_once(':') {
                    clean.push_str(&format!("{name}:{HIDDEN}"));
                    rest = &authority[name.len() + 1 + password.len()..];
                }
                continue;
            }
            clean.push_str(&after[..1]);
            rest = &after[1..];
            let is_of_name = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
            let name = before.rsplit(|c| !is_of_name(c)).next().unwrap_or_default();
            if after.starts_with('=') && !name.is_empty() && self.is_secret(name) {
                let end = rest.find(SEPARATORS).unwrap_or(rest.len());
                clean.push_str(HIDDEN);
                rest = &rest[end..];
            }
        }
        clean.push_str(rest);
        clean
    }
}

impl<'a> Copying<'a> {
    /// `None` if they are too long.
    fn arguments(&mut self, command: &str, arguments: &'a Object) -> Option<Value> {
        let text = |name: &str| arguments.get(name).and_then(Value::as_str);
        let of_command = OF_COMMANDS.iter().find(|(of, _)| *of == command);
        let mut also = of_command.map_or(&[][..], |(_, names)| names);
        if command == "qom-set" {
            let property = text("property").unwrap_or_default();
            if property == "data" || self.secrets.is_secret(property) {
                also = &["value"];
            }
        }
        if command == "human-monitor-command" {
            return self.human(arguments);
        }
        self.object(arguments, also)
    }

    /// Of a line for people only its first word is kept, but for `info`: what else is there a secret, only the
    /// command itself knows.
    fn human(&mut self, arguments: &'a Object) -> Option<Value> {
        let mut copy = Object::new();
        for (name, value) in arguments {
            let value = match (name, value) {
                ("command-line", Value::String(line)) => {
                    let line = line.trim_start();
                    let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
                    match rest.trim() {
                        "" => self.value(value, &[])?,
                        _ if word == "info" => self.value(value, &[])?,
                        rest => {
                            self.hidden.push(rest);
                            self.keep(word.len())?;
                            format!("{word} {HIDDEN}").into()
                        }
                    }
                }
                _ => self.value(value, &[])?,
            };
            self.keep(name.len())?;
            copy.insert(name, value);
        }
        Some(copy.into())
    }

    /// `also` are names of members that are secrets here.
    fn object(&mut self, object: &'a Object, also: &[&str]) -> Option<Value> {
        // Those for `object-add`, wherever they are.
        let kind = object.get("qom-type").and_then(Value::as_str).unwrap_or_default();
        let also = if kind.starts_with("secret") { &["data"] } else { also };
        let mut copy = Vec::new();
        for (name, value) in object {
            self.keep(name.len())?;
            let value = match also.contains(&name) || self.secrets.is_secret(name) {
                true => {
                    self.note(value);
                    HIDDEN.into()
                }
                false => self.value(value, also)?,
            };
            copy.push((name, value));
        }
        Some(Value::Object(copy.into_iter().collect()))
    }

    fn value(&mut self, value: &'a Value, also: &[&str]) -> Option<Value> {
        self.keep(1)?;
        match value {
            Value::Object(object) => self.object(object, also),
            Value::Array(array) => {
                let copy = array.iter().map(|element| self.value(element, also));
                copy.collect::<Option<Vec<_>>>().map(Value::Array)
            }
            Value::String(text) => {
                self.keep(text.len())?;
                let clean = self.secrets.clean(text);
                if clean != *text {
                    self.hidden.push(text);
                }
                Some(clean.into())
            }
            other => Some(other.clone()),
        }
    }

    fn keep(&mut self, size: usize) -> Option<()> {
        take(&mut self.left, size).then_some(())
    }

    /// Notes the texts in what is hidden.
    fn note(&mut self, value: &'a Value) {
        match value {
            Value::String(text) => self.hidden.push(text),
            Value::Array(array) => array.iter().for_each(|value| self.note(value)),
            Value::Object(object) => object.iter().for_each(|(_, value)| self.note(value)),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }
}

/// What is wrong with input that cannot be read, without the piece of it that is quoted: nobody knows
/// whether that is of a secret.
pub(super) fn without_quotation(desc: &str) -> String {
    const START: &str = "JSON parse error, ";
    let Some((place, message)) = desc.split_once(START) else { return desc.to_owned() };
    for start in ["stray '", "invalid keyword '"] {
        if message.starts_with(start) {
            return format!("{place}{START}{start}{HIDDEN}'");
        }
    }
    let end = " is not a valid Unicode character";
    match message.ends_with(end) {
        true => format!("{place}{START}{HIDDEN}{end}"),
        false => desc.to_owned(),
    }
}

/// Whether a value has no more than `left` bytes of names and texts, about.
pub(super) fn fits(value: &Value, left: &mut usize) -> bool {
    let size = match value {
        Value::String(text) => text.len(),
        _ => 1,
    };
    take(left, size)
        && match value {
            Value::Array(array) => array.iter().all(|value| fits(value, left)),
            Value::Object(object) => {
                object.iter().all(|(name, value)| take(left, name.len()) && fits(value, left))
            }
            _ => true,
        }
}

fn take(left: &mut usize, size: usize) -> bool {
    let less = left.checked_sub(size);
    *left = less.unwrap_or_default();
    less.is_some()
}

/// As patterns are compared.
fn normal(name: &str) -> String {
    name.to_ascii_lowercase().replace('_', "-")
}

#[cfg(test)]
mod tests {
    use qmp_dispatch::proto::{Dialect, Location, SyntaxError, SyntaxErrorKind};

    use super::*;

    fn object(text: &str) -> Object {
        let Ok(Value::Object(object)) = text.parse() else { panic!("an object") };
        object
    }

    #[track_caller]
    fn check(command: &str, arguments: &str, expected: &str) {
        let mut secrets = Secrets::default();
        secrets.hide("*_PIN").unwrap();
        let replaced = secrets.replaced(command, &object(arguments));
        assert_eq!(replaced, Value::Object(object(expected)), "{command} {arguments}");
    }

    #[test]
    fn secrets_are_found_by_their_names_at_any_depth() {
        check("x", "{'password': 'a', 'b': 1}", "{'password': '***', 'b': 1}");
        check(
            "x",
            "{'a': [{'New_Password': 'b'}, {'c': {'card-pin': 4, 'key': [1], 'keys': 'd'}}]}",
            "{'a': [{'New_Password': '***'}, {'c': {'card-pin': '***', 'key': '***', 'keys': 'd'}}]}",
        );
        check("x", "{'api-key': 'a', 'apiKey': 'b'}", "{'api-key': '***', 'apiKey': '***'}");
        let ids = "{'key-secret': 'sec0', 'key-offset': 1, 'keyid': 'master', 'monkey': 1}";
        check("x", ids, ids);
    }

    #[test]
    fn secrets_of_qemus_commands_are_known() {
        check(
            "object-add",
            "{'qom-type': 'secret', 'id': 's', 'data': 'a', 'format': 'raw'}",
            "{'qom-type': 'secret', 'id': 's', 'data': '***', 'format': 'raw'}",
        );
        check(
            "object-add",
            "{'qom-type': 'secret', 'id': 's', 'props': {'data': 'a'}}",
            "{'qom-type': 'secret', 'id': 's', 'props': {'data': '***'}}",
        );
        check("object-add", "{'qom-type': 'x', 'data': 'a'}", "{'qom-type': 'x', 'data': 'a'}");
        check("change-vnc-password", "{'password': 'a'}", "{'password': '***'}");
        check(
            "set_password",
            "{'protocol': 'vnc', 'password': 'a', 'connected': 'keep'}",
            "{'protocol': 'vnc', 'password': '***', 'connected': 'keep'}",
        );
        check("send-key", "{'keys': [{'data': 'a'}]}", "{'keys': '***'}");
        check(
            "qom-set",
            "{'path': '/objects/s', 'property': 'data', 'value': 'a'}",
            "{'path': '/objects/s', 'property': 'data', 'value': '***'}",
        );
        check(
            "qom-set",
            "{'path': 'b', 'property': 'size', 'value': 1}",
            "{'path': 'b', 'property': 'size', 'value': 1}",
        );
    }

    #[test]
    fn of_lines_for_people_the_first_word_is_kept() {
        let line = |line: &str| format!("{{'command-line': '{line}', 'cpu-index': 1}}");
        for (given, kept) in [
            ("stop", "stop"),
            ("info block -v", "info block -v"),
            ("set_password vnc a", "set_password ***"),
            ("  change  vnc password a", "change ***"),
        ] {
            check("human-monitor-command", &line(given), &line(kept));
        }
    }

    #[test]
    fn secrets_within_texts_are_found() {
        for (given, kept) in [
            ("http://u:p@h/x?token=t&y=1", "http://u:***@h/x?token=***&y=1"),
            ("nbd://h:1/x", "nbd://h:1/x"),
            ("ssh://u@h/x", "ssh://u@h/x"),
            ("a=b,file.password=p,c=/d//e", "a=b,file.password=***,c=/d//e"),
            ("rbd:p/i:id=a:key=QUJD==:conf=c", "rbd:p/i:id=a:key=***:conf=c"),
            ("json:{}", "json:***"),
            ("=", "="),
            ("é=é/é", "é=é/é"),
        ] {
            assert_eq!(Secrets::default().clean(given), kept);
        }
    }

    #[test]
    fn errors_do_not_repeat_secrets() {
        let secrets = Secrets::default();
        let arguments = object("{'password': 'hunter2', 'b': 'c'}");
        assert_eq!(secrets.described("x", &arguments, "no 'hunter2' c"), "no '***' c");
        let line = object("{'command-line': 'change vnc password hunter2'}");
        let desc = "unknown: vnc password hunter2";
        assert_eq!(secrets.described("human-monitor-command", &line, desc), "unknown: ***");
    }

    #[test]
    fn input_that_cannot_be_read_is_not_quoted() {
        let stray = |text: &str| SyntaxErrorKind::Stray(text.into());
        let stray_hidden = "JSON parse error, stray '***'";
        for (kind, expected) in [
            (stray("\"hunter2\t"), stray_hidden),
            (stray("hunter2 is not a valid Unicode character"), stray_hidden),
            (stray("JSON parse error, hunter2"), stray_hidden),
            (
                SyntaxErrorKind::InvalidKeyword("x".repeat(2000).into()),
                "JSON parse error, invalid keyword '***'",
            ),
            (
                SyntaxErrorKind::InvalidCharacter(r"\u12'".into()),
                "JSON parse error, *** is not a valid Unicode character",
            ),
            (SyntaxErrorKind::ExpectingValue, "JSON parse error, expecting value"),
            (SyntaxErrorKind::TokenSizeLimit, "JSON token size limit exceeded"),
        ] {
            for dialect in Dialect::ALL {
                let location = Location { line: 1, column: 20 };
                for (location, place) in [(None, ""), (Some(location), "1:20: ")] {
                    let error = SyntaxError { kind: kind.clone(), dialect, location };
                    let expected = format!("{place}{expected}");
                    assert_eq!(without_quotation(&error.to_string()), expected);
                }
            }
        }
    }

    #[test]
    fn arguments_without_end_are_left_out() {
        let mut arguments = Object::new();
        arguments.insert("a", "x".repeat(LONGEST));
        assert_eq!(Secrets::default().replaced("x", &arguments), TOO_LONG.into());
        assert_eq!(Secrets::default().described("x", &arguments, "y"), TOO_LONG);
    }
}
