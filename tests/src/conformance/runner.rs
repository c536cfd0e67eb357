// SPDX-License-Identifier: MIT OR Apache-2.0
//! Running all cases that apply, and counting.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use qmp_proto::Dialect;

use super::case::{self, Case};
use super::case_run::{Monitors, run_case};
use super::selection::{Selected, Selection};
use super::target::{Launch, Target};
use crate::connection::Failure;

/// Once nobody accepts, the next case is not kept waiting as long for a connection.
const IMPATIENCE: Duration = Duration::from_millis(200);
/// Cases nest up to 1024 levels deep, and comparing goes down with them.
const STACK_SIZE: usize = 64 << 20;

/// What to run, on what, and with which limits.
#[derive(Clone, Debug)]
pub struct Options {
    /// The server.
    pub launch: Launch,
    /// Files and directories of cases.
    pub cases: Vec<PathBuf>,
    /// The same, of a newer QEMU: they take the place of those of the same title, and others are added.
    pub newer: Vec<PathBuf>,
    /// Files of cases that take the place of those of the same title: where the server is meant to differ from QEMU.
    pub deviations: Vec<PathBuf>,
    /// Which of them.
    pub selection: Selection,
    /// The limit for one step.
    pub step_limit: Duration,
    /// The limit for a connection to be accepted, and for the server to come back.
    pub patience: Duration,
    /// Whether to report passing cases too, and the traffic of failing ones.
    pub verbose: bool,
}

impl Options {
    /// The directory of the cases that come with this crate, as QEMU 10.0 answers them.
    #[must_use]
    pub fn own_cases() -> PathBuf {
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("conformance/cases")
    }

    /// The directories of those that a QEMU of this dialect answers otherwise, or that are new.
    #[must_use]
    pub fn newer_cases(dialect: Dialect) -> Vec<PathBuf> {
        let directory = |version| {
            PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("conformance/cases-{version}"))
        };
        let newer = Dialect::ALL.into_iter().skip(1).filter(|&newer| newer <= dialect);
        newer.map(directory).collect()
    }

    /// The file of the cases in which our server is meant to differ from QEMU.
    #[must_use]
    pub fn own_deviations() -> PathBuf {
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("conformance/deviations.jsonl")
    }

    /// All cases of this dialect but the slow ones, on a server that is none of QEMU's.
    #[must_use]
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
    ///
    /// # Errors
    ///
    /// Fails if a file cannot be read or holds something that is not a case.
    pub fn select(&self) -> Result<Selected, String> {
        let mut selection = self.selection.clone();
        match &self.launch {
            Launch::Connect { main, pretty } => {
                selection.without_pretty = pretty.is_none();
                selection.without_fd_passing = !matches!(main, crate::endpoint::Endpoint::Unix(_));
            }
            Launch::Spawn(words) => {
                selection.without_pretty = !words.iter().any(|word| word.contains("{pretty}"));
            }
            Launch::Through { .. } => {}
            Launch::Ours(server) => {
                selection.without_fd_passing = !server.over.passes_descriptors();
                selection.inapplicable = server.over.inapplicable();
                selection.single_connection = server.over.is_single_connection();
            }
        }
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
        Ok(selection.apply(cases))
    }
}

/// How many cases passed and failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Passed.
    pub passed: usize,
    /// Failed.
    pub failed: usize,
}

/// What came of a run.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// All cases that were run.
    pub total: Count,
    /// The same for each category.
    pub categories: BTreeMap<String, Count>,
    /// One line for each case that failed.
    pub failures: Vec<String>,
}

/// Calls something with a stack that is deep enough for the cases.
///
/// # Panics
///
/// If `call` does.
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
///
/// # Errors
///
/// Fails if the cases cannot be read, the server cannot be reached at all, or nothing can be written.
pub fn run(options: &Options, out: &mut dyn Write) -> Result<Summary, String> {
    let Selected { chosen, skipped } = options.select()?;
    let mut target = Target::new(&options.launch)?;
    target.wait_until_ready(options.patience)?;
    let mut run =
        Run { options, patience: options.patience, skipped, summary: Summary::default(), out };
    run.cases(chosen, &mut target)
        .and_then(|()| run.report())
        .map_err(|error| format!("cannot write: {error}"))?;
    Ok(run.summary)
}

struct Run<'a> {
    options: &'a Options,
    patience: Duration,
    skipped: Vec<(Case, String)>,
    summary: Summary,
    out: &'a mut dyn Write,
}

impl Run<'_> {
    fn cases(&mut self, chosen: Vec<Case>, target: &mut Target) -> io::Result<()> {
        let mut gone = None;
        for case in chosen {
            if gone.is_some() {
                self.skipped.push((case, "the server has not come back".to_owned()));
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
        Ok(())
    }

    /// Runs one case and says whether it passed.
    fn case(&mut self, case: &Case, target: &Target) -> io::Result<bool> {
        let monitors = Monitors {
            main: target.main().clone(),
            pretty: target.pretty().cloned(),
            patience: self.patience,
            step_limit: self.options.step_limit,
        };
        let started = Instant::now();
        let outcome = run_case(case, &monitors);
        let count = self.summary.categories.entry(case.category.clone()).or_default();
        match outcome {
            Ok(()) => {
                count.passed += 1;
                self.summary.total.passed += 1;
                self.patience = self.options.patience;
                if self.options.verbose {
                    writeln!(
                        self.out,
                        "ok   {} ({:.2} s)",
                        case.title(),
                        started.elapsed().as_secs_f64()
                    )?;
                }
                Ok(true)
            }
            Err((failure, transcript)) => {
                count.failed += 1;
                self.summary.total.failed += 1;
                if matches!(failure, Failure::Unreachable(_)) {
                    self.patience = IMPATIENCE;
                }
                let line = format!("FAIL {} ({}): {failure}", case.title(), case.source);
                writeln!(self.out, "{line}")?;
                self.summary.failures.push(line);
                if self.options.verbose {
                    transcript.iter().try_for_each(|entry| writeln!(self.out, "     {entry}"))?;
                }
                Ok(false)
            }
        }
    }

    fn report(&mut self) -> io::Result<()> {
        let mut reasons = BTreeMap::<&str, usize>::new();
        for (case, reason) in &self.skipped {
            *reasons.entry(reason).or_default() += 1;
            if self.options.verbose {
                writeln!(self.out, "skip {}: {reason}", case.title())?;
            }
        }
        for (category, count) in &self.summary.categories {
            writeln!(
                self.out,
                "{category:<12} {:>4} passed {:>4} failed",
                count.passed, count.failed
            )?;
        }
        for (reason, count) in reasons {
            writeln!(self.out, "{count} skipped: {reason}")?;
        }
        let Count { passed, failed } = self.summary.total;
        writeln!(self.out, "{passed} passed, {failed} failed")
    }
}
