// SPDX-License-Identifier: MIT OR Apache-2.0
//! JSON-RPC over WebSocket on the loopback interface: `jsonrpsee` has no Unix sockets.

use std::path::Path;

use jsonrpsee::core::client::ClientT;
use jsonrpsee::rpc_params;
use jsonrpsee::server::{RpcModule, Server};
use jsonrpsee::types::ErrorObjectOwned;
use jsonrpsee::ws_client::{WsClient, WsClientBuilder};
use peers::{Outcome, Peer, Version};

fn main() -> Outcome {
    peers::main::<Jsonrpsee>()
}

struct Jsonrpsee;

impl Peer for Jsonrpsee {
    type Client = WsClient;

    async fn serve(_: &Path, listening: impl FnOnce(String)) -> Outcome {
        let server = Server::builder().build("127.0.0.1:0").await?;
        let address = server.local_addr()?;
        let mut module = RpcModule::new(());
        module.register_method("query_version", |_, (), _| {
            Ok::<_, ErrorObjectOwned>(Version::of_the_bench())
        })?;
        let running = server.start(module);
        listening(format!("ws://{address}"));
        running.stopped().await;
        Ok(())
    }

    async fn connect(address: &str) -> Outcome<WsClient> {
        Ok(WsClientBuilder::default().build(address).await?)
    }

    async fn call(client: &mut WsClient) -> Outcome<Version> {
        Ok(client.request("query_version", rpc_params![]).await?)
    }
}
