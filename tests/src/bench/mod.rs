// SPDX-License-Identifier: MIT OR Apache-2.0
//! The cost of a request from a client's point of view, compared with the least possible cost and with QEMU.
//!
//! Every server is a process of its own, but for that of [`fairness`], and gets the same requests from the same
//! [`client`]. All figures are from one run: its rounds take the servers in turns, and a figure is the median of its
//! rounds. First everything runs on one core, where the ratios are stable, then on all.
//!
//! Other stacks for remote calls are measured beside ours, each with its own server and client: see [`stacks`].

mod blocking;
pub mod client;
pub mod counted;
mod counting;
pub mod crowd;
pub mod fairness;
mod figures;
pub mod floor;
pub mod machine;
pub mod machines;
mod monitors;
mod mux;
pub mod peer;
pub mod report;
mod scaling;
mod speed;
pub mod stacks;
pub mod stats;

use std::path::{Path, PathBuf};
use std::time::Duration;

use client::{Client, Mode};
use machine::Pinned;
use peer::{Floor, Kind, Peer};
use report::{Report, Section};

const CORES: [(&str, bool); 2] = [("one core", true), ("all cores", false)];

#[derive(Clone, Debug)]
pub struct Scale {
    /// How often each server is measured.
    pub rounds: usize,
    /// How long a measurement takes in a round.
    pub slice: Duration,
    pub clients: usize,
    pub monitors: usize,
}

impl Default for Scale {
    fn default() -> Self {
        Self { rounds: 9, slice: Duration::from_millis(150), clients: 64, monitors: 10_000 }
    }
}

/// Measures everything. `program` is the one that can be the [`floor`]; the programs of other [`stacks`] are in the
/// directory, if there is one.
pub fn run(scale: &Scale, program: PathBuf, stacks: Option<&Path>) -> Result<Report, String> {
    let floor = Floor { program, line: answer_of_ours()? };
    let mut report = report(scale, &Kind::ALL, |section| {
        speed::measure(section, scale, &floor)?;
        monitors::measure(section, scale, &floor)?;
        blocking::measure(section, scale)?;
        fairness::measure(section, scale)
    })?;
    if let Some(programs) = stacks {
        for (name, pinned) in CORES {
            report.sections.push(measured(&format!("other stacks, {name}"), pinned, |section| {
                stacks::measure(section, scale, &floor, programs)
            })?);
        }
    }
    report.sections.push(measured("latency against clients, one core", true, |section| {
        scaling::measure(section, scale, &floor)
    })?);
    Ok(report)
}

/// Measures the mux in front of QEMU's programs, and these without it. `program` is as for [`run`].
pub fn run_mux(scale: &Scale, program: PathBuf) -> Result<Report, String> {
    let floor = Floor { program, line: String::new() };
    report(scale, &mux::UPSTREAMS, |section| mux::measure(section, scale, &floor))
}

/// Measures one mux for many machines. `program` is the one that can be their [upstream servers](machines::serve).
pub fn run_machines(scale: &Scale, program: &Path) -> Result<Report, String> {
    let mut report = Report::new(scale);
    report.machine = machine::describe();
    let all_cores = |section: &mut Section| machines::measure(section, scale, program);
    report.sections.push(measured("many machines, all cores", false, all_cores)?);
    Ok(report)
}

fn report(
    scale: &Scale,
    wanted: &[Kind],
    measure: impl Fn(&mut Section) -> Result<(), String>,
) -> Result<Report, String> {
    let mut report = Report::new(scale);
    report.machine = machine::describe();
    let absent = wanted.iter().filter(|kind| !kind.is_installed());
    report.notes.extend(absent.map(|kind| format!("{kind} is not installed, and left out")));
    for (name, pinned) in CORES {
        report.sections.push(measured(name, pinned, &measure)?);
    }
    Ok(report)
}

fn measured(
    name: &str,
    pinned: bool,
    measure: impl Fn(&mut Section) -> Result<(), String>,
) -> Result<Section, String> {
    let _pinned = if pinned { Some(Pinned::new().map_err(cannot("pin to a core"))?) } else { None };
    let mut section = Section::new(name, pinned);
    measure(&mut section)?;
    Ok(section)
}

/// The answer of our server, whose length the floor uses.
fn answer_of_ours() -> Result<String, String> {
    let unknown = Floor { program: PathBuf::new(), line: String::new() };
    let peer = Peer::start(Kind::Ours, 1, &unknown)?;
    let client = Client::connect(peer.socket(0), Mode::InBand).map_err(cannot("connect"))?;
    Ok(String::from_utf8_lossy(client.response()).trim_end().to_owned())
}

fn cannot(what: &str) -> impl Fn(std::io::Error) -> String {
    move |error| format!("cannot {what}: {error}")
}
