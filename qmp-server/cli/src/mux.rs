// SPDX-License-Identifier: MIT OR Apache-2.0
//! `qmp-server mux`: QMP servers, each for many clients.

mod finder;
mod fleet;
mod machine;
mod patterns;
mod plan;

use std::os::fd::AsFd;
use std::sync::Arc;

use qmp_server::TracePoints;

pub(crate) use self::finder::{Found, PathPattern, fill};
use self::fleet::Fleet;
use self::patterns::Patterns;
use self::plan::Plan;
use crate::arguments::MuxOptions;
use crate::clients::{Ending, Woken};
use crate::{Failure, clients};

pub(crate) fn mux(options: MuxOptions) -> Result<(), Failure> {
    let MuxOptions { config, server: mut options, upstream } = options;
    options.mux = upstream;
    let options = config.complete(options)?;
    let (plan, taken) = Plan::of(&options)?;
    if config.check_config {
        return plan.check(&options);
    }
    // Before there is a mux, whose name is said in the log.
    let _log = clients::start_log(&options, &Arc::new(TracePoints::default()))?;

    // Before there is a socket to remove.
    let mut ending = Ending::new()?;
    // The end of the machines is that of the program, as told below.
    let _running = ending.running();
    let mut fleet = Fleet::new(taken)?;
    let mut patterns = Patterns::new(plan.patterns)?;
    // All listen before one is served: who cannot is told of at once, and leaves no socket behind.
    let prepared: Vec<_> = plan
        .machines
        .into_iter()
        .map(|machine| fleet.prepare(machine))
        .collect::<Result<_, _>>()?;
    let metrics = fleet.metrics();
    let endpoint = clients::serve_metrics(|listen| metrics.serve(listen), &options)?;
    prepared.iter().for_each(|prepared| prepared.announce(&options));
    clients::announce_metrics(endpoint.as_ref(), &options);
    for prepared in prepared {
        fleet.serve(prepared)?;
    }
    patterns.look(&mut fleet, &options);
    while !fleet.is_empty() || patterns.find_more() {
        let wakers: Vec<_> = patterns.waker().into_iter().chain([fleet.as_fd()]).collect();
        match ending.wait(&wakers) {
            Woken::HangUp => fleet.reopen_audits(),
            Woken::Other => {
                for machine in fleet.take_ended() {
                    patterns.ended(&machine, &mut fleet, &options);
                }
                patterns.look(&mut fleet, &options);
            }
            Woken::Signal | Woken::End => break,
        }
    }
    fleet.shut_down();
    Ok(())
}
