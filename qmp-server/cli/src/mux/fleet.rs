// SPDX-License-Identifier: MIT OR Apache-2.0
//! The machines that are served, whoever has named them: one table, one way to add one and one to end it.

use std::collections::BTreeMap;
use std::mem::take;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use qmp_server::{Engine, MetricsOfAll, Mux, Server};
use rustix::event::{EventfdFlags, eventfd};

use super::machine::Machine;
use crate::addresses::{Claim, Taken};
use crate::clients::Audits;
use crate::options::ServerOptions;
use crate::{Failure, clients};

/// The machines, and what they have in common.
pub(super) struct Fleet {
    engine: Engine,
    audits: Audits,
    metrics: MetricsOfAll,
    taken: Taken,
    /// By name. A machine stays here until it has [ended](Fleet::take_ended), so that its name and its addresses are its own
    /// for as long as clients could still see it.
    machines: BTreeMap<Option<String>, Served>,
    ended: Arc<Ended>,
}

/// A machine that is served.
pub(super) struct Served {
    pub(super) machine: Machine,
    pub(super) mux: Mux,
    claim: Claim,
}

/// A machine that listens, and is not served yet.
pub(super) struct Prepared {
    served: Served,
    server: Server,
}

impl Prepared {
    /// Says where it listens.
    pub(super) fn announce(&self, options: &ServerOptions) {
        clients::announce(&self.server, self.served.machine.name.as_deref(), options);
    }
}

impl Fleet {
    /// No machines, in a program that has taken these addresses.
    pub(super) fn new(taken: Taken) -> Result<Fleet, Failure> {
        Ok(Fleet {
            engine: Engine::new().map_err(Failure::usage)?,
            audits: Audits::default(),
            metrics: MetricsOfAll::default(),
            taken,
            machines: BTreeMap::new(),
            ended: Arc::new(Ended::new()?),
        })
    }

    /// Makes the mux and the server of a machine, which listens.
    pub(super) fn prepare(
        &mut self,
        (machine, claim): (Machine, Claim),
    ) -> Result<Prepared, Failure> {
        let made = machine.mux().and_then(|mux| {
            let server = machine.server(&mux, &mut self.audits)?;
            Ok((mux, server))
        });
        match made {
            Ok((mux, server)) => Ok(Prepared { served: Served { machine, mux, claim }, server }),
            Err(failure) => {
                self.taken.release(claim);
                Err(failure)
            }
        }
    }

    /// Serves a machine.
    pub(super) fn serve(&mut self, prepared: Prepared) -> Result<&Served, Failure> {
        let Prepared { served, server } = prepared;
        let name = served.machine.name.clone();
        let metrics = server.metrics();
        served.mux.report_to(&metrics);
        let told = TellOfEnd { name: name.clone(), ended: Arc::clone(&self.ended) };
        let server = server.on_end(move || drop(told));
        served.mux.serve_on(&self.engine, server).map_err(Failure::usage)?;
        self.metrics.add(name.as_deref(), metrics);
        self.machines.insert(name.clone(), served);
        Ok(&self.machines[&name])
    }

    /// Serves one more machine, and says where.
    pub(super) fn add(
        &mut self,
        machine: Machine,
        options: &ServerOptions,
    ) -> Result<&Served, Failure> {
        if let Some(name) =
            machine.name.as_ref().filter(|_| self.machines.contains_key(&machine.name))
        {
            return Err(Failure::usage(format_args!("another machine has the name '{name}'")));
        }
        let claims = self.taken.claim([&machine.options])?;
        let claim = claims.into_iter().next().unwrap_or_default();
        let prepared = self.prepare((machine, claim))?;
        prepared.announce(options);
        self.serve(prepared)
    }

    pub(super) fn get(&self, name: Option<&str>) -> Option<&Served> {
        self.machines.get(&name.map(str::to_owned))
    }

    /// Takes those out that have ended: because they were [shut down](Mux::shutdown), or because nobody can come any more.
    pub(super) fn take_ended(&mut self) -> Vec<Machine> {
        let mut ended = Vec::new();
        for name in self.ended.take() {
            let Some(served) = self.machines.remove(&name) else { continue };
            self.metrics.remove(name.as_deref());
            self.taken.release(served.claim);
            tracing::info!(machine = name, "a machine has gone");
            ended.push(served.machine);
        }
        ended
    }

    pub(super) fn is_empty(&self) -> bool {
        self.machines.is_empty()
    }

    /// Whether this socket is one of ours, or the upstream server of a machine.
    pub(super) fn has_socket(&self, path: &Path) -> bool {
        self.taken.has_socket(path)
    }

    pub(super) fn metrics(&self) -> MetricsOfAll {
        self.metrics.clone()
    }

    /// Opens all audits anew.
    pub(super) fn reopen_audits(&self) {
        self.audits.reopen();
    }

    /// Ends all machines, and waits until they have.
    pub(super) fn shut_down(&self) {
        self.machines.values().for_each(|served| served.mux.shutdown());
        self.machines.values().for_each(|served| served.mux.wait());
        self.audits.finish();
    }
}

/// Readable when machines have [ended](Fleet::take_ended).
impl AsFd for Fleet {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ended.waker.as_fd()
    }
}

/// The names of machines that have ended, for the main thread.
struct Ended {
    names: Mutex<Vec<Option<String>>>,
    waker: OwnedFd,
}

impl Ended {
    fn new() -> Result<Ended, Failure> {
        let waker = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        Ok(Ended { names: Mutex::default(), waker: waker.map_err(Failure::usage)? })
    }

    fn take(&self) -> Vec<Option<String>> {
        // First, so that what is added after it has been taken wakes again.
        let _ = rustix::io::read(&self.waker, &mut [0; 8]);
        take(&mut *self.names())
    }

    fn names(&self) -> MutexGuard<'_, Vec<Option<String>>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells the main thread when it is dropped.
struct TellOfEnd {
    name: Option<String>,
    ended: Arc<Ended>,
}

impl Drop for TellOfEnd {
    fn drop(&mut self) {
        self.ended.names().push(self.name.take());
        let _ = rustix::io::write(&self.ended.waker, &1u64.to_ne_bytes());
    }
}
