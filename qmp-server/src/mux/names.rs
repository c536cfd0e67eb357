// SPDX-License-Identifier: MIT OR Apache-2.0
//! Names of descriptors: each client has its own, the upstream server sees them with a prefix.
//!
//! To QEMU all clients are one monitor, and a monitor's names are its own. So `getfd` gets a prefix that
//! only this client has and nobody can guess, and every place where a command can refer to a name gets it,
//! too. Where that is, cannot be told from a schema: to QAPI they are strings like any others. These are
//! the places that QEMU 10.0 has; a string elsewhere is not looked at.

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use qmp_dispatch::proto::{Error, Object, Value};

use crate::steps;

/// Members that hold one name.
const NAME: [&str; 3] = ["fd", "fdname", "vhostfd"];

/// Members that hold names with colons between them.
const NAMES: [&str; 3] = ["fds", "vhostfds", "sock-fds"];

/// Members that hold a name behind `fd:`.
const ADDRESS: [&str; 2] = ["uri", "protocol"];

/// What comes before a name in a string that is looked at like a path.
const PATH: &str = "/dev/fdname/";

/// Names that one client may have. QEMU itself has no room for more descriptors, as a rule.
const MOST_NAMES: usize = 1024;

/// Names that all clients may have, those that have left and whose names are being closed included.
const MOST_NAMES_IN_ALL: usize = 64 << 10;

/// Bytes of one name.
const LONGEST_NAME: usize = 255;

/// The names that one client has given.
pub(super) struct Names {
    prefix: String,
    given: Mutex<HashSet<String>>,
    /// How many names all clients have.
    in_all: Arc<AtomicUsize>,
}

/// The arguments of a command with the client's names as the upstream server is to see them.
pub(super) struct Renamed {
    pub(super) arguments: Object,
    /// The names that are in it, as the client knows them. The command takes them if it succeeds.
    pub(super) names: Vec<String>,
}

impl Names {
    pub(super) fn new(prefix: String, in_all: Arc<AtomicUsize>) -> Names {
        Names { prefix, given: Mutex::default(), in_all }
    }

    /// The name as the upstream server is to see it. Names that QEMU refuses stay as they are.
    pub(super) fn full(&self, name: &str) -> String {
        match name.starts_with(|first: char| first.is_ascii_digit()) {
            true => name.to_owned(),
            false => format!("{}{name}", self.prefix),
        }
    }

    /// Whether the client may have this name, too.
    pub(super) fn check_room(&self, name: &str) -> Result<(), Error> {
        let given = self.given();
        if name.len() > LONGEST_NAME {
            let error =
                format!("The name of a file descriptor may have at most {LONGEST_NAME} bytes");
            return Err(Error::generic(error));
        }
        let has_room =
            given.len() < MOST_NAMES && self.in_all.load(Ordering::Relaxed) < MOST_NAMES_IN_ALL;
        match has_room || given.contains(name) {
            true => Ok(()),
            false => Err(Error::generic("too many file descriptors have names")),
        }
    }

