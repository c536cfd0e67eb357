// SPDX-License-Identifier: MIT OR Apache-2.0
//! Requests without what nobody else should know.
//!
//! The tables of [`names`] say what is a secret; here, values are copied without it. What has been hidden is
//! [`found`], and then not written down where it turns up again: in the id, in an error.

mod found;
mod names;
mod text;

use std::borrow::Cow;

use qmp_dispatch::proto::{Object, Request, Value};

use self::found::{Found, Hider};
use self::names::{
    COMMAND_LINES, COMMANDS, IDS, LINES, Members, NAMES, OF_OBJECTS, OF_SECRET_OBJECTS,
    OF_SECRET_PROPERTIES, SECRET_TYPE, VALUES,
};
use self::text::Author;
use crate::glob::{self, PatternError};
use crate::steps;

/// What stands for a secret.
const HIDDEN: &str = "***";

/// What stands for what is longer than is written down.
pub(super) const TOO_LONG: &str = "(too long)";

/// Most bytes of arguments that are written down, as they are written.
const LONGEST: usize = 16 << 10;

/// Most bytes of an id, and of the name of a command.
const LONGEST_ID: usize = 1 << 10;

/// Bytes that a member takes at least, besides its name.
const MEMBER: usize = 4;

/// How often JSON in a text is looked at that is itself in a text in JSON.
const DEEPEST_TEXT: usize = 4;

/// Which names stand for secrets.
#[derive(Clone, Debug, Default)]
pub(super) struct Secrets {
    /// Patterns besides those of the tables.
    more: Vec<String>,
}

/// A request without its secrets.
pub(super) struct Redacted<'a> {
    pub(super) command: Cow<'a, str>,
    pub(super) arguments: Value,
    pub(super) id: Option<Value>,
    /// Hides the secrets elsewhere; `None` if there is too much to look for them all.
    hider: Option<Hider>,
}

impl Secrets {
    pub(super) fn hide(&mut self, pattern: &str) -> Result<(), PatternError> {
        glob::check(pattern)?;
        self.more.push(flat(pattern));
        Ok(())
    }

    pub(super) fn redact<'a>(&self, request: &'a Request) -> Redacted<'a> {
        let mut found = Found::default();
        if request.command.len() > LONGEST_ID {
            let id = request.id.as_ref().map(|id| self.id(id));
            return Redacted {
                command: TOO_LONG.into(),
                arguments: TOO_LONG.into(),
                id,
                hider: None,
            };
        }
        let command = name_alone(&request.command, &mut found);
        let mut copying = Copying::new(self, LONGEST, &mut found);
        let arguments = copying.arguments(&request.command, &request.arguments);
        let id = request.id.as_ref().map(|id| self.id_with(id, &mut found));
        let Some(arguments) = arguments else {
            return Redacted { command, arguments: TOO_LONG.into(), id, hider: None };
        };
        let hider = found.into_hider();
        let hide = |text| hider.hide_in(text);
        let id = id.map(|id| without(id, &hide, &hide));
        let arguments = without(arguments, &|text| hider.hide_long_in(text), &|name| name);
        Redacted { command, arguments, id, hider: Some(hider) }
    }

    /// The id of what is no request.
    pub(super) fn id(&self, id: &Value) -> Value {
        self.id_with(id, &mut Found::default())
    }

    fn id_with(&self, id: &Value, found: &mut Found) -> Value {
        let copy = Copying::new(self, LONGEST_ID, found).value(id, Members::Usual);
        copy.unwrap_or_else(|| TOO_LONG.into())
    }

    /// What is wrong with what is no request, with no more of a member's name than may be one.
    pub(super) fn refused(&self, desc: &str) -> String {
        let quoted = desc.find('\'').zip(desc.rfind('\'')).filter(|(start, end)| start < end);
        match quoted {
            Some((start, end)) if desc.len() <= LONGEST => {
                let name = name_alone(&desc[start + 1..end], &mut Found::default());
                self.described(&format!("{}'{name}{}", &desc[..start], &desc[end..]))
            }
            _ => self.described(desc),
        }
    }

    /// An error that is about no request.
    pub(super) fn described(&self, desc: &str) -> String {
        if desc.len() > LONGEST {
            return TOO_LONG.to_owned();
        }
        let mut found = Found::default();
        self.clean(desc, Author::Server, DEEPEST_TEXT, &mut found).into_owned()
    }

    /// Whether the last part of a name such as `file.password` or `server.key.0` says so.
    fn is_secret(&self, name: &str) -> bool {
        steps::count(name.len());
        let is_number = |part: &&str| part.bytes().all(|byte| byte.is_ascii_digit());
        let last = name.rsplit('.').find(|part| !is_number(part)).unwrap_or_default();
        if self.more.iter().any(|pattern| glob::matches(pattern, &flat(name))) {
            return true;
        }
        let name = last.trim_matches(['-', '_']);
        let (normal, flat) = (normal(name), flat(name));
        let spellings = [&normal, &flat];
        let more = |name: &&String| self.more.iter().any(|pattern| glob::matches(pattern, name));
        spellings.iter().any(more)
            || (!IDS.contains(&&*normal) && spellings.iter().any(|name| names::is_secret(name)))
    }

    /// Notes the secrets in JSON that is not written down.
    fn note_json(&self, text: &str, depth: usize, found: &mut Found) {
        if let Some(depth) = depth.checked_sub(1)
            && let Ok(value) = text.parse()
        {
            let mut copying = Copying { depth, ..Copying::new(self, LONGEST, found) };
            // What is too long is hidden as a whole.
            let _ = copying.value(&value, Members::Usual);
        }
        found.add_piece(text);
    }
}

