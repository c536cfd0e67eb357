// SPDX-License-Identifier: MIT OR Apache-2.0
//! Prometheus' text format, version 0.0.4, read more strictly than by Prometheus.

use std::collections::{BTreeMap, BTreeSet};

#[derive(Clone, Debug)]
pub struct Exposition {
    /// By the name, with the labels as they are written.
    samples: BTreeMap<String, f64>,
}

/// One metric, while its lines are read.
struct Family<'t> {
    name: &'t str,
    kind: &'t str,
}

struct Sample<'t> {
    name: &'t str,
    labels: Vec<(&'t str, String)>,
    value: f64,
}

impl Exposition {
    /// Reads a text. Each metric is to have its help, its type and then its samples, all in one place.
    #[track_caller]
    pub fn parse(text: &str) -> Self {
        match Self::try_parse(text) {
            Ok(exposition) => exposition,
            Err(error) => panic!("{error}\n{text}"),
        }
    }

    fn try_parse(text: &str) -> Result<Self, String> {
        let mut samples = BTreeMap::new();
        let mut families = BTreeSet::new();
        let mut lines = text.split_inclusive('\n').peekable();
        while let Some(line) = lines.next() {
            let family = Family::parse(line, lines.next().unwrap_or_default())?;
            if !families.insert(family.name) {
                return Err(format!("{} comes twice", family.name));
            }
            let mut own = Vec::new();
            while let Some(line) = lines.next_if(|line| !line.starts_with('#')) {
                let sample = Sample::parse(line).ok_or_else(|| format!("no sample: {line}"))?;
                let key = line.rsplit_once(' ').map_or(line, |(key, _)| key).to_owned();
                if samples.insert(key, sample.value).is_some() {
                    return Err(format!("comes twice: {line}"));
                }
                own.push(sample);
            }
            family.check(&own)?;
        }
        Ok(Self { samples })
    }

    /// The value of this name and these labels, as they are written.
    #[track_caller]
    pub fn value(&self, key: &str) -> f64 {
        match self.samples.get(key) {
            Some(value) => *value,
            None => panic!("there is no {key}: {:#?}", self.samples),
        }
    }

    /// All names, with their labels.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.samples.keys().map(String::as_str)
    }
}

impl<'t> Family<'t> {
    fn parse(help: &'t str, kind: &'t str) -> Result<Self, String> {
        let wrong = || format!("help and type are expected: {help}{kind}");
        let said = help.strip_prefix("# HELP ").and_then(|said| said.strip_suffix('\n'));
        let (name, said) = said.and_then(|said| said.split_once(' ')).ok_or_else(wrong)?;
        let kind = kind.strip_prefix("# TYPE ").and_then(|kind| kind.strip_suffix('\n'));
        let (named, kind) = kind.and_then(|kind| kind.split_once(' ')).ok_or_else(wrong)?;
        let known = matches!(kind, "counter" | "gauge" | "histogram");
        if name != named || !known || said.is_empty() || !is_name(name) {
            return Err(wrong());
        }
        if (kind == "counter") != name.ends_with("_total") {
            return Err(format!("counters end with _total, others do not: {name}"));
        }
        Ok(Self { name, kind })
    }

