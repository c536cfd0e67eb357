// SPDX-License-Identifier: MIT OR Apache-2.0
//! Real QEMUs behind one mux, found by pattern: one stands still, one ends again and again, and the others answer.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::endpoint::Endpoint;
use crate::process::{Process, Signal};
use crate::server::{Client, Server};
use crate::waiting::wait_for;

/// What has been seen.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// Answers of the machines that were left alone.
    pub answers: usize,
    /// The longest time that one of them took.
    pub longest: Duration,
}

/// Shares this many machines with this QEMU, at least three, and ends one of them this often.
///
/// # Panics
///
/// If a client sees anything that it would not see on QEMU itself.
#[must_use]
pub fn run(qemu: &Path, machines: usize, ends: usize) -> Seen {
    let dir = tempfile::Builder::new().prefix("qmp-vms-").tempdir().expect("a directory");
    let text = "log-filter = 'info'\n[mux]\ncontrol = ['unix:qmp.sock']\nupstream-lost = 'disconnect'\n\
                hang-after = '1'\n\
                [[machine]]\nname = 'vm{1}'\nupstream = 'unix:vm/*/qemu.sock'\nlisten = ['unix:vm/{1}/qmp.sock']\n";
    fs::write(dir.path().join("mux.toml"), text).expect("a file");
    for number in 0..machines {
        fs::create_dir_all(dir.path().join(format!("vm/{number}"))).expect("a directory");
    }
    let mut mux = Server::start_in(dir, ["mux", "--config", "mux.toml"]);
    let vm = |number: usize| mux.dir().join(format!("vm/{number}"));
    let mut qemus: Vec<_> = (0..machines).map(|number| start(qemu, &vm(number), number)).collect();
    let mut clients: Vec<_> = (0..machines).map(|number| connect(&vm(number))).collect();
    let mut answers = 0;
    let mut longest = Duration::ZERO;
    let mut ask = |clients: &mut [Client]| {
        for (number, client) in clients.iter_mut().enumerate() {
            let began = Instant::now();
            let name = client.execute("query-name").to_string();
            longest = longest.max(began.elapsed());
            assert_eq!(name, format!(r#"{{"name": "vm{}"}}"#, number + 2));
            answers += 1;
        }
    };
    ask(&mut clients[2..]);
    qemus[0].signal(Signal::STOP).expect("it runs");
    clients[0].send_command("query-name");
    for _ in 0..ends {
        drop(qemus[1].child().kill());
        clients[1].expect_end();
        drop(qemus[1].child().wait());
        ask(&mut clients[2..]);
        fs::remove_file(vm(1).join("qemu.sock")).expect("its socket");
        qemus[1] = start(qemu, &vm(1), 1);
        clients[1] = connect(&vm(1));
        assert_eq!(clients[1].execute("query-name").to_string(), r#"{"name": "vm1"}"#);
        ask(&mut clients[2..]);
    }
    // It is the one that is named.
    let log = wait_for(|| {
        let log = mux.process().stderr();
        if log.contains("the upstream server hangs") { Ok(log) } else { Err(log) }
    });
    let hanging = log.lines().filter(|line| line.contains("the upstream server hangs"));
    assert!(hanging.clone().all(|line| line.contains(r#"machine="vm0""#)), "{log}");
    qemus[0].signal(Signal::CONT).expect("it runs");
    let answer = clients[0].receive().to_string();
    assert_eq!(answer, r#"{"return": {"name": "vm0"}}"#);
    ask(&mut clients[2..]);
    Seen { answers, longest }
}

fn start(qemu: &Path, dir: &Path, number: usize) -> Process {
    let qmp = format!("unix:{},server=on,wait=off", dir.join("qemu.sock").display());
    let mut command = Command::new(qemu);
    command.args(["-machine", "none", "-nodefaults", "-display", "none", "-S"]);
    command.args(["-name", &format!("vm{number}"), "-qmp", &qmp]);
    Process::start(command.stdin(Stdio::null()).stdout(Stdio::null())).expect("QEMU starts")
}

/// A client, as soon as the machine is served.
fn connect(dir: &Path) -> Client {
    let endpoint = Endpoint::Unix(dir.join("qmp.sock"));
    wait_for(|| endpoint.try_connect().map_err(|error| error.to_string()));
    let mut client = Client::connect(&endpoint);
    client.negotiate("{}");
    client
}
