// SPDX-License-Identifier: MIT OR Apache-2.0
//! Metrics for Prometheus.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::thread;

use tests::endpoint::Endpoint;
use tests::exposition::Exposition;
use tests::json::Json;
use tests::process::run;
use tests::server::{Client, LIMIT, Server, ports, qmp_server, refusal};
use tests::waiting::{self, wait_until};

/// Starts a server with metrics, and returns their TCP port.
fn start_with_metrics(arguments: &[&str]) -> (Server, u16) {
    let metrics = ["--listen", "unix:{sock}", "--metrics", "tcp:127.0.0.1:0"];
    let mut server = Server::start_with(arguments.iter().copied().chain(metrics));
    let port = waiting::wait_for(|| {
        let log = server.process().stderr();
        let mut lines = log.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        let line = lines.find(|line| line.contains("metrics at "));
        let line = line.ok_or_else(|| format!("no port of metrics in: {log}"))?;
        Ok(ports(&line.replace("metrics at", "listening at"))[0])
    });
    (server, port)
}

/// Sends a text, and reads everything that comes back.
fn ask(port: u16, request: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    response
}

/// The headers and the body of a response, which must be complete.
fn split(response: &str) -> (&str, &str) {
    let (head, body) = response.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{response}"));
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).unwrap();
    assert_eq!(body.len(), length.parse::<usize>().unwrap());
    (head, body)
}

fn scrape(port: u16) -> Exposition {
    let response =
        ask(port, "GET /metrics HTTP/1.1\r\nHost: localhost\r\nAccept: text/plain\r\n\r\n");
    let (head, body) = split(&response);
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(
        head.contains("\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n"),
        "{head}"
    );
    Exposition::parse(body)
}

/// Scrapes until the value of a metric is the expected one.
#[track_caller]
fn wait_for(port: u16, key: &str, expected: f64) -> Exposition {
    waiting::wait_for(|| {
        let exposition = scrape(port);
        let value = exposition.value(key);
        let there = value == expected;
        if there { Ok(exposition) } else { Err(format!("{key} is {value} and not {expected}")) }
    })
}

/// Waits until the harness's own client, which checked that the server is ready, has left.
fn wait_until_left(port: u16) -> Exposition {
    wait_for(port, &metric("greeted_clients_total"), 1.0);
    wait_for(port, &metric("clients"), 0.0)
}

fn metric(name: &str) -> String {
    format!("qmp_server_{name}")
}

