// SPDX-License-Identifier: MIT OR Apache-2.0
//! Many clients of one server, on one thread.

use std::io;
use std::os::fd::OwnedFd;

use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};

use super::client::Client;

const PATIENCE: Timespec = Timespec { tv_sec: 20, tv_nsec: 0 };

/// Clients, each of which keeps as many requests in flight as it may.
#[derive(Debug)]
pub struct Crowd {
    epoll: OwnedFd,
    members: Vec<Client>,
    in_flight: usize,
    served: Vec<u64>,
}

impl Crowd {
    /// Clients that have no request in flight yet, and will have this many.
    pub fn new(members: Vec<Client>, in_flight: usize) -> io::Result<Crowd> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        for (number, member) in (0..).zip(&members) {
            epoll::add(&epoll, member, EventData::new_u64(number), EventFlags::IN)?;
        }
        let served = vec![0; members.len()];
        Ok(Crowd { epoll, members, in_flight, served })
    }

    /// Asks, and asks again for each answer, until `enough` says so, which is told how many have come. Then waits for
    /// what is in flight. How many answers have come until then.
    pub fn run(&mut self, mut enough: impl FnMut(u64) -> bool) -> io::Result<u64> {
        let mut left = 0;
        for member in &mut self.members {
            member.ask(self.in_flight)?;
            left += self.in_flight;
        }
        let mut total = 0;
        let mut until_enough = None;
        let mut events = Vec::with_capacity(self.members.len());
        while left > 0 {
            epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&PATIENCE))?;
            if events.is_empty() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            for event in events.drain(..) {
                let number = event.data.u64() as usize;
                let answers = self.members[number].receive()?;
                total += answers as u64;
                if until_enough.is_none() && enough(total) {
                    until_enough = Some(total);
                }
                match until_enough {
                    None => {
                        self.served[number] += answers as u64;
                        self.members[number].ask(answers)?;
                    }
                    Some(_) => left -= answers,
                }
            }
        }
        Ok(until_enough.unwrap_or(total))
    }

    /// One of them, to be asked alone.
    pub fn first(&mut self) -> &mut Client {
        &mut self.members[0]
    }

    /// How many answers each of them has got while all were asking.
    pub fn served(&self) -> &[u64] {
        &self.served
    }
}
