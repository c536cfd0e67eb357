// SPDX-License-Identifier: MIT OR Apache-2.0
//! Machines that are found: a pattern of the file names any number of them.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;

use qmp_server::Address;

use super::finder::{Change, Finder};
use super::fleet::{Fleet, Gone, Served};
use super::machine::{Machine, Origin};
use crate::Failure;
use crate::options::{ServerOptions, SharedMachine};
use crate::path_pattern::{Found, PathPattern};

/// A section of the file that names any number of machines.
#[derive(PartialEq)]
pub(super) struct Pattern {
    pub(super) machine: SharedMachine,
    upstream: PathPattern,
}

impl Pattern {
    /// Those of the options.
    pub(super) fn all_of(options: &ServerOptions) -> Result<Vec<Pattern>, Failure> {
        let mut patterns = Vec::new();
        for sourced in &options.machine {
            let machine = sourced.value.clone();
            let Some(upstream) = machine.pattern()? else { continue };
            let missing = |text: &str| {
                let number =
                    (1..=upstream.len()).find(|number| !text.contains(&format!("{{{number}}}")));
                number.map(|number| {
                    format!("{{{number}}} is missing, which tells the machines apart")
                })
            };
            if let Some(what) = machine.name.as_ref().and_then(|name| missing(&name.0)) {
                return Err(sourced.blame("name", what));
            }
            let agent = machine.agent.as_ref();
            if let Some((agent, what)) =
                agent.and_then(|agent| Some((agent, missing(&agent.value.address().to_string())?)))
            {
                return Err(agent.blame("agent", what));
            }
            let listen = machine.listen.iter().map(|listen| ("listen", listen));
            let agent_listen = machine.agent_listen.iter().map(|listen| ("agent-listen", listen));
            for (key, listen) in listen.chain(agent_listen) {
                let what = match &listen.value.address {
                    Address::Unix(path) => missing(&path.to_string_lossy()),
                    Address::UnixAbstract(name) => missing(name),
                    _ => Some(
                        "machines that are found are served at unix: or unix-abstract:".to_owned(),
                    ),
                };
                if let Some(what) = what {
                    return Err(listen.blame(key, what));
                }
            }
            patterns.push(Pattern { machine, upstream });
        }
        Ok(patterns)
    }

    /// One of its machines.
    fn filled(&self, found: Found, options: &ServerOptions) -> Machine {
        Machine::new(self.machine.filled(&found), options, Origin::Found(found))
    }
}

/// The patterns, and the machines of them that are served.
pub(super) struct Patterns {
    patterns: Vec<Pattern>,
    /// `None` if there are no patterns.
    finder: Option<Finder>,
    /// The names of the machines that are served, by the paths of their upstream servers.
    names: HashMap<PathBuf, Option<String>>,
}

impl Patterns {
    pub(super) fn new(patterns: Vec<Pattern>) -> Result<Patterns, Failure> {
        let upstreams: Vec<_> = patterns.iter().map(|pattern| pattern.upstream.clone()).collect();
        let finder = (!patterns.is_empty()).then(|| Finder::new(upstreams));
        let finder = finder.transpose().map_err(Failure::usage)?;
        Ok(Patterns { patterns, finder, names: HashMap::new() })
    }

    /// Takes the place of other patterns, whose machines are served.
    pub(super) fn replace(&mut self, before: Patterns) {
        self.names = before.names;
    }

    /// Whether these say the same.
    pub(super) fn say_the_same(&self, patterns: &[Pattern]) -> bool {
        self.patterns == patterns
    }

    /// What is said now of a machine that was found; `None` if nothing is.
    pub(super) fn machine(&self, served: &Machine, options: &ServerOptions) -> Option<Machine> {
        let Origin::Found(found) = &served.origin else { return None };
        let Some(finder) = &self.finder else { return None };
        match finder.known(&found.path) {
            Some(found) => Some(self.patterns.get(found.pattern)?.filled(found, options)),
            // Its file has gone, and it is served for as long as it is there.
            None => finder.would_find(&found.path).then(|| served.among(options)),
        }
    }

    /// Whether machines may be found.
    pub(super) fn find_more(&self) -> bool {
        self.finder.is_some()
    }

    /// Readable when there is something to [look](Patterns::look) at.
    pub(super) fn waker(&self) -> Option<BorrowedFd<'_>> {
        self.finder.as_ref().map(AsFd::as_fd)
    }

    /// Looks at which machines have come and gone.
    pub(super) fn look(&mut self, fleet: &mut Fleet, options: &ServerOptions) {
        let changes = self.finder.as_mut().map(Finder::changes).transpose();
        let changes = changes.unwrap_or_else(|error| {
            tracing::error!(%error, "cannot look for machines");
            None
        });
        for change in changes.into_iter().flatten() {
            match change {
                Change::Appeared(found) => self.appeared(found, fleet, options),
                Change::Gone(found) => {
                    if let Some(served) = self.served(&found, fleet) {
                        served.mux.upstream_gone();
                    }
                }
            }
        }
    }

    /// A machine has left the fleet. If it was found, it may have come again before that; if an operator has removed it, it stays
    /// away until there is another socket in the place of its own.
    pub(super) fn ended(&mut self, gone: &Gone, fleet: &mut Fleet, options: &ServerOptions) {
        let Origin::Found(found) = &gone.machine.origin else { return };
        self.names.remove(&found.path);
        let again = self.finder.as_ref().and_then(|finder| finder.known(&found.path));
        if let Some(found) = again.filter(|_| !gone.removed) {
            self.appeared(found, fleet, options);
        }
    }

    fn served<'f>(&self, found: &Found, fleet: &'f Fleet) -> Option<&'f Served> {
        self.names.get(&found.path).and_then(|name| fleet.get(name))
    }

    fn appeared(&mut self, found: Found, fleet: &mut Fleet, options: &ServerOptions) {
        if let Some(served) = self.served(&found, fleet) {
            match &served.machine.origin {
                Origin::Found(same) if *same == found => served.upstream_appeared(),
                // It is another user's now, and comes again when this one has ended.
                _ => served.mux.shutdown(),
            }
            return;
        }
        let Some(pattern) = self.patterns.get(found.pattern) else { return };
        if fleet.has_socket(&found.path) {
            return;
        }
        let path = found.path.clone();
        let machine = pattern.filled(found, options);
        let name = machine.name.clone();
        match fleet.add(machine, options) {
            Ok(served) => {
                tracing::info!(machine = name, path = %path.display(), "a machine was found");
                served.upstream_appeared();
                self.names.insert(path, name);
            }
            Err(failure) => {
                let path = path.display();
                tracing::error!(%path, "a machine is not served: {}", failure.what());
            }
        }
    }
}
