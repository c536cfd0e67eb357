// SPDX-License-Identifier: MIT OR Apache-2.0
//! All muxes of an engine, on their way from one program to another.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, RawFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::super::upstream::Upstream;
use super::super::{DialInSockets, Mux, Speaks};
use super::MuxState;
use crate::engine::{Engine, Freezing, ListenerState, Paused, ServerState};
use crate::server::{Inherited, InheritedClients, InheritedListener, Server, ServerHandle};
use crate::session::TextsTaken;
use crate::transport::inherited::STORE_NAME;
use crate::transport::{FORMAT, Luggage, Packed, inherited, invalid, unpack};

/// What goes from one program to another.
#[derive(Serialize, Deserialize)]
struct Package {
    muxes: Vec<MuxState>,
    /// Other servers, by name.
    #[serde(default)]
    servers: Vec<(String, ServerState)>,
    /// Sockets at which upstream servers connect.
    #[serde(default)]
    dial_in: Vec<ListenerState>,
    /// Events that several clients have not read.
    texts: Vec<String>,
    /// Of the program that packs.
    #[serde(default)]
    program: String,
}

/// The muxes of an engine, packed for another program. As long as this lives, the engine stands still; dropping it lets
/// everything go on as if nothing had been.
pub struct Frozen {
    packed: Packed,
    left_behind: Vec<String>,
    upstreams: Held,
    paused: Paused,
}

/// Muxes that pass no descriptors, until this is dropped.
struct Held(Vec<Arc<Upstream>>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.iter().for_each(|upstream| upstream.release());
    }
}

impl Frozen {
    /// The socket from which the other program [receives](Handover::receive), and its other end: as long as that is open,
    /// the first does not look hung up.
    pub fn sockets(&self) -> [BorrowedFd<'_>; 2] {
        [self.packed.far.as_fd(), self.packed.near.as_fd()]
    }

    /// Ends the connections of those clients, so that they see an end of TLS, and not that it is cut off. To be called when
    /// nothing is in the way of the other program any more.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use qmp_server::{Engine, Handover};
    ///
    /// let frozen = Handover::freeze(&Engine::new()?, [], &[], Duration::from_secs(2), "")?;
    /// frozen.end_left_behind();
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn end_left_behind(&self) {
        self.paused.end_left_behind();
    }

    /// Names the clients that will be disconnected, because they cannot be handed over: those with TLS.
    pub fn left_behind(&self) -> &[String] {
        &self.left_behind
    }
}

impl fmt::Debug for Frozen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Frozen").field("muxes", &self.upstreams.0.len()).finish_non_exhaustive()
    }
}

/// What another program has handed over, or this program hands over: muxes with their listeners, their clients and the
/// connections to their upstream servers, and everything that is under way.
///
/// Nobody notices but clients with TLS, which are disconnected. Answers of upstream servers are not waited for.
///
/// ```
/// use std::os::fd::{AsFd, IntoRawFd};
/// use std::time::Duration;
///
/// use qmp_dispatch::Dispatcher;
/// use qmp_server::{Engine, Handover, Mux, Server, system_time, version};
///
/// let folder = tempfile::tempdir()?;
/// let upstream = format!("unix:{}/qemu.sock", folder.path().display());
/// let listen = format!("unix:{}/qmp.sock", folder.path().display()).parse()?;
///
/// let engine = Engine::new()?;
/// let mux = Mux::new(upstream.parse()?)?;
/// let server = Server::new(Dispatcher::new(mux.registry()?, version(), system_time));
/// mux.serve_on(&engine, server.listen(&listen)?)?;
///
/// let frozen = Handover::freeze(&engine, [&mux], &[], Duration::from_secs(2), "")?;
/// // Another program, which has been passed this:
/// let socket = frozen.sockets()[0].try_clone_to_owned()?.into_raw_fd();
/// let mut handover = Handover::receive(&[socket])?;
/// let mux = Mux::new(upstream.parse()?)?;
/// let server = Server::new(Dispatcher::new(mux.registry()?, version(), system_time));
/// let server = handover.resume(&mux, server).listen(&listen)?;
/// mux.serve(server)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Handover {
    muxes: Vec<MuxState>,
    servers: Vec<(String, ServerState)>,
    dial_in: Inherited,
    texts: Arc<TextsTaken>,
    luggage: Arc<Mutex<Luggage>>,
    program: String,
}

