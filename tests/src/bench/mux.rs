// SPDX-License-Identifier: MIT OR Apache-2.0
//! The cost of a mux: the same QEMU process is measured through the mux and directly.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::client::{Client, Mode};
use super::crowd::Crowd;
use super::figures::Spread;
use super::floor;
use super::machine::{ManyDescriptors, resident_kib};
use super::peer::{Floor, Kind, Peer};
use super::report::{Limit, Section};
use super::speed::{latencies, per_second};
use super::stats::{median, quantile};
use super::{Scale, cannot};

/// The server behind the mux.
pub(super) const UPSTREAMS: [Kind; 2] = [Kind::Qemu, Kind::StorageDaemon];

const CLIENTS: usize = 8;
/// Block nodes, whose list is as long as a MiB.
const NODES: usize = 2450;
const LONG_ANSWER: &[u8] =
    b"{\"execute\": \"query-named-block-nodes\", \"arguments\": {\"flat\": true}, \"id\": 1}\n";
/// Idle clients that are held against each other.
const IDLE: usize = 400;

/// How many clients share the mux before the plain loop.
const CROWDS: [usize; 2] = [64, 1_000];

pub(super) fn measure(section: &mut Section, scale: &Scale, floor: &Floor) -> Result<(), String> {
    measure_before_plain_loop(section, scale, floor)?;
    for kind in UPSTREAMS.into_iter().filter(|kind| kind.is_installed()) {
        measure_before(section, scale, kind).map_err(|error| format!("{kind}: {error}"))?;
    }
    section.notes.push(format!("commands: of {CLIENTS} clients of the mux, and of 1 without it"));
    measure_memory(section)
}

/// The mux before a server that answers at once, so that what is measured is the mux.
fn measure_before_plain_loop(
    section: &mut Section,
    scale: &Scale,
    floor: &Floor,
) -> Result<(), String> {
    const UPSTREAM: Kind = Kind::Floor(floor::Way::PlainLoop);
    const RELAY: Kind = Kind::Floor(floor::Way::Relay);
    let _descriptors = ManyDescriptors::new().map_err(cannot("raise the limit of descriptors"))?;
    let upstream = Peer::start(UPSTREAM, 1, floor)?;
    let mux = Peer::start_mux(upstream.socket(0))?;
    let connect = |peer: &Peer| Client::connect(peer.socket(0), Mode::InBand);
    let relay = Peer::start_before(RELAY, upstream.socket(0), floor)?;
    let mut lone = [connect(&upstream), connect(&mux), connect(&relay)]
        .map(|client| client.map_err(cannot("connect")));
    let crowd = |clients: usize| {
        let members: io::Result<Vec<Client>> = (0..clients).map(|_| connect(&mux)).collect();
        members.and_then(|members| Crowd::new(members, 1)).map_err(cannot("connect"))
    };
    let mut crowds = Vec::new();
    for clients in CROWDS {
        crowds.push((clients, crowd(clients)?, Vec::new()));
    }
    let (mut p50, mut p99) = ([const { Vec::new() }; 3], [const { Vec::new() }; 3]);
    for _ in 0..scale.rounds {
        for (index, client) in lone.iter_mut().enumerate() {
            let client = client.as_mut().map_err(|error| error.clone())?;
            let mut latencies = latencies(client, scale).map_err(cannot("measure"))?;
            p50[index].push(median(&mut latencies));
            p99[index].push(quantile(&mut latencies, 0.99));
        }
        for (_, crowd, rates) in &mut crowds {
            rates.push(per_second(crowd, scale).map_err(cannot("measure"))? / 1e3);
        }
    }
    let (p50, p99) = (p50.map(Spread::of), p99.map(Spread::of));
    let before = format!("before the {UPSTREAM}, 1 client");
    for (what, spreads) in [("p50", &p50), ("p99", &p99)] {
        for (kind, spread) in [UPSTREAM, Kind::Mux, RELAY].into_iter().zip(spreads) {
            section.figure(&format!("{before}: {what}"), kind, "µs", *spread);
        }
    }
    for (clients, _, rates) in crowds {
        let what = format!("before the {UPSTREAM}, {clients} clients");
        section.figure(&what, Kind::Mux, "k/s", Spread::of(rates));
    }
    let [direct, through, relayed] = p50.map(|spread| spread.median);
    section.target(&format!("{before}: µs added to p50"), through - direct, Limit::AtMost(15.0));
    let of_relay = (through - direct) / (relayed - direct);
    section.target(&format!("{before}: added to p50 / by a relay"), of_relay, Limit::AtMost(1.5));
    let tail = p99[1].median / p99[0].median;
    section.target(&format!("{before}: p99 / directly"), tail, Limit::AtMost(2.0));
    Ok(())
}

/// A way to reach the same server.
struct Way {
    lone: Client,
    crowd: Crowd,
    long: Client,
    p50: Vec<f64>,
    per_second: Vec<f64>,
    long_p50: Vec<f64>,
}

