// SPDX-License-Identifier: MIT OR Apache-2.0
//! Faults of the server behind a mux, or of a client: the effect on clients and their commands. `docs/mux.md` has them
//! as a table.

use std::fs;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use tests::bench::machine::resident_kib;
use tests::endpoint::Endpoint;
use tests::json::Json;
use tests::process::Signal;
use tests::scripted::{Peer, Scripted, behind_mux};
use tests::server::{Client, Server};
use tests::upstream::{Muxed, Program, expect_upstream, watcher};
use tests::waiting::{wait_for, wait_until};

const A_WHILE: Duration = Duration::from_millis(100);
const CLOSED: &str = "it has closed the connection";
const WITH_OOB: &str = r#"{"enable": ["oob"]}"#;

fn ask(client: &mut Client, command: &str) {
    client.send(&format!(r#"{{"execute": "{command}", "id": "{command}"}}"#));
}

#[track_caller]
fn expect_error(client: &mut Client, command: &str, error: &str) {
    client.expect(&format!(
        r#"{{"id": "{command}", "error": {{"class": "GenericError", "desc": "The command {command} {error}"}}}}"#
    ));
}

#[track_caller]
fn expect_disconnected(client: &mut Client, reason: &str) {
    let event = client.receive();
    let name = event.get("event").and_then(Json::as_str);
    assert_eq!(name, Some("__org.qmp-server_UPSTREAM_DISCONNECTED"), "{event}");
    let told = event.get("data").and_then(|data| data.get("reason")).and_then(Json::as_str);
    assert_eq!(told, Some(reason));
}

#[track_caller]
fn expect_connected(client: &mut Client, version: &str) {
    let event = client.receive();
    let name = event.get("event").and_then(Json::as_str);
    assert_eq!(name, Some("__org.qmp-server_UPSTREAM_CONNECTED"), "{event}");
    let told = event.get("data").and_then(|data| data.get("version")).and_then(Json::as_str);
    assert_eq!(told, Some(version));
}

/// The mux must connect again and serve the clients, which get its own events.
#[track_caller]
fn expect_service(server: &Scripted, watchers: &mut [&mut Client]) {
    let mut peer = server.accept_and_negotiate("[]");
    for client in watchers {
        expect_connected(client, "1.0.0 (scripted)");
        ask(client, "again");
        let request = peer.expect("again");
        peer.answer(&request, "{}");
        client.expect(r#"{"return": {}, "id": "again"}"#);
    }
}

/// Accepts the connection of the mux, which clients see when this returns.
#[track_caller]
fn accept_from(mux: &Server, server: &Scripted) -> Peer {
    let peer = server.accept_and_negotiate("[]");
    expect_upstream(mux, true);
    peer
}

fn descriptors(mux: &mut Server) -> usize {
    fs::read_dir(format!("/proc/{}/fd", mux.process().child().id())).unwrap().count()
}

/// Waits until the mux has as many descriptors as before.
#[track_caller]
fn expect_descriptors(mux: &mut Server, before: usize) {
    wait_for(|| {
        let now = descriptors(mux);
        if now == before { Ok(()) } else { Err(format!("{now} descriptors, not {before}")) }
    });
}

fn memory(mux: &mut Server) -> u64 {
    resident_kib(mux.process().child().id()).unwrap()
}

#[test]
fn a_server_that_goes_in_mid_command_fails_what_it_has_and_what_waits_and_clients_stay() {
    let (mux, server) = behind_mux(&[]);
    let mut peer = accept_from(&mux, &server);
    let [mut asker, mut waiting, mut idle] = [watcher(&mux), watcher(&mux), watcher(&mux)];
    let mut uninformed = mux.negotiated();
    ask(&mut asker, "sent");
    peer.expect("sent");
    ask(&mut waiting, "waits");
    peer.expect_silence(A_WHILE);
    drop(peer);
    expect_error(&mut asker, "sent", &format!("was sent and not answered: {CLOSED}"));
    expect_error(&mut waiting, "waits", &format!("cannot be sent to the server: {CLOSED}"));
    for client in [&mut asker, &mut waiting, &mut idle] {
        expect_disconnected(client, CLOSED);
    }
    ask(&mut idle, "new");
    expect_error(&mut idle, "new", &format!("cannot be sent to the server: {CLOSED}"));
    ask(&mut uninformed, "new");
    expect_error(&mut uninformed, "new", &format!("cannot be sent to the server: {CLOSED}"));
    expect_service(&server, &mut [&mut asker, &mut waiting, &mut idle]);
    uninformed.expect_silence(Duration::ZERO);
}

#[test]
fn a_server_of_another_version_is_told_and_greets_with_its_own() {
    let (mux, server) = behind_mux(&[]);
    let peer = server.accept_and_negotiate(r#"["oob"]"#);
    let mut client = mux.connect();
    client.negotiate(WITH_OOB);
    let mut watcher = watcher(&mux);
    drop(peer);
    expect_disconnected(&mut watcher, CLOSED);
    let mut peer = server.accept();
    peer.greet_as(2, "[]");
    peer.negotiate();
    expect_connected(&mut watcher, "2.0.0 (scripted)");
    client.send(r#"{"exec-oob": "quick", "id": 1}"#);
    client.expect(
        r#"{"id": 1, "error": {"class": "GenericError", "desc": "the upstream server does not offer out-of-band execution any more"}}"#,
    );
    ask(&mut client, "in-band");
    let request = peer.expect("in-band");
    peer.answer(&request, "{}");
    client.expect(r#"{"return": {}, "id": "in-band"}"#);
    mux.connect().expect(
        r#"{"QMP": {"version": {"qemu": {"micro": 0, "minor": 0, "major": 2}, "package": "scripted"}, "capabilities": []}}"#,
    );
}

#[test]
fn a_server_that_is_killed_over_and_over_answers_each_command_once_or_it_fails() {
    let Some(mut muxed) = Muxed::start(Program::StorageDaemon, &[]) else { return };
    expect_upstream(&muxed.mux, true);
    let mut clients: Vec<_> = (0..4).map(|_| watcher(&muxed.mux)).collect();
    for round in 0..3 {
        let answered = AtomicUsize::new(0);
        thread::scope(|scope| {
            let answered = &answered;
            let threads: Vec<_> = clients
                .iter_mut()
                .enumerate()
                .map(|(number, client)| {
                    scope.spawn(move || ask_until_lost(client, number, answered))
                })
                .collect();
            wait_until(|| answered.load(Ordering::Relaxed) >= 100 * (round + 1));
            muxed.upstream.signal(Signal::KILL).unwrap();
            threads.into_iter().for_each(|thread| thread.join().unwrap());
        });
        muxed.restart();
        for client in &mut clients {
            client.expect_event("__org.qmp-server_UPSTREAM_CONNECTED");
        }
    }
}

/// Sends one command after the other, each with a name of its own, until an event tells that the server has gone.
fn ask_until_lost(client: &mut Client, number: usize, answered: &AtomicUsize) {
    let mut asked = 0;
    let mut lost = false;
    while !lost {
        let command = format!("no-{number}-{asked}");
        ask(client, &command);
        asked += 1;
        loop {
            let message = client.receive();
            if message.get("event").is_some() {
                lost = true;
                continue;
            }
            assert_eq!(message.get("id").and_then(Json::as_str), Some(command.as_str()));
            assert!(message.to_string().contains(&format!("The command {command} ")), "{message}");
            answered.fetch_add(1, Ordering::Relaxed);
            break;
        }
    }
}

/// Users have reported such a length.
#[test]
fn a_server_that_stands_still_for_ten_seconds_loses_nothing() {
    let Some(muxed) = Muxed::start(Program::StorageDaemon, &[]) else { return };
    let [mut one, mut other] = [muxed.mux.negotiated(), muxed.mux.negotiated()];
    muxed.upstream.signal(Signal::STOP).unwrap();
    ask(&mut one, "query-version");
    other.send(&r#"{"execute": "query-version", "id": 7}"#.repeat(100));
    one.expect_silence(Duration::from_secs(10));
    other.expect_silence(Duration::ZERO);
    let mut late = muxed.mux.connect();
    late.negotiate("{}");
    muxed.upstream.signal(Signal::CONT).unwrap();
    assert!(one.receive().to_string().ends_with(r#""id": "query-version"}"#));
    for _ in 0..100 {
        assert!(other.receive().to_string().ends_with(r#""id": 7}"#));
    }
    late.execute("query-version");
}

#[test]
fn with_a_deadline_a_server_that_stands_still_holds_up_nobody() {
    let Some(muxed) = Muxed::start(Program::StorageDaemon, &["--deadline", "0.1"]) else { return };
    let mut clients: Vec<_> = (0..10).map(|_| muxed.mux.negotiated()).collect();
    muxed.upstream.signal(Signal::STOP).unwrap();
    for _ in 0..3 {
        clients.iter_mut().for_each(|client| ask(client, "query-version"));
        for client in &mut clients {
            expect_error(client, "query-version", "was not answered within 0.1 seconds");
        }
    }
    muxed.upstream.signal(Signal::CONT).unwrap();
    for (number, client) in clients.iter_mut().enumerate() {
        // The late answers to all the others may come before this one.
        let command = format!("no-{number}");
        let answer = format!("The command {command} has not been found");
        wait_until(|| {
            ask(client, &command);
            let text = client.receive().to_string();
            let found = text.contains(&answer);
            assert!(found || text.contains("within 0.1 seconds"), "{text}");
            found
        });
    }
}

#[test]
fn a_server_that_sends_rubbish_is_left_and_connected_to_again() {
    let stray = "it sends rubbish: JSON parse error, stray 'R'";
    let object = "it sends rubbish: a message of a server must be a JSON object";
    for (rubbish, reason) in [("RUBBISH", stray), ("[]", object), ("{}", "")] {
        let (mux, server) = behind_mux(&[]);
        let mut peer = accept_from(&mux, &server);
        let mut client = watcher(&mux);
        ask(&mut client, "sent");
        peer.expect("sent");
        peer.send(rubbish);
        peer.expect_end();
        let answer = client.receive().to_string();
        let expected = "The command sent was sent and not answered: it sends rubbish: ";
        assert!(answer.contains(expected) && answer.contains(reason), "{rubbish}: {answer}");
        client.expect_event("__org.qmp-server_UPSTREAM_DISCONNECTED");
        expect_service(&server, &mut [&mut client]);
    }
}

#[test]
fn a_server_that_answers_what_it_was_not_asked_is_left_before_anybody_is_told() {
    let cases: [(&str, &str); 5] = [
        (r#"{"return": "wrong", "id": 12345}"#, "it answers what it was not asked"),
        (r#"{"return": "wrong"}"#, "it answers what it was not asked"),
        (r#"{"return": "wrong", "id": "x"}"#, "it answers what it was not asked"),
        (r#"{"return": "wrong", "id": -1}"#, "it answers what it was not asked"),
        (
            r#"{"QMP": {"version": {"qemu": {"micro": 0, "minor": 0, "major": 1}, "package": ""}, "capabilities": []}}"#,
            "it greets twice",
        ),
    ];
    for (message, reason) in cases {
        let (mux, server) = behind_mux(&[]);
        let mut peer = accept_from(&mux, &server);
        let mut client = watcher(&mux);
        ask(&mut client, "sent");
        peer.expect("sent");
        peer.send(message);
        expect_error(&mut client, "sent", &format!("was sent and not answered: {reason}"));
        expect_disconnected(&mut client, reason);
        peer.expect_end();
    }
}

/// QEMU can send answers to requests of one connection on the next one.
#[test]
fn an_answer_of_the_last_connection_is_nobodys_on_the_next() {
    let (mux, server) = behind_mux(&[]);
    let mut peer = accept_from(&mux, &server);
    let mut client = watcher(&mux);
    ask(&mut client, "first");
    let first = peer.expect("first");
    drop(peer);
    expect_error(&mut client, "first", &format!("was sent and not answered: {CLOSED}"));
    expect_disconnected(&mut client, CLOSED);
    let mut peer = server.accept();
    peer.answer(&first, "\"left over\"");
    peer.greet("[]");
    peer.negotiate();
    expect_connected(&mut client, "1.0.0 (scripted)");
    ask(&mut client, "second");
    let second = peer.expect("second");
    assert_ne!(first.id, second.id);
    peer.answer(&first, "\"left over\"");
    let reason = "it answers what it was not asked";
    expect_error(&mut client, "second", &format!("was sent and not answered: {reason}"));
}

#[test]
fn a_server_that_closes_at_once_is_asked_again_and_clients_wait_for_its_greeting() {
    let (mux, server) = behind_mux(&[]);
    let mut client = mux.connect();
    for _ in 0..3 {
        drop(server.accept());
    }
    client.expect_silence(Duration::ZERO);
    let mut peer = server.accept();
    client.expect_silence(A_WHILE);
    peer.greet("[]");
    peer.negotiate();
    client.negotiate("{}");
    ask(&mut client, "ask");
    let request = peer.expect("ask");
    peer.answer(&request, "{}");
    client.expect(r#"{"return": {}, "id": "ask"}"#);
}

#[test]
fn a_server_that_refuses_negotiation_is_asked_again() {
    let (mux, server) = behind_mux(&[]);
    let mut peer = server.accept();
    peer.greet("[]");
    let request = peer.expect("qmp_capabilities");
    peer.refuse(&request, "not now");
    peer.expect_end();
    let _peer = server.accept_and_negotiate("[]");
    mux.connect().negotiate("{}");
}

#[test]
fn a_mux_whose_server_never_greets_can_be_ended() {
    let (mut mux, server) = behind_mux(&[]);
    let peer = server.accept();
    let mut client = mux.connect();
    client.expect_silence(A_WHILE);
    mux.signal(Signal::TERM);
    assert!(mux.wait().success());
    client.expect_end();
    drop(peer);
}

#[test]
fn a_huge_answer_reaches_its_asker_and_one_beyond_the_limits_ends_the_connection() {
    let (mux, server) = behind_mux(&[]);
    let mut peer = accept_from(&mux, &server);
    let mut client = watcher(&mux);
    ask(&mut client, "large");
    let request = peer.expect("large");
    let large = format!("\"{}\"", "x".repeat(8 << 20));
    let sender = thread::spawn(move || {
        peer.answer(&request, &large);
        peer
    });
    let answer = client.receive();
    assert_eq!(answer.get("return").and_then(Json::as_str).map(str::len), Some(8 << 20));
    let mut peer = sender.join().unwrap();
    ask(&mut client, "larger");
    peer.expect("larger");
    let larger = format!("\"{}\"", "x".repeat(65 << 20));
    let sender = thread::spawn(move || {
        // The mux does not read to the end.
        let mut stream = peer.into_stream();
        drop(stream.write_all(b"{\"return\": "));
        drop(stream.write_all(larger.as_bytes()));
    });
    let reason = "it sends rubbish: JSON token size limit exceeded";
    expect_error(&mut client, "larger", &format!("was sent and not answered: {reason}"));
    sender.join().unwrap();
    expect_disconnected(&mut client, reason);
}

#[test]
fn a_server_that_does_not_read_is_not_sent_without_limit() {
    let (mux, server) = behind_mux(&[]);
    let _peer = server.accept_and_negotiate(r#"["oob"]"#);
    let padding = "x".repeat(100 << 10);
    let mut clients: Vec<_> = (0..64)
        .map(|id| {
            let mut client = mux.connect();
            client.negotiate(WITH_OOB);
            client.send(&format!(
                r#"{{"exec-oob": "large", "arguments": {{"padding": "{padding}"}}, "id": {id}}}"#
            ));
            client
        })
        .collect();
    // Some of them are in flight, and the rest is refused.
    let refused = clients.last_mut().unwrap().receive().to_string();
    assert!(refused.contains("does not take any more out-of-band commands"), "{refused}");
}

#[test]
fn a_client_has_one_out_of_band_request_at_a_time_and_others_theirs() {
    let (mux, server) = behind_mux(&[]);
    let mut peer = server.accept_and_negotiate(r#"["oob"]"#);
    let [mut client, mut other] = [(); 2].map(|()| {
        let mut client = mux.connect();
        client.negotiate(WITH_OOB);
        client
    });
    client.send(r#"{"exec-oob": "first", "id": 1} {"exec-oob": "second", "id": 2}"#);
    let first = peer.expect("first");
    other.send(r#"{"exec-oob": "others", "id": 3}"#);
    let others = peer.expect("others");
    peer.answer(&others, "{}");
    other.expect(r#"{"return": {}, "id": 3}"#);
    peer.answer(&first, "{}");
    client.expect(r#"{"return": {}, "id": 1}"#);
    peer.expect("second");
}

/// A mux with clients of two users: the one of the first has been answered, the two of the second have sent nothing.
fn two_users() -> (Server, Peer, Client, [Client; 2]) {
    let (mux, server) = behind_mux(&["--listen", "tcp:127.0.0.1:0"]);
    let mut peer = server.accept_and_negotiate("[]");
    // Clients of another user than those at the Unix socket, as far as is known.
    let endpoint = Endpoint::Tcp { host: "127.0.0.1".to_owned(), port: mux.ports()[0] };
    let mut others = [(); 2].map(|()| Client::connect(&endpoint));
    others.iter_mut().for_each(|client| client.negotiate("{}"));
    let mut one = mux.negotiated();
    serve(&mut peer, &mut one);
    (mux, peer, one, others)
}

/// Answers one short request.
fn serve(peer: &mut Peer, client: &mut Client) {
    ask(client, "short");
    let request = peer.expect("short");
    peer.answer(&request, "{}");
    client.expect(r#"{"return": {}, "id": "short"}"#);
}

fn send_long(client: &mut Client, bytes: usize) {
    let text = "x".repeat(bytes);
    client.send(&format!(r#"{{"execute": "long", "arguments": {{"text": "{text}"}}}}"#));
}

#[test]
fn a_user_with_long_requests_waits_and_others_go_on() {
    let (mux, mut peer, mut polite, [mut long, mut next]) = two_users();
    send_long(&mut long, 200_000);
    let request = peer.expect("long");
    send_long(&mut next, 1000);
    let mut watcher = watcher(&mux);
    let mut expect_queued = |count: u32| {
        wait_for(|| {
            watcher.send_command("__org.qmp-server_query-upstream");
            let status = watcher.receive().to_string();
            let is = status.contains(&format!(r#""queued": {count}"#));
            if is { Ok(()) } else { Err(status) }
        });
    };
    expect_queued(1);
    peer.answer(&request, "{}");
    long.expect(r#"{"return": {}}"#);
    // What is short does not wait, of whatever user.
    for _ in 0..20 {
        serve(&mut peer, &mut polite);
        serve(&mut peer, &mut long);
    }
    expect_queued(1);
    drop(next);
    expect_queued(0);
}

#[test]
fn a_long_request_is_sent_when_its_time_has_come_though_nothing_else_happens() {
    let (_mux, mut peer, _polite, mut long) = two_users();
    // Little more than what makes the next one wait.
    for client in &mut long {
        send_long(client, 11_000);
        let request = peer.expect("long");
        peer.answer(&request, "{}");
        client.expect(r#"{"return": {}}"#);
    }
}

#[test]
fn clients_that_vanish_in_mid_command_and_mid_message_harm_nobody() {
    let (mut mux, server) = behind_mux(&[]);
    let mut peer = server.accept_and_negotiate(r#"["oob"]"#);
    let mut client = mux.negotiated();
    let before = descriptors(&mut mux);
    for _ in 0..20 {
        let mut vanishing = mux.connect();
        vanishing.negotiate(WITH_OOB);
        ask(&mut vanishing, "in-band");
        vanishing.send(r#"{"exec-oob": "out-of-band"} {"execute": "half a mess"#);
        let mut requests = [peer.request(), peer.request()];
        requests.sort_by(|a, b| a.command.cmp(&b.command));
        drop(vanishing);
        ask(&mut client, "other");
        let other = peer.expect("other");
        requests.iter().for_each(|request| peer.answer(request, "\"nobody's\""));
        peer.answer(&other, "{}");
        client.expect(r#"{"return": {}, "id": "other"}"#);
    }
    expect_descriptors(&mut mux, before);
}

#[test]
fn a_client_that_sends_without_end_does_not_keep_others_waiting() {
    let Some(muxed) = Muxed::start(Program::StorageDaemon, &[]) else { return };
    let mut polite = muxed.mux.negotiated();
    let flood = UnixStream::connect(muxed.mux.socket()).unwrap();
    let mut writer = flood.try_clone().unwrap();
    let flooding = thread::spawn(move || {
        let commands = r#"{"execute": "query-version"}"#.repeat(1000);
        drop(
            writer
                .write_all(br#"{"execute": "qmp_capabilities", "arguments": {"enable": ["oob"]}}"#),
        );
        // Ends with the connection, below.
        while writer.write_all(commands.as_bytes()).is_ok() {}
    });
    let reader = flood.try_clone().unwrap();
    let reading = thread::spawn(move || std::io::copy(&mut &reader, &mut std::io::sink()));
    for _ in 0..200 {
        polite.execute("query-version");
    }
    flood.shutdown(std::net::Shutdown::Both).unwrap();
    flooding.join().unwrap();
    reading.join().unwrap().unwrap();
}

#[test]
fn a_client_that_does_not_read_is_kept_little_for_and_gets_it_all_in_the_end() {
    const COMMANDS: usize = 2000;
    let Some(mut muxed) = Muxed::start(Program::StorageDaemon, &[]) else { return };
    let mut lazy = muxed.mux.negotiated();
    let mut other = muxed.mux.negotiated();
    other.execute("query-commands");
    let before = memory(&mut muxed.mux);
    // About 20 MiB of answers, for few bytes of requests.
    for id in 0..COMMANDS {
        lazy.send(&format!(r#"{{"execute":"query-commands","id":{id}}}"#));
    }
    for _ in 0..200 {
        other.execute("query-version");
    }
    let grown = memory(&mut muxed.mux).saturating_sub(before);
    assert!(grown < 8 << 10, "{grown} KiB more");
    for id in 0..COMMANDS {
        let answer = lazy.receive();
        assert_eq!(answer.get("id").and_then(Json::as_i64), i64::try_from(id).ok());
    }
}

#[test]
fn who_comes_and_goes_leaves_nothing_behind() {
    const VISITS: usize = 150;
    let Some(mut muxed) = Muxed::start(Program::StorageDaemon, &[]) else { return };
    let visit = |mux: &Server| {
        let mut client = mux.connect();
        client.negotiate(WITH_OOB);
        client.send(&r#"{"execute": "query-version"}"#.repeat(9));
        (0..4).for_each(|_| drop(client.receive()));
    };
    let mut stays = muxed.mux.negotiated();
    let descriptors_with_one = descriptors(&mut muxed.mux);
    (0..VISITS).for_each(|_| visit(&muxed.mux));
    stays.execute("query-version");
    let before = memory(&mut muxed.mux);
    (0..VISITS).for_each(|_| visit(&muxed.mux));
    stays.execute("query-version");
    expect_descriptors(&mut muxed.mux, descriptors_with_one);
    let grown = memory(&mut muxed.mux).saturating_sub(before);
    assert!(grown < 1 << 10, "{grown} KiB more after {VISITS} visits");
}

#[test]
fn a_lost_server_leaves_nothing_behind() {
    let (mut mux, server) = behind_mux(&[]);
    let mut peer = accept_from(&mux, &server);
    let mut client = watcher(&mux);
    let before = descriptors(&mut mux);
    for _ in 0..4 {
        ask(&mut client, "sent");
        peer.expect("sent");
        drop(peer);
        client.receive();
        expect_disconnected(&mut client, CLOSED);
        peer = server.accept_and_negotiate("[]");
        expect_connected(&mut client, "1.0.0 (scripted)");
    }
    expect_descriptors(&mut mux, before);
}

/// QEMU does the same, and its clients rely on it.
#[test]
fn a_server_that_is_told_to_quit_takes_all_clients_with_it_and_others_may_come() {
    let Some(mut muxed) = Muxed::start(Program::StorageDaemon, &[]) else { return };
    let [mut asker, mut other] = [muxed.mux.negotiated(), muxed.mux.negotiated()];
    ask(&mut asker, "quit");
    asker.expect(r#"{"return": {}, "id": "quit"}"#);
    asker.expect_end();
    other.expect_end();
    let mut early = muxed.mux.negotiated();
    ask(&mut early, "query-version");
    expect_error(&mut early, "query-version", &format!("cannot be sent to the server: {CLOSED}"));
    muxed.restart();
    expect_upstream(&muxed.mux, true);
    early.execute("query-version");
}

/// `yank` of the mux's own connection.
#[test]
fn an_emulator_that_is_told_to_drop_the_mux_is_connected_to_again() {
    let Some(muxed) = Muxed::start(Program::Emulator, &[]) else { return };
    expect_upstream(&muxed.mux, true);
    let [mut asker, mut other] = [watcher(&muxed.mux), watcher(&muxed.mux)];
    asker.send(
        r#"{"execute": "yank", "arguments": {"instances": [{"type": "chardev", "id": "monitor"}]}, "id": "yank"}"#,
    );
    expect_error(&mut asker, "yank", &format!("was sent and not answered: {CLOSED}"));
    for client in [&mut asker, &mut other] {
        expect_disconnected(client, CLOSED);
        client.expect_event("__org.qmp-server_UPSTREAM_CONNECTED");
        client.execute("query-status");
    }
}

#[test]
fn a_mux_that_is_ended_does_not_wait_for_a_server_that_stands_still() {
    let Some(mut muxed) = Muxed::start(Program::StorageDaemon, &[]) else { return };
    let mut client = muxed.mux.negotiated();
    muxed.upstream.signal(Signal::STOP).unwrap();
    ask(&mut client, "query-version");
    client.expect_silence(A_WHILE);
    muxed.mux.signal(Signal::TERM);
    assert!(muxed.mux.wait().success());
    client.expect_end();
    assert!(!muxed.mux.socket().exists());
    muxed.upstream.signal(Signal::CONT).unwrap();
}

/// The upstream server does not end with the mux, and can be used directly.
#[test]
fn a_mux_that_has_ended_leaves_its_server_to_others() {
    let Some(mut muxed) = Muxed::start(Program::StorageDaemon, &[]) else { return };
    muxed.mux.negotiated().execute("query-version");
    muxed.mux.signal(Signal::TERM);
    assert!(muxed.mux.wait().success());
    let mut call = Command::new(tests::server::program());
    let socket = format!("unix:{}", muxed.mux.dir().join("upstream.sock").display());
    assert!(call.args(["call", &socket, "query-version"]).output().unwrap().status.success());
}
