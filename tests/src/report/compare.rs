// SPDX-License-Identifier: MIT OR Apache-2.0
//! Finds what is slower than in an older report, beyond noise.
//!
//! Machines are faster on some days than on others. So a figure that is held against another one of the same run is
//! compared as a ratio to that; only what stands alone is compared as it is, and only on the same machine. A change
//! counts if it is larger than the [`LEAST`] one, and than the noise of all figures that it is made from. What was
//! measured on all cores is not compared: where the system puts the threads decides it, by more than anything else.

use std::fmt;

use super::markdown::digits;
use super::{Report, Row};

/// Changes by a smaller share than this are never reported.
pub const LEAST: f64 = 0.1;

/// How groups end in which nothing is compared.
const ALL_CORES: &str = "all cores";

/// The comparison of two reports.
#[derive(Clone, Debug, Default)]
pub struct Comparison {
    /// How many figures are in both, and can be compared.
    pub compared: usize,
    /// Those that got worse.
    pub slower: Vec<Change>,
    /// Those that got better.
    pub faster: Vec<Change>,
    /// The figures that only the older report has.
    pub gone: Vec<String>,
    /// Whether the machines are different.
    pub other_machine: bool,
}

/// A figure that has changed.
#[derive(Clone, Debug)]
pub struct Change {
    what: String,
    old: f64,
    new: f64,
    /// What part of it is not worth mentioning.
    noise: f64,
}

/// Compares two reports.
pub fn compare(old: &Report, new: &Report) -> Comparison {
    let other_machine = old.machine != new.machine;
    let mut comparison = Comparison { other_machine, ..Comparison::default() };
    for layer in &old.layers {
        for group in layer.groups.iter().filter(|group| !group.name.ends_with(ALL_CORES)) {
            for row in &group.rows {
                let name = format!("{}, {}, {}", layer.name, group.name, row.what);
                match new.row(&layer.name, &group.name, &row.what) {
                    Some(now) => comparison.add(&name, row, now),
                    None => comparison.gone.push(name),
                }
            }
        }
    }
    comparison
}

impl Comparison {
    fn add(&mut self, name: &str, old: &Row, new: &Row) {
        let reference = old.figures.iter().skip(1).find(|figure| new.of(&figure.of).is_some());
        let reference = reference.map(|figure| figure.of.as_str());
        let (Some(before), Some(now)) =
            (Measured::of(old, reference), Measured::of(new, reference))
        else {
            return;
        };
        if old.unit != new.unit || reference.is_none() && self.other_machine {
            return;
        }
        self.compared += 1;
        let what = match reference {
            Some(reference) => format!("{name}, as a multiple of {reference}"),
            None => format!("{name}, {}", old.unit),
        };
        let noise = (before.noise + now.noise).max(LEAST);
        let change = Change { what, old: before.value, new: now.value, noise };
        // The larger one in relation to the smaller one, so that both directions are judged alike.
        if change.new.max(change.old) <= change.new.min(change.old) * (1.0 + noise) {
            return;
        }
        match (change.new > change.old) != old.is_rate() {
            true => self.slower.push(change),
            false => self.faster.push(change),
        }
    }
}

struct Measured {
    value: f64,
    noise: f64,
}

impl Measured {
    /// Our figure, in relation to another one if there is one. What is zero cannot be compared.
    fn of(row: &Row, reference: Option<&str>) -> Option<Measured> {
        let ours = row.figures.first()?;
        let (value, noise) = match reference {
            None => (ours.median, ours.noise()),
            Some(name) => {
                let other = row.of(name)?;
                (ours.median / other.median, ours.noise() + other.noise())
            }
        };
        (value.is_finite() && value > 0.0 && noise.is_finite()).then_some(Measured { value, noise })
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.other_machine {
            writeln!(f, "The machines are different: only ratios are compared.")?;
        }
        let Self { compared, slower, faster, gone, .. } = self;
        writeln!(
            f,
            "{compared} figures compared: {} slower, {} faster beyond noise.",
            slower.len(),
            faster.len(),
        )?;
        slower.iter().try_for_each(|change| writeln!(f, "slower: {change}"))?;
        faster.iter().try_for_each(|change| writeln!(f, "faster: {change}"))?;
        gone.iter().try_for_each(|name| writeln!(f, "not measured any more: {name}"))
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, old, new, noise } = self;
        let change = (new / old - 1.0) * 100.0;
        let [old, new] = [*old, *new].map(digits);
        write!(f, "{what}: {old} -> {new} ({change:+.0} %, noise {:.0} %)", noise * 100.0)
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::report;
    use super::*;

    #[track_caller]
    fn check(old: &Report, new: &Report, slower: usize, faster: usize) {
        let comparison = compare(old, new);
        assert_eq!((comparison.slower.len(), comparison.faster.len()), (slower, faster));
    }

    #[test]
    fn what_varies_within_the_noise_has_not_changed() {
        check(&report("µs", 10.0, None), &report("µs", 10.9, None), 0, 0);
        check(&report("µs", 10.0, None), &report("µs", 9.3, None), 0, 0);
    }

    #[test]
    fn noisy_rounds_hide_more() {
        let (mut old, new) = (report("µs", 10.0, None), report("µs", 13.0, None));
        check(&old, &new, 1, 0);
        let figure = &mut old.layers[0].groups[0].rows[0].figures[0];
        (figure.lower, figure.upper) = (7.0, 13.0);
        check(&old, &new, 0, 0);
    }

    #[test]
    fn the_unit_says_which_way_is_worse() {
        check(&report("µs", 10.0, None), &report("µs", 12.0, None), 1, 0);
        check(&report("µs", 12.0, None), &report("µs", 10.0, None), 0, 1);
        check(&report("k/s", 10.0, None), &report("k/s", 12.0, None), 0, 1);
        check(&report("k/s", 12.0, None), &report("k/s", 10.0, None), 1, 0);
    }

    #[test]
    fn a_slower_machine_makes_nothing_slower() {
        check(&report("µs", 10.0, Some(8.0)), &report("µs", 20.0, Some(16.0)), 0, 0);
        check(&report("µs", 10.0, Some(8.0)), &report("µs", 10.0, Some(4.0)), 1, 0);
    }

    #[test]
    fn another_machine_is_compared_by_ratios_only() {
        let (old, mut new) = (report("µs", 10.0, None), report("µs", 99.0, None));
        new.machine[0].value = "another".to_owned();
        let comparison = compare(&old, &new);
        assert_eq!((comparison.compared, comparison.slower.len()), (0, 0));
        assert!(comparison.to_string().starts_with("The machines are different"));

        let (old, mut new) = (report("µs", 10.0, Some(8.0)), report("µs", 99.0, Some(8.0)));
        new.machine = Vec::new();
        check(&old, &new, 1, 0);
    }

    #[test]
    fn where_threads_run_is_not_judged() {
        let (mut old, mut new) = (report("µs", 10.0, None), report("µs", 99.0, None));
        for report in [&mut old, &mut new] {
            report.layers[0].groups[0].name = "other stacks, all cores".to_owned();
        }
        assert_eq!(compare(&old, &new).compared, 0);
    }

    #[test]
    fn what_is_not_measured_any_more_is_named() {
        let (old, mut new) = (report("µs", 10.0, None), report("µs", 10.0, None));
        new.layers.clear();
        assert_eq!(compare(&old, &new).gone, ["server, one core, 1 client"]);
        check(&old, &new, 0, 0);
    }
}
