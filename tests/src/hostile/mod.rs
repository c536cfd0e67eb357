// SPDX-License-Identifier: MIT OR Apache-2.0
//! Attackers of every known kind, all at once, beside polite clients that check each answer.
//!
//! [`run`] starts one server and a bare echo, and lets the same [`attackers`] loose on both, each in a process of its
//! own whose threads get a small share of a processor. Meanwhile [`polite`] clients ask the server, one of them the echo
//! too, in turn. When the attackers have gone, the server must hold what it held before.
//!
//! Attackers run as another user where that is possible (by root), and come over loopback and Unix sockets only.

mod attackers;
mod pace;
mod polite;
mod site;

use std::fmt;
use std::io::Read;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::process::Process;

pub use attackers::attack;

use attackers::{Score, Scores};
use clap::ValueEnum;
use polite::{Checked, Latencies, Measured};
use site::{Holdings, Site};

/// Time in which what the attackers held has to be given back.
const AFTERMATH: Duration = Duration::from_secs(10);
/// The longest time until attackers have ended: one of them waits for fifty answers, up to two seconds for each.
const ATTACKERS_END_WITHIN: Duration = Duration::from_secs(100);
/// Time in which threads that have nothing to do have ended. Those for what may block wait for ten seconds.
const IDLE_THREADS_END_WITHIN: Duration = Duration::from_secs(15);
/// Seconds of processor time that attackers may have beyond their share: an attempt is not interrupted, and paid for by the
/// rest that follows.
const OVERRUN: f64 = 3.0;
/// Live bytes that may be left over.
const SLACK: u64 = 1 << 20;
/// The most that the 99th percentile of the server may be, in times of that of the echo.
const MOST_TIMES_THE_ECHO: f64 = 3.0;
/// The name of QEMU's socket in the directory where it is started.
pub const UPSTREAM: &str = "qemu.sock";
const BETWEEN_LOOKS: Duration = Duration::from_millis(100);

/// The kind of server to attack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// `qmp-server serve`.
    Serve,
    /// `qmp-server mux` in front of a QEMU.
    Mux,
    /// The bare echo.
    Echo,
}

/// Where attackers get in.
#[derive(Clone, Debug, clap::Args)]
pub struct Target {
    /// The kind of server to attack
    #[arg(long, value_enum)]
    pub kind: Kind,
    /// Unix socket without restrictions
    #[arg(long)]
    pub admin: PathBuf,
    /// Unix socket of role `observer`
    #[arg(long)]
    pub observer: PathBuf,
    /// Unix socket of the metrics
    #[arg(long)]
    pub metrics: PathBuf,
    /// Loopback TCP port
    #[arg(long)]
    pub tcp: u16,
    /// Loopback TCP port that expects TLS
    #[arg(long)]
    pub tls: u16,
}

/// How much is done.
#[derive(Clone, Debug)]
pub struct Scale {
    /// Decides what the attackers do.
    pub seed: u64,
    /// Duration of the attack.
    pub time: Duration,
    /// Share of one processor that all attackers of one target get together.
    pub share: f64,
    /// Parts of the names of the attackers that come, with commas between; empty for all.
    pub attackers: String,
    /// A program with the tasks `attack` (see [`attack`]) and `echo` (see [`floor::serve`](crate::bench::floor::serve)).
    pub program: PathBuf,
    /// Whether the latency is compared with the echo's. Percentiles of a short run are not reliable.
    pub compares_latency: bool,
}

