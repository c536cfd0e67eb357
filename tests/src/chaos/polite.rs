// SPDX-License-Identifier: MIT OR Apache-2.0
//! Clients that read what they get, and know what it must be.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::{PollFd, PollFlags, Timespec};

use super::site::Site;
use crate::channel::Channel;
use crate::connection::shown;
use crate::inputs::Random;
use crate::server::LIMIT;

/// How many requests a client has in flight at most.
const IN_FLIGHT: usize = 8;
/// How many answers each of the others may get at most while a client waits for one. The order is fair, so it should be
/// one for each request in flight before, and some that had been read already.
const MOST_MEANWHILE: u64 = 250;

/// Some clients, on one thread: what one of them has to wait for is measured in what the others get, and no scheduler
/// of the system decides who is quick.
pub(super) struct Polite {
    members: Vec<Member>,
    random: Random,
    /// Totals of all clients.
    answers: u64,
    longest_wait: u64,
}

#[derive(Debug)]
pub(super) struct Checked {
    pub(super) answers: u64,
    /// The most that others got while one waited.
    pub(super) longest_wait: u64,
}

impl Polite {
    /// Connects and negotiates: over each transport, with out-of-band execution and without.
    pub(super) fn connect(site: &Site, random: Random) -> Result<Polite, String> {
        let mut members = Vec::new();
        for endpoint in &site.doors().endpoints {
            for oob in [false, true] {
                let channel = endpoint
                    .connect(LIMIT)
                    .map_err(|error| format!("cannot connect to {endpoint}: {error}"))?;
                members.push(Member::new(members.len(), channel, oob));
            }
        }
        let mut polite = Polite { members, random, answers: 0, longest_wait: 0 };
        polite.finish()?;
        Ok(polite)
    }

    /// Asks and checks until it is `over` for others, and then that all have been sent the same events.
    pub(super) fn talk(mut self, over: &AtomicBool) -> Result<Checked, String> {
        loop {
            let last = over.load(Ordering::Relaxed);
            for index in 0..self.members.len() {
                if !last && self.random.one_in(2) {
                    self.ask(index);
                }
            }
            if last && self.members.iter().all(Member::is_answered) {
                break;
            }
            self.exchange()?;
        }
        if !self.members[0].running {
            self.members[0].request(Request::StopOrCont, self.answers);
            self.finish()?;
        }
        // A client that has the answer has also been sent all earlier events.
        for member in &mut self.members {
            member.request(Request::Name, self.answers);
        }
        self.finish()?;
        let events = self.members[0].events;
        match self.members.iter().find(|member| member.events != events) {
            Some(member) => Err(format!(
                "client {} has got other events than the first: {:?}, not {events:?}",
                member.number, member.events
            )),
            None => Ok(Checked { answers: self.answers, longest_wait: self.longest_wait }),
        }
    }

    /// Waits until everything has been answered.
    fn finish(&mut self) -> Result<(), String> {
        while !self.members.iter().all(Member::is_answered) {
            self.exchange()?;
        }
        Ok(())
    }

    /// Lets a client send more requests.
    fn ask(&mut self, index: usize) {
        let room = IN_FLIGHT - self.members[index].in_flight();
        for _ in 0..self.random.below(room + 1) {
            let member = &mut self.members[index];
            let request = match self.random.below(10) {
                // One of them only, which so knows what comes of it.
                0 if member.number == 0 => Request::StopOrCont,
                1..5 if member.oob => Request::OutOfBand,
                5 => Request::Schema,
                6..8 => Request::Unknown,
                _ => Request::Name,
            };
            member.request(request, self.answers);
        }
    }

