// SPDX-License-Identifier: MIT OR Apache-2.0
//! A server in this process, so that those who wait for it can tell what it executes meanwhile.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use qmp_dispatch::proto::Error;
use qmp_dispatch::{Context, Dispatcher, Registry};
use qmp_server::{Server, ServerHandle, system_time, version};
use tempfile::TempDir;

use super::client::{Client, Mode};

const GREEDY: &[u8] = b"{\"execute\": \"x-greedy\"}\n";
const POLITE: &[u8] = b"{\"execute\": \"x-polite\"}\n";

/// How long each command takes: so long that clients wait for the server, and not the server for them.
pub(super) const WORK: Duration = Duration::from_micros(50);

/// Dropping it ends it.
pub(super) struct Counting {
    server: Option<ServerHandle>,
    counts: Arc<Counts>,
    dir: TempDir,
}

#[derive(Default)]
struct Counts {
    /// Commands that were executed for greedy clients.
    greedy: AtomicU64,
    /// How many that were when the polite client's turn came last.
    at_turn: AtomicU64,
}

impl Counting {
    pub(super) fn start() -> io::Result<Counting> {
        let counts = Arc::<Counts>::default();
        let mut registry = Registry::new();
        let counted = Arc::clone(&counts);
        let greedy = move |_: &Context| {
            counted.greedy.fetch_add(1, Ordering::SeqCst);
            work();
            Ok::<_, Error>(())
        };
        registry.command("x-greedy", greedy).map_err(io::Error::other)?;
        let counted = Arc::clone(&counts);
        let polite = move |_: &Context| {
            counted.at_turn.store(counted.greedy.load(Ordering::SeqCst), Ordering::SeqCst);
            work();
            Ok::<_, Error>(())
        };
        registry.command("x-polite", polite).map_err(io::Error::other)?;

        let dir = tempfile::Builder::new().prefix("qmp-bench-").tempdir()?;
        let address = format!("unix:{}", socket(&dir).display());
        let address = address.parse().map_err(io::Error::other)?;
        let dispatcher = Dispatcher::new(registry, version(), system_time);
        let server = Server::new(dispatcher).listen(&address).map_err(io::Error::other)?;
        Ok(Counting { server: Some(server.spawn()?), counts, dir })
    }

    pub(super) fn greedy(&self) -> io::Result<Client> {
        Client::connect_asking(&socket(&self.dir), Mode::OutOfBand, GREEDY)
    }

    pub(super) fn polite(&self) -> io::Result<Client> {
        Client::connect_asking(&socket(&self.dir), Mode::InBand, POLITE)
    }

    /// How many commands have been executed for greedy clients.
    pub(super) fn executed(&self) -> u64 {
        self.counts.greedy.load(Ordering::SeqCst)
    }

    /// How many that were when the polite client's turn came last.
    pub(super) fn executed_at_turn(&self) -> u64 {
        self.counts.at_turn.load(Ordering::SeqCst)
    }
}

impl Drop for Counting {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            server.control().shutdown();
            server.wait();
        }
    }
}

fn work() {
    let started = Instant::now();
    while started.elapsed() < WORK {
        std::hint::spin_loop();
    }
}

fn socket(dir: &TempDir) -> PathBuf {
    dir.path().join("qmp.sock")
}
