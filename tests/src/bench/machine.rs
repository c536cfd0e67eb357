// SPDX-License-Identifier: MIT OR Apache-2.0
//! The machine and its limits for a process.

use std::fs;
use std::io;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::json::Json;

/// This thread, and the threads and processes that it starts, run on one core as long as this lives.
#[derive(Debug)]
pub struct Pinned {
    before: CpuSet,
}

impl Pinned {
    /// Pins to the last core that may be used: the first one is where most interrupts go.
    pub fn new() -> io::Result<Pinned> {
        let before = sched_getaffinity(None)?;
        let last = (0..CpuSet::MAX_CPU).rev().find(|&core| before.is_set(core));
        let mut one = CpuSet::new();
        one.set(last.unwrap_or(0));
        sched_setaffinity(None, &one)?;
        Ok(Pinned { before })
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        let _ = sched_setaffinity(None, &self.before);
    }
}

/// As many descriptors as are allowed, as long as this lives; not for processes that were started before.
#[derive(Debug)]
pub struct ManyDescriptors {
    before: Rlimit,
}

impl ManyDescriptors {
    pub fn new() -> io::Result<ManyDescriptors> {
        let before = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, Rlimit { current: before.maximum, maximum: before.maximum })?;
        Ok(ManyDescriptors { before })
    }

    pub fn allowed() -> Option<u64> {
        getrlimit(Resource::Nofile).maximum
    }
}

impl Drop for ManyDescriptors {
    fn drop(&mut self) {
        let _ = setrlimit(Resource::Nofile, self.before);
    }
}

/// The resident memory of a process, in KiB.
pub fn resident_kib(pid: u32) -> io::Result<u64> {
    // The value in `status` is late by up to 64 pages for each thread.
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let field = text.lines().find_map(|line| line.strip_prefix("Rss:")?.trim().strip_suffix(" kB"));
    let field = field.and_then(|kib| kib.trim().parse().ok());
    field.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no Rss in smaps_rollup"))
}

/// How long a process has run in user mode. Counted in ticks of the system, of ten milliseconds most often.
pub fn user_time(pid: u32) -> io::Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // Behind the name, which may have blanks.
    let ticks = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(11));
    let ticks: Option<u32> = ticks.and_then(|ticks| ticks.parse().ok());
    let ticks = ticks.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no user time"))?;
    Ok(Duration::from_secs(1) * ticks / rustix::param::clock_ticks_per_second() as u32)
}

/// The processor, the kernel, the number of cores, and how many descriptors a process may have.
pub fn describe() -> Vec<(String, Json)> {
    let processor = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let processor = processor
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or("unknown", |(_, name)| name);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let descriptors = match ManyDescriptors::allowed() {
        Some(number) => Json::Number(number.to_string()),
        None => Json::Null,
    };
    vec![
        ("processor".to_owned(), Json::String(processor.to_owned())),
        ("cores".to_owned(), Json::Number(cores.to_string())),
        ("kernel".to_owned(), Json::String(kernel.trim().to_owned())),
        ("descriptors".to_owned(), descriptors),
    ]
}
