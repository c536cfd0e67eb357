// SPDX-License-Identifier: MIT OR Apache-2.0
//! The guide's list of the system calls that the server's threads make is compared with what strace records.

use std::collections::BTreeSet;
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

use regex::Regex;
use tests::endpoint::Endpoint;
use tests::process::Process;
use tests::programs::find;
use tests::server::{Client, LIMIT, example};

use super::documents::{blocks, root};

/// Above the size at which arguments are parsed on a thread of their own.
const LARGE: usize = 3_000_000;

type Calls = BTreeSet<String>;

/// Runs the smallest example under strace, with clients that make it do all it can. Returns the calls of all its threads
/// but the main one, which is the embedder's.
fn recorded(strace: &std::path::Path) -> Calls {
    let dir = tempfile::tempdir().unwrap();
    let (socket, record) = (dir.path().join("qmp.sock"), dir.path().join("record"));
    let mut command = Command::new(strace);
    command.args(["-f", "-o"]).arg(&record).arg(example("threads")).arg(&socket);
    let mut process = Process::start(command.stdin(Stdio::null())).unwrap();
    let endpoint = Endpoint::Unix(socket);
    process.expect_ready(&endpoint);

    let mut client = Client::connect(&endpoint);
    client.negotiate(r#"{"enable": ["oob"]}"#);
    let (near, far) = UnixStream::pair().unwrap();
    let switch = |on: &str| {
        format!(r#"{{"execute": "x-lamp-switch", "arguments": {{"on": {on}}}}}"#).into_bytes()
    };
    client.send_with(&switch("true"), &[near.as_fd(), far.as_fd()]);
    client.expect(r#"{"return": {}}"#);
    client.send_bytes(&switch(&format!("\"{}\"", "x".repeat(LARGE))));
    assert!(client.receive().get("error").is_some());
    drop(Client::connect(&endpoint));
    client.execute("query-commands");
    client.send(r#"{"execute": "quit"}"#);
    client.expect(r#"{"return": {}}"#);
    client.expect_end();
    let status = process.wait(LIMIT).unwrap().expect("it has been told to quit");
    assert!(status.success(), "{}", process.stderr());

    let record = fs::read_to_string(record).unwrap();
    let (main, _) = record.split_once(' ').unwrap();
    // A call that another thread's interrupts has a second line, which begins with "<...".
    let call = Regex::new(r"(?m)^(\d+) +([a-z0-9_]+)\(").unwrap();
    let calls = call.captures_iter(&record).filter(|found| &found[1] != main);
    calls.map(|found| found[2].to_owned()).collect()
}

#[test]
fn a_filter_made_of_the_list_permits_what_the_threads_do() {
    let Some(strace) = find("strace", "apt-get install strace") else { return };
    // Other architectures have other calls for some of these.
    if !cfg!(all(target_arch = "x86_64", target_env = "gnu")) {
        return;
    }
    let permitted = Command::new(&strace).args(["-o", "/dev/null", "true"]).status();
    if !permitted.is_ok_and(|status| status.success()) {
        eprintln!("skipped: nothing may be traced here");
        return;
    }
    let guide = fs::read_to_string(root().join("docs/seccomp.md")).unwrap();
    let lists: Vec<Calls> = blocks(&guide)
        .iter()
        .filter(|block| block.language == "text")
        .map(|block| block.text.split_whitespace().map(str::to_owned).collect())
        .collect();
    let [always, sometimes] = &*lists else { panic!("docs/seccomp.md has two lists") };
    let recorded = recorded(&strace);
    let listed = always | sometimes;
    assert_eq!(&recorded - &listed, Calls::new(), "calls that are not in docs/seccomp.md");
    assert_eq!(always - &recorded, Calls::new(), "calls that were not made");
}