impl Redacted<'_> {
    /// What an error says of this request.
    pub(super) fn described(&self, secrets: &Secrets, desc: &str) -> String {
        match &self.hider {
            Some(hider) if desc.len() <= LONGEST => {
                secrets.described(&hider.hide_in(desc.to_owned()))
            }
            // What it quotes may be a secret that has not been found.
            _ => TOO_LONG.to_owned(),
        }
    }
}

/// Copies values, and notes what it hides.
struct Copying<'a> {
    secrets: &'a Secrets,
    /// How much more is written down.
    left: usize,
    found: &'a mut Found,
    /// How often JSON in a text may have JSON in a text.
    depth: usize,
}

/// All of these functions return `None` if there is more than is written down.
impl<'a> Copying<'a> {
    fn new(secrets: &'a Secrets, left: usize, found: &'a mut Found) -> Copying<'a> {
        Copying { secrets, left, found, depth: DEEPEST_TEXT }
    }

    fn arguments(&mut self, command: &str, arguments: &Object) -> Option<Value> {
        self.has_room_for(arguments)?;
        let command = normal(command);
        let members = match COMMANDS.iter().find(|(of, _)| *of == command) {
            Some((_, members)) => *members,
            None if command == "object-add" => of_object(arguments).unwrap_or(OF_SECRET_OBJECTS),
            None if command == "qom-set" && self.sets_secret(arguments) => OF_SECRET_PROPERTIES,
            None => Members::Usual,
        };
        self.object(arguments, members)
    }

    /// Whether `qom-set` sets a secret, or what is not known.
    fn sets_secret(&self, arguments: &Object) -> bool {
        let property = arguments.get("property").and_then(Value::as_str);
        property.is_none_or(|property| {
            let end = property.find(|c| !is_of_name(c)).unwrap_or(property.len());
            let name = property[..end].rsplit('.').next().unwrap_or_default();
            name.is_empty() || normal(name) == "data" || self.secrets.is_secret(name)
        })
    }

    /// Whether the names alone do not exceed what is written down: what has very many is not gone through.
    fn has_room_for(&self, object: &Object) -> Option<()> {
        let mut names = object.iter().map(|(name, _)| name.len() + MEMBER);
        let left = |left: usize, name| {
            steps::count(1);
            left.checked_sub(name)
        };
        names.try_fold(self.left, left).map(|_| ())
    }

    fn object(&mut self, object: &Object, members: Members) -> Option<Value> {
        self.has_room_for(object)?;
        let members = match members {
            Members::Usual | Members::AllBut(_) => of_object(object).unwrap_or(members),
            Members::Only(_) | Members::Lines => members,
        };
        let executes = |(name, value): (&str, &Value)| {
            normal(name) == "transport" && value.as_str().is_some_and(|way| flat(way) == "exec")
        };
        let executes = object.iter().any(executes);
        let names_secret = |(name, value): (&str, &Value)| {
            NAMES.contains(&&*normal(name))
                && value.as_str().is_some_and(|name| self.secrets.is_secret(name))
        };
        let names_secret = object.iter().any(names_secret);
        let mut copy = Vec::with_capacity(object.len());
        for (name, value) in object {
            self.keep(written(name))?;
            let key = normal(name);
            let is_named = names_secret && VALUES.contains(&&*key);
            let value = if is_named || self.is_hidden(&key, name, members) {
                self.note(value)?;
                HIDDEN.into()
            } else if COMMAND_LINES.contains(&&*key) || (executes && key == "args") {
                self.command_line(value)?
            } else {
                let members = match members {
                    Members::Lines if key == "cpu-index" => Members::Usual,
                    _ if LINES.contains(&&*key) => Members::Lines,
                    members => members,
                };
                self.value(value, members)?
            };
            copy.push((name_alone(name, self.found).into_owned(), value));
        }
        Some(Value::Object(copy.into_iter().collect()))
    }

    fn is_hidden(&self, key: &str, name: &str, members: Members) -> bool {
        let is_secret = self.secrets.is_secret(name);
        match members {
            Members::Usual | Members::Lines => is_secret,
            Members::AllBut(names) => is_secret || names.contains(&key),
            Members::Only(names) => is_secret || !names.contains(&key),
        }
    }

    fn value(&mut self, value: &Value, members: Members) -> Option<Value> {
        // What separates it from others.
        self.keep(2)?;
        match (value, members) {
            (Value::Object(object), _) => self.object(object, members),
            (Value::Array(array), _) => {
                // Each element takes as much.
                self.left.checked_sub(2 * array.len())?;
                let copy = array.iter().map(|element| self.value(element, members));
                copy.collect::<Option<Vec<_>>>().map(Value::Array)
            }
            (Value::String(line), Members::Lines) => self.line(line),
            (Value::String(text), _) => self.text(text),
            (Value::Number(_), Members::Lines) => {
                self.note(value)?;
                Some(HIDDEN.into())
            }
            (Value::Number(number), _) => {
                self.keep(number.to_string().len())?;
                Some(value.clone())
            }
            (Value::Null | Value::Bool(_), _) => {
                self.keep(5)?;
                Some(value.clone())
            }
        }
    }

    fn text(&mut self, text: &str) -> Option<Value> {
        // What is longer is not gone through.
        self.keep(written(text))?;
        if text.trim_start().starts_with(['{', '['])
            && let Ok(value) = text.parse()
        {
            let Some(depth) = self.depth.checked_sub(1) else {
                self.found.add_piece(text);
                return Some(HIDDEN.into());
            };
            let before = std::mem::replace(&mut self.depth, depth);
            let copy = self.value(&value, Members::Usual);
            self.depth = before;
            let copy = copy?;
            return Some(if copy == value { text.into() } else { copy.to_string().into() });
        }
        Some(self.secrets.clean(text, Author::Client, self.depth, self.found).as_ref().into())
    }

    /// Of a line for people only the first word is kept, but for `info`: what else is there a secret, only the
    /// command itself knows.
    fn line(&mut self, line: &str) -> Option<Value> {
        self.keep(written(line))?;
        let line = line.trim_start();
        let end = line.find(|c| !is_of_name(c)).unwrap_or(line.len());
        let (word, rest) = line.split_at(end);
        if rest.trim().is_empty() {
            return Some(word.into());
        }
        if word == "info" && rest.starts_with(char::is_whitespace) {
            return Some(
                self.secrets.clean(line, Author::Client, self.depth, self.found).as_ref().into(),
            );
        }
        self.found.add_line(rest);
        Some(format!("{word} {HIDDEN}").trim_start().into())
    }

    /// Of a command line only the program is kept.
    fn command_line(&mut self, value: &Value) -> Option<Value> {
        let Some((Value::String(program), arguments)) =
            value.as_array().and_then(<[_]>::split_first)
        else {
            self.note(value)?;
            return Some(HIDDEN.into());
        };
        self.keep(written(program))?;
        let mut copy = vec![Value::from(Secrets::program(program, self.found))];
        for argument in arguments {
            self.note(argument)?;
            copy.push(HIDDEN.into());
        }
        Some(Value::Array(copy))
    }

    fn keep(&mut self, size: usize) -> Option<()> {
        let less = self.left.checked_sub(size);
        self.left = less.unwrap_or_default();
        less.map(|_| ())
    }

    /// Notes the names, texts and numbers in what is hidden. It counts as if it were written down: all of it is looked for
    /// elsewhere.
    fn note(&mut self, value: &Value) -> Option<()> {
        self.keep(HIDDEN.len())?;
        match value {
            Value::String(text) => {
                self.keep(written(text))?;
                self.found.add(text);
                if text.contains(char::is_whitespace) {
                    self.found.add_line(text);
                }
            }
            Value::Number(number) => self.found.add_piece(&number.to_string()),
            Value::Array(array) => return array.iter().try_for_each(|value| self.note(value)),
            Value::Object(object) => {
                for (name, value) in object {
                    self.keep(written(name))?;
                    self.found.add_piece(name);
                    self.note(value)?;
                }
            }
            Value::Null | Value::Bool(_) => {}
        }
        Some(())
    }
}

