// SPDX-License-Identifier: MIT OR Apache-2.0
//! What all peers have in common: a server process, and a client process that measures when it is told to.
//!
//! - `PEER serve DIRECTORY` serves until it is killed; its first line says where.
//! - `PEER call ADDRESS` reads lines `CLIENTS MILLISECONDS`. So many clients call so long, each as soon as it has got
//!   its answer, and a line comes back: `P50 CALLS TIME`, in nanoseconds.
//!
//! A server runs as its documentation shows it, on the threads of a Tokio runtime; the clients all share one thread.

use std::error::Error;
use std::io::{self, BufRead, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::runtime;
use tokio::task::{JoinSet, LocalSet};

pub type Outcome<T = ()> = Result<T, Box<dyn Error>>;

/// What is asked for: three numbers and a text, as by QMP's `query-version`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Version {
    pub major: i64,
    pub minor: i64,
    pub micro: i64,
    pub package: String,
}

impl Version {
    pub fn of_the_bench() -> Version {
        Version { major: 0, minor: 1, micro: 0, package: "qmp-server".to_owned() }
    }
}

/// A server and a client.
#[allow(async_fn_in_trait, reason = "nobody else implements this")]
pub trait Peer {
    type Client: 'static;

    /// Serves, and says where as soon as it can be connected to.
    async fn serve(directory: &Path, listening: impl FnOnce(String)) -> Outcome;
    async fn connect(address: &str) -> Outcome<Self::Client>;
    /// Asks for the version.
    async fn call(client: &mut Self::Client) -> Outcome<Version>;
}

/// The program of a peer.
pub fn main<P: Peer>() -> Outcome {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["serve", directory] => {
            let runtime = runtime::Builder::new_multi_thread().enable_all().build()?;
            runtime.block_on(P::serve(Path::new(directory), |address| println!("{address}")))
        }
        ["call", address] => {
            let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
            LocalSet::new().block_on(&runtime, call::<P>(address))
        }
        _ => Err("usage: serve DIRECTORY | call ADDRESS".into()),
    }
}

async fn call<P: Peer>(address: &str) -> Outcome {
    let mut clients = Vec::new();
    for line in io::stdin().lock().lines() {
        let line = line?;
        let (count, milliseconds) = line.split_once(' ').ok_or("two numbers are needed")?;
        let (count, milliseconds) = (count.parse()?, milliseconds.parse()?);
        while clients.len() < count {
            clients.push(P::connect(address).await?);
        }
        let others = clients.split_off(count);
        let round;
        (round, clients) = measure::<P>(clients, Duration::from_millis(milliseconds)).await?;
        clients.extend(others);
        println!("{} {} {}", round.p50.as_nanos(), round.calls, round.time.as_nanos());
        io::stdout().flush()?;
    }
    Ok(())
}

struct Round {
    p50: Duration,
    calls: usize,
    time: Duration,
}

async fn measure<P: Peer>(
    clients: Vec<P::Client>,
    time: Duration,
) -> Outcome<(Round, Vec<P::Client>)> {
    let started = Instant::now();
    let mut calling = JoinSet::new();
    for mut client in clients {
        calling.spawn_local(async move {
            let mut latencies = Vec::new();
            loop {
                let asked = Instant::now();
                let version = P::call(&mut client).await.map_err(|error| error.to_string())?;
                latencies.push(asked.elapsed());
                if version != Version::of_the_bench() {
                    return Err(format!("another answer: {version:?}"));
                }
                if started.elapsed() >= time {
                    return Ok((latencies, client));
                }
            }
        });
    }
    let mut latencies = Vec::new();
    let mut clients = Vec::new();
    while let Some(called) = calling.join_next().await {
        let (its_latencies, client) = called??;
        latencies.extend(its_latencies);
        clients.push(client);
    }
    let time = started.elapsed();
    latencies.sort_unstable();
    let p50 = latencies[latencies.len() / 2];
    Ok((Round { p50, calls: latencies.len(), time }, clients))
}
