// SPDX-License-Identifier: MIT OR Apache-2.0
//! Ending connections that hang: `query-yank`, `yank`. Mirrors `qapi/yank.json` and `util/yank.c`.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use qmp_dispatch::proto::{Error, ErrorClass};
use qmp_dispatch::{Context, RegisterError, Registry};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Control;

/// What can be yanked, as QAPI's `YankInstance`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum YankInstance {
    /// The connection of a block node.
    #[serde(rename_all = "kebab-case")]
    BlockNode {
        /// The node.
        node_name: String,
    },
    /// The connection of a character device, such as that of a client of this server.
    Chardev {
        /// The device.
        id: String,
    },
    /// The connection of a migration.
    Migration,
}

/// The embedder's connections that can be yanked, beside those of the server that [a label](crate::Control::labels) names.
///
/// ```
/// use std::sync::Arc;
///
/// use qmp_dispatch::{LocalClient, Registry};
/// use qmp_server::{Yank, YankInstance, register_yank};
///
/// let yank = Arc::new(Yank::default());
/// let mut registry = Registry::new();
/// register_yank(&mut registry, &yank)?;
/// assert!(yank.insert(YankInstance::Migration, || { /* shut the socket down */ }));
/// let said = LocalClient::new(registry).ask("{'execute': 'query-yank'}");
/// assert_eq!(said, [r#"{"return": [{"type": "migration"}]}"#]);
/// # Ok::<(), qmp_dispatch::RegisterError>(())
/// ```
#[derive(Default)]
pub struct Yank {
    functions: Mutex<Vec<(YankInstance, Function)>>,
}

type Function = Arc<dyn Fn() + Send + Sync>;

#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "Yank")]
struct YankArguments {
    instances: Vec<YankInstance>,
}

/// Registers `query-yank` and `yank`, which are executed out-of-band, too.
///
/// # Errors
///
/// [`RegisterError`] if the registry has one of the commands already.
pub fn register_yank(registry: &mut Registry, yank: &Arc<Yank>) -> Result<(), RegisterError> {
    let mut group = registry.with(Arc::clone(yank));
    group.command("query-yank", Yank::query_yank)?.allow_oob();
    group.command("yank", Yank::yank)?.allow_oob();
    Ok(())
}

impl Yank {
    /// Adds an instance and the function that ends its connection, which must not block. Returns `false`, and adds nothing, if
    /// there is this instance already.
    pub fn insert(
        &self,
        instance: YankInstance,
        function: impl Fn() + Send + Sync + 'static,
    ) -> bool {
        let mut functions = self.lock();
        let is_new = !functions.iter().any(|(other, _)| *other == instance);
        if is_new {
            functions.push((instance, Arc::new(function)));
        }
        is_new
    }

    /// Removes an instance. Returns whether there was one. Its function may still be running.
    pub fn remove(&self, instance: &YankInstance) -> bool {
        let mut functions = self.lock();
        let index = functions.iter().position(|(other, _)| other == instance);
        // The function is dropped when the lock has been released: it may own something that calls `remove`.
        let removed = index.map(|index| functions.remove(index));
        drop(functions);
        removed.is_some()
    }

    fn query_yank(&self, context: &Context) -> Result<Vec<YankInstance>, Error> {
        let labels = context.monitor().local::<Control>().map(Control::labels).unwrap_or_default();
        let clients = labels.into_iter().map(|id| YankInstance::Chardev { id });
        Ok(clients.chain(self.lock().iter().map(|(instance, _)| instance.clone())).collect())
    }

    /// Yanks all instances, or none if one of them does not exist.
    fn yank(&self, context: &Context, arguments: YankArguments) -> Result<(), Error> {
        let existing = self.query_yank(context)?;
        if !arguments.instances.iter().all(|instance| existing.contains(instance)) {
            return Err(Error::new(ErrorClass::DeviceNotFound, "Instance not found"));
        }
        let control = context.monitor().local::<Control>();
        for instance in &arguments.instances {
            if let (YankInstance::Chardev { id }, Some(control)) = (instance, control) {
                control.yank(id);
            }
            let functions = self.lock();
            let function = functions.iter().find(|(other, _)| other == instance);
            let function = function.map(|(_, function)| Arc::clone(function));
            drop(functions);
            if let Some(function) = function {
                function();
            }
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(YankInstance, Function)>> {
        self.functions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Yank {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let functions = self.lock();
        f.debug_set().entries(functions.iter().map(|(instance, _)| instance)).finish()
    }
}
