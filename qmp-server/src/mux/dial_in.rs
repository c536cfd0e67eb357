// SPDX-License-Identifier: MIT OR Apache-2.0
//! Sockets at which upstream servers connect. Each is for one machine or for many: who has connected decides which of them it is.

mod arrivals;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};

use nix::unistd::Uid;

use self::arrivals::DialInLink;
use super::connection::Connection;
use super::dial::DialIn;
use super::upstream::Upstream;
use crate::access::{Logged, is_nobody, user_id};
use crate::engine::{Engine, ListenerState};
use crate::io::{Notice, Registration, STRANGERS, close_aside};
use crate::listen::{bind, take_over};
use crate::server::{Inherited, InheritedListener};
use crate::transport::{ExpectedName, Listener, Opened, Peer};
use crate::{Address, Listen};

/// The sockets at which upstream servers connect, for muxes that [share](crate::Mux::dial_in_at) them.
///
/// Which machine a server is of is decided by who it is: by the user of its process, or the names in its certificate. If
/// several machines are of that user, the server is asked for its name (`query-name`), which must be the
/// [name](crate::Mux::named) of one of them. A machine has one server at a time; others that connect for it are disconnected.
///
/// ```
/// use qmp_server::{Dial, DialInSockets, Mux};
///
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("qemu.sock");
/// let sockets = DialInSockets::default();
/// for (name, user) in [("vm0", 1001), ("vm1", 1002)] {
///     let upstream = format!("unix:{},dial-in=on,mode=0666,user={user}", path.display());
///     let mux = Mux::named(name, upstream.parse()?)?.dial_in_at(&sockets);
///     mux.open()?;
///     // It serves its clients on the same engine as the others.
/// #   assert!(path.exists());
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Default)]
pub struct DialInSockets(Arc<Mutex<Sockets>>);

#[derive(Default)]
struct Sockets {
    open: HashMap<Address, Weak<DialInSocket>>,
    /// What another program has handed over, until a mux listens there.
    inherited: Inherited,
}

impl fmt::Debug for DialInSockets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let open = self.lock().open.values().filter(|socket| socket.strong_count() > 0).count();
        f.debug_struct("DialInSockets").field("open", &open).finish()
    }
}

impl DialInSockets {
    fn lock(&self) -> MutexGuard<'_, Sockets> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Listens for the server of one more machine.
    pub(super) fn seat(
        &self,
        dial_in: &DialIn,
        name: Option<&str>,
        upstream: &Arc<Upstream>,
    ) -> io::Result<Membership> {
        let seat = Arc::new(Seat::new(dial_in, name, upstream)?);
        let mut sockets = self.lock();
        let address = &dial_in.listen.address;
        if let Some(socket) = sockets.open.get(address).and_then(Weak::upgrade)
            && socket.join(&seat)?
        {
            return Ok(Membership { socket, seat });
        }
        let socket = Arc::new(DialInSocket::open(dial_in, &mut sockets.inherited, &seat)?);
        sockets.open.retain(|_, socket| socket.strong_count() > 0);
        // What the system chooses a port for is another address each time.
        if !matches!(address, Address::Tcp { port: 0, .. } | Address::Tls { port: 0, .. }) {
            sockets.open.insert(address.clone(), Arc::downgrade(&socket));
        }
        Ok(Membership { socket, seat })
    }

    /// Has a listener of another program at hand.
    pub(super) fn inherit(&self, listener: InheritedListener) {
        self.lock().inherited.listeners.push(listener);
    }
}

/// A socket at which servers connect.
pub(super) struct DialInSocket {
    listen: Listen,
    state: Mutex<State>,
    /// It does not listen any more.
    closed: Condvar,
    logged: Logged,
    /// Connections of servers that were refused and are being closed, which may take long.
    closing: AtomicUsize,
}

struct State {
    seats: Vec<Arc<Seat>>,
    /// `None` when it is closed. That is done by the link, if there is one: it has the listener, too.
    listener: Option<Arc<dyn Listener>>,
    registration: Option<Arc<Registration>>,
}

/// What a server that has connected may be.
enum Choice {
    This(Arc<Seat>),
    /// One of several machines: its name decides.
    ByName,
}

