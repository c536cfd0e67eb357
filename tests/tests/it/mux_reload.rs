// SPDX-License-Identifier: MIT OR Apache-2.0
//! SIGHUP: a mux takes on what its file says now, and disconnects nobody else.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tests::certificates::Authority;
use tests::channel::TlsClient;
use tests::endpoint::Endpoint;
use tests::process::Signal;
use tests::scripted::{Peer, Scripted};
use tests::server::{Client, Server};
use tests::waiting::{wait_for, wait_until};

const DONE: &str = r#"{"return": {}}"#;

/// The control socket is that of the tests' servers.
const TOP: &str = "log-filter = 'info'\n[mux]\ncontrol = ['unix:qmp.sock']\n";

fn section(name: &str, more: &str) -> String {
    format!(
        "[[machine]]\nname = '{name}'\nupstream = 'unix:{name}-qemu.sock'\nlisten = ['unix:{name}.sock']\n{more}\n"
    )
}

/// A mux with a file, which can be written anew.
struct Site {
    mux: Server,
    reloads: usize,
}

impl Site {
    fn start(dir: tempfile::TempDir, text: &str) -> Site {
        fs::write(dir.path().join("mux.toml"), text).unwrap();
        Site { mux: Server::start_in(dir, ["mux", "--config", "mux.toml"]), reloads: 0 }
    }

    fn dir(&self) -> &Path {
        self.mux.dir()
    }

    /// Says something else, and waits until the mux has taken note of that.
    fn say(&mut self, text: &str) {
        fs::write(self.dir().join("mux.toml"), text).unwrap();
        self.mux.signal(Signal::HUP);
        self.reloads += 1;
        let reloads = self.reloads;
        wait_for(|| {
            let log = self.mux.process().stderr();
            let seen = log.matches("SIGHUP: the configuration holds").count()
                + log.matches("SIGHUP: nothing has changed").count();
            if seen == reloads { Ok(()) } else { Err(log) }
        });
    }

    fn client(&self, socket: &str) -> Client {
        let mut client = Client::connect(&Endpoint::Unix(self.dir().join(socket)));
        client.negotiate("{}");
        client
    }
}

fn directory() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("qmp-mux-").tempdir().unwrap()
}

fn upstream(dir: &Path, name: &str) -> Scripted {
    Scripted::listen(&dir.join(format!("{name}-qemu.sock")))
}

#[track_caller]
fn answer_one(client: &mut Client, peer: &mut Peer) {
    client.send_command("query-status");
    let request = peer.expect("query-status");
    peer.answer(&request, "{}");
    client.expect(DONE);
}

