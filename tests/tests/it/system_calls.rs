// SPDX-License-Identifier: MIT OR Apache-2.0
//! The guide's lists of the system calls that the server's threads make are compared with what strace records.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use regex::Regex;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tests::certificates::Authority;
use tests::channel::TlsClient;
use tests::endpoint::{Endpoint, LOCALHOST};
use tests::process::Process;
use tests::programs::find;
use tests::server::{Client, LIMIT, Server, example, ports, program};
use tests::waiting::{wait_for, wait_until};

use super::documents::{blocks, root};

/// Above the size at which arguments are parsed on a thread of their own.
const LARGE: usize = 3_000_000;

/// The thread of the program, and not of the server, that writes the log.
const PROGRAMS_OWN: &str = "qmp-log";

type Calls = BTreeSet<String>;

/// A server under strace, with a Unix socket in its working directory.
struct Traced {
    process: Process,
    dir: TempDir,
}

impl Traced {
    fn start(strace: &Path, program: &Path, arguments: &[&str], dir: TempDir) -> Traced {
        let mut command = Command::new(strace);
        command.args(["-f", "-o", "record"]).arg(program).args(arguments).current_dir(&dir);
        let mut process = Process::start(command.stdin(Stdio::null())).unwrap();
        process.expect_ready(&Endpoint::Unix(dir.path().join("qmp.sock")));
        Traced { process, dir }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn endpoint(&self) -> Endpoint {
        Endpoint::Unix(self.file("qmp.sock"))
    }

    /// The port of the only listener that has one.
    fn port(&self) -> u16 {
        wait_for(|| {
            let log = self.process.stderr();
            ports(&log).first().copied().ok_or_else(|| format!("no port in: {log}"))
        })
    }

    /// Sends the program a signal; strace would not pass it on.
    fn signal(&self, signal: Signal) {
        let record = fs::read_to_string(self.file("record")).unwrap();
        let main = record.split_once(' ').unwrap().0.parse().ok().and_then(Pid::from_raw);
        kill_process(main.unwrap(), signal).unwrap();
    }

    /// Waits for its end. Returns what was recorded.
    fn record(&mut self) -> String {
        let status = self.process.wait(LIMIT).unwrap().expect("it has been told to end");
        assert!(status.success(), "{}", self.process.stderr());
        fs::read_to_string(self.file("record")).unwrap()
    }

    /// Waits for its end. Returns the calls of all its threads but the main one, which is the embedder's, and
    /// [`PROGRAMS_OWN`].
    fn calls(mut self) -> Calls {
        let record = self.record();
        let (main, _) = record.split_once(' ').unwrap();
        // A call that another thread's interrupts has a second line, which begins with "<...".
        let call = Regex::new(r"(?m)^(\d+) +([a-z0-9_]+)\((.*)").unwrap();
        let mut threads = BTreeMap::<_, Calls>::new();
        let mut own = BTreeSet::from([main]);
        for [thread, name, arguments] in call.captures_iter(&record).map(|found| found.extract().1)
        {
            if name == "prctl" && arguments.starts_with(&format!("PR_SET_NAME, \"{PROGRAMS_OWN}\""))
            {
                own.insert(thread);
            }
            threads.entry(thread).or_default().insert(name.to_owned());
        }
        threads.retain(|thread, _| !own.contains(thread));
        threads.into_values().flatten().collect()
    }
}

/// The lists of the guide.
struct Guide {
    always: Calls,
    sometimes: Calls,
    /// The lists of what the core does not call, each with the line before it, which names the feature.
    features: Vec<(String, Calls)>,
    text: String,
}

impl Guide {
    fn read() -> Guide {
        let text = fs::read_to_string(root().join("docs/seccomp.md")).unwrap();
        let mut lists = blocks(&text)
            .into_iter()
            .filter(|block| block.language == "text")
            .map(|block| (block.before, block.text.split_whitespace().map(str::to_owned).collect()))
            .collect::<Vec<_>>();
        let features = lists.split_off(2);
        let [always, sometimes] = lists.try_into().unwrap();
        Guide { always: always.1, sometimes: sometimes.1, features, text }
    }

