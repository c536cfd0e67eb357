// SPDX-License-Identifier: MIT OR Apache-2.0
//! A case, and the files that hold them: one JSON object per line.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::step::{Step, number};
use crate::json::Json;

/// The preparation of a new connection before the steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Nothing; the greeting is still to be read.
    Fresh,
    /// The capabilities are negotiated, and none is enabled.
    Negotiated,
    /// Negotiated, with `oob` enabled.
    OutOfBand,
    /// The capabilities are negotiated on the pretty-printing monitor.
    Pretty,
}

impl Mode {
    pub(super) fn parse(name: &str) -> Result<Self, String> {
        Ok(match name {
            "fresh" => Self::Fresh,
            "negotiated" => Self::Negotiated,
            "oob" => Self::OutOfBand,
            "pretty" => Self::Pretty,
            _ => return Err(format!("unknown mode '{name}'")),
        })
    }

    /// Returns what the server needs for this start.
    fn need(self) -> Option<Need> {
        match self {
            Self::Fresh | Self::Negotiated => None,
            Self::OutOfBand => Some(Need::Oob),
            Self::Pretty => Some(Need::Pretty),
        }
    }
}

/// A feature of servers that a case cannot do without.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Need {
    /// The run-state, descriptor, yank and trace commands.
    Machine,
    /// A second, pretty-printing monitor.
    Pretty,
    /// Out-of-band execution can be enabled.
    Oob,
    /// Descriptors can be passed.
    FdPassing,
    /// Large replies take as long as they do with QEMU.
    QemuTiming,
}

impl Need {
    /// All of them.
    pub const ALL: [Need; 5] =
        [Self::Machine, Self::Pretty, Self::Oob, Self::FdPassing, Self::QemuTiming];

    pub fn name(self) -> &'static str {
        match self {
            Self::Machine => "machine",
            Self::Pretty => "pretty",
            Self::Oob => "oob",
            Self::FdPassing => "fd-passing",
            Self::QemuTiming => "qemu-timing",
        }
    }

    pub fn parse(name: &str) -> Result<Self, String> {
        let known = Self::ALL.map(Self::name).join(", ");
        let found = Self::ALL.into_iter().find(|need| need.name() == name);
        found.ok_or_else(|| format!("expected one of {known}, not '{name}'"))
    }
}

#[derive(Clone, Debug)]
pub struct Case {
    /// Its name, unique within the category.
    pub name: String,
    pub category: String,
    /// The point of the case.
    pub why: String,
    /// Where it was read: file and line.
    pub source: String,
    pub mode: Mode,
    /// The steps, in order.
    pub steps: Vec<Step>,
    pub needs: Vec<Need>,
    /// It takes QEMU from ten seconds to minutes.
    pub slow: bool,
    /// It ends the server.
    pub destructive: bool,
    /// A longer limit for each step.
    pub step_limit: Duration,
}

impl Case {
    pub fn parse(line: &str, source: String) -> Result<Self, String> {
        let document = Json::parse(line).map_err(|error| error.to_string())?;
        let text = |member: &str| document.get(member).and_then(Json::as_str);
        let flag = |member: &str| document.get(member) == Some(&Json::Bool(true));
        let list = |member: &str| document.get(member).and_then(Json::as_array).unwrap_or_default();
        let mode = Mode::parse(text("mode").unwrap_or("negotiated"))?;
        let mut needs = list("needs")
            .iter()
            .map(|need| Need::parse(need.as_str().unwrap_or_default()))
            .collect::<Result<Vec<_>, _>>()?;
        let steps: Vec<Step> = list("steps").iter().map(Step::parse).collect::<Result<_, _>>()?;
        let modes = steps.iter().filter_map(super::step::Step::mode).chain([mode]);
        needs.extend(modes.filter_map(Mode::need));
        Ok(Self {
            name: text("name").ok_or("lacks a name")?.to_owned(),
            category: text("category").ok_or("lacks a category")?.to_owned(),
            why: text("why").unwrap_or_default().to_owned(),
            source,
            mode,
            steps,
            needs,
            slow: flag("slow"),
            destructive: flag("destructive"),
            step_limit: Duration::from_secs(number(&document, "timeout_s")?.unwrap_or(0)),
        })
    }

    /// Whether it connects to the server again, or once more.
    pub fn needs_more_connections(&self) -> bool {
        self.steps.iter().any(|step| step.mode().is_some())
    }

    pub fn title(&self) -> String {
        format!("{}/{}", self.category, self.name)
    }
}

/// Reads all cases of these files and directories, the files of a directory by name.
pub fn load(paths: &[PathBuf]) -> Result<Vec<Case>, String> {
    let mut cases = Vec::new();
    for path in paths {
        for file in case_files(path)? {
            let text = fs::read_to_string(&file)
                .map_err(|error| format!("{}: {error}", file.display()))?;
            let name = file.file_name().unwrap_or_default().to_string_lossy();
            for (index, line) in
                text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty())
            {
                let source = format!("{name}:{}", index + 1);
                cases.push(
                    Case::parse(line, source.clone())
                        .map_err(|error| format!("{source}: {error}"))?,
                );
            }
        }
    }
    Ok(cases)
}

fn case_files(path: &Path) -> Result<Vec<PathBuf>, String> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let entries = fs::read_dir(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let mut files: Vec<_> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|file| file.extension().is_some_and(|extension| extension == "jsonl"))
        .collect();
    files.sort();
    Ok(files)
}