/// The results.
#[derive(Debug)]
pub struct Outcome {
    kind: Kind,
    checked: Checked,
    measured: Measured,
    newcomers: Latencies,
    scores: [Scores; 2],
    /// Seconds of processor time that the attackers of each may have.
    cap: f64,
    cold: Holdings,
    before: Holdings,
    after: Holdings,
    most_kib: u64,
    /// How long it took until the descriptors were closed.
    waited: Duration,
    /// More threads than before any client, when those with nothing to do have ended.
    threads_left: usize,
    log_bytes: usize,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [on_ours, on_echo] = &self.scores;
        writeln!(
            f,
            "attempts (of these successful, and had to wait), on the server and on the echo:"
        )?;
        for score in &on_ours.0 {
            let beside = on_echo.0.iter().find(|beside| beside.name == score.name);
            let beside = beside.map_or("-".to_owned(), ToString::to_string);
            writeln!(f, "  {:28} {:24} {beside}", score.name, score.to_string())?;
        }
        for (name, scores) in [("server", on_ours), ("echo", on_echo)] {
            writeln!(
                f,
                "processor time of the attackers of the {name}: {:.1} s of {:.1} s",
                scores.seconds(),
                self.cap
            )?;
        }
        writeln!(f, "polite clients: {}", self.checked)?;
        writeln!(f, "latency of the server: {}", self.measured.ours)?;
        writeln!(f, "latency of the echo:   {}", self.measured.echo)?;
        let ratios =
            self.measured.ratios().iter().map(|ratio| format!(" {ratio:.2}")).collect::<String>();
        let all = self.measured.ours.percentile(0.99) / self.measured.echo.percentile(0.99);
        writeln!(
            f,
            "p99 of the server in times of the echo's: {:.2}, the median of windows of ten seconds:{ratios}; \
             over all of the time {all:.2}",
            self.ratio()
        )?;
        writeln!(f, "new clients, until their first answer: {}", self.newcomers)?;
        writeln!(f, "held before any client: {}", self.cold)?;
        writeln!(f, "held after the first attack: {}", self.before)?;
        let most_mib = self.most_kib >> 10;
        writeln!(f, "held ten seconds after the last: {}", self.after)?;
        let waited = self.waited.as_secs_f64();
        writeln!(
            f,
            "descriptors closed after {waited:.1} s; {} threads too many",
            self.threads_left
        )?;
        write!(f, "resident at most: {most_mib} MiB; log: {} bytes", self.log_bytes)
    }
}

impl Outcome {
    /// The 99th percentile of the server in times of the echo's: the median of some windows of time, so that one hiccup
    /// of the machine, which may fall upon either, decides nothing.
    fn ratio(&self) -> f64 {
        let ratios = self.measured.ratios();
        ratios[ratios.len() / 2]
    }

    /// Whether everything is as it must be.
    pub fn check(&self, scale: &Scale) -> Result<(), String> {
        let mut wrong = Vec::new();
        let scores = self.scores.iter().flat_map(|scores| &scores.0);
        // A mux lets long requests wait for those of others, longer than an attacker does.
        let is_idle = |score: &&Score| match self.kind {
            Kind::Mux => score.successes + score.waits == 0,
            _ => score.successes == 0,
        };
        for idle in scores.filter(is_idle) {
            wrong.push(format!("the attacker '{}' has achieved nothing: {idle}", idle.name));
        }
        for scores in &self.scores {
            let (seconds, most) = (scores.seconds(), self.cap + OVERRUN);
            if seconds > most {
                wrong.push(format!("the attackers had {seconds:.1} s, and may have {most:.1} s"));
            }
        }
        if scale.compares_latency && self.ratio() > MOST_TIMES_THE_ECHO {
            wrong.push(format!("the p99 is {:.2} times the echo's", self.ratio()));
        }
        if !self.after.is_as(&self.before, SLACK) {
            wrong.push(format!("the server holds {}, and held {}", self.after, self.before));
        }
        if self.threads_left > 0 {
            wrong.push(format!("{} threads have not ended", self.threads_left));
        }
        if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n")) }
    }
}

