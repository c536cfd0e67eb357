// SPDX-License-Identifier: MIT OR Apache-2.0
//! The main loop, rust-vmm's: it accepts NBD clients, executes QMP commands and looks after signals.

use std::error::Error;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use event_manager::{EventManager, EventOps, EventSet, Events, MutEventSubscriber, SubscriberOps};
use qmp_server::{Embedded, ShutdownCause};

use crate::back_end::BackEnd;
use crate::clients::Clients;
use crate::events;
use crate::export::{Failure, Operation};
use crate::socket::Socket;

pub(crate) struct MainLoop {
    pub(crate) qmp: Embedded,
    pub(crate) socket: Socket,
    /// A byte comes from here for each signal that is to end the program.
    pub(crate) signals: UnixStream,
    pub(crate) clients: Clients,
    pub(crate) back_end: Arc<BackEnd>,
}

const QMP: u32 = 0;
const NBD: u32 = 1;
const SIGNALS: u32 = 2;

impl MutEventSubscriber for MainLoop {
    fn init(&mut self, ops: &mut EventOps) {
        let sources = [
            Events::with_data(&self.qmp, QMP, EventSet::IN),
            Events::with_data(&self.socket, NBD, EventSet::IN),
            Events::with_data(&self.signals, SIGNALS, EventSet::IN),
        ];
        for source in sources {
            ops.add(source).expect("descriptors that nobody polls yet");
        }
    }

    fn process(&mut self, events: Events, ops: &mut EventOps) {
        match events.data() {
            // One command at a time: as long as there are more, the descriptor stays readable.
            QMP => {
                self.qmp.dispatch_one();
            }
            NBD => self.accept(),
            _ => {
                // Once is enough.
                ops.remove(events).expect("a descriptor that is polled");
                self.end(ShutdownCause::HostSignal);
            }
        }
    }
}

impl MainLoop {
    /// Runs until somebody has said `quit`, or sent a signal.
    pub(crate) fn run(self) -> Result<(), Box<dyn Error>> {
        let back_end = Arc::clone(&self.back_end);
        let mut manager = EventManager::new()?;
        let this = manager.add_subscriber(self);
        while !back_end.is_quitting() {
            manager.run()?;
        }
        manager.remove_subscriber(this)?.finish()
    }

    fn accept(&mut self) {
        let served = self.socket.accept().and_then(|client| match client {
            Some(client) => self.clients.serve(client),
            None => Ok(()),
        });
        if let Err(error) = served {
            eprintln!("nbd: a client is not served: {error}");
        }
    }

    fn end(&self, cause: ShutdownCause) {
        if let Err(error) = events::shutdown(self.qmp.dispatcher(), cause) {
            eprintln!("nbd: {error}");
        }
        self.back_end.quit();
    }

    /// Ends the devices first and QMP last, so that its clients learn how it went.
    fn finish(self) -> Result<(), Box<dyn Error>> {
        drop(self.socket);
        self.clients.finish();
        let mut result = Ok(());
        for export in self.back_end.exports() {
            if let Err(Failure::Io(error)) = export.flush() {
                let name = export.name();
                events::block_io_error(self.qmp.dispatcher(), name, Operation::Flush, &error);
                result = Err(format!("cannot flush device '{name}': {error}").into());
            }
            events::block_export_deleted(self.qmp.dispatcher(), export)?;
        }
        self.qmp.control().shutdown();
        self.qmp.wait();
        result
    }
}
