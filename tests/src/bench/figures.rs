// SPDX-License-Identifier: MIT OR Apache-2.0
//! Measured figures in a form for programs. The benchmarks of all crates share this file.

use std::fs::OpenOptions;
use std::io::Write;

/// The environment variable that names the file to which figures are added, one JSON object per line.
const FILE: &str = "QMP_BENCH_FIGURES";

/// The median of what was measured round by round, and the quartiles, which say how much it varies.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Spread {
    pub(crate) lower: f64,
    pub(crate) median: f64,
    pub(crate) upper: f64,
}

impl Spread {
    /// Of one value per round.
    pub(crate) fn of(mut rounds: Vec<f64>) -> Self {
        rounds.sort_by(f64::total_cmp);
        let at = |share: f64| rounds.get((rounds.len() as f64 * share) as usize).copied();
        let [lower, median, upper] = [0.25, 0.5, 0.75].map(|share| at(share).unwrap_or(0.0));
        Self { lower, median, upper }
    }
}

/// Something that was counted, and does not vary.
impl From<f64> for Spread {
    fn from(value: f64) -> Self {
        Self { lower: value, median: value, upper: value }
    }
}

/// Adds a figure to the file, if there is to be one. Figures of one group and one `what` are held against each other;
/// the first that is recorded is ours. A `what` that begins with a number is a point of a series.
pub(crate) fn record(group: &str, what: &str, of: &str, unit: &str, spread: Spread) {
    let Some(path) = std::env::var_os(FILE) else { return };
    let Spread { lower, median, upper } = spread;
    let line = format!(
        "{{\"group\": {group:?}, \"what\": {what:?}, \"of\": {of:?}, \"unit\": {unit:?}, \
         \"lower\": {lower:.4}, \"median\": {median:.4}, \"upper\": {upper:.4}}}\n"
    );
    let file = OpenOptions::new().create(true).append(true).open(path);
    file.and_then(|mut file| file.write_all(line.as_bytes())).expect("the file can be written to");
}
