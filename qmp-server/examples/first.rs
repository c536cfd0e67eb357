// SPDX-License-Identifier: MIT OR Apache-2.0
//! A first command and event, and a client of them: `first unix:lamp.sock`, then for example
//! `qmp-server call unix:lamp.sock x-dim percent:=40`.

use std::env::args;
use std::error::Error;

use qmp_server::dispatch::{Context, Dispatcher, EventType, Registry, command_types};
use qmp_server::{Server, ServerHandle, system_time, version};

command_types! {
    /// Sets the brightness of the lamp.
    Dim = "x-dim" { percent: u8 };
}
const X_DIMMED: EventType<Dim> = EventType::new("X_DIMMED");

fn serve(address: &str) -> Result<ServerHandle, Box<dyn Error>> {
    let mut registry = Registry::new();
    registry.event(&X_DIMMED)?;
    registry.serve::<Dim>(|context: &Context, new: Dim| context.emit(&X_DIMMED, &new))?;
    let dispatcher = Dispatcher::new(registry, version(), system_time);
    Ok(Server::new(dispatcher).listen(&address.parse()?)?.spawn()?)
}

fn main() -> Result<(), Box<dyn Error>> {
    serve(&args().nth(1).ok_or("where? first ADDRESS")?)?.wait();
    Ok(())
}

#[cfg(test)]
use {qmp_server::Client, std::time::Duration};

#[cfg(test)]
fn dim(address: &str, percent: u8, timeout: Duration) -> Result<Option<Dim>, Box<dyn Error>> {
    let mut client = Client::connect(&address.parse()?, timeout)?;
    client.call::<Dim>(&Dim { percent })?;
    Ok(client.wait_for(&X_DIMMED, timeout)?)
}

#[test]
fn the_lamp_is_dimmed() {
    let dir = tempfile::tempdir().unwrap();
    let address = format!("unix:{}", dir.path().join("qmp.sock").display());
    let server = serve(&address).unwrap();
    let dimmed = dim(&address, 40, Duration::from_secs(60)).unwrap();
    assert_eq!(dimmed.map(|dimmed| dimmed.percent), Some(40));
    server.control().shutdown();
    server.wait();
}