    /// Waits until something can be read or written, and does so.
    fn exchange(&mut self) -> Result<(), String> {
        let mut polled: Vec<_> = self
            .members
            .iter()
            .map(|member| PollFd::from_borrowed_fd(member.channel.readable(), member.interest()))
            .collect();
        // Without anything to wait for there is something to ask.
        let idle = self.members.iter().all(Member::is_answered);
        let patience = if idle { Ok(Timespec::default()) } else { Timespec::try_from(LIMIT) };
        let ready = rustix::event::poll(&mut polled, patience.ok().as_ref())
            .map_err(|error| format!("cannot poll: {error}"))?;
        if ready == 0 && !idle {
            let waiting = self.members.iter().filter(|member| !member.is_answered());
            let who: Vec<_> = waiting.map(|member| member.number).collect();
            return Err(format!("clients {who:?} have got nothing for {LIMIT:?}"));
        }
        let ready: Vec<_> = polled.iter().map(|polled| !polled.revents().is_empty()).collect();
        let others = self.members.len() as u64 - 1;
        for (member, _) in self.members.iter_mut().zip(ready).filter(|(_, ready)| *ready) {
            let wait = member.exchange(&mut self.answers)?;
            self.longest_wait = self.longest_wait.max(wait);
            if wait > others * MOST_MEANWHILE {
                return Err(format!(
                    "client {} has waited while {others} others were sent {wait} answers",
                    member.number
                ));
            }
        }
        Ok(())
    }
}

enum Request {
    Name,
    Schema,
    Unknown,
    StopOrCont,
    OutOfBand,
}

struct Expected {
    text: Answer,
    /// How many answers all clients had got when it was asked for, and how many this one.
    asked_at: (u64, u64),
}

