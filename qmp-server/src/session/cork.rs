// SPDX-License-Identifier: MIT OR Apache-2.0
//! Responses that wait for what follows, so that several go to a client in one write.
//!
//! A response waits only if the thread that executed its request [may cork](Corking): before handlers that are known to
//! be quick. Nothing overtakes it: whatever is written at once writes the corked responses of all clients first, in the
//! order in which they were made.

use std::cell::Cell;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::{mem, ptr};

use super::outbox::Outbox;
use crate::io::Mailbox;

/// The outboxes of an engine that have corked responses.
pub(crate) struct Cork {
    /// Whether any response waits or is being written, for a look without the lock.
    any: AtomicBool,
    /// Held while responses are written: who writes something later waits for it. Locked before an outbox.
    writing: Mutex<()>,
    /// Each once, in the order of their responses. Locked after an outbox, never before one.
    outboxes: Mutex<Vec<Arc<Outbox>>>,
    /// Of the loop that writes them before it sleeps.
    mailbox: Arc<Mailbox>,
}

impl Cork {
    pub(crate) fn new(mailbox: &Arc<Mailbox>) -> Cork {
        Cork {
            any: AtomicBool::new(false),
            writing: Mutex::default(),
            outboxes: Mutex::default(),
            mailbox: Arc::clone(mailbox),
        }
    }

    /// Whether a response waits or is being written.
    pub(crate) fn any(&self) -> bool {
        self.any.load(Ordering::SeqCst)
    }

    /// Whether one more response in this outbox would be written after all that were made before it.
    pub(super) fn keeps_order(&self, outbox: &Outbox) -> bool {
        if !self.any() {
            return true;
        }
        let corked = self.lock();
        let others = corked.iter().rev().skip_while(|last| ptr::eq(&***last, outbox));
        others.into_iter().all(|other| !ptr::eq(&**other, outbox))
    }

    pub(super) fn add(&self, outbox: Arc<Outbox>) {
        let mut corked = self.lock();
        if !corked.last().is_some_and(|last| Arc::ptr_eq(last, &outbox)) {
            corked.push(outbox);
        }
        self.any.store(true, Ordering::SeqCst);
        drop(corked);
        // Of a run that goes on though another thread has stepped in.
        self.mailbox.rouse();
    }

    /// Writes all responses that wait.
    pub(crate) fn flush(&self) {
        if !self.any() {
            return;
        }
        let _in_turn = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let mut corked = self.lock();
            if corked.is_empty() {
                return self.any.store(false, Ordering::SeqCst);
            }
            let outboxes = mem::take(&mut *corked);
            drop(corked);
            outboxes.iter().for_each(|outbox| outbox.uncork());
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Outbox>>> {
        self.outboxes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

thread_local! {
    /// The address of the cork that this thread may use, or 0. Others are those of other engines, whose loops would not
    /// know that something waits.
    static MAY_CORK: Cell<usize> = const { Cell::new(0) };
}

/// As long as this lives, responses that this thread makes for clients of the cork's engine may wait.
pub(crate) struct Corking<'a>(PhantomData<&'a Cork>);

impl<'a> Corking<'a> {
    pub(crate) fn allow(cork: &'a Cork) -> Corking<'a> {
        MAY_CORK.set(ptr::from_ref(cork).addr());
        Corking(PhantomData)
    }

    /// Whether this thread may use this cork.
    pub(super) fn is_allowed(cork: &Cork) -> bool {
        MAY_CORK.get() == ptr::from_ref(cork).addr()
    }
}

impl Drop for Corking<'_> {
    fn drop(&mut self) {
        MAY_CORK.set(0);
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
    use std::os::unix::net::UnixStream;

    use qmp_dispatch::Output;
    use qmp_dispatch::proto::Layout;

    use super::*;
    use crate::access::{Accounts, Limits};
    use crate::io::Registration;
    use crate::observe::Counters;
    use crate::transport::{Peer, Received, Transport};

    /// Everything that was written, in its order: the first byte of each.
    type Log = Arc<Mutex<String>>;

    struct Logged {
        socket: UnixStream,
        log: Log,
        panics: bool,
    }

    impl AsFd for Logged {
        fn as_fd(&self) -> BorrowedFd<'_> {
            self.socket.as_fd()
        }
    }

    impl Transport for Logged {
        fn peer(&self) -> io::Result<Peer> {
            Ok(Peer::Starter)
        }

        fn receive(&self, _: &mut [u8], _: &mut Vec<OwnedFd>) -> io::Result<Received> {
            Err(io::ErrorKind::WouldBlock.into())
        }

        fn send(&self, bytes: &[u8]) -> io::Result<usize> {
            assert!(!self.panics, "as tested");
            self.log.lock().unwrap().push(bytes[0].into());
            Ok(bytes.len())
        }

        fn shutdown(&self) {}
    }

    struct Site {
        mailbox: Arc<Mailbox>,
        cork: Arc<Cork>,
        log: Log,
    }

    impl Site {
        fn new() -> Site {
            let mailbox = Arc::new(Mailbox::new().unwrap());
            let cork = Arc::new(Cork::new(&mailbox));
            Site { mailbox, cork, log: Log::default() }
        }

        fn outbox(&self, panics: bool) -> Arc<Outbox> {
            let registration = Registration::new(&self.mailbox);
            let accounts = Accounts::new(&Limits::default(), Arc::clone(&registration));
            let ledger = accounts.admit("somebody").unwrap();
            let (socket, _) = UnixStream::pair().unwrap();
            let transport = Arc::new(Logged { socket, log: Arc::clone(&self.log), panics });
            let (counters, full) = (Arc::new(Counters::new()), 1 << 20);
            Outbox::new(
                registration,
                transport,
                Layout::Compact,
                full,
                &ledger,
                counters,
                &self.cork,
            )
        }

        fn written(&self) -> String {
            self.log.lock().unwrap().clone()
        }
    }

    #[test]
    fn a_response_that_is_too_long_to_wait_overtakes_nobodys() {
        let site = Site::new();
        let (first, second) = (site.outbox(false), site.outbox(false));
        let corking = Corking::allow(&site.cork);
        first.respond("1");
        assert_eq!(site.written(), "");
        second.respond(&"2".repeat(1 << 20));
        drop(corking);
        assert_eq!(site.written(), "12");
    }

    #[test]
    fn a_transport_that_panics_costs_others_nothing() {
        let site = Site::new();
        let outboxes = [false, true, false].map(|panics| site.outbox(panics));
        let corking = Corking::allow(&site.cork);
        for (number, outbox) in outboxes.iter().enumerate() {
            outbox.respond(&number.to_string());
        }
        drop(corking);
        site.cork.flush();
        assert_eq!(site.written(), "02");
        assert!(outboxes[1].has_sent_all(), "there is nothing that its end would wait for");
    }

    #[test]
    fn nothing_waits_for_a_loop_that_knows_nothing_of_it() {
        let (site, other) = (Site::new(), Site::new());
        let outbox = site.outbox(false);
        let corking = Corking::allow(&other.cork);
        outbox.respond("1");
        drop(corking);
        assert_eq!(site.written(), "1");
    }

    #[test]
    fn nothing_waits_for_a_loop_that_sleeps() {
        let site = Site::new();
        let outbox = site.outbox(false);
        let corking = Corking::allow(&site.cork);
        assert!(site.mailbox.announce_sleep());
        outbox.respond("1");
        drop(corking);
        let woken = rustix::io::read(&site.mailbox, &mut [0u8; 8]);
        assert!(woken.is_ok() || site.written() == "1");
    }
}
