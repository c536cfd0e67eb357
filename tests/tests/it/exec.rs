// SPDX-License-Identifier: MIT OR Apache-2.0
//! `mux --exec`: the program becomes QEMU, and a mux stands in its monitor's place.

use std::io::{PipeReader, Read, Write, pipe};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus};

use qmp_proto::Dialect;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tests::endpoint::Endpoint;
use tests::process::run;
use tests::programs::Oracle;
use tests::server::{Client, LIMIT, program, qmp_server, refusal};
use tests::waiting::{wait_for, wait_until};

const DONE: &str = r#"{"return": {}}"#;

/// The arguments by which libvirt passes a monitor as descriptor 8.
const MONITOR: &str = "-chardev socket,id=charmonitor,fd=8,server=on,wait=off \
                       -mon chardev=charmonitor,id=monitor,mode=control";

/// A process that was started as libvirt starts QEMU: with a socket that listens as descriptor 8, and the end of a pipe as
/// descriptor 7, which is for QEMU alone.
struct Started {
    child: Child,
    dir: TempDir,
    pipe: PipeReader,
    /// Ends when no process is left.
    stderr: PipeReader,
}

impl Started {
    /// `script` is what comes after the options of `mux`; the working directory is that of the sockets.
    fn new(script: &str) -> Started {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("monitor.sock")).unwrap();
        Started::with_door(dir, listener.into(), script)
    }

    fn with_door(dir: TempDir, door: OwnedFd, script: &str) -> Started {
        let ((pipe, end_of_pipe), (stderr, end_of_stderr)) = (pipe().unwrap(), pipe().unwrap());
        let script = format!(
            "exec 8<&0 7>&1 </dev/null >stdout.txt; exec {} mux {script}",
            program().display()
        );
        let mut command = Command::new("sh");
        command.args(["-c", &script]).current_dir(&dir).stdin(door);
        let child = command.stdout(end_of_pipe).stderr(end_of_stderr).spawn().unwrap();
        Started { child, dir, pipe, stderr }
    }

    /// A client of the monitor that was passed.
    fn connect(&self) -> Client {
        Client::connect(&Endpoint::Unix(self.dir.path().join("monitor.sock")))
    }

    fn pid(&self) -> String {
        self.child.id().to_string()
    }

    /// Waits for the exit, and until no process is left; returns what was written to standard error.
    fn end(mut self) -> (ExitStatus, String) {
        let status = self.child.wait().unwrap();
        let mut said = String::new();
        self.stderr.read_to_string(&mut said).unwrap();
        (status, said)
    }

    /// The pipe has ended although the mux runs.
    fn expect_end_of_pipe(&mut self) {
        assert_eq!(self.pipe.read(&mut [0]).unwrap(), 0);
    }
}

