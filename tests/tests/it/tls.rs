// SPDX-License-Identifier: MIT OR Apache-2.0
//! TLS: which clients may connect, and that it carries everything.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::Path;
use std::time::Instant;

use tempfile::TempDir;
use tests::certificates::{Authority, Identity, Validity};
use tests::channel::{TlsClient, TlsStream};
use tests::connection::Connection;
use tests::endpoint::{Endpoint, LOCALHOST};
use tests::json::Layout;
use tests::server::{Client, LIMIT, Server, refusal};

/// A server that wants certificates of one authority, with one of two names.
struct Tls {
    server: Server,
    authority: Authority,
    dir: TempDir,
}

impl Tls {
    fn start() -> Tls {
        Tls::start_with(|_, ca| format!(",client-ca={ca},allow-name=alice,allow-name=urn://bob"))
    }

    /// The options name the authority's certificate, and may name other files.
    fn start_with(options: impl Fn(&Path, &str) -> String) -> Tls {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::new(dir.path(), "authority").unwrap();
        let Identity { cert, key } = authority.issue("server", &["localhost"]).unwrap();
        let address = format!(
            "tls:127.0.0.1:0,cert={},key={}{}",
            cert.display(),
            key.display(),
            options(dir.path(), &authority.certificate().display().to_string())
        );
        let server = Server::start_with(["--listen", &address, "--listen", "unix:{sock}"]);
        Tls { server, authority, dir }
    }

    fn port(&self) -> u16 {
        self.server.ports()[0]
    }

    fn endpoint(&self, identity: Option<Identity>) -> Endpoint {
        let client = TlsClient { ca: self.authority.certificate(), identity };
        Endpoint::Tls { port: self.port(), client }
    }

    /// The owner of such a certificate must be served.
    #[track_caller]
    fn check_served(&self, identity: Option<Identity>) -> Client {
        let mut client = Client::connect(&self.endpoint(identity));
        client.negotiate("{}");
        client.execute("query-status");
        client
    }

    /// The owner of such a certificate must not be greeted. Returns what the server logs.
    #[track_caller]
    fn check_refused(&mut self, identity: Option<Identity>) -> String {
        // Sometimes the server's alert is there before the handshake is over for the client.
        let endpoint = self.endpoint(identity);
        if let Ok(mut connection) = Connection::open(&endpoint, Layout::Compact, LIMIT / 100) {
            let message = connection.read_message(Instant::now() + LIMIT);
            assert!(message.is_err(), "{message:?}");
        }
        self.server.refused(1).remove(0)
    }

    fn plain(&self) -> TcpStream {
        let stream = TcpStream::connect(("127.0.0.1", self.port())).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream
    }
}

#[test]
fn an_allowed_name_may_be_a_host_a_uri_or_the_common_name() {
    let tls = Tls::start();
    for (name, others) in [
        ("alice", &[][..]),
        ("somebody", &["ALICE"]),
        ("somebody-else", &["elsewhere", "urn://bob"]),
    ] {
        tls.check_served(Some(tls.authority.issue(name, others).unwrap()));
    }
}

#[test]
fn an_allowed_name_may_be_of_one_kind() {
    let mut tls = Tls::start_with(|_, ca| format!(",client-ca={ca},allow-name=dns:alice"));
    tls.check_served(Some(tls.authority.issue("somebody", &["alice"]).unwrap()));
    let reason = tls.check_refused(Some(tls.authority.issue("alice", &[]).unwrap()));
    assert_eq!(reason, "its certificate has none of the allowed names, but cn:alice");
}

#[test]
fn the_common_name_does_not_count_beside_others() {
    let mut tls = Tls::start();
    let mallory = tls.authority.issue("alice", &["mallory.example"]).unwrap();
    let reason = tls.check_refused(Some(mallory));
    assert_eq!(reason, "its certificate has none of the allowed names, but dns:mallory.example");
    // An address counts as a name, too.
    let mut tls = Tls::start();
    let mallory = tls.authority.issue("alice", &["192.0.2.1"]).unwrap();
    assert_eq!(tls.check_refused(Some(mallory)), "its certificate has no name that counts");
}

