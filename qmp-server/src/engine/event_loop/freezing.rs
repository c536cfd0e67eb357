// SPDX-License-Identifier: MIT OR Apache-2.0
//! The loop at a point where nothing runs: its servers and links as data, for another program that goes on with them.

use std::collections::HashMap;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use qmp_dispatch::MonitorId;

use super::servers::ServerStage;
use super::{Loop, Source};
use crate::access::Origin;
use crate::engine::frozen::{ArrivalState, Freezing, FrozenServer, ListenerState, ServerState};
use crate::engine::hosted::Hosted;
use crate::session::CameBy;
use crate::transport::{Packing, Peer, Transport, Travels};

/// How often it is looked whether what runs has ended: events are edges, which a wait for them would lose.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// To be done with the loop when nothing runs, at the latest then.
pub(in crate::engine) struct Pause {
    pub(in crate::engine) until: Instant,
    pub(in crate::engine) with: Box<dyn FnOnce(&mut Loop) + Send>,
}

impl Loop {
    /// Passes the loop on as soon as nothing runs; until then no work is begun. Gives that up when its time is over.
    pub(super) fn pause_when_nothing_runs(&mut self) {
        if self.running == 0 && self.parsing == 0 {
            self.cork.flush();
            if let Some(pause) = self.pause.take() {
                (pause.with)(self);
            }
        } else if self.pause.as_ref().is_some_and(|pause| pause.until <= Instant::now()) {
            self.pause = None;
        } else {
            thread::sleep(LOOK_AGAIN);
        }
    }

    /// Adds all that the loop has.
    pub(in crate::engine) fn freeze(&self, freezing: &mut Freezing) -> io::Result<()> {
        for source in self.sources.values() {
            if let Source::Server(tenant) = source {
                if tenant.stage != ServerStage::Running || tenant.hosted.is_stopping() {
                    return Err(io::Error::other("a server is ending"));
                }
                let hosted = Arc::clone(&tenant.hosted);
                let opened = hosted.doors.opened.clone();
                let mut state = ServerState { opened, ..ServerState::default() };
                for (transport, origin) in &tenant.early {
                    let arrival = arrival(&hosted, &**transport, origin, &mut freezing.packing)?;
                    state.arrivals.extend(arrival);
                }
                freezing.servers.push(FrozenServer { hosted, state });
            }
        }
        // Numbers of monitors are unique in one server only.
        let key = |hosted: &Arc<Hosted>, monitor: MonitorId| (Arc::as_ptr(hosted).addr(), monitor);
        let mut queued: HashMap<_, Vec<_>> = HashMap::new();
        for FrozenServer { hosted, .. } in &freezing.servers {
            let jobs = hosted.queue.look(|job| (job.client.monitor.id(), job.pending.state()));
            for (monitor, request) in jobs {
                queued.entry(key(hosted, monitor)).or_default().push(request);
            }
        }
        for source in self.sources.values() {
            match source {
                Source::Listener(listener) => {
                    let Some(Source::Server(tenant)) = self.sources.get(listener.server) else {
                        continue;
                    };
                    let listening = &listener.listening;
                    let state = ListenerState {
                        opened_as: listening.opened_as.clone(),
                        socket: freezing.packing.add(listening.listener.as_fd())?,
                        file: listening.listener.file(),
                    };
                    freezing.server(&tenant.hosted)?.listeners.push(state);
                }
                Source::Arrival(arrival) => {
                    let (hosted, origin) = (&arrival.hosted, &arrival.origin);
                    let packing = &mut freezing.packing;
                    let state = self::arrival(hosted, &*arrival.transport, origin, packing)?;
                    freezing.server(hosted)?.arrivals.extend(state);
                }
                Source::Session(served) => {
                    let (session, hosted) = (&served.session, &served.hosted);
                    let client = session.client();
                    let requests = queued.remove(&key(hosted, client.monitor.id()));
                    let who = || {
                        let peer = client.monitor.local::<Peer>().map(Peer::to_string);
                        peer.unwrap_or_default()
                    };
                    match session.transport().travels() {
                        Travels::AsSocket => {}
                        Travels::Never => {
                            freezing.left_behind.push(format!("client {}", who()));
                            continue;
                        }
                        Travels::Prevents => {
                            let why = "a client at standard input cannot be handed over";
                            return Err(io::Error::other(why));
                        }
                    }
                    let listener = came_by(hosted, &client.origin).listener;
                    let shared = &mut freezing.shared;
                    let requests = requests.unwrap_or_default();
                    match session.state(&mut freezing.packing, listener, requests, shared) {
                        Ok(state) => freezing.server(hosted)?.sessions.push(state),
                        Err(error) => {
                            freezing.left_behind.push(format!("client {}: {error}", who()));
                        }
                    }
                }
                Source::Server(_) | Source::Link(_) => {}
            }
        }
        for source in self.sources.values() {
            if let Source::Link(slot) = source
                && let Some(link) = &slot.link
            {
                link.freeze(freezing)?;
            }
        }
        Ok(())
    }
}

impl Loop {
    /// Ends the connections that cannot be handed over, as their transport ends them.
    pub(in crate::engine) fn end_left_behind(&self) {
        for source in self.sources.values() {
            if let Source::Session(served) = source
                && served.session.transport().travels() == Travels::Never
            {
                served.session.transport().shutdown();
            }
        }
    }
}

/// A client that was not greeted yet, if its connection can be handed over.
fn arrival(
    hosted: &Hosted,
    transport: &dyn Transport,
    origin: &Origin,
    packing: &mut Packing,
) -> io::Result<Option<ArrivalState>> {
    match transport.travels() {
        Travels::AsSocket => {}
        Travels::Never => return Ok(None),
        Travels::Prevents => {
            return Err(io::Error::other("a client at standard input cannot be handed over"));
        }
    }
    let given = matches!(transport.peer(), Ok(Peer::Starter));
    let Ok(socket) = packing.add(transport.as_fd()) else { return Ok(None) };
    Ok(Some(ArrivalState { socket, given, came: came_by(hosted, origin) }))
}

fn came_by(hosted: &Hosted, origin: &Origin) -> CameBy {
    let listener = origin.listener.and_then(|index| hosted.doors.listeners.get(index));
    CameBy::of(listener.and_then(|(opened_as, _)| opened_as.clone()), origin)
}