    /// The upstream server knows this one now.
    pub(super) fn add(&self, name: String) {
        if self.given().insert(name) {
            self.in_all.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The upstream server does not know this one any more.
    pub(super) fn remove(&self, name: &str) {
        if self.given().remove(name) {
            self.in_all.fetch_sub(1, Ordering::Relaxed);
        }
    }

    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    pub(super) fn is_empty(&self) -> bool {
        self.given().is_empty()
    }

    /// All names, as the client knows them.
    pub(super) fn all(&self) -> Vec<String> {
        self.given().iter().cloned().collect()
    }

    /// The arguments with the client's names as the upstream server is to see them; `None` if there
    /// are none in it.
    pub(super) fn rename(&self, command: &str, arguments: &Object) -> Option<Renamed> {
        let given = self.given();
        if given.is_empty() {
            return None;
        }
        let mut renaming = Renaming { prefix: &self.prefix, given: &given, found: Vec::new() };
        // One copy, changed in place: a copy at each level would take as many times the size as there are levels.
        let mut renamed = arguments.clone();
        renaming.object(&mut renamed, false);
        // Here the name of the member is a string of its own.
        if command == "qom-set"
            && let Some(property) = arguments.get("property").and_then(Value::as_str)
            && let Some(value) = arguments.get("value").and_then(Value::as_str)
            && let Some(value) = renaming.string(property, value, false)
        {
            renamed.insert("value", value);
        }
        let names = renaming.found;
        (!names.is_empty()).then_some(Renamed { arguments: renamed, names })
    }

    /// An error about the client's names, as the client knows them.
    pub(super) fn restore(&self, error: Error) -> Error {
        Error { desc: error.desc.replace(&self.prefix, "").into(), ..error }
    }

    fn given(&self) -> MutexGuard<'_, HashSet<String>> {
        self.given.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        let names = self.given.get_mut().unwrap_or_else(PoisonError::into_inner).len();
        self.in_all.fetch_sub(names, Ordering::Relaxed);
    }
}

/// Renames in the arguments of a client that has given these names.
#[cfg(feature = "fuzzing")]
pub(crate) fn renamed(
    prefix: &str,
    given: &[&str],
    command: &str,
    arguments: &Object,
) -> Option<(Object, Vec<String>)> {
    let names = Names::new(prefix.to_owned(), Arc::default());
    given.iter().for_each(|&name| names.add(name.to_owned()));
    names.rename(command, arguments).map(|Renamed { arguments, names }| (arguments, names))
}

struct Renaming<'a> {
    prefix: &'a str,
    given: &'a HashSet<String>,
    found: Vec<String>,
}

impl Renaming<'_> {
    /// `within_fd` says that the object is the data of an address of type `fd`.
    fn object(&mut self, object: &mut Object, within_fd: bool) {
        let is_fd = within_fd || object.get("type").and_then(Value::as_str) == Some("fd");
        for (name, value) in object.iter_mut() {
            steps::count(1);
            match value {
                Value::String(text) => {
                    if let Some(renamed) = self.string(name, text, is_fd) {
                        *text = renamed;
                    }
                }
                Value::Object(inner) => self.object(inner, is_fd && name == "data"),
                Value::Array(elements) => self.array(elements),
                _ => {}
            }
        }
    }

    fn array(&mut self, elements: &mut [Value]) {
        for element in elements {
            steps::count(1);
            match element {
                Value::String(text) => {
                    if let Some(renamed) = self.path(text) {
                        *text = renamed;
                    }
                }
                Value::Object(inner) => self.object(inner, false),
                Value::Array(inner) => self.array(inner),
                _ => {}
            }
        }
    }

    fn string(&mut self, member: &str, text: &str, is_fd: bool) -> Option<String> {
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
        if ADDRESS.contains(&member)
            && let Some(name) = text.strip_prefix("fd:")
        {
            let name = self.name(name)?;
            return Some(format!("fd:{name}"));
        }
        self.path(text)
    }

    /// A string with paths in it that end in names.
    fn path(&mut self, text: &str) -> Option<String> {
        steps::count(text.len());
        let mut parts = text.split(PATH);
        let mut renamed = parts.next()?.to_owned();
        let mut any = false;
        for part in parts {
            renamed.push_str(PATH);
            steps::count(part.len());
            // A name may have any characters, but as a rule none of those that end it in a longer string.
            let end = part.find([',', ':', ';', '"', '\'', ' ', '}', ']', '&', '/']);
            let name = match (self.given.contains(part), end) {
                (false, Some(end)) => &part[..end],
                _ => part,
            };
            match self.name(name) {
                Some(full) => {
                    any = true;
                    renamed.push_str(&full);
                }
                None => renamed.push_str(name),
            }
            renamed.push_str(&part[name.len()..]);
        }
        any.then_some(renamed)
    }

    fn name(&mut self, name: &str) -> Option<String> {
        steps::count(name.len());
        let name = self.given.get(name)?;
        self.found.push(name.clone());
        Some(format!("{}{name}", self.prefix))
    }
}

#[cfg(test)]
mod tests {
    use qmp_dispatch::proto::Json;

    use super::*;