enum Answer {
    Text(String),
    /// A large one, with this end.
    LargeWith(String),
    /// Success, after this event.
    After(&'static str),
}

struct Member {
    number: usize,
    oob: bool,
    channel: Box<dyn Channel>,
    unsent: Vec<u8>,
    received: Vec<u8>,
    /// How much of `received` holds no line end.
    scanned: usize,
    greeted: bool,
    in_band: VecDeque<Expected>,
    out_of_band: VecDeque<Expected>,
    requests: u64,
    answers: u64,
    running: bool,
    last_event: String,
    /// How many there were, and what they were, in their order.
    events: (u64, u64),
}

impl Member {
    fn new(number: usize, channel: Box<dyn Channel>, oob: bool) -> Member {
        let mut member = Member {
            number,
            oob,
            channel,
            unsent: Vec::new(),
            received: Vec::new(),
            scanned: 0,
            greeted: false,
            in_band: VecDeque::new(),
            out_of_band: VecDeque::new(),
            requests: 0,
            answers: 0,
            running: true,
            last_event: String::new(),
            events: (0, 0),
        };
        let enable = if oob { r#""oob""# } else { "" };
        let negotiation =
            format!(r#"{{"execute": "qmp_capabilities", "arguments": {{"enable": [{enable}]}}}}"#);
        member.unsent.extend_from_slice(negotiation.as_bytes());
        member.in_band.push_back(Expected {
            text: Answer::Text(r#"{"return": {}}"#.to_owned()),
            asked_at: (0, 0),
        });
        member
    }

    fn in_flight(&self) -> usize {
        self.in_band.len() + self.out_of_band.len()
    }

    fn is_answered(&self) -> bool {
        self.in_flight() == 0
    }

    fn interest(&self) -> PollFlags {
        if self.unsent.is_empty() { PollFlags::IN } else { PollFlags::IN | PollFlags::OUT }
    }

    /// Asks; `at` is how many answers all clients have got.
    fn request(&mut self, request: Request, at: u64) {
        let id = format!(r#"["{}", {}]"#, self.number, self.requests);
        self.requests += 1;
        let answer = |text: &str| Answer::Text(format!(r#"{{"return": {text}, "id": {id}}}"#));
        let (word, command, text) = match request {
            Request::Name => ("execute", "query-name", answer(r#"{"name": "confvm"}"#)),
            Request::Schema => {
                ("execute", "query-qmp-schema", Answer::LargeWith(format!(r#"], "id": {id}}}"#)))
            }
            Request::StopOrCont => {
                self.running = !self.running;
                match self.running {
                    true => ("execute", "cont", Answer::After("RESUME")),
                    false => ("execute", "stop", Answer::After("STOP")),
                }
            }
            Request::Unknown => ("execute", "no-such", Answer::Text(not_found(&id))),
            Request::OutOfBand => ("exec-oob", "no-such", Answer::Text(not_found(&id))),
        };
        let line = format!("{{\"{word}\": \"{command}\", \"id\": {id}}}\n");
        self.unsent.extend_from_slice(line.as_bytes());
        let line = if word == "execute" { &mut self.in_band } else { &mut self.out_of_band };
        line.push_back(Expected { text, asked_at: (at, self.answers) });
    }

    /// Sends what fits, reads what is there, and checks it; `all` counts everybody's answers. The most that others have
    /// got while this client waited for one of them.
    fn exchange(&mut self, all: &mut u64) -> Result<u64, String> {
        self.send().map_err(|error| format!("client {} cannot send: {error}", self.number))?;
        match self.channel.receive(&mut self.received) {
            Ok(0) => return Err(format!("client {} is disconnected", self.number)),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(0),
            Err(error) => return Err(format!("client {} cannot receive: {error}", self.number)),
        }
        let mut longest = 0;
        let received = std::mem::take(&mut self.received);
        let mut rest = &received[..];
        while let Some(length) = rest[self.scanned..].iter().position(|&byte| byte == b'\n') {
            let (line, behind) = rest.split_at(self.scanned + length + 1);
            (rest, self.scanned) = (behind, 0);
            let line = std::str::from_utf8(line).ok().and_then(|line| line.strip_suffix("\r\n"));
            let line = line.ok_or_else(|| format!("client {} got no line", self.number))?;
            if let Some((at, own)) = self.check(line)? {
                longest = longest.max((*all - at) - (self.answers - own));
                self.answers += 1;
                *all += 1;
            }
        }
        self.scanned = rest.len();
        self.received = rest.to_vec();
        Ok(longest)
    }

    fn send(&mut self) -> io::Result<()> {
        let mut sent = 0;
        let done = loop {
            match &self.unsent[sent..] {
                [] => break self.channel.flush(),
                left => match self.channel.send(left, &[]) {
                    Ok(more) => sent += more,
                    Err(error) => break Err(error),
                },
            }
        };
        self.unsent.drain(..sent);
        match done {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
            _ => Ok(()),
        }
    }

    /// Checks a line. If it is an answer, when it was asked for.
    fn check(&mut self, line: &str) -> Result<Option<(u64, u64)>, String> {
        if !self.greeted && line.starts_with(r#"{"QMP": "#) {
            self.greeted = true;
            return Ok(None);
        }
        if line.starts_with(r#"{"timestamp": "#) {
            self.note_event(line);
            return Ok(None);
        }
        // In band and out of band each keep their order, and no two answers are alike.
        let fits = |expected: &VecDeque<Expected>| {
            expected.front().is_some_and(|expected| match &expected.text {
                Answer::Text(text) => line == text,
                Answer::LargeWith(end) => {
                    line.starts_with(r#"{"return": [{"#) && line.ends_with(end)
                }
                Answer::After(event) => {
                    line.starts_with(r#"{"return": {}, "id": "#) && self.last_event == *event
                }
            })
        };
        let expected = if fits(&self.in_band) {
            self.in_band.pop_front()
        } else if fits(&self.out_of_band) {
            self.out_of_band.pop_front()
        } else {
            None
        };
        match expected {
            Some(Expected { asked_at, .. }) => Ok(Some(asked_at)),
            None => {
                let next = |expected: &VecDeque<Expected>| match expected.front() {
                    None => "nothing".to_owned(),
                    Some(Expected { text: Answer::Text(text), .. }) => text.clone(),
                    Some(Expected { text: Answer::LargeWith(end), .. }) => format!("...{end}"),
                    Some(Expected { text: Answer::After(event), .. }) => {
                        format!("success after {event} (the last event was {})", self.last_event)
                    }
                };
                Err(format!(
                    "client {} got {}, while it waited for {} in band and {} out of band",
                    self.number,
                    shown(line),
                    next(&self.in_band),
                    next(&self.out_of_band)
                ))
            }
        }
    }

    fn note_event(&mut self, line: &str) {
        let name = line.split_once(r#""event": ""#).and_then(|(_, rest)| rest.split_once('"'));
        self.last_event = name.map_or("", |(name, _)| name).to_owned();
        let (count, sum) = self.events;
        let sum = line
            .bytes()
            .fold(sum, |sum, byte| sum.wrapping_mul(0x0100_0000_01B3) ^ u64::from(byte));
        self.events = (count + 1, sum);
    }
}

fn not_found(id: &str) -> String {
    let error = r#"{"class": "CommandNotFound", "desc": "The command no-such has not been found"}"#;
    format!(r#"{{"id": {id}, "error": {error}}}"#)
}
