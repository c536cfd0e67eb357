// SPDX-License-Identifier: MIT OR Apache-2.0
//! What runs without the leadership, and what comes of it. All foreign code runs here: handlers, interceptors, filters,
//! the end of monitors.

use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::Duration;

use qmp_dispatch::Pending;
use qmp_dispatch::proto::Error;
use qmp_queue::Popped;
use tracing::Span;

use super::gate::Gate;
use super::hosted::Hosted;
use super::link::{Input, Link, Next};
use super::listening::Listening;
use super::quick::CommandSlot;
use crate::access::{Groups, Ledger, Origin, Refused};
use crate::io::{Notice, Registration, STRANGERS, Token, close_aside};
use crate::observe::Counters;
use crate::session::{Client, Complete, Cork, Corking, Job, Large, OnLeave, Remains, Session};
use crate::transport::{Closing, Peer, Transport};

/// Something to be run without the leadership.
pub(super) enum Work {
    /// Greet a client that is let in.
    Connect {
        server: Arc<Hosted>,
        transport: Box<dyn Transport>,
        origin: Origin,
        admitted: (Peer, Arc<Ledger>),
        groups: Option<Groups>,
    },
    /// Tell of a client that is not let in, and end its connection.
    Refuse {
        server: Arc<Hosted>,
        transport: Box<dyn Transport>,
        listener: Option<usize>,
        refused: Refused,
    },
    /// Execute an in-band request.
    Execute {
        server: Arc<Hosted>,
        popped: Popped<Job>,
        /// Set if its response may be [corked](crate::session::Cork), once its command is known to be quick.
        slot: Option<CommandSlot>,
    },
    /// Execute an out-of-band request; the session waits for it.
    ExecuteOutOfBand {
        server: Arc<Hosted>,
        client: Arc<Client>,
        pending: Pending,
    },
    /// Execute what clients that negotiate have queued, out of turn.
    Negotiate {
        server: Arc<Hosted>,
        jobs: Vec<Job>,
    },
    /// Answer requests with an error, because their server ends.
    AnswerEnding {
        server: Token,
        requests: Vec<(Arc<Client>, Vec<Pending>)>,
    },
    HandleTimeout {
        server: Arc<Hosted>,
        token: Token,
    },
    /// Drop what is left of a session.
    Forget {
        server: Arc<Hosted>,
        remains: Box<Remains>,
    },
    /// End a connection that is not served.
    End {
        server: Arc<Hosted>,
        transport: Box<dyn Transport>,
        listener: Option<usize>,
    },
    /// Close a listener.
    EndListener(Listening),
    /// Drop something foreign.
    Drop(Box<dyn Any + Send>),
    /// Let a link handle an input.
    Lend {
        token: Token,
        link: Box<dyn Link>,
        input: Input,
    },
}

/// What has come of [`Work`], or what another thread wants the loop to take in.
pub(super) enum Done {
    Nothing,
    /// Work that another thread than the one that leads has run.
    Ran(Box<Done>),
    /// The loop is to be passed to a function at a point where nothing runs.
    #[cfg(feature = "mux")]
    Pause(super::handover::Pause),
    /// A client was greeted.
    Connected {
        server: Arc<Hosted>,
        session: Box<Session>,
    },
    /// A client was let in, but could not be greeted.
    NotConnected {
        server: Token,
    },
    /// A client wants to be let in.
    Arrived {
        server: Arc<Hosted>,
        transport: Box<dyn Transport>,
        origin: Origin,
    },
    /// A client has come that may have to wait until the doors are opened.
    Early {
        server: Arc<Hosted>,
        transport: Box<dyn Transport>,
        origin: Origin,
    },
    /// The groups of a user were looked up for the arrivals of a server.
    LookedUp {
        server: Token,
        uid: u32,
        groups: Groups,
    },
    /// A request was executed. The server may have `more` that can be executed now.
    Executed {
        server: Token,
        more: bool,
    },
    /// More of a large message of a client was read.
    Read {
        client: Arc<Client>,
        large: Box<Large>,
        complete: Option<Complete>,
    },
    /// What was left of a session has been dropped.
    Forgotten {
        server: Token,
    },
    AnsweredEnding {
        server: Token,
    },
    TimeoutHandled {
        server: Token,
    },
    /// A link is back.
    Returned {
        token: Token,
        link: Box<dyn Link>,
        next: Next,
    },
    /// A link is gone.
    Lost {
        link: Token,
    },
    /// A server is to be hosted.
    Host {
        server: Arc<Hosted>,
        listeners: Vec<Listening>,
        /// Of who waits for that.
        reply: Option<SyncSender<io::Result<()>>>,
    },
    /// Clients of a server are to be disconnected. No notice, because the server may not be hosted yet.
    Disconnect {
        server: Arc<Hosted>,
        whom: Whom,
    },
    /// The gate of a server is to be opened or shut. No notice for the same reason.
    Gate {
        server: Arc<Hosted>,
        gate: Gate,
    },
    /// A link is to be hosted.
    AddLink {
        link: Box<dyn Link>,
    },
}

/// Whom to disconnect.
pub(crate) enum Whom {
    /// All clients.
    All,
    /// Those that get no notices.
    Uninformed,
    These(Vec<Arc<Client>>),
}

impl Work {
    /// Whether it is known to be quick, so that responses may wait for it.
    pub(super) fn is_quick(&self) -> bool {
        match self {
            Work::Execute { server, slot: Some(slot), .. } => server.quick_runs.is_quick(*slot),
            _ => false,
        }
    }