/// Attacks a server of this kind. `qemu` is the command line of the QEMU behind a mux, with a monitor at [`UPSTREAM`].
pub fn run(kind: Kind, qemu: Option<Vec<String>>, scale: &Scale) -> Result<Outcome, String> {
    let mut site = Site::open(kind, qemu, &scale.program)?;
    let cold = site.holdings()?;
    // So that what is made for the first clients, once and for all, is there.
    let warm_up = (scale.time / 10).clamp(Duration::from_secs(2), Duration::from_secs(20));
    attack_both(&mut site, scale, scale.seed, warm_up)?;
    site.wait_for(0, 0, AFTERMATH)?;
    let before = site.holdings()?;
    let polite = polite::start(&site)?;
    let scores = attack_both(&mut site, scale, scale.seed.wrapping_add(1), scale.time);
    let met = polite.stop();
    let (scores, met) = (scores?, met?);
    let waited = site.wait_for(before.descriptors, usize::MAX, AFTERMATH)?;
    site.wait_for(0, 0, AFTERMATH.saturating_sub(waited))?;
    let after = site.holdings()?;
    site.wait_for(usize::MAX, cold.threads, IDLE_THREADS_END_WITHIN)?;
    let threads_left = site.threads()?.saturating_sub(cold.threads);
    Ok(Outcome {
        kind,
        checked: met.checked,
        measured: met.measured,
        newcomers: met.newcomers,
        scores,
        cap: scale.share * scale.time.as_secs_f64(),
        cold,
        before,
        after,
        most_kib: site.most_kib()?,
        waited,
        threads_left,
        log_bytes: site.close()?,
    })
}

/// Runs attackers in two processes, one for the server and one for the echo, for this long.
fn attack_both(
    site: &mut Site,
    scale: &Scale,
    seed: u64,
    time: Duration,
) -> Result<[Scores; 2], String> {
    let start = |target: &Target| Attack::start(target, scale, seed);
    let mut attacks = [start(&site.server_target())?, start(&site.echo_target())?];
    let deadline = Instant::now() + time;
    while Instant::now() < deadline {
        thread::sleep(BETWEEN_LOOKS);
        site.expect_alive()?;
        attacks.iter_mut().try_for_each(Attack::expect_alive)?;
    }
    let [on_server, on_echo] = attacks;
    Ok([on_server.stop()?, on_echo.stop()?])
}

/// A process of attackers.
struct Attack(Process);

impl Attack {
    fn start(target: &Target, scale: &Scale, seed: u64) -> Result<Attack, String> {
        let mut command = Command::new(&scale.program);
        let kind = target.kind.to_possible_value().expect("no kind is hidden");
        command.arg("attack").args(["--kind", kind.get_name()]);
        for (option, path) in [
            ("--admin", &target.admin),
            ("--observer", &target.observer),
            ("--metrics", &target.metrics),
        ] {
            command.arg(option).arg(path);
        }
        let numbers = [("--tcp", target.tcp.to_string()), ("--tls", target.tls.to_string())];
        for (option, number) in numbers {
            command.arg(option).arg(number);
        }
        command.args(["--seed", &seed.to_string(), "--share", &scale.share.to_string()]);
        command.args(["--attackers", &scale.attackers]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        Process::start(&mut command).map(Attack).map_err(|error| format!("no attackers: {error}"))
    }

    fn expect_alive(&mut self) -> Result<(), String> {
        match self.0.wait(Duration::ZERO) {
            Ok(None) => Ok(()),
            _ => Err(format!("the attackers have ended: {}", self.0.stderr())),
        }
    }

    /// Closes its standard input, which ends it, and reads its output.
    fn stop(mut self) -> Result<Scores, String> {
        drop(self.0.child().stdin.take());
        let status = self.0.wait(ATTACKERS_END_WITHIN).map_err(|error| error.to_string())?;
        let mut text = String::new();
        // Its output fits into a pipe, so it never waits for the reader.
        if let (Some(_), Some(mut output)) = (status, self.0.child().stdout.take()) {
            output.read_to_string(&mut text).map_err(|error| error.to_string())?;
        }
        match (status, Scores::read(&text)) {
            (Some(status), Some(scores)) if status.success() => Ok(scores),
            (status, _) => Err(format!("the attackers ended with {status:?}: {}", self.0.stderr())),
        }
    }
}
