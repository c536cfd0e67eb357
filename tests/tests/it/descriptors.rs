// SPDX-License-Identifier: MIT OR Apache-2.0
//! Descriptors that clients pass.

use std::fs::File;
use std::os::fd::AsFd;
use std::process::{Command, Stdio};

use tempfile::TempDir;
use tests::endpoint::Endpoint;
use tests::process::{Process, Signal};
use tests::server::{Client, qmp_server};
use tests::upstream;

const NONE: &str = "No file descriptor supplied via SCM_RIGHTS";
const TAKEN: &str = r#"{"return": {}}"#;

/// A machine that receives descriptors, ours or QEMU's.
struct Machine {
    process: Process,
    dir: TempDir,
}

impl Machine {
    fn start(command: impl FnOnce(&str) -> Command) -> Option<Machine> {
        let dir = tempfile::tempdir().unwrap();
        let mut command = command(&dir.path().join("qmp.sock").display().to_string());
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let process = Process::start(&mut command).ok()?;
        Some(Machine { process, dir })
    }

    fn ours() -> Machine {
        Machine::start(|socket| qmp_server(["--listen", &format!("unix:{socket}")])).unwrap()
    }

    /// Starts QEMU's machine; `None` if it is not installed.
    fn qemu() -> Option<Machine> {
        Machine::start(|socket| {
            let monitor = format!("unix:{socket},server=on,wait=off");
            let mut command = Command::new("qemu-system-x86_64");
            command.args(["-machine", "none", "-nodefaults", "-nographic", "-qmp", &monitor]);
            command
        })
    }

    fn connect(&self, capabilities: &str) -> Client {
        let mut client = Client::connect(&Endpoint::Unix(self.dir.path().join("qmp.sock")));
        client.negotiate(capabilities);
        client
    }

    /// Creates a file, which is recognized by its name.
    fn file(&self, name: &str) -> File {
        File::create(self.dir.path().join(name)).unwrap()
    }

    /// Waits until it holds these files and no others.
    #[track_caller]
    fn expect_held(&mut self, names: &[&str]) {
        upstream::expect_held(&mut self.process, self.dir.path(), names);
    }

    /// Sends several messages, each with the files of these names. All of them have arrived before the machine reads the
    /// first.
    fn send_all(&self, client: &mut Client, messages: &[(&str, &[&str])]) {
        self.process.signal(Signal::STOP).unwrap();
        for (text, names) in messages {
            let files: Vec<_> = names.iter().map(|name| self.file(name)).collect();
            let descriptors: Vec<_> = files.iter().map(AsFd::as_fd).collect();
            client.send_with(text.as_bytes(), &descriptors);
        }
        self.process.signal(Signal::CONT).unwrap();
    }
}

