// SPDX-License-Identifier: MIT OR Apache-2.0
//! D-Bus over a Unix socket, without a bus between.

use std::path::Path;

use peers::{Outcome, Peer, Version};
use tokio::net::{UnixListener, UnixStream};
use zbus::connection::{Builder, Connection};
use zbus::{Guid, interface, proxy};

const PATH: &str = "/org/example/machine";

fn main() -> Outcome {
    peers::main::<Zbus>()
}

struct Zbus;

impl Peer for Zbus {
    type Client = MachineProxy<'static>;

    async fn serve(directory: &Path, listening: impl FnOnce(String)) -> Outcome {
        let socket = directory.join("zbus.sock");
        let listener = UnixListener::bind(&socket)?;
        listening(socket.display().to_string());
        loop {
            let (client, _) = listener.accept().await?;
            tokio::spawn(async move {
                let served = serve_one(client).await;
                if let Ok(connection) = served {
                    // It serves as long as it is kept.
                    std::future::pending::<()>().await;
                    drop(connection);
                }
            });
        }
    }

    async fn connect(address: &str) -> Outcome<MachineProxy<'static>> {
        let stream = UnixStream::connect(address).await?;
        let connection = Builder::unix_stream(stream).p2p().build().await?;
        Ok(MachineProxy::new(&connection).await?)
    }

    async fn call(client: &mut MachineProxy<'static>) -> Outcome<Version> {
        let (major, minor, micro, package) = client.query_version().await?;
        Ok(Version { major, minor, micro, package })
    }
}

async fn serve_one(client: UnixStream) -> zbus::Result<Connection> {
    let guid = Guid::generate();
    let builder = Builder::unix_stream(client).server(guid)?.p2p();
    builder.serve_at(PATH, Machine)?.build().await
}

struct Machine;

#[interface(name = "org.example.Machine")]
impl Machine {
    async fn query_version(&self) -> (i64, i64, i64, String) {
        let Version { major, minor, micro, package } = Version::of_the_bench();
        (major, minor, micro, package)
    }
}

#[proxy(
    interface = "org.example.Machine",
    default_service = "org.example.Machine",
    default_path = "/org/example/machine"
)]
trait Machine {
    async fn query_version(&self) -> zbus::Result<(i64, i64, i64, String)>;
}
