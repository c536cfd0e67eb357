// SPDX-License-Identifier: MIT OR Apache-2.0
//! The time before the machine is there: `x-exit-preconfig`. Mirrors QEMU's `--preconfig` and `system/vl.c`.

use qmp_dispatch::proto::Error;
use qmp_dispatch::{Context, RegisterError, Registry};

/// Registers `x-exit-preconfig`, which ends the time before the machine is there.
///
/// That time is begun with [`Dispatcher::set_preconfig`](qmp_dispatch::Dispatcher::set_preconfig): until it ends, only
/// commands are executed that [allow it](qmp_dispatch::Command::allow_preconfig). `create` makes the machine. If it fails,
/// the client is told so, and the time goes on. The reference machine has no such command.
///
/// # Errors
///
/// [`RegisterError`] if there is a command of this name already.
///
/// ```
/// use qmp_dispatch::proto::Error;
/// use qmp_dispatch::{Context, LocalClient, Registry};
/// use qmp_server::register_preconfig;
///
/// let mut registry = Registry::new();
/// registry.command("stop", |_: &Context| Ok::<(), Error>(()))?;
/// register_preconfig(&mut registry, |_: &Context| Ok(()))?;
/// let client = LocalClient::new(registry);
/// client.monitor().dispatcher().set_preconfig(true);
/// let said = client.ask("{'execute': 'stop'} {'execute': 'x-exit-preconfig'} {'execute': 'stop'}");
/// assert!(said[0].contains("The command 'stop' is permitted only after machine initialization"));
/// assert_eq!(said[1..], [r#"{"return": {}}"#, r#"{"return": {}}"#]);
/// let said = client.ask("{'execute': 'x-exit-preconfig'}");
/// assert!(said[0].contains("The command is permitted only before machine initialization"));
/// # Ok::<(), qmp_dispatch::RegisterError>(())
/// ```
pub fn register_preconfig(
    registry: &mut Registry,
    create: impl Fn(&Context) -> Result<(), Error> + Send + Sync + 'static,
) -> Result<(), RegisterError> {
    let exit = move |context: &Context| {
        if !context.dispatcher().is_preconfig() {
            let error = "The command is permitted only before machine initialization";
            return Err(Error::generic(error));
        }
        create(context)?;
        context.dispatcher().set_preconfig(false);
        Ok(())
    };
    let command = registry.command("x-exit-preconfig", exit)?;
    command.allow_preconfig().unstable();
    Ok(())
}
