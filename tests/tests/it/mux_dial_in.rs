// SPDX-License-Identifier: MIT OR Apache-2.0
//! One socket at which the servers of many machines connect.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use qmp_proto::Dialect;
use tests::certificates::{Authority, Identity};
use tests::endpoint::Endpoint;
use tests::process::{Process, Signal};
use tests::programs::Oracle;
use tests::scripted::Peer;
use tests::server::{Client, LIMIT, Server, copy_for_all, qmp_server, refusal};
use tests::waiting::{retry, wait_for};

const TOP: &str =
    "log-filter = 'info'\n[mux]\ncontrol = ['unix:qmp.sock']\nupstream-lost = 'disconnect'\n";

/// The user id of nobody.
const SOMEBODY: u32 = 65_534;

fn section(name: &str, options: &str) -> String {
    format!(
        "[[machine]]\nname = '{name}'\nupstream = 'unix:qemu.sock,dial-in=on{options}'\nlisten = ['unix:{name}.sock']\n"
    )
}

fn directory(text: &str) -> tempfile::TempDir {
    let dir = tempfile::Builder::new().prefix("qmp-mux-").tempdir().unwrap();
    fs::write(dir.path().join("mux.toml"), text).unwrap();
    dir
}

fn start(text: &str) -> Server {
    Server::start_in(directory(text), ["mux", "--config", "mux.toml"])
}

fn dial(mux: &Server) -> Peer {
    Peer::of(UnixStream::connect(mux.dir().join("qemu.sock")).unwrap())
}

