// SPDX-License-Identifier: MIT OR Apache-2.0
//! Comparing what the peers say to the contents of files, and to their beginnings.

use std::cell::{Cell, RefCell};
use std::fs;
use std::path::Path;

use qmp_proto::Dialect;

use super::answers::{every_time, without_infinity};
use super::batches::{Options, Outcome, share_out};
use super::peer::{Peer, Subject};
use super::shrink::shrink;

/// A file is also sent up to each of its first bytes, these many of them at most.
const TRUNCATIONS: usize = 200;
/// Longest input that is shrunk: with longer ones, each try takes long.
const SHRUNK: usize = 1000;

/// The contents of the files in a directory, by name, each after its beginnings.
fn inputs(directory: &Path) -> Result<Vec<Vec<u8>>, String> {
    let failed = |error| format!("{}: {error}", directory.display());
    let entries = fs::read_dir(directory).map_err(failed)?;
    let mut paths = entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<Vec<_>, _>>()
        .map_err(failed)?;
    paths.sort();
    let mut inputs = Vec::new();
    for path in paths {
        let contents = fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let beginnings = 1..contents.len().min(TRUNCATIONS + 1);
        inputs.extend(beginnings.map(|len| contents[..len].to_vec()));
        inputs.push(contents);
    }
    inputs.sort();
    inputs.dedup();
    Ok(inputs)
}

struct Pair {
    dialect: Dialect,
    /// Started anew when it no longer answers.
    theirs: RefCell<Peer>,
    ours: Peer,
}

impl Pair {
    fn start(dialect: Dialect, subject: Subject) -> Result<Self, String> {
        let theirs = RefCell::new(Peer::storage_daemon(dialect)?);
        Ok(Self { dialect, theirs, ours: subject.start(dialect, Peer::storage_daemon)? })
    }

    /// What QEMU says. A client that leaves behind a byte which brings two requests, as in `1,`, can keep its monitor from
    /// ever answering again.
    fn their_answers(&self, input: &[u8]) -> Result<Vec<String>, String> {
        let answers = self.theirs.borrow().answers_until_end(input);
        answers.or_else(|_| {
            self.theirs.replace(Peer::storage_daemon(self.dialect)?);
            self.theirs.borrow().answers_until_end(input)
        })
    }

    /// Where the two answer differently, every time. Otherwise `answers` is how many there were.
    fn mismatch(&self, input: &[u8], answers: &Cell<u64>) -> Result<Option<String>, String> {
        every_time(|| {
            let (theirs, ours) = (self.their_answers(input)?, self.ours.answers_until_end(input)?);
            answers.set(ours.len() as u64);
            Ok(first_difference(&theirs, &ours))
        })
    }

    fn compare(&self, input: &[u8]) -> Result<Outcome, String> {
        let answers = Cell::new(0);
        let Some(mut mismatch) = self.mismatch(input, &answers)? else {
            return Ok(Outcome::Same { inputs: 1, answers: answers.get() });
        };
        let mut input = input.to_vec();
        if input.len() <= SHRUNK {
            let shows = |inputs: &[Vec<u8>]| {
                matches!(self.mismatch(&inputs.concat(), &answers), Ok(Some(_)))
            };
            input = shrink(vec![input], shows).concat();
            let shown = self.mismatch(&input, &answers)?;
            mismatch = shown.unwrap_or_else(|| "not always".to_owned());
        }
        input.truncate(SHRUNK);
        Ok(Outcome::Different(format!("  sent     \"{}\"\n{mismatch}", input.escape_ascii())))
    }
}

fn first_difference(theirs: &[String], ours: &[String]) -> Option<String> {
    let theirs: Vec<_> = theirs.iter().map(|line| without_infinity(line)).collect();
    let at = (0..theirs.len().max(ours.len()))
        .find(|&at| theirs.get(at).map(|line| &**line) != ours.get(at).map(String::as_str))?;
    let their_line = theirs.get(at).map_or("none", |line| line);
    let our_line = ours.get(at).map_or("none", String::as_str);
    Some(format!("answer {}:\n  theirs {their_line:?}\n  ours   {our_line:?}", at + 1))
}

/// Compares until the files in the directory are used up or a difference is found.
pub fn run(
    dialect: Dialect,
    directory: &Path,
    jobs: u64,
    subject: Subject,
) -> Result<Outcome, String> {
    let inputs = inputs(directory)?;
    let options = Options { count: inputs.len() as u64, jobs, stream: 50, seed: 0 };
    share_out(
        &options,
        || Pair::start(dialect, subject),
        |pair, batch| {
            let start = (batch.index * options.stream) as usize;
            let mut all = 0;
            for input in &inputs[start..start + batch.len as usize] {
                match pair.compare(input)? {
                    Outcome::Same { answers, .. } => all += answers,
                    different @ Outcome::Different(_) => return Ok(different),
                }
            }
            Ok(Outcome::Same { inputs: batch.len, answers: all })
        },
    )
}
