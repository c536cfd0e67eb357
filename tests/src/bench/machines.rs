// SPDX-License-Identifier: MIT OR Apache-2.0
//! One mux for a whole host: what each of a thousand machines costs, and what some that misbehave cost the others.

use std::fmt::Write as _;
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use tempfile::TempDir;

use super::client::{Client, Mode};
use super::figures::Spread;
use super::machine::ManyDescriptors;
use super::report::{Limit, Section};
use super::stats::{median, micros, quantile};
use super::{Scale, cannot};
use crate::json::Json;
use crate::process::{Process, Signal};
use crate::scripted::Crowd;
use crate::server::{self, qmp_server};

/// Machines of one process.
const MACHINES: usize = 1_000;

/// Machines beside those that misbehave.
const OTHERS: usize = 8;

/// How long everything that is waited for may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often a machine ends that does so again and again.
const RESTART: Duration = Duration::from_millis(100);

/// How an upstream server behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Way {
    /// It answers each request with an empty result, at any number of sockets.
    Crowd,
    /// It negotiates, and then sends events as fast as they are taken.
    Flood,
    /// It negotiates, and ends its connection a moment later.
    Restart,
    /// It negotiates, and stops itself.
    Still,
}

/// Serves as an upstream server does that behaves like this, until standard input ends or the process is killed.
pub fn serve(way: Way, sockets: &[PathBuf]) -> io::Result<()> {
    let _descriptors = ManyDescriptors::new()?;
    if way == Way::Crowd {
        let _crowd = Crowd::listen(sockets);
        return io::stdin().read_to_end(&mut Vec::new()).map(drop);
    }
    let Some(socket) = sockets.first() else { return Ok(()) };
    for client in UnixListener::bind(socket)?.incoming() {
        // A client that leaves is none of the others.
        drop(client.and_then(|client| misbehave(way, client)));
    }
    Ok(())
}

