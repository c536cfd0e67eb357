// SPDX-License-Identifier: MIT OR Apache-2.0
//! Makes a report from the figures that the benchmarks have written, one JSON object per line.
//!
//! A figure that was measured in several runs is the median of theirs, between the lowest and the highest of their
//! quartiles.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{Figure, Group, Layer, Report, Row, about};

/// A line: what a benchmark records of one figure.
#[derive(Debug, Deserialize)]
struct Line {
    group: String,
    what: String,
    unit: String,
    #[serde(flatten)]
    figure: Figure,
}

/// Reads the files, which are called as their layers; `root` is the root of the workspace.
pub fn collect(root: &Path, command: &str, files: &[PathBuf]) -> Result<Report, String> {
    let layers = files.iter().map(|file| {
        let cannot = |error: &dyn std::fmt::Display| format!("{}: {error}", file.display());
        let text = std::fs::read_to_string(file).map_err(|error| cannot(&error))?;
        let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let groups = groups(&text).map_err(|error| cannot(&error))?;
        Ok(Layer { name, groups })
    });
    let layers = layers.collect::<Result<Vec<_>, String>>()?;
    Ok(Report {
        date: about::date()?,
        command: command.to_owned(),
        revision: about::revision(),
        machine: about::machine(),
        versions: about::versions(root, &layers),
        notes: about::absent(&layers),
        layers,
    })
}

fn groups(text: &str) -> Result<Vec<Group>, String> {
    let mut groups: Vec<Group> = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line: Line =
            serde_json::from_str(line).map_err(|error| format!("line {number}: {error}"))?;
        let Line { group: name, what, unit, figure } = line;
        let group = entry(
            &mut groups,
            |group| group.name == name,
            || Group { name: name.clone(), rows: Vec::new() },
        );
        let row = entry(
            &mut group.rows,
            |row| row.what == what && row.unit == unit,
            || Row { what: what.clone(), unit: unit.clone(), figures: Vec::new() },
        );
        row.figures.push(figure);
    }
    for row in groups.iter_mut().flat_map(|group| &mut group.rows) {
        row.figures = merged(std::mem::take(&mut row.figures));
    }
    Ok(groups)
}

/// One figure of those that several runs have given.
fn merged(figures: Vec<Figure>) -> Vec<Figure> {
    let mut by_name: Vec<Vec<Figure>> = Vec::new();
    for figure in figures {
        entry(&mut by_name, |known| known[0].of == figure.of, Vec::new).push(figure);
    }
    let one = |mut runs: Vec<Figure>| {
        runs.sort_by(|a, b| a.median.total_cmp(&b.median));
        let lower = runs.iter().map(|run| run.lower).fold(f64::INFINITY, f64::min);
        let upper = runs.iter().map(|run| run.upper).fold(f64::NEG_INFINITY, f64::max);
        let middle = runs.len() / 2;
        Figure { lower, upper, ..runs.swap_remove(middle) }
    };
    by_name.into_iter().map(one).collect()
}

/// The element that fits, added if there is none.
fn entry<T>(list: &mut Vec<T>, fits: impl Fn(&T) -> bool, new: impl FnOnce() -> T) -> &mut T {
    let index = list.iter().position(fits).unwrap_or_else(|| {
        list.push(new());
        list.len() - 1
    });
    &mut list[index]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_belongs_together_is_one_row() {
        let line = |what: &str, of: &str| {
            format!(
                r#"{{"group": "reading", "what": "{what}", "of": "{of}", "unit": "µs", "lower": 1.0, "median": 2.0, "upper": 3.0}}"#
            )
        };
        let text = [line("a", "ours"), line("b", "ours"), line("a", "theirs")].join("\n");
        let groups = groups(&text).unwrap();
        let rows: Vec<_> =
            groups[0].rows.iter().map(|row| (&*row.what, row.figures.len())).collect();
        assert_eq!((groups.len(), rows), (1, vec![("a", 2), ("b", 1)]));
    }

    #[test]
    fn runs_are_merged() {
        let line = |lower: u32| {
            let (median, upper) = (lower + 1, lower + 2);
            format!(
                r#"{{"group": "g", "what": "w", "of": "o", "unit": "µs", "lower": {lower}, "median": {median}, "upper": {upper}}}"#
            )
        };
        let groups = groups(&[4, 9, 1].map(line).join("\n")).unwrap();
        let figures = &groups[0].rows[0].figures;
        let found: Vec<_> = figures.iter().map(|one| (one.lower, one.median, one.upper)).collect();
        assert_eq!(found, [(1.0, 5.0, 11.0)]);
    }

    #[test]
    fn a_bad_line_is_named() {
        let error = groups("{\"group\": \"reading\"}\n").unwrap_err();
        assert!(error.starts_with("line 1: missing field `what`"), "{error}");
    }
}
