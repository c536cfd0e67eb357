// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which cases apply to a server, and which were asked for.

use std::collections::BTreeSet;

use regex::Regex;

use super::case::{Case, Need};

/// A pattern of file names: `*`, `?`, `[abc]` and `[!abc]`.
#[derive(Clone, Debug)]
pub struct Glob(Regex);

impl Glob {
    pub fn new(pattern: &str) -> Result<Self, String> {
        let mut regex = String::from(r"(?s)\A");
        let mut rest = pattern;
        while let Some(first) = rest.chars().next() {
            rest = &rest[first.len_utf8()..];
            match (first, rest.get(1..).and_then(|tail| tail.find(']'))) {
                ('*', _) => regex.push_str(".*"),
                ('?', _) => regex.push('.'),
                ('[', Some(length)) => {
                    let set = rest[..=length].replace('\\', r"\\").replace('[', r"\[");
                    let (not, set) =
                        set.strip_prefix('!').map_or(("", set.as_str()), |set| ("^", set));
                    regex.push_str(&format!("[{not}{set}]"));
                    rest = &rest[length + 2..];
                }
                _ => regex.push_str(&regex::escape(first.encode_utf8(&mut [0; 4]))),
            }
        }
        regex.push_str(r"\z");
        Regex::new(&regex).map(Self).map_err(|error| format!("bad pattern '{pattern}': {error}"))
    }

    /// Whether the whole text fits the pattern.
    pub fn matches(&self, text: &str) -> bool {
        self.0.is_match(text)
    }
}

/// The criteria for running a case.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Only cases of these categories; of all if there are none.
    pub categories: Vec<String>,
    /// Only cases whose title fits one of these; all if there are none.
    pub only: Vec<Glob>,
    /// No cases whose title fits one of these.
    pub except: Vec<Glob>,
    /// The features that the server lacks.
    pub without: BTreeSet<Need>,
    /// Also the slow cases.
    pub slow: bool,
    /// The server has one connection in its life.
    pub single_connection: bool,
    /// Titles of cases that make no sense on the server, and why.
    pub inapplicable: &'static [(&'static str, &'static str)],
}

/// The cases to run, those that end the server last, and the others with the reason.
#[derive(Debug, Default)]
pub struct Selected {
    /// To be run, in this order.
    pub chosen: Vec<Case>,
    /// Not to be run, and why.
    pub skipped: Vec<(Case, String)>,
}

impl Selection {
    /// Divides the cases up. Those that were not asked for by name do not turn up at all.
    pub fn apply(&self, cases: Vec<Case>) -> Selected {
        let mut selected = Selected::default();
        for case in cases {
            let fits = |globs: &[Glob]| globs.iter().any(|glob| glob.matches(&case.title()));
            let asked_for = (self.categories.is_empty()
                || self.categories.contains(&case.category))
                && (self.only.is_empty() || fits(&self.only));
            if !asked_for || fits(&self.except) {
                continue;
            }
            let missing: BTreeSet<_> =
                case.needs.iter().filter(|need| self.without.contains(need)).collect();
            if !missing.is_empty() {
                let names: Vec<_> = missing.into_iter().map(|need| need.name()).collect();
                selected.skipped.push((case, format!("needs {}", names.join(", "))));
            } else if let Some((_, reason)) =
                self.inapplicable.iter().find(|(title, _)| *title == case.title())
            {
                selected.skipped.push((case, (*reason).to_owned()));
            } else if self.single_connection && case.needs_more_connections() {
                let reason = "connects more than once, to one server".to_owned();
                selected.skipped.push((case, reason));
            } else if case.slow && !self.slow {
                selected.skipped.push((case, "slow, use --slow".to_owned()));
            } else {
                selected.chosen.push(case);
            }
        }
        selected.chosen.sort_by_key(|case| case.destructive);
        selected
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_match_whole_titles() {
        for (pattern, good, bad) in [
            ("oob/*", "oob/queue-8", "my-oob/queue"),
            ("*/quit*", "lifecycle/quit-pretty", "lifecycle/no-quit"),
            ("fd/add-fd-?", "fd/add-fd-1", "fd/add-fd-10"),
            ("[fo]*/x", "oob/x", "limits/x"),
            ("[!fo]*/x", "limits/x", "oob/x"),
            ("a[/x", "a[/x", "a/x"),
            ("a.b", "a.b", "aXb"),
        ] {
            let glob = Glob::new(pattern).unwrap();
            assert!(glob.matches(good), "{pattern} {good}");
            assert!(!glob.matches(bad), "{pattern} {bad}");
        }
    }

    #[test]
    fn cases_that_end_the_server_come_last_and_slow_ones_on_demand() {
        let case = |text: &str| Case::parse(text, "here:1".to_owned()).unwrap();
        let cases = vec![
            case(r#"{"name": "quit", "category": "c", "destructive": true, "steps": []}"#),
            case(r#"{"name": "slow", "category": "c", "slow": true, "steps": []}"#),
            case(r#"{"name": "late", "category": "c", "needs": ["qemu-timing"], "steps": []}"#),
            case(r#"{"name": "plain", "category": "c", "steps": []}"#),
        ];
        let without = [Need::QemuTiming].into();
        let selected = Selection { without, ..Selection::default() }.apply(cases);
        let names: Vec<_> = selected.chosen.iter().map(|case| case.name.as_str()).collect();
        assert_eq!(names, ["plain", "quit"]);
        assert_eq!(selected.skipped.len(), 2);
    }
}
