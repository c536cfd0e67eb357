// SPDX-License-Identifier: MIT OR Apache-2.0
//! How long a client waits for its answer, with ever more clients: while the others are idle, and while all ask.

use std::io;
use std::time::Duration;

use super::client::{Client, Mode};
use super::crowd::Crowd;
use super::figures::Spread;
use super::floor::Way;
use super::machine::ManyDescriptors;
use super::peer::{Floor, Kind, Peer};
use super::report::Section;
use super::speed::{latencies, per_second};
use super::stats::median;
use super::{Scale, cannot};

/// More are not asked of the echo: all clients are in one process, which may have only so many descriptors.
const OF_FLOOR: usize = 1_000;

/// How long to measure for each client that asks: about ten times what its request takes.
const TURNS: Duration = Duration::from_micros(100);

/// Descriptors that are no clients.
const OTHERS: usize = 100;

pub(super) fn measure(section: &mut Section, scale: &Scale, floor: &Floor) -> Result<(), String> {
    let _descriptors = ManyDescriptors::new().map_err(cannot("raise the limit of descriptors"))?;
    let allowed = ManyDescriptors::allowed().map_or(usize::MAX, |number| number as usize);
    let most = scale.monitors.min(allowed.saturating_sub(OTHERS));
    let mut points = (0..).map(|power| 10_usize.pow(power)).take_while(|&clients| clients <= most);
    points.try_for_each(|clients| {
        let mut contestants: Vec<_> = [Kind::Ours, Kind::Floor(Way::Epoll), Kind::Qemu]
            .into_iter()
            .filter(|kind| kind.is_installed() && clients <= most_of(*kind))
            .map(|kind| Contestant::new(kind, clients, floor))
            .collect::<Result<_, _>>()?;
        for _ in 0..scale.rounds {
            for contestant in &mut contestants {
                let kind = contestant.kind;
                contestant.round(scale).map_err(cannot(&format!("measure {kind}")))?;
            }
        }
        for Contestant { kind, one, all, .. } in contestants {
            section.figure(&format!("{clients} clients, one asks"), kind, "µs", Spread::of(one));
            section.figure(&format!("{clients} clients, all ask"), kind, "µs", Spread::of(all));
        }
        Ok(())
    })
}

fn most_of(kind: Kind) -> usize {
    match kind {
        Kind::Ours | Kind::Mux => usize::MAX,
        Kind::Floor(_) => OF_FLOOR,
        Kind::Qemu | Kind::StorageDaemon => 1,
    }
}

/// A server with its clients, and how long they wait, in microseconds: a value for each round.
struct Contestant {
    kind: Kind,
    _peer: Peer,
    clients: usize,
    crowd: Crowd,
    one: Vec<f64>,
    all: Vec<f64>,
}

impl Contestant {
    fn new(kind: Kind, clients: usize, floor: &Floor) -> Result<Contestant, String> {
        let peer = Peer::start(kind, clients, floor)?;
        let connected =
            (0..clients).map(|number| Client::connect(peer.socket(number), Mode::InBand));
        let connected: io::Result<Vec<_>> = connected.collect();
        let crowd = connected.and_then(|members| Crowd::new(members, 1));
        let crowd = crowd.map_err(cannot(&format!("connect to {kind}")))?;
        Ok(Contestant { kind, _peer: peer, clients, crowd, one: Vec::new(), all: Vec::new() })
    }

    fn round(&mut self, scale: &Scale) -> io::Result<()> {
        self.one.push(median(&mut latencies(self.crowd.first(), scale)?));
        // Each has one request in flight all the time, so this many are answered while one waits. All are to have many
        // turns.
        let slice = scale.slice.max(TURNS * self.clients as u32);
        let per_second = per_second(&mut self.crowd, &Scale { slice, ..scale.clone() })?;
        self.all.push(self.clients as f64 / per_second * 1e6);
        Ok(())
    }
}
