// SPDX-License-Identifier: MIT OR Apache-2.0
//! A Tokio program that serves QMP over streams of its own, and answers from tasks:
//! `tokio HOST:PORT`, then for example `qmp-server call tcp:HOST:PORT x-nap`.

use std::error::Error;
use std::time::Duration;

use qmp_dispatch::proto::{Error as QmpError, Layout};
use qmp_dispatch::{Context, Dispatcher, Registry, Responder};
use qmp_server::{Control, Peer, Server, ServerHandle, system_time, version};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;

/// Sleeps in a task, which holds up nobody but those who wait in line behind it.
fn nap(runtime: &Handle, responder: Responder<()>) {
    runtime.spawn(async move {
        tokio::time::sleep(Duration::from_millis(1)).await;
        responder.respond(Ok::<_, QmpError>(()));
    });
}

fn start() -> Result<ServerHandle, Box<dyn Error>> {
    let mut registry = Registry::new();
    let runtime = Handle::current();
    registry.deferred_command("x-nap", move |_: &Context, responder: Responder<()>| {
        nap(&runtime, responder);
    })?;
    let dispatcher = Dispatcher::new(registry, version(), system_time);
    Ok(Server::new(dispatcher).stay().spawn()?)
}

async fn accept(listener: TcpListener, control: Control) -> Result<(), Box<dyn Error>> {
    loop {
        let (stream, address) = listener.accept().await?;
        tokio::spawn(serve(control.clone(), stream, Peer::Address(address.to_string())));
    }
}

async fn serve(control: Control, stream: TcpStream, peer: Peer) {
    if let Err(error) = control.serve_stream(stream, peer, Layout::Compact).await {
        eprintln!("a client is lost: {error}");
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args().nth(1).ok_or("where? tokio HOST:PORT")?;
    let server = start()?;
    accept(TcpListener::bind(address).await?, server.control()).await
}

#[tokio::test]
async fn a_task_answers() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    let server = start().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let control = server.control();
    let accepting = async move { accept(listener, control).await.unwrap() };
    let client = async {
        let mut client = TcpStream::connect(address).await.unwrap();
        let commands = b"{'execute': 'qmp_capabilities'} {'execute': 'x-nap', 'id': 1}";
        client.write_all(commands).await.unwrap();
        client.shutdown().await.unwrap();
        let mut said = String::new();
        client.read_to_string(&mut said).await.unwrap();
        assert!(said.ends_with("{\"return\": {}, \"id\": 1}\r\n"), "{said}");
    };
    tokio::select! {
        () = accepting => {}
        () = client => {}
    }
    server.control().shutdown();
    server.wait();
}