#[test]
fn machines_come_go_and_change_and_others_notice_nothing() {
    let dir = directory();
    let servers = ["stays", "goes", "changes", "added"].map(|name| upstream(dir.path(), name));
    let text = |more: &str| format!("{TOP}{}{more}", section("stays", ""));
    let before = text(&(section("goes", "") + &section("changes", "")));
    let mut site = Site::start(dir, &before);
    let mut peers: Vec<_> =
        servers[..3].iter().map(|server| server.accept_and_negotiate("[]")).collect();
    let mut clients: Vec<_> =
        ["stays.sock", "goes.sock", "changes.sock"].map(|socket| site.client(socket)).into();
    let mut operator = site.mux.negotiated();
    operator.send(
        r#"{"execute": "__org.qmp-server_machine-add", "arguments": {"name": "added",
        "upstream": "unix:added-qemu.sock", "listen": ["unix:added.sock"]}}"#,
    );
    assert!(operator.receive().get("return").is_some());
    let mut added = servers[3].accept_and_negotiate("[]");
    let mut of_added = site.client("added.sock");

    let come = upstream(site.dir(), "comes");
    let elsewhere = upstream(site.dir(), "elsewhere");
    let changed = section("changes", "").replace("changes-qemu", "elsewhere-qemu");
    site.say(&text(&(section("comes", "") + &changed)));
    clients[1].expect_end();
    clients[2].expect_end();
    peers[1].expect_end();
    peers[2].expect_end();
    let mut peer = come.accept_and_negotiate("[]");
    answer_one(&mut site.client("comes.sock"), &mut peer);
    let mut peer = elsewhere.accept_and_negotiate("[]");
    answer_one(&mut site.client("changes.sock"), &mut peer);
    wait_until(|| !site.dir().join("goes.sock").exists());
    // Who was connected still is, operators included.
    answer_one(&mut clients[0], &mut peers[0]);
    answer_one(&mut of_added, &mut added);
    let machines = operator.execute("__org.qmp-server_query-machines").to_string();
    assert_eq!(machines.matches(r#""name""#).count(), 4, "{machines}");
    let metrics = operator.execute("__org.qmp-server_query-metrics").to_string();
    assert!(metrics.contains("comes") && !metrics.contains("goes"));

    // Two that take each other's place: each has to end first.
    let swapped = [("comes", "changes"), ("changes", "comes")].map(|(name, socket)| {
        section(name, "").replace(&format!("{name}.sock"), &format!("{socket}.sock"))
    });
    site.say(&text(&swapped.concat()));
    let mut peer = come.accept_and_negotiate("[]");
    answer_one(&mut site.client("changes.sock"), &mut peer);
    answer_one(&mut clients[0], &mut peers[0]);
    site.mux.signal(Signal::TERM);
    assert!(site.mux.wait().success());
}

#[test]
fn a_bad_file_changes_nothing_and_says_where() {
    let dir = directory();
    let server = upstream(dir.path(), "a");
    let good = format!("{TOP}{}", section("a", ""));
    let mut site = Site::start(dir, &good);
    let mut peer = server.accept_and_negotiate("[]");
    let mut client = site.client("a.sock");
    let mut operator = site.mux.negotiated();
    operator.send(
        r#"{"execute": "__org.qmp-server_machine-add", "arguments": {"name": "b",
        "upstream": "unix:b-qemu.sock", "listen": ["unix:b.sock"]}}"#,
    );
    operator.receive();
    for (text, expected) in [
        ("[[machine", "mux.toml:1: "),
        (
            &*good.replace("'unix:a.sock'", "'unix:a.sock,role=nobody'"),
            "mux.toml:7: machine 'a': listen: ",
        ),
        (&*format!("{good}colour = 'red'\n"), "mux.toml:9: machine[0].colour: "),
        (&*section("b", ""), "mux.toml:3: machine 'b': name: a machine that was found or added"),
        ("", "mux needs --upstream"),
    ] {
        site.say(text);
        let log = site.mux.process().stderr();
        let line = log.lines().rfind(|line| line.contains("SIGHUP")).unwrap_or_default();
        assert!(line.contains(&format!("nothing has changed: {expected}")), "{log}");
        answer_one(&mut client, &mut peer);
    }
    fs::remove_file(site.dir().join("mux.toml")).unwrap();
    site.mux.signal(Signal::HUP);
    site.mux.process().expect_log("nothing has changed: mux.toml: No such file");
    site.reloads += 1;
    site.say(&good.replace("'info'", "'debug'"));
    site.mux.process().expect_log("'log-filter' changes when the program is started anew");
    answer_one(&mut client, &mut peer);
}

#[test]
fn patterns_change_too() {
    let dir = directory();
    let pattern = |kind: &str| {
        format!(
            "{TOP}[[machine]]\nname = '{kind}-{{1}}'\nupstream = 'unix:{kind}-*.sock'\n\
            listen = ['unix:{{1}}-{kind}-mux.sock']\n"
        )
    };
    let servers = ["x-1", "x-2", "y-1"]
        .map(|name| Scripted::listen(&dir.path().join(format!("{name}.sock"))));
    let mut site = Site::start(dir, &pattern("x"));
    let mut first = servers[0].accept_and_negotiate("[]");
    let _second = servers[1].accept_and_negotiate("[]");
    let mut client = site.client("1-x-mux.sock");
    // Another one in addition: those that were found are still found.
    let more = format!("{}{}", pattern("x"), pattern("y").replace(TOP, ""));
    site.say(&more);
    let _third = servers[2].accept_and_negotiate("[]");
    answer_one(&mut client, &mut first);
    // Only that one.
    site.say(&pattern("y"));
    client.expect_end();
    first.expect_end();
    wait_until(|| !site.dir().join("2-x-mux.sock").exists());
    site.client("1-y-mux.sock");
    site.say(&more);
    let mut first = servers[0].accept_and_negotiate("[]");
    answer_one(&mut site.client("1-x-mux.sock"), &mut first);
}

#[test]
fn the_control_socket_and_metrics_move() {
    let mut site = Site::start(directory(), TOP);
    let mut operator = site.mux.negotiated();
    let moved = "log-filter = 'info'\nmetrics = 'unix:metrics.sock'\n[mux]\ncontrol = ['unix:other.sock']\n";
    site.say(moved);
    operator.expect_end();
    wait_until(|| site.dir().join("metrics.sock").exists() && !site.mux.socket().exists());
    let mut operator = site.client("other.sock");
    operator.execute("__org.qmp-server_query-machines");
    site.say(&moved.replace("metrics.sock", "figures.sock"));
    wait_until(|| site.dir().join("figures.sock").exists());
    assert!(!site.dir().join("metrics.sock").exists());
    operator.execute("__org.qmp-server_query-machines");
}