impl DialInSocket {
    fn open(dial_in: &DialIn, inherited: &mut Inherited, seat: &Arc<Seat>) -> io::Result<Self> {
        let invalid = |error| io::Error::new(io::ErrorKind::InvalidInput, error);
        let listen = dial_in.of_all();
        let opened_as = listen.address.to_string();
        let those = inherited.listeners.iter().position(|one| one.opened_as == opened_as);
        let opened = match those.map(|place| inherited.listeners.swap_remove(place)) {
            Some(InheritedListener { socket, file, .. }) => {
                take_over(&listen, socket, file).map(|listener| vec![Opened::Listener(listener)])
            }
            None => bind(&listen),
        };
        let mut opened = opened.map_err(|error| error.reason)?.into_iter();
        let mut listener = match (opened.next(), opened.next()) {
            (Some(Opened::Listener(listener)), None) => listener,
            (_, Some(_)) => return Err(invalid("systemd has passed more than one such socket")),
            _ => return Err(invalid("is connected, and nobody can connect there")),
        };
        listener.open()?;
        let state = State {
            seats: vec![Arc::clone(seat)],
            listener: Some(listener.into()),
            registration: None,
        };
        Ok(DialInSocket {
            listen,
            state: Mutex::new(state),
            closed: Condvar::new(),
            logged: Logged::default(),
            closing: AtomicUsize::new(0),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a machine, unless this is closed. Returns whether it could be.
    fn join(&self, seat: &Arc<Seat>) -> io::Result<bool> {
        let mut state = self.state();
        if state.listener.is_none() {
            return Ok(false);
        }
        match state.seats.first() {
            // Those that are there go together, so one of them is enough.
            Some(other) => {
                let together = seat.dial_in.check_beside(&other.dial_in);
                together.map_err(|reason| io::Error::new(io::ErrorKind::AddrInUse, reason))?;
            }
            None if self.listen == seat.dial_in.of_all() => {}
            None => {
                // Another one takes its place, as soon as it is closed.
                drop(state);
                self.wait_until_left();
                return Ok(false);
            }
        }
        state.seats.push(Arc::clone(seat));
        Ok(true)
    }

    /// Accepts servers from now on, on the threads of this engine.
    pub(super) fn serve_on(self: &Arc<Self>, engine: &Engine) -> io::Result<()> {
        let mut state = self.state();
        let (Some(listener), None) = (&state.listener, &state.registration) else { return Ok(()) };
        let registration = engine.register();
        let link =
            DialInLink::new(Arc::clone(&registration), Arc::clone(self), Arc::clone(listener))?;
        state.registration = Some(registration);
        drop(state);
        engine.add_link(Box::new(link));
        Ok(())
    }

    fn leave(&self, seat: &Arc<Seat>) {
        let mut state = self.state();
        state.seats.retain(|other| !Arc::ptr_eq(other, seat));
        if state.seats.is_empty() {
            match &state.registration {
                Some(registration) => registration.post(Notice::Wake),
                None => state.close(),
            }
        }
        drop(state);
        drop(seat.set(Holder::Server));
    }

    /// Waits until it is closed, unless there are others for whom it is open.
    pub(super) fn wait_until_left(&self) {
        let is_closing = |state: &mut State| state.listener.is_some() && state.seats.is_empty();
        drop(self.closed.wait_while(self.state(), is_closing));
    }

    /// Whether there is no machine any more. Then none can be added: another socket takes the place of this one.
    fn close_if_left(&self, listener: &mut Option<Arc<dyn Listener>>) -> bool {
        let mut state = self.state();
        let is_left = state.seats.is_empty();
        if is_left {
            // Its address is free when others learn that it is closed.
            *listener = None;
            state.close();
            self.closed.notify_all();
        }
        is_left
    }

    /// Says that nobody accepts any more.
    fn abandon(&self, listener: &mut Option<Arc<dyn Listener>>) {
        *listener = None;
        self.state().close();
        self.closed.notify_all();
    }

    /// Which machine a server is of that has connected, as far as is known without its name, or with it.
    fn choose(&self, peer: &Peer, name: Option<Option<&str>>) -> Result<Choice, String> {
        let state = self.state();
        let is_alone = state.seats.len() == 1;
        let mut proven = state.seats.iter().filter(|seat| seat.is_proven_by(peer, is_alone));
        let seat = match name {
            Some(name) => proven.find(|seat| seat.name.is_some() && seat.name.as_deref() == name),
            None => match (proven.next(), proven.next()) {
                (None, _) => return Err("it may not".to_owned()),
                (seat, None) => seat,
                (Some(first), Some(second)) => {
                    let mut all = [first, second].into_iter().chain(proven);
                    return match all.any(|seat| seat.is_vacant()) {
                        true => Ok(Choice::ByName),
                        false => Err("all machines that it may be of have a server".to_owned()),
                    };
                }
            },
        };
        match (seat, name) {
            (Some(seat), _) if seat.is_vacant() => Ok(Choice::This(Arc::clone(seat))),
            (Some(seat), _) => Err(seat.has_server()),
            (None, Some(Some(name))) => {
                let name: String = name.chars().take(LONGEST_CLAIM).collect();
                let name = name.replace(char::is_control, " ");
                Err(format!("it has the name '{name}', and may not be of a machine of this name"))
            }
            (None, _) => Err("it has no name, and several machines may be meant".to_owned()),
        }
    }

    /// Says that a server is refused, unless that was said often enough.
    fn tell(&self, peer: Option<&Peer>, user: &str, reason: &str) {
        let Some(last) = self.logged.line(user) else { return };
        let socket = &self.listen.address;
        let peer: &dyn fmt::Display = peer.map_or(&"a server", |peer| peer);
        tracing::warn!(%socket, "{peer} has connected, and is refused: {reason}{last}");
    }

    /// Closes what may take long to be closed: a connection in which descriptors wait.
    fn close_aside(self: &Arc<Self>, connection: impl Send + 'static) {
        let socket = Arc::clone(self);
        socket.closing.fetch_add(1, Ordering::Relaxed);
        close_aside(STRANGERS, move || {
            drop(connection);
            socket.closing.fetch_sub(1, Ordering::Relaxed);
        });
    }

    /// What another program needs to go on with the listener.
    fn frozen(&self, listener: &dyn Listener, socket: u32) -> ListenerState {
        let opened_as = Some(self.listen.address.to_string());
        ListenerState { opened_as, socket, file: listener.file() }
    }
}

/// How many characters of what a server says it is called get into the log.
const LONGEST_CLAIM: usize = 255;

impl State {
    fn close(&mut self) {
        if let Some(listener) = self.listener.take() {
            listener.clean_up();
        }
    }
}

/// A mux that has a seat, until this is dropped.
pub(super) struct Membership {
    pub(super) socket: Arc<DialInSocket>,
    pub(super) seat: Arc<Seat>,
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.socket.leave(&self.seat);
    }
}

/// The place of a machine at a socket: which server it is for, and who has it.
pub(super) struct Seat {
    dial_in: DialIn,
    name: Option<String>,
    /// Whose process the server must be, if it is at a Unix socket.
    users: Vec<u32>,
    names: Vec<ExpectedName>,
    holder: Mutex<Holder>,
    upstream: Arc<Upstream>,
}

enum Holder {
    Nobody,
    /// A server that the mux has not looked at yet.
    Arrived(Box<Connection>),
    /// That which the mux is connected to. Nobody, either, if the mux has ended.
    Server,
}

impl Seat {
    fn new(dial_in: &DialIn, name: Option<&str>, upstream: &Arc<Upstream>) -> io::Result<Seat> {
        let users = match dial_in.user.as_deref() {
            Some(user) => vec![user_id(user)?],
            None => vec![0, Uid::effective().as_raw()],
        };
        let names = dial_in.allow_names().iter().map(|name| ExpectedName::new(name)).collect();
        Ok(Seat {
            dial_in: dial_in.clone(),
            name: name.map(str::to_owned),
            users,
            names,
            holder: Mutex::new(Holder::Nobody),
            upstream: Arc::clone(upstream),
        })
    }

    /// Whether a server may be that of this machine. If the machine is the only one, whoever the listener lets in may.
    fn is_proven_by(&self, peer: &Peer, is_alone: bool) -> bool {
        match peer {
            Peer::Process { uid, .. } => self.users.contains(uid) && !is_nobody(*uid),
            Peer::Certificate { names, .. } if !self.names.is_empty() => {
                self.names.iter().any(|expected| names.iter().any(|name| expected.is(name)))
            }
            _ => is_alone && self.names.is_empty(),
        }
    }

    fn holder(&self) -> MutexGuard<'_, Holder> {
        self.holder.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_vacant(&self) -> bool {
        matches!(*self.holder(), Holder::Nobody)
    }

    fn set(&self, holder: Holder) -> Holder {
        std::mem::replace(&mut *self.holder(), holder)
    }

    fn has_server(&self) -> String {
        match &self.name {
            Some(name) => format!("the machine '{name}' has a server"),
            None => "the machine has a server".to_owned(),
        }
    }

    /// Gives the seat to a server, unless another one has it: the first one stays.
    fn offer(&self, connection: Box<Connection>) -> Result<(), Box<Connection>> {
        let mut holder = self.holder();
        if !matches!(*holder, Holder::Nobody) {
            return Err(connection);
        }
        *holder = Holder::Arrived(connection);
        drop(holder);
        self.upstream.wake();
        Ok(())
    }

    /// The server that has come, if one has. Otherwise one may come from now on.
    pub(super) fn take(&self) -> Option<Box<Connection>> {
        let mut holder = self.holder();
        match std::mem::replace(&mut *holder, Holder::Server) {
            Holder::Arrived(connection) => Some(connection),
            Holder::Nobody | Holder::Server => {
                *holder = Holder::Nobody;
                None
            }
        }
    }

    /// Says that the server has gone.
    pub(super) fn vacate(&self) {
        let mut holder = self.holder();
        if matches!(*holder, Holder::Server) {
            *holder = Holder::Nobody;
        }
    }

    /// Says that there is a server, which was handed over.
    pub(super) fn occupy(&self) {
        drop(self.set(Holder::Server));
    }
}