#[test]
fn requests_answers_and_bytes_are_counted() {
    let (server, port) = start_with_metrics(&["serve"]);
    let before = wait_until_left(port);
    let mut client = server.connect();
    client.negotiate(r#"{"enable": ["oob"]}"#);
    for _ in 0..3 {
        client.execute("query-name");
    }
    client.send("{'exec-oob': 'query-yank'} {'execute': 'none'} {'execute': 'getfd'} ]");
    (0..4).for_each(|_| drop(client.receive()));
    // An answer is counted when it has been sent.
    let in_band = metric("command_seconds_count{band=\"in-band\"}");
    let after = wait_for(port, &in_band, before.value(&in_band) + 7.0);
    for (name, more) in [
        ("greeted_clients_total", 1.0),
        ("requests_total{band=\"in-band\"}", 7.0),
        ("requests_total{band=\"out-of-band\"}", 1.0),
        ("command_seconds_count{band=\"out-of-band\"}", 1.0),
        ("wait_seconds_count{band=\"in-band\"}", 7.0),
        ("successes_total", 5.0),
        ("errors_total{class=\"CommandNotFound\"}", 1.0),
        ("errors_total{class=\"GenericError\"}", 2.0),
        ("errors_total{class=\"DeviceNotFound\"}", 0.0),
        ("events_sent_total", 0.0),
        ("deadlines_passed_total", 0.0),
    ] {
        let name = metric(name);
        assert_eq!(after.value(&name) - before.value(&name), more, "{name}");
    }
    assert!(after.value(&metric("suspensions_total")) >= 1.0, "a client without oob");
    assert_eq!(after.value(&metric("clients")), 1.0);
    assert_eq!(after.value(&metric("queued_requests")), 0.0);
    assert_eq!(after.value(&metric("suspended_clients")), 0.0);
    let bytes = after.value(&metric("bytes_total{direction=\"received\"}"));
    assert!(bytes > 200.0 && bytes < 1000.0, "{bytes}");
    assert!(after.value(&metric("bytes_total{direction=\"sent\"}")) > bytes);
    let seconds = after.value(&metric("command_seconds_sum{band=\"in-band\"}"));
    assert!(seconds > 0.0 && seconds < after.value(&metric("uptime_seconds")), "{seconds}");
    drop(client);
    wait_for(port, &metric("clients"), 0.0);
}

#[test]
fn events_are_counted_for_each_client() {
    let (server, port) = start_with_metrics(&["serve"]);
    let mut clients = [server.negotiated(), server.negotiated()];
    for command in ["stop", "cont"] {
        clients[0].send(&format!("{{'execute': '{command}'}}"));
    }
    for client in &mut clients {
        client.expect_event("STOP");
    }
    let exposition = wait_for(port, &metric("events_sent_total"), 4.0);
    assert_eq!(exposition.value(&metric("events_total")), 2.0);
    assert_eq!(exposition.value(&metric("events_dropped_total")), 0.0);
}

#[test]
fn what_a_client_misses_that_does_not_read_is_counted() {
    let (server, port) = start_with_metrics(&["serve", "--limit", "unread=4K"]);
    let _silent = server.negotiated();
    let mut client = server.negotiated();
    wait_until(|| {
        for _ in 0..200 {
            client.send("{'execute': 'stop'}{'execute': 'cont'}");
            (0..4).for_each(|_| drop(client.receive()));
        }
        scrape(port).value(&metric("events_dropped_total")) > 0.0
    });
    assert!(scrape(port).value(&metric("kept_bytes")) > 4096.0);
}

#[test]
fn refused_clients_are_counted_by_reason() {
    let (server, port) = start_with_metrics(&["serve", "--limit", "monitors=1"]);
    wait_until_left(port);
    let _one = server.negotiated();
    let mut two = server.connect();
    two.expect_end();
    let limit = metric("refused_clients_total{reason=\"limit\"}");
    let exposition = wait_for(port, &limit, 1.0);
    assert_eq!(exposition.value(&metric("refused_clients_total{reason=\"access\"}")), 0.0);

    let (server, port) = start_with_metrics(&["serve", "--allow-user", "4242"]);
    let mut refused = server.connect();
    refused.expect_end();
    let access = metric("refused_clients_total{reason=\"access\"}");
    // The harness's own client, which checked that the server is ready, was refused, too.
    wait_until(|| scrape(port).value(&access) >= 1.0);
}

#[test]
fn an_upstream_server_that_comes_and_goes_is_counted() {
    let mut upstream = Server::start();
    let address = format!("unix:{}", upstream.socket().display());
    let (mux, port) = start_with_metrics(&["mux", "--upstream", &address]);
    let connected = metric("upstream_connected");
    wait_for(port, &connected, 1.0);
    let mut client = mux.negotiated();
    client.execute("query-name");
    let exposition = scrape(port);
    assert_eq!(exposition.value(&metric("upstream_reconnects_total")), 0.0);
    assert_eq!(exposition.value(&metric("upstream_executing_requests")), 0.0);
    assert_eq!(exposition.value(&metric("upstream_queued_requests")), 0.0);
    upstream.process().stop().unwrap();
    wait_for(port, &connected, 0.0);
}

#[test]
fn the_metrics_of_a_mux_can_be_had_before_there_is_an_upstream_server() {
    let dir = tempfile::tempdir().unwrap();
    let address = format!("unix:{}", dir.path().join("missing.sock").display());
    let mux = ["mux", "--upstream", &address, "--upstream-lost", "keep"];
    let (_mux, port) = start_with_metrics(&mux);
    assert_eq!(scrape(port).value(&metric("upstream_connected")), 0.0);
}

#[test]
fn a_command_that_passes_its_deadline_is_counted() {
    let (mux, port, mut upstream) = mux_in_front_of_nobody();
    let mut client = mux.negotiated();
    client.send("{'execute': 'query-name'}");
    let error = client.receive().to_string();
    assert!(error.contains("was not answered within"), "{error}");
    let exposition = wait_for(port, &metric("deadlines_passed_total"), 1.0);
    assert_eq!(exposition.value(&metric("late_answers_total")), 0.0);
    assert_eq!(exposition.value(&metric("upstream_executing_requests")), 1.0);
    let id = id_of_request(&mut upstream);
    upstream.write_all(format!("{{\"return\": {{}}, \"id\": {id}}}\r\n").as_bytes()).unwrap();
    wait_for(port, &metric("late_answers_total"), 1.0);
}

/// Starts a mux whose upstream server sends only what the test sends.
fn mux_in_front_of_nobody() -> (Server, u16, UnixStream) {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("upstream.sock");
    let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let accept = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let greeting = "{\"QMP\": {\"version\": {\"qemu\": {\"micro\": 0, \"minor\": 0, \"major\": 1}, \
                        \"package\": \"\"}, \"capabilities\": []}}\r\n";
        stream.write_all(greeting.as_bytes()).unwrap();
        let id = id_of_request(&mut stream);
        stream.write_all(format!("{{\"return\": {{}}, \"id\": {id}}}\r\n").as_bytes()).unwrap();
        stream
    });
    let address = format!("unix:{}", socket.display());
    let (mux, port) = start_with_metrics(&["mux", "--upstream", &address, "--deadline", "0.05"]);
    (mux, port, accept.join().unwrap())
}

/// Reads one request.
fn id_of_request(stream: &mut UnixStream) -> Json {
    let mut request = String::new();
    let mut byte = [0];
    loop {
        stream.read_exact(&mut byte).unwrap();
        request.push(char::from(byte[0]));
        if let Ok(request) = Json::parse(&request) {
            return request.get("id").unwrap().clone();
        }
    }
}

