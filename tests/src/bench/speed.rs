// SPDX-License-Identifier: MIT OR Apache-2.0
//! One client, one client with several requests in flight, many clients: every server in turn.

use std::io;
use std::time::{Duration, Instant};

use super::client::{Client, Mode};
use super::crowd::Crowd;
use super::figures::Spread;
use super::floor::Way;
use super::machine::user_time;
use super::peer::{Floor, Kind, Peer};
use super::report::{Limit, Section};
use super::stats::{median, micros, quantile};
use super::{Scale, cannot};

const IN_FLIGHT: usize = 8;

const ECHO: Kind = Kind::Floor(Way::Epoll);

/// Servers of one kind with their clients, and what has been measured of it, a value for each round.
struct Contestant {
    kind: Kind,
    peers: [Peer; 4],
    lone: Client,
    /// Sends another request for each answer.
    pipelined: Crowd,
    /// Sends this number of requests in one write, and the next ones when all are answered.
    batched: Client,
    crowd: Crowd,
    p50: Vec<f64>,
    p99: Vec<f64>,
    /// Of the lone client's server, and for how many requests.
    user_time: Duration,
    requests: usize,
    pipelined_per_second: Vec<f64>,
    batched_per_second: Vec<f64>,
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
    let in_one_write = format!("1 client, {IN_FLIGHT} in one write");
    for contestant in contestants {
        let Contestant { kind, p50, p99, user_time, requests, .. } = contestant;
        let Contestant { pipelined_per_second, batched_per_second, crowd_per_second, .. } =
            contestant;
        section.figure("1 client, 1 in flight: p50", kind, "µs", Spread::of(p50));
        section.figure("1 client, 1 in flight: p99", kind, "µs", Spread::of(p99));
        let user = micros(user_time) / requests.max(1) as f64;
        section.figure("1 client, 1 in flight: user time", kind, "µs", user);
        section.figure(&in_flight, kind, "k/s", Spread::of(pipelined_per_second));
        section.figure(&in_one_write, kind, "k/s", Spread::of(batched_per_second));
        section.figure(&clients, kind, "k/s", Spread::of(crowd_per_second));
    }
    section.ratio("1 client, 1 in flight: p50", ECHO, Limit::AtMost(1.25));
    section.ratio("1 client, 1 in flight: p99", ECHO, Limit::AtMost(2.0));
    section.ratio(&in_one_write, ECHO, Limit::AtLeast(0.5));
    section.ratio(&in_flight, Kind::Qemu, Limit::AtLeast(20.0));
    section.ratio(&clients, ECHO, Limit::AtLeast(0.8));
    Ok(())
}

impl Contestant {
    fn new(kind: Kind, clients: usize, floor: &Floor) -> Result<Contestant, String> {
        // QEMU has a socket for each client, and takes longer the more of them there are.
        let peers = [
            Peer::start(kind, 1, floor)?,
            Peer::start(kind, 1, floor)?,
            Peer::start(kind, 1, floor)?,
            Peer::start(kind, clients, floor)?,
        ];
        let connected = || -> io::Result<(Client, Crowd, Client, Crowd)> {
            let lone = Client::connect(peers[0].socket(0), Mode::InBand)?;
            let pipelined = Client::connect(peers[1].socket(0), Mode::OutOfBand)?;
            let batched = Client::connect(peers[2].socket(0), Mode::InBand)?;
            let crowd =
                (0..clients).map(|number| Client::connect(peers[3].socket(number), Mode::InBand));
            let crowd = Crowd::new(crowd.collect::<Result<_, _>>()?, 1)?;
            Ok((lone, Crowd::new(vec![pipelined], IN_FLIGHT)?, batched, crowd))
        };
        let (lone, pipelined, batched, crowd) =
            connected().map_err(cannot(&format!("connect to {kind}")))?;
        Ok(Contestant {
            kind,
            peers,
            lone,
            pipelined,
            batched,
            crowd,
            p50: Vec::new(),
            p99: Vec::new(),
            user_time: Duration::ZERO,
            requests: 0,
            pipelined_per_second: Vec::new(),
            batched_per_second: Vec::new(),
            crowd_per_second: Vec::new(),
        })
    }

    fn round(&mut self, scale: &Scale) -> io::Result<()> {
        let process = self.peers[0].process().child().id();
        let before = user_time(process)?;
        let mut latencies = latencies(&mut self.lone, scale)?;
        self.user_time += user_time(process)?.saturating_sub(before);
        self.requests += latencies.len();
        self.p50.push(median(&mut latencies));
        self.p99.push(quantile(&mut latencies, 0.99));
        self.pipelined_per_second.push(per_second(&mut self.pipelined, scale)? / 1e3);
        self.batched_per_second.push(batches_per_second(&mut self.batched, scale)? / 1e3);
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

pub(super) fn per_second(crowd: &mut Crowd, scale: &Scale) -> io::Result<f64> {
    let started = Instant::now();
    let mut elapsed = 0.0;
    let answers = crowd.run(|_| {
        elapsed = started.elapsed().as_secs_f64();
        elapsed >= scale.slice.as_secs_f64()
    })?;
    Ok(answers as f64 / elapsed)
}

/// How many answers come in a second to a client that sends several requests at a time.
fn batches_per_second(client: &mut Client, scale: &Scale) -> io::Result<f64> {
    let started = Instant::now();
    let (mut answers, mut elapsed) = (0, 0.0);
    while elapsed < scale.slice.as_secs_f64() {
        client.ask(IN_FLIGHT)?;
        let mut left = IN_FLIGHT;
        while left > 0 {
            left = left.saturating_sub(client.receive()?);
        }
        answers += IN_FLIGHT;
        elapsed = started.elapsed().as_secs_f64();
    }
    Ok(answers as f64 / elapsed)
}