/// What one mux takes over.
pub(in crate::mux) struct MuxHandover {
    pub(in crate::mux) state: MuxState,
    pub(in crate::mux) luggage: Arc<Mutex<Luggage>>,
}

impl Handover {
    /// The number of the format. A program can take over from another one of the same number.
    pub const FORMAT: u32 = FORMAT;

    /// The name under which a program stores this with its service manager. Sockets of this name are not those of
    /// [`Address::Systemd`](crate::Address::Systemd).
    pub const STORE_NAME: &str = STORE_NAME;

    /// Stops an engine, and packs these muxes of it, other servers of it by name, and a text of the program's own. What has been
    /// sent to upstream servers stays with them, but for a descriptor that is on its way: its answer is waited for, as are
    /// commands of this program that run, at most for `at_most` each.
    ///
    /// # Errors
    ///
    /// If something takes longer, if the system has no room, or if there is a client at standard input. Then everything goes
    /// on.
    pub fn freeze<'m>(
        engine: &Engine,
        muxes: impl IntoIterator<Item = &'m Mux>,
        servers: &[(&str, &ServerHandle)],
        at_most: Duration,
        program: &str,
    ) -> io::Result<Frozen> {
        let upstreams = muxes.into_iter().map(|mux| Arc::clone(&mux.shared.upstream)).collect();
        let upstreams = Held(upstreams);
        let until = Instant::now() + at_most;
        // All at once, so that they are waited for together.
        upstreams.0.iter().for_each(|upstream| _ = upstream.hold(Instant::now()));
        if !upstreams.0.iter().all(|upstream| upstream.hold(until)) {
            let error = format!("a descriptor has been on its way for {at_most:?}");
            return Err(io::Error::new(io::ErrorKind::TimedOut, error));
        }
        let (mut freezing, paused) = engine.freeze(at_most)?;
        let servers = servers.iter().map(|&(name, handle)| {
            let hosted = handle.hosted();
            if hosted.executing() > 0 {
                return Err(io::Error::other(format!("a command of '{name}' is executed")));
            }
            Ok((name.to_owned(), std::mem::take(freezing.server(hosted)?)))
        });
        let servers = servers.collect::<io::Result<_>>()?;
        let Freezing { packing, shared, links, left_behind, .. } = freezing;
        let (mut muxes, mut dial_in) = (Vec::new(), Vec::new());
        for link in links {
            match link.downcast() {
                Ok(mux) => muxes.push(*mux),
                Err(link) => dial_in.extend(link.downcast().map(|listener| *listener)),
            }
        }
        let texts = shared.into_texts().iter().map(|text| text.as_ref().to_owned()).collect();
        let program = program.to_owned();
        let packed = packing.finish(&Package { muxes, servers, dial_in, texts, program })?;
        Ok(Frozen { packed, left_behind, upstreams, paused })
    }

    /// Receives what another program has packed, from the first of these descriptors that has it. All of them are taken over
    /// and closed. To be called before anything is opened.
    ///
    /// # Errors
    ///
    /// If there is nothing, or in a format that is not known. Then everything that was handed over is closed.
    pub fn receive(descriptors: &[RawFd]) -> io::Result<Handover> {
        let mut received = Err(invalid("nothing was handed over"));
        for &descriptor in descriptors {
            let unpacked =
                inherited::take(descriptor).and_then(|socket| unpack::<Package>(&socket));
            if received.is_err() {
                received = unpacked;
            }
        }
        let unpacked = received?;
        let Package { muxes, servers, dial_in, texts, program } = unpacked.data;
        let mut luggage = unpacked.descriptors;
        Ok(Handover {
            muxes,
            servers,
            dial_in: take_listeners(dial_in, &mut luggage),
            texts: Arc::new(texts.into()),
            luggage: Arc::new(Mutex::new(luggage)),
            program,
        })
    }

    /// The text of the program that has packed this.
    pub fn program(&self) -> &str {
        &self.program
    }

    /// Has a mux go on with what another one of its name was, when it [serves](Mux::serve) this server. To be called before
    /// the server [listens](Server::listen): listeners that are asked for again are not opened anew. Does nothing if there was
    /// no such mux.
    pub fn resume(&mut self, mux: &Mux, server: Server) -> Server {
        // Also for a new machine at the socket of others.
        if let Some(dial_in) = &mux.shared.dial_in {
            let opened_as = dial_in.listen.address.to_string();
            let listeners = &mut self.dial_in.listeners;
            if let Some(place) = listeners.iter().position(|one| one.opened_as == opened_as) {
                let sockets = mux.shared.dial_in_sockets.get_or_init(DialInSockets::default);
                sockets.inherit(listeners.swap_remove(place));
            }
        }
        let is_agent = mux.shared.speaks == Speaks::Agent;
        let is_it = |state: &MuxState| state.name == mux.shared.name && state.is_agent == is_agent;
        let Some(place) = self.muxes.iter().position(is_it) else { return server };
        let mut state = self.muxes.swap_remove(place);
        let server = self.pass_on(std::mem::take(&mut state.server), server);
        mux.shared.take_over(MuxHandover { state, luggage: Arc::clone(&self.luggage) });
        server
    }

    /// Has a server go on with what another one was that was packed under this name, when it runs. To be called before it
    /// [listens](Server::listen).
    pub fn resume_server(&mut self, name: &str, server: Server) -> Server {
        match self.servers.iter().position(|(its_name, _)| its_name == name) {
            Some(place) => {
                let (_, state) = self.servers.swap_remove(place);
                self.pass_on(state, server)
            }
            None => server,
        }
    }

    fn pass_on(&self, state: ServerState, server: Server) -> Server {
        let ServerState { listeners, opened, arrivals, sessions } = state;
        let mut luggage = self.luggage.lock().unwrap_or_else(PoisonError::into_inner);
        let mut inherited = take_listeners(listeners, &mut luggage);
        inherited.opened = opened;
        let server = server.with_arrivals(arrivals, &mut luggage);
        drop(luggage);
        let (texts, luggage) = (Arc::clone(&self.texts), Arc::clone(&self.luggage));
        inherited.clients = Some(InheritedClients { sessions, texts, luggage });
        server.inheriting(inherited)
    }

    /// Names the muxes that nobody has gone on with.
    pub fn names(&self) -> impl Iterator<Item = Option<&str>> {
        self.muxes.iter().map(|mux| mux.name.as_deref())
    }
}

/// Removes the files of sockets that nobody listens at any more.
impl Drop for Handover {
    fn drop(&mut self) {
        let mut luggage = self.luggage.lock().unwrap_or_else(PoisonError::into_inner);
        let muxes = self.muxes.drain(..).map(|mux| mux.server);
        let servers = self.servers.drain(..).map(|(_, server)| server);
        for server in muxes.chain(servers) {
            drop(take_listeners(server.listeners, &mut luggage));
        }
    }
}

fn take_listeners(listeners: Vec<ListenerState>, luggage: &mut Luggage) -> Inherited {
    let mut inherited = Inherited::default();
    for ListenerState { opened_as, socket, file } in listeners {
        match (opened_as, luggage.take(socket)) {
            (Some(opened_as), Ok(socket)) => {
                inherited.listeners.push(InheritedListener { opened_as, socket, file });
            }
            (_, Err(error)) => tracing::error!(%error, "a listener was not handed over"),
            (None, Ok(_)) => {}
        }
    }
    inherited
}

impl fmt::Debug for Handover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.names()).finish()
    }
}