/// What is kept of an object of QOM that is added; `None` if it names no type.
fn of_object(object: &Object) -> Option<Members> {
    let names_type = |name: &str| matches!(&*normal(name), "qom-type" | "qomtype");
    let is_other =
        |kind: &str| kind.chars().all(is_of_name) && !flat(kind).starts_with(SECRET_TYPE);
    let mut types = object.iter().filter(|(name, _)| names_type(name)).peekable();
    types.peek()?;
    let is_known =
        |(name, kind): (&str, &Value)| name == "qom-type" && kind.as_str().is_some_and(is_other);
    Some(if types.all(is_known) { OF_OBJECTS } else { OF_SECRET_OBJECTS })
}

/// Hides secrets in a text.
type Hide<'a> = &'a dyn Fn(String) -> String;

/// A value without secrets that were found elsewhere, in values and in names.
fn without(value: Value, hide: Hide<'_>, hide_in_name: Hide<'_>) -> Value {
    match value {
        Value::String(text) => hide(text).into(),
        Value::Number(number) => {
            let text = number.to_string();
            let clean = hide(text.clone());
            if clean == text { number.into() } else { clean.into() }
        }
        Value::Array(array) => {
            let elements = array.into_iter();
            Value::Array(elements.map(|value| without(value, hide, hide_in_name)).collect())
        }
        Value::Object(object) => {
            let members = object
                .into_iter()
                .map(|(name, value)| (hide_in_name(name), without(value, hide, hide_in_name)));
            Value::Object(members.collect())
        }
        Value::Null | Value::Bool(_) => value,
    }
}