fn getfd(name: &str) -> String {
    format!(r#"{{"execute": "getfd", "arguments": {{"fdname": "{name}"}}}}"#)
}

#[track_caller]
fn expect_none(client: &mut Client) {
    client.expect(&format!(r#"{{"error": {{"class": "GenericError", "desc": "{NONE}"}}}}"#));
}

/// Runs a scenario with our machine and with QEMU's: both must do the same.
#[track_caller]
fn check(scenario: impl Fn(&mut Machine)) {
    scenario(&mut Machine::ours());
    match Machine::qemu() {
        Some(mut qemu) => scenario(&mut qemu),
        // Not a failure, ever: what it does is written down in the scenario.
        None => eprintln!("qemu-system-x86_64 is absent: not compared"),
    }
}

#[test]
fn a_descriptor_may_come_with_any_byte_of_its_command() {
    check(|machine| {
        let mut client = machine.connect("{}");
        let command = getfd("x");
        for at in [0, 1, 10, command.len() - 1] {
            let (start, end) = command.split_at(at);
            let messages: [(&str, &[&str]); 2] = [(start, &[]), (end, &["f"])];
            machine.send_all(&mut client, &messages);
            client.expect(TAKEN);
            machine.expect_held(&["f"]);
        }
    });
}

#[test]
fn a_command_that_was_complete_before_does_not_get_it() {
    check(|machine| {
        let mut client = machine.connect("{}");
        let first = format!("{{\"execute\": \"query-version\"}} {}", getfd("x"));
        machine.send_all(&mut client, &[(&first, &[]), (&getfd("y"), &["f"])]);
        client.receive();
        expect_none(&mut client);
        client.expect(TAKEN);
        machine.send_all(&mut client, &[(&getfd("x"), &[]), (" ", &["g"]), (&getfd("z"), &[])]);
        expect_none(&mut client);
        client.expect(TAKEN);
        machine.expect_held(&["f", "g"]);
    });
}

#[test]
fn each_of_many_commands_gets_its_own() {
    check(|machine| {
        let mut client = machine.connect("{}");
        let commands = ["a", "b", "c"].map(getfd);
        let [a, b, c] = commands.each_ref().map(String::as_str);
        machine.send_all(&mut client, &[(a, &["f1"]), (b, &["f2"]), (c, &["f3"])]);
        for _ in commands {
            client.expect(TAKEN);
        }
        machine.expect_held(&["f1", "f2", "f3"]);
        client.send(r#"{"execute": "closefd", "arguments": {"fdname": "b"}}"#);
        client.expect(TAKEN);
        machine.expect_held(&["f1", "f3"]);
    });
}

#[test]
fn a_client_that_has_always_waited_for_its_answers_may_stop_to_do_so() {
    check(|machine| {
        let mut client = machine.connect("{}");
        let wait_for_answers = |client: &mut Client| {
            for _ in 0..20 {
                client.send(r#"{"execute": "query-version"}"#);
                client.receive();
            }
        };
        let (a, b) = (getfd("a"), getfd("b"));
        wait_for_answers(&mut client);
        machine.send_all(&mut client, &[(&a, &["f1"]), (&b, &["f2"])]);
        client.expect(TAKEN);
        client.expect(TAKEN);
        machine.expect_held(&["f1", "f2"]);

        wait_for_answers(&mut client);
        machine.send_all(&mut client, &[(&[a.as_str(), &b].concat(), &["f3", "f4"])]);
        client.expect(TAKEN);
        expect_none(&mut client);
        machine.expect_held(&["f2", "f3"]);

        wait_for_answers(&mut client);
        let (start, end) = a.split_at(10);
        machine.send_all(&mut client, &[(start, &[]), (end, &["f5"])]);
        client.expect(TAKEN);
        machine.expect_held(&["f2", "f5"]);

        // It does not wait any more, and is not expected to.
        machine.send_all(&mut client, &[(&a, &[]), (&b, &["f6"])]);
        expect_none(&mut client);
        client.expect(TAKEN);
        machine.expect_held(&["f5", "f6"]);
    });
}

#[test]
fn what_came_together_serves_one_command() {
    check(|machine| {
        let mut client = machine.connect("{}");
        let both = getfd("a") + &getfd("b");
        machine.send_all(&mut client, &[(&both, &["f1", "f2", "f3"])]);
        client.expect(TAKEN);
        expect_none(&mut client);
        machine.expect_held(&["f1"]);
    });
}

#[test]
fn what_came_last_waits() {
    check(|machine| {
        let mut client = machine.connect("{}");
        let both = getfd("a") + &getfd("b");
        machine.send_all(&mut client, &[(" ", &["f1"]), ("\n", &["f2", "f3"]), (&both, &[])]);
        client.expect(TAKEN);
        expect_none(&mut client);
        machine.expect_held(&["f2"]);
    });
}

#[test]
fn what_does_not_take_a_descriptor_leaves_it() {
    check(|machine| {
        let mut client = machine.connect(r#"{"enable": ["oob"]}"#);
        let others = [
            r#"{"execute": "query-version"}"#,
            r#"{"execute": "getfd"}"#,
            r#"{"execute": "no-such-command"}"#,
            r#"{"exec-oob": "getfd", "arguments": {"fdname": "a"}}"#,
            r#"{"exec-oob": "yank", "arguments": {"instances": []}}"#,
            "}",
        ];
        for other in others {
            machine.send_all(&mut client, &[(other, &["f"])]);
            client.receive();
            machine.expect_held(&["f"]);
        }
        client.send(&getfd("a"));
        client.expect(TAKEN);
        machine.expect_held(&["f"]);
    });
}

/// Not compared: in QEMU and here alike, it is a race between reading and executing whether an earlier request gets the
/// descriptor.
#[test]
fn out_of_band_what_came_with_a_later_request_is_for_one() {
    let mut machine = Machine::ours();
    let mut client = machine.connect(r#"{"enable": ["oob"]}"#);
    let queued = [getfd("a"), getfd("b")].concat();
    let oob = r#"{"exec-oob": "no-such-command", "id": 1}"#;
    machine.send_all(&mut client, &[(&queued, &[]), (oob, &["f"])]);
    let mut replies: Vec<_> = (0..3).map(|_| client.receive()).collect();
    replies.retain(|reply| reply.get("id").is_none());
    let refused = replies.iter().filter(|reply| reply.to_string().contains(NONE)).count();
    let taken = replies.iter().filter(|reply| reply.to_string() == TAKEN).count();
    assert!(taken <= 1 && taken + refused == 2, "{replies:?}");
    machine.expect_held(&["f"]);
}

#[test]
fn a_command_may_take_a_descriptor_and_fail() {
    check(|machine| {
        let mut client = machine.connect("{}");
        machine.send_all(&mut client, &[(&getfd("1"), &["f1", "f2"]), (&getfd("a"), &[])]);
        client.receive();
        expect_none(&mut client);
        machine.expect_held(&[]);
        let negative = r#"{"execute": "add-fd", "arguments": {"fdset-id": -1}}"#;
        machine.send_all(&mut client, &[(negative, &["f1"]), (&getfd("a"), &[])]);
        client.receive();
        expect_none(&mut client);
        machine.expect_held(&[]);
    });
}

#[test]
fn descriptors_that_nobody_takes_are_closed() {
    check(|machine| {
        let mut client = machine.connect("{}");
        machine.send_all(&mut client, &[(" ", &["f1", "f2"])]);
        machine.expect_held(&["f1", "f2"]);
        machine.send_all(&mut client, &[(" ", &["f3"])]);
        machine.expect_held(&["f3"]);
        drop(client);
        machine.expect_held(&[]);
        let mut client = machine.connect("{}");
        machine.send_all(&mut client, &[(r#"{"execute": "getfd", "argu"#, &["f4"])]);
        machine.expect_held(&["f4"]);
        drop(client);
        machine.expect_held(&[]);
    });
}

#[test]
fn a_name_that_is_given_again_closes_the_first() {
    check(|machine| {
        let mut client = machine.connect("{}");
        machine.send_all(&mut client, &[(&getfd("a"), &["f1"]), (&getfd("a"), &["f2"])]);
        client.expect(TAKEN);
        client.expect(TAKEN);
        machine.expect_held(&["f2"]);
    });
}

/// Not compared: in QEMU, the descriptors belong to the socket.
#[test]
fn names_end_with_the_connection() {
    let mut machine = Machine::ours();
    let mut client = machine.connect("{}");
    machine.send_all(&mut client, &[(&getfd("a"), &["f1"])]);
    client.expect(TAKEN);
    machine.expect_held(&["f1"]);
    drop(client);
    machine.expect_held(&[]);
}
