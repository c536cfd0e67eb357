// SPDX-License-Identifier: MIT OR Apache-2.0
//! Figures and targets, as a table and as JSON.

use std::fmt;

use super::Scale;
use super::figures::{Spread, record};
use super::peer::Kind;
use crate::json::{Json, Layout};

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Limit {
    AtMost(f64),
    AtLeast(f64),
}

impl Limit {
    fn is_met(self, value: f64) -> bool {
        match self {
            Limit::AtMost(limit) => value <= limit,
            Limit::AtLeast(limit) => value >= limit,
        }
    }
}

#[derive(Debug)]
struct Figure {
    what: String,
    of: &'static str,
    unit: &'static str,
    value: Spread,
}

#[derive(Debug)]
struct Target {
    what: String,
    value: f64,
    limit: Option<Limit>,
}

#[derive(Debug)]
pub struct Section {
    name: String,
    pinned: bool,
    figures: Vec<Figure>,
    targets: Vec<Target>,
    pub notes: Vec<String>,
}

impl Section {
    pub(super) fn new(name: &str, pinned: bool) -> Self {
        let name = name.to_owned();
        Self { name, pinned, figures: Vec::new(), targets: Vec::new(), notes: Vec::new() }
    }

    pub(super) fn figure(
        &mut self,
        what: &str,
        of: Kind,
        unit: &'static str,
        value: impl Into<Spread>,
    ) {
        self.figure_of(what, of.name(), unit, value);
    }

    /// A figure of something that is no [`Kind`].
    pub(super) fn figure_of(
        &mut self,
        what: &str,
        of: &'static str,
        unit: &'static str,
        value: impl Into<Spread>,
    ) {
        self.figures.push(Figure { what: what.to_owned(), of, unit, value: value.into() });
    }

    pub(super) fn target(&mut self, what: &str, value: f64, limit: Limit) {
        self.targets.push(Target { what: what.to_owned(), value, limit: Some(limit) });
    }

    /// Our figure in relation to another server's, if that was there. A target on one core only.
    pub(super) fn ratio(&mut self, what: &str, to: Kind, limit: Limit) {
        let value = |of: Kind| {
            let mut figures = self.figures.iter();
            figures.find(|figure| figure.what == what && figure.of == of.name())
        };
        let (Some(ours), Some(other)) = (value(Kind::Ours), value(to)) else { return };
        let value = ours.value.median / other.value.median;
        let limit = self.pinned.then_some(limit);
        self.targets.push(Target { what: format!("{what} / {to}"), value, limit });
    }

    fn to_json(&self) -> Json {
        let figures = self.figures.iter().map(|figure| {
            object([
                ("what", text(&figure.what)),
                ("of", text(figure.of)),
                ("unit", text(figure.unit)),
                ("value", number(figure.value.median)),
                ("lower", number(figure.value.lower)),
                ("upper", number(figure.value.upper)),
            ])
        });
        let targets = self.targets.iter().map(|target| {
            let limit = match target.limit {
                None => vec![],
                Some(Limit::AtMost(limit)) => vec![("at-most", number(limit))],
                Some(Limit::AtLeast(limit)) => vec![("at-least", number(limit))],
            };
            let met = target.limit.map(|limit| ("met", Json::Bool(limit.is_met(target.value))));
            object(
                [("what", text(&target.what)), ("value", number(target.value))]
                    .into_iter()
                    .chain(limit)
                    .chain(met),
            )
        });
        object([
            ("name", text(&self.name)),
            ("figures", Json::Array(figures.collect())),
            ("targets", Json::Array(targets.collect())),
            ("notes", Json::Array(self.notes.iter().map(|note| text(note)).collect())),
        ])
    }
}

#[derive(Debug)]
pub struct Report {
    rounds: usize,
    pub machine: Vec<(String, Json)>,
    pub sections: Vec<Section>,
    pub notes: Vec<String>,
}

impl Report {
    pub(super) fn new(scale: &Scale) -> Self {
        Self { rounds: scale.rounds, machine: Vec::new(), sections: Vec::new(), notes: Vec::new() }
    }