/// A name as it is; of what is none, the beginning that may be one.
fn name_alone<'t>(text: &'t str, found: &mut Found) -> Cow<'t, str> {
    steps::count(text.len());
    match text.find(|c| !is_of_name(c)) {
        None => text.into(),
        Some(end) => {
            let (name, rest) = text.split_at(end);
            found.add_line(rest);
            format!("{name}{HIDDEN}").into()
        }
    }
}

fn is_of_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || "-_.".contains(c)
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

/// How many bytes a text takes in JSON, about.
fn written(text: &str) -> usize {
    steps::count(text.len());
    let plain = |c: &char| (' '..='~').contains(c) && !matches!(c, '"' | '\\');
    2 + text.chars().map(|c| if plain(&c) { 1 } else { 6 * c.len_utf16() }).sum::<usize>()
}

/// As tables are written: in small letters and with `-`.
fn flat(name: &str) -> String {
    steps::count(name.len());
    name.to_ascii_lowercase().replace('_', "-")
}

/// The same, with `-` where words begin with capital letters, as in `sslKey`.
fn normal(name: &str) -> String {
    let mut parted = String::with_capacity(name.len() + 8);
    let mut before = '-';
    let mut rest = name.chars().peekable();
    while let Some(c) = rest.next() {
        let is_next_small = rest.peek().is_some_and(char::is_ascii_lowercase);
        let begins = !before.is_ascii_uppercase() || is_next_small;
        if c.is_ascii_uppercase() && before.is_ascii_alphanumeric() && begins {
            parted.push('-');
        }
        parted.push(c);
        before = c;
    }
    flat(&parted)
}

fn names_match(patterns: &[&str], name: &str) -> bool {
    patterns.iter().any(|pattern| glob::matches(pattern, name))
}

