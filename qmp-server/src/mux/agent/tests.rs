// SPDX-License-Identifier: MIT OR Apache-2.0
use std::io::{BufRead, BufReader, Write};
use std::os::fd::{AsFd, IntoRawFd};
use std::os::unix::net::{UnixListener, UnixStream};

use qmp_dispatch::{Dispatcher, LocalClient};

use super::*;
use crate::io::{Event, Token};
use crate::mux::Mux;
use crate::mux::lines::LIMIT;
use crate::{Discipline, Engine, Handover, Server, UpstreamLost, system_time, version};

const PATIENCE: Duration = Duration::from_secs(60);

/// A mux whose connection to the agent is moved by hand, at times that the test chooses.
struct Bench {
    mux: Mux,
    dispatcher: Dispatcher,
    connection: AgentConnection,
    /// The agent's end.
    agent: UnixStream,
    now: Instant,
}

impl Bench {
    fn new() -> Bench {
        Bench::with_limits(LIMITS)
    }

    fn with_limits(limits: Limits) -> Bench {
        let mux = Mux::for_agent(None, "unix:/nowhere/agent.sock".parse().unwrap()).unwrap();
        let dispatcher = Dispatcher::new(mux.registry().unwrap(), version(), system_time);
        mux.shared.upstream.connected(false, None);
        let (near, agent) = UnixStream::pair().unwrap();
        near.set_nonblocking(true).unwrap();
        agent.set_nonblocking(true).unwrap();
        let now = Instant::now();
        let session = AgentSession::with_limits(7, limits);
        let wire = Wire::new(Stream::Socket(near.into()));
        let connection = AgentConnection::with(wire, session, now);
        Bench { mux, dispatcher, connection, agent, now }
    }

    /// One whose agent has synchronised.
    fn in_step() -> Bench {
        let mut bench = Bench::new();
        bench.synchronise(7);
        bench
    }

    fn synchronise(&mut self, id: u32) {
        let said = self.turn();
        let expected =
            format!("{{\"execute\":\"guest-sync-delimited\",\"arguments\":{{\"id\": {id}}}}}\n");
        assert!(said.ends_with(&expected), "{said}");
        self.answer(format!("\u{FF}{{\"return\": {id}}}\n"));
    }

    fn client(&self) -> LocalClient {
        LocalClient::connect(&self.dispatcher)
    }

    fn exchange(&mut self) {
        let event =
            Event { token: Token::from(0), writable: true, read_closed: false, hung_up: false };
        let input = LinkInput { event: Some(event), ..LinkInput::of_turn() };
        let upstream = &self.mux.shared.upstream;
        self.connection.exchange(upstream, input, self.now, |_| PATIENCE).unwrap();
        while self.connection.is_readable() {
            let input = LinkInput::of_turn();
            self.connection.exchange(upstream, input, self.now, |_| PATIENCE).unwrap();
        }
    }

    /// Lets the connection do what it can. Returns what the agent has been sent, each byte as a character.
    fn turn(&mut self) -> String {
        self.exchange();
        let mut said = Vec::new();
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = std::io::Read::read(&mut self.agent, &mut buffer) {
            said.extend_from_slice(&buffer[..count]);
        }
        said.into_iter().map(char::from).collect()
    }

    /// The agent sends this, of which each character is a byte, and is sent what is returned.
    fn answer(&mut self, text: impl AsRef<str>) -> String {
        let bytes: Vec<u8> = text.as_ref().chars().map(|c| u8::try_from(c).unwrap()).collect();
        self.agent.write_all(&bytes).unwrap();
        self.turn()
    }

    fn after(&mut self, duration: Duration) -> String {
        self.now += duration;
        self.turn()
    }
}

