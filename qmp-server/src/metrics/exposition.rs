// SPDX-License-Identifier: MIT OR Apache-2.0
//! Prometheus' text format, version 0.0.4.

use std::collections::HashMap;
use std::fmt::{Display, Write};
use std::time::Duration;

use crate::observe::Distribution;

/// Before every name.
const PREFIX: &str = "qmp_server_";

/// Metrics, one after the other. The names are without what is [before all](PREFIX) of them, and
/// without what belongs to their type.
///
/// What has the same name is one group, as the format wants it, however many machines tell of it.
#[derive(Default)]
pub(crate) struct Exposition {
    /// In the order in which they were first described.
    groups: Vec<String>,
    by_name: HashMap<String, usize>,
    /// The group that was described last: samples are added to it.
    group: usize,
    /// The machine that tells.
    machine: Option<String>,
}

impl Exposition {
    /// What is told from now on is told by this machine, which is a label of all of it.
    pub(crate) fn set_machine(&mut self, machine: Option<&str>) {
        self.machine = machine.map(str::to_owned);
    }

    pub(crate) fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.describe(name, "gauge", help);
        self.sample(name, &[], value);
    }

    pub(crate) fn counter(&mut self, name: &str, help: &str, value: u64) {
        let name = &format!("{name}_total");
        self.describe(name, "counter", help);
        self.sample(name, &[], value);
    }

    /// One counter for each value of a label.
    pub(crate) fn counters<'a>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        values: impl IntoIterator<Item = (&'a str, u64)>,
    ) {
        let name = &format!("{name}_total");
        self.describe(name, "counter", help);
        for (of, value) in values {
            self.sample(name, &[(label, of)], value);
        }
    }

    /// What a label says, without a value worth mentioning.
    pub(crate) fn info(&mut self, name: &str, help: &str, label: &str, said: &str) {
        let name = &format!("{name}_info");
        self.describe(name, "gauge", help);
        self.sample(name, &[(label, said)], 1);
    }

    /// One histogram for each value of a label.
    pub(crate) fn histograms<'a>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        values: impl IntoIterator<Item = (&'a str, Distribution)>,
    ) {
        let name = &format!("{name}_seconds");
        self.describe(name, "histogram", help);
        for (of, Distribution { at_most, count, sum }) in values {
            let of = (label, of);
            let bucket = &format!("{name}_bucket");
            for (bound, count) in at_most {
                self.sample(bucket, &[of, ("le", &seconds(bound))], count);
            }
            self.sample(bucket, &[of, ("le", "+Inf")], count);
            self.sample(&format!("{name}_sum"), &[of], seconds(sum));
            self.sample(&format!("{name}_count"), &[of], count);
        }
    }

    pub(crate) fn finish(self) -> String {
        self.groups.concat()
    }

    fn describe(&mut self, name: &str, kind: &str, help: &str) {
        if let Some(&group) = self.by_name.get(name) {
            self.group = group;
            return;
        }
        self.group = self.groups.len();
        self.groups.push(String::new());
        self.by_name.insert(name.to_owned(), self.group);
        self.push(format_args!("# HELP {PREFIX}{name} {help}\n# TYPE {PREFIX}{name} {kind}\n"));
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.push(format_args!("{PREFIX}{name}"));
        let machine = self.machine.take();
        let of_machine = machine.as_deref().map(|machine| ("machine", machine));
        let mut open = '{';
        for (label, of) in of_machine.iter().chain(labels) {
            self.push(format_args!("{open}{label}=\"{}\"", escaped(of)));
            open = ',';
        }
        let close = if open == '{' { "" } else { "}" };
        self.machine = machine;
        self.push(format_args!("{close} {value}\n"));
    }

    fn push(&mut self, text: std::fmt::Arguments<'_>) {
        // Strings take everything.
        if let Some(group) = self.groups.get_mut(self.group) {
            let _ = group.write_fmt(text);
        }
    }
}

pub(crate) fn seconds(duration: Duration) -> String {
    duration.as_secs_f64().to_string()
}

fn escaped(text: &str) -> String {
    text.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_several_machines_tell_is_one_group() {
        let mut exposition = Exposition::default();
        for (machine, value) in [(Some("vm\"1"), 1), (None, 2)] {
            exposition.set_machine(machine);
            exposition.gauge("a", "A.", value);
            exposition.counters("b", "B.", "of", [("x", value)]);
        }
        let expected = "# HELP qmp_server_a A.\n# TYPE qmp_server_a gauge\n\
            qmp_server_a{machine=\"vm\\\"1\"} 1\nqmp_server_a 2\n\
            # HELP qmp_server_b_total B.\n# TYPE qmp_server_b_total counter\n\
            qmp_server_b_total{machine=\"vm\\\"1\",of=\"x\"} 1\nqmp_server_b_total{of=\"x\"} 2\n";
        assert_eq!(exposition.finish(), expected);
    }

    #[test]
    fn a_metric_is_described_once_and_has_a_sample_for_each_label() {
        let mut exposition = Exposition::default();
        exposition.counters("errors", "Responses.", "class", [("A", 1), ("B\"\\\n", 2)]);
        let expected = "# HELP qmp_server_errors_total Responses.\n\
            # TYPE qmp_server_errors_total counter\n\
            qmp_server_errors_total{class=\"A\"} 1\n\
            qmp_server_errors_total{class=\"B\\\"\\\\\\n\"} 2\n";
        assert_eq!(exposition.finish(), expected);
    }

    #[test]
    fn a_histogram_ends_with_everything() {
        let mut exposition = Exposition::default();
        let micros = Duration::from_micros;
        let distribution = Distribution {
            at_most: vec![(micros(10), 1), (micros(250), 3)],
            count: 4,
            sum: micros(1500),
        };
        exposition.histograms("time", "Time.", "band", [("in-band", distribution)]);
        let expected = "# HELP qmp_server_time_seconds Time.\n\
            # TYPE qmp_server_time_seconds histogram\n\
            qmp_server_time_seconds_bucket{band=\"in-band\",le=\"0.00001\"} 1\n\
            qmp_server_time_seconds_bucket{band=\"in-band\",le=\"0.00025\"} 3\n\
            qmp_server_time_seconds_bucket{band=\"in-band\",le=\"+Inf\"} 4\n\
            qmp_server_time_seconds_sum{band=\"in-band\"} 0.0015\n\
            qmp_server_time_seconds_count{band=\"in-band\"} 4\n";
        assert_eq!(exposition.finish(), expected);
    }
}