#[cfg(test)]
mod tests {
    use qmp_dispatch::proto::{Dialect, Location, SyntaxError, SyntaxErrorKind};

    use super::*;

    fn request(text: &str) -> Request {
        let Ok(Value::Object(mut members)) = text.parse() else { panic!("no object: {text}") };
        let command = members.remove("execute").and_then(|name| name.as_str().map(str::to_owned));
        let mut request = Request::new(command.unwrap_or("x".to_owned()));
        if let Some(Value::Object(arguments)) = members.remove("arguments") {
            request.arguments = arguments;
        }
        request.id = members.remove("id");
        request
    }

    fn secrets() -> Secrets {
        let mut secrets = Secrets::default();
        secrets.hide("*_PIN").unwrap();
        secrets
    }

    /// Everything that is written down of a request, and of an error that quotes it.
    fn written_down(text: &str, desc: &str) -> String {
        let request = request(text);
        let redacted = secrets().redact(&request);
        let desc = redacted.described(&secrets(), desc);
        let Redacted { command, arguments, id, .. } = redacted;
        format!("{command} {arguments} {id:?} {desc}")
    }

    #[track_caller]
    fn check(command: &str, arguments: &str, expected: &str) {
        let request = request(&format!("{{'execute': '{command}', 'arguments': {arguments}}}"));
        let redacted = secrets().redact(&request);
        assert_eq!(redacted.arguments, expected.parse().unwrap(), "{command} {arguments}");
    }

    fn clean(text: &str) -> String {
        secrets().clean(text, Author::Client, DEEPEST_TEXT, &mut Found::default()).into_owned()
    }

    #[test]
    fn secrets_are_found_by_their_names_at_any_depth() {
        check("x", "{'password': 'a', 'b': 1}", "{'password': '***', 'b': 1}");
        check(
            "x",
            "{'a': [{'New_Password': 'b'}, {'c': {'card-pin': 4, 'key': [1], 'keys': 'd'}}]}",
            "{'a': [{'New_Password': '***'}, {'c': {'card-pin': '***', 'key': '***', 'keys': 'd'}}]}",
        );
        check(
            "x",
            "{'api-key': 'a', 'apiKey': 'b', 'sslKey': 1, 'SSLKey': 2, 'authorization': 'c'}",
            "{'api-key': '***', 'apiKey': '***', 'sslKey': '***', 'SSLKey': '***', 'authorization': '***'}",
        );
        let ids = "{'key-secret': 'sec0', 'keySecret': 'sec0', 'key-offset': 1, 'keyid': 'master', 'monkey': 1}";
        check("x", ids, ids);
    }