#[test]
fn one_command_is_with_the_agent_at_a_time_and_clients_take_turns() {
    let mut bench = Bench::in_step();
    let clients: Vec<_> = (0..5).map(|_| bench.client()).collect();
    let mut orders = Vec::new();
    for round in 0..3 {
        for (index, client) in clients.iter().enumerate() {
            let arguments = format!("{{'é': {round}}}");
            client.send(&format!(
                "{{'execute': 'guest-{index}', 'arguments': {arguments}, 'id': [{index}]}}"
            ));
        }
        let mut sent = bench.turn();
        let mut order = Vec::new();
        for _ in &clients {
            assert_eq!(sent.lines().count(), 1, "{sent}");
            let (before, after) = sent.split_once("guest-").unwrap();
            let index: usize = after[..1].parse().unwrap();
            assert_eq!(before, "{\"execute\":\"");
            assert!(
                after.ends_with(&format!(": {round}}}}}\n")) && !after.contains("id"),
                "{after}"
            );
            assert!(clients[index].received().is_empty());
            sent = bench.answer(format!("{{\"return\": {index}}}\n"));
            let expected = format!("{{\"return\": {index}, \"id\": [{index}]}}");
            assert_eq!(clients[index].received(), [expected]);
            order.push(index);
        }
        assert_eq!(sent, "");
        orders.push(order);
    }
    // Who was served longest ago is first.
    assert_eq!(orders[1], orders[0]);
    assert_eq!(orders[2], orders[0]);
}

