// SPDX-License-Identifier: MIT OR Apache-2.0
//! One client, one client with several requests in flight, many clients: every server in turn.

use std::io;
use std::time::Instant;

use super::client::{Client, Mode};
use super::crowd::Crowd;
use super::figures::Spread;
use super::peer::{Floor, Kind, Peer};
use super::report::{Limit, Section};
use super::stats::{median, micros, quantile};
use super::{Scale, cannot};

const IN_FLIGHT: usize = 8;

/// Servers of one kind with their clients, and what has been measured of it, a value for each round.
struct Contestant {
    kind: Kind,
    _peers: [Peer; 3],
    lone: Client,
    pipelined: Crowd,
    crowd: Crowd,
    p50: Vec<f64>,
    p99: Vec<f64>,
    pipelined_per_second: Vec<f64>,
    crowd_per_second: Vec<f64>,
}

pub(super) fn measure(section: &mut Section, scale: &Scale, floor: &Floor) -> Result<(), String> {
    let kinds = Kind::ALL.into_iter().filter(|kind| kind.is_installed());
    let mut contestants: Vec<_> =
        kinds.map(|kind| Contestant::new(kind, scale.clients, floor)).collect::<Result<_, _>>()?;
    for _ in 0..scale.rounds {
        for contestant in &mut contestants {
            let kind = contestant.kind;
            contestant.round(scale).map_err(cannot(&format!("measure {kind}")))?;
        }
    }
    let in_flight = format!("1 client, {IN_FLIGHT} in flight");
    let clients = format!("{} clients", scale.clients);
    for Contestant { kind, p50, p99, pipelined_per_second, crowd_per_second, .. } in contestants {
        section.figure("1 client, 1 in flight: p50", kind, "µs", Spread::of(p50));
        section.figure("1 client, 1 in flight: p99", kind, "µs", Spread::of(p99));
        section.figure(&in_flight, kind, "k/s", Spread::of(pipelined_per_second));
        section.figure(&clients, kind, "k/s", Spread::of(crowd_per_second));
    }
    section.ratio("1 client, 1 in flight: p50", Kind::Floor, Limit::AtMost(1.25));
    section.ratio(&in_flight, Kind::Floor, Limit::AtLeast(0.5));
    section.ratio(&in_flight, Kind::Qemu, Limit::AtLeast(20.0));
    section.ratio(&clients, Kind::Floor, Limit::AtLeast(0.6));
    Ok(())
}

impl Contestant {
    fn new(kind: Kind, clients: usize, floor: &Floor) -> Result<Contestant, String> {
        // QEMU has a socket for each client, and takes longer the more of them there are.
        let peers = [
            Peer::start(kind, 1, floor)?,
            Peer::start(kind, 1, floor)?,
            Peer::start(kind, clients, floor)?,
        ];
        let connected = || -> io::Result<(Client, Crowd, Crowd)> {
            let lone = Client::connect(peers[0].socket(0), Mode::InBand)?;
            let pipelined = Client::connect(peers[1].socket(0), Mode::OutOfBand)?;
            let crowd =
                (0..clients).map(|number| Client::connect(peers[2].socket(number), Mode::InBand));
            let crowd = Crowd::new(crowd.collect::<Result<_, _>>()?, 1)?;
            Ok((lone, Crowd::new(vec![pipelined], IN_FLIGHT)?, crowd))
        };
        let (lone, pipelined, crowd) =
            connected().map_err(cannot(&format!("connect to {kind}")))?;
        Ok(Contestant {
            kind,
            _peers: peers,
            lone,
            pipelined,
            crowd,
            p50: Vec::new(),
            p99: Vec::new(),
            pipelined_per_second: Vec::new(),
            crowd_per_second: Vec::new(),
        })
    }

    fn round(&mut self, scale: &Scale) -> io::Result<()> {
        let mut latencies = latencies(&mut self.lone, scale)?;
        self.p50.push(median(&mut latencies));
        self.p99.push(quantile(&mut latencies, 0.99));
        self.pipelined_per_second.push(per_second(&mut self.pipelined, scale)? / 1e3);
        self.crowd_per_second.push(per_second(&mut self.crowd, scale)? / 1e3);
        Ok(())
    }
}

/// How long requests take, one after the other, in microseconds.
pub(super) fn latencies(client: &mut Client, scale: &Scale) -> io::Result<Vec<f64>> {
    let started = Instant::now();
    let mut latencies = Vec::new();
    while latencies.is_empty() || started.elapsed() < scale.slice {
        latencies.push(micros(client.round_trip()?));
    }
    Ok(latencies)
}

/// How many answers come in a second.
pub(super) fn per_second(crowd: &mut Crowd, scale: &Scale) -> io::Result<f64> {
    let started = Instant::now();
    let mut elapsed = 0.0;
    let answers = crowd.run(|_| {
        elapsed = started.elapsed().as_secs_f64();
        elapsed >= scale.slice.as_secs_f64()
    })?;
    Ok(answers as f64 / elapsed)
}