    #[test]
    fn secrets_of_qemus_commands_are_known() {
        check(
            "object-add",
            "{'qom-type': 'secret', 'id': 's', 'data': 'a', 'format': 'raw', 'keyid': 'k', 'iv': 'AA=='}",
            "{'qom-type': 'secret', 'id': 's', 'data': '***', 'format': 'raw', 'keyid': 'k', 'iv': 'AA=='}",
        );
        check(
            "object-add",
            "{'qom-type': 'secret', 'id': 's', 'props': {'data': 'a'}}",
            "{'qom-type': 'secret', 'id': 's', 'props': {'data': '***'}}",
        );
        for kind in ["'Secret'", "['secret']", "'secret_keyring'", "' secret'", "{'a': 'b'}", "1"] {
            let request = request(&format!(
                "{{'execute': 'object-add', 'arguments': {{'qom-type': {kind}, 'DATA': 'hunter2', 'dat': 'hunter3'}}}}"
            ));
            let hidden = secrets().redact(&request);
            assert!(
                !hidden.arguments.to_string().contains("hunter"),
                "{kind}: {}",
                hidden.arguments
            );
        }
        check(
            "object_add",
            "{'qomType': 'secret', 'data': 'a'}",
            "{'qomType': 'secret', 'data': '***'}",
        );
        let other = "{'qom-type': 'rng-random', 'id': 'r', 'filename': '/dev/urandom'}";
        check("object-add", other, other);
        let data = "{'type': 'file', 'data': {'out': '/tmp/x'}}";
        check("chardev-add", data, data);
        check("change-vnc-password", "{'password': 'a'}", "{'password': '***'}");
        check("change-vnc-password", "{'pasword': 'a'}", "{'pasword': '***'}");
        check(
            "set_password",
            "{'protocol': 'vnc', 'password': 'a', 'connected': 'keep'}",
            "{'protocol': 'vnc', 'password': '***', 'connected': 'keep'}",
        );
        let expiry = "{'protocol': 'vnc', 'time': '+60'}";
        check("expire_password", expiry, expiry);
        check("block_passwd", "{'device': 'd', 'pass': 1234}", "{'device': 'd', 'pass': '***'}");
        check("send-key", "{'keys': [{'data': 'a'}]}", "{'keys': '***'}");
        check(
            "qom-set",
            "{'path': '/objects/s', 'property': 'data', 'value': 'a'}",
            "{'path': '/objects/s', 'property': 'data', 'value': '***'}",
        );
        check(
            "qom-set",
            "{'path': '/x', 'Property': 'password', 'value': 'a'}",
            "{'path': '/x', 'Property': 'password', 'value': '***'}",
        );
        check(
            "qom-set",
            "{'path': '/x', 'property': 'password', 'Value': 'a', 'vaule': 'b'}",
            "{'path': '/x', 'property': 'password', 'Value': '***', 'vaule': '***'}",
        );
        let size = "{'path': 'b', 'property': 'size', 'value': 1}";
        check("qom-set", size, size);
        check(
            "x",
            "{'headers': [{'name': 'Cookie', 'value': 'a'}, {'name': 'b', 'value': 'c'}]}",
            "{'headers': [{'name': 'Cookie', 'value': '***'}, {'name': 'b', 'value': 'c'}]}",
        );
        check(
            "x",
            "{'file.key': 'a', 'encrypt.key-secret': 'b', 'key.0': 'c'}",
            "{'file.key': '***', 'encrypt.key-secret': 'b', 'key.0': '***'}",
        );
        check("x", "{'command-line': 'x vnc a'}", "{'command-line': 'x ***'}");
        check(
            "migrate",
            "{'channels': [{'addr': {'transport': 'exec', 'args': ['/bin/sh', '-c', 'a']}}]}",
            "{'channels': [{'addr': {'transport': 'exec', 'args': ['/bin/sh', '***', '***']}}]}",
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
            ("\\tset_password\\tvnc\\ta", "set_password ***"),
            ("set_password/x vnc a", "set_password ***"),
            ("\\\"set_password\\\" vnc a", "***"),
            ("info x password=a", "info x password=***"),
        ] {
            check("human-monitor-command", &line(given), &line(kept));
        }
        check(
            "human-monitor-command",
            "{'command-line': ['set_password vnc a'], 'command_line': {'a': 'b c'}, 'x': 1234}",
            "{'command-line': ['set_password ***'], 'command_line': {'a': 'b ***'}, 'x': '***'}",
        );
    }

