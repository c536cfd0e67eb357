// SPDX-License-Identifier: MIT OR Apache-2.0
//! How long a polite client waits beside greedy ones.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use qmp_dispatch::proto::Error;
use qmp_dispatch::{Context, Dispatcher, MonitorId, Registry};
use qmp_server::{Embedded, Server, system_time, version};
use rustix::event::{PollFd, PollFlags, poll};
use tempfile::TempDir;
use tests::bench::Scale;
use tests::bench::fairness::{Fairness, GREEDY, fairness};
use tests::endpoint::Endpoint;
use tests::server::Client;

const IN_FLIGHT: usize = 8;
const TURN: &str = "{'execute': 'x-turn'}";
/// Answered when what was sent before has been queued.
const READ: &str = "{'exec-oob': 'x-read'}";

/// A server that executes one command when the test asks for it, and records its client.
struct Host {
    qmp: Embedded,
    turns: Arc<Mutex<Vec<MonitorId>>>,
    endpoint: Endpoint,
    _dir: TempDir,
}

impl Host {
    fn start() -> Host {
        let turns = Arc::<Mutex<Vec<_>>>::default();
        let mut registry = Registry::new();
        let noted = Arc::clone(&turns);
        registry
            .command("x-turn", move |context: &Context| {
                noted.lock().unwrap().push(context.monitor().id());
                Ok::<_, Error>(())
            })
            .unwrap();
        registry.command("x-read", |_: &Context| Ok::<_, Error>(())).unwrap().allow_oob();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("qmp.sock");
        let listen = format!("unix:{}", path.display()).parse().unwrap();
        let server = Server::new(Dispatcher::new(registry, version(), system_time));
        let qmp = server.listen(&listen).unwrap().embed().unwrap();
        Host { qmp, turns, endpoint: Endpoint::Unix(path), _dir: dir }
    }

    /// A client that has negotiated and had a turn.
    fn client(&self) -> (MonitorId, Client) {
        let mut client = Client::connect(&self.endpoint);
        client.receive();
        client.send("{'execute': 'qmp_capabilities', 'arguments': {'enable': ['oob']}}");
        self.wait();
        self.qmp.dispatch_one();
        client.receive();
        queue(&mut client);
        let id = self.turn();
        client.receive();
        (id, client)
    }

    /// Waits until there is something to dispatch.
    fn wait(&self) {
        poll(&mut [PollFd::new(&self.qmp, PollFlags::IN)], None).unwrap();
    }

    /// Executes the next command. Returns its client.
    fn turn(&self) -> MonitorId {
        self.qmp.dispatch_one();
        self.turns.lock().unwrap().pop().expect("a command waits")
    }
}

/// Sends a request, and returns when it has been queued.
fn queue(client: &mut Client) {
    client.send(TURN);
    client.send(READ);
    client.expect(r#"{"return": {}}"#);
}

#[test]
fn a_polite_client_waits_for_those_that_were_not_served_since_it_was() {
    let host = Host::start();
    let mut greedy: Vec<_> = (0..GREEDY).map(|_| (host.client(), 0)).collect();
    let (polite_id, mut polite) = host.client();
    for ((_, client), _) in &mut greedy {
        // One less than the limit: a suspended client is not read.
        (1..IN_FLIGHT).for_each(|_| queue(client));
        client.send(TURN);
    }
    let mut serve_greedy = || {
        let id = host.turn();
        let Some(((_, client), served)) = greedy.iter_mut().find(|((other, _), _)| *other == id)
        else {
            assert_eq!(id, polite_id);
            return false;
        };
        *served += 1;
        client.expect(r#"{"return": {}}"#);
        // After the earlier requests, and before the one that keeps eight in flight.
        client.send(READ);
        client.send(TURN);
        client.expect(r#"{"return": {}}"#);
        true
    };
    for thought in (0..2 * GREEDY).step_by(9) {
        (0..thought).for_each(|_| assert!(serve_greedy()));
        queue(&mut polite);
        let mut waited = 0;
        while serve_greedy() {
            waited += 1;
        }
        assert_eq!(waited, GREEDY.saturating_sub(thought));
        polite.expect(r#"{"return": {}}"#);
    }
    let served = || greedy.iter().map(|(_, served)| served);
    assert!(served().max().unwrap() - served().min().unwrap() <= 1);
    host.qmp.control().shutdown();
    host.qmp.wait();
}

/// The median counts: the scheduler may stop the polite client between counting and writing.
#[test]
fn a_polite_client_is_overtaken_by_few_commands_of_a_hundred_greedy_ones() {
    let scale = Scale { rounds: 1, slice: Duration::from_millis(50), ..Scale::default() };
    let Fairness { commands: [median, _], .. } = fairness(&scale).unwrap();
    assert!(median[0] <= 1.5 * (GREEDY + 1) as f64, "{median:?}");
}