#[test]
fn clients_synchronise_with_the_mux_while_the_agent_answers() {
    let mut bench = Bench::new();
    let client = bench.client();
    client.send("{'execute': 'guest-sync', 'arguments': {'id': 1}}");
    bench.synchronise(7);
    assert_eq!(client.received(), [r#"{"return": 1}"#]);
    // Beside a command of another client.
    let other = bench.client();
    other.send("{'execute': 'guest-slow'}");
    assert!(bench.turn().contains("guest-slow"));
    for id in [i64::MAX, i64::MIN, 0] {
        client.send(&format!(
            "{{'execute': 'guest-sync-delimited', 'arguments': {{'id': {id}}}, 'id': 'x'}}"
        ));
        assert_eq!(bench.turn(), "");
        assert_eq!(client.received(), [format!("{{\"return\": {id}, \"id\": \"x\"}}")]);
    }
    for wrong in ["9223372036854775808", "1.0", "'1'", "null"] {
        let said =
            client.ask(&format!("{{'execute': 'guest-sync', 'arguments': {{'id': {wrong}}}}}"));
        let expected = "Invalid parameter type for 'id', expected: integer";
        assert!(said[0].contains(expected), "{said:?}");
    }
    assert!(client.ask("{'execute': 'guest-sync'}")[0].contains("Parameter 'id' is missing"));
}

#[test]
fn a_late_answer_is_nobodys() {
    let mut bench = Bench::in_step();
    let (first, second) = (bench.client(), bench.client());
    first.send("{'execute': 'guest-fstrim', 'id': 1}");
    assert!(bench.turn().contains("guest-fstrim"));
    second.send("{'execute': 'guest-ping', 'id': 2}");
    assert_eq!(bench.after(PATIENCE - Duration::from_millis(1)), "");
    let sent = bench.after(Duration::from_millis(1));
    assert!(sent.starts_with('\u{FF}') && sent.contains("\"id\": 8"), "{sent}");
    let said = first.received();
    let expected = "The guest agent has not answered the command guest-fstrim within 60 seconds";
    assert!(said[0].contains(expected) && said[0].contains(r#""id": 1"#), "{said:?}");
    // The answer comes after all, and in two pieces.
    assert_eq!(bench.answer("{\"return\": {\"path"), "");
    assert_eq!(bench.answer("s\": []}}\n"), "");
    assert!(bench.answer("\u{FF}{\"return\": 8}\n").contains("guest-ping"));
    bench.answer("{\"return\": {}}\n");
    assert_eq!(second.received(), [r#"{"return": {}, "id": 2}"#]);
    assert!(first.received().is_empty());
}

#[test]
fn who_waits_for_an_agent_that_does_not_answer_is_told_so_and_it_is_asked_again() {
    let mut bench = Bench::new();
    assert!(bench.turn().contains("guest-sync-delimited"));
    let (first, second) = (bench.client(), bench.client());
    first.send("{'execute': 'guest-ping', 'id': 1}");
    second.send("{'execute': 'guest-sync', 'arguments': {'id': 1}, 'id': 2}");
    assert_eq!(bench.after(SILENCE), "");
    for (client, id) in [(&first, 1), (&second, 2)] {
        let said = client.received();
        assert!(said[0].contains("the guest agent does not answer"), "{said:?}");
        assert!(said[0].contains(&format!("\"id\": {id}")));
    }
    assert!(bench.mux.status().hangs);
    assert_eq!(bench.connection.timer(), None, "nobody waits");
    assert_eq!(bench.after(SILENCE), "");
    first.send("{'execute': 'guest-ping'}");
    assert!(bench.turn().contains("\"id\": 8"));
    // It comes, and finds both.
    let sent = bench.answer("\u{FF}{\"return\": 7}\n\u{FF}{\"return\": 8}\n");
    assert!(sent.contains("guest-ping") && !bench.mux.status().hangs);
    bench.answer("{\"return\": {}}\n");
    assert_eq!(first.received(), [r#"{"return": {}}"#]);
}

#[test]
fn a_command_without_response_ends_when_what_follows_it_is_answered() {
    let mut bench = Bench::in_step();
    let (first, second) = (bench.client(), bench.client());
    first.send("{'execute': 'guest-shutdown', 'id': 1}");
    let sent = bench.turn();
    second.send("{'execute': 'guest-ping', 'id': 2}");
    assert!(
        sent.contains("guest-shutdown") && sent.contains("\"id\": 8") && !sent.contains('\u{FF}')
    );
    assert!(bench.answer("\u{FF}{\"return\": 8}\n").contains("guest-ping"));
    assert!(first.received().is_empty());
    bench.answer("{\"return\": {}}\n");
    // It is answered if it fails.
    first.send("{'execute': 'guest-suspend-ram', 'id': 3}");
    bench.turn();
    second.send("{'execute': 'guest-ping', 'id': 4}");
    let error = r#"{"error": {"class": "GenericError", "desc": "no"}}"#;
    assert_eq!(bench.answer(format!("{error}\n")), "");
    assert_eq!(
        first.received(),
        [r#"{"id": 3, "error": {"class": "GenericError", "desc": "no"}}"#]
    );
    assert!(bench.answer("\u{FF}{\"return\": 9}\n").contains("guest-ping"));
}

#[test]
fn the_command_of_a_client_that_has_left_is_waited_for_and_answered_to_nobody() {
    let mut bench = Bench::in_step();
    let (first, waiting, second) = (bench.client(), bench.client(), bench.client());
    first.send("{'execute': 'guest-first'}");
    bench.turn();
    waiting.send("{'execute': 'guest-never'}");
    second.send("{'execute': 'guest-second', 'id': 2}");
    for client in [first, waiting] {
        client.monitor().close();
        let place = client.monitor().local::<crate::mux::upstream::MuxLocal>().unwrap();
        bench.mux.shared.upstream.leave(&place.client);
    }
    assert_eq!(bench.turn(), "");
    assert!(
        bench.answer("{\"return\": 1}\n").contains("guest-second"),
        "what was not sent never is"
    );
    bench.answer("{\"return\": 2}\n");
    assert_eq!(second.received(), [r#"{"return": 2, "id": 2}"#]);
}

#[test]
fn what_is_no_answer_is_an_error_for_one_client_alone() {
    for wrong in [
        "login: \n",
        "{\"return\": {}, \"id\": 5}\n",
        "{\"event\": \"STOP\"}\n",
        "{\"return\": \u{FF}\n",
        "[[[[[[[[",
        "\u{0}\u{1}\u{80}",
        "{\"error\": 1}\n",
    ] {
        let mut bench = Bench::in_step();
        let (first, second) = (bench.client(), bench.client());
        first.send("{'execute': 'guest-first', 'id': 1}");
        bench.turn();
        second.send("{'execute': 'guest-second', 'id': 2}");
        bench.answer(wrong);
        let mut said = first.received();
        if said.is_empty() {
            // It could still become an answer.
            bench.after(PATIENCE);
            said = first.received();
        }
        assert!(said[0].contains("answered") && said[0].contains(r#""id": 1"#), "{said:?}");
        bench.turn();
        assert!(bench.answer("\u{FF}{\"return\": 8}\n").contains("guest-second"), "{wrong}");
        bench.answer("{\"return\": 2}\n");
        assert_eq!(second.received(), [r#"{"return": 2, "id": 2}"#]);
    }
}

#[test]
fn what_comes_unasked_is_not_the_answer_to_the_next_command() {
    let mut bench = Bench::in_step();
    bench.agent.write_all(b"{\"return\": \"unasked\"}\n").unwrap();
    let client = bench.client();
    client.send("{'execute': 'guest-ping'}");
    let sent = bench.turn();
    assert!(sent.contains("guest-sync-delimited") && !sent.contains("guest-ping"), "{sent}");
    assert!(bench.answer("\u{FF}{\"return\": 8}\n").contains("guest-ping"));
    bench.answer("{\"return\": {}}\n");
    assert_eq!(client.received(), [r#"{"return": {}}"#]);
}

#[test]
fn an_answer_without_end_is_cut_off_at_its_limit() {
    let mut bench = Bench::with_limits(Limits { token_bytes: 1 << 20, ..LIMITS });
    bench.synchronise(7);
    let client = bench.client();
    client.send("{'execute': 'guest-file-read'}");
    bench.turn();
    bench.answer("{\"return\": \"");
    let piece = "x".repeat(32 << 10);
    for round in 0.. {
        bench.answer(&piece);
        assert!(bench.connection.session.kept() <= 1 << 20);
        if let [said] = &client.received()[..] {
            assert!(said.contains("was sent and not answered") && said.len() < 1000, "{said}");
            assert!((28..=34).contains(&round), "{round}");
            break;
        }
    }
    // It goes on, and takes nothing any more.
    for _ in 0..64 {
        bench.answer(&piece);
        assert_eq!(bench.connection.session.kept(), 0);
    }
}

#[test]
fn an_agent_that_only_sends_is_not_read_from_without_pause() {
    let mut bench = Bench::new();
    bench.turn();
    let piece = vec![b'x'; 64 << 10];
    let mut sent = 0;
    while bench.connection.rests_until.is_none() {
        sent += bench.agent.write(&piece).unwrap_or(0);
        bench.turn();
        assert!(sent <= MOST_UNHEEDED + (2 << 20));
    }
    assert!(!bench.connection.is_readable());
    assert!(bench.connection.timer().is_some_and(|at| at <= bench.now + REST));
    bench.after(REST);
    assert_eq!(bench.connection.rests_until, None);
}

#[test]
fn an_agent_that_foresees_what_it_is_asked_makes_nothing_grow() {
    let mut bench = Bench::in_step();
    let mut id = 7;
    // It does not read.
    for _ in 0..200 {
        let mut text = String::new();
        for _ in 0..500 {
            id += 1;
            text.push_str(&format!("\u{FF}{{\"return\": {id}}} x "));
        }
        let bytes: Vec<u8> = text.chars().map(|c| u8::try_from(c).unwrap()).collect();
        let _ = bench.agent.write(&bytes);
        bench.exchange();
    }
    let sent = bench.turn();
    assert!(sent.matches("guest-sync").count() <= 201 * 2, "at most two for each input");
}

/// A real loop, with sockets on both sides.
struct Site {
    folder: tempfile::TempDir,
    listener: UnixListener,
}

struct Running {
    engine: Engine,
    mux: Mux,
}

/// One end of a connection, whose bytes are characters.
struct End(BufReader<UnixStream>);

impl End {
    fn new(stream: UnixStream) -> End {
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        End(BufReader::new(stream))
    }

    fn send(&mut self, text: &str) {
        let bytes: Vec<u8> = text.chars().map(|c| u8::try_from(c).unwrap()).collect();
        self.0.get_mut().write_all(&bytes).unwrap();
    }

    fn line(&mut self) -> String {
        let mut line = Vec::new();
        self.0.read_until(b'\n', &mut line).unwrap();
        line.into_iter().map(char::from).collect()
    }

    #[track_caller]
    fn expect(&mut self, text: &str) {
        let line = self.line();
        assert!(line.contains(text), "{text} is not in: {line}");
    }

    /// Answers the next synchronisation.
    fn synchronise(&mut self) {
        let line = self.line();
        let (_, id) = line.rsplit_once("\"id\": ").unwrap();
        let id = id.trim_end().trim_end_matches('}').to_owned();
        self.send(&format!("\u{FF}{{\"return\": {id}}}\n"));
    }
}

impl Site {
    fn new() -> Site {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("agent.sock")).unwrap();
        Site { folder, listener }
    }

    fn run(&self, lost: UpstreamLost, handover: Option<&mut Handover>) -> Running {
        let engine = Engine::new().unwrap();
        let path = |name: &str| format!("unix:{}", self.folder.path().join(name).display());
        let mux = Mux::for_agent(Some("vm"), path("agent.sock").parse().unwrap()).unwrap();
        let mux = mux.on_upstream_lost(lost);
        let dispatcher = Dispatcher::new(mux.registry().unwrap(), version(), system_time);
        let server = Server::new(dispatcher).discipline(Discipline::OnePerMonitor);
        let server = match handover {
            Some(handover) => handover.resume(&mux, server),
            None => server,
        };
        let server = server.listen(&path("shared.sock").parse().unwrap()).unwrap();
        mux.serve_on(&engine, server).unwrap();
        Running { engine, mux }
    }

    fn agent(&self) -> End {
        let mut agent = End::new(self.listener.accept().unwrap().0);
        agent.synchronise();
        agent
    }

    fn client(&self) -> End {
        let path = self.folder.path().join("shared.sock");
        let begun = Instant::now();
        loop {
            match UnixStream::connect(&path) {
                Ok(stream) => return End::new(stream),
                Err(error) if begun.elapsed() > LIMIT => panic!("{error}"),
                // Not before there is a channel.
                Err(_) => std::thread::yield_now(),
            }
        }
    }
}

#[test]
fn clients_speak_as_to_the_agent_itself() {
    let site = Site::new();
    let _running = site.run(UpstreamLost::Disconnect, None);
    let (mut agent, mut client) = (site.agent(), site.client());
    // Nobody greets. Half a message is forgotten at a delimiter, with QEMU's error.
    client.send("{\"execute\": \"guest\u{FF}{\"execute\": \"guest-sync-delimited\", \"arguments\": {\"id\": 3}}");
    client.expect(r#"{"error": {"class": "GenericError", "desc": "JSON parse error, stray '\"guest\uFFFD'"}}"#);
    assert_eq!(client.line(), "\u{FF}{\"return\": 3}\n", "LF alone");
    client.send("{\"execute\": \"qmp_capabilities\", \"id\": 1}");
    agent.expect("{\"execute\":\"qmp_capabilities\"}\n");
    agent.send("{\"error\": {\"class\": \"CommandNotFound\", \"desc\": \"no\"}}\n");
    client.expect("{\"id\": 1, \"error\": {\"class\": \"CommandNotFound\"");
    client.send("{\"exec-oob\": \"guest-ping\"}");
    client.expect("QMP input member 'exec-oob' is unexpected");
    // Many delimiters are many errors, and no more than the client reads.
    client.send(&"\u{FF}".repeat(1000));
    (0..1000).for_each(|_| client.expect("stray"));
}

#[test]
fn clients_see_the_end_of_the_channel_and_come_again_when_it_is_there() {
    let site = Site::new();
    let running = site.run(UpstreamLost::Disconnect, None);
    for _ in 0..3 {
        let (mut agent, mut client) = (site.agent(), site.client());
        client.send("{\"execute\": \"guest-ping\"}");
        agent.expect("guest-ping");
        drop(agent);
        assert_eq!(client.line(), "");
    }
    let mut agent = site.agent();
    let mut client = site.client();
    client.send("{\"execute\": \"guest-ping\"}");
    agent.expect("guest-ping");
    agent.send("{\"return\": {}}\n");
    client.expect("return");
    assert_eq!(running.mux.status().reconnects, 3);
}

#[test]
fn clients_that_are_kept_get_errors_while_there_is_no_channel() {
    let site = Site::new();
    let _running = site.run(UpstreamLost::Keep, None);
    let (mut agent, mut client) = (site.agent(), site.client());
    client.send("{\"execute\": \"guest-ping\", \"id\": 1}");
    agent.expect("guest-ping");
    drop(agent);
    client.expect("was sent and not answered");
    let mut agent = site.agent();
    client.send("{\"execute\": \"guest-ping\", \"id\": 2}");
    agent.expect("guest-ping");
    agent.send("{\"return\": {}}\n");
    client.expect("{\"return\": {}, \"id\": 2}");
}

#[test]
fn a_channel_is_handed_over_with_all_that_is_under_way() {
    let site = Site::new();
    let mut running = site.run(UpstreamLost::Disconnect, None);
    let mut agent = site.agent();
    let (mut first, mut second) = (site.client(), site.client());
    for round in 0..3 {
        first.send(
            "{\"execute\": \"guest-first\", \"id\": 1} {\"execute\": \"guest-third\", \"id\": 3}",
        );
        agent.expect("guest-first");
        second.send("{\"execute\": \"guest-second\", \"id\": 2}");
        second.send("{\"exec");
        agent.send("{\"retu");
        let frozen = Handover::freeze(&running.engine, [&running.mux], &[], LIMIT, "").unwrap();
        let socket = frozen.sockets()[0].as_fd().try_clone_to_owned().unwrap().into_raw_fd();
        std::mem::forget((running, frozen));
        let mut handover = Handover::receive(&[socket]).unwrap();
        running = site.run(UpstreamLost::Disconnect, Some(&mut handover));
        agent.send("rn\": 1}\n");
        first.expect("{\"return\": 1, \"id\": 1}");
        for _ in 0..2 {
            let line = agent.line();
            let answer = if line.contains("guest-second") { 2 } else { 3 };
            agent.send(&format!("{{\"return\": {answer}}}\n"));
        }
        second.expect("{\"return\": 2, \"id\": 2}");
        first.expect("{\"return\": 3, \"id\": 3}");
        second.send("ute\": \"guest-sync-delimited\", \"arguments\": {\"id\": 9}}");
        assert_eq!(second.line(), "\u{FF}{\"return\": 9}\n", "in round {round}");
    }
}

#[test]
fn a_client_that_asks_for_very_much_and_leaves_holds_up_nobody() {
    let site = Site::new();
    let running = site.run(UpstreamLost::Disconnect, None);
    let (mut agent, mut greedy, mut other) = (site.agent(), site.client(), site.client());
    greedy.send(&"{\"execute\": \"guest-greedy\"}\n".repeat(2000));
    for id in 0..10 {
        agent.expect("guest-greedy");
        other.send(&format!("{{\"execute\": \"guest-ping\", \"id\": {id}}}"));
        let begun = Instant::now();
        while running.mux.status().queued == 0 {
            assert!(begun.elapsed() < LIMIT);
            std::thread::yield_now();
        }
        // No more of them has been taken than the one that is executed.
        assert_eq!(running.mux.status().queued, 1);
        agent.send("{\"return\": {}}\n");
        agent.expect("guest-ping");
        agent.send("{\"return\": {}}\n");
        other.expect(&format!("{{\"return\": {{}}, \"id\": {id}}}"));
    }
    agent.expect("guest-greedy");
    drop(greedy);
    let begun = Instant::now();
    while running.mux.control().and_then(|control| control.status()).unwrap().clients > 1 {
        assert!(begun.elapsed() < LIMIT);
        std::thread::yield_now();
    }
    other.send("{\"execute\": \"guest-last\"}");
    agent.send("{\"return\": {}}\n");
    agent.expect("guest-last");
}