#[test]
fn an_authority_certifies_no_name_beyond_its_constraints() {
    for (name, others, complaint) in [
        ("alice", &[][..], "its certificate has no name that counts"),
        ("x", &["alice"], "its certificate is not accepted: "),
        (
            "alice",
            &["host.team.example"],
            "its certificate has none of the allowed names, but dns:",
        ),
    ] {
        let mut tls = Tls::start();
        let team = tls.authority.constrained("team", &["team.example"]).unwrap();
        let reason = tls.check_refused(Some(team.issue(name, others).unwrap()));
        assert!(reason.starts_with(complaint), "{reason}");
    }
    let allowed = |_: &Path, ca: &str| format!(",client-ca={ca},allow-name=host.team.example");
    let tls = Tls::start_with(allowed);
    let team = tls.authority.constrained("team", &["team.example"]).unwrap();
    tls.check_served(Some(team.issue("x", &["host.team.example"]).unwrap()));
    tls.check_served(Some(team.issue("host.team.example", &[]).unwrap()));
    let below = team.constrained("below", &["other.team.example"]).unwrap();
    let mut tls = tls;
    let reason = tls.check_refused(Some(below.issue("host.team.example", &[]).unwrap()));
    assert_eq!(reason, "its certificate has no name that counts");
}

/// The constraints may be those of the authority that is trusted.
#[test]
fn constraints_of_a_trusted_authority_hold() {
    let mut tls = Tls::start_with(|dir, ca| {
        let root = Authority::new(dir, "root").unwrap();
        let team = root.constrained("team", &["team.example"]).unwrap();
        let mut trusted = fs::read_to_string(ca).unwrap();
        trusted.push_str(&fs::read_to_string(team.certificate()).unwrap());
        fs::write(ca, trusted).unwrap();
        for name in ["alice", "bob.team.example"] {
            let Identity { cert, key } = team.issue(name, &[]).unwrap();
            fs::rename(cert, dir.join(format!("{name}.crt"))).unwrap();
            fs::rename(key, dir.join(format!("{name}.key"))).unwrap();
        }
        format!(",client-ca={ca},allow-name=alice,allow-name=bob.team.example")
    });
    let identity = |name: &str| {
        let file = |end: &str| tls.dir.path().join(format!("{name}.{end}"));
        Some(Identity { cert: file("crt"), key: file("key") })
    };
    let (alice, bob) = (identity("alice"), identity("bob.team.example"));
    tls.check_served(bob);
    assert_eq!(tls.check_refused(alice), "its certificate has no name that counts");
}

#[test]
fn without_names_any_certificate_of_the_authority_will_do() {
    let tls = Tls::start_with(|_, ca| format!(",client-ca={ca}"));
    tls.check_served(Some(tls.authority.issue("mallory", &[]).unwrap()));
}

#[test]
fn without_an_authority_no_certificate_is_needed() {
    let tls = Tls::start_with(|_, _| String::new());
    tls.check_served(None);
}

#[test]
fn another_name_is_refused() {
    let mut tls = Tls::start();
    let mallory = tls.authority.issue("mallory", &["mallory.example"]).unwrap();
    let reason = tls.check_refused(Some(mallory));
    let expected = "its certificate has none of the allowed names, but dns:mallory.example";
    assert_eq!(reason, expected);
}

#[test]
fn a_name_of_several_lines_is_none() {
    let mut tls = Tls::start();
    let mallory = tls.authority.issue("a\nERROR forged", &[]).unwrap();
    let reason = tls.check_refused(Some(mallory));
    assert_eq!(reason, "its certificate has no name that counts");
}

#[test]
fn a_client_without_a_certificate_is_refused() {
    let mut tls = Tls::start();
    assert_eq!(tls.check_refused(None), "it has no certificate");
}

