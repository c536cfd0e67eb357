// SPDX-License-Identifier: MIT OR Apache-2.0
//! The control socket: a QMP server of the mux's own, at which operators add, remove and list machines while it runs.

use std::sync::Arc;

use qmp_dispatch::proto::{Dialect, Version};
use qmp_dispatch::{Context, Dispatcher, RegisterError, Registry};
use qmp_server::{
    Discipline, MetricsOfAll, Server, ServerHandle, register_status, system_time, version,
};

use super::fleet::Fleet;
use super::inbox::{Inbox, Message};
use super::orders::{
    MachineAdd, MachineRemove, MetricsInfo, NAME, Order, QueryMachines, QueryMetrics,
};
use crate::clients::Rules;
use crate::options::ServerOptions;
use crate::{Failure, clients};

/// The server for operators.
pub(super) struct Operators {
    options: ServerOptions,
    rules: Rules,
    server: ServerHandle,
}

/// The server for operators, which listens and does not run yet.
pub(super) struct PreparedOperators {
    options: ServerOptions,
    rules: Rules,
    server: Server,
}

impl PreparedOperators {
    /// `None` if nobody wants it.
    pub(super) fn new(
        options: &ServerOptions,
        inbox: &Arc<Inbox>,
        fleet: &mut Fleet,
    ) -> Result<Option<PreparedOperators>, Failure> {
        let options = options.of_control();
        if options.listen.is_empty() {
            return Ok(None);
        }
        let mut registry = Registry::new();
        let audit = fleet.audits().start(&mut registry, &options, None)?;
        register(&mut registry, inbox, fleet.metrics()).map_err(Failure::usage)?;
        clients::set_deadlines(&mut registry, &options);
        let roles = clients::set_roles(&mut registry, &options)?;
        clients::set_deadline_profile(&mut registry, &options);
        // QEMU's text for errors, and its number: clients take features after it.
        let dialect = Dialect::default();
        let version = Version { qemu: dialect.version(), ..version() };
        let dispatcher = Dispatcher::new(registry, version, system_time);
        let server =
            Server::new(dispatcher).dialect(dialect).discipline(Discipline::OnePerMonitor).stay();
        let server = clients::allow(server, &options, audit.as_ref())?;
        let server = match &mut fleet.handed_over {
            Some(handover) => handover.resume_server(NAME, server),
            None => server,
        };
        let server = clients::listen(server, &options)?;
        Ok(Some(PreparedOperators { rules: Rules::new(&server, roles), options, server }))
    }

    /// Says where it listens.
    pub(super) fn announce(&self) {
        clients::announce_control(&self.server, &self.options);
    }

    pub(super) fn serve(self, fleet: &Fleet) -> Result<Operators, Failure> {
        let PreparedOperators { options, rules, server } = self;
        Ok(Operators { options, rules, server: fleet.host(server)? })
    }
}

impl Operators {
    /// Lets it be what is said of it now. Returns false if it cannot be that while it runs.
    pub(super) fn change(&mut self, now: ServerOptions) -> bool {
        let control = self.server.control();
        let changed = self.options == now || {
            let changed = self.rules.change(&control, &self.options, &now);
            changed.unwrap_or_else(|failure| {
                tracing::error!("SIGHUP: {}", failure.what());
                false
            })
        };
        if changed {
            self.options = now;
            clients::renew(&control);
        }
        changed
    }

    pub(super) fn server(&self) -> &ServerHandle {
        &self.server
    }

    /// Begins with the end.
    pub(super) fn shut_down(&self) {
        self.server.control().shutdown();
    }

    pub(super) fn end(self) {
        self.shut_down();
        self.server.wait();
    }
}

fn register(
    registry: &mut Registry,
    inbox: &Arc<Inbox>,
    metrics: MetricsOfAll,
) -> Result<(), RegisterError> {
    register_status(registry)?;
    let order = |inbox: &Arc<Inbox>| {
        let inbox = Arc::clone(inbox);
        move |order| inbox.post(Message::Order(order))
    };
    let post = order(inbox);
    registry.serve_deferred::<MachineAdd>(move |_: &Context, new, responder| {
        post(Order::Add(Box::new(new), responder));
    })?;
    let post = order(inbox);
    registry.serve_deferred::<MachineRemove>(move |_: &Context, machine, responder| {
        post(Order::Remove(machine.name, responder));
    })?;
    let post = order(inbox);
    registry
        .serve_deferred::<QueryMachines>(move |_: &Context, (), responder| {
            post(Order::List(responder));
        })?
        .allow_oob()
        .allow_preconfig();
    registry
        .serve::<QueryMetrics>(move |_: &Context, ()| MetricsInfo { text: metrics.text() })?
        .allow_oob()
        .allow_preconfig();
    Ok(())
}
