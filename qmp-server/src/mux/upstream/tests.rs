// SPDX-License-Identifier: MIT OR Apache-2.0
use qmp_dispatch::proto::{Capability, Greeting};
use qmp_dispatch::{Dispatcher, LocalClient, Locals};

use super::*;
use crate::engine::Returning;
use crate::mux::Mux;
use crate::{system_time, version};

/// A mux whose server takes what the test lets it take, at times that the test chooses.
struct Bench {
    mux: Mux,
    dispatcher: Dispatcher,
    now: Instant,
    clients: u64,
}

/// What has been sent.
struct Sent {
    number: u64,
    command: String,
}

impl Bench {
    fn new() -> Bench {
        let mux = Mux::new("unix:/nowhere/qmp.sock".parse().unwrap()).unwrap();
        let mux = mux.on_upstream_lost(UpstreamLost::Keep);
        let dispatcher = Dispatcher::new(mux.registry().unwrap(), version(), system_time);
        dispatcher.set_greeting(Greeting::new(version(), vec![Capability::OOB]));
        mux.shared.upstream.connected(true, None);
        Bench { mux, dispatcher, now: Instant::now(), clients: 0 }
    }

    fn upstream(&self) -> &Upstream {
        &self.mux.shared.upstream
    }

    /// A client of this user.
    fn client(&mut self, user: Owner) -> LocalClient {
        self.clients += 1;
        let upstream = self.upstream();
        let names = Names::new(format!("mux-{}-", self.clients), Arc::clone(&upstream.names));
        let client = Arc::new(upstream.new_client(user, names));
        upstream.state().returned.clients.insert(self.clients, client);
        let locals = Locals::default().with(Returning(self.clients));
        LocalClient::connect_with(&self.dispatcher, locals)
    }

    fn next(&self) -> Option<Sent> {
        let (number, text) = self.upstream().next(true, self.now)?;
        Some(Sent { number, command: text.command })
    }

    /// All that may be sent now.
    fn all(&self) -> Vec<Sent> {
        std::iter::from_fn(|| self.next()).collect()
    }

    #[track_caller]
    fn expect(&self, commands: &[&str]) -> Vec<Sent> {
        let all = self.all();
        assert_eq!(all.iter().map(|sent| sent.command.as_str()).collect::<Vec<_>>(), commands);
        all
    }

    fn answer(&self, sent: &Sent) {
        self.upstream().answered(sent.number, Ok(Json::EMPTY_OBJECT));
    }
}

fn leave(bench: &Bench, client: &LocalClient) {
    bench.upstream().leave(&client.monitor().local::<MuxLocal>().unwrap().client);
}

fn short(client: &LocalClient) {
    client.send("{'execute': 'short', 'id': 2}");
}

const GETFD: &str = "{'execute': 'getfd', 'arguments': {'fdname': 'a'}}";
const HELP: &str = "{'exec-oob': 'help', 'id': 'oob'}";

#[test]
fn nothing_is_sent_between_a_request_that_takes_a_descriptor_and_its_answer() {
    let mut bench = Bench::new();
    let [one, two, other] = [1, 2, 3].map(|user| bench.client(user));
    let helper = bench.client(4);
    one.send(GETFD);
    let getfd = bench.expect(&["getfd"]);
    assert_eq!(bench.upstream().timer(bench.now), None, "nobody waits");
    helper.send(HELP);
    two.send(GETFD);
    short(&other);
    bench.expect(&[]);
    assert_eq!(bench.mux.status().queued, 3);
    bench.now += DESCRIPTOR_READ_WITHIN / 2;
    bench.expect(&[]);
    bench.answer(&getfd[0]);
    let sent = bench.expect(&["help", "short", "getfd"]);
    sent.iter().for_each(|sent| bench.answer(sent));
    assert_eq!(helper.received(), [r#"{"return": {}, "id": "oob"}"#]);
    bench.expect(&[]);
}

#[test]
fn help_does_not_wait_for_ever_for_the_answer_to_a_descriptor() {
    let mut bench = Bench::new();
    let hostile: Vec<_> = (0..10).map(|_| bench.client(1)).collect();
    let [helper, other] = [2, 3].map(|user| bench.client(user));
    // The server has read it, and then hangs.
    hostile[0].send(GETFD);
    let getfd = bench.expect(&["getfd"]);
    helper.send(HELP);
    short(&other);
    hostile[1..].iter().for_each(|client| client.send(GETFD));
    let at = bench.upstream().timer(bench.now).unwrap();
    assert_eq!(at, bench.now + DESCRIPTOR_READ_WITHIN);
    bench.now = at - Duration::from_nanos(1);
    bench.expect(&[]);
    bench.now = at;
    bench.expect(&["help", "short"]);
    // From now on it holds nobody up, and no other descriptor is passed.
    assert_eq!(bench.upstream().timer(bench.now), None);
    let helper = bench.client(2);
    helper.send(HELP);
    bench.expect(&["help"]);
    // A client that leaves, or whose deadline has passed, takes what waits with it.
    assert_eq!(bench.mux.status().queued, 9);
    leave(&bench, &hostile[1]);
    hostile[2].send(GETFD);
    bench.expect(&[]);
    assert_eq!(bench.mux.status().queued, 8);
    bench.answer(&getfd[0]);
    // Out-of-band requests come between any two of them.
    for _ in 0..8 {
        let helper = bench.client(2);
        let getfd = bench.expect(&["getfd"]);
        helper.send(HELP);
        bench.expect(&[]);
        bench.answer(&getfd[0]);
        let help = bench.next().unwrap();
        assert_eq!(help.command, "help");
        bench.answer(&help);
    }
    bench.expect(&[]);
}
