// SPDX-License-Identifier: MIT OR Apache-2.0
//! One report of all benchmarks: what was measured, on what, and what it is held against.
//!
//! The benchmarks write their figures into a file for each layer ([`collect`]), from which a page ([`markdown`]) and plots
//! ([`plots`]) are made.

mod about;
pub mod collect;
pub mod markdown;
pub mod plots;

use serde::Deserialize;

#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// The day, as `2026-01-31`, in UTC.
    pub date: String,
    pub command: String,
    /// The revision that was measured, if it is known.
    pub revision: Option<String>,
    pub machine: Vec<Fact>,
    /// Versions of the other programs that were measured, and of the compilers.
    pub versions: Vec<Fact>,
    pub notes: Vec<String>,
    pub layers: Vec<Layer>,
}

/// Something that is known of the machine or a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fact {
    /// Of what.
    pub name: String,
    pub value: String,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Layer {
    /// Its name in `cargo xtask bench`.
    pub name: String,
    pub groups: Vec<Group>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    pub name: String,
    pub rows: Vec<Row>,
}

/// Figures that are held against each other.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    pub what: String,
    /// The unit of all figures; empty for what is counted.
    pub unit: String,
    /// The first one is ours.
    pub figures: Vec<Figure>,
}

/// A median, and between what the runs and their rounds vary.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Figure {
    /// Whose it is.
    pub of: String,
    /// The lowest of the runs' lower quartiles.
    pub lower: f64,
    pub median: f64,
    /// The highest of the runs' upper quartiles.
    pub upper: f64,
}

impl Report {
    /// The row of this layer, group and name, if it was measured.
    pub fn row(&self, layer: &str, group: &str, what: &str) -> Option<&Row> {
        self.group(layer, group)?.rows.iter().find(|row| row.what == what)
    }

    fn group(&self, layer: &str, group: &str) -> Option<&Group> {
        let layer = self.layers.iter().find(|one| one.name == layer)?;
        layer.groups.iter().find(|one| one.name == group)
    }
}

impl Row {
    fn of(&self, name: &str) -> Option<&Figure> {
        self.figures.iter().find(|figure| figure.of == name)
    }
}

impl Figure {
    /// By what share of the median it varies.
    fn noise(&self) -> f64 {
        (self.upper - self.lower) / self.median
    }
}

#[cfg(test)]
mod samples {
    use super::*;

    /// A report of one row: ours, and something that it is held against.
    pub(super) fn report(unit: &str, ours: f64, other: Option<f64>) -> Report {
        let figure = |of: &str, median: f64| Figure {
            of: of.to_owned(),
            lower: median * 0.98,
            median,
            upper: median * 1.02,
        };
        let figures = [Some(figure("qmp-server", ours)), other.map(|other| figure("floor", other))];
        let row = Row {
            what: "1 client".to_owned(),
            unit: unit.to_owned(),
            figures: figures.into_iter().flatten().collect(),
        };
        let fact =
            |name: &str, value: &str| Fact { name: name.to_owned(), value: value.to_owned() };
        Report {
            date: "2026-01-31".to_owned(),
            command: "cargo xtask bench".to_owned(),
            revision: None,
            machine: vec![fact("processor", "one"), fact("cores", "2")],
            versions: vec![fact("rustc", "1.88.0")],
            notes: Vec::new(),
            layers: vec![Layer {
                name: "server".to_owned(),
                groups: vec![Group { name: "one core".to_owned(), rows: vec![row] }],
            }],
        }
    }
}