fn measure_before(section: &mut Section, scale: &Scale, kind: Kind) -> Result<(), String> {
    let unknown = Floor { program: "".into(), line: String::new() };
    let upstream = Peer::start(kind, 4, &unknown)?;
    add_nodes(upstream.socket(0)).map_err(cannot("add block nodes"))?;
    let mux = Peer::start_mux(upstream.socket(3))?;
    let mut direct = Way::connect(1, |number| upstream.socket(number).to_owned())?;
    let mut through = Way::connect(CLIENTS, |_| mux.socket(0).to_owned())?;
    for _ in 0..scale.rounds {
        for way in [&mut direct, &mut through] {
            way.round(scale).map_err(cannot("measure"))?;
        }
    }
    let size = direct.long.response().len() as f64 / f64::from(1 << 20);
    let names = [
        format!("{kind}: p50"),
        format!("{kind}: commands"),
        format!("{kind}: {size:.2} MiB, p50"),
    ];
    let spreads = |way: Way| [way.p50, way.per_second, way.long_p50].map(Spread::of);
    let (direct, through) = (spreads(direct), spreads(through));
    let limits = [Limit::AtMost(1.3), Limit::AtLeast(1.0), Limit::AtMost(2.0)];
    for (index, unit) in ["µs", "k/s", "µs"].into_iter().enumerate() {
        section.figure(&names[index], Kind::Mux, unit, through[index]);
        section.figure(&names[index], kind, unit, direct[index]);
        let ratio = format!("{} / directly", names[index]);
        section.target(&ratio, through[index].median / direct[index].median, limits[index]);
    }
    Ok(())
}

impl Way {
    fn connect(clients: usize, socket: impl Fn(usize) -> PathBuf) -> Result<Way, String> {
        let connected = || -> io::Result<Way> {
            let crowd = (0..clients).map(|_| Client::connect(&socket(1), Mode::InBand));
            Ok(Way {
                lone: Client::connect(&socket(0), Mode::InBand)?,
                crowd: Crowd::new(crowd.collect::<io::Result<_>>()?, 1)?,
                long: Client::connect_asking(&socket(2), Mode::InBand, LONG_ANSWER)?,
                p50: Vec::new(),
                per_second: Vec::new(),
                long_p50: Vec::new(),
            })
        };
        connected().map_err(cannot("connect"))
    }

    fn round(&mut self, scale: &Scale) -> io::Result<()> {
        self.p50.push(median(&mut latencies(&mut self.lone, scale)?));
        self.per_second.push(per_second(&mut self.crowd, scale)? / 1e3);
        self.long_p50.push(median(&mut latencies(&mut self.long, scale)?));
        Ok(())
    }
}

/// Makes the answer to [`LONG_ANSWER`] as long as it is meant to be.
fn add_nodes(socket: &Path) -> io::Result<()> {
    let mut server = UnixStream::connect(socket)?;
    server.set_read_timeout(Some(Duration::from_secs(20)))?;
    let mut commands = "{\"execute\": \"qmp_capabilities\"}".to_owned();
    for number in 0..NODES {
        commands += &format!(
            r#"{{"execute": "blockdev-add", "arguments": {{"driver": "null-co", "node-name": "node{number}"}}}}"#
        );
    }
    server.write_all(commands.as_bytes())?;
    // The greeting, and an answer to each.
    let mut lines = 0;
    let mut buffer = [0; 1 << 12];
    while lines < NODES + 2 {
        match server.read(&mut buffer)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            received => lines += buffer[..received].iter().filter(|&&byte| byte == b'\n').count(),
        }
    }
    Ok(())
}

/// Idle clients of the mux and of the reference machine.
fn measure_memory(section: &mut Section) -> Result<(), String> {
    let unknown = Floor { program: "".into(), line: String::new() };
    let behind = Peer::start(Kind::Ours, 1, &unknown)?;
    let mut mux = Peer::start_mux(behind.socket(0))?;
    let mut serve = Peer::start(Kind::Ours, 1, &unknown)?;
    let what = format!("{IDLE} idle clients: memory each");
    let [of_mux, of_serve] = [&mut mux, &mut serve].map(per_client);
    let (of_mux, of_serve) = (of_mux?, of_serve?);
    section.figure(&what, Kind::Mux, "KiB", of_mux);
    section.figure(&what, Kind::Ours, "KiB", of_serve);
    section.target(&format!("{what} / in serve"), of_mux / of_serve, Limit::AtMost(1.25));
    Ok(())
}

fn per_client(peer: &mut Peer) -> Result<f64, String> {
    let connect = |peer: &Peer| {
        let clients = (0..IDLE).map(|_| Client::connect(peer.socket(0), Mode::InBand));
        clients.collect::<io::Result<Vec<_>>>().map_err(cannot("connect"))
    };
    let process = peer.process().child().id();
    let resident = || resident_kib(process).map_err(cannot("read the memory's size"));
    let before = resident()?;
    let _clients = connect(peer)?;
    Ok((resident()? - before) as f64 / IDLE as f64)
}
