// SPDX-License-Identifier: MIT OR Apache-2.0
//! Many clients that always have as much in flight as they may, and a polite one that thinks in between.
//!
//! How long it waits depends on the machine's scheduler, too. What depends on the server alone is how many commands of
//! others are executed before its own.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Instant;

use super::client::Client;
use super::counting::{Counting, WORK};
use super::crowd::Crowd;
use super::figures::Spread;
use super::peer::Kind;
use super::report::{Limit, Section};
use super::stats::{median, micros, quantile};
use super::{Scale, cannot};

pub const GREEDY: usize = 100;
const IN_FLIGHT: usize = 8;

/// A polite client gets few answers in a slice.
const SLICES: u32 = 4;

/// Limit of the commands for which the polite client waits: one of each greedy client, and its own.
const TURNS: usize = GREEDY + 1;

pub(super) fn measure(section: &mut Section, scale: &Scale) -> Result<(), String> {
    let Fairness { service, time, commands, most_to_least } =
        fairness(scale).map_err(cannot("measure fairness"))?;
    let service = Spread::of(service);
    let [time_p50, time_p99] = time.map(Spread::of);
    let [commands_p50, commands_p99] = commands.map(Spread::of);
    let greedy = format!("{GREEDY} greedy, {} µs a command", WORK.as_micros());
    let mut figure = |what: &str, unit, spread| {
        section.figure(&format!("{greedy}: {what}"), Kind::Ours, unit, spread);
    };
    figure("service time", "µs", service);
    figure("a polite one's p50", "µs", time_p50);
    figure("a polite one's p99", "µs", time_p99);
    figure("commands before a polite one's, p50", "", commands_p50);
    figure("commands before a polite one's, p99", "", commands_p99);

    let mut target = |what: &str, value, limit| {
        section.target(&format!("{greedy}: {what}"), value, Limit::AtMost(limit));
    };
    let turns = TURNS as f64;
    let waited = time_p99.median / (turns * service.median);
    target(&format!("a polite one's p99 / {TURNS} service times"), waited, 1.5);
    let overtaken = commands_p99.median / turns;
    target(&format!("p99 of commands before a polite one's / {TURNS}"), overtaken, 1.5);
    target("most served / least", most_to_least, 1.1);
    section.notes.push(format!(
        "{greedy}: clients with {IN_FLIGHT} requests in flight each, beside a polite one, which thinks in between.\n\
         Service time: the time that passes / the commands of greedy clients that are executed meanwhile.\n\
         Polite: from before its write until it has read the answer, the machine's scheduler included.\n\
         Commands before a polite one's: executed from before its write until its turn comes."
    ));
    Ok(())
}

/// The service that clients get beside each other, with one value for each round.
#[derive(Debug)]
pub struct Fairness {
    /// The time that passes for each command of a greedy client, in microseconds.
    pub service: Vec<f64>,
    /// How long the polite client waits for an answer, in microseconds: the median, and the 99th percentile.
    pub time: [Vec<f64>; 2],
    /// How many commands of greedy clients are executed meanwhile, before its own: likewise.
    pub commands: [Vec<f64>; 2],
    /// How many answers the greedy client has that has got most, for each that the one has that has got least.
    pub most_to_least: f64,
}

/// Measures a server in this process.
pub fn fairness(scale: &Scale) -> io::Result<Fairness> {
    let server = Counting::start()?;
    let mut polite = server.polite()?;
    let greedy: io::Result<_> = (0..GREEDY).map(|_| server.greedy()).collect();
    let mut greedy = Crowd::new(greedy?, IN_FLIGHT)?;
    let mut fairness = Fairness {
        service: Vec::new(),
        time: Default::default(),
        commands: Default::default(),
        most_to_least: 0.0,
    };
    for _ in 0..scale.rounds {
        let Round { service, mut time, mut commands } =
            round(&server, &mut polite, &mut greedy, scale)?;
        fairness.service.push(service);
        for (rounds, values) in
            [(&mut fairness.time, &mut time), (&mut fairness.commands, &mut commands)]
        {
            rounds[0].push(median(values));
            rounds[1].push(quantile(values, 0.99));
        }
    }
    let served = || greedy.served().iter().map(|&answers| answers as f64);
    fairness.most_to_least = served().fold(0.0, f64::max) / served().fold(f64::INFINITY, f64::min);
    Ok(fairness)
}

/// Service time, and what each request of the polite client has come to.
struct Round {
    service: f64,
    time: Vec<f64>,
    commands: Vec<f64>,
}

/// Measures the polite client while the greedy ones are busy.
fn round(
    server: &Counting,
    polite: &mut Client,
    greedy: &mut Crowd,
    scale: &Scale,
) -> io::Result<Round> {
    let over = AtomicBool::new(false);
    let (busy, wait_until_busy) = channel();
    thread::scope(|scope| {
        let crowd = scope.spawn(|| {
            greedy.run(|answers| {
                if answers > (GREEDY * IN_FLIGHT) as u64 {
                    let _ = busy.send(());
                }
                over.load(Ordering::Relaxed)
            })
        });
        let _ = wait_until_busy.recv();
        let round = ask_and_think(server, polite, scale);
        over.store(true, Ordering::Relaxed);
        crowd.join().map_err(|_| io::Error::other("the crowd has panicked"))??;
        round
    })
}

fn ask_and_think(server: &Counting, polite: &mut Client, scale: &Scale) -> io::Result<Round> {
    let (mut time, mut commands) = (Vec::new(), Vec::new());
    let (started, executed) = (Instant::now(), server.executed());
    while time.is_empty() || started.elapsed() < SLICES * scale.slice {
        let before = server.executed();
        time.push(micros(polite.round_trip()?));
        commands.push((server.executed_at_turn() - before) as f64);
        // Now shorter, now longer, so that it comes at any point of the others' turns.
        thread::sleep(WORK * (time.len() * 37 % TURNS) as u32);
    }
    let executed = server.executed() - executed;
    Ok(Round { service: micros(started.elapsed()) / executed as f64, time, commands })
}