/// Of a machine, who may connect, who may do what and deadlines change while it runs.
#[test]
fn changed_rules_hold_for_those_who_are_there() {
    let dir = directory();
    let servers = ["a", "b"].map(|name| upstream(dir.path(), name));
    let text = |top: &str, more: &str| {
        TOP.replace("[mux]", &format!("{top}\n[mux]")) + &section("a", more) + &section("b", "")
    };
    let mut site = Site::start(dir, &text("default-role = 'admin'", ""));
    let mut peers = servers.each_ref().map(|server| server.accept_and_negotiate("[]"));
    let (mut changing, mut staying) = (site.client("a.sock"), site.client("b.sock"));
    let mut operator = site.mux.negotiated();
    let may_not = |client: &mut Client, command: &str| {
        client.send_command(command);
        let said = client.receive().to_string();
        assert!(said.contains("has been disabled for this instance"), "{said}");
    };

    // A command that is under way is finished.
    changing.send_command("cont");
    let request = peers[0].expect("cont");
    site.say(&text("default-role = 'admin'", "default-role = 'observer'"));
    peers[0].answer(&request, "{}");
    changing.expect(DONE);
    may_not(&mut changing, "cont");
    peers[0].emit("STOP");
    changing.expect_event("STOP");
    staying.send_command("cont");
    let request = peers[1].expect("cont");
    peers[1].answer(&request, "{}");
    staying.expect(DONE);

    // Those of the control socket change, too.
    let own = "default-role = 'mute'\ndeadline = ['query-name=0.01']";
    let mute = "default-role = 'observer'\n[roles.mute]\nallow = ['query-*']";
    site.say(&text(mute, own));
    may_not(&mut operator, "__org.qmp-server_machine-add");
    operator.execute("__org.qmp-server_query-machines");
    peers[0].emit("RESUME");
    answer_one(&mut changing, &mut peers[0]);
    changing.send_command("query-name");
    let said = changing.receive().to_string();
    assert!(said.contains("was not answered within"), "{said}");

    // Who may not come any more goes.
    site.say(&text(mute, &format!("{own}\nallow-user = ['12345']")));
    changing.expect_end();
    let mut refused = Client::connect(&Endpoint::Unix(site.dir().join("a.sock")));
    refused.expect_end();
    may_not(&mut staying, "cont");
    answer_one(&mut staying, &mut peers[1]);
    let log = site.mux.process().stderr();
    assert!(!log.contains("begins anew"), "{log}");
}

/// Certificates are in files of the same names.
#[test]
fn certificates_are_read_again_and_connections_keep_theirs() {
    let (dir, keys) = (directory(), tempfile::tempdir().unwrap());
    let path = |name: &str| keys.path().join(name);
    let mut authorities = Vec::new();
    let mut install = |name: &str| {
        let authority = Authority::new(keys.path(), name).unwrap();
        let server = authority.issue("server", &["localhost"]).unwrap();
        for (from, to) in
            [(&server.cert, "cert"), (&server.key, "key"), (&authority.certificate(), "ca")]
        {
            fs::copy(from, path(to)).unwrap();
        }
        // Otherwise it is refused, as by --check-config.
        fs::set_permissions(path("key"), Permissions::from_mode(0o600)).unwrap();
        let identity = Some(authority.issue("client", &[]).unwrap());
        let client = TlsClient { ca: authority.certificate(), identity };
        authorities.push(authority);
        client
    };
    let first = install("first");
    let server = upstream(dir.path(), "a");
    let [cert, key, ca] = ["cert", "key", "ca"].map(|name| path(name).display().to_string());
    let address = format!("'tls:127.0.0.1:0,cert={cert},key={key},client-ca={ca}'");
    let text = TOP.to_owned()
        + &section("a", "").replace("['unix:a.sock']", &format!("['unix:a.sock', {address}]"));
    let mut site = Site::start(dir, &text);
    let mut peer = server.accept_and_negotiate("[]");
    let port = site.mux.ports()[0];
    let mut before = Client::connect(&Endpoint::Tls { port, client: first.clone() });
    before.negotiate("{}");

    let second = install("second");
    site.say(&text);
    let mut after = Client::connect(&Endpoint::Tls { port, client: second.clone() });
    after.negotiate("{}");
    answer_one(&mut after, &mut peer);
    answer_one(&mut before, &mut peer);
    // The old ones are good no more.
    assert!(Endpoint::Tls { port, client: first }.try_connect().is_err());

    // A file that is no good changes nothing.
    fs::write(path("cert"), "not a certificate").unwrap();
    site.say(&text);
    let log = site.mux.process().stderr();
    assert!(
        log.contains("SIGHUP: nothing has changed: mux.toml:7: machine 'a': listen: "),
        "{log}"
    );
    let mut again = Client::connect(&Endpoint::Tls { port, client: second });
    again.negotiate("{}");
    answer_one(&mut again, &mut peer);
}
