// SPDX-License-Identifier: MIT OR Apache-2.0
//! An async command on Tokio: `async_command unix:bed.sock`, then for example
//! `qmp-server call unix:bed.sock x-nap milliseconds:=100`.

use std::error::Error;
use std::time::Duration;

use qmp_server::dispatch::{AsyncContext, Dispatcher, Registry, command_types};
use qmp_server::{Server, ServerHandle, TokioExecutor, system_time, version};
use tokio::time::sleep;

command_types! {
    /// Waits, while commands of other clients are executed.
    Nap = "x-nap" { milliseconds: u64 } -> u64;
}

async fn nap(_: AsyncContext, nap: Nap) -> Result<u64, String> {
    sleep(Duration::from_millis(nap.milliseconds)).await;
    Ok(nap.milliseconds)
}

fn serve(address: &str) -> Result<ServerHandle, Box<dyn Error>> {
    let mut registry = Registry::new();
    registry.set_executor(TokioExecutor::current());
    registry.serve_async::<Nap>(nap)?;
    let dispatcher = Dispatcher::new(registry, version(), system_time);
    Ok(Server::new(dispatcher).listen(&address.parse()?)?.spawn()?)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let server = serve(&std::env::args().nth(1).ok_or("where? async_command ADDRESS")?)?;
    Ok(tokio::task::spawn_blocking(move || server.wait()).await?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_nap_ends() {
    use qmp_server::Client;

    let dir = tempfile::tempdir().unwrap();
    let address = format!("unix:{}", dir.path().join("qmp.sock").display());
    let server = serve(&address).unwrap();
    let connect = address.parse().unwrap();
    let call = move || {
        let mut client = Client::connect(&connect, Duration::from_secs(60)).unwrap();
        client.call::<Nap>(&Nap { milliseconds: 1 }).unwrap()
    };
    assert_eq!(tokio::task::spawn_blocking(call).await.unwrap(), 1);
    server.control().shutdown();
    server.wait();
}
