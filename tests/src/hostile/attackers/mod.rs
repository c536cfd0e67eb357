// SPDX-License-Identifier: MIT OR Apache-2.0
//! The attackers. Each has a thread that attacks again and again, within its share of a processor.

mod descriptors;
mod floods;
mod handshakes;
mod leaving;
mod messages;
mod reading;
mod socket;

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, Read};
use std::net::TcpListener;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rustix::process::geteuid;
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use super::pace::{Pace, Stop, processor_time};
use super::site::ATTACKERS as USER;
use super::{Kind, Target};
use crate::bench::machine::ManyDescriptors;
use crate::inputs::Random;
use socket::Socket;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum For {
    All,
    /// Targets that know QMP and receive descriptors.
    Qmp,
    Mux,
    /// The machine of `serve`.
    Serve,
}

impl For {
    fn includes(self, kind: Kind) -> bool {
        match self {
            For::All => true,
            For::Qmp => kind != Kind::Echo,
            For::Mux => kind == Kind::Mux,
            For::Serve => kind == Kind::Serve,
        }
    }
}

struct Attacker {
    name: &'static str,
    targets: For,
    /// Shortest time between two attempts.
    pause: Duration,
    /// Attacks once. Fails if the target does not let the attack happen.
    attempt: fn(&mut Intruder<'_>) -> io::Result<()>,
}

const fn attacker(
    name: &'static str,
    targets: For,
    pause_ms: u64,
    attempt: fn(&mut Intruder<'_>) -> io::Result<()>,
) -> Attacker {
    Attacker { name, targets, pause: Duration::from_millis(pause_ms), attempt }
}

const ATTACKERS: &[Attacker] = &[
    attacker("colliding names", For::All, 20, messages::colliding_names),
    attacker("many unexpected arguments", For::All, 20, messages::many_arguments),
    attacker("secrets for the audit", For::All, 10, messages::secrets),
    attacker("long names", For::All, 20, messages::long_names),
    attacker("deep values", For::All, 10, messages::deep_values),
    attacker("messages near the limits", For::All, 5000, messages::near_the_limits),
    attacker("broken JSON", For::All, 10, messages::broken_json),
    attacker("lingering descriptors", For::Qmp, 50, descriptors::lingering),
    attacker("253 descriptors a message", For::Qmp, 20, descriptors::many),
    attacker("descriptors left unread", For::Qmp, 20, descriptors::left_unread),
    attacker("names of descriptors", For::Qmp, 50, descriptors::names),
    attacker("silent connections", For::All, 20, handshakes::silent),
    attacker("unfinished negotiations", For::All, 20, handshakes::unfinished),
    attacker("unfinished TLS handshakes", For::All, 50, handshakes::unfinished_tls),
    attacker("connection storm", For::All, 20, handshakes::storm),
    attacker("metrics byte by byte", For::All, 50, handshakes::metrics_byte_by_byte),
    attacker("metrics that nobody reads", For::All, 50, handshakes::unread_metrics),
    attacker("long events", For::Mux, 3000, reading::long_events),
    attacker("many events", For::Serve, 100, reading::many_events),
    attacker("answers that nobody reads", For::All, 50, reading::unread_answers),
    attacker("one byte at a time", For::All, 20, reading::byte_by_byte),
    attacker("backlog and hang-up", For::All, 20, leaving::backlog_and_hang_up),
    attacker("half-open closing", For::All, 20, leaving::half_open),
    attacker("full quotas", For::All, 2000, floods::full_quotas),
    attacker("in-band flood", For::All, 5, floods::in_band),
    attacker("out-of-band flood", For::All, 5, floods::out_of_band),
    attacker("denied commands", For::All, 5, floods::denied),
];

struct Intruder<'a> {
    target: &'a Target,
    random: Random,
    /// Sockets that are kept open.
    kept: VecDeque<Socket>,
    /// A listener of its own, for pairs of TCP sockets.
    listener: Option<TcpListener>,
    attempts: u64,
}

impl Intruder<'_> {
    fn admin(&self) -> io::Result<Socket> {
        Socket::unix(&self.target.admin)
    }

    fn observer(&self) -> io::Result<Socket> {
        Socket::unix(&self.target.observer)
    }

    fn tcp(&self) -> io::Result<Socket> {
        self.port(self.target.tcp)
    }

    fn tls(&self) -> io::Result<Socket> {
        self.port(self.target.tls)
    }

    /// A loopback port. The echo has no port: its Unix socket takes the attacks on all of them.
    fn port(&self, port: u16) -> io::Result<Socket> {
        if self.target.kind == Kind::Echo { self.admin() } else { Socket::tcp(port) }
    }

    /// One of them.
    fn any(&mut self) -> io::Result<Socket> {
        match self.random.below(3) {
            0 => self.admin(),
            1 => self.observer(),
            _ => self.tcp(),
        }
    }