    pub fn to_json(&self) -> String {
        let json = object([
            ("machine", Json::Object(self.machine.clone())),
            ("rounds", Json::Number(self.rounds.to_string())),
            ("notes", Json::Array(self.notes.iter().map(|note| text(note)).collect())),
            ("sections", Json::Array(self.sections.iter().map(Section::to_json).collect())),
        ]);
        json.to_text(Layout::Pretty).replace("\r\n", "\n") + "\n"
    }

    /// Adds the figures to the file that the environment names, if it does.
    pub fn record(&self) {
        for section in &self.sections {
            for Figure { what, of, unit, value } in &section.figures {
                record(&section.name, what, of, unit, *value);
            }
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value) in &self.machine {
            writeln!(f, "{name}: {value}")?;
        }
        writeln!(f, "medians of {} rounds", self.rounds)?;
        self.notes.iter().try_for_each(|note| writeln!(f, "{note}"))?;
        self.sections.iter().try_for_each(|section| write!(f, "\n{section}"))
    }
}

impl fmt::Display for Section {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "== {}", self.name)?;
        self.notes.iter().try_for_each(|note| writeln!(f, "{note}"))?;
        let (mut rows, mut columns): (Vec<(&str, &str)>, Vec<&str>) = Default::default();
        for figure in &self.figures {
            if !rows.contains(&(&figure.what, figure.unit)) {
                rows.push((&figure.what, figure.unit));
            }
            if !columns.contains(&figure.of) {
                columns.push(figure.of);
            }
        }
        write!(f, "{:<40} {:>5}", "", "unit")?;
        columns.iter().try_for_each(|column| write!(f, " {column:>19}"))?;
        writeln!(f)?;
        for (what, unit) in rows {
            write!(f, "{what:<40} {unit:>5}")?;
            for column in &columns {
                let mut figures = self.figures.iter();
                match figures.find(|figure| figure.what == what && figure.of == *column) {
                    Some(figure) => write!(f, " {:>19.1}", figure.value.median)?,
                    None => write!(f, " {:>19}", "-")?,
                }
            }
            writeln!(f)?;
        }
        writeln!(f)?;
        for Target { what, value, limit } in &self.targets {
            write!(f, "{what:<64} {value:>7.2}")?;
            match limit {
                None => {}
                Some(Limit::AtMost(limit)) => write!(f, "  at most  {limit:>5}")?,
                Some(Limit::AtLeast(limit)) => write!(f, "  at least {limit:>5}")?,
            }
            match limit.map(|limit| limit.is_met(*value)) {
                None => writeln!(f)?,
                Some(true) => writeln!(f, "  met")?,
                Some(false) => writeln!(f, "  missed")?,
            }
        }
        Ok(())
    }
}

fn object<'a>(members: impl IntoIterator<Item = (&'a str, Json)>) -> Json {
    Json::Object(members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

fn text(text: &str) -> Json {
    Json::String(text.to_owned())
}

/// No figure is precise to more than three digits after the point.
fn number(value: f64) -> Json {
    match value.is_finite() {
        true => Json::Number(format!("{value:.3}")),
        false => Json::Null,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::floor::Way;

    #[test]
    fn targets_are_judged_and_absent_servers_left_out() {
        let mut section = Section::new("one core", true);
        section.figure("p50", Kind::Ours, "µs", 12.0);
        section.figure("p50", Kind::Floor(Way::Epoll), "µs", 10.0);
        section.ratio("p50", Kind::Floor(Way::Epoll), Limit::AtMost(1.25));
        section.ratio("p50", Kind::Floor(Way::Epoll), Limit::AtLeast(1.25));
        section.ratio("p50", Kind::Qemu, Limit::AtMost(0.05));
        let verdicts: Vec<_> = section
            .targets
            .iter()
            .map(|target| target.limit.unwrap().is_met(target.value))
            .collect();
        assert_eq!(verdicts, [true, false]);
        let shown = section.to_string();
        assert!(shown.contains("met") && shown.contains("missed"), "{shown}");
        let json = Json::parse(&section.to_json().to_text(Layout::Compact)).unwrap();
        let targets = json.get("targets").and_then(Json::as_array).unwrap();
        assert_eq!(targets[0].get("value"), Some(&Json::Number("1.200".to_owned())));
    }
}
