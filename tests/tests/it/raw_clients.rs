// SPDX-License-Identifier: MIT OR Apache-2.0
//! Sockets and `socat`, with input that no library would write.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::process::Command;

use tests::json::Json;
use tests::process::run;
use tests::programs::find;
use tests::server::{LIMIT, Server};

/// What `socat` prints when this is its standard input; it half-closes the connection after it.
fn socat(server: &Server, input: &str) -> Option<String> {
    let socat = find("socat", "apt-get install socat")?;
    let address = format!("UNIX-CONNECT:{}", server.socket().display());
    let mut command = Command::new(socat);
    command.args(["-t", &LIMIT.as_secs().to_string(), "-", &address]);
    let finished = run(&mut command, input, LIMIT).unwrap_or_else(|error| panic!("{error}"));
    assert!(finished.status.success(), "{finished:#?}");
    Some(finished.stdout)
}

#[test]
fn socat_needs_no_newline_after_the_last_command() {
    let server = Server::start();
    let input = r#"{"execute": "qmp_capabilities"}{"execute": "query-name"}{"execute": "query-status", "id": 1}"#;
    let Some(output) = socat(&server, input) else { return };
    let lines: Vec<_> = output.split_terminator("\r\n").collect();
    assert!(lines[0].starts_with("{\"QMP\": {\"version\": {\"qemu\": {\"micro\": "), "{output}");
    assert_eq!(
        lines[1..],
        [
            r#"{"return": {}}"#,
            r#"{"return": {"name": "confvm"}}"#,
            r#"{"return": {"status": "prelaunch", "running": false}, "id": 1}"#,
        ]
    );
}

#[test]
fn socat_may_stop_in_the_middle_of_a_command() {
    let server = Server::start();
    let input = "{'execute': 'qmp_capabilities'}\n{'execute': 'query-name'}\n{'execute': 'query-st";
    let Some(output) = socat(&server, input) else { return };
    assert_eq!(output.matches("\r\n").count(), 3, "{output}");
    assert!(output.ends_with("{\"return\": {\"name\": \"confvm\"}}\r\n"), "{output}");
}

#[test]
fn commands_may_come_byte_by_byte() {
    let server = Server::start();
    let mut client = server.connect();
    client.receive();
    let input = "{\"execute\": \"qmp_capabilities\"}\r\n{'execute': 'query-name', 'id': [1, \"\u{e9}\"]}\r\n";
    for byte in input.as_bytes() {
        client.send_bytes(&[*byte]);
    }
    client.expect(r#"{"return": {}}"#);
    client.expect(r#"{"return": {"name": "confvm"}, "id": [1, "\u00E9"]}"#);
}

#[test]
fn commands_may_come_all_at_once() {
    let server = Server::start();
    let mut client = server.negotiated();
    let commands: String =
        (0..500).map(|id| format!(r#"{{"execute":"query-name","id":{id}}}"#)).collect();
    client.send(&commands);
    for id in 0..500 {
        client.expect(&format!(r#"{{"return": {{"name": "confvm"}}, "id": {id}}}"#));
    }
}

#[test]
fn single_quotes_are_as_good_as_double_ones() {
    let server = Server::start();
    let mut client = server.negotiated();
    client.send(r#"{'execute': 'query-name', 'id': 'it\'s "me"'}"#);
    client.expect(r#"{"return": {"name": "confvm"}, "id": "it's \"me\""}"#);
}

#[test]
fn a_byte_ff_and_a_newline_end_any_rubbish() {
    let rubbish: [&[u8]; 6] = [
        b"",
        b"{\"execute\": \"query-st",
        b"[[[[[[{{{{\"a\": 'b",
        b"\x00\x01\x02 GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"}]}]}]",
        "\u{1F980}\u{7f}\\".as_bytes(),
    ];
    let server = Server::start();
    let mut client = server.negotiated();
    for (id, bytes) in rubbish.into_iter().enumerate() {
        client.send_bytes(bytes);
        client.send_bytes(b"\xff\n");
        client.send(&format!(r#"{{"execute": "query-name", "id": {id}}}"#));
        let complaints = std::iter::from_fn(|| {
            let message = client.receive();
            match message.get("id").and_then(Json::as_i64) {
                Some(got) => {
                    assert_eq!(usize::try_from(got), Ok(id));
                    assert_eq!(
                        message.get("return").map(Json::to_string),
                        Some(r#"{"name": "confvm"}"#.to_owned())
                    );
                    None
                }
                None => Some(message),
            }
        });
        for complaint in complaints {
            let class =
                complaint.get("error").and_then(|error| error.get("class")).and_then(Json::as_str);
            assert_eq!(class, Some("GenericError"), "{complaint}");
        }
    }
}

#[test]
fn a_client_that_leaves_in_the_middle_of_a_command_does_no_harm() {
    let server = Server::start();
    for input in
        ["", "{", "{\"execute\": \"qmp_capabilities\"}{\"execute\": \"query-qmp-schema\"}{\"exec"]
    {
        let mut stream = UnixStream::connect(server.socket()).unwrap();
        stream.write_all(input.as_bytes()).unwrap();
    }
    server.negotiated().execute("query-name");
}