/// A server that says that it is called so.
fn dial_as(mux: &Server, name: &str) -> Peer {
    let mut peer = dial(mux);
    peer.greet("[]");
    peer.negotiate();
    let asked = peer.expect("query-name");
    peer.answer(&asked, &format!(r#"{{"name": "{name}"}}"#));
    peer
}

/// A client of this machine, as soon as it has a server.
fn client(mux: &Server, name: &str) -> Client {
    let endpoint = Endpoint::Unix(mux.dir().join(format!("{name}.sock")));
    wait_for(|| {
        UnixStream::connect(mux.dir().join(format!("{name}.sock")))
            .map_err(|error| format!("{name}: {error}: {}", mux.stderr()))
    });
    let mut client = Client::connect(&endpoint);
    client.negotiate("{}");
    client
}

#[track_caller]
fn check_name(client: &mut Client, name: &str) {
    assert_eq!(client.execute("query-name").to_string(), format!(r#"{{"name": "{name}"}}"#));
}

#[track_caller]
fn expect_refusals(mux: &mut Server, text: &str, at_least: usize) {
    wait_for(|| {
        let log = mux.process().stderr();
        if log.matches(text).count() >= at_least { Ok(()) } else { Err(log) }
    });
}

fn is_refused(mux: &Server, name: &str) -> bool {
    UnixStream::connect(mux.dir().join(format!("{name}.sock"))).is_err()
}

#[test]
fn nothing_is_relayed_before_it_is_known_which_machine_a_server_is_of() {
    let mut mux = start(&format!("{TOP}{}{}", section("a", ""), section("b", "")));
    let mut peer = dial(&mux);
    peer.greet("[]");
    peer.negotiate();
    let asked = peer.expect("query-name");
    peer.emit("STOP");
    assert!(is_refused(&mux, "a") && is_refused(&mux, "b"));
    peer.answer(&asked, r#"{"name": "b"}"#);
    let mut client = client(&mux, "b");
    assert!(is_refused(&mux, "a"));
    client.send_command("query-status");
    let request = peer.expect("query-status");
    // A second one that says the same: the first one stays, and nobody notices.
    dial_as(&mux, "b").expect_end();
    expect_refusals(&mut mux, "the machine 'b' has a server", 1);
    peer.answer(&request, "{}");
    client.expect(r#"{"return": {}}"#);
    // One line for each, and not any number of them.
    for _ in 0..20 {
        dial_as(&mux, "c").expect_end();
    }
    expect_refusals(&mut mux, "more are not logged for a while", 1);
    assert_eq!(mux.process().stderr().matches("may not be of a machine of this name").count(), 9);
    drop(peer);
    client.expect_end();
}

#[test]
fn a_process_of_another_user_is_its_machine_whatever_it_says() {
    if !rustix::process::geteuid().is_root() {
        return eprintln!("skipped: only root can be somebody else");
    }
    let open = ",mode=0666";
    let text = format!(
        "{TOP}{}{}{}",
        section("ours", &format!("{open},user=0")),
        section("also-ours", &format!("{open},user=0")),
        section("theirs", &format!("{open},user={SOMEBODY}"))
    );
    let mut mux = start(&text);
    fs::set_permissions(mux.dir(), Permissions::from_mode(0o755)).unwrap();
    let program = copy_for_all(mux.dir());
    let server = |name: &str, user: u32| {
        let listen =
            format!("unix:{},server=off,reconnect-ms=10", mux.dir().join("qemu.sock").display());
        let mut command = Command::new(&program);
        command.args(["serve", "--name", name, "--listen", &listen]);
        command.args(["--allow-user", "0", "--allow-user", &SOMEBODY.to_string()]);
        command.uid(user).gid(user).current_dir("/").stdin(Stdio::null()).stdout(Stdio::null());
        Process::start(&mut command).unwrap()
    };
    // It takes another one's name, and is what its user says.
    let impostor = server("ours", SOMEBODY);
    check_name(&mut client(&mux, "theirs"), "ours");
    assert!(is_refused(&mux, "ours") && is_refused(&mux, "also-ours"));
    // One more of that user finds its machine taken, and nothing else.
    let second = server("also-ours", SOMEBODY);
    let stranger = server("ours", SOMEBODY - 1);
    let _ours = server("ours", 0);
    check_name(&mut client(&mux, "ours"), "ours");
    assert!(is_refused(&mux, "also-ours"));
    expect_refusals(&mut mux, "the machine 'theirs' has a server", 1);
    expect_refusals(
        &mut mux,
        &format!("uid {}, gid {0} has connected, and is refused: it may not", SOMEBODY - 1),
        1,
    );
    drop((second, stranger, impostor));
}

#[test]
fn a_certificate_says_which_machine_a_server_is_of() {
    let dir = directory("");
    let authority = Authority::new(dir.path(), "authority").unwrap();
    let ca = authority.certificate().display().to_string();
    let Identity { cert, key } = authority.issue("mux", &["localhost"]).unwrap();
    fs::set_permissions(&key, Permissions::from_mode(0o600)).unwrap();
    let port = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
    let listener = format!(
        "tls:127.0.0.1:{port},dial-in=on,cert={},key={},client-ca={ca}",
        cert.display(),
        key.display()
    );
    let mut text = TOP.to_owned();
    for name in ["a", "b"] {
        text += &format!(
            "[[machine]]\nname = '{name}'\nupstream = '{listener},allow-name=dns:{name}.example'\n\
             listen = ['unix:{name}.sock']\n"
        );
    }
    fs::write(dir.path().join("mux.toml"), text).unwrap();
    let mut mux = Server::start_in(dir, ["mux", "--config", "mux.toml"]);
    let server = |name: &str| {
        let Identity { cert, key } = authority.issue(name, &[&format!("{name}.example")]).unwrap();
        let listen = format!(
            "tls:localhost:{port},server=off,reconnect-ms=10,ca={ca},cert={},key={}",
            cert.display(),
            key.display()
        );
        Process::start(
            qmp_server(["serve", "--name", "x", "--listen", &listen]).stdout(Stdio::null()),
        )
        .unwrap()
    };
    let _b = server("b");
    check_name(&mut client(&mux, "b"), "x");
    assert!(is_refused(&mux, "a"));
    let _stranger = server("c");
    expect_refusals(&mut mux, "dns:c.example", 1);
    let _a = server("a");
    check_name(&mut client(&mux, "a"), "x");
}

/// The QEMU of this name, which dials in.
fn qemu(program: &Path, mux: &Server, name: &str) -> Process {
    let path = mux.dir().join("qemu.sock");
    let qmp = format!("unix:{},server=off,reconnect-ms=20", path.display());
    let mut command = Command::new(program);
    command.args(["-machine", "none", "-nodefaults", "-display", "none", "-S", "-name", name]);
    command.args(["-qmp", &qmp]).stdin(Stdio::null()).stdout(Stdio::null());
    Process::start(&mut command).unwrap()
}

/// The QEMU of this name, which is refused and tries again. One that is refused while it starts may never connect again, whoever refuses
/// it (seen with 11.1): then there is another one.
fn refused_qemu(program: &Path, mux: &Server, name: &str) -> Process {
    let refusals = || mux.stderr().matches("all machines that it may be of have a server").count();
    loop {
        let before = refusals();
        let process = qemu(program, mux, name);
        let tries_again = || (refusals() >= before + 2).then_some(()).ok_or(());
        if retry(LIMIT / 10, tries_again).is_ok() {
            return process;
        }
    }
}

#[test]
fn qemus_are_told_apart_through_a_reload_and_an_upgrade() {
    for dialect in Dialect::ALL {
        let Some(program) = Oracle::of(dialect).program("qemu-system-x86_64") else { return };
        let mut mux = start(&format!("{TOP}{}{}", section("a", ""), section("b", "")));
        let say = |mux: &mut Server, text: &str, signal: Signal, done: &str, times: usize| {
            fs::write(mux.dir().join("mux.toml"), text).unwrap();
            mux.signal(signal);
            expect_refusals(mux, done, times);
        };
        let (_a, b) = (qemu(&program, &mux, "a"), qemu(&program, &mux, "b"));
        let (mut to_a, mut to_b) = (client(&mux, "a"), client(&mux, "b"));
        check_name(&mut to_a, "a");
        check_name(&mut to_b, "b");
        // It is for no machine yet, and tries again until it is for one.
        let _c = refused_qemu(&program, &mux, "c");
        let text = format!("{TOP}{}{}", section("a", ""), section("c", ""));
        say(&mut mux, &text, Signal::HUP, "SIGHUP: the configuration holds", 1);
        to_b.expect_end();
        let mut to_c = client(&mux, "c");
        check_name(&mut to_c, "c");
        check_name(&mut to_a, "a");
        say(&mut mux, &text, Signal::USR2, "another program has handed over", 1);
        check_name(&mut to_a, "a");
        check_name(&mut to_c, "c");
        // One more machine at the listener that was handed over.
        let mut operator = mux.negotiated();
        operator.send(
            r#"{"execute": "__org.qmp-server_machine-add", "arguments": {"name": "b",
            "upstream": "unix:qemu.sock,dial-in=on", "listen": ["unix:b.sock"]}}"#,
        );
        let added = operator.receive();
        assert!(added.get("return").is_some(), "{added}");
        let mut to_b = client(&mux, "b");
        check_name(&mut to_b, "b");
        drop(b);
        to_b.expect_event("SHUTDOWN");
        // The door is shut from then on, until the next one has come.
        to_b.expect_end();
        let _again = qemu(&program, &mux, "b");
        check_name(&mut client(&mux, "b"), "b");
        check_name(&mut to_a, "a");
        let socket = mux.dir().join("qemu.sock");
        mux.process().stop().unwrap();
        assert!(!socket.exists());
    }
}

#[test]
fn machines_that_cannot_be_told_apart_are_a_mistake() {
    let check = |text: &str| {
        let dir = directory(text);
        let file = dir.path().join("mux.toml").display().to_string();
        let line = refusal(&["mux", "--config", &file, "--check-config"]);
        let (_, rest) = line.split_once("mux.toml:").unwrap_or_else(|| panic!("{line}"));
        rest.to_owned()
    };
    let machine = |name: &str, upstream: &str| {
        format!(
            "[[machine]]\nname = '{name}'\nupstream = '{upstream}'\nlisten = ['unix:{name}.sock']\n"
        )
    };
    let both = |one: &str, other: &str| check(&(machine("a", one) + &machine("b", other)));
    for (one, other, reason) in [
        (
            "unix:q,dial-in=on",
            "unix:q,dial-in=on,mode=0600",
            "another machine listens there with other options",
        ),
        (
            "tcp:127.0.0.1:1,dial-in=on",
            "tcp:127.0.0.1:1,dial-in=on",
            "it is another machine's, too, and nothing tells them apart",
        ),
        ("unix:q,dial-in=on", "unix:q", "the server of another machine connects there"),
        ("unix:q", "unix:q,dial-in=on", "the server of another machine connects there"),
    ] {
        let said = both(one, other);
        assert!(said.starts_with("7:") && said.contains(reason), "{said}");
    }
}
