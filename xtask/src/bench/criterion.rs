// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reads the estimates of criterion, as figures for the report.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde_json::{Value, json};

use crate::command::{Failure, Outcome};
use crate::files;

/// Reads all estimates below a directory, in the order in which they were measured. Returns a line of JSON for each: the
/// median and its confidence interval.
pub(super) fn figures(home: &Path, unit: &str) -> Outcome<String> {
    let per_nanosecond = if unit == "µs" { 1e-3 } else { 1.0 };
    let mut found = Vec::new();
    find(home, &mut found)?;
    found.sort();
    let mut lines = String::new();
    for (_, directory) in found {
        let benchmark = read(&directory.join("benchmark.json"))?;
        let median = &read(&directory.join("estimates.json"))?["median"];
        let time = |value: &Value| value.as_f64().unwrap_or(f64::NAN) * per_nanosecond;
        let line = json!({
            "group": benchmark["group_id"], "of": benchmark["function_id"], "what": benchmark["value_str"], "unit": unit,
            "lower": time(&median["confidence_interval"]["lower_bound"]),
            "median": time(&median["point_estimate"]),
            "upper": time(&median["confidence_interval"]["upper_bound"]),
        });
        _ = writeln!(lines, "{line}");
    }
    Ok(lines)
}

/// Finds the directories of the newest estimates, and their times.
fn find(directory: &Path, found: &mut Vec<(SystemTime, PathBuf)>) -> Outcome {
    for path in files::entries(directory)?.into_iter().filter(|path| path.is_dir()) {
        let estimates = path.join("estimates.json");
        if path.ends_with("new") && estimates.is_file() {
            let written = fs::metadata(&estimates).and_then(|metadata| metadata.modified());
            found.push((written.map_err(|error| files::failure(&estimates, &error))?, path));
        } else {
            find(&path, found)?;
        }
    }
    Ok(())
}

fn read(path: &Path) -> Outcome<Value> {
    serde_json::from_str(&files::read(path)?)
        .map_err(|error| Failure::Task(format!("{}: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn estimates_become_lines() {
        let home = crate::workspace::target_dir().join("xtask-test-criterion");
        files::fresh_directory(&home).unwrap();
        for (seconds, function) in [(1, "b"), (2, "a")] {
            let new = home.join("group").join(function).join("one_ item").join("new");
            files::directory(&new).unwrap();
            let benchmark =
                json!({"group_id": "group", "function_id": function, "value_str": "one/ item"});
            let interval = json!({"lower_bound": 1500.0, "upper_bound": 2500.0});
            let median = json!({"confidence_interval": interval, "point_estimate": 2000.0});
            files::write(&new.join("benchmark.json"), benchmark.to_string()).unwrap();
            let estimates = new.join("estimates.json");
            files::write(&estimates, json!({"median": median}).to_string()).unwrap();
            let written = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
            let file = fs::File::options().append(true).open(&estimates).unwrap();
            file.set_modified(written).unwrap();
        }
        let lines = figures(&home, "µs").unwrap();
        let lines: Vec<Value> =
            lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0]["of"], "b", "measured first");
        let expected = json!({
            "group": "group", "of": "a", "what": "one/ item", "unit": "µs",
            "lower": 1.5, "median": 2.0, "upper": 2.5,
        });
        assert_eq!(lines[1], expected);
        files::remove(&home).unwrap();
    }
}
