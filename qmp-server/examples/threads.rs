// SPDX-License-Identifier: MIT OR Apache-2.0
//! A lamp with a control socket, on threads of the server's own: `threads PATH`, then for example
//! `qmp-server call unix:PATH x-lamp-switch on:=true`.

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use qmp_dispatch::proto::Error as QmpError;
use qmp_dispatch::{Context, Dispatcher, Registry, qapi_types};
use qmp_server::{Address, Control, Listen, Server, ServerHandle, system_time, version};

#[derive(Default)]
struct Lamp {
    on: AtomicBool,
}

qapi_types! {
    struct Switch {
        on: bool,
    }
}

impl Lamp {
    fn switch(&self, _: &Context, Switch { on }: Switch) -> Result<(), QmpError> {
        self.on.store(on, Ordering::Relaxed);
        Ok(())
    }
}

fn quit(context: &Context) -> Result<(), QmpError> {
    let control = context.monitor().local::<Control>();
    control.ok_or_else(|| QmpError::generic("not behind a server"))?.shutdown();
    Ok(())
}

fn serve(lamp: Arc<Lamp>, path: &Path) -> Result<ServerHandle, Box<dyn Error>> {
    let mut registry = Registry::new();
    registry.with(lamp).command("x-lamp-switch", Lamp::switch)?;
    registry.command("quit", quit)?;
    let dispatcher = Dispatcher::new(registry, version(), system_time);
    let listen = Listen::new(Address::Unix(path.to_owned()));
    Ok(Server::new(dispatcher).listen(&listen)?.spawn()?)
}

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args_os().nth(1).ok_or("where? threads PATH")?;
    serve(Arc::default(), path.as_ref())?.wait();
    Ok(())
}

#[test]
fn the_lamp_is_switched_on() {
    use std::io::{Read, Write};

    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("qmp.sock");
    let lamp = Arc::new(Lamp::default());
    let server = serve(Arc::clone(&lamp), &path).unwrap();
    let mut client = std::os::unix::net::UnixStream::connect(&path).unwrap();
    let switch = b"{'execute': 'x-lamp-switch', 'arguments': {'on': true}} {'execute': 'quit'}";
    client.write_all(b"{'execute': 'qmp_capabilities'}").unwrap();
    client.write_all(switch).unwrap();
    let mut said = String::new();
    client.read_to_string(&mut said).unwrap();
    server.wait();
    assert_eq!(said.matches(r#"{"return": {}}"#).count(), 3, "{said}");
    assert!(lamp.on.load(Ordering::Relaxed));
}
