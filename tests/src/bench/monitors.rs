// SPDX-License-Identifier: MIT OR Apache-2.0
//! The cost of very many idle monitors.

use std::io;

use super::client::{Client, Mode};
use super::figures::Spread;
use super::machine::{ManyDescriptors, resident_kib};
use super::peer::{Floor, Kind, Peer};
use super::report::{Limit, Section};
use super::speed::latencies;
use super::stats::median;
use super::{Scale, cannot};

/// Descriptors that are not monitors.
const OTHERS: usize = 100;

pub(super) fn measure(section: &mut Section, scale: &Scale, floor: &Floor) -> Result<(), String> {
    let mut lone = Peer::start(Kind::Ours, 1, floor)?;
    let mut crowded = Peer::start(Kind::Ours, 1, floor)?;
    // After they have been started: a server has to see to this itself.
    let _descriptors = ManyDescriptors::new().map_err(cannot("raise the limit of descriptors"))?;
    let allowed = ManyDescriptors::allowed().map_or(usize::MAX, |number| number as usize);
    let monitors = scale.monitors.min(allowed.saturating_sub(OTHERS));
    if monitors < scale.monitors {
        section.notes.push(format!("this machine allows {allowed} descriptors a process"));
    }

    let empty = resident(&mut crowded)?;
    let connected = (0..monitors).map(|_| Client::connect(crowded.socket(0), Mode::InBand));
    let (idle, failures): (Vec<_>, Vec<_>) = connected.partition(Result::is_ok);
    let full = resident(&mut crowded)?;
    let per_monitor = (full - empty) / idle.len().max(1) as f64;

    let mut one = Client::connect(lone.socket(0), Mode::InBand).map_err(cannot("connect"))?;
    let mut one_of_many =
        Client::connect(crowded.socket(0), Mode::InBand).map_err(cannot("connect"))?;
    let (mut alone, mut among) = (Vec::new(), Vec::new());
    for _ in 0..scale.rounds {
        alone.push(median(&mut latencies(&mut one, scale).map_err(cannot("measure"))?));
        among.push(median(&mut latencies(&mut one_of_many, scale).map_err(cannot("measure"))?));
    }
    let (alone, among) = (Spread::of(alone), Spread::of(among));
    let beside = beside_one_that_does_not_read(&mut one_of_many, &crowded, scale)
        .map_err(cannot("measure beside a client that does not read"))?;

    let come_and_go = (0..monitors).map(|_| Client::connect(lone.socket(0), Mode::InBand));
    let failures = failures.len() + come_and_go.filter(Result::is_err).count();
    // The process is still there, and its memory where it was.
    let after = resident(&mut lone)? - empty;

    section.figure(
        &format!("{monitors} idle monitors: memory each"),
        Kind::Ours,
        "KiB",
        per_monitor,
    );
    section.figure(&format!("{monitors} idle monitors: p50"), Kind::Ours, "µs", among);
    let does_not_read = format!("{monitors} idle monitors, one does not read: p50");
    section.figure(&does_not_read, Kind::Ours, "µs", beside[1]);
    section.target(
        &format!("{does_not_read} / without"),
        beside[1].median / beside[0].median,
        Limit::AtMost(1.1),
    );
    section.figure("one monitor: p50", Kind::Ours, "µs", alone);
    section.figure(&format!("{monitors} come and gone: memory"), Kind::Ours, "KiB", after);
    section.target(&format!("{monitors} idle monitors: KiB each"), per_monitor, Limit::AtMost(2.5));
    section.target(
        &format!("{monitors} idle monitors: p50 / one's"),
        among.median / alone.median,
        Limit::AtMost(1.3),
    );
    section.target(
        &format!("{} connects: failures", 2 * monitors),
        failures as f64,
        Limit::AtMost(0.0),
    );
    Ok(())
}

/// The p50 of a client while another one that shares the server reads, and while that does not, in turns.
fn beside_one_that_does_not_read(
    one: &mut Client,
    server: &Peer,
    scale: &Scale,
) -> io::Result<[Spread; 2]> {
    let mut rounds = [Vec::new(), Vec::new()];
    for _ in 0..scale.rounds {
        rounds[0].push(median(&mut latencies(one, scale)?));
        let mut unread = Client::connect(server.socket(0), Mode::InBand)?;
        // Answers to these fill its socket, and then some.
        unread.ask_without_reading()?;
        rounds[1].push(median(&mut latencies(one, scale)?));
    }
    Ok(rounds.map(Spread::of))
}

fn resident(peer: &mut Peer) -> Result<f64, String> {
    let kib =
        resident_kib(peer.process().child().id()).map_err(cannot("read the memory's size"))?;
    Ok(kib as f64)
}
