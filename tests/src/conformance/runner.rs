// SPDX-License-Identifier: MIT OR Apache-2.0
//! Running all cases that apply, and counting.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use qmp_proto::Dialect;

use super::case::{self, Case, Need};
use super::case_run::{Monitors, run_case};
use super::selection::{Selected, Selection};
use super::target::{Launch, Target};
use crate::connection::Failure;
use crate::endpoint::Endpoint;

/// Patience for a connection once the server has not accepted one.
const IMPATIENCE: Duration = Duration::from_millis(200);
/// Cases nest up to 1024 levels deep, and comparing goes down with them.
const STACK_SIZE: usize = 64 << 20;

/// The cases to run, the server, and the limits.
#[derive(Clone, Debug)]
pub struct Options {
    pub launch: Launch,
    pub cases: Vec<PathBuf>,
    /// The same, of a newer QEMU: they take the place of those of the same title, and others are added.
    pub newer: Vec<PathBuf>,
    /// Files of cases that take the place of those of the same title: where the server is meant to differ from QEMU.
    pub deviations: Vec<PathBuf>,
    /// Which of them.
    pub selection: Selection,
    pub step_limit: Duration,
    /// The limit for a connection to be accepted, and for the server to come back.
    pub patience: Duration,
    /// Whether to report passing cases too, and the traffic of failing ones.
    pub verbose: bool,
}

impl Options {
    /// The directory of the cases that come with this crate, as QEMU 10.0 answers them.
    pub fn own_cases() -> PathBuf {
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("conformance/cases")
    }

    /// The directories of those that a QEMU of this dialect answers otherwise, or that are new.
    pub fn newer_cases(dialect: Dialect) -> Vec<PathBuf> {
        let directory = |version| {
            PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("conformance/cases-{version}"))
        };
        let newer = Dialect::ALL.into_iter().skip(1).filter(|&newer| newer <= dialect);
        newer.map(directory).collect()
    }

    /// The file of the cases in which our server is meant to differ from QEMU.
    pub fn own_deviations() -> PathBuf {
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("conformance/deviations.jsonl")
    }

    /// All cases of this dialect but the slow ones, on a server that is none of QEMU's.
    pub fn new(dialect: Dialect, launch: Launch) -> Self {
        Self {
            launch,
            cases: vec![Self::own_cases()],
            newer: Self::newer_cases(dialect),
            deviations: Vec::new(),
            selection: Selection::default(),
            step_limit: Duration::from_secs(5),
            patience: Duration::from_secs(5),
            verbose: false,
        }
    }

    /// Reads the cases and divides them into those to run and those to skip.
    pub fn select(&self) -> Result<Selected, String> {
        let mut selection = self.selection.clone();
        let mut lacks = |lacks: bool, need| {
            if lacks {
                selection.without.insert(need);
            }
        };
        match &self.launch {
            Launch::Connect { main, pretty } => {
                lacks(pretty.is_none(), Need::Pretty);
                lacks(!matches!(main, Endpoint::Unix(_)), Need::FdPassing);
            }
            Launch::Spawn(words) => {
                lacks(!words.iter().any(|word| word.contains("{pretty}")), Need::Pretty);
            }
            Launch::Through { .. } => {}
            Launch::Ours(server) => {
                lacks(!server.over.passes_descriptors(), Need::FdPassing);
                selection.inapplicable = server.over.inapplicable();
                selection.single_connection = server.over.is_single_connection();
            }
        }
        Ok(selection.apply(self.load()?))
    }

    pub fn load(&self) -> Result<Vec<Case>, String> {
        let mut cases = case::load(&self.cases)?;
        for newer in case::load(&self.newer)? {
            match cases.iter_mut().find(|case| case.title() == newer.title()) {
                Some(case) => *case = newer,
                None => cases.push(newer),
            }
        }
        for deviation in case::load(&self.deviations)? {
            match cases.iter_mut().find(|case| case.title() == deviation.title()) {
                Some(case) => *case = deviation,
                None => return Err(format!("{} deviates from no case", deviation.title())),
            }
        }
        Ok(cases)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The server behaved as in the case.
    Passed,
    /// It did something else.
    Failed {
        /// On one line: what was sent, expected and received.
        why: String,
        /// What was sent (`>`) and received (`<`), shortened.
        traffic: Vec<String>,
    },
    /// The case was not run, for this reason.
    Skipped(String),
}

/// A case, and what came of it.
#[derive(Clone, Debug)]
pub struct CaseResult {
    pub category: String,
    pub name: String,
    pub verdict: Verdict,
    pub duration: Duration,
}

impl CaseResult {
    /// The line that reports a failure.
    pub fn failure(&self) -> Option<String> {
        let Verdict::Failed { why, .. } = &self.verdict else { return None };
        Some(format!("FAIL {}/{}: {why}", self.category, self.name))
    }
}

/// How many cases passed and failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    pub passed: usize,
    pub failed: usize,
}

#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// All cases that were asked for, those first that were run.
    pub results: Vec<CaseResult>,
}

impl Summary {
    /// The counts of all cases that were run.
    pub fn total(&self) -> Count {
        let categories = self.categories();
        let sum = |count: fn(&Count) -> usize| categories.values().map(count).sum();
        Count { passed: sum(|count| count.passed), failed: sum(|count| count.failed) }
    }

