// SPDX-License-Identifier: MIT OR Apache-2.0
//! Names of descriptors: each client has its own, the upstream server sees them with a prefix.
//!
//! To QEMU all clients are one monitor, and a monitor's names are its own. So `getfd` gets a prefix that
//! only this client has and nobody can guess, and every place where a command can refer to a name gets it,
//! too. Where that is, cannot be told from a schema: to QAPI they are strings like any others. These are
//! the places that QEMU 10.0 has; a string elsewhere is not looked at.

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use qmp_dispatch::proto::{Error, Object, Value};

/// Members that hold one name.
const NAME: [&str; 3] = ["fd", "fdname", "vhostfd"];

/// Members that hold names with colons between them.
const NAMES: [&str; 3] = ["fds", "vhostfds", "sock-fds"];

/// Members that hold a name behind `fd:`.
const ADDRESS: [&str; 2] = ["uri", "protocol"];

/// The names that one client has given.
pub(super) struct Names {
    prefix: String,
    given: Mutex<HashSet<String>>,
}

impl Names {
    pub(super) fn new(prefix: String) -> Names {
        Names { prefix, given: Mutex::default() }
    }

    /// The name as the upstream server is to see it. Names that QEMU refuses stay as they are.
    pub(super) fn full(&self, name: &str) -> String {
        match name.starts_with(|first: char| first.is_ascii_digit()) {
            true => name.to_owned(),
            false => format!("{}{name}", self.prefix),
        }
    }

    /// The upstream server knows this one now.
    pub(super) fn add(&self, name: String) {
        self.given().insert(name);
    }

    /// The upstream server does not know this one any more.
    pub(super) fn remove(&self, name: &str) {
        self.given().remove(name);
    }

    /// All names, as the upstream server sees them.
    pub(super) fn take_all(&self) -> Vec<String> {
        self.given().drain().map(|name| format!("{}{name}", self.prefix)).collect()
    }

    /// The arguments with the client's names as the upstream server is to see them; `None` if there
    /// are none in it.
    pub(super) fn rename(&self, arguments: &Object) -> Option<Object> {
        let given = self.given();
        if given.is_empty() {
            return None;
        }
        let renaming = Renaming { prefix: &self.prefix, given: &given };
        renaming.object(arguments, false)
    }

    /// An error about the client's names, as the client knows them.
    pub(super) fn restore(&self, error: Error) -> Error {
        Error { desc: error.desc.replace(&self.prefix, "").into(), ..error }
    }

    fn given(&self) -> MutexGuard<'_, HashSet<String>> {
        self.given.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Renaming<'a> {
    prefix: &'a str,
    given: &'a HashSet<String>,
}

impl Renaming<'_> {
    /// `within_fd` says that the object is the data of an address of type `fd`.
    fn object(&self, object: &Object, within_fd: bool) -> Option<Object> {
        let is_fd = within_fd || object.get("type").and_then(Value::as_str) == Some("fd");
        let mut renamed: Option<Object> = None;
        for (name, value) in object {
            let new = match value {
                Value::String(text) => self.string(name, text, is_fd).map(Value::from),
                Value::Object(inner) => {
                    self.object(inner, is_fd && name == "data").map(Value::Object)
                }
                Value::Array(elements) => self.array(elements).map(Value::Array),
                _ => None,
            };
            if let Some(new) = new {
                renamed.get_or_insert_with(|| object.clone()).insert(name, new);
            }
        }
        renamed
    }

    fn array(&self, elements: &[Value]) -> Option<Vec<Value>> {
        let mut renamed: Option<Vec<Value>> = None;
        for (index, element) in elements.iter().enumerate() {
            let new = match element {
                Value::Object(inner) => self.object(inner, false).map(Value::Object),
                Value::Array(inner) => self.array(inner).map(Value::Array),
                _ => None,
            };
            if let Some(new) = new {
                renamed.get_or_insert_with(|| elements.to_vec())[index] = new;
            }
        }
        renamed
    }

    fn string(&self, member: &str, text: &str, is_fd: bool) -> Option<String> {
        if NAME.contains(&member) || (is_fd && member == "str") {
            return self.name(text);
        }
        if NAMES.contains(&member) {
            let parts: Vec<Cow<'_, str>> = text
                .split(':')
                .map(|part| self.name(part).map_or(Cow::Borrowed(part), Cow::Owned))
                .collect();
            let renamed = parts.iter().any(|part| matches!(part, Cow::Owned(_)));
            return renamed.then(|| parts.join(":"));
        }
        if ADDRESS.contains(&member) {
            let name = self.name(text.strip_prefix("fd:")?)?;
            return Some(format!("fd:{name}"));
        }
        None
    }

    fn name(&self, name: &str) -> Option<String> {
        self.given.contains(name).then(|| format!("{}{name}", self.prefix))
    }
}

#[cfg(test)]
mod tests {
    use qmp_dispatch::proto::Json;

    use super::*;

    fn names() -> Names {
        let names = Names::new("p-".to_owned());
        for name in ["tap0", "tap1"] {
            names.add(name.to_owned());
        }
        names
    }

    #[track_caller]
    fn check(arguments: &str, renamed: Option<&str>) {
        let Ok(Value::Object(object)) = arguments.parse() else { panic!("an object") };
        let actual = names().rename(&object).map(|object| Json::from(&object));
        assert_eq!(actual.as_ref().map(Json::as_str), renamed);
    }

    #[test]
    fn names_are_found_wherever_a_command_can_have_them() {
        check(r#"{"fd": "tap0"}"#, Some(r#"{"fd": "p-tap0"}"#));
        check(r#"{"fds": "tap0:7:tap1"}"#, Some(r#"{"fds": "p-tap0:7:p-tap1"}"#));
        check(r#"{"uri": "fd:tap1"}"#, Some(r#"{"uri": "fd:p-tap1"}"#));
        check(
            r#"{"channels": [{"addr": {"type": "fd", "str": "tap0"}}]}"#,
            Some(r#"{"channels": [{"addr": {"str": "p-tap0", "type": "fd"}}]}"#),
        );
        check(
            r#"{"addr": {"type": "fd", "data": {"str": "tap0"}}}"#,
            Some(r#"{"addr": {"type": "fd", "data": {"str": "p-tap0"}}}"#),
        );
    }

    #[test]
    fn other_strings_are_left_alone() {
        check(r#"{"fd": "tap2"}"#, None);
        check(r#"{"id": "tap0", "str": "tap0"}"#, None);
        check(r#"{"uri": "unix:tap0"}"#, None);
        check(r#"{"type": "fd", "other": {"str": "tap0"}}"#, None);
    }

    #[test]
    fn names_in_errors_are_those_of_the_client() {
        let error = Error::generic("File descriptor named 'p-tap0' not found");
        assert_eq!(names().restore(error).desc, "File descriptor named 'tap0' not found");
        assert_eq!(names().full("1x"), "1x");
    }
}