#[test]
fn the_certificate_of_another_authority_is_refused() {
    // Even if it has the same name.
    for name in ["authority", "another"] {
        let mut tls = Tls::start();
        let other_dir = tempfile::tempdir().unwrap();
        let other = Authority::new(other_dir.path(), name).unwrap();
        let reason = tls.check_refused(Some(other.issue("alice", &[]).unwrap()));
        assert_eq!(reason, "its certificate is not from an accepted authority");
    }
}

#[test]
fn a_certificate_is_good_for_some_time_only() {
    for (validity, complaint) in [
        (Validity::Over, "its certificate has expired"),
        (Validity::ToCome, "its certificate is not valid yet"),
    ] {
        let mut tls = Tls::start();
        let alice = tls.authority.issue_for("alice", &[], validity).unwrap();
        assert_eq!(tls.check_refused(Some(alice)), complaint);
    }
}

#[test]
fn plain_text_is_refused() {
    let mut tls = Tls::start();
    let mut stream = tls.plain();
    stream.write_all(b"{\"execute\": \"qmp_capabilities\"}\n").unwrap();
    let mut received = Vec::new();
    // An alert, and an end that may be a reset.
    drop(stream.read_to_end(&mut received));
    assert!(!received.contains(&b'{'), "{received:?}");
    assert_eq!(tls.server.refused(1), ["it does not speak TLS"]);
}

#[test]
fn tls_1_2_is_refused() {
    let mut tls = Tls::start();
    let mut stream = tls.plain();
    stream.write_all(&client_hello_1_2()).unwrap();
    let mut received = Vec::new();
    drop(stream.read_to_end(&mut received));
    const ALERT: u8 = 21;
    assert_eq!(received.first(), Some(&ALERT), "{received:?}");
    assert_eq!(tls.server.refused(1), ["it does not speak TLS 1.3"]);
}

