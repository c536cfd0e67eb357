// SPDX-License-Identifier: MIT OR Apache-2.0
//! Varlink over a Unix socket.

use std::path::Path;

use peers::{Outcome, Peer};
use serde::{Deserialize, Serialize};
use zlink::tokio::unix;
use zlink::{ReplyError, Server, introspect, proxy, service};

fn main() -> Outcome {
    peers::main::<Zlink>()
}

struct Zlink;

impl Peer for Zlink {
    type Client = unix::Connection;

    async fn serve(directory: &Path, listening: impl FnOnce(String)) -> Outcome {
        let socket = directory.join("zlink.sock");
        let listener = unix::bind(&socket)?;
        listening(socket.display().to_string());
        Ok(Server::new(listener, Machine).run().await?)
    }

    async fn connect(address: &str) -> Outcome<unix::Connection> {
        Ok(unix::connect(address).await?)
    }

    async fn call(client: &mut unix::Connection) -> Outcome<peers::Version> {
        let Version { major, minor, micro, package } =
            client.query_version().await?.map_err(|error| format!("{error:?}"))?;
        Ok(peers::Version { major, minor, micro, package })
    }
}

/// The library's `Version` with a description for introspection.
#[derive(Debug, Serialize, Deserialize, introspect::Type)]
struct Version {
    major: i64,
    minor: i64,
    micro: i64,
    package: String,
}

#[derive(Debug, ReplyError, introspect::ReplyError)]
#[zlink(interface = "org.example.Machine")]
enum MachineError {
    Unavailable,
}

#[proxy("org.example.Machine")]
trait MachineProxy {
    async fn query_version(&mut self) -> zlink::Result<Result<Version, MachineError>>;
}

struct Machine;

#[service(interface = "org.example.Machine")]
impl Machine {
    async fn query_version(&mut self) -> Version {
        let peers::Version { major, minor, micro, package } = peers::Version::of_the_bench();
        Version { major, minor, micro, package }
    }
}
