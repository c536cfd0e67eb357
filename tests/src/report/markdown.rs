// SPDX-License-Identifier: MIT OR Apache-2.0
//! A report as a page, and some of its figures as tables for other documents.

use std::fmt::Write;

use super::{Figure, Group, Report, Row};

/// Some figures as a table of a document, which stands between two lines there.
struct Summary {
    begin: &'static str,
    /// Layer, group, row, and what is to be said of it.
    rows: &'static [[&'static str; 4]],
}

const END: &str = "<!-- The end of it. -->\n";

const SUMMARIES: [Summary; 2] = [WHAT_MATTERS_MOST, THE_MUX];

const WHAT_MATTERS_MOST: Summary = Summary {
    begin: "<!-- The summary of docs/benchmarks.md, put here by `cargo xtask bench`. -->\n",
    rows: &[
        [
            "server",
            "one core",
            "1 client, 1 in flight: p50",
            "a request and its response, one client",
        ],
        ["server", "one core", "1 client, 8 in flight", "one client, eight requests in flight"],
        ["server", "one core", "64 clients", "64 clients, one request each"],
        ["server", "one core", "10000 idle monitors: p50", "one client beside 10,000 idle ones"],
        ["server", "one core", "10000 idle monitors: memory each", "memory of an idle client"],
        ["server", "other stacks, one core", "1 client: p50", "one client that parses"],
        ["server", "other stacks, one core", "64 clients", "64 clients that parse"],
        [
            "queue",
            "push, pop and done on one thread",
            "10000 producers, one busy",
            "the next of 10,000 queues",
        ],
        ["proto", "reading", "small commands", "parsing small commands"],
    ],
};

const THE_MUX: Summary = Summary {
    begin: "<!-- What docs/benchmarks.md says of the mux, put here by `cargo xtask bench`. -->\n",
    rows: &[
        ["mux", "all cores", "qemu-system-x86_64: p50", "a command and its answer"],
        ["mux", "all cores", "qemu-storage-daemon: p50", "the same"],
        [
            "mux",
            "all cores",
            "qemu-system-x86_64: commands",
            "commands of 8 clients, and of 1 without the mux",
        ],
        ["mux", "all cores", "qemu-storage-daemon: commands", "the same"],
        ["mux", "one core", "qemu-system-x86_64: p50", "a command and its answer, on one core"],
        ["mux", "one core", "qemu-storage-daemon: p50", "the same"],
        ["mux", "all cores", "400 idle clients: memory each", "memory of an idle client"],
    ],
};

pub fn page(report: &Report) -> String {
    let mut page = String::new();
    // Writing to a string does not fail.
    let _ = write_page(report, &mut page);
    page
}

fn write_page(report: &Report, out: &mut String) -> std::fmt::Result {
    let Report { date, command, revision, .. } = report;
    writeln!(out, "# Benchmarks\n")?;
    writeln!(out, "Made by `{command}` on {date}.\n")?;
    writeln!(out, "| | |\n|---|---|")?;
    if let Some(revision) = revision {
        writeln!(out, "| revision | {revision} |")?;
    }
    for fact in report.machine.iter().chain(&report.versions) {
        writeln!(out, "| {} | {} |", fact.name, fact.value)?;
    }
    writeln!(
        out,
        "\nEverything is measured in several runs of several rounds each; what stands in one row, in turns. A figure is the \
         median\nof the runs' medians; ± is half the distance between the lowest and the highest of their quartiles. The number in brackets is ours divided by the other one: for \
         times and sizes, less is\nbetter; for rates (k/s, thousands of requests in a second), more is better. \
         [`tests/README.md`](../tests/README.md)\nsays what the servers and clients are that are measured.\n"
    )?;
    for note in &report.notes {
        writeln!(out, "- {note}")?;
    }
    if !report.notes.is_empty() {
        writeln!(out)?;
    }
    for (title, file) in super::plots::PLOTS {
        writeln!(out, "![{title}]({file})\n")?;
    }
    for layer in &report.layers {
        writeln!(out, "## {}\n\n`cargo xtask bench {0}`\n", layer.name)?;
        layer.groups.iter().try_for_each(|group| write_table(group, out))?;
    }
    while out.ends_with("\n\n") {
        out.pop();
    }
    Ok(())
}

fn write_table(group: &Group, out: &mut String) -> std::fmt::Result {
    let mut columns: Vec<&str> = Vec::new();
    for figure in group.rows.iter().flat_map(|row| &row.figures) {
        if !columns.contains(&figure.of.as_str()) {
            columns.push(&figure.of);
        }
    }
    writeln!(out, "### {}\n", group.name)?;
    writeln!(out, "| | {} |", columns.join(" | "))?;
    writeln!(out, "|---|{}", "---:|".repeat(columns.len()))?;
    for row in &group.rows {
        write!(out, "| {} |", name(&row.what))?;
        for column in &columns {
            match row.of(column) {
                Some(figure) => write!(out, " {} |", cell(row, figure, true))?,
                None => write!(out, " |")?,
            }
        }
        writeln!(out)?;
    }
    writeln!(out)
}

