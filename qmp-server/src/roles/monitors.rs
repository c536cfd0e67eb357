// SPDX-License-Identifier: MIT OR Apache-2.0
//! Requests that would add a monitor to QEMU, where there are no roles.
//!
//! Since QEMU 11.1, `object-add` makes monitors, and `gdbserver` has always made one: debuggers execute any line in it with
//! their command `monitor`. Whoever has one of their own executes there what their role denies.

use qmp_dispatch::proto::{Object, Request, Value};

use crate::steps;

/// What the names of the types begin with: `monitor-qmp` and `monitor-hmp`, and what may follow.
const TYPE: &str = "monitor";

/// Whether a request adds a monitor, or a line for people within it does.
pub(super) fn adds_monitor(request: &Request) -> bool {
    match request.command.as_str() {
        "object-add" => names_monitor(&request.arguments),
        "human-monitor-command" => {
            let line = request.arguments.get("command-line").and_then(Value::as_str);
            line.is_some_and(line_adds_monitor)
        }
        _ => false,
    }
}

/// QEMU takes the name of a type as it is, but no other spelling is one that a role may want.
fn names_monitor(object: &Object) -> bool {
    steps::count(object.len());
    object.get("qom-type").and_then(Value::as_str).is_some_and(is_monitor)
}

fn is_monitor(kind: &str) -> bool {
    let kind = kind.trim_start().as_bytes();
    kind.get(..TYPE.len()).is_some_and(|start| start.eq_ignore_ascii_case(TYPE.as_bytes()))
}

/// Whether a line is `gdbserver`, whatever it is told, or `object_add` with a monitor: as options, of which the first may be
/// the type alone, or as JSON. QEMU knows commands by their whole names alone, and a line is one command.
fn line_adds_monitor(line: &str) -> bool {
    steps::count(line.len());
    // The name of a command ends at a slash, too, before a format.
    let line = line.trim_start();
    let end = line.find(|c: char| c.is_whitespace() || c == '/').unwrap_or(line.len());
    let (command, rest) = line.split_at(end);
    match command {
        "gdbserver" => return true,
        "object_add" => {}
        _ => return false,
    }
    let format = rest.find(char::is_whitespace).unwrap_or(rest.len());
    let options = rest[format..].trim_start();
    if options.starts_with('{') {
        // What cannot be read here may be read there.
        return match options.parse::<Value>() {
            Ok(Value::Object(object)) => names_monitor(&object),
            _ => true,
        };
    }
    let values =
        options.split(',').map(|option| option.split_once('=').map_or(option, |(_, value)| value));
    values.into_iter().any(is_monitor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(command: &str, arguments: &str, expected: bool) {
        let Ok(Value::Object(arguments)) = arguments.parse() else { panic!("{arguments}") };
        let mut request = Request::new(command);
        request.arguments = arguments;
        assert_eq!(adds_monitor(&request), expected, "{command} {:?}", request.arguments);
    }

    #[test]
    fn monitors_are_seen_however_they_are_spelt() {
        for kind in
            ["monitor-qmp", "monitor-hmp", r"\u006donitor-\u0071mp", "Monitor-QMP", " monitor-x"]
        {
            check("object-add", &format!("{{'qom-type': '{kind}', 'id': 'm'}}"), true);
            check("object-add", &format!("{{'id': 'm', 'qom-ty\\u0070e': '{kind}'}}"), true);
            check("object-del", &format!("{{'qom-type': '{kind}'}}"), false);
        }
        for other in ["'iothread'", "['monitor-qmp']", "1", "'x-monitor'"] {
            check("object-add", &format!("{{'qom-type': {other}, 'id': 'monitor-qmp'}}"), false);
        }
    }

    #[test]
    fn monitors_are_seen_in_lines_for_people() {
        for (line, expected) in [
            ("object_add monitor-qmp,id=m,chardev=c", true),
            ("  object_add\\t id=m,qom-type=monitor-hmp,chardev=c", true),
            ("object_add/x monitor-qmp,id=m", true),
            (r#"object_add {\"qom-type\":\"monitor-qmp\",\"id\":\"m\"}"#, true),
            (r#"object_add {\"qom-type\":\"\\u006donitor-qmp\",\"id\":\"m\"}"#, true),
            (r#"object_add {\"qom-type\":\"monitor-qmp\""#, true),
            (r#"object_add {\"qom-type\":\"iothread\",\"id\":\"monitor-qmp\"}"#, false),
            ("object_add iothread,id=i", false),
            ("object_add", false),
            ("gdbserver", true),
            ("gdbserver none", true),
            (" \\t\\n\\u000b\\u000c\\rgdbserver\\ttcp::1234", true),
            ("gdbserver/x chardev:c", true),
            // QEMU knows no such commands.
            ("gdbserve", false),
            ("GDBSERVER", false),
            ("info gdbserver", false),
            ("help gdbserver", false),
            ("object_del monitor-qmp", false),
            ("info qom-tree", false),
        ] {
            check("human-monitor-command", &format!(r#"{{"command-line": "{line}"}}"#), expected);
        }
    }

    #[test]
    fn it_takes_steps_in_proportion_to_the_line() {
        let steps = |length: usize| {
            let line = format!("object_add {}", "a=,".repeat(length));
            steps::during(|| line_adds_monitor(&line)).1
        };
        assert!(steps(2000) <= 2 * steps(1000));
    }
}
