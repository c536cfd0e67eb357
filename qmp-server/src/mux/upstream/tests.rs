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
    bytes: usize,
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
        Some(Sent { number, bytes: text.len(), command: text.command })
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

fn long(client: &LocalClient, bytes: usize) {
    let text = "x".repeat(bytes);
    client.send(&format!("{{'execute': 'long', 'arguments': {{'text': '{text}'}}, 'id': 1}}"));
}

fn short(client: &LocalClient) {
    client.send("{'execute': 'short', 'id': 2}");
}

const GETFD: &str = "{'execute': 'getfd', 'arguments': {'fdname': 'a'}}";
const HELP: &str = "{'exec-oob': 'help', 'id': 'oob'}";

/// Four clients of one user send long requests without pause, one of another user short ones, to a server that takes ten
/// microseconds for a byte and a third of a millisecond for a request, one after the other.
#[test]
fn a_user_with_long_requests_without_pause_leaves_others_most_of_the_time() {
    const BYTES: usize = 2000;
    let mut bench = Bench::new();
    let hostile: Vec<_> = (0..4).map(|_| bench.client(1)).collect();
    let polite = bench.client(2);
    let begun = bench.now;
    let (mut asked, mut was_asked) = (vec![false; 4], false);
    let (mut reading, mut between, mut longs) = (Duration::ZERO, 0, Vec::new());
    while bench.now < begun + Duration::from_secs(6) {
        for (client, asked) in hostile.iter().zip(&mut asked) {
            if !std::mem::replace(asked, true) {
                long(client, BYTES);
            }
        }
        if !std::mem::replace(&mut was_asked, true) {
            short(&polite);
        }
        let sent = bench.next().unwrap();
        let takes = Duration::from_micros(10) * u32::try_from(sent.bytes).unwrap();
        bench.now += takes + Duration::from_micros(333);
        bench.answer(&sent);
        if sent.command == "short" {
            assert_eq!(polite.received().len(), 1);
            was_asked = false;
            between += 1;
            continue;
        }
        let is_answered = |client: &LocalClient| !client.received().is_empty();
        let of = hostile.iter().position(is_answered).unwrap();
        asked[of] = false;
        reading += takes;
        longs.push((of, std::mem::take(&mut between)));
    }
    // At first, until the debt is above the bound, one goes in each turn.
    let first = longs.iter().skip(1).take_while(|(_, between)| *between <= 1).count();
    assert!((4..8).contains(&first), "{longs:?}");
    let rest = &longs[first + 2..];
    assert!(rest.len() > 20);
    assert!(rest.iter().all(|(_, between)| *between > 250), "{longs:?}");
    assert!(reading < (bench.now - begun) / 7, "{reading:?}");
    // The clients of the user go in turn.
    assert!(rest.windows(4).all(|four| (0..4).all(|one| four.iter().any(|(of, _)| *of == one))));
}

#[test]
fn what_is_held_goes_with_its_client_its_deadline_and_the_server() {
    let mut bench = Bench::new();
    let clients: Vec<_> = (0..4).map(|_| bench.client(1)).collect();
    let other = bench.client(2);
    short(&other);
    long(&clients[0], 100_000);
    bench.all().iter().for_each(|sent| bench.answer(sent));
    clients.iter().for_each(|client| long(client, 1000));
    // Looked at, and held.
    bench.expect(&[]);
    let queued = || bench.mux.status().queued;
    assert_eq!(queued(), 4);
    leave(&bench, &clients[1]);
    assert_eq!(queued(), 3);
    // As after the deadline of the one before.
    for _ in 0..10 {
        long(&clients[2], 1000);
        bench.expect(&[]);
    }
    assert_eq!(queued(), 3);
    let state = bench.upstream().state();
    assert_eq!(state.pace.iter().filter(|request| request.is_wanted()).count(), 3);
    drop(state);
    bench.upstream().lost("it is over", |_| true);
    assert_eq!(queued(), 0);
    for client in [&clients[0], &clients[3]] {
        let received = client.received();
        let error = "The command long cannot be sent to the server: it is over";
        assert!(received.last().unwrap().contains(error), "{received:?}");
    }
    // The next server has read nothing.
    bench.upstream().connected(true, None);
    short(&other);
    long(&clients[0], 1000);
    bench.all().iter().for_each(|sent| bench.answer(sent));
    long(&clients[0], 1000);
    bench.expect(&["long"]);
}