/// A message is shown as code.
fn name(what: &str) -> String {
    match what.starts_with('{') {
        true => format!("`{what}`"),
        false => what.to_owned(),
    }
}

fn cell(row: &Row, figure: &Figure, with_noise: bool) -> String {
    let mut cell = match row.unit.as_str() {
        // Figures without a unit are counts.
        "" => format!("{:.0}", figure.median),
        unit => format!("{} {unit}", digits(figure.median)),
    };
    let noise = (figure.noise() * 50.0).round();
    if with_noise && noise > 0.0 {
        cell += &format!(" ±{noise} %");
    }
    match row.figures.first() {
        Some(ours) if ours != figure => {
            cell + &format!(" ({})", multiple(ours.median / figure.median))
        }
        _ => cell,
    }
}

/// How many times as much, or what part.
fn multiple(ratio: f64) -> String {
    match ratio {
        ..0.01 => format!("1/{}", digits((1.0 / ratio).round())),
        _ => format!("{}×", digits(ratio)),
    }
}

/// Formats at least three significant digits, and none after the point if there are three before it.
fn digits(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        ..0.001 => format!("{value:.1e}"),
        ..1.0 => format!("{value:.3}"),
        ..10.0 => format!("{value:.2}"),
        ..100.0 => format!("{value:.1}"),
        _ => thousands(&format!("{value:.0}")),
    }
}

pub(super) fn thousands(digits: &str) -> String {
    let mut grouped = String::new();
    for (index, digit) in digits.char_indices() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) && !grouped.ends_with('-') {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

fn summary(rows: &[[&str; 4]], report: &Report) -> String {
    let mut table = "| | ours | others (ours divided by it) |\n|---|---:|---|\n".to_owned();
    for [layer, group, what, said] in rows {
        let Some(row) = report.row(layer, group, what) else { continue };
        let Some((ours, others)) = row.figures.split_first() else { continue };
        let others: Vec<_> = others
            .iter()
            .map(|other| format!("{}: {}", other.of, cell(row, other, false)))
            .collect();
        table += &format!("| {said} | {} | {} |\n", cell(row, ours, false), others.join("; "));
    }
    table
}

/// The document, with a summary in its place; `None` if it has no place for any.
pub fn with_summary(document: &str, report: &Report) -> Option<String> {
    SUMMARIES.iter().find_map(|Summary { begin, rows }| {
        let (before, rest) = document.split_once(begin)?;
        let (_, after) = rest.split_once(END)?;
        Some(format!("{before}{begin}{}{END}{after}", summary(rows, report)))
    })
}

#[cfg(test)]
mod tests {
    use super::super::samples::report;
    use super::*;

    #[test]
    fn the_page_has_figures_noise_and_ratios() {
        let page = page(&report("µs", 10.0, Some(8.0)));
        let table = "### one core\n\n| | qmp-server | floor |\n|---|---:|---:|\n\
                     | 1 client | 10.0 µs ±2 % | 8.00 µs ±2 % (1.25×) |\n";
        assert!(page.ends_with(table), "{page}");
        assert!(page.contains("| cores | 2 |\n| rustc | 1.88.0 |\n"), "{page}");
    }

    #[test]
    fn the_summary_stands_between_its_marks() {
        let mut report = report("µs", 10.0, Some(8.0));
        report.layers[0].groups[0].rows[0].what = "64 clients".to_owned();
        let document = format!("before\n{}old\n{END}after\n", WHAT_MATTERS_MOST.begin);
        let changed = with_summary(&document, &report).unwrap();
        let row = "| 64 clients, one request each | 10.0 µs | floor: 8.00 µs (1.25×) |\n";
        assert!(changed.contains(row) && !changed.contains("old"), "{changed}");
        assert!(changed.starts_with("before\n") && changed.ends_with("after\n"));
        assert_eq!(with_summary(&changed, &report), Some(changed));
        assert_eq!(with_summary("no marks", &report), None);
    }

    #[test]
    fn numbers_have_three_digits() {
        let shown = [0.0, 0.00012, 0.1234, 1.234, 12.34, 123.4, 1234.5, 1_234_567.0].map(digits);
        assert_eq!(shown, ["0", "1.2e-4", "0.123", "1.23", "12.3", "123", "1,234", "1,234,567"]);
        assert_eq!([0.001, 0.5, 20.0].map(multiple), ["1/1,000", "0.500×", "20.0×"]);
        assert_eq!(digits(-1234.0), "-1,234");
        assert_eq!(digits(-123.0), "-123");
    }
}
