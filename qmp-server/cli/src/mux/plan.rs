// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the options say is to be shared.

use std::collections::BTreeSet;

use super::machine::{Machine, Origin};
use super::patterns::Pattern;
use crate::addresses::{Claim, Taken};
use crate::options::ServerOptions;
use crate::{Failure, clients};

/// The machines that are named, with what they take of the program's addresses, and those that may be found.
pub(super) struct Plan {
    pub(super) machines: Vec<(Machine, Claim)>,
    pub(super) patterns: Vec<Pattern>,
}

impl Plan {
    /// What the options say, with all addresses that the program takes. Finds what contradicts itself.
    pub(super) fn of(options: &ServerOptions) -> Result<(Plan, Taken), Failure> {
        let machines = machines(options)?;
        let patterns = Pattern::all_of(options)?;
        let mut taken = Taken::of_program(options)?;
        let claims = taken.claim(machines.iter().map(|machine| &machine.options))?;
        // Those that are found claim what is theirs when they are. What a pattern says without that is the same for all.
        let templates: Vec<_> =
            patterns.iter().map(|pattern| pattern.machine.complete(options)).collect();
        for claim in taken.claim(&templates)? {
            taken.release(claim);
        }
        Ok((Plan { machines: machines.into_iter().zip(claims).collect(), patterns }, taken))
    }

    /// What would fail of what can be tried without anybody noticing.
    pub(super) fn check(&self, options: &ServerOptions) -> Result<(), Failure> {
        clients::check(options)?;
        clients::check(&options.of_control())?;
        for pattern in &self.patterns {
            clients::check_roles(&pattern.machine.complete(options))?;
        }
        self.machines.iter().try_for_each(|(machine, _)| machine.check())
    }
}

/// The machines that are named.
fn machines(options: &ServerOptions) -> Result<Vec<Machine>, Failure> {
    if options.machine.is_empty() {
        let names_machine = options.mux.upstream.is_some() || !options.listen.is_empty();
        if !names_machine && !options.mux.control.is_empty() {
            return Ok(Vec::new());
        }
        if options.mux.upstream.is_none() {
            return Err(Failure::usage("mux needs --upstream"));
        }
        if options.listen.is_empty() {
            return Err(Failure::usage("mux needs --listen"));
        }
        let (name, origin) = (None, Origin::Options);
        return Ok(vec![Machine { name, options: options.clone(), origin }]);
    }
    if let Some(upstream) = &options.mux.upstream {
        return Err(upstream.blame("upstream", "each [[machine]] has its own"));
    }
    if let Some(listen) = options.listen.first() {
        return Err(listen.blame("listen", "each [[machine]] has its own"));
    }
    let mut names = BTreeSet::new();
    let mut machines = Vec::new();
    for sourced in &options.machine {
        if let Some(name) = &sourced.value.name
            && !names.insert(name)
        {
            return Err(sourced.blame("name", "another machine has this name"));
        }
        machines.extend(Machine::of_section(sourced, options, Origin::Options)?);
    }
    Ok(machines)
}