fn misbehave(way: Way, client: UnixStream) -> io::Result<()> {
    const VERSION: &str = r#"{"qemu": {"micro": 0, "minor": 0, "major": 1}, "package": ""}"#;
    let mut to = client.try_clone()?;
    writeln!(to, r#"{{"QMP": {{"version": {VERSION}, "capabilities": []}}}}"#)?;
    let mut request = String::new();
    BufReader::new(&client).read_line(&mut request)?;
    let id = Json::parse(&request).ok().and_then(|request| Some(request.get("id")?.to_string()));
    writeln!(to, r#"{{"return": {{}}, "id": {}}}"#, id.unwrap_or_default())?;
    match way {
        Way::Crowd => Ok(()),
        Way::Restart => {
            thread::sleep(RESTART);
            Ok(())
        }
        Way::Still => Ok(rustix::process::kill_process(rustix::process::getpid(), Signal::STOP)?),
        Way::Flood => {
            let event = r#"{"timestamp": {"seconds": 1, "microseconds": 2}, "event": "X_FLOOD", "data": {"n": 1}}"#;
            let many = format!("{event}\r\n").repeat(64);
            loop {
                to.write_all(many.as_bytes())?;
            }
        }
    }
}

pub(super) fn measure(section: &mut Section, scale: &Scale, program: &Path) -> Result<(), String> {
    let _descriptors = ManyDescriptors::new().map_err(cannot("raise the limit of descriptors"))?;
    measure_cost(section, scale, program)?;
    measure_isolation(section, scale, program)
}

/// A mux, and the machines that it shares.
struct Site {
    dir: TempDir,
    _upstream: Process,
    mux: Process,
    machines: usize,
}

impl Site {
    fn start(program: &Path, machines: usize, misbehaving: &[&Path]) -> Result<Site, String> {
        let dir = site_directory().map_err(cannot("make a directory"))?;
        let path = |name: String| dir.path().join(name);
        let sockets: Vec<_> = (0..machines).map(|n| path(format!("vm{n}-qemu.sock"))).collect();
        let last = sockets.last().cloned().unwrap_or_default();
        let upstream = start_upstream(program, Way::Crowd, &sockets)?;
        wait_for(|| last.exists())?;
        let mut text = String::from("[mux]\ncontrol = ['unix:control.sock']\n");
        let named = sockets.iter().enumerate().map(|(n, path)| (format!("vm{n}"), path.as_path()));
        let others = misbehaving.iter().enumerate().map(|(n, path)| (format!("bad{n}"), *path));
        for (name, upstream) in named.chain(others) {
            let upstream = upstream.display();
            let section = format!(
                "name = '{name}'\nupstream = 'unix:{upstream}'\nlisten = ['unix:{name}.sock']"
            );
            let _ = writeln!(text, "[[machine]]\n{section}");
        }
        fs::write(path("mux.toml".to_owned()), text).map_err(cannot("write a file"))?;
        let mut command = qmp_server(["mux", "--config", "mux.toml"]);
        let mux = Process::start(command.current_dir(dir.path())).map_err(cannot("start a mux"))?;
        Ok(Site { dir, _upstream: upstream, mux, machines })
    }

    fn socket(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Waits until each machine of the crowd has its upstream server.
    fn wait_until_connected(&self) -> Result<(), String> {
        let control = self.socket("control.sock");
        wait_for(|| connected(&control).is_ok_and(|connected| connected >= self.machines))
    }

    fn client(&self, name: &str) -> Result<Client, String> {
        Client::connect(&self.socket(name), Mode::InBand).map_err(cannot("connect"))
    }

    /// What the process has written to that is its own, in KiB.
    fn private_dirty(&mut self) -> Result<u64, String> {
        let path = format!("/proc/{}/smaps_rollup", self.mux.child().id());
        let text = fs::read_to_string(path).map_err(cannot("read smaps_rollup"))?;
        let line = text.lines().find_map(|line| line.strip_prefix("Private_Dirty:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok());
        kib.ok_or_else(|| "no Private_Dirty in smaps_rollup".to_owned())
    }

    fn threads(&mut self) -> Result<usize, String> {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.mux.child().id()));
        Ok(tasks.map_err(cannot("count threads"))?.count())
    }
}

/// In memory if that is possible, as `/run` is: a file system on a disk takes seconds for the sockets of a thousand machines when as many
/// were deleted just before.
fn site_directory() -> io::Result<TempDir> {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir())
}

fn start_upstream(program: &Path, way: Way, sockets: &[PathBuf]) -> Result<Process, String> {
    let name = way.to_possible_value().map(|way| way.get_name().to_owned()).unwrap_or_default();
    let mut command = Command::new(program);
    command.arg("upstream").arg(name).args(sockets).stdin(Stdio::piped());
    Process::start(&mut command).map_err(cannot("start an upstream server"))
}

fn wait_for(mut done: impl FnMut() -> bool) -> Result<(), String> {
    let began = Instant::now();
    while !done() {
        if began.elapsed() > PATIENCE {
            return Err("nothing happens".to_owned());
        }
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// How many machines a mux has whose upstream server is there.
fn connected(control: &Path) -> io::Result<usize> {
    let mut socket = UnixStream::connect(control)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.write_all(
        b"{\"execute\": \"qmp_capabilities\"} {\"execute\": \"__org.qmp-server_query-machines\"}\n",
    )?;
    let mut lines = BufReader::new(socket).lines();
    let answer = lines.nth(2).ok_or(io::ErrorKind::UnexpectedEof)??;
    Ok(answer.matches("\"connected\": true").count())
}

/// Has the program's file written to the disk. Until then the system counts those of its pages that are mapped as dirty, and so
/// as memory of the process: that is several MiB of a program that was just built.
fn sync_program() -> Result<(), String> {
    let file = fs::File::open(server::program()).map_err(cannot("open the program"))?;
    file.sync_all().map_err(cannot("write the program to the disk"))
}

fn measure_cost(section: &mut Section, scale: &Scale, program: &Path) -> Result<(), String> {
    let of_mux = "qmp-server mux";
    sync_program()?;
    let (mut starts, mut each, mut alone, mut threads) = (vec![], vec![], vec![], 0);
    for _ in 0..scale.rounds.min(3) {
        let mut lone = Site::start(program, 1, &[])?;
        lone.wait_until_connected()?;
        let _client = lone.client("vm0.sock")?;
        alone.push(lone.private_dirty()? as f64);
        let began = Instant::now();
        let mut site = Site::start(program, MACHINES, &[])?;
        let of_upstream = began.elapsed();
        site.wait_until_connected()?;
        // The process was started last.
        starts.push((began.elapsed() - of_upstream).as_secs_f64());
        let clients: Result<Vec<_>, _> =
            (0..MACHINES).map(|number| site.client(&format!("vm{number}.sock"))).collect();
        let clients = clients?;
        let all = site.private_dirty()? as f64;
        each.push((all - alone.last().copied().unwrap_or_default()) / (MACHINES - 1) as f64);
        threads = site.threads()?.max(threads);
        drop(clients);
    }
    let (starts, each, alone) = (Spread::of(starts), Spread::of(each), Spread::of(alone));
    let what = format!("{MACHINES} machines");
    section.figure_of(&format!("{what}: start until all are connected"), of_mux, "s", starts);
    section.figure_of(&format!("{what}, a client each: private memory each"), of_mux, "KiB", each);
    section.figure_of("one machine and client: private memory", of_mux, "KiB", alone);
    section.target(&format!("{what}: s to start"), starts.median, Limit::AtMost(2.0));
    section.target(&format!("{what}: KiB each"), each.median, Limit::AtMost(64.0));
    section.target(&format!("{what}: threads"), threads as f64, Limit::AtMost(4.0));
    section.target("one machine: KiB", alone.median, Limit::AtMost(1024.0));
    section.notes.push("private memory: Private_Dirty of smaps_rollup".to_owned());
    Ok(())
}

/// Upstream servers that misbehave, and a client of each.
struct Misbehaving {
    processes: Vec<Process>,
    sockets: Vec<PathBuf>,
}

const MISBEHAVING: [Way; 3] = [Way::Still, Way::Flood, Way::Restart];

impl Misbehaving {
    fn start(program: &Path, dir: &Path) -> Result<Misbehaving, String> {
        let socket = |way: Way| dir.join(format!("{way:?}.sock"));
        let sockets = MISBEHAVING.map(socket).to_vec();
        let start = |way| start_upstream(program, way, &[socket(way)]);
        let processes = MISBEHAVING.into_iter().map(start).collect::<Result<_, _>>()?;
        wait_for(|| sockets.iter().all(|socket| socket.exists()))?;
        Ok(Misbehaving { processes, sockets })
    }

    /// Stops all of them, or lets those go on that are not to stand still.
    fn set_running(&self, running: bool) -> Result<(), String> {
        let signal = if running { Signal::CONT } else { Signal::STOP };
        let mut those =
            self.processes.iter().zip(MISBEHAVING).filter(|(_, way)| *way != Way::Still);
        those.try_for_each(|(process, _)| process.signal(signal)).map_err(cannot("signal"))
    }
}

/// A client that reads all that comes, and connects again when the connection ends, until the process does.
fn follow(socket: PathBuf) {
    thread::spawn(move || {
        loop {
            let follow = || -> io::Result<u64> {
                let mut stream = UnixStream::connect(&socket)?;
                stream.write_all(b"{\"execute\": \"qmp_capabilities\", \"id\": 1}\n")?;
                io::copy(&mut stream, &mut io::sink())
            };
            drop(follow());
            thread::sleep(RESTART);
        }
    });
}

fn measure_isolation(section: &mut Section, scale: &Scale, program: &Path) -> Result<(), String> {
    let dir = tempfile::tempdir().map_err(cannot("make a directory"))?;
    let (through, beside) = (dir.path().join("through"), dir.path().join("beside"));
    for path in [&through, &beside] {
        fs::create_dir(path).map_err(cannot("make a directory"))?;
    }
    let through = Misbehaving::start(program, &through)?;
    let beside = Misbehaving::start(program, &beside)?;
    let sockets: Vec<_> = through.sockets.iter().map(PathBuf::as_path).collect();
    let sites = [Site::start(program, OTHERS, &sockets)?, Site::start(program, OTHERS, &[])?];
    sites.iter().try_for_each(Site::wait_until_connected)?;
    // Those of the mux are reached through it, the others by the same clients directly.
    (0..MISBEHAVING.len()).for_each(|number| follow(sites[0].socket(&format!("bad{number}.sock"))));
    beside.sockets.iter().cloned().for_each(follow);
    let mut clients = Vec::new();
    for site in &sites {
        let of_site: Result<Vec<_>, _> =
            (0..OTHERS).map(|number| site.client(&format!("vm{number}.sock"))).collect();
        clients.push(of_site?);
    }
    let (mut p50, mut p99) = ([vec![], vec![]], [vec![], vec![]]);
    for _ in 0..scale.rounds.max(5) {
        for (index, clients) in clients.iter_mut().enumerate() {
            through.set_running(index == 0)?;
            beside.set_running(index == 1)?;
            let mut latencies = Vec::new();
            let until = Instant::now() + scale.slice * 4;
            while Instant::now() < until {
                for client in &mut *clients {
                    latencies.push(micros(client.round_trip().map_err(cannot("measure"))?));
                }
            }
            p50[index].push(median(&mut latencies));
            p99[index].push(quantile(&mut latencies, 0.99));
        }
    }
    through.set_running(true)?;
    beside.set_running(true)?;
    let ratios: Vec<_> =
        p99[0].iter().zip(&p99[1]).map(|(through, beside)| through / beside).collect();
    for (index, what) in ["through the mux", "beside it"].into_iter().enumerate() {
        let what = format!("{OTHERS} machines, 3 that misbehave {what}");
        let [p50, p99] = [&p50[index], &p99[index]].map(|values| Spread::of(values.clone()));
        section.figure_of(&format!("{what}: p50"), "qmp-server mux", "µs", p50);
        section.figure_of(&format!("{what}: p99"), "qmp-server mux", "µs", p99);
    }
    let ratio = Spread::of(ratios).median;
    section.target(
        "p99 of others: 3 misbehave through the mux / beside it",
        ratio,
        Limit::AtMost(1.5),
    );
    section.notes.push(
        "machines that misbehave: one stands still, one sends events as fast as they are taken, one ends again and again".to_owned(),
    );
    Ok(())
}
