// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the options say is to be shared.

use std::collections::BTreeSet;

use super::machine::{Machine, Origin};
use super::patterns::Pattern;
use crate::addresses::{Claim, Taken};
use crate::options::ServerOptions;
use crate::{Failure, clients};

/// The machines that are named, and those that may be found.
pub(super) struct Plan {
    pub(super) machines: Vec<Machine>,
    pub(super) patterns: Vec<Pattern>,
}

/// All addresses that the program takes: its own, and those of each machine, in their order.
pub(super) struct Claims {
    pub(super) taken: Taken,
    pub(super) program: Claim,
    pub(super) machines: Vec<Claim>,
}

impl Plan {
    /// What the options say. Finds what contradicts itself.
    pub(super) fn of(options: &ServerOptions) -> Result<(Plan, Claims), Failure> {
        let plan = Plan { machines: machines(options)?, patterns: Pattern::all_of(options)? };
        let mut taken = Taken::default();
        let program = taken.claim_for_program(options)?;
        let machines = taken.claim(plan.machines.iter().map(|machine| &machine.options))?;
        // Those that are found claim what is theirs when they are. What a pattern says without that is the same for all.
        let templates: Vec<_> =
            plan.patterns.iter().map(|pattern| pattern.machine.complete(options)).collect();
        for claim in taken.claim(&templates)? {
            taken.release(claim);
        }
        Ok((plan, Claims { taken, program, machines }))
    }

    /// What would fail of what can be tried without anybody noticing.
    pub(super) fn check(&self, options: &ServerOptions) -> Result<(), Failure> {
        clients::check(options)?;
        clients::check(&options.of_control())?;
        for pattern in &self.patterns {
            let template = pattern.machine.complete(options);
            clients::check_roles(&template)?;
            template.of_agent().iter().try_for_each(clients::check_roles)?;
        }
        self.machines.iter().try_for_each(Machine::check)
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
        Machine::check_agent(options.mux.agent.as_ref(), &options.mux.agent_listen)?;
        return Ok(vec![Machine::only(options)]);
    }
    if let Some(upstream) = &options.mux.upstream {
        return Err(upstream.blame("upstream", "each [[machine]] has its own"));
    }
    if let Some(listen) = options.listen.first() {
        return Err(listen.blame("listen", "each [[machine]] has its own"));
    }
    if let Some(agent) = &options.mux.agent {
        return Err(agent.blame("agent", "each [[machine]] has its own"));
    }
    if let Some(listen) = options.mux.agent_listen.first() {
        return Err(listen.blame("agent-listen", "each [[machine]] has its own"));
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
