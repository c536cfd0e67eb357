// SPDX-License-Identifier: MIT OR Apache-2.0
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use qmp_dispatch::Dispatcher;
use tempfile::TempDir;

use super::*;
use crate::mux::lines::{LIMIT, Lines};
use crate::mux::pace::Pace;
use crate::{CertificateName, Dial, Discipline, Mux, Server, UpstreamLost, system_time, version};

/// Muxes at one socket.
struct Site {
    folder: TempDir,
    engine: Engine,
    sockets: DialInSockets,
}

impl Site {
    fn new() -> Site {
        let folder = tempfile::tempdir().unwrap();
        Site { folder, engine: Engine::new().unwrap(), sockets: DialInSockets::default() }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("qemu.sock")
    }

    fn mux(&self, name: &str, options: &str) -> io::Result<Mux> {
        let upstream = format!("unix:{},dial-in=on{options}", self.path().display());
        let mux = Mux::named(name, upstream.parse().unwrap())?.dial_in_at(&self.sockets);
        let mux = mux.on_upstream_lost(UpstreamLost::Keep);
        let dispatcher = Dispatcher::new(mux.registry().unwrap(), version(), system_time);
        let server = Server::new(dispatcher).discipline(Discipline::OnePerMonitor).stay();
        mux.serve_on(&self.engine, server)?;
        Ok(mux)
    }

    /// A server that connects, and has greeted and negotiated.
    fn server(&self) -> Lines {
        let mut server = self.connected();
        server.send(
            r#"{"QMP": {"version": {"qemu": {"micro": 0, "minor": 0, "major": 10}, "package": ""}, "capabilities": []}}"#,
        );
        server.answer("qmp_capabilities");
        server
    }

    fn connected(&self) -> Lines {
        Lines::new(UnixStream::connect(self.path()).unwrap())
    }

    /// The same, which says that it is called so when it is asked.
    fn named(&self, name: &str) -> Lines {
        let mut server = self.server();
        let asked = server.expect("query-name");
        server.answer_to(&asked, name);
        server
    }
}

