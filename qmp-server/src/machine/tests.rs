// SPDX-License-Identifier: MIT OR Apache-2.0
//! The parts, each registered by itself.

use std::fs::File;
use std::io::{BufRead, BufReader, IoSlice, Read, Seek, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};

use qmp_dispatch::proto::{Error, Layout};
use qmp_dispatch::{Context, Dispatcher, LocalClient, RegisterError, Registry};
use rustix::fs::OFlags;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use super::*;
use crate::{Server, system_time, version};

/// What a guest was asked to do, in order.
#[derive(Default)]
struct Recorder(Mutex<Vec<String>>);

impl Recorder {
    fn push(&self, what: impl Into<String>) {
        self.0.lock().unwrap().push(what.into());
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

impl Guest for Arc<Recorder> {
    fn stop(&self) {
        self.push("stop");
    }

    fn resume(&self) {
        self.push("resume");
    }

    fn reset(&self) {
        self.push("reset");
    }

    fn powerdown(&self) {
        self.push("powerdown");
    }

    fn shutdown(&self, cause: ShutdownCause) {
        self.push(format!("shutdown {cause:?}"));
    }
}

fn recorded() -> (LocalClient, Arc<RunControl>, Arc<Recorder>) {
    let guest = Arc::new(Recorder::default());
    let run_control = Arc::new(RunControl::new(RunState::Running, Arc::clone(&guest)));
    let mut registry = Registry::new();
    register_run_state(&mut registry, &run_control).unwrap();
    (LocalClient::new(registry), run_control, guest)
}

#[test]
fn every_part_registers_what_is_its_own() {
    type Register = fn(&mut Registry) -> Result<(), RegisterError>;
    let parts: [Register; 5] = [
        register_descriptors,
        |registry| register_fd_sets(registry, &Arc::default()),
        |registry| register_run_state(registry, &Arc::new(RunControl::new(RunState::Running, ()))),
        |registry| register_yank(registry, &Arc::default()),
        |registry| register_trace_points(registry, &Arc::default()),
    ];
    let own = Registry::new().commands().count();
    for part in parts {
        let mut registry = Registry::new();
        part(&mut registry).unwrap();
        assert!(registry.commands().count() > own);
        part(&mut registry).unwrap_err();
    }
    let mut registry = Registry::new();
    parts.iter().try_for_each(|part| part(&mut registry)).unwrap();
}

#[test]
fn commands_and_the_embedder_change_the_same_run_state() {
    let (client, run_control, guest) = recorded();
    let dispatcher = client.monitor().dispatcher();
    client.ask("{'execute': 'stop'}{'execute': 'stop'}");
    assert_eq!(run_control.run_state(), RunState::Paused);
    run_control.resume(dispatcher).unwrap();
    run_control.stop(dispatcher, RunState::IoError).unwrap();
    let said = client.ask("{'execute': 'query-status'}");
    assert!(said.last().unwrap().contains(r#""status": "io-error""#), "{said:?}");
    run_control.reset(dispatcher, ShutdownCause::SubsystemReset).unwrap();
    assert_eq!(run_control.run_state(), RunState::Prelaunch);
    run_control.powerdown(dispatcher).unwrap();
    run_control.shutdown(dispatcher, ShutdownCause::GuestShutdown).unwrap();
    assert_eq!(
        guest.take(),
        ["stop", "resume", "stop", "reset", "powerdown", "shutdown GuestShutdown"],
    );
    let said = client.received().join("\n");
    assert!(!said.contains("RESET"), "{said}");
    assert!(said.contains(r#"{"guest": true, "reason": "guest-shutdown"}"#), "{said}");
}

#[test]
fn a_machine_that_pauses_in_place_of_ending_needs_a_reset() {
    let (client, run_control, guest) = recorded();
    let dispatcher = client.monitor().dispatcher();
    client.ask("{'execute': 'set-action', 'arguments': {'shutdown': 'pause'}}");
    run_control.shutdown(dispatcher, ShutdownCause::GuestShutdown).unwrap();
    assert_eq!(run_control.run_state(), RunState::Shutdown);
    run_control.resume(dispatcher).unwrap_err();
    run_control.reset(dispatcher, ShutdownCause::HostQmpSystemReset).unwrap();
    run_control.resume(dispatcher).unwrap();
    run_control.shutdown(dispatcher, ShutdownCause::HostSignal).unwrap();
    assert_eq!(guest.take(), ["stop", "reset", "resume", "shutdown HostSignal"]);
}

#[test]
fn a_command_of_a_part_can_be_replaced() {
    let (client, run_control, guest) = recorded();
    let dispatcher = client.monitor().dispatcher();
    let replace = |registry: &mut Registry| {
        registry.remove_command("quit");
        registry.command("quit", |_: &Context| Err::<(), _>(Error::generic("Not today")))?;
        Ok::<_, RegisterError>(())
    };
    dispatcher.update(replace).unwrap();
    assert!(client.ask("{'execute': 'quit'}")[0].contains("Not today"));
    assert!(guest.take().is_empty());
    run_control.shutdown(dispatcher, ShutdownCause::HostUi).unwrap();
    assert_eq!(guest.take(), ["shutdown HostUi"]);
}

#[test]
fn all_or_none_of_the_instances_are_yanked() {
    let yank = Arc::new(Yank::default());
    let mut registry = Registry::new();
    register_yank(&mut registry, &yank).unwrap();
    let client = LocalClient::new(registry);
    let guest = Arc::new(Recorder::default());
    let yanked = Arc::clone(&guest);
    assert!(yank.insert(YankInstance::Migration, move || yanked.push("migration")));
    assert!(!yank.insert(YankInstance::Migration, || ()));
    let request =
        |instances| format!("{{'execute': 'yank', 'arguments': {{'instances': [{instances}]}}}}");
    let other = "{'type': 'migration'}, {'type': 'block-node', 'node-name': 'disk0'}";
    assert!(client.ask(&request(other))[0].contains("Instance not found"));
    assert!(guest.take().is_empty());
    assert_eq!(client.ask(&request("{'type': 'migration'}")), [r#"{"return": {}}"#]);
    assert_eq!(guest.take(), ["migration"]);
    assert!(yank.remove(&YankInstance::Migration));
    assert!(!yank.remove(&YankInstance::Migration));
    assert_eq!(client.ask("{'execute': 'query-yank'}"), [r#"{"return": []}"#]);
}

fn send(client: &UnixStream, text: &str, fd: BorrowedFd<'_>) {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptors = [fd];
    assert!(control.push(SendAncillaryMessage::ScmRights(&descriptors)));
    let bytes = [IoSlice::new(text.as_bytes())];
    assert_eq!(sendmsg(client, &bytes, &mut control, SendFlags::empty()), Ok(text.len()));
}

/// Has the sets hold these files in set 3, in this order.
fn holding(fd_sets: &Arc<FdSets>, files: &[&File]) {
    let mut registry = Registry::new();
    register_fd_sets(&mut registry, fd_sets).unwrap();
    let server = Server::new(Dispatcher::new(registry, version(), system_time));
    let server = server.stay().spawn().unwrap();
    let (stream, mut client) = UnixStream::pair().unwrap();
    server.control().serve(Box::new(stream), Layout::Compact).unwrap();
    let mut said = BufReader::new(client.try_clone().unwrap()).lines();
    client.write_all(b"{'execute': 'qmp_capabilities'}").unwrap();
    said.by_ref().take(2).for_each(|line| drop(line.unwrap()));
    for file in files {
        send(&client, "{'execute': 'add-fd', 'arguments': {'fdset-id': 3}}", file.as_fd());
        let line = said.next().unwrap().unwrap();
        assert!(line.contains(r#""fdset-id": 3"#), "{line}");
    }
    server.control().shutdown();
    server.wait();
}

#[test]
fn a_set_is_opened_by_access_mode() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk.img");
    let mut written = File::create(&path).unwrap();
    written.write_all(b"data").unwrap();
    let fd_sets = Arc::new(FdSets::default());
    let flags = |flags: OFlags| flags.bits().cast_signed();
    let errno = |path: &str, how| fd_sets.open(path, flags(how)).unwrap_err().raw_os_error();
    let expected = |errno: rustix::io::Errno| Some(errno.raw_os_error());
    assert_eq!(errno("/dev/fdset/3", OFlags::RDONLY), expected(rustix::io::Errno::NOENT));
    holding(&fd_sets, &[&written, &File::open(&path).unwrap()]);

    let read = fd_sets.open("/dev/fdset/3", flags(OFlags::RDONLY)).unwrap().unwrap();
    let mut text = String::new();
    File::from(read).read_to_string(&mut text).unwrap();
    assert_eq!(text, "data");
    assert_eq!(errno("/dev/fdset/3", OFlags::RDWR), expected(rustix::io::Errno::ACCESS));
    assert_eq!(
        errno("/dev/fdset/3", OFlags::RDONLY | OFlags::SYNC),
        expected(rustix::io::Errno::INVAL),
    );
    for path in ["/dev/fdset/", "/dev/fdset/x", "/dev/fdset/3/", "/dev/fdset/99999999999999999999"]
    {
        assert_eq!(errno(path, OFlags::RDONLY), expected(rustix::io::Errno::INVAL), "{path}");
    }
    assert!(fd_sets.open(&path, flags(OFlags::RDONLY)).unwrap().is_none());

    // All duplicates share the flags that can be set; the file is truncated if that is asked for.
    let how = OFlags::WRONLY | OFlags::APPEND | OFlags::TRUNC;
    let mut appends = File::from(fd_sets.open("/dev/fdset/3", flags(how)).unwrap().unwrap());
    assert!(rustix::fs::fcntl_getfl(&written).unwrap().contains(OFlags::APPEND));
    appends.rewind().unwrap();
    appends.write_all(b"new").unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "new");
}
