// SPDX-License-Identifier: MIT OR Apache-2.0
//! Many clients at once, each with its own ids.

use std::sync::Barrier;
use std::thread;

use tests::server::{Client, Server};

const CLIENTS: usize = 64;
const COMMANDS: usize = 200;

/// A different id for each client and command, of every JSON type that has so many values. (With `null`, `true`,
/// `false` and no id at all the command itself tells who asked.)
fn id(client: usize, command: usize) -> Option<String> {
    let serial = client * COMMANDS + command;
    Some(match command % 10 {
        0 => format!("{serial}"),
        1 => format!("-{serial}"),
        2 => format!("{serial}.5"),
        3 => format!("\"{serial}\""),
        4 => format!("[{serial}, [], \"{client}\"]"),
        5 => format!("{{\"serial\": {serial}}}"),
        6 => "null".to_owned(),
        7 => "true".to_owned(),
        8 => "false".to_owned(),
        _ => return None,
    })
}

/// A command whose reply names its asker, and that reply.
fn command_and_reply(client: usize, command: usize) -> (String, String) {
    let name = format!("no-such-command-{client}-{command}");
    let error = format!(
        r#""error": {{"class": "CommandNotFound", "desc": "The command {name} has not been found"}}"#
    );
    match id(client, command) {
        Some(id) => {
            (format!(r#"{{"execute":"{name}","id":{id}}}"#), format!(r#"{{"id": {id}, {error}}}"#))
        }
        None => (format!(r#"{{"execute":"{name}"}}"#), format!("{{{error}}}")),
    }
}

fn succeeding_command_and_reply(client: usize, command: usize) -> (String, String) {
    match id(client, command) {
        Some(id) => (
            format!(r#"{{"execute":"query-name","id":{id}}}"#),
            format!(r#"{{"return": {{"name": "confvm"}}, "id": {id}}}"#),
        ),
        None => (
            r#"{"execute":"query-name"}"#.to_owned(),
            r#"{"return": {"name": "confvm"}}"#.to_owned(),
        ),
    }
}

/// Runs `talk` for every client at once, each connected before any begins.
fn all_at_once(capabilities: &str, talk: impl Fn(&mut Client, &[(String, String)]) + Sync) {
    let server = Server::start();
    let everybody_is_there = Barrier::new(CLIENTS);
    thread::scope(|scope| {
        for number in 0..CLIENTS {
            let (server, everybody_is_there, talk) = (&server, &everybody_is_there, &talk);
            scope.spawn(move || {
                let mut client = server.connect();
                client.negotiate(capabilities);
                let exchange: Vec<_> = (0..COMMANDS)
                    .map(|command| match command % 2 {
                        0 => command_and_reply(number, command),
                        _ => succeeding_command_and_reply(number, command),
                    })
                    .collect();
                everybody_is_there.wait();
                talk(&mut client, &exchange);
            });
        }
    });
}

fn in_one_go(client: &mut Client, exchange: &[(String, String)]) {
    let commands: Vec<_> = exchange.iter().map(|(command, _)| command.as_str()).collect();
    client.send(&commands.concat());
    for (_, reply) in exchange {
        client.expect(reply);
    }
}

fn one_after_the_other(client: &mut Client, exchange: &[(String, String)]) {
    for (command, reply) in exchange {
        client.send(command);
        client.expect(reply);
    }
}

#[test]
fn every_reply_goes_to_its_asker_in_order_with_its_id() {
    all_at_once("{}", one_after_the_other);
}

#[test]
fn the_same_with_all_commands_sent_in_one_go() {
    all_at_once("{}", in_one_go);
}

#[test]
fn the_same_with_out_of_band_enabled() {
    all_at_once(r#"{"enable": ["oob"]}"#, in_one_go);
}

#[test]
fn each_client_negotiates_for_itself() {
    let server = Server::start();
    let mut early = server.negotiated();
    let mut late = server.connect();
    late.receive();
    late.send(r#"{"execute": "query-name"}"#);
    late.expect(concat!(
        r#"{"error": {"class": "CommandNotFound", "#,
        r#""desc": "Expecting capabilities negotiation with 'qmp_capabilities'"}}"#
    ));
    early.execute("query-name");
}

#[test]
fn an_event_goes_to_every_client_that_has_negotiated() {
    let server = Server::start();
    let mut others: Vec<_> = (0..8).map(|_| server.negotiated()).collect();
    let mut silent = server.connect();
    silent.receive();
    let mut actor = server.negotiated();
    actor.send(r#"{"execute": "cont"}"#);
    actor.expect_event("RESUME");
    actor.expect(r#"{"return": {}}"#);
    for other in &mut others {
        other.expect_event("RESUME");
    }
    // An event would come before this reply.
    silent.send(r#"{"execute": "qmp_capabilities"}"#);
    silent.expect(r#"{"return": {}}"#);
}