#[test]
fn what_was_held_and_what_was_not_go_alternately() {
    let mut bench = Bench::new();
    let held: Vec<_> = (0..10).map(|_| bench.client(1)).collect();
    let other = bench.client(2);
    short(&other);
    long(&held[0], 20_000);
    bench.all().iter().for_each(|sent| bench.answer(sent));
    held.iter().for_each(|client| long(client, 300));
    bench.expect(&[]);
    // All of them may go at once now, as nothing was sent for a long time.
    let at = bench.upstream().timer(bench.now).unwrap();
    assert!(at > bench.now);
    bench.now = at + Duration::from_secs(1);
    assert_eq!(bench.upstream().timer(bench.now), None);
    let others: Vec<_> = (0..4).map(|user| bench.client(10 + user)).collect();
    others.iter().for_each(short);
    let mut order = Vec::new();
    while let Some(sent) = bench.next() {
        bench.answer(&sent);
        order.push(sent.command);
    }
    assert_eq!(order[..8], ["long", "short"].repeat(4));
    assert_eq!(order[8..], ["long"; 6]);
}

#[test]
fn what_is_long_and_out_of_band_is_refused_and_what_is_short_is_not() {
    let mut bench = Bench::new();
    let [hostile, other] = [1, 2].map(|user| bench.client(user));
    let text = "x".repeat(5000);
    let with_text = format!("{{'exec-oob': 'help', 'arguments': {{'text': '{text}'}}}}");
    short(&other);
    bench.expect(&["short"]);
    let mut sent = 0;
    let refused = loop {
        hostile.send(&with_text);
        let Some(help) = bench.next() else { break hostile.received() };
        bench.answer(&help);
        assert_eq!(hostile.received(), [r#"{"return": {}}"#]);
        sent += 1;
    };
    assert!((2..5).contains(&sent), "{sent}");
    assert!(refused[0].contains("The command help is too long to be sent out-of-band"));
    hostile.send(HELP);
    bench.all().iter().for_each(|sent| bench.answer(sent));
    assert_eq!(hostile.received(), [r#"{"return": {}, "id": "oob"}"#]);
    // It has a debt for in-band requests, too.
    long(&hostile, 1000);
    bench.expect(&[]);
    bench.now += Duration::from_secs(2);
    bench.expect(&["long"]);
}

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

/// Whatever clients do, requests that wait are sent when an answer comes or the time of the timer: nothing else wakes the link.
#[test]
fn what_waits_is_sent_in_the_end_by_answers_and_timers_alone() {
    let mut bench = Bench::new();
    let mut random = 7_u64;
    let mut below = |most: usize| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        usize::try_from(random >> 33).unwrap() % most
    };
    let mut clients: Vec<_> = (0..12).map(|number| (bench.client(number % 4), false)).collect();
    let mut in_flight = Vec::new();
    let (mut held, mut timers) = (0, 0);
    for round in 0..6000 {
        let goes_on = round < 5000;
        for (client, waits) in &mut clients {
            *waits &= client.received().is_empty();
            if *waits || !goes_on || below(3) > 0 {
                continue;
            }
            *waits = true;
            match below(8) {
                0 => client.send(GETFD),
                1 => client.send(HELP),
                2 | 3 => short(client),
                _ => long(client, below(4000)),
            }
        }
        if goes_on && below(40) == 0 {
            let number = below(12);
            leave(&bench, &clients[number].0);
            clients[number] = (bench.client(number as Owner % 4), false);
        }
        while let Some((number, text)) = bench.upstream().next(in_flight.len() < 3, bench.now) {
            in_flight.push(Sent { number, bytes: text.len(), command: text.command });
        }
        held = held.max(bench.upstream().state().pace.len());
        if !in_flight.is_empty() && below(4) > 0 {
            bench.answer(&in_flight.remove(below(in_flight.len())));
            bench.now += Duration::from_millis(1);
        } else if let Some(at) = bench.upstream().timer(bench.now) {
            assert!(at > bench.now);
            (bench.now, timers) = (at, timers + 1);
        } else {
            let queued = bench.mux.status().queued;
            assert!(queued == 0 || !in_flight.is_empty(), "{queued} requests wait for nothing");
        }
    }
    assert!(held > 3 && timers > 100, "{held} were held, {timers} timers");
    let state = bench.upstream().state();
    assert_eq!((bench.upstream().queued(&state), state.in_flight.len()), (0, 0));
    drop(state);
    assert!(clients.iter().all(|(client, waits)| !waits || !client.received().is_empty()));
}