/// The first message of a client that has no TLS after 1.2.
fn client_hello_1_2() -> Vec<u8> {
    fn with_length(bytes: &[u8]) -> Vec<u8> {
        [&u16::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat()
    }
    let extension = |number: u16, content: &[u8]| {
        [&number.to_be_bytes()[..], &with_length(&with_length(content))].concat()
    };
    const VERSION_1_2: [u8; 2] = [3, 3];
    const ECDHE_ECDSA_AES_128_GCM_SHA256: [u8; 2] = [0xC0, 0x2B];
    let groups = extension(10, &[0, 23]);
    let signatures = extension(13, &[4, 3]);
    let hello = [
        &VERSION_1_2[..],
        &[7; 32],
        &[0],
        &with_length(&ECDHE_ECDSA_AES_128_GCM_SHA256),
        &[1, 0],
        &with_length(&[groups, signatures].concat()),
    ]
    .concat();
    let handshake = [&[1, 0][..], &with_length(&hello)].concat();
    [&[22][..], &VERSION_1_2, &with_length(&handshake)].concat()
}

#[test]
fn a_client_that_leaves_during_the_handshake_is_forgotten() {
    let mut tls = Tls::start();
    let mut stream = tls.plain();
    // The beginning of a record that never ends.
    stream.write_all(&client_hello_1_2()[..20]).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut received = Vec::new();
    drop(stream.read_to_end(&mut received));
    assert!(!received.contains(&b'{'), "{received:?}");
    let left = "it has left during the TLS handshake";
    assert_eq!(tls.server.refused(1), [left]);
}

#[test]
fn a_client_that_does_not_shake_hands_holds_up_nobody() {
    let tls = Tls::start();
    let mut started = Vec::new();
    for _ in 0..20 {
        let mut stream = tls.plain();
        stream.write_all(&client_hello_1_2()[..20]).unwrap();
        started.push(stream);
    }
    tls.check_served(Some(tls.authority.issue("alice", &[]).unwrap()));
}

#[test]
fn what_comes_with_the_end_of_the_handshake_is_read() {
    let tls = Tls::start_with(|_, _| String::new());
    let client = TlsClient { ca: tls.authority.certificate(), identity: None };
    let negotiation = br#"{"execute": "qmp_capabilities", "id": "early"}"#;
    for _ in 0..20 {
        let stream = tls.plain();
        let stream = TlsStream::connect_with(stream, LOCALHOST, &client, negotiation).unwrap();
        let mut connection = Connection::new(Box::new(stream), Layout::Compact);
        let mut next = || connection.read_message(Instant::now() + LIMIT).unwrap().text;
        assert!(next().starts_with(r#"{"QMP": "#));
        assert_eq!(next(), r#"{"return": {}, "id": "early"}"#);
    }
}

#[test]
fn large_messages_pass_in_both_directions() {
    let tls = Tls::start();
    let mut client = tls.check_served(Some(tls.authority.issue("alice", &[]).unwrap()));
    let id = "x".repeat(3 << 20);
    client.send(&format!(r#"{{"execute": "query-status", "id": "{id}"}}"#));
    let reply = client.receive();
    assert_eq!(reply.get("id"), Some(&id.as_str().into()));
    // Many replies before the first is read.
    let command = r#"{"execute": "query-qmp-schema"}"#;
    client.send(&command.repeat(30));
    let first = client.receive();
    for _ in 1..30 {
        assert_eq!(client.receive(), first);
    }
}

#[test]
fn everything_is_answered_before_a_half_closed_connection_ends() {
    let tls = Tls::start();
    for capabilities in ["{}", r#"{"enable": ["oob"]}"#] {
        let alice = tls.authority.issue("alice", &[]).unwrap();
        let mut client = Client::connect(&tls.endpoint(Some(alice)));
        client.negotiate(capabilities);
        let commands: String = (0..100)
            .map(|id| format!(r#"{{"execute": "query-qmp-schema", "id": {id}}}"#))
            .collect();
        client.send(&commands);
        client.half_close();
        for id in 0..100 {
            assert_eq!(client.receive().get("id").unwrap().to_string(), id.to_string());
        }
        client.expect_end();
    }
}

#[test]
fn files_that_are_no_good_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new(dir.path(), "authority").unwrap();
    let good = authority.issue("good", &["localhost"]).unwrap();
    let other = authority.issue("other", &["localhost"]).unwrap();
    let rubbish = dir.path().join("rubbish");
    fs::write(&rubbish, "not a certificate").unwrap();
    let missing = dir.path().join("missing");
    for (cert, key, ca, named) in [
        (&missing, &good.key, &good.cert, &missing),
        (&rubbish, &good.key, &good.cert, &rubbish),
        (&good.cert, &missing, &good.cert, &missing),
        (&good.cert, &rubbish, &good.cert, &rubbish),
        (&good.cert, &good.cert, &good.cert, &good.cert),
        (&good.cert, &other.key, &good.cert, &good.cert),
        (&good.cert, &good.key, &rubbish, &rubbish),
        (&good.cert, &good.key, &missing, &missing),
    ] {
        let [cert, key, ca] = [cert, key, ca].map(|path| path.display());
        let address = format!("tls:127.0.0.1:0,cert={cert},key={key},client-ca={ca}");
        let line = refusal(&["serve", "--listen", &address]);
        assert!(line.contains(&named.display().to_string()), "{line}");
    }
}

#[test]
fn tls_needs_no_loopback_address() {
    let tls = Tls::start();
    let Identity { cert, key } = tls.authority.issue("everywhere", &["localhost"]).unwrap();
    let address = format!("tls:0.0.0.0:0,cert={},key={}", cert.display(), key.display());
    let server = Server::start_with(["--listen", &address, "--listen", "unix:{sock}"]);
    let client = TlsClient { ca: tls.authority.certificate(), identity: None };
    let mut client = Client::connect(&Endpoint::Tls { port: server.ports()[0], client });
    client.negotiate("{}");
    drop(tls.dir);
}