    #[test]
    fn secrets_within_texts_are_found() {
        for (given, kept) in [
            ("http://u:p@h/x?token=t&y=1", "http://***@h/x?token=***&y=1"),
            ("http://u:a/p@h/x", "http://***@h/x"),
            ("http://u:a p@h/x", "http://***@h/x"),
            ("HTTP:/u:p@h/x", "HTTP:/***@h/x"),
            ("https://token@h/x", "https://***@h/x"),
            ("iscsi://bob%p@h/iqn.x/1", "iscsi://***@h/iqn.x/1"),
            ("file.url=ftp://u:p@h/x,node-name=n", "file.url=ftp://***@h/x,node-name=n"),
            (
                "https://h/x?X-Amz-Signature=a&X-Amz-Date=b",
                "https://h/x?X-Amz-Signature=***&X-Amz-Date=b",
            ),
            ("nbd://h:1/x", "nbd://h:1/x"),
            ("nbd+unix:///x?socket=/run/a.sock", "nbd+unix:///x?socket=/run/a.sock"),
            ("nfs://h/x?uid=1&readahead=2", "nfs://h/x?uid=1&readahead=2"),
            ("ssh://u@h/x", "ssh://u@h/x"),
            ("ssh://u:p@h/x", "ssh://***@h/x"),
            ("a=b,file.password=p,c=/d//e", "a=b,file.password=***,c=/d//e"),
            ("password=a,,b,c=d", "password=***,c=d"),
            ("password=a,b,c=d", "password=***,c=d"),
            ("password=a b,c=d", "password=***,c=d"),
            ("password = a", "password = ***"),
            ("x --password='a b', c=d", "x --password=***, c=d"),
            ("x --password a", "x --password ***"),
            ("set_password vnc a", "set_password ***"),
            ("server.0.key=a", "server.0.key=***"),
            ("key.0=a", "key.0=***"),
            ("encrypt.key-secret=sec0,file.x=y", "encrypt.key-secret=sec0,file.x=y"),
            ("secret,id=s,data=a,format=raw", "secret,id=s,data=***,format=raw"),
            ("rbd:p/i:id=a:key=QUJD==:conf=c", "rbd:p/i:id=a:key=***:conf=c"),
            ("rbd:p/i:key=a\\:b=c:id=x", "rbd:p/i:key=***:id=x"),
            ("Authorization: Bearer a", "Authorization: ***"),
            ("a 'Cookie: b=c; d=e'", "a 'Cookie: ***"),
            ("exec:cat", "exec:cat"),
            ("exec:curl -H 'X: a' b", "exec:curl ***"),
            ("exec: TOKEN=a curl", "exec:***"),
            ("user,guestfwd=tcp:10.0.2.1:80-cmd:sh a", "user,guestfwd=tcp:10.0.2.1:80-cmd:sh ***"),
            ("json:{}", "json:***"),
            (" json: {'a': 1}", " json:***"),
            ("x json:{'a': '}'} y", "x json:***"),
            ("JSON:{'a", "JSON:***"),
            ("x 'password': 'a, b', 'c': 1", "x 'password': ***, 'c': 1"),
            ("-----BEGIN RSA PRIVATE KEY-----\nabc", "-----BEGIN***"),
            ("tcp:localhost:4444,server=on", "tcp:localhost:4444,server=on"),
            ("/var/lib/images/disk.qcow2", "/var/lib/images/disk.qcow2"),
            ("=", "="),
            ("é=é/é", "é=é/é"),
            ("password=é", "password=***"),
        ] {
            assert_eq!(clean(given), kept, "{given}");
        }
    }

    #[test]
    fn json_in_a_text_is_looked_into() {
        check(
            "x",
            r#"{"a": "{\"b\": 1, \"p\\u0061ssword\": \"hunter2\"}", "c": "[1, {}]"}"#,
            r#"{"a": "{\"b\": 1, \"password\": \"***\"}", "c": "[1, {}]"}"#,
        );
    }

    #[test]
    fn secrets_turn_up_nowhere_else() {
        let text = "{'execute': 'x', 'arguments': {'password': 'hunter2', 'b': 'c'}, 'id': ['a hunter2', {'token': 12}]}";
        assert_eq!(
            written_down(text, "no 'hunter2' c"),
            r#"x {"b": "c", "password": "***"} Some(Array([String("a ***"), Object({"token": String("***")})])) no '***' c"#
        );
        for (text, desc) in [
            (
                "{'execute': 'human-monitor-command', 'arguments': {'command-line': 'change vnc hunter2'}}",
                "unknown: 'hunter2'",
            ),
            (
                "{'execute': 'set_password vnc hunter2'}",
                "The command set_password vnc hunter2 has not been found",
            ),
            (
                "{'arguments': {'password hunter2': 1}}",
                "Parameter 'password hunter2' is unexpected",
            ),
            (
                "{'arguments': {'password': {'hunter2': 1}}}",
                "Parameter 'password.hunter2' is unexpected",
            ),
            ("{'arguments': {'password': 7312345}, 'id': 7312345}", "bad value 7312345"),
            ("{'arguments': {'file': 'http://u:hun%74er2@h'}}", "cannot log in with 'hunter2'"),
            ("{'arguments': {'file': 'x:password=hun,,ter2'}}", "bad password 'hun,ter2'"),
            (
                "{'arguments': {'file': 'json:{\"password\": \"hunter2\", \"x\": 1}'}}",
                "bad password 'hunter2'",
            ),
            ("{}", "Could not open 'http://bob:hunter2@h/x': no route to bob@h"),
            ("{}", "Could not open 'json:{\"a\": {\"password\": \"hunter2\"}}': No such file"),
            ("{}", "Cannot read x,password=hunter2"),
            ("{}", "GET with 'Authorization: Basic hunter2'"),
        ] {
            let written = written_down(text, desc);
            for secret in ["hunter2", "hun%74er2", "hun,,ter2", "hun,ter2", "7312345"] {
                assert!(!written.contains(secret), "{text} {desc}: {written}");
            }
        }
    }