/// Nothing is left behind if a test fails.
impl Drop for Started {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// QEMU with such a monitor, both as libvirt's and at a socket of the mux that has the name of the machine.
fn qemu(dialect: Dialect) -> Option<Started> {
    let qemu = Oracle::of(dialect).program("qemu-system-x86_64")?;
    Some(Started::new(&format!(
        "--listen unix:{{name}}.sock --exec -- {} -name guest=vm1,debug-threads=on -machine none \
         -nodefaults -display none -S {MONITOR}",
        qemu.display()
    )))
}

/// The client of libvirt's monitor, with others beside it.
#[track_caller]
fn check_shared(started: &Started) -> Client {
    let mut libvirt = started.connect();
    libvirt.negotiate("{}");
    assert_eq!(libvirt.execute("query-name").to_string(), r#"{"name": "vm1"}"#);
    let mut other = Client::connect(&Endpoint::Unix(started.dir.path().join("vm1.sock")));
    other.negotiate("{}");
    assert_eq!(
        other.execute("query-status").to_string(),
        libvirt.execute("query-status").to_string()
    );
    libvirt
}

/// As kata-containers passes it.
#[test]
fn a_monitor_without_a_character_device_of_its_own_is_shared() {
    for dialect in Dialect::ALL {
        let Some(qemu) = Oracle::of(dialect).program("qemu-system-x86_64") else { return };
        let started = Started::new(&format!(
            "--listen unix:{{name}}.sock --exec -- {} -name vm1 -machine none -nodefaults -display none -S \
             -qmp unix:fd=8,server=on,wait=off",
            qemu.display()
        ));
        let mut kata = check_shared(&started);
        kata.send_command("quit");
        let (status, said) = started.end();
        assert!(status.success(), "{status:?}: {said}");
    }
}

#[test]
fn qemu_keeps_its_process_and_its_exit_status() {
    for dialect in Dialect::ALL {
        let Some(started) = qemu(dialect) else { return };
        let mut libvirt = check_shared(&started);
        // The process is QEMU: it has the name that was asked for by `debug-threads`.
        let named = std::fs::read_to_string(format!("/proc/{}/cmdline", started.pid())).unwrap();
        assert!(named.contains("socket,id=charmonitor,fd="), "{named}");
        assert!(!named.contains("server=on"), "{named}");
        libvirt.send_command("quit");
        // The one before or after the other.
        let told = [libvirt.receive(), libvirt.receive()].map(|message| message.to_string());
        assert!(told.iter().any(|message| message.contains("SHUTDOWN")), "{told:?}");
        libvirt.expect_end();
        let socket = started.dir.path().join("vm1.sock");
        let (status, said) = started.end();
        assert!(status.success(), "{status:?}: {said}");
        assert!(!said.contains("qmp-server"), "{said}");
        assert!(!socket.exists());
    }
}

#[test]
fn a_signal_is_qemus_and_its_death_is_an_end_of_file() {
    for dialect in Dialect::ALL {
        for (signal, number) in [("-KILL", Some(9)), ("-TERM", None)] {
            let Some(started) = qemu(dialect) else { return };
            let mut libvirt = check_shared(&started);
            let killed = Command::new("kill").args([signal, &started.pid()]).status().unwrap();
            assert!(killed.success());
            if number.is_none() {
                libvirt.expect_event("SHUTDOWN");
            }
            libvirt.expect_end();
            let (status, said) = started.end();
            assert_eq!(status.signal(), number, "{said}");
        }
    }
}

#[test]
fn a_connection_is_taken_over_like_a_listener() {
    let Some(qemu) = Oracle::V10_0.program("qemu-system-x86_64") else { return };
    let (ours, theirs) = UnixStream::pair().unwrap();
    let script = format!(
        "--listen unix:other.sock --exec -- {} -machine none -nodefaults -display none -S \
         -chardev socket,id=mon,fd=8 -mon chardev=mon,mode=control",
        qemu.display()
    );
    let started = Started::with_door(tempfile::tempdir().unwrap(), theirs.into(), &script);
    ours.set_read_timeout(Some(LIMIT)).unwrap();
    (&ours).write_all(br#"{"execute": "qmp_capabilities"} {"execute": "quit"}"#).unwrap();
    let mut received = String::new();
    (&ours).read_to_string(&mut received).unwrap();
    assert!(received.contains("SHUTDOWN"), "{received}");
    let (status, said) = started.end();
    assert!(status.success(), "{said}");
}

/// The mux beside the QEMU that was started here.
fn mux_of(started: &Started) -> i32 {
    let dir = started.dir.path().canonicalize().unwrap();
    let numbers = std::fs::read_dir("/proc").unwrap();
    let numbers = numbers.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let mut muxes = numbers.filter(|number: &i32| {
        let of = |file: &str| Path::new("/proc").join(number.to_string()).join(file);
        let words = std::fs::read(of("cmdline")).unwrap_or_default();
        std::fs::read_link(of("cwd")).is_ok_and(|cwd| cwd == dir)
            && String::from_utf8_lossy(&words).contains("--behind=mux:")
    });
    muxes.next().expect("there is a mux")
}

#[test]
fn an_upgrade_is_seen_by_neither_side() {
    for dialect in Dialect::ALL {
        let Some(qemu) = Oracle::of(dialect).program("qemu-system-x86_64") else { return };
        let mut started = Started::new(&format!(
            "--listen unix:{{name}}.sock --log-filter info --exec -- {} -name vm1 -machine none \
             -nodefaults -display none -S {MONITOR} 2>log.txt",
            qemu.display()
        ));
        let log = started.dir.path().join("log.txt");
        let mut libvirt = check_shared(&started);
        let mut other = Client::connect(&Endpoint::Unix(started.dir.path().join("vm1.sock")));
        other.negotiate("{}");
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        ours.set_read_timeout(Some(LIMIT)).unwrap();
        let request = br#"{"execute": "getfd", "arguments": {"fdname": "net"}}"#;
        libvirt.send_with(request, &[theirs.as_fd()]);
        libvirt.expect(DONE);
        drop(theirs);
        let mux = Pid::from_raw(mux_of(&started)).unwrap();
        let descriptors = || {
            let path = format!("/proc/{}/fd", mux.as_raw_nonzero());
            std::fs::read_dir(path).unwrap().count()
        };
        let mut open = None;
        for upgrade in 1..=3 {
            // Half a request before, and the rest after.
            libvirt.send(r#"{"execute": "query-na"#);
            other.send_command("query-name");
            kill_process(mux, Signal::USR2).unwrap();
            wait_for(|| {
                let log = std::fs::read_to_string(&log).unwrap();
                match log.matches("another program has handed over").count() {
                    done if done >= upgrade => Ok(()),
                    _ => Err(log),
                }
            });
            libvirt.send(r#"me"}"#);
            libvirt.expect(r#"{"return": {"name": "vm1"}}"#);
            other.expect(r#"{"return": {"name": "vm1"}}"#);
            check_shared(&started);
            assert_eq!(mux_of(&started), mux.as_raw_nonzero().get());
            // With the clients that have just left, maybe.
            let open = *open.get_or_insert_with(descriptors);
            wait_until(|| descriptors() <= open);
        }
        // QEMU uses what it was passed before, under the name of before: its end of the pair is closed with this.
        let backend = r#"{"type": "socket", "data": {"addr": {"type": "fd", "data": {"str": "net"}}, "server": false}}"#;
        libvirt.send(&format!(
            r#"{{"execute": "chardev-add", "arguments": {{"id": "net", "backend": {backend}}}}}"#
        ));
        libvirt.expect(DONE);
        libvirt.send(r#"{"execute": "chardev-remove", "arguments": {"id": "net"}}"#);
        libvirt.expect(DONE);
        assert_eq!(ours.read(&mut [0]).unwrap(), 0);
        // The process is QEMU still, and its end is everybody's.
        let killed = Command::new("kill").args(["-KILL", &started.pid()]).status().unwrap();
        assert!(killed.success());
        libvirt.expect_end();
        other.expect_end();
        assert_eq!(started.child.wait().unwrap().signal(), Some(9));
        wait_until(|| !Path::new(&format!("/proc/{}", mux.as_raw_nonzero())).exists());
        assert!(!started.dir.path().join("vm1.sock").exists());
    }
}

/// Whoever waits for the end of a pipe that QEMU has inherited does not wait for the mux.
#[test]
fn the_mux_keeps_nothing_open_that_is_qemus() {
    let script = "exec 7>&-; exec sleep 1000";
    let mut started = Started::new(&format!("--exec -- sh -c '{script}' {MONITOR}"));
    started.expect_end_of_pipe();
}

#[test]
fn without_a_monitor_the_program_is_executed_and_nothing_else() {
    for (script, code, expected) in [("echo plain; exit 7", 7, "plain\n"), ("exit 0", 0, "")] {
        let arguments =
            ["mux", "--listen", "unix:/nowhere/{name}.sock", "--exec", "--", "sh", "-c", script];
        let finished = run(&mut qmp_server(arguments), "", LIMIT).unwrap();
        assert_eq!(finished.status.code(), Some(code), "{finished:?}");
        assert_eq!(finished.stdout, expected);
        assert_eq!(finished.stderr, "");
    }
}

#[test]
fn what_cannot_be_run_is_told_and_leaves_nothing_behind() {
    let arguments = ["mux", "--exec", "--", "/nowhere/qemu", "-version"];
    assert_eq!(
        refusal(&arguments),
        "qmp-server: /nowhere/qemu: No such file or directory (os error 2)"
    );
    let started = Started::new(&format!("--exec -- /nowhere/qemu {MONITOR}"));
    let (status, said) = started.end();
    assert_eq!(status.code(), Some(2), "{said}");
    assert!(said.starts_with("qmp-server: /nowhere/qemu: No such file"), "{said}");
}

/// Otherwise whoever has started QEMU would wait for a monitor in vain.
#[test]
fn qemu_is_not_run_without_its_mux() {
    for (options, expected) in [
        ("--listen unix:/nowhere/qmp.sock", "cannot listen at unix:/nowhere/qmp.sock"),
        ("--listen unix:{name}.sock", "the machine of QEMU has no name"),
        ("--config nowhere.toml", "nowhere.toml"),
    ] {
        let started = Started::new(&format!("{options} --exec -- sh -c 'touch run' {MONITOR}"));
        let run = started.dir.path().join("run");
        let (status, said) = started.end();
        assert_eq!(status.code(), Some(2), "{said}");
        assert!(said.contains(expected), "{said}");
        assert!(said.ends_with("the mux does not start, and QEMU is not run\n"), "{said}");
        assert!(!run.exists());
    }
}

#[test]
fn options_that_contradict_it_are_refused() {
    for (arguments, expected) in [
        (&["mux", "--exec"][..], "<QEMU>"),
        (&["mux", "--upstream", "a/b", "--exec", "--", "qemu"], "cannot be used with"),
        (&["mux", "--deadline", "1", "--exec", "--", "qemu"], "cannot be used with"),
        (&["mux", "--listen", "a/b", "--", "qemu"], "--exec"),
    ] {
        let line = refusal(arguments);
        assert!(line.contains(expected), "{line}");
    }
    let dir = tempfile::tempdir().unwrap();
    check_file(dir.path(), "deadline = ['5']", "with --exec there are no deadlines");
    check_file(dir.path(), "[mux]\nupstream = 'a/b'", "upstream: with --exec it is QEMU");
    check_file(dir.path(), "[[machine]]\nname = 'a'", "with --exec there is one machine");
    check_file(dir.path(), "listen = ['unix:{name}.sock']\naudit = '{name}.jsonl'", "");
}

/// `--check-config` must say this of a file.
#[track_caller]
fn check_file(dir: &Path, text: &str, expected: &str) {
    let file = dir.join("mux.toml");
    std::fs::write(&file, text).unwrap();
    let file = file.to_str().unwrap();
    let mut command =
        qmp_server(["mux", "--config", file, "--check-config", "--exec", "--", "qemu"]);
    let finished = run(&mut command, "", LIMIT).unwrap();
    assert!(finished.stderr.contains(expected), "{}", finished.stderr);
    assert_eq!(finished.stderr.is_empty(), expected.is_empty(), "{}", finished.stderr);
}
