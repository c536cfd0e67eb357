// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which processes may connect.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

use tests::process::{Finished, run};
use tests::server::{LIMIT, Server, copy_for_all};

/// The user id of nobody.
const SOMEBODY: u32 = 65_534;

fn are_we_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A server whose socket every user can open.
fn public_server(options: &[&str]) -> Server {
    let options = options.iter().copied();
    let server = Server::start_with(options.chain(["--listen", "unix:{sock},mode=0666"]));
    fs::set_permissions(server.dir(), Permissions::from_mode(0o755)).unwrap();
    server
}

/// What a process of another user gets that calls a command.
fn call_as_somebody(server: &Server) -> Finished {
    let mut command = Command::new(copy_for_all(server.dir()));
    command.uid(SOMEBODY).gid(SOMEBODY).current_dir("/");
    run(command.args(["call", &server.endpoint().to_string(), "query-status"]), "", LIMIT).unwrap()
}

#[test]
fn the_own_user_may_connect() {
    public_server(&[]).negotiated().execute("query-status");
}

#[test]
fn another_user_is_refused_and_the_log_says_so() {
    if !are_we_root() {
        return eprintln!("skipped: only root can be somebody else");
    }
    let mut server = public_server(&[]);
    let finished = call_as_somebody(&server);
    assert_eq!(finished.status.code(), Some(2), "{finished:?}");
    assert_eq!(finished.stderr.lines().count(), 1, "{finished:?}");
    let log = server.refused(1);
    assert_eq!(log, ["its user and groups are not allowed"]);
    let log = server.process().stderr();
    assert!(log.contains(&format!("uid {SOMEBODY}, gid {SOMEBODY} is refused")), "{log}");
}

#[test]
fn users_and_groups_that_are_named_may_connect() {
    if !are_we_root() {
        return eprintln!("skipped: only root can be somebody else");
    }
    let number = SOMEBODY.to_string();
    for option in ["--allow-user", "--allow-group"] {
        let server = public_server(&[option, &number]);
        let finished = call_as_somebody(&server);
        assert_eq!(finished.status.code(), Some(0), "{finished:?}");
    }
}

#[test]
fn who_is_not_named_is_refused_even_if_it_is_the_own_user() {
    let mut server = public_server(&["--allow-user", "4242"]);
    let mut client = server.connect();
    client.expect_end();
    // The harness connected once to see that the server is ready.
    assert_eq!(server.refused(2), ["its user and groups are not allowed"; 2]);
}