    fn names() -> Names {
        let names = Names::new("p-".to_owned(), Arc::default());
        for name in ["tap0", "tap1"] {
            names.add(name.to_owned());
        }
        names
    }

    #[track_caller]
    fn check(arguments: &str, renamed: Option<&str>) {
        check_of("any", arguments, renamed);
    }

    #[track_caller]
    fn check_of(command: &str, arguments: &str, renamed: Option<&str>) {
        let Ok(Value::Object(object)) = arguments.parse() else { panic!("an object") };
        let actual = names().rename(command, &object);
        assert_eq!(actual.is_some_and(|actual| !actual.names.is_empty()), renamed.is_some());
        let actual = names().rename(command, &object).map(|renamed| Json::from(&renamed.arguments));
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
    fn the_value_of_a_property_is_looked_at_like_a_member_of_its_name() {
        let set = |property: &str, value: &str| {
            format!(r#"{{"path": "/objects/i", "property": "{property}", "value": "{value}"}}"#)
        };
        check_of("qom-set", &set("fd", "tap0"), Some(&set("fd", "p-tap0")));
        check_of("qom-set", &set("vhostfds", "1:tap1"), Some(&set("vhostfds", "1:p-tap1")));
        check_of("qom-set", &set("label", "tap0"), None);
        check_of("qom-list", &set("fd", "tap0"), None);
    }

    #[test]
    fn names_are_found_behind_a_path_in_any_string() {
        check(r#"{"x": "/dev/fdname/tap0"}"#, Some(r#"{"x": "/dev/fdname/p-tap0"}"#));
        check(r#"{"x": ["/dev/fdname/tap0"]}"#, Some(r#"{"x": ["/dev/fdname/p-tap0"]}"#));
        check(
            r#"{"x": "a=/dev/fdname/tap0,b=/dev/fdname/tap2:/dev/fdname/tap1"}"#,
            Some(r#"{"x": "a=/dev/fdname/p-tap0,b=/dev/fdname/tap2:/dev/fdname/p-tap1"}"#),
        );
        check(r#"{"x": "/dev/fdname/tap"}"#, None);
    }

    #[test]
    fn names_are_bounded() {
        let in_all = Arc::default();
        let names = Names::new("p-".to_owned(), Arc::clone(&in_all));
        for number in 0..MOST_NAMES {
            let name = number.to_string();
            assert_eq!(names.check_room(&name), Ok(()));
            names.add(name);
        }
        assert!(names.check_room("more").is_err());
        assert_eq!(names.check_room("7"), Ok(()), "it is there already");
        names.remove("7");
        assert_eq!(names.check_room("more"), Ok(()));
        assert!(names.check_room(&"x".repeat(LONGEST_NAME + 1)).is_err());
        drop(names);
        assert_eq!(in_all.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn arguments_take_steps_in_proportion_to_their_length() {
        let steps = |arguments: String| {
            let Ok(Value::Object(object)) = arguments.parse() else { panic!("an object") };
            steps::during(|| names().rename("any", &object)).1
        };
        let repeated: [fn(usize) -> String; 5] = [
            |count| format!("{{'x': '{}'}}", "/dev/fdname/tap0,".repeat(count)),
            |count| format!("{{'x': '{}'}}", "/dev/fdname/".repeat(count)),
            |count| format!("{{'fds': '{}'}}", "tap0:".repeat(count)),
            |count| format!("{{'x': [{}'']}}", "'/dev/fdname/tap1',".repeat(count)),
            |count| {
                let members: Vec<_> =
                    (0..count).map(|n| format!("'{n}': {{'fd': 'tap0'}}")).collect();
                format!("{{{}}}", members.join(","))
            },
        ];
        for arguments in repeated {
            let (once, twice) = (steps(arguments(500)), steps(arguments(1000)));
            assert!(once > 0 && 10 * twice <= 23 * once, "{once}, then {twice}: {}", arguments(2));
        }
    }

    #[test]
    fn names_in_errors_are_those_of_the_client() {
        let error = Error::generic("File descriptor named 'p-tap0' not found");
        assert_eq!(names().restore(error).desc, "File descriptor named 'tap0' not found");
        assert_eq!(names().full("1x"), "1x");
    }
}