    /// Runs it. A panic of foreign code ends what it was run for, and nothing else.
    pub(super) fn run(self, cork: &Cork) -> Done {
        let instead = self.panicked();
        let _entered = self.span().entered();
        catch_unwind(AssertUnwindSafe(|| self.run_unguarded(cork))).unwrap_or_else(|_| {
            tracing::error!("foreign code has panicked");
            instead
        })
    }

    /// That of its server.
    fn span(&self) -> Span {
        match self {
            Work::Connect { server, .. }
            | Work::Refuse { server, .. }
            | Work::Execute { server, .. }
            | Work::ExecuteOutOfBand { server, .. }
            | Work::Negotiate { server, .. }
            | Work::HandleTimeout { server, .. }
            | Work::Forget { server, .. }
            | Work::End { server, .. } => server.span.clone(),
            // A link has its own.
            Work::AnswerEnding { .. }
            | Work::EndListener(_)
            | Work::Drop(_)
            | Work::Lend { .. } => Span::none(),
        }
    }

    /// What has come of it if foreign code panics.
    fn panicked(&self) -> Done {
        match self {
            Work::Connect { server, .. } => server
                .registration
                .token()
                .map_or(Done::Nothing, |server| Done::NotConnected { server }),
            &Work::AnswerEnding { server, .. } => Done::AnsweredEnding { server },
            &Work::HandleTimeout { token, .. } => Done::TimeoutHandled { server: token },
            &Work::Lend { token, .. } => Done::Lost { link: token },
            Work::Forget { server, .. } => server
                .registration
                .token()
                .map_or(Done::Nothing, |server| Done::Forgotten { server }),
            Work::Execute { .. }
            | Work::ExecuteOutOfBand { .. }
            | Work::Refuse { .. }
            | Work::Negotiate { .. }
            | Work::End { .. }
            | Work::EndListener(_)
            | Work::Drop(_) => Done::Nothing,
        }
    }

    fn run_unguarded(self, cork: &Cork) -> Done {
        match self {
            Work::Connect { server, transport, origin, admitted, groups } => {
                let session = server.connect(transport, origin, admitted, groups);
                Done::Connected { server, session: session.into() }
            }
            Work::Refuse { server, transport, listener, refused } => {
                server.refuse(transport, listener, &refused);
                Done::Nothing
            }
            Work::Execute { server, popped, slot } => {
                let more = server.execute(popped, slot);
                match server.registration.token() {
                    Some(server) => Done::Executed { server, more },
                    None => Done::Nothing,
                }
            }
            Work::ExecuteOutOfBand { server, client, pending } => {
                let run = OutOfBandRun::new(&server, &client);
                client.monitor.execute(pending, move || drop(run));
                Done::Nothing
            }
            Work::Negotiate { server, jobs } => {
                server.negotiate(jobs);
                Done::Nothing
            }
            Work::AnswerEnding { server, requests } => {
                for (client, pending) in requests {
                    for pending in pending {
                        client
                            .monitor
                            .refuse(pending, Error::generic("The server is shutting down"));
                    }
                }
                Done::AnsweredEnding { server }
            }
            Work::HandleTimeout { server, token } => {
                server.dispatcher.handle_timeout();
                Done::TimeoutHandled { server: token }
            }
            Work::Forget { server, remains } => {
                server.forget(&remains.client);
                remains.client.monitor.close();
                if let Some(on_leave) = remains.client.monitor.local::<OnLeave>() {
                    on_leave.call();
                }
                remains.client.leave();
                let ledger = Arc::clone(&remains.client.ledger);
                let owner = ledger.owner();
                let token = server.registration.token();
                let forgotten = token.map_or(Done::Nothing, |server| Done::Forgotten { server });
                let transport = remains.drop_all_but_transport();
                match transport.closing() {
                    Closing::AtOnce => forgotten,
                    Closing::Slow => {
                        let being_closed = ledger.close();
                        close_aside(owner, move || {
                            transport.discard();
                            drop(transport);
                            drop(being_closed);
                        });
                        forgotten
                    }
                    Closing::Flushes => {
                        close_aside(owner, move || {
                            drop(transport);
                            server.post(forgotten);
                        });
                        Done::Nothing
                    }
                }
            }
            Work::End { server, transport, listener } => {
                server.end(transport, listener, None);
                Done::Nothing
            }
            Work::EndListener(listening) => {
                if listening.listener.closing() == Closing::AtOnce {
                    drop(listening);
                } else {
                    close_aside(STRANGERS, move || drop(listening));
                }
                Done::Nothing
            }
            Work::Drop(foreign) => {
                drop(foreign);
                Done::Nothing
            }
            Work::Lend { token, mut link, input } => {
                let _corking = Corking::allow(cork);
                let next = link.handle(input);
                Done::Returned { token, link, next }
            }
        }
    }
}

/// One out-of-band request that is executed, until it has been answered; ends however that ends.
struct OutOfBandRun {
    counters: Arc<Counters>,
    began: Duration,
    session: Arc<Registration>,
}

impl OutOfBandRun {
    fn new(server: &Hosted, client: &Client) -> OutOfBandRun {
        let counters = Arc::clone(&server.counters);
        let session = Arc::clone(&client.registration);
        OutOfBandRun { began: counters.now(), counters, session }
    }
}

impl Drop for OutOfBandRun {
    fn drop(&mut self) {
        let took = self.counters.now().saturating_sub(self.began);
        self.counters.executed_out_of_band.add(took);
        self.session.post(Notice::Executed);
    }
}
