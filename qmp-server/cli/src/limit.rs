// SPDX-License-Identifier: MIT OR Apache-2.0
//! `--limit NAME=VALUE`: how much clients may take.

use std::str::FromStr;

use qmp_server::Limits;

use crate::deadline::seconds;

/// One limit, and how it is set.
#[derive(Clone, Debug)]
pub(crate) struct Limit {
    name: &'static str,
    set: Set,
    value: String,
}

impl PartialEq for Limit {
    fn eq(&self, other: &Limit) -> bool {
        (self.name, &self.value) == (other.name, &other.value)
    }
}

type Set = fn(&mut Limits, &str) -> Result<(), String>;

/// How many machines a mux has at most: not of one server, and so not in [`Limits`].
const MACHINES: &str = "machines";

const LIMITS: [(&str, Set); 10] = [
    ("monitors", |limits, value| number(value, &mut limits.per_server.monitors)),
    ("monitors-per-user", |limits, value| number(value, &mut limits.per_user.monitors)),
    ("bytes", |limits, value| number(value, &mut limits.per_server.bytes)),
    ("bytes-per-user", |limits, value| number(value, &mut limits.per_user.bytes)),
    ("requests", |limits, value| number(value, &mut limits.per_server.requests)),
    ("requests-per-user", |limits, value| number(value, &mut limits.per_user.requests)),
    ("message", |limits, value| number(value, &mut limits.message.token_bytes)),
    ("unread", |limits, value| number(value, &mut limits.unread)),
    ("stalled", |limits, value| {
        limits.stalled = match value {
            "never" => None,
            value => Some(seconds(value)?),
        };
        Ok(())
    }),
    (MACHINES, |_, value| number(value, &mut 0)),
];

impl Limit {
    pub(crate) fn set(&self, limits: &mut Limits) {
        // This has been tried when it was read.
        let _ = (self.set)(limits, &self.value);
    }

    /// Whether this says how many connections a user may have.
    pub(crate) fn is_of_connections(&self) -> bool {
        self.name == "monitors-per-user"
    }

    /// How many machines a mux may have, if this says that.
    pub(crate) fn machines(&self) -> Option<usize> {
        let mut machines = 0;
        let said = self.name == MACHINES && number(&self.value, &mut machines).is_ok();
        said.then_some(machines)
    }
}

impl FromStr for Limit {
    type Err = String;

    fn from_str(text: &str) -> Result<Limit, String> {
        let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
        let known = LIMITS.iter().find(|(known, _)| *known == name);
        let &(name, set) = known.ok_or_else(|| {
            let names: Vec<_> = LIMITS.iter().map(|(name, _)| *name).collect();
            format!("there is no limit '{name}', only {}", names.join(", "))
        })?;
        set(&mut Limits::default(), value)?;
        Ok(Limit { name, set, value: value.to_owned() })
    }
}

/// A number, which may end in K, M or G.
fn number(text: &str, into: &mut usize) -> Result<(), String> {
    let (digits, unit) = match text.chars().last() {
        Some('K') => (&text[..text.len() - 1], 1 << 10),
        Some('M') => (&text[..text.len() - 1], 1 << 20),
        Some('G') => (&text[..text.len() - 1], 1 << 30),
        _ => (text, 1),
    };
    let number = digits.parse().ok().and_then(|number: usize| number.checked_mul(unit));
    *into = number
        .filter(|number| *number > 0)
        .ok_or_else(|| format!("'{text}' is not a number above zero, like 100, 64K or 1G"))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn limits_are_set_by_name() {
        let mut limits = Limits::default();
        for text in ["monitors-per-user=7", "bytes=2G", "message=64K", "stalled=1.5"] {
            text.parse::<Limit>().unwrap().set(&mut limits);
        }
        assert_eq!(limits.per_user.monitors, 7);
        assert_eq!(limits.per_server.bytes, 2 << 30);
        assert_eq!(limits.message.token_bytes, 64 << 10);
        assert_eq!(limits.stalled, Some(Duration::from_millis(1500)));
        "stalled=never".parse::<Limit>().unwrap().set(&mut limits);
        assert_eq!(limits.stalled, None);
        let machines = |text: &str| text.parse::<Limit>().unwrap().machines();
        assert_eq!((machines("machines=1K"), machines("monitors=1")), (Some(1024), None));
    }

    #[test]
    fn mistakes_are_named() {
        let mistake = |text: &str| text.parse::<Limit>().unwrap_err();
        assert_eq!(mistake("monitors"), "expected NAME=VALUE");
        assert!(mistake("clients=1").starts_with("there is no limit 'clients', only monitors, "));
        for number in ["0", "", "K", "-1", "1k", "99999999999999999999", "18014398509481984K"] {
            let expected = format!("'{number}' is not a number above zero, like 100, 64K or 1G");
            assert_eq!(mistake(&format!("bytes={number}")), expected);
        }
        assert!(mistake("stalled=soon").starts_with("expected a number of seconds"));
    }
}