    /// The same for each category of which cases were run.
    pub fn categories(&self) -> BTreeMap<&str, Count> {
        let mut categories = BTreeMap::<_, Count>::new();
        for result in &self.results {
            let count = match result.verdict {
                Verdict::Passed => Count { passed: 1, failed: 0 },
                Verdict::Failed { .. } => Count { passed: 0, failed: 1 },
                Verdict::Skipped(_) => continue,
            };
            let sum = categories.entry(result.category.as_str()).or_default();
            sum.passed += count.passed;
            sum.failed += count.failed;
        }
        categories
    }
}

/// Calls something with a stack that is deep enough for the cases.
pub fn with_deep_stack<T: Send>(call: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread =
            std::thread::Builder::new().name("conformance".to_owned()).stack_size(STACK_SIZE);
        match thread.spawn_scoped(scope, call).map(std::thread::ScopedJoinHandle::join) {
            Ok(Ok(value)) => value,
            Ok(Err(panic)) => std::panic::resume_unwind(panic),
            Err(error) => panic!("cannot start a thread: {error}"),
        }
    })
}

/// Runs the cases and reports on `out`: a line for each failure, the counts for each category, and the total. To be
/// called inside [`with_deep_stack`].
pub fn run(options: &Options, out: &mut dyn Write) -> Result<Summary, String> {
    let Selected { chosen, skipped } = options.select()?;
    if chosen.is_empty() {
        return Err(format!("no case is left to be run; {} were skipped", skipped.len()));
    }
    let mut target = Target::new(&options.launch)?;
    target.wait_until_ready(options.patience)?;
    let mut run = Run { options, patience: options.patience, results: Vec::new(), out };
    run.cases(chosen, skipped, &mut target)
        .and_then(|()| run.report())
        .map_err(|error| format!("cannot write: {error}"))
}

struct Run<'a> {
    options: &'a Options,
    patience: Duration,
    results: Vec<CaseResult>,
    out: &'a mut dyn Write,
}

impl Run<'_> {
    fn cases(
        &mut self,
        chosen: Vec<Case>,
        mut skipped: Vec<(Case, String)>,
        target: &mut Target,
    ) -> io::Result<()> {
        let mut gone = None;
        for case in chosen {
            if gone.is_some() {
                skipped.push((case, "the server has not come back".to_owned()));
                continue;
            }
            let passed = self.case(&case, target)?;
            if case.destructive {
                gone = target.bring_back(self.options.patience).err();
            } else if !passed && let Some(complaint) = target.exit_complaint() {
                writeln!(self.out, "     {complaint}")?;
                gone = target.bring_back(self.options.patience).err();
            }
            if let Some(complaint) = &gone {
                writeln!(self.out, "     {complaint}")?;
            }
        }
        self.results.extend(skipped.into_iter().map(|(case, reason)| CaseResult {
            category: case.category,
            name: case.name,
            verdict: Verdict::Skipped(reason),
            duration: Duration::ZERO,
        }));
        Ok(())
    }

    fn case(&mut self, case: &Case, target: &Target) -> io::Result<bool> {
        let monitors = Monitors {
            main: target.main().clone(),
            pretty: target.pretty().cloned(),
            patience: self.patience,
            step_limit: self.options.step_limit,
        };
        let started = Instant::now();
        let verdict = match run_case(case, &monitors) {
            Ok(()) => {
                self.patience = self.options.patience;
                Verdict::Passed
            }
            Err((failure, traffic)) => {
                if matches!(failure, Failure::Unreachable(_)) {
                    self.patience = IMPATIENCE;
                }
                Verdict::Failed { why: format!("{failure} ({})", case.source), traffic }
            }
        };
        let result = CaseResult {
            category: case.category.clone(),
            name: case.name.clone(),
            verdict,
            duration: started.elapsed(),
        };
        if let Some(line) = result.failure() {
            writeln!(self.out, "{line}")?;
        }
        if self.options.verbose {
            match &result.verdict {
                Verdict::Failed { traffic, .. } => {
                    traffic.iter().try_for_each(|entry| writeln!(self.out, "     {entry}"))?;
                }
                _ => {
                    let seconds = result.duration.as_secs_f64();
                    writeln!(self.out, "ok   {} ({seconds:.2} s)", case.title())?;
                }
            }
        }
        let passed = result.verdict == Verdict::Passed;
        self.results.push(result);
        Ok(passed)
    }

    fn report(&mut self) -> io::Result<Summary> {
        let summary = Summary { results: std::mem::take(&mut self.results) };
        let mut reasons = BTreeMap::<&str, usize>::new();
        for result in &summary.results {
            let Verdict::Skipped(reason) = &result.verdict else { continue };
            *reasons.entry(reason).or_default() += 1;
            if self.options.verbose {
                writeln!(self.out, "skip {}/{}: {reason}", result.category, result.name)?;
            }
        }
        for (category, Count { passed, failed }) in summary.categories() {
            writeln!(self.out, "{category:<12} {passed:>4} passed {failed:>4} failed")?;
        }
        for (reason, count) in reasons {
            writeln!(self.out, "{count} skipped: {reason}")?;
        }
        let Count { passed, failed } = summary.total();
        writeln!(self.out, "{passed} passed, {failed} failed")?;
        Ok(summary)
    }
}
