// SPDX-License-Identifier: MIT OR Apache-2.0
//! Many clients that always have as much in flight as they may, and a polite one.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Instant;

use super::client::{Client, Mode};
use super::crowd::Crowd;
use super::figures::Spread;
use super::peer::{Floor, Kind, Peer};
use super::report::{Limit, Section};
use super::speed::latencies;
use super::stats::{median, micros, quantile};
use super::{Scale, cannot};

const GREEDY: usize = 100;
const IN_FLIGHT: usize = 8;

pub(super) fn measure(section: &mut Section, scale: &Scale, floor: &Floor) -> Result<(), String> {
    let peer = Peer::start(Kind::Ours, 1, floor)?;
    let connect = |mode| Client::connect(peer.socket(0), mode);
    let mut polite = connect(Mode::InBand).map_err(cannot("connect"))?;
    let greedy: io::Result<_> = (0..GREEDY).map(|_| connect(Mode::OutOfBand)).collect();
    let mut greedy =
        greedy.and_then(|greedy| Crowd::new(greedy, IN_FLIGHT)).map_err(cannot("connect"))?;

    let (mut service, mut p50, mut p99) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..scale.rounds {
        let mut round = round(&mut polite, &mut greedy, scale).map_err(cannot("measure"))?;
        service.push(round.service);
        p50.push(median(&mut round.latencies));
        p99.push(quantile(&mut round.latencies, 0.99));
    }
    let [service, p50, p99] = [service, p50, p99].map(Spread::of);
    let most = greedy.served().iter().copied().max().unwrap_or_default() as f64;
    let least = greedy.served().iter().copied().min().unwrap_or_default() as f64;

    let greedy = format!("{GREEDY} greedy clients");
    section.figure(&format!("{greedy}: service time"), Kind::Ours, "µs", service);
    section.figure(&format!("{greedy}: a polite one's p50"), Kind::Ours, "µs", p50);
    section.figure(&format!("{greedy}: a polite one's p99"), Kind::Ours, "µs", p99);
    let turn = (GREEDY + 1) as f64 * service.median;
    let what = format!("{greedy}: a polite one's p99 / {} service times", GREEDY + 1);
    section.target(&what, p99.median / turn, Limit::AtMost(1.5));
    section.target(&format!("{greedy}: most served / least"), most / least, Limit::AtMost(1.1));
    Ok(())
}

struct Round {
    /// What one request takes when there are always more, in microseconds.
    service: f64,
    /// The polite client's, in microseconds.
    latencies: Vec<f64>,
}

fn round(polite: &mut Client, greedy: &mut Crowd, scale: &Scale) -> io::Result<Round> {
    let over = AtomicBool::new(false);
    let (busy, wait_until_busy) = channel();
    thread::scope(|scope| {
        let crowd = scope.spawn(|| {
            let started = Instant::now();
            let mut elapsed = 0.0;
            let served = greedy.run(|answers| {
                if answers > (GREEDY * IN_FLIGHT) as u64 {
                    let _ = busy.send(());
                }
                elapsed = micros(started.elapsed());
                over.load(Ordering::Relaxed)
            })?;
            Ok::<_, io::Error>(elapsed / served as f64)
        });
        let _ = wait_until_busy.recv();
        let latencies = latencies(polite, scale);
        over.store(true, Ordering::Relaxed);
        let service = crowd.join().map_err(|_| io::Error::other("the crowd has panicked"))??;
        Ok(Round { service, latencies: latencies? })
    })
}