    #[test]
    fn what_the_server_says_is_kept() {
        for desc in [
            "Could not open 'http://h/x': Permission denied for bob@h",
            "Unable to load private key: No such file",
            "Parameter 'key-secret' is missing",
            "No secret with id 'sec0'",
            "json: cannot parse",
            "Failed to exec: No such file",
            "The command X has been disabled for this instance",
        ] {
            assert_eq!(secrets().described(desc), desc);
        }
        let member = "QMP input member 'x-y' is unexpected";
        assert_eq!(secrets().refused(member), member);
        let line = "QMP input member 'set_password vnc hunter2' is unexpected";
        assert_eq!(secrets().refused(line), "QMP input member 'set_password***' is unexpected");
        let ended = "Could not open 'json:***': No such file";
        assert_eq!(secrets().described("Could not open 'json:{\"a\": 1}': No such file"), ended);
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
    fn what_is_too_long_is_left_out() {
        let long = "x".repeat(LONGEST);
        for arguments in [
            format!("{{'a': '{long}'}}"),
            format!("{{'password': '{long}'}}"),
            format!("{{'{long}': 1}}"),
        ] {
            let request = request(&format!("{{'arguments': {arguments}, 'id': 1}}"));
            let redacted = secrets().redact(&request);
            assert_eq!(redacted.arguments, TOO_LONG.into());
            assert_eq!(redacted.id, Some(1.into()));
            assert_eq!(redacted.described(&secrets(), "y"), TOO_LONG);
        }
        let request = request(&format!("{{'execute': '{long}', 'id': '{long}'}}"));
        let redacted = secrets().redact(&request);
        assert_eq!((&*redacted.command, redacted.id), (TOO_LONG, Some(TOO_LONG.into())));
        assert_eq!(secrets().described(&"é".repeat(LONGEST)), TOO_LONG);
    }

    /// How many steps a request takes.
    fn steps_of(request: &Request, desc: &str) -> u64 {
        let secrets = secrets();
        steps::during(|| secrets.redact(request).described(&secrets, desc)).1
    }

    #[test]
    fn secrets_within_secrets_take_steps_in_proportion() {
        let request = |count: usize| {
            let mut request = Request::new("*");
            let secrets = Value::Array(vec!["*".into(); count]);
            request.arguments = Object::from_iter([("password", secrets)]);
            request
        };
        let desc = "The command * has not been found";
        assert!(steps_of(&request(2000), desc) <= 2 * steps_of(&request(1000), desc));
        let redacted_request = request(20);
        let redacted = secrets().redact(&redacted_request);
        assert_eq!(redacted.described(&secrets(), desc), "The command *** has not been found");
    }

    #[test]
    fn texts_take_steps_in_proportion_to_their_length() {
        for unit in [
            "a",
            "=",
            ":",
            "@",
            ",",
            ",,",
            "://",
            "http://",
            "://@",
            "a:b@",
            "key=",
            "key=a,",
            "key=a,b=",
            "key:",
            "'",
            "\"key\":",
            "json:",
            "json:{",
            "json:{}",
            "{",
            "[",
            "exec:",
            "-cmd:",
            "?key=",
            "&key=",
            "rbd:key=",
            "\\",
            "\\'",
            " ",
            " key =",
            "data=",
            "secret,data=",
            "-----BEGIN ",
            "--key ",
            "bearer ",
            "é",
            "a.",
            ".0",
            "aA",
            "password='a",
            "key=\\\"",
            "x-a: ",
            "key=,  ",
        ] {
            for source in [Author::Client, Author::Server] {
                let steps = |count: usize| {
                    let text = unit.repeat(count);
                    let secrets = secrets();
                    let mut found = Found::default();
                    steps::during(|| secrets.clean(&text, source, DEEPEST_TEXT, &mut found).len()).1
                };
                let (once, twice) = (steps(300), steps(600));
                assert!(twice <= 2 * once + 100, "{unit:?} {source:?}: {once}, {twice}");
                assert!(
                    once <= 300 * 200 * unit.len() as u64 + 1000,
                    "{unit:?} {source:?}: {once}"
                );
            }
        }
    }
}
