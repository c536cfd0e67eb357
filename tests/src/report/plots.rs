// SPDX-License-Identifier: MIT OR Apache-2.0
//! Plots over the number of clients, as SVG.

use std::error::Error;

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::{Report, Row};

/// The plots: what they show, and the files that they are in.
pub const PLOTS: [(&str, &str); 2] = [
    ("How long a client waits, against the number of clients", "latency.svg"),
    ("What finding the next request costs, against the number of idle clients", "pop-cost.svg"),
];

const SIZE: (u32, u32) = (760, 400);

/// Colours that can be read on white and on black, as there is no background.
const TEXT: RGBColor = RGBColor(118, 131, 144);
const BLUE: RGBColor = RGBColor(47, 129, 247);
const ORANGE: RGBColor = RGBColor(219, 109, 40);
const PURPLE: RGBColor = RGBColor(163, 113, 247);

struct Series {
    name: &'static str,
    colour: RGBColor,
    dashed: bool,
    points: Vec<(f64, f64)>,
}

impl Series {
    fn new(name: &'static str, colour: RGBColor, points: Vec<(f64, f64)>) -> Self {
        Self { name, colour, dashed: false, points }
    }

    fn dashed(self) -> Self {
        Self { dashed: true, ..self }
    }
}

/// The plots as texts, with the names of their files; those of which nothing was measured are left out.
pub fn draw(report: &Report) -> Result<Vec<(&'static str, String)>, Box<dyn Error>> {
    let [latency, pop_cost] = PLOTS;
    let mut plots = Vec::new();
    for ((title, file), axes, series) in [
        (latency, ["clients", "µs"], latency_series(report)),
        (pop_cost, ["clients, all but one idle", "ns"], pop_cost_series(report)),
    ] {
        if !series.is_empty() {
            plots.push((file, chart(title, axes, &series)?));
        }
    }
    Ok(plots)
}

fn latency_series(report: &Report) -> Vec<Series> {
    let group = "latency against clients, one core";
    let points = |what: &str, of: &str| points(report, "server", group, what, of);
    present([
        Series::new("qmp-server, all ask", BLUE, points(" clients, all ask", "qmp-server"))
            .dashed(),
        Series::new("epoll echo, all ask", ORANGE, points(" clients, all ask", "epoll echo"))
            .dashed(),
        Series::new("QEMU: one client", PURPLE, points(" clients, one asks", "qemu-system-x86_64")),
        Series::new("epoll echo, one asks", ORANGE, points(" clients, one asks", "epoll echo")),
        Series::new("qmp-server, one asks", BLUE, points(" clients, one asks", "qmp-server")),
    ])
}

fn pop_cost_series(report: &Report) -> Vec<Series> {
    let group = "push, pop and done on one thread";
    let points = |of: &str| points(report, "queue", group, " producers, one busy", of);
    present([
        Series::new("a list that is scanned", ORANGE, points("scanned list")),
        Series::new("qmp-queue", BLUE, points("qmp-queue")),
    ])
}

/// Those of which something was measured.
fn present(series: impl IntoIterator<Item = Series>) -> Vec<Series> {
    series.into_iter().filter(|series| !series.points.is_empty()).collect()
}

/// The figures of the rows that are called so, behind a number.
fn points(report: &Report, layer: &str, group: &str, what: &str, of: &str) -> Vec<(f64, f64)> {
    let rows = report.group(layer, group).map_or(&[][..], |group| &group.rows);
    let point = |row: &Row| Some((row.what.strip_suffix(what)?.parse().ok()?, row.of(of)?.median));
    rows.iter().filter_map(point).collect()
}

/// Both axes are logarithmic.
fn chart(title: &str, [x, y]: [&str; 2], series: &[Series]) -> Result<String, Box<dyn Error>> {
    let all = || series.iter().flat_map(|series| &series.points);
    let end = |value: f64| 10_f64.powf(value.log10().ceil());
    let right = all().map(|point| point.0).fold(10.0, f64::max);
    let bottom = all().map(|point| point.1).fold(f64::MAX, f64::min);
    let top = all().map(|point| point.1).fold(0.0, f64::max);
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        let text = |size: u32| ("sans-serif", size).into_font().color(&TEXT);
        let area = area.titled(title, text(17))?;
        let mut chart = ChartBuilder::on(&area)
            .margin(8)
            .margin_right(170)
            .x_label_area_size(42)
            .y_label_area_size(72)
            .build_cartesian_2d(
                (1.0..end(right)).log_scale(),
                (end(bottom) / 10.0..end(top)).log_scale(),
            )?;
        chart
            .configure_mesh()
            .axis_style(TEXT)
            .bold_line_style(TEXT.mix(0.35))
            .light_line_style(TRANSPARENT)
            .label_style(text(13))
            .axis_desc_style(text(14))
            .x_desc(x)
            .y_desc(y)
            .x_label_formatter(&|value| label(*value))
            .y_label_formatter(&|value| label(*value))
            .draw()?;
        for Series { name, colour, dashed, points } in series {
            let style = colour.stroke_width(2);
            match dashed {
                true => {
                    chart.draw_series(DashedLineSeries::new(points.iter().copied(), 6, 4, style))?
                }
                false => chart.draw_series(LineSeries::new(points.iter().copied(), style))?,
            };
            chart
                .draw_series(points.iter().map(|point| Circle::new(*point, 3, colour.filled())))?;
            // Beside the end of the curve, where no legend has to be looked up; off it where others go on.
            let last = points.last().copied().unwrap_or_default();
            let (side, x, y) = match (points.len() > 1 && last.0 < right, dashed) {
                (true, true) => (HPos::Right, -6, -10),
                (true, false) => (HPos::Left, 9, 13),
                (false, _) => (HPos::Left, 9, 0),
            };
            let beside =
                ("sans-serif", 14).into_font().color(colour).pos(Pos::new(side, VPos::Center));
            let label = EmptyElement::at(last) + Text::new(*name, (x, y), beside);
            chart.draw_series([label])?;
        }
        area.present()?;
    }
    Ok(svg)
}

/// A number with its thousands apart.
fn label(value: f64) -> String {
    match value {
        1.0.. => super::markdown::thousands(&format!("{value:.0}")),
        _ => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::report;
    use super::super::{Figure, Group};
    use super::*;

    #[test]
    fn a_plot_has_its_curves() {
        let mut report = report("ns", 10.0, None);
        assert!(draw(&report).unwrap().is_empty());
        let rows = [1, 100, 10_000].map(|producers| Row {
            what: format!("{producers} producers, one busy"),
            unit: "ns".to_owned(),
            figures: ["qmp-queue", "scanned list"]
                .map(|of| Figure { of: of.to_owned(), lower: 40.0, median: 50.0, upper: 60.0 })
                .into(),
        });
        report.layers[0].name = "queue".to_owned();
        let name = "push, pop and done on one thread".to_owned();
        report.layers[0].groups = vec![Group { name, rows: rows.into() }];
        let plots = draw(&report).unwrap();
        let [("pop-cost.svg", svg)] = &plots[..] else { panic!("{plots:?}") };
        assert_eq!(svg.matches("<circle").count(), 2 * 3);
        for text in ["qmp-queue", "a list that is scanned", "all but one idle", "10,000"] {
            assert!(svg.contains(text), "{text} is missing in {svg}");
        }
        assert!(!svg.contains("NaN"));
    }
}
