// SPDX-License-Identifier: MIT OR Apache-2.0
//! A Tokio program that serves QMP over streams of its own, with async commands:
//! `tokio HOST:PORT`, then for example `qmp-server call tcp:HOST:PORT x-nap milliseconds:=100`.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use qmp_dispatch::proto::{Error as QmpError, Layout};
use qmp_dispatch::{AsyncContext, Dispatcher, Registry, qapi_types};
use qmp_server::{Control, Peer, Server, ServerHandle, TokioExecutor, system_time, version};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;

qapi_types! {
    struct Nap {
        milliseconds: u64,
    }
}

#[derive(Default)]
struct Bed {
    naps: AtomicU64,
}

impl Bed {
    /// Only its own client waits for it.
    async fn nap(self: Arc<Self>, context: AsyncContext, nap: Nap) -> Result<u64, QmpError> {
        tokio::select! {
            () = sleep(Duration::from_millis(nap.milliseconds)) => {}
            // The client has disconnected: nobody would read the answer.
            () = context.closed() => return Err(QmpError::generic("woken up")),
        }
        Ok(self.naps.fetch_add(1, Ordering::Relaxed) + 1)
    }
}

fn start() -> Result<ServerHandle, Box<dyn Error>> {
    let mut registry = Registry::new();
    registry.set_executor(TokioExecutor::current());
    registry.with(Arc::new(Bed::default())).async_command("x-nap", Bed::nap)?;
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
async fn an_async_command_answers() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    let server = start().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let control = server.control();
    let accepting = async move { accept(listener, control).await.unwrap() };
    let client = async {
        let mut client = TcpStream::connect(address).await.unwrap();
        let nap = "{'execute': 'x-nap', 'arguments': {'milliseconds': 1}, 'id': 1}";
        client
            .write_all(format!("{{'execute': 'qmp_capabilities'}} {nap}").as_bytes())
            .await
            .unwrap();
        client.shutdown().await.unwrap();
        let mut said = String::new();
        client.read_to_string(&mut said).await.unwrap();
        assert!(said.ends_with("{\"return\": 1, \"id\": 1}\r\n"), "{said}");
    };
    tokio::select! {
        () = accepting => {}
        () = client => {}
    }
    server.control().shutdown();
    server.wait();
}