    /// What the guide says that a feature calls.
    fn list_of(&self, feature: &str) -> Calls {
        let name = format!("`{feature}`");
        let mut lists = self.features.iter().filter(|(before, _)| before.starts_with(&name));
        if let Some((_, list)) = lists.next() {
            return list.clone();
        }
        let mut lines = self.text.lines().filter(|line| line.ends_with(" call nothing else."));
        assert!(
            lines.any(|line| line.contains(&name)),
            "docs/seccomp.md says nothing of {feature}"
        );
        Calls::new()
    }
}

/// Finds strace, if it can be used.
fn strace() -> Option<PathBuf> {
    let strace = find("strace", "apt-get install strace")?;
    // Other architectures have other calls for some of these.
    if !cfg!(all(target_arch = "x86_64", target_env = "gnu")) {
        return None;
    }
    let permitted = Command::new(&strace).args(["-o", "/dev/null", "true"]).status();
    if !permitted.is_ok_and(|status| status.success()) {
        eprintln!("skipped: nothing may be traced here");
        return None;
    }
    Some(strace)
}

fn directory() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// Has a client that does what most do.
fn converse(endpoint: &Endpoint) {
    let mut client = Client::connect(endpoint);
    client.negotiate(r#"{"enable": ["oob"]}"#);
    client.execute("query-status");
    client.execute("query-commands");
    client.half_close();
    client.expect_end();
}

fn open_the_audit_anew(server: &Traced) {
    let path = server.file("audit.jsonl");
    fs::rename(&path, server.file("old.jsonl")).unwrap();
    server.signal(Signal::HUP);
    wait_until(|| path.exists());
}

fn scrape(server: &Traced) {
    let mut stream = wait_for(|| {
        UnixStream::connect(server.file("metrics.sock")).map_err(|error| error.to_string())
    });
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    assert!(response.starts_with("HTTP/1.1 200 OK\r\n"), "{response}");
}

#[test]
fn a_filter_made_of_the_list_permits_what_the_threads_do() {
    let Some(strace) = strace() else { return };
    let server = Traced::start(&strace, &example("threads"), &["qmp.sock"], directory());

    // They make the smallest example do all it can.
    let mut client = Client::connect(&server.endpoint());
    client.negotiate(r#"{"enable": ["oob"]}"#);
    let (near, far) = UnixStream::pair().unwrap();
    let switch = |on: &str| {
        format!(r#"{{"execute": "x-lamp-switch", "arguments": {{"on": {on}}}}}"#).into_bytes()
    };
    client.send_with(&switch("true"), &[near.as_fd(), far.as_fd()]);
    client.expect(r#"{"return": {}}"#);
    client.send_bytes(&switch(&format!("\"{}\"", "x".repeat(LARGE))));
    assert!(client.receive().get("error").is_some());
    drop(Client::connect(&server.endpoint()));
    client.execute("query-commands");
    client.send(r#"{"execute": "quit"}"#);
    client.expect(r#"{"return": {}}"#);
    client.expect_end();

    let recorded = server.calls();
    let guide = Guide::read();
    let listed = &guide.always | &guide.sometimes;
    assert_eq!(&recorded - &listed, Calls::new(), "calls that are not in docs/seccomp.md");
    assert_eq!(&guide.always - &recorded, Calls::new(), "calls that were not made");
}

#[test]
fn each_feature_calls_what_is_listed_for_it() {
    let Some(strace) = strace() else { return };
    let guide = Guide::read();
    let core = &guide.always | &guide.sometimes;
    let certificates = directory();
    let authority = Authority::new(certificates.path(), "authority").unwrap();
    let [server, alice] = [LOCALHOST, "alice"].map(|name| authority.issue(name, &[name]).unwrap());
    let ca = authority.certificate();
    let tls = format!(
        "tls:127.0.0.1:0,cert={},key={},client-ca={},allow-name=alice",
        server.cert.display(),
        server.key.display(),
        ca.display()
    );
    let client = TlsClient { ca, identity: Some(alice) };
    let upstream = Server::start();
    let behind = format!("unix:{}", upstream.socket().display());

    let tcp = |server: &Traced| {
        converse(&Endpoint::Tcp { host: "127.0.0.1".to_owned(), port: server.port() });
    };
    let with_tls = |server: &Traced| {
        converse(&Endpoint::Tls { port: server.port(), client: client.clone() });
    };
    type Use<'a> = &'a dyn Fn(&Traced);
    let features: [(&str, &[&str], Use<'_>); 7] = [
        ("machine", &["serve"], &|_| ()),
        ("tcp:", &["serve", "--listen", "tcp:127.0.0.1:0"], &tcp),
        ("tls", &["serve", "--listen", &tls], &with_tls),
        ("audit", &["serve", "--audit", "audit.jsonl"], &open_the_audit_anew),
        ("metrics", &["serve", "--metrics", "unix:metrics.sock"], &scrape),
        (
            "roles",
            &["serve", "--role", "group:root=operator", "--default-role", "observer"],
            &|_| (),
        ),
        ("mux", &["mux", "--upstream", &behind, "--upstream-lost", "keep"], &|_| ()),
    ];
    for (feature, arguments, make_use) in features {
        let arguments = [arguments, &["--listen", "unix:qmp.sock"]].concat();
        let server = Traced::start(&strace, program(), &arguments, directory());
        converse(&server.endpoint());
        make_use(&server);
        converse(&server.endpoint());
        server.signal(Signal::TERM);
        assert_eq!(&server.calls() - &core, guide.list_of(feature), "{feature}");
    }
    let with_list = features.iter().filter(|(name, ..)| !guide.list_of(name).is_empty());
    assert_eq!(
        with_list.count() + 1,
        guide.features.len(),
        "docs/seccomp.md has a list of something else"
    );
}

/// From the start of the new program that looks at its configuration to its execution, on the main thread.
#[test]
fn an_upgrade_calls_what_is_listed_for_it() {
    let Some(strace) = strace() else { return };
    let guide = Guide::read();
    let upstream = Server::start();
    let behind = format!("unix:{}", upstream.socket().display());
    let arguments = ["mux", "--upstream", &behind, "--upstream-lost", "keep", "--log-filter=info"];
    let arguments = [&arguments[..], &["--listen", "unix:qmp.sock"]].concat();
    let mut server = Traced::start(&strace, program(), &arguments, directory());
    let mut client = Client::connect(&server.endpoint());
    client.negotiate("{}");
    server.signal(Signal::USR2);
    server.process.expect_log("another program has handed over");
    client.execute("query-status");
    server.signal(Signal::TERM);
    let record = server.record();
    let (main, _) = record.split_once(' ').unwrap();
    let lines = record.lines().filter_map(|line| line.strip_prefix(main));
    let lines: Vec<_> = lines.map(str::trim_start).collect();
    let executed = lines.iter().rposition(|line| line.starts_with("execve(")).unwrap();
    let starts = |line: &&str| line.contains("CLONE_VFORK");
    let started = lines[..executed].iter().rposition(starts).unwrap();
    let call = Regex::new("^([a-z0-9_]+)\\(").unwrap();
    let calls = lines[started..=executed].iter().filter_map(|line| call.captures(line));
    let recorded: Calls = calls.map(|call| call[1].to_owned()).collect();
    let core = &guide.always | &guide.sometimes;
    assert_eq!(&recorded - &core, guide.list_of("SIGUSR2"), "{lines:#?}");
}