#[track_caller]
fn expect_connected(mux: &Mux, connected: bool) {
    let until = Instant::now() + LIMIT;
    while mux.status().connected != connected {
        assert!(Instant::now() < until, "connected: {}", !connected);
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn servers_of_one_user_are_told_apart_by_their_names_and_the_first_one_stays() {
    let site = Site::new();
    let muxes = ["a", "b", "c"].map(|name| site.mux(name, "").unwrap());
    let [a, b, c] = &muxes;
    let first = site.named(r#"{"name": "b"}"#);
    expect_connected(b, true);
    // Another one of this name, one of none and one that knows no names are not taken for any.
    for name in [r#"{"name": "b"}"#, r#"{"name": "d"}"#, r#"{"name": "b\u0000"}"#, "{}", "[]"] {
        site.named(name).expect_end();
    }
    let _second = site.named(r#"{"name": "c"}"#);
    expect_connected(c, true);
    assert!(!a.status().connected && b.status().connected);
    drop(first);
    expect_connected(b, false);
    let _next = site.named(r#"{"name": "b"}"#);
    expect_connected(b, true);
}

#[test]
fn who_is_the_only_one_of_its_user_is_not_asked() {
    let site = Site::new();
    let own = Uid::effective().as_raw();
    let ours = site.mux("ours", &format!(",user={own}")).unwrap();
    let theirs = site.mux("theirs", &format!(",user={}", own + 1)).unwrap();
    let mut server = site.server();
    expect_connected(&ours, true);
    // Whatever it is called, it cannot be the other.
    site.connected().expect_end();
    assert!(!theirs.status().connected);
    ours.shutdown();
    server.expect_end();
    ours.wait();
    site.connected().expect_end();
    assert!(site.path().exists(), "the other one's server may connect");
    theirs.shutdown();
    theirs.wait();
    assert!(!site.path().exists());
}

#[test]
fn who_says_nothing_keeps_nobody_out() {
    let site = Site::new();
    let mux = site.mux("a", "").unwrap();
    let other = site.mux("b", "").unwrap();
    let mut silent: Vec<_> = (0..3).map(|_| site.connected()).collect();
    let mut half = site.server();
    half.expect("query-name");
    let _server = site.named(r#"{"name": "a"}"#);
    expect_connected(&mux, true);
    // The oldest ones make room, and nobody else.
    let more: Vec<_> = (0..2 + 8).map(|_| site.connected()).collect();
    silent.iter_mut().for_each(Lines::expect_end);
    half.expect_end();
    let _other = site.named(r#"{"name": "b"}"#);
    expect_connected(&other, true);
    assert!(mux.status().connected);
    drop(more);
}

#[test]
fn who_sends_too_much_is_disconnected() {
    let site = Site::new();
    let muxes = ["a", "b"].map(|name| site.mux(name, "").unwrap());
    let mut server = site.server();
    server.expect("query-name");
    let event = r#"{"timestamp": {"seconds": 1, "microseconds": 2}, "event": "X"}"#.repeat(8192);
    let sent = std::io::Write::write_all(server.0.get_mut(), event.as_bytes());
    let mut line = String::new();
    let end = std::io::BufRead::read_line(&mut server.0, &mut line);
    assert!(sent.is_err() || end.is_err() || end.is_ok_and(|bytes| bytes == 0), "{line}");
    assert!(muxes.iter().all(|mux| !mux.status().connected));
}

#[test]
fn machines_come_and_go_while_others_stay_connected() {
    let site = Site::new();
    let stays = site.mux("stays", "").unwrap();
    let goes = site.mux("goes", "").unwrap();
    let mut server = site.named(r#"{"name": "stays"}"#);
    expect_connected(&stays, true);
    for _ in 0..3 {
        goes.shutdown();
        goes.wait();
    }
    let again = site.mux("again", "").unwrap();
    let _again = site.named(r#"{"name": "again"}"#);
    expect_connected(&again, true);
    stays.shutdown();
    server.expect_end();
    again.shutdown();
    stays.wait();
    again.wait();
    assert!(!site.path().exists());
    // The address is free.
    let mux = site.mux("next", ",mode=0600").unwrap();
    let _server = site.server();
    expect_connected(&mux, true);
}

#[test]
fn machines_that_cannot_be_told_apart_do_not_share_a_socket() {
    let dial_in = |text: &str| match text.parse() {
        Ok(Dial::In(dial_in)) => *dial_in,
        other => panic!("{other:?}"),
    };
    let check = |one: &str, other: &str| dial_in(one).check_beside(&dial_in(other)).is_ok();
    let tls = "tls:h:1,dial-in=on,cert=c,key=k";
    assert!(check("unix:a,dial-in=on", "unix:a,dial-in=on,user=0,server=off"));
    assert!(!check("unix:a,dial-in=on", "unix:a,dial-in=on,mode=0666"));
    assert!(!check("tcp:localhost:1,dial-in=on", "tcp:localhost:1,dial-in=on"));
    assert!(!check("vsock:1:1,dial-in=on", "vsock:1:1,dial-in=on"));
    assert!(!check(tls, tls));
    let (one, other) = (format!("{tls},client-ca=a,allow-name=x"), format!("{tls},client-ca=a"));
    assert!(check(&one, &format!("{other},allow-name=y")));
    assert!(!check(&one, &other), "one of any name");
    assert!(!check(&one, &format!("{tls},client-ca=b,allow-name=y")));
}

#[test]
fn a_certificate_proves_the_machines_that_its_names_are_of() {
    let upstream = Arc::new(Upstream::new(Pace::of_qemu()));
    let seat = |options: &str| {
        let text = format!("tls:h:1,dial-in=on,cert=c,key=k{options}");
        let Ok(Dial::In(dial_in)) = text.parse() else { panic!("{text}") };
        Seat::new(&dial_in, Some("vm"), &upstream).unwrap()
    };
    let certificate = |names: &[&str]| Peer::Certificate {
        names: names.iter().map(|name| CertificateName::Dns((*name).to_owned())).collect(),
        address: "[::1]:1".to_owned(),
    };
    let named = seat(",client-ca=a,allow-name=dns:a,allow-name=dns:b");
    for is_alone in [false, true] {
        assert!(named.is_proven_by(&certificate(&["x", "b"]), is_alone));
        assert!(!named.is_proven_by(&certificate(&["x"]), is_alone));
        assert!(!named.is_proven_by(&Peer::Address("[::1]:1".to_owned()), is_alone));
    }
    // Whoever the listener lets in, but only if nobody else can be meant.
    let any = seat(",client-ca=a");
    assert!(any.is_proven_by(&certificate(&["x"]), true));
    assert!(!any.is_proven_by(&certificate(&["x"]), false));
}