#[test]
fn what_is_no_request_for_metrics_gets_an_error() {
    let (_server, port) = start_with_metrics(&["serve"]);
    for (request, status) in [
        ("GET / HTTP/1.1\r\n\r\n", "404 "),
        ("DELETE /metrics HTTP/1.1\r\n\r\n", "405 "),
        ("POST /metrics HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}", "405 "),
        ("{'execute': 'quit'}\r\n", "400 "),
        ("\u{16}\u{3}\u{1}\0\0", "400 "),
        (&format!("GET /metrics HTTP/1.1\r\nX: {}\r\n\r\n", "y".repeat(100_000)), "431 "),
    ] {
        let response = ask(port, request);
        let (head, _) = split(&response);
        assert!(head.starts_with(&format!("HTTP/1.1 {status}")), "{request:.40}: {head}");
        assert!(head.contains("\r\nConnection: close"), "{head}");
    }
    let response = ask(port, "HEAD /metrics HTTP/1.0\r\n\r\n");
    assert!(
        response.starts_with("HTTP/1.1 200 OK\r\n") && response.ends_with("\r\n\r\n"),
        "{response}"
    );
}

#[test]
fn whoever_is_slow_or_leaves_holds_up_nobody() {
    let (mut server, port) = start_with_metrics(&["serve"]);
    let connect = || TcpStream::connect(("127.0.0.1", port)).unwrap();
    let silent: Vec<_> = (0..200).map(|_| connect()).collect();
    let mut half = connect();
    half.write_all(b"GET /metr").unwrap();
    for _ in 0..20 {
        let mut leaving = connect();
        leaving.write_all(b"GET /metrics HTTP/1.1\r\n\r\n").unwrap();
        drop(leaving);
        connect().shutdown(Shutdown::Both).unwrap();
    }
    scrape(port);
    half.write_all(b"ics HTTP/1.1\r\n\r\n").unwrap();
    let mut response = String::new();
    half.read_to_string(&mut response).unwrap();
    drop(Exposition::parse(split(&response).1));
    // The oldest of the clients that send nothing have been disconnected.
    let mut oldest = &silent[0];
    oldest.set_read_timeout(Some(LIMIT)).unwrap();
    assert_eq!(oldest.read(&mut [0]).unwrap(), 0);
    server.process().stop().unwrap();
    assert!(server.wait().success());
}

#[test]
fn metrics_are_served_at_unix_sockets_which_go_with_the_server() {
    let mut server = Server::start_with([
        "serve",
        "--listen",
        "unix:{sock}",
        "--metrics",
        "unix:metrics.sock,mode=0600",
    ]);
    let path = server.dir().join("metrics.sock");
    // The endpoint of the metrics is opened after the socket that the harness waits for.
    drop(Endpoint::Unix(path.clone()).connect(LIMIT).unwrap());
    let mut stream = UnixStream::connect(&path).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\n\r\n").unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    // The harness's own client may still be counted.
    assert!(Exposition::parse(split(&response).1).value(&metric("clients")) <= 1.0);
    server.process().stop().unwrap();
    assert!(!path.exists());
}

#[test]
fn where_metrics_cannot_be_served_is_told() {
    for (address, complaint) in [
        ("tcp:192.0.2.1:9", "192.0.2.1 is not a loopback address"),
        ("stdio", "cannot listen at stdio: nobody can connect there"),
        ("unix:a,mode=1", ""),
    ] {
        let checked = qmp_server(["serve", "--check-config", "--metrics", address]);
        let finished = run(&mut { checked }, "", LIMIT).unwrap();
        match complaint {
            "" => assert!(finished.status.success(), "{finished:?}"),
            complaint => assert!(finished.stderr.contains(complaint), "{finished:?}"),
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let listen = format!("unix:{}", dir.path().join("qmp.sock").display());
    let line = refusal(&["serve", "--listen", &listen, "--metrics", "tcp:192.0.2.1:9"]);
    assert!(line.contains("cannot listen at tcp:192.0.2.1:9"), "{line}");
    assert!(!dir.path().join("qmp.sock").exists());
}

#[test]
fn a_command_returns_the_same() {
    let server = Server::start();
    let mut client = server.connect();
    client.negotiate(r#"{"enable": ["oob"]}"#);
    for execute in ["execute", "exec-oob"] {
        client.send(&format!("{{'{execute}': '__org.qmp-server_query-metrics'}}"));
        let reply = client.receive();
        let text = reply.get("return").and_then(|result| result.get("text")).and_then(Json::as_str);
        let exposition = Exposition::parse(text.unwrap_or_else(|| panic!("{reply}")));
        assert_eq!(exposition.value(&metric("clients")), 1.0);
    }
}

#[test]
fn through_a_mux_the_command_tells_of_the_mux() {
    let upstream = Server::start();
    let address = format!("unix:{}", upstream.socket().display());
    let mux = Server::start_with(["mux", "--upstream", &address, "--listen", "unix:{sock}"]);
    let mut client = Client::connect(&mux.endpoint());
    client.negotiate("{}");
    let result = client.execute("__org.qmp-server_query-metrics");
    let exposition = Exposition::parse(result.get("text").and_then(Json::as_str).unwrap());
    assert_eq!(exposition.value(&metric("upstream_connected")), 1.0);
}
