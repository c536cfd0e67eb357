// SPDX-License-Identifier: MIT OR Apache-2.0
//! Options after an address, as on QEMU's command line: `ADDR[,NAME[=VALUE]]...`.

use crate::steps;

/// An option, and its value if it has one.
pub(crate) type Setting = (String, Option<String>);

/// Splits `ADDR[,NAME[=VALUE]]...` into the address and the options. Two commas in a row stand for one that separates
/// nothing.
pub(crate) fn split(text: &str) -> (String, Vec<Setting>) {
    let mut parts = vec![String::new()];
    let mut rest = text.chars().peekable();
    while let Some(character) = rest.next() {
        steps::count(1);
        if character == ',' && rest.next_if_eq(&',').is_none() {
            parts.push(String::new());
        } else if let Some(part) = parts.last_mut() {
            part.push(character);
        }
    }
    let mut parts = parts.into_iter();
    let address = parts.next().unwrap_or_default();
    let settings = parts.map(|part| {
        steps::count(part.len());
        match part.split_once('=') {
            Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
            None => (part, None),
        }
    });
    (address, settings.collect())
}

/// The option that QEMU means by an older spelling.
pub(crate) fn modern<'a>(name: &'a str, value: Option<&'a str>) -> (&'a str, Option<&'a str>) {
    match (name, value) {
        ("nowait", None) => ("wait", Some("off")),
        ("noserver", None) => ("server", Some("off")),
        ("nodelay", None) | ("delay", Some("off")) => ("nodelay", Some("on")),
        ("delay", Some("on")) => ("nodelay", Some("off")),
        setting => setting,
    }
}

/// Reads a truth value, in any of QEMU's spellings; an option without a value is on.
pub(crate) fn switch(name: &str, value: Option<&str>) -> Result<bool, String> {
    match value {
        None | Some("on" | "yes" | "true" | "y") => Ok(true),
        Some("off" | "no" | "false" | "n") => Ok(false),
        Some(value) => Err(format!("{name} is on or off, not '{value}'")),
    }
}

/// The reason against an option that nobody knows.
pub(crate) fn unknown(name: &str, value: Option<&str>) -> String {
    match value {
        Some(value) => format!("option '{name}={value}' is unknown"),
        None => format!("option '{name}' is unknown"),
    }
}

/// Checks an option that is always on.
pub(crate) fn nodelay(value: Option<&str>) -> Result<(), String> {
    match switch("nodelay", value)? {
        true => Ok(()),
        false => Err("nodelay=off is not supported: messages are sent without delay".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_follow_commas() {
        let setting = |name: &str, value: Option<&str>| (name.to_owned(), value.map(str::to_owned));
        let expected = vec![setting("server", None), setting("x", Some("1=2"))];
        assert_eq!(split("unix:a,,b,server,x=1=2"), ("unix:a,b".to_owned(), expected));
        assert_eq!(split(""), (String::new(), Vec::new()));
        assert_eq!(split("a,,,b"), ("a,".to_owned(), vec![setting("b", None)]));
    }

    #[test]
    fn truth_has_the_spellings_of_qemu() {
        for on in [None, Some("on"), Some("yes"), Some("true"), Some("y")] {
            assert_eq!(switch("x", on), Ok(true));
        }
        for off in ["off", "no", "false", "n"] {
            assert_eq!(switch("x", Some(off)), Ok(false));
        }
        assert_eq!(switch("x", Some("1")).unwrap_err(), "x is on or off, not '1'");
    }
}
