// SPDX-License-Identifier: MIT OR Apache-2.0
//! SIGHUP: what the options say now, in the place of what they said.
//!
//! What is said anew is read and checked as at the start, and a mistake changes nothing. Then each machine is compared with what
//! is said of it: one of which nothing else is said keeps everything.

use std::collections::BTreeMap;

use super::Host;
use super::control::PreparedOperators;
use super::machine::{Machine, Origin};
use super::patterns::Patterns;
use super::plan::Plan;
use crate::options::ServerOptions;
use crate::{Failure, clients};

impl Host {
    /// Opens all files anew, and takes on what the options say now.
    pub(super) fn reload(&mut self) {
        self.fleet.audits().reopen();
        match self.read_again() {
            Ok(()) => tracing::info!("SIGHUP: the configuration holds as it is now"),
            Err(failure) => tracing::error!("SIGHUP: nothing has changed: {}", failure.what()),
        }
    }

    /// An error comes before anything has changed.
    fn read_again(&mut self) -> Result<(), Failure> {
        let mut options = self.said.options()?;
        let fixed = options.keep_fixed(&self.options);
        let (plan, _) = Plan::of(&options)?;
        plan.check(&options)?;
        for machine in &plan.machines {
            self.check_name(machine)?;
        }
        let Plan { machines, patterns } = plan;
        if !self.patterns.say_the_same(&patterns) {
            let before = std::mem::replace(&mut self.patterns, Patterns::new(patterns)?);
            self.patterns.replace(before);
        }
        for key in fixed {
            tracing::warn!("SIGHUP: '{key}' changes when the program is started anew");
        }
        self.take_on(options, machines);
        Ok(())
    }

    /// The names of machines that operators have added are not those of the file.
    fn check_name(&self, machine: &Machine) -> Result<(), Failure> {
        match (self.fleet.get(&machine.name), &machine.name) {
            (Some(served), Some(name)) if !matches!(served.machine.origin, Origin::Options) => {
                let text = format_args!("a machine that was found or added has the name '{name}'");
                Err(machine.blame(text))
            }
            _ => Ok(()),
        }
    }

    fn take_on(&mut self, options: ServerOptions, machines: Vec<Machine>) {
        let before = std::mem::replace(&mut self.options, options);
        self.fleet.set_most(self.options.most_machines());
        let mut said: BTreeMap<_, _> =
            machines.into_iter().map(|machine| (machine.name.clone(), machine)).collect();
        // What was still to come is said anew, or by operators.
        for machine in std::mem::take(&mut self.coming) {
            if matches!(machine.origin, Origin::Control(_)) {
                self.coming.push(machine.among(&self.options));
            }
        }
        for name in self.fleet.names() {
            let Some(served) = self.fleet.get(&name) else { continue };
            let now = match &served.machine.origin {
                Origin::Options => said.remove(&name),
                Origin::Control(_) => Some(served.machine.among(&self.options)),
                Origin::Found(_) => self.patterns.machine(&served.machine, &self.options),
            };
            match now {
                Some(now) if now.name != name => self.fleet.end(&name),
                Some(now) => self.change(now),
                None => self.fleet.end(&name),
            }
        }
        self.coming.extend(said.into_values());
        self.listen_anew(&before);
        self.settle();
        self.look();
    }

    /// Lets a machine be what is said of it now. If it cannot be that while it runs, it ends, and begins anew.
    fn change(&mut self, now: Machine) {
        let name = now.name.clone();
        match self.fleet.change(&now) {
            Ok(true) => return,
            Ok(false) => {
                tracing::info!(
                    machine = name,
                    "a machine begins anew: something else is said of it"
                );
            }
            // Everything has been checked; a user may have gone since then.
            Err(failure) => tracing::error!(machine = name, "SIGHUP: {}", failure.what()),
        }
        self.fleet.end(&name);
        // One that was found is found again.
        if !matches!(now.origin, Origin::Found(_)) {
            self.coming.push(now);
        }
    }

    /// Serves operators and metrics where that is said now.
    fn listen_anew(&mut self, before: &ServerOptions) {
        let of_control = self.options.of_control();
        if let Some(mut control) = self.control.take() {
            if control.change(of_control) {
                self.control = Some(control);
            } else {
                control.end();
            }
        }
        if before.metrics != self.options.metrics {
            self.metrics = None;
        }
        let done = self.fleet.claim_for_program(&self.options).and_then(|()| {
            if self.control.is_none() {
                let (options, inbox) = (&self.options, &self.inbox);
                let control = PreparedOperators::new(options, inbox, &mut self.fleet)?;
                control.iter().for_each(PreparedOperators::announce);
                self.control = control.map(|control| control.serve(&self.fleet)).transpose()?;
            }
            if self.metrics.is_none() {
                let metrics = self.fleet.metrics();
                self.metrics =
                    clients::serve_metrics(|listen| metrics.serve(listen), &self.options)?;
                clients::announce_metrics(self.metrics.as_ref(), &self.options);
            }
            Ok(())
        });
        if let Err(failure) = done {
            tracing::error!("SIGHUP: {}", failure.what());
        }
    }

    /// Serves those machines whose turn has come: what they need may have been another one's, which had to end first.
    pub(super) fn settle(&mut self) {
        for machine in std::mem::take(&mut self.coming) {
            let is_ending = self.fleet.any_is_ending();
            if is_ending && self.fleet.get(&machine.name).is_some() {
                self.coming.push(machine);
                continue;
            }
            let name = machine.name.clone();
            match self.fleet.add(machine.clone(), &self.options) {
                Ok(_) => tracing::info!(machine = name, "a machine has come"),
                Err(_) if is_ending => self.coming.push(machine),
                Err(failure) => {
                    tracing::error!(machine = name, "a machine is not served: {}", failure.what());
                }
            }
        }
    }
}