    fn check(&self, samples: &[Sample<'_>]) -> Result<(), String> {
        let name = self.name;
        if samples.is_empty() {
            return Err(format!("{name} has no sample"));
        }
        if self.kind == "histogram" {
            return self.check_histograms(samples);
        }
        if let Some(stranger) = samples.iter().find(|sample| sample.name != name) {
            return Err(format!("{} is among the samples of {name}", stranger.name));
        }
        let is_count = |value: f64| value >= 0.0 && value.fract() == 0.0;
        match samples.iter().find(|sample| !is_count(sample.value)) {
            Some(sample) if self.kind == "counter" => {
                Err(format!("{name} is no count: {}", sample.value))
            }
            _ => Ok(()),
        }
    }

    /// Each is some buckets, the sum and the count.
    fn check_histograms(&self, samples: &[Sample<'_>]) -> Result<(), String> {
        let name = self.name;
        let is = |sample: &Sample<'_>, part: &str| sample.name.strip_prefix(name) == Some(part);
        let mut samples = samples.iter().peekable();
        while samples.peek().is_some() {
            let mut last = (f64::NEG_INFINITY, 0.0);
            let mut own: Option<Vec<_>> = None;
            while let Some(bucket) = samples.next_if(|sample| is(sample, "_bucket")) {
                let Some((("le", bound), labels)) =
                    bucket.labels.split_last().map(|(last, rest)| ((last.0, &last.1), rest))
                else {
                    return Err(format!("a bucket of {name} has no bound"));
                };
                let bound = match bound.as_str() {
                    "+Inf" => f64::INFINITY,
                    bound => bound.parse().map_err(|_| format!("no bound: {bound}"))?,
                };
                if bound <= last.0 || bucket.value < last.1 {
                    return Err(format!("the buckets of {name} do not grow"));
                }
                last = (bound, bucket.value);
                if own.get_or_insert_with(|| labels.to_vec()) != labels {
                    return Err(format!("the buckets of a histogram of {name} are not together"));
                }
            }
            let (sum, count) = (samples.next(), samples.next());
            let (Some(sum), Some(count)) = (sum, count) else {
                return Err(format!("a histogram of {name} is not complete"));
            };
            if !is(sum, "_sum")
                || !is(count, "_count")
                || own.as_ref() != Some(&sum.labels)
                || sum.labels != count.labels
            {
                return Err(format!(
                    "a histogram of {name} does not end with its sum and its count"
                ));
            }
            if last != (f64::INFINITY, count.value) {
                return Err(format!("the last bucket of {name} does not hold all"));
            }
        }
        Ok(())
    }
}

impl<'t> Sample<'t> {
    fn parse(line: &'t str) -> Option<Self> {
        let line = line.strip_suffix('\n')?;
        let (key, value) = line.rsplit_once(' ')?;
        let value = value.parse().ok().filter(|value: &f64| value.is_finite())?;
        let (name, mut labels) = match key.split_once('{') {
            None => (key, ""),
            Some((name, labels)) => {
                (name, labels.strip_suffix('}').filter(|labels| !labels.is_empty())?)
            }
        };
        let mut parsed = Vec::new();
        while !labels.is_empty() {
            let (label, rest) = labels.split_once("=\"")?;
            let (said, rest) = unescape(rest)?;
            if !is_name(label) || parsed.iter().any(|(other, _)| *other == label) {
                return None;
            }
            parsed.push((label, said));
            labels = match rest.strip_prefix(',') {
                Some("") => return None,
                Some(rest) => rest,
                None if rest.is_empty() => rest,
                None => return None,
            };
        }
        is_name(name).then_some(Sample { name, labels: parsed, value })
    }
}

/// Returns the quoted text at the start, and the rest.
fn unescape(text: &str) -> Option<(String, &str)> {
    let mut said = String::new();
    let mut characters = text.chars();
    loop {
        match characters.next()? {
            '"' => return Some((said, characters.as_str())),
            '\\' => said.push(match characters.next()? {
                'n' => '\n',
                same @ ('\\' | '"') => same,
                _ => return None,
            }),
            other => said.push(other),
        }
    }
}

fn is_name(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
        && text.chars().all(|other| other.is_ascii_alphanumeric() || other == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    const HISTOGRAM: &str = "# HELP h Help.\n# TYPE h histogram\nh_bucket{a=\"b\",le=\"0.1\"} 1\n\
        h_bucket{a=\"b\",le=\"+Inf\"} 2\nh_sum{a=\"b\"} 0.3\nh_count{a=\"b\"} 2\n";

    #[test]
    fn samples_are_read() {
        let text = "# HELP g Help.\n# TYPE g gauge\ng -1.5\n\
            # HELP c_total Help.\n# TYPE c_total counter\nc_total{a=\"\\\"\\n\\\\\",b=\"\"} 2\n";
        let exposition = Exposition::parse(&(text.to_owned() + HISTOGRAM));
        assert_eq!(exposition.value("g"), -1.5);
        assert_eq!(exposition.value("c_total{a=\"\\\"\\n\\\\\",b=\"\"}"), 2.0);
        assert_eq!(exposition.value("h_bucket{a=\"b\",le=\"+Inf\"}"), 2.0);
    }

    #[test]
    fn what_is_wrong_is_refused() {
        for (right, wrong) in [
            ("# HELP h Help.\n", ""),
            ("Help.", ""),
            ("# TYPE h ", "# TYPE i "),
            ("histogram", "heap"),
            ("h_sum{a=\"b\"} 0.3\n", ""),
            ("h_count{a=\"b\"} 2", "h_count{a=\"b\"} 3"),
            ("h_count{a=\"b\"} 2", "h_count{a=\"c\"} 2"),
            ("le=\"0.1\"} 1", "le=\"0.1\"} 3"),
            ("le=\"0.1\"", "le=\"x\""),
            ("a=\"b\",le=\"0.1\"", "a=\"b\",le=\"0.1\","),
            ("a=\"b\",le=\"0.1\"", "a=\"b\",a=\"b\",le=\"0.1\""),
            ("h_sum{a=\"b\"} 0.3", "h_sum{a=\"b\"} x"),
            ("h_sum{a=\"b\"} 0.3", "h_sum{a=\"\\b\"} 0.3"),
            ("h_sum{a=\"b\"} 0.3", "i_sum{a=\"b\"} 0.3"),
            ("h_sum{a=\"b\"} 0.3\n", "h_sum{a=\"b\"} 0.3\nh_sum{a=\"b\"} 0.3\n"),
            ("2\n", "2"),
        ] {
            let text = match HISTOGRAM.rfind(right) {
                Some(at) => HISTOGRAM[..at].to_owned() + wrong + &HISTOGRAM[at + right.len()..],
                None => panic!("{right}"),
            };
            assert!(Exposition::try_parse(&text).is_err(), "{text}");
        }
        let twice = HISTOGRAM.repeat(2);
        assert!(Exposition::try_parse(&twice).is_err());
        assert!(Exposition::try_parse("# HELP c C.\n# TYPE c counter\nc 1\n").is_err());
        assert!(
            Exposition::try_parse("# HELP c_total C.\n# TYPE c_total counter\nc_total -1\n")
                .is_err()
        );
    }
}