    /// Keeps a socket open. Closes the oldest one if there are more than `most`.
    fn keep(&mut self, socket: Socket, most: usize) {
        self.kept.push_back(socket);
        while self.kept.len() > most {
            self.kept.pop_front();
        }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Score {
    pub(super) name: String,
    attempts: u64,
    pub(super) successes: u64,
    /// Attempts that had no answer in their time: the target has let them wait.
    pub(super) waits: u64,
    millis: u64,
}

impl fmt::Display for Score {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}", self.attempts, self.successes)?;
        if self.waits > 0 {
            write!(f, ", {} waited", self.waits)?;
        }
        write!(f, ")")
    }
}

/// The results of all attackers of one target.
#[derive(Clone, Debug)]
pub(super) struct Scores(pub(super) Vec<Score>);

impl Scores {
    /// Reads what [`attack`] prints.
    pub(super) fn read(text: &str) -> Option<Scores> {
        let scores = text.lines().map(|line| {
            let mut fields = line.split('\t');
            let name = fields.next()?.to_owned();
            let mut number = || fields.next()?.parse().ok();
            let (attempts, successes) = (number()?, number()?);
            Some(Score { name, attempts, successes, waits: number()?, millis: number()? })
        });
        scores.collect::<Option<_>>().map(Scores)
    }

    pub(super) fn seconds(&self) -> f64 {
        self.0.iter().map(|score| score.millis).sum::<u64>() as f64 / 1e3
    }
}

/// Attacks the target until the standard input ends, and prints what each attacker has done. Only those attackers come
/// whose names contain one of the texts in `names`, a list with commas; all of them if it is empty.
pub fn attack(target: &Target, seed: u64, share: f64, names: &str) -> io::Result<()> {
    let _many = ManyDescriptors::new()?;
    become_attacker()?;
    let is_wanted = |attacker: &&Attacker| {
        attacker.targets.includes(target.kind)
            && names.split(',').any(|name| attacker.name.contains(name))
    };
    let attackers: Vec<_> = ATTACKERS.iter().filter(is_wanted).collect();
    // All targets get the same share for each attacker, so that the echo is attacked as often as the server.
    let share = share / ATTACKERS.len() as f64;
    let stop = Arc::new(Stop::default());
    let random = Random::new(seed);
    thread::scope(|scope| {
        let mut threads = Vec::new();
        for (index, attacker) in attackers.into_iter().enumerate() {
            let (random, stop) = (random.fork(index as u64), Arc::clone(&stop));
            let body = move || attack_until(attacker, target, random, share, &stop);
            threads.push(thread::Builder::new().spawn_scoped(scope, body)?);
        }
        io::stdin().read_to_end(&mut Vec::new())?;
        stop.set();
        for thread in threads {
            let Score { name, attempts, successes, waits, millis } =
                thread.join().map_err(|_| io::Error::other("an attacker has panicked"))?;
            println!("{name}\t{attempts}\t{successes}\t{waits}\t{millis}");
        }
        Ok(())
    })
}

fn attack_until(
    attacker: &Attacker,
    target: &Target,
    random: Random,
    share: f64,
    stop: &Stop,
) -> Score {
    let kept = VecDeque::new();
    let mut intruder = Intruder { target, random, kept, listener: None, attempts: 0 };
    let (mut successes, mut waits, mut pace) = (0, 0, Pace::new(share));
    loop {
        intruder.attempts += 1;
        match (attacker.attempt)(&mut intruder) {
            Ok(()) => successes += 1,
            Err(error) => waits += u64::from(error.kind() == io::ErrorKind::WouldBlock),
        }
        if stop.is_set_within(pace.rest().max(attacker.pause)) {
            break;
        }
    }
    let millis = processor_time().as_millis() as u64;
    let (name, attempts) = (attacker.name.to_owned(), intruder.attempts);
    Score { name, attempts, successes, waits, millis }
}

/// Gives up root's rights, and takes the lowest priority.
fn become_attacker() -> io::Result<()> {
    rustix::process::setpriority_process(None, 19)?;
    if geteuid().is_root() {
        let (user, group) =
            (rustix::process::Uid::from_raw(USER), rustix::process::Gid::from_raw(USER));
        set_thread_groups(&[])?;
        set_thread_res_gid(group, group, group)?;
        set_thread_res_uid(user, user, user)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_are_read_as_they_are_printed() {
        let scores = Scores::read("a b\t3\t2\t0\t500\nc\t1\t0\t1\t250\n").unwrap();
        assert_eq!(scores.0[0].to_string(), "3 (2)");
        assert_eq!(scores.0[1].to_string(), "1 (0, 1 waited)");
        assert_eq!((scores.0[1].name.as_str(), scores.0[1].successes), ("c", 0));
        assert_eq!(scores.seconds(), 0.75);
        assert!(Scores::read("a\t3").is_none());
    }

    #[test]
    fn each_attacker_has_a_name_of_its_own() {
        let mut names: Vec<_> = ATTACKERS.iter().map(|attacker| attacker.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ATTACKERS.len());
    }
}
