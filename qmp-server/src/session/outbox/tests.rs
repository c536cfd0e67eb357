// SPDX-License-Identifier: MIT OR Apache-2.0
//! Responses that wait.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use qmp_dispatch::Output;
use qmp_dispatch::proto::Layout;

use super::*;
use crate::access::{Accounts, Limits, Quota, Users};
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
        let users = Arc::new(Users::new(Quota::UNLIMITED));
        let accounts = Accounts::new(&Limits::default(), &users, Arc::clone(&registration));
        let ledger = accounts.admit("somebody").unwrap();
        let (socket, _) = UnixStream::pair().unwrap();
        let transport = Arc::new(Logged { socket, log: Arc::clone(&self.log), panics });
        let (counters, full) = (Arc::new(Counters::new()), 1 << 20);
        Outbox::new(registration, transport, Layout::Compact, full, &ledger, counters, &self.cork)
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
fn what_waits_is_written_in_the_order_in_which_it_was_made_and_together_for_one_client() {
    let site = Site::new();
    let (first, second) = (site.outbox(false), site.outbox(false));
    let corking = Corking::allow(&site.cork);
    for (outbox, response) in [(&first, "1"), (&first, "-"), (&second, "2"), (&first, "3")] {
        outbox.respond(response);
    }
    drop(corking);
    assert_eq!(site.written(), "");
    site.cork.flush();
    assert_eq!(site.written(), "123");
    assert!(!site.cork.any());
}

#[test]
fn nothing_that_is_made_later_overtakes_what_waits() {
    let text: Arc<str> = "2".into();
    let later: [fn(&Outbox, &Arc<str>); 3] = [
        |outbox, text| {
            outbox.transmit(text);
            outbox.flush();
        },
        |outbox, text| {
            outbox.transmit_event(text);
            outbox.flush();
        },
        |outbox, text| outbox.respond(text),
    ];
    for later in later {
        let site = Site::new();
        let (own, others) = (site.outbox(false), site.outbox(false));
        let corking = Corking::allow(&site.cork);
        own.respond("0");
        others.respond("1");
        drop(corking);
        later(&own, &text);
        assert_eq!(site.written(), "012");
    }
}

#[test]
fn what_waits_is_written_to_who_gets_nothing_else_any_more() {
    let site = Site::new();
    let (finished, closed) = (site.outbox(false), site.outbox(false));
    let corking = Corking::allow(&site.cork);
    finished.respond("1");
    drop(corking);
    finished.finish();
    let corking = Corking::allow(&site.cork);
    finished.respond("2");
    closed.respond("3");
    drop(corking);
    drop(closed.close());
    site.cork.flush();
    assert_eq!(site.written(), "1");
}

#[test]
fn few_bytes_wait_at_a_time() {
    let site = Site::new();
    let outbox = site.outbox(false);
    let _corking = Corking::allow(&site.cork);
    for _ in 0..5 {
        outbox.respond(&"1".repeat(AT_MOST / 2));
    }
    assert_eq!(site.written(), "11");
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
