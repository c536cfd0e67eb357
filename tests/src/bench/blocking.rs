// SPDX-License-Identifier: MIT OR Apache-2.0
//! How long other clients wait while a command blocks: until another thread leads, and afterwards.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use qmp_dispatch::proto::Error;
use qmp_dispatch::{Context, Dispatcher, Registry};
use qmp_server::{Server, ServerHandle, system_time, version};
use tempfile::TempDir;

use super::client::{Client, Mode};
use super::figures::Spread;
use super::peer::Kind;
use super::report::{Limit, Section};
use super::stats::{median, micros, quantile};
use super::{Scale, cannot};

const BLOCK: &[u8] = b"{\"execute\": \"x-block\"}\n";
const QUICK: &[u8] = b"{\"exec-oob\": \"x-quick\"}\n";

/// How often a command blocks in a slice of a hundred milliseconds: each time, others wait for a few.
const SPARSE: Duration = Duration::from_millis(8);

/// How often each of the others asks while a command blocks.
const TIMES: usize = 20;

pub(super) fn measure(section: &mut Section, scale: &Scale) -> Result<(), String> {
    let Waits { step_in, greeting, out_of_band } =
        waits(scale).map_err(cannot("measure while a command blocks"))?;
    let mut worst: Vec<f64> = step_in.iter().flatten().copied().collect();
    let mut row = |what: &str, rounds: Vec<Vec<f64>>, limit: f64| {
        let quantiles = |share: f64| {
            Spread::of(rounds.iter().map(|round| quantile(&mut round.clone(), share)).collect())
        };
        let medians = rounds.iter().map(|round| median(&mut round.clone())).collect();
        section.figure(&format!("{what}: p50"), Kind::Ours, "µs", Spread::of(medians));
        let p99 = quantiles(0.99);
        section.figure(&format!("{what}: p99"), Kind::Ours, "µs", p99);
        section.target(&format!("{what}: p99, µs"), p99.median, Limit::AtMost(limit));
    };
    row("a command blocks: a stranger is greeted", step_in, 5_000.0);
    row("it still does: a stranger is greeted", greeting, 1_000.0);
    row("it still does: an out-of-band request", out_of_band, 1_000.0);
    let worst = quantile(&mut worst, 1.0);
    section.figure("a command blocks: the worst of all", Kind::Ours, "µs", worst);
    Ok(())
}

/// In microseconds, for each round.
#[derive(Default)]
struct Waits {
    /// From when a command has begun that blocks, to the greeting of a stranger who comes then.
    step_in: Vec<Vec<f64>>,
    /// How long a stranger waits who comes later.
    greeting: Vec<Vec<f64>>,
    out_of_band: Vec<Vec<f64>>,
}

fn waits(scale: &Scale) -> io::Result<Waits> {
    let site = Site::start()?;
    let mut blocked = site.client()?;
    let mut other = Client::connect_asking(&site.socket(), Mode::OutOfBand, QUICK)?;
    let times = (scale.slice.as_nanos() / SPARSE.as_nanos()).max(1);
    let mut waits = Waits::default();
    for _ in 0..scale.rounds {
        let (mut step_in, mut greeting, mut out_of_band) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..times {
            blocked.write_all(BLOCK)?;
            let began = site.began.recv().map_err(io::Error::other)?;
            site.greet()?;
            step_in.push(micros(began.elapsed()));
            for _ in 0..TIMES {
                let came = Instant::now();
                site.greet()?;
                greeting.push(micros(came.elapsed()));
                out_of_band.push(micros(other.round_trip()?));
            }
            site.go_on.send(()).map_err(io::Error::other)?;
            line(&blocked)?;
        }
        waits.step_in.push(step_in);
        waits.greeting.push(greeting);
        waits.out_of_band.push(out_of_band);
    }
    Ok(waits)
}

/// A server in this process, with a command that tells when it has begun, and waits for a word. Dropping it ends it.
struct Site {
    server: Option<ServerHandle>,
    began: Receiver<Instant>,
    go_on: Sender<()>,
    dir: TempDir,
}

impl Site {
    fn start() -> io::Result<Site> {
        let ((tell, began), (go_on, word)) = (channel(), channel());
        let (tell, word) = (Mutex::new(tell), Mutex::new(word));
        let block = move |_: &Context| {
            let begun = Instant::now();
            let tell = tell.lock().unwrap_or_else(PoisonError::into_inner);
            // Both ends are there as long as the server is.
            let _ = tell.send(begun);
            let _ = word.lock().unwrap_or_else(PoisonError::into_inner).recv();
            Ok::<_, Error>(())
        };
        let mut registry = Registry::new();
        registry.command("x-block", block).map_err(io::Error::other)?;
        let quick = |_: &Context| Ok::<_, Error>(());
        registry.command("x-quick", quick).map_err(io::Error::other)?.allow_oob();
        let dir = tempfile::Builder::new().prefix("qmp-bench-").tempdir()?;
        let address = format!("unix:{}", dir.path().join("qmp.sock").display());
        let address = address.parse().map_err(io::Error::other)?;
        let dispatcher = Dispatcher::new(registry, version(), system_time);
        let server = Server::new(dispatcher).listen(&address).map_err(io::Error::other)?;
        Ok(Site { server: Some(server.spawn()?), began, go_on, dir })
    }

    fn socket(&self) -> std::path::PathBuf {
        self.dir.path().join("qmp.sock")
    }

    fn client(&self) -> io::Result<UnixStream> {
        let client = UnixStream::connect(self.socket())?;
        line(&client)?;
        (&client).write_all(b"{\"execute\": \"qmp_capabilities\"}\n")?;
        line(&client)?;
        Ok(client)
    }

    /// A stranger comes, is greeted, and goes.
    fn greet(&self) -> io::Result<()> {
        line(&UnixStream::connect(self.socket())?)
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            let _ = self.go_on.send(());
            server.control().shutdown();
            server.wait();
        }
    }
}

/// Waits for a line. Nothing may follow it, because the buffer is dropped.
fn line(client: &UnixStream) -> io::Result<()> {
    client.set_read_timeout(Some(Duration::from_secs(20)))?;
    match BufReader::new(client).read_until(b'\n', &mut Vec::new())? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}
